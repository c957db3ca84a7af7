"""Packs are made whole, whatever happens meanwhile, and only as large as they have to be."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.data import folders
from mindghost.data import pack as packs
from mindghost.data.pack import writer as pack_writer
from mindghost.data.pack.writer import Options, pack
from mindghost.errors import RunError, UserError
from mindghost.files import scratch
from tests.helpers.data_folders import CLASSES, cut, message_of
from tests.helpers.launchers import environment, run
from tests.helpers.pictures import save_image

COMMAND = [sys.executable, "-m", "mindghost", "pack"]


def photos(root: Path, count: int = 6) -> Path:
    """Grey clouds (JPEG halves colour) of 90 x 60 and 20 x 30 pixels in turns, one class."""
    rng = np.random.default_rng(0)
    for index in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (6, 9), np.uint8)).convert("RGB")
        (root / "one").mkdir(parents=True, exist_ok=True)
        picture = noise.resize((90, 60) if index % 2 == 0 else (20, 30), Image.Resampling.BICUBIC)
        picture.save(root / "one" / f"{index}.jpg")
    return root


@pytest.mark.fault("names", "ok")
@pytest.mark.parametrize("name", [b"a =+([x])\n\x1b'", b"dog\xff"])
def test_a_pack_of_any_name_of_classes_of_any_name(name, tmp_path):
    """MindRecord takes no folder that is no UTF-8: it never sees one."""
    source, target = tmp_path / os.fsdecode(b"in" + name), tmp_path / os.fsdecode(b"out" + name)
    for index, kind in enumerate((b"=1", b"c\xff\n")):
        (source / os.fsdecode(kind)).mkdir(parents=True)
        picture = Image.new("RGB", (9, 7), (index * 90, 7, 9))
        picture.save(source / os.fsdecode(kind) / os.fsdecode(b"0\xfe\n.png"))
    assert pack(source, target, Options()).made == 1
    ours = packs.open_pack(target)
    assert ours.classes == ("=1", os.fsdecode(b"c\xff\n"))
    assert [int(ours.read(index)[0, 0, 0]) for index in range(2)] == [0, 90]
    assert not [entry.name for entry in target.iterdir() if "ghostnet-" in entry.name]


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([5, 5, 5, 5, 1], [(0, 2), (2, 4), (4, 5)]),  # 10 bytes are not too many
        ([20, 1, 9, 1], [(0, 1), (1, 3), (3, 4)]),  # one that is larger has a shard of its own, and none is empty
        ([3], [(0, 1)]),
    ],
)
def test_shards_by_hand(sizes, parts):
    assert pack_writer._parts(np.array(sizes), 10) == [range(*part) for part in parts]


def test_sizes_in_a_pack_by_hand():
    """Of 90 x 60 pixels, the shorter side becomes 20; smaller images stay as they are; no side is lost to rounding."""
    assert pack_writer._scaled((90, 60), 20) == (30, 20)
    assert pack_writer._scaled((60, 90), 20) == (20, 30)
    for size in ((30, 20), (20, 20), (10, 90)):
        assert pack_writer._scaled(size, 20) == size
    assert pack_writer._scaled((90, 60), None) == (90, 60)
    assert pack_writer._scaled((1000, 21), 20) == (952, 20)


def test_a_pack_is_made_where_no_folder_is_yet(folder, tmp_path):
    assert pack(folder / "val", tmp_path / "a" / "b", Options()) == pack_writer.Packed(
        images=7,
        bytes_before=sum(file.stat().st_size for file in (folder / "val").rglob("*.png")),
        bytes_after=sum(file.stat().st_size for file in (tmp_path / "a" / "b").glob("*.mindrecord")),
        shards=1,
        made=1,
    )


def test_room_is_asked_for_and_given_back(tmp_path):
    pack_writer._make_room(tmp_path / "shard", [{"image": b"x" * 1000, "name": "a"}])
    assert not list(tmp_path.iterdir())


def test_images_are_scaled_down_without_jpeg(tmp_path):
    source = photos(tmp_path / "photos", 2)
    pack(source, tmp_path / "pack", Options(short_side=40, uncompressed=True))
    samples = packs.open_pack(tmp_path / "pack")
    large, small = (Image.open(source / "one" / f"{index}.jpg") for index in range(2))
    expected = large.resize((60, 40), Image.Resampling.BICUBIC, reducing_gap=3.0)
    np.testing.assert_array_equal(samples.read(0), np.asarray(expected))
    np.testing.assert_array_equal(samples.read(1), np.asarray(small))
    pack(source, tmp_path / "jpeg", Options(short_side=40))
    assert samples.digest() != packs.open_pack(tmp_path / "jpeg").digest()


def test_an_image_that_is_too_large_for_a_page_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "_LARGEST_IMAGE", 90 * 60 * 3)
    source = photos(tmp_path / "photos", 1)
    pack(source, tmp_path / "files", Options())
    with pytest.raises(UserError, match=r"one/0\.jpg: .* give --short_side"):
        pack(source, tmp_path / "pixels", Options(uncompressed=True))


def test_images_are_scaled_down_to_a_short_side(tmp_path):
    source = photos(tmp_path / "photos")
    pack(source, tmp_path / "pack", Options(short_side=40, quality=100))
    samples = packs.open_pack(tmp_path / "pack")
    for index in range(6):
        pixels = samples.read(index)
        path = source / "one" / f"{index}.jpg"
        if index % 2:
            assert samples.content(index) == path.read_bytes()
            continue
        assert pixels.shape == (40, 60, 3)
        # Pillow's own, without the detour of `reducing_gap`, and without JPEG.
        expected = np.asarray(Image.open(path).resize((60, 40), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(pixels - expected).mean() < 1.5
    assert samples.digest() != folders.open_folders(source).digest()


def test_a_name_that_is_no_utf_8(tmp_path):
    source = photos(tmp_path / "photos", 2)
    os.rename(source / "one" / "0.jpg", os.fsencode(source / "one") + b"/\xff.jpg")
    pack(source, tmp_path / "pack", Options())
    assert sorted(packs.open_pack(tmp_path / "pack").files.tolist()) == [b"one/1.jpg", b"one/\xff.jpg"]


def test_a_killed_command_goes_on(folder, packed, tmp_path):
    """SIGKILL at random moments: shards that were made stay, and the pack is that of a command that was not."""
    rng = random.Random(3)
    command = [sys.executable, "-c", PACK, str(folder / "train"), str(tmp_path / "pack")]
    for _ in range(6):
        process = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begins\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    # What other moments leave.
    (tmp_path / "pack").mkdir(exist_ok=True)
    for name in ("..plan.1.0.tmp", "..00000.npz.1.0.tmp", ".pack.npz.1.0.tmp"):
        (tmp_path / "pack" / name).touch()
    left = tmp_path / "pack" / ".ghostnet-shard-abcdefgh"
    left.mkdir()
    (left / scratch._LOCK).touch()
    subprocess.run(command, env=environment(tmp_path), stdout=subprocess.PIPE, check=True)
    found, expected = (dict(np.load(path / packs.INDEX)) for path in (tmp_path / "pack", packed / "train"))
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)
    names = {path.name for path in (packed / "train").iterdir()}
    assert {path.name for path in (tmp_path / "pack").iterdir()} == names


PACK = """
import sys
from pathlib import Path
from mindghost.data.pack.writer import Options, pack
print("begins", flush=True)
pack(Path(sys.argv[1]), Path(sys.argv[2]), Options(shard_bytes=400))
"""


def test_what_is_made_is_not_made_again(folder, tmp_path):
    options = Options(shard_bytes=400)
    first = pack(folder / "train", tmp_path / "pack", options)
    assert pack(folder / "train", tmp_path / "pack", options).made == 0
    (tmp_path / "pack" / packs.INDEX).unlink()
    assert pack(folder / "train", tmp_path / "pack", options).made == first.shards


def test_another_pack_is_kept_unless_it_is_to_be_overwritten(folder, tmp_path):
    target = tmp_path / "pack"
    pack(folder / "val", target, Options())
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    for source, options in ((folder / "train", Options()), (folder / "val", Options(short_side=5))):
        with pytest.raises(UserError) as caught:
            pack(source, target, options)
        message_of(caught, f"{target}: holds something else", "or a pack of other images or options", "--overwrite")
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert pack(folder / "train", target, Options(), overwrite=True).images == 23
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        pack(folder / "val", other, Options(), overwrite=True)
    assert (other / "mine.txt").read_text() == "precious"


def test_overwriting_deletes_what_a_pack_is_made_of_and_nothing_else(folder, tmp_path):
    target = tmp_path / "pack"
    pack(folder / "train", target, Options(shard_bytes=400))
    (target / "notes.txt").write_text("precious")
    (target / "mine").mkdir()
    (target / "mine" / "00000.mindrecord").write_text("precious")
    assert pack(folder / "val", target, Options(), overwrite=True).shards == 1
    expected = [".lock", ".plan", "00000.mindrecord", "00000.mindrecord.db", "mine", "notes.txt", "pack.npz"]
    assert sorted(path.name for path in target.iterdir()) == expected
    assert (target / "mine" / "00000.mindrecord").read_text() == "precious"


@pytest.mark.fault("disks", "clean error")
def test_a_full_disk_is_one_line_and_what_was_packed_is_gone_on_with(folder, full_disk, monkeypatch):
    """MindRecord itself ends with pages of C++, or with SIGSEGV."""
    small, why = full_disk
    target = small / "pack"
    with pytest.raises(RunError) as caught:
        pack(folder / "train", target, Options(shard_bytes=400))
    message_of(caught, f"{target}: 00000.mindrecord cannot be written ({why}; it takes 5.3 MB); make room, and give")
    assert sorted(path.name for path in target.iterdir()) == [".lock", ".plan"]


@pytest.mark.fault("disks", "clean error")
def test_an_index_that_the_system_refuses_is_one_line(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "pack" / packs.INDEX))

    monkeypatch.setattr(pack_writer, "_finish", refuse)
    with pytest.raises(RunError) as caught:
        pack(folder / "train", tmp_path / "pack", Options())
    message_of(caught, f"{tmp_path}/pack/{packs.INDEX}: No space left on device; what was packed so far is kept")


@pytest.mark.fault("disks", "clean error")
@pytest.mark.parametrize("full_disk", ["tmpfs"], indirect=True)
def test_a_disk_that_fills_up_while_a_shard_is_written_is_one_line(folder, full_disk, monkeypatch):
    small, _ = full_disk
    monkeypatch.setattr(pack_writer, "_make_room", lambda *_: None)
    with pytest.raises(RunError) as caught:
        pack(folder / "train", small / "pack", Options(shard_bytes=400))
    message_of(caught, "00000.mindrecord: MindRecord cannot write it (", "it goes on with this shard")


@pytest.mark.parametrize(
    ("count", "size", "name"),
    [(1, 1, 1), (300, 14_000, 9), (9, 2_000_000, 9), (3, 4_194_288, 9), (3, 4_194_304, 9), (6_000, 60, 800)],
)
def test_the_room_for_a_shard_is_enough_and_hardly_more(tmp_path, count, size, name):
    rows = [{"name": "n" * name, "label": index, "image": bytes(size)} for index in range(count)]
    path = tmp_path / "00000.mindrecord"
    pack_writer._write_shard(path, rows)
    taken = sum(file.stat().st_size for file in tmp_path.iterdir())
    page = pack_writer._page_bytes(rows)
    assert 0 <= pack_writer._most_bytes(rows) - taken < page + 700_000


def test_a_damaged_pack_is_made_again(folder, tmp_path):
    """Not silently taken for complete, and not before --overwrite."""
    target = tmp_path / "pack"
    pack(folder / "val", target, Options())
    good = (target / "00000.mindrecord").read_bytes()
    cut(target / "00000.mindrecord", 1)
    with pytest.raises(UserError) as caught:
        pack(folder / "val", target, Options())
    message_of(caught, "00000.mindrecord: ", "bytes instead of", "mindghost pack --overwrite")
    assert pack(folder / "val", target, Options(), overwrite=True).made == 1
    assert len((target / "00000.mindrecord").read_bytes()) == len(good)
    samples = packs.open_pack(target)
    assert [samples.read(index).shape for index in range(7)] == [(10, 12, 3)] * 7


@pytest.mark.fault("packs", "clean error")
def test_a_shard_that_does_not_hold_what_was_written(folder, tmp_path, monkeypatch):
    write = pack_writer._write_shard

    def write_and_damage(path: Path, rows: list) -> None:
        write(path, rows)
        content = path.read_bytes()
        path.write_bytes(content.replace(rows[0]["image"], bytes(len(rows[0]["image"]))))

    monkeypatch.setattr(pack_writer, "_write_shard", write_and_damage)
    with pytest.raises(RunError, match="is not where MindRecord's index has it"):
        pack(folder / "val", tmp_path / "pack", Options())
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == [".lock", ".plan"]


def test_the_command(folder, tmp_path):
    """As a person runs it: packs, trains from the pack, and is told in one line what cannot be."""
    done = run([*COMMAND, "--data_dir", str(folder), "--out", str(tmp_path / "p")], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    train, val = done.stdout.splitlines()
    assert train.startswith(f"{tmp_path / 'p' / 'train'}: 23 images in 1 shard(s), 1 made now; ")
    assert val.startswith(f"{tmp_path / 'p' / 'val'}: 7 images in 1 shard(s), 1 made now; ")

    save_image(tmp_path / "d" / "train" / CLASSES[0] / "good.png", 1)
    (tmp_path / "d" / "train" / CLASSES[0] / "bad.jpg").write_bytes(b"no image")
    cases = [
        (["--data_dir", str(tmp_path / "d"), "--out", str(tmp_path / "q")], "bad.jpg: not a readable image ("),
        (["--data_dir", str(tmp_path / "e"), "--out", str(tmp_path / "q")], "--data_dir: "),
        (["--data_dir", str(folder), "--splits", "test", "--out", str(tmp_path / "q")], "--splits: "),
        (["--data_dir", str(folder), "--out", "/proc/nowhere"], "--out: /proc/nowhere/train cannot be made ("),
        (["--data_dir", str(folder), "--out", "x", "--quality", "0"], "--quality: expected an integer from 1 to 100"),
    ]
    for arguments, said in cases:
        done = run([*COMMAND, *arguments], tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("mindghost pack: error: ")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "q").rglob("*.mindrecord"))


def test_jpeg_quality(tmp_path):
    """More of it, more bytes."""
    path = tmp_path / "one" / "noise.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    samples = folders.open_folders(tmp_path)
    sizes = [len(pack_writer.file_of(samples, 0, Options(32, quality))) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


@pytest.mark.fault("packs", "ok")
def test_a_damaged_part_of_an_index_has_its_shard_made_again(folder, tmp_path):
    options = Options(shard_bytes=400)
    first = pack(folder / "val", tmp_path / "pack", options)
    (tmp_path / "pack" / packs.INDEX).unlink()
    (tmp_path / "pack" / ".00000.npz").write_bytes(b"PK")
    assert pack(folder / "val", tmp_path / "pack", options).images == first.images


def test_the_index_is_deleted_first(folder, tmp_path, monkeypatch):
    """Without it nobody takes what is left of a pack, where the deletion is cut short, for a whole one."""
    pack(folder / "val", tmp_path / "pack", Options())
    deleted, unlink = [], Path.unlink

    def unlinked(path, *given, **keys):
        deleted.append(path.name)
        unlink(path, *given, **keys)

    monkeypatch.setattr(Path, "unlink", unlinked)
    pack(folder / "val", tmp_path / "pack", Options(quality=80), overwrite=True)
    assert deleted[0] == pack_writer.INDEX
    assert any(name.startswith("shard") or name.endswith(".mindrecord") for name in deleted[1:])
