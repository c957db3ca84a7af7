"""What is said of an image: as `predict` and `search` say it, and of anything that is none."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mindghost.data import images, transforms
from mindghost.demo import answers
from mindghost.demo.answers import Answerer, Wanted
from mindghost.errors import UserError
from mindghost.inference import artifact
from mindghost.inference.explain import open_explainer
from mindghost.inference.predictor import Predictor
from mindghost.search import query
from mindghost.search.index import Index
from mindghost.tasks import heat
from tests.helpers.trained import write_run

pytestmark = pytest.mark.usefixtures("short_network")


@pytest.fixture(scope="module")
def answerer(made) -> Answerer:
    patch = pytest.MonkeyPatch()
    from mindghost.models import ghostnet
    from tests.helpers import short

    patch.setattr(ghostnet, "STAGES", short.stages())
    found = Answerer(artifact.of_file(made / "run" / "ghostnet_050_best.ckpt"), Index.open(made / "i.index"))
    found.warm_up()
    patch.undo()
    return found


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels_of(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def test_answers_are_those_of_predict_and_neighbours_those_of_search(answerer, made):
    path = made / "D" / "val" / "bee" / "1.png"
    answer = answerer.answer(path.read_bytes(), "mine.png")
    (expected,) = Predictor(answerer.deployed, open_explainer(answerer.deployed, "", "layercam", None)).predict(
        [str(path)]
    )
    assert answer.prediction.image == "mine.png"
    assert [guess.name for guess in answer.prediction.answers] == [guess.name for guess in expected.answers]
    for mine, theirs in zip(answer.prediction.answers, expected.answers, strict=True):
        assert mine.probability == pytest.approx(theirs.probability, abs=1e-5)
    np.testing.assert_allclose(answer.prediction.heat, expected.heat, rtol=1e-3, atol=1e-5 * expected.heat.max())
    (found,) = query.neighbours(answerer.index, answerer.deployed, [str(path)], 8)
    assert [each.path for each in answer.neighbours] == [each.path for each in found.neighbours]
    assert answer.neighbours[0].path == str(path)
    assert answer.neighbours[0].score == pytest.approx(1, abs=1e-5)
    assert (answer.neighbours[0].name, len(answer.neighbours)) == ("bee", 6)


def test_the_map_lies_over_the_picture(answerer):
    pixels = pixels_of(300, 400)
    answer = answerer.answer(encoded(pixels, "PNG"), "a.png")
    np.testing.assert_array_equal(answer.picture, pixels)
    box = transforms.seen_box(answerer.deployed.config, 300, 400)
    np.testing.assert_array_equal(answer.overlay, heat.over(pixels, answer.prediction.heat, box))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says it is so large, and ends there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable image"),
        (b"<svg onload=alert(1)>", "not a readable image"),
        (b"\0" * 1000, "not a readable image"),
        (png_header(100_000, 100_000), "could be decompression bomb"),
        (png_header(10_000, 10_000), "are accepted"),
        (png_header(60_000, 10), "no side may be over"),
        (encoded(pixels_of(), "JPEG")[:400], "not a readable image"),
        (encoded(np.ones((4, 4), np.float32), "TIFF"), "floating-point pixels"),
    ],
    ids=["nothing", "text", "zeros", "bomb", "large", "thread", "half", "float"],
)
def test_what_is_no_image_is_one_line_and_the_next_one_is_answered(answerer, content, words):
    answer = answerer.answer(content, "x.png")
    assert answer.prediction.problem.startswith("x.png: ")
    assert words in answer.prediction.problem
    assert "\n" not in answer.prediction.problem
    assert (answer.picture, answer.neighbours, answer.prediction.answers) == (None, (), ())
    assert answerer.answer(encoded(pixels_of(), "PNG"), "y.png").prediction.answers


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Memory not enough: current free memory size[1]")])
def test_a_machine_without_memory_is_one_line(answerer, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(answerer._predictor, "of_pixels", fail)
    answer = answerer.answer(encoded(pixels_of(), "PNG"), "x.png")
    assert answer.prediction.problem.startswith("x.png: memory ran out")


def test_an_image_is_turned_upright(answerer):
    pixels = pixels_of()
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(pixels, "PNG", exif=exif)
    answer = answerer.answer(content, "turned.png")
    np.testing.assert_array_equal(answer.prediction.pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (encoded(Image.fromarray(pixels_of()).convert("CMYK"), "JPEG"), False),
        (encoded((np.arange(2400, dtype=np.uint16) * 20).reshape(40, 60), "PNG"), False),
        (encoded(Image.fromarray(pixels_of()).convert("P"), "GIF"), False),
        (encoded(np.uint8(np.arange(256).reshape(16, 16)), "BMP"), False),
        (
            encoded(
                Image.fromarray(pixels_of()), "GIF", save_all=True, append_images=[Image.fromarray(255 - pixels_of())]
            ),
            True,
        ),
        (encoded(pixels_of(1, 700), "PNG"), False),
        (encoded(pixels_of(1, 1), "PNG"), False),
    ],
    ids=["cmyk", "16 bits", "palette", "grey", "animated", "line", "pixel"],
)
def test_images_of_all_kinds_are_answered(answerer, content, first):
    answer = answerer.answer(content, "a")
    assert answer.prediction.problem == ""
    assert len(answer.prediction.answers) == 3
    assert answer.is_first == first
    assert answer.overlay.shape == answer.picture.shape
    assert answer.overlay.dtype == np.uint8


def test_an_exported_file_has_no_map_and_the_same_neighbours(answerer, made, exported):
    deployed = artifact.of_file(exported)
    other = Answerer(deployed, answerer.index, Wanted(top_k=2, neighbours=3))
    other.warm_up()
    content = (made / "D" / "val" / "cat" / "0.png").read_bytes()
    mine, theirs = other.answer(content, "a.png"), answerer.answer(content, "a.png")
    assert (other.explains, mine.overlay) == (False, None)
    assert len(mine.prediction.answers) == 2
    assert mine.prediction.answers[0].probability == pytest.approx(theirs.prediction.answers[0].probability, abs=1e-4)
    assert [each.path for each in mine.neighbours] == [each.path for each in theirs.neighbours[:3]]


def test_a_layer_of_an_exported_file_is_refused(exported):
    deployed = artifact.of_file(exported)
    with pytest.raises(UserError, match="is an exported file, which has no gradients"):
        Answerer(deployed, None, Wanted(explain_layer="blocks.0"))


def test_no_maps_where_nobody_wants_them(made):
    deployed = artifact.of_file(made / "run" / "ghostnet_050_best.ckpt")
    answerer = Answerer(deployed, None, Wanted(explain=False))
    answer = answerer.answer(encoded(pixels_of(), "PNG"), "a.png")
    assert (answerer.explains, answer.overlay, answer.neighbours) == (False, None, ())
    assert answer.prediction.heat is None


def test_an_index_of_another_network_is_refused(made, tmp_path):
    other = artifact.of_file(write_run(tmp_path / "other", model="ghostnet_050", image_resize=32))
    with pytest.raises(UserError, match="not of the network of"):
        Answerer(other, Index.open(made / "i.index"))


def test_a_temperature_is_heeded(answerer, made):
    content = encoded(pixels_of(), "PNG")
    deployed = replace(answerer.deployed, temperature=1e6)
    even = Answerer(deployed, None, Wanted(explain=False)).answer(content, "a.png")
    assert [guess.probability for guess in even.prediction.answers] == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_several_labels_are_those_over_their_thresholds(tmp_path):
    path = write_run(tmp_path, model="ghostnet_050", image_resize=32, task="multi_label", loss="BCE")
    deployed = artifact.of_file(path)
    content = encoded(pixels_of(), "PNG")
    for threshold, count in ((0.0, 3), (1.0, 0)):
        answerer = Answerer(replace(deployed, thresholds=(threshold,) * 3))
        answer = answerer.answer(content, "a.png")
        assert len(answer.prediction.answers) == count
        assert answer.overlay is not None


def test_masks_lie_over_the_picture(tmp_path, monkeypatch):
    from mindghost.models import ghostnet
    from tests.helpers import short

    monkeypatch.undo()
    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())
    path = write_run(tmp_path, model="ghost_unet", backbone="ghostnet_050", task="segmentation", image_resize=64)
    deployed = artifact.of_file(path)
    answerer = Answerer(deployed)
    answerer.warm_up()
    pixels = pixels_of(60, 300)
    answer = answerer.answer(encoded(pixels, "PNG"), "a.png")
    assert answerer.explains is False
    colors = np.array(deployed.colors)[answer.prediction.mask]
    np.testing.assert_allclose(answer.overlay, (pixels.astype(float) + colors) / 2, atol=0.5)
    assert sum(guess.probability for guess in answer.prediction.answers) == pytest.approx(1)
    # A large image is shown smaller, and its mask with it.
    large = answerer.answer(encoded(np.repeat(pixels, 10, 1), "PNG"), "a.png")
    assert large.prediction.mask.shape == (60, 3000)
    assert large.overlay.shape == large.picture.shape == (20, 1024, 3)


def test_a_page_shows_large_images_smaller_and_small_ones_larger():
    assert answers.at_size_of_page(np.zeros((500, 2048, 3), np.uint8)).shape == (250, 1024, 3)
    small = pixels_of(20, 33)
    shown = answers.at_size_of_page(small)
    assert shown.shape == (160, 264, 3)
    np.testing.assert_array_equal(shown[::8, ::8], small)
    assert answers.at_size_of_page(pixels_of(256, 100)).shape == (256, 100, 3)
    # As long and thin as an image may be.
    assert answers.at_size_of_page(np.zeros((images.MAX_SIDE // 1000, images.MAX_SIDE, 3), np.uint8)).shape[0] >= 1
