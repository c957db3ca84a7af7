"""What is read of an image file, whoever reads it: orientation, pixels, odd sizes, damage, a machine in need."""

from __future__ import annotations

import io
import os
import resource
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from mindghost.csrc.cpp_library import NativeError
from mindghost.data import evaluation, images, jpeg, loader, transforms
from mindghost.data import pack as packs
from mindghost.data.dataset import open_split
from mindghost.data.folders import open_folders
from mindghost.data.images import read_image
from mindghost.data.pack import writer as pack_writer
from mindghost.errors import RunError, UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image

try:
    DECODER = jpeg.Decoder(jpeg.library().build())
except NativeError:
    DECODER = None

# --- Orientation

CELL = 8  # pixels: a block of a JPEG file, which an even grey survives exactly
STORED = [[10, 60, 110], [160, 200, 250]]
# By hand: what a viewer shows of the stored cells, for each orientation that EXIF knows.
SEEN = {
    1: [[10, 60, 110], [160, 200, 250]],
    2: [[110, 60, 10], [250, 200, 160]],
    3: [[250, 200, 160], [110, 60, 10]],
    4: [[160, 200, 250], [10, 60, 110]],
    5: [[10, 160], [60, 200], [110, 250]],
    6: [[160, 10], [200, 60], [250, 110]],
    7: [[250, 110], [200, 60], [160, 10]],
    8: [[110, 250], [60, 200], [10, 160]],
}
TURNED = {
    "JPEG": ("jpg", {"format": "JPEG", "quality": 100}),
    "progressive JPEG": ("jpg", {"format": "JPEG", "quality": 100, "progressive": True}),
    "MPO of two pictures": ("mpo", {"format": "MPO", "quality": 100, "save_all": True, "append_images": "another"}),
    "PNG": ("png", {"format": "PNG"}),
    "WebP": ("webp", {"format": "WEBP", "lossless": True}),
    "TIFF": ("tif", {"format": "TIFF"}),
    "TIFF, LZW": ("tiff", {"format": "TIFF", "compression": "tiff_lzw"}),
}


def cells(values: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.kron(np.array(values, np.uint8), np.ones((CELL, CELL), np.uint8))).convert("RGB")


def middles(pixels: np.ndarray) -> list[list[int]]:
    """The value of each cell, which is grey."""
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels, axis=2).max() == 0
    return pixels[CELL // 2 :: CELL, CELL // 2 :: CELL, 0].tolist()


def save_turned(folder: Path, kind: str, orientation: int) -> Path:
    ending, options = TURNED[kind]
    if options.get("append_images"):
        options = {**options, "append_images": [cells([[0, 0, 0], [0, 0, 0]])]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"{orientation}.{ending}"
    cells(STORED).save(path, exif=exif, **options)
    return path


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("kind", TURNED)
def test_prediction_turns_once_and_training_never(tmp_path, kind):
    for orientation, seen in SEEN.items():
        path = str(save_turned(tmp_path, kind, orientation))
        assert middles(read_image(path, upright=True)) == seen, orientation
        assert middles(read_image(path)) == STORED, orientation
        assert middles(np.asarray(images.open_image(path, DECODER))) == STORED, orientation
        assert middles(np.asarray(images.open_content(Path(path).read_bytes(), "x", DECODER))) == STORED, orientation
        assert images.size(path) == (3 * CELL, 2 * CELL)


@pytest.mark.fault("pictures", "ok")
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path):
    for value in (0, 9, 65535):
        for kind in ("JPEG", "TIFF"):
            path = str(save_turned(tmp_path, kind, value))
            assert middles(read_image(path, upright=True)) == middles(read_image(path)) == STORED


@pytest.mark.fault("pictures", "ok")
@pytest.mark.filterwarnings("ignore")  # pytest undoes the package's filter
def test_damaged_exif_data_cost_nothing_but_the_turn(tmp_path):
    path = tmp_path / "a.jpg"
    cells(STORED).save(path, quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(40))
    assert middles(read_image(str(path), upright=True)) == STORED
    cells(STORED).save(path, quality=100, exif=b"Exif\0\0no such thing")
    assert middles(read_image(str(path), upright=True)) == STORED


# --- Kinds of pixels

GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
GREY_RGB = GREY[..., None].repeat(3, 2)


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.pgm", b"P5\n2 1\n255\n\x07\xc8", [7, 200]),
        ("wide.pgm", b"P5\n3 1\n65535\n\x00\x80\x00\x81\xff\xff", [0, 1, 255]),  # 128, 129, 65535: by 257, rounded
        ("text.pgm", b"P2\n2 1\n255\n7 200\n", [7, 200]),
        ("a.pbm", b"P4\n8 1\n\xa0", [0, 255, 0, 255, 255, 255, 255, 255]),  # 1 is black
        ("a.pnm", b"P6\n1 1\n255\n\x01\x01\x01", [1]),
    ],
)
def test_portable_pixmaps(tmp_path, name, content, expected):
    path = tmp_path / "train" / "ant" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    samples = open_folders(tmp_path / "train")
    assert samples.read(0)[0, :, 0].tolist() == expected


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "mpo"])
def test_other_endings_of_jpeg_files_are_images(tmp_path, ending):
    (tmp_path / "ant").mkdir()
    cells(STORED).save(tmp_path / "ant" / f"a.{ending}", "JPEG", quality=100)
    assert middles(open_folders(tmp_path, DECODER).read(0)) == STORED


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, kind):
    path = tmp_path / "a.x"
    first, second = cells(STORED), cells([[0, 0, 0], [0, 0, 0]])
    more = {"lossless": True} if kind == "WEBP" else {}
    first.save(path, kind, save_all=True, append_images=[second, first], duration=50, **more)
    assert middles(read_image(str(path))) == middles(read_image(str(path), upright=True)) == STORED


@pytest.mark.fault("pictures", "ok")
def test_a_colour_profile_changes_no_pixel(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name in ("a.png", "a.tif", "a.jpg"):
        cells(STORED).save(tmp_path / name, icc_profile=profile, **({"quality": 100} if name == "a.jpg" else {}))
        assert middles(read_image(str(tmp_path / name))) == STORED


@pytest.mark.fault("pictures", "ok")
def test_a_single_pixel_is_an_image(tmp_path):
    save_image(tmp_path / "train" / "ant" / "a.png", 77, size=(1, 1))
    config = config_for(tmp_path, val_split="train", scale=(0.08, 1.0), ratio=(0.75, 1.33), batch_size=1)
    samples = open_split(config, "train")
    trained = loader.train_batches(config, samples, 1).create_tuple_iterator(num_epochs=1, output_numpy=True)
    for batches in (evaluation.eval_batches(config, samples), trained):
        [pixels] = [np.array(batch[0]) for batch in batches]
        assert pixels.shape == (1, 3, 8, 8)
        assert np.unique(pixels[0, 0]).tolist() == [77]


# --- Sizes


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG file of one pixel, but for what its header says."""
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "PNG")
    content = buffer.getvalue()
    at = content.index(b"IHDR")
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return content[:at] + header + struct.pack(">I", zlib.crc32(header)) + content[at + len(header) + 4 :]


@pytest.mark.fault("pictures", "clean error")
@pytest.mark.parametrize(("width", "height"), [(1, 80_000_000), (80_000_000, 1), (70, 65_536), (2, 2_001), (1_001, 1)])
def test_long_and_narrow_images_are_refused_by_their_header(tmp_path, width, height):
    path = tmp_path / "a.png"
    path.write_bytes(png_that_claims(width, height))
    plain = b"P6\n%d %d\n255\n" % (width, height)
    for read in (read_image, lambda name: images.check_image(name, decode=False), images.size):
        with pytest.raises(UserError) as caught:
            read(str(path))
        message_of(caught, path, f"{width} x {height} pixels, but no side")
    if width * height < 10_000:
        with pytest.raises(UserError):
            images.decode_image(plain + bytes(3 * width * height), "plain.ppm")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 1_000), (2_000, 2), (66, 65_535), (1_365, 65_535)])
def test_images_within_the_bounds_are_taken(tmp_path, width, height):
    path = tmp_path / "a.png"
    path.write_bytes(png_that_claims(width, height))
    images.check_image(str(path), decode=False)
    assert images.size(str(path)) == (width, height)


@pytest.mark.fault("pictures", "clean error")
@pytest.mark.skipif(DECODER is None, reason="no library")
def test_narrow_jpeg_files_are_refused_too():
    buffer = io.BytesIO()
    Image.new("L", (2, 2_001)).save(buffer, "JPEG")
    with pytest.raises(UserError) as caught:
        images.open_content(buffer.getvalue(), "a.jpg", DECODER)
    message_of(caught, "a.jpg", "2 x 2001 pixels")


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (3, 900)])
def test_narrow_images_within_bounds_are_trained_on_and_evaluated(shape):
    """The middle of the long side, enlarged: of 1 x 1000 pixels the one in the middle and a bit of its neighbours."""
    ramp = np.linspace(0, 250, max(shape)).astype(np.uint8)
    pixels = np.broadcast_to(ramp if shape[1] > shape[0] else ramp[:, None], shape)[..., None].repeat(3, 2)
    for side in (32, 640):  # 640 x 640,000 pixels are never made
        config = config_for(Path("x"), image_resize=side, scale=(0.08, 1.0), ratio=(0.75, 1.33))
        seen = transforms.eval_transform(config)(np.ascontiguousarray(pixels))
        assert seen.shape == (3, side, side)
        assert np.abs(seen - 125).max() <= 2
        trained = transforms.train_transform(config)(np.ascontiguousarray(pixels), np.random.default_rng(0))
        assert trained.shape == (3, side, side)


# --- Damage, and what others have set


@pytest.mark.fault("pictures", "clean error")
def test_half_an_image_is_none_whatever_a_library_has_set(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG", "TIFF", "GIF", "BMP", "PPM"):
        path = tmp_path / f"a.{kind.lower()}"
        cells(STORED).save(path, kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        for read in (read_image, lambda name: images.check_image(name, decode=True)):
            with pytest.raises(UserError) as caught:
                read(str(path))
            message_of(caught, path, "not a readable image")


@pytest.mark.fault("pictures", "clean error")
def test_a_text_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.png"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * 50_000_000, zip=True)
    Image.new("L", (4, 4)).save(path, pnginfo=notes)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError) as caught:
        read_image(str(path))
    message_of(caught, path)


@pytest.mark.fault("pictures", "clean error")
def test_a_progressive_file_of_thousands_of_scans_is_refused(tmp_path):
    """Ten bytes each, and each a pass over all pixels: the last scan of a file, again and again."""
    buffer = io.BytesIO()
    cells(STORED).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    few, many = tmp_path / "few.jpg", tmp_path / "many.jpg"
    few.write_bytes(content[:-2] + 100 * last + content[-2:])
    many.write_bytes(content[:-2] + 1000 * last + content[-2:])
    assert read_image(str(few)).shape == np.asarray(images.open_image(str(few), DECODER)).shape == (16, 24, 3)
    reads = (read_image, lambda name: read_image(name, upright=True), lambda name: images.open_image(name, DECODER))
    for read in (*reads, lambda name: images.check_image(name, decode=True)):
        with pytest.raises(UserError) as caught:
            read(str(many))
        message_of(caught, many, "scans")


SPOILT = """
import sys
from mindghost.data import images
from mindghost.errors import UserError
for path in sys.argv[1:]:
    for read in (images.read_image, lambda name: images.read_image(name, upright=True)):
        try:
            read(path)
        except UserError as error:
            assert "\\n" not in str(error)
"""


@pytest.mark.fault("pictures", "ok")
def test_nothing_but_our_own_line_is_printed_of_damaged_files(tmp_path):
    """Neither Pillow's warnings nor those of its libraries: of palettes, metadata, broken strips."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 99
    palette = Image.fromarray(GREY).convert("P")
    palette.info["transparency"] = bytes(range(200))
    pictures = {
        "p.png": (palette, {}),
        "a.jpg": (cells(STORED), {"exif": exif}),
        "z.tif": (cells(STORED), {"compression": "tiff_deflate", "exif": exif}),
        "l.tif": (cells(STORED), {"compression": "tiff_lzw"}),
        "j.tif": (cells(STORED), {"compression": "jpeg"}),
        "g.tif": (cells(STORED).convert("1"), {"compression": "group4"}),
        "w.webp": (cells(STORED), {"exif": exif}),
        "m.mpo": (cells(STORED), {"format": "MPO", "save_all": True, "append_images": [cells(STORED)]}),
    }
    rng = np.random.default_rng(0)
    for name, (picture, options) in pictures.items():
        path = tmp_path / name
        picture.save(path, **options)
        content = path.read_bytes()
        for number in range(12):
            spoilt = bytearray(content)
            for place in rng.integers(4, len(content), 3):
                spoilt[place] = rng.integers(256)
            (tmp_path / f"{number}{name}").write_bytes(spoilt[: None if number % 3 else len(content) * 2 // 3])
    files = sorted(map(str, tmp_path.iterdir()))
    result = subprocess.run([sys.executable, "-c", SPOILT, *files], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- What is no file any more


def _a_fifo(path: Path) -> None:
    os.mkfifo(path)


def _a_folder(path: Path) -> None:
    path.mkdir()


def _a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name may not be long
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _nothing(path: Path) -> None:
    pass


def _a_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.fault("pictures", "clean error")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_a_fifo, "a FIFO, not a file"),
        (_a_folder, "a folder, not a file"),
        (_a_socket, "a socket, not a file"),
        (_nothing, "no such file"),
        (_a_loop, "symbolic links"),
    ],
)
def test_what_becomes_of_an_image_during_training_is_one_line(tmp_path, change, said):
    for value in range(4):
        save_image(tmp_path / "train" / "ant" / f"{value}.png", value)
    config = config_for(tmp_path)
    samples = open_split(config, "train")
    path = tmp_path / "train" / "ant" / "2.png"
    path.unlink()
    change(path)
    for read in (samples.read, lambda index: read_image(samples.name(index), upright=True)):
        with pytest.raises(UserError) as caught:
            read(2)
        message_of(caught, path, said)
    with pytest.raises(RuntimeError) as caught:
        list(loader.train_batches(config, samples, 1).create_tuple_iterator(num_epochs=1))
    assert str(loader.error_from(caught.value)).startswith(f"{path}: {said}" if said[0] != "s" else f"{path}: cannot")


# --- What the machine lacks


@pytest.mark.fault("pictures", "clean error")
def test_too_few_open_files_are_not_an_images_fault(tmp_path):
    path = tmp_path / "ant" / "a.png"
    save_image(path, 1)
    pack_writer.pack(tmp_path, tmp_path.with_name("pack"), pack_writer.Options())
    packed = packs.open_pack(tmp_path.with_name("pack"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    filled = [os.open(os.devnull, os.O_RDONLY) for _ in range(used)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, before[1]))
        for use in (
            lambda: read_image(str(path)),
            lambda: images.open_image(str(path), DECODER),
            lambda: images.check_image(str(path), decode=True),
            lambda: open_folders(tmp_path),
            lambda: packed.read(0),
        ):
            with pytest.raises(RunError) as caught:
                use()
            message_of(caught, "ulimit -n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in filled:
            os.close(descriptor)


TOO_LITTLE = """
import resource, sys
from mindghost.data import images
from mindghost.errors import RunError, UserError
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        images.check_image(path, decode=True)
        images.read_image(path)
        print("read")
    except (RunError, UserError) as error:
        print(type(error).__name__, error)
"""


@pytest.mark.fault("pictures", "clean error")
def test_too_little_memory_is_not_an_images_fault(tmp_path):
    """With 40 MB: a picture of 75 MB is the machine's fault, a damaged small one its own; a good small one is read."""
    names = [tmp_path / "small.png", tmp_path / "damaged.png"]
    cells(STORED).save(names[0])
    names[1].write_bytes(names[0].read_bytes()[:-30])
    for kind in ("png", "jpg", "tif", "webp", "gif", "bmp"):
        names.append(tmp_path / f"large.{kind}")
        large = Image.new("L" if kind in ("jpg", "webp") else "1", (5_000, 5_000))
        large.save(names[-1], **({"method": 0, "quality": 0} if kind == "webp" else {}))
    result = subprocess.run([sys.executable, "-c", TOO_LITTLE, *names], capture_output=True, text=True, timeout=120)
    lines = result.stdout.splitlines()
    assert result.stderr == ""
    assert lines[0] == "read"
    assert lines[1].startswith(f"UserError {names[1]}: not a readable image")
    for name, line in zip(names[2:], lines[2:], strict=True):
        assert line.startswith(f"RunError {name}: memory ran out"), line


@pytest.mark.fault("pictures", "clean error")
def test_a_file_that_asks_for_too_much_is_at_fault_itself(tmp_path, monkeypatch):
    """Pillow's MemoryError where there is memory: tried twice, other threads may have had it, then the file's fault."""
    save_image(tmp_path / "a.png", 1)
    tries = []

    def load(image: Image.Image) -> None:
        tries.append(image.size)
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(UserError) as caught:
        read_image(str(tmp_path / "a.png"))
    message_of(caught, tmp_path / "a.png", "more memory than its size explains")
    assert len(tries) == 2
