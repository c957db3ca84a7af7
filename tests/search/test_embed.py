"""Vectors of images: those of `forward_head(pre_logits=True)`, of all layouts and formats; a run that goes on."""

import hashlib
import logging
import os
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from mindghost import build, tasks
from mindghost.config import Config
from mindghost.data import images
from mindghost.deploy import export
from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.inference import artifact
from mindghost.search import embed, reading
from mindghost.search.embed import Embedder
from mindghost.search.vectors import check_same
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

KEYS = {"model": "ghostnet_050", "image_resize": 32, "crop_pct": 0.8, "num_parallel_workers": 2}


@pytest.fixture(autouse=True)
def shorter(short_network) -> None:
    """All networks here are short."""


@pytest.fixture
def data(tmp_path) -> Path:
    return write_images(tmp_path / "D", CLASSES, 4, 2)


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_run(tmp_path / "run", **KEYS)


def expected(weights: Path, files: list[str]) -> np.ndarray:
    """By the network itself, image by image, operator by operator."""
    config = Config.from_file(weights.parent / "config.yaml")
    network, _ = build.trained_network(config.replace(ckpt_path=str(weights)))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network.set_train(False)
    transform = tasks.of(config).eval_transform(config)
    found = []
    for file in files:
        pixels = Tensor(transform(images.read_image(file, upright=True))[np.newaxis])
        vector = network.forward_head(network.forward_features(pixels), pre_logits=True).asnumpy()[0]
        found.append(vector / np.linalg.norm(vector))
    return np.stack(found)


def embedded(path: Path, *given: object):
    """By the network in a file."""
    deployed = artifact.of_file(path)
    samples = reading.opened(list(map(str, given)), deployed.config)
    return Embedder.open(deployed, sum(map(len, samples)), 5).vectors(samples)


def colours(images: np.ndarray) -> np.ndarray:
    """In the place of a network: mean and deviation of each channel."""
    found = np.concatenate([images.mean(axis=(2, 3)), images.std(axis=(2, 3))], axis=1)
    return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def quickly(path: Path, *given: object, work: Path | None = None, **keys):
    """By no network: for what is about anything else."""
    deployed = artifact.of_file(path)
    samples = reading.opened(list(map(str, given)), deployed.config)
    return Embedder(deployed, colours, 5, embed.origin_of(deployed)).vectors(samples, work, **keys)


@pytest.mark.parametrize("many", [1, 1000], ids=["as a graph", "operator by operator"])
def test_they_are_the_networks_own(many, weights, data, monkeypatch):
    monkeypatch.setattr(embed, "MANY", many)
    found, problems = embedded(weights, data)
    assert not problems
    files = [
        str(data / split / kind / f"{n}.png")
        for split, most in (("train", 4), ("val", 2))
        for kind in CLASSES
        for n in range(most)
    ]
    assert found.paths.tolist() == files
    np.testing.assert_allclose(found.vectors, expected(weights, files), atol=1e-5)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    assert [found.classes[label] for label in found.labels] == [file.split("/")[-2] for file in files]
    assert found.sizes.tolist() == [os.stat(file).st_size for file in files]
    assert found.times.tolist() == [os.stat(file).st_mtime_ns for file in files]
    assert found.digests[3].tobytes() == hashlib.sha256(Path(files[3]).read_bytes()).digest()[:16]
    assert found.origin.weights == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_exported_files_give_the_same(weights, data, tmp_path):
    written = export.export(artifact.of_file(weights), ("mindir", "onnx"), tmp_path / "any", embedding=True)
    assert all(file.embedding <= export.TOLERANCE for file in written)
    export.export(artifact.of_file(weights), ("onnx",), tmp_path / "two", 2, embedding=True)
    found, _ = embedded(weights, data / "val")
    name = weights.with_suffix("").name
    for file in (
        tmp_path / "any" / f"{name}.onnx",
        tmp_path / "any" / f"{name}.mindir",
        tmp_path / "two" / f"{name}.onnx",
    ):
        same, _ = embedded(file, data / "val")
        np.testing.assert_allclose(same.vectors, found.vectors, atol=1e-5)
        check_same(found.origin, same.origin, "a", "b")


def test_images_are_turned_upright(weights, tmp_path):
    """A photo that was held sideways is the same as its turned copy; JPEG files by our decoder and by Pillow."""
    pixels = np.kron(np.random.default_rng(0).integers(0, 255, (5, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "plain.jpg", quality=100, subsampling=0)
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "held.jpg", exif=exif, quality=100, subsampling=0)
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", quality=100, subsampling=0)
    names = [str(tmp_path / f"{name}.jpg") for name in ("plain", "held", "turned")]
    found, _ = embedded(weights, *names)
    np.testing.assert_allclose(found.vectors, expected(weights, names), atol=1e-5)
    assert found.vectors[0] @ found.vectors[1] > found.vectors[0] @ found.vectors[2]


@pytest.mark.fault("images", "ok")
def test_one_that_cannot_be_read_ends_nothing(weights, data):
    (data / "val" / "ant" / "0.png").write_bytes(b"no image")
    found, problems = quickly(weights, data / "val")
    assert len(found) == 5
    ((name, problem),) = problems.items()
    assert name == str(data / "val" / "ant" / "0.png")
    assert problem.startswith(f"{name}: not a readable image")
    for file in (data / "val").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"0.png: not a readable image .*; and no other of 6 images can be read"):
        quickly(weights, data / "val")
    found, problems = quickly(weights, data / "val", needs_one=False)
    assert (found.vectors.shape, len(found.paths), len(problems)) == ((0, 6), 0, 6)


def test_halves_are_rounded(weights, data):
    whole, _ = quickly(weights, data / "val")
    halves, _ = quickly(weights, data / "val", dtype="float16")
    np.testing.assert_array_equal(halves.vectors, whole.vectors.astype(np.float16))


# --- What is looked at


def names(*given: object, split: str = "") -> list[tuple[str, str]]:
    """Path and class of each image that is meant."""
    samples = reading.ReadImages.of(reading.opened(list(map(str, given)), Config(**KEYS), split))
    classes = [*samples.classes, ""]
    return [(samples.name(index), classes[samples.labels[index]]) for index in range(len(samples))]


def test_a_folder_of_photos_loses_none(tmp_path):
    """What lies beside folders and deep below them; labels are the folders."""
    for name in ("a.jpg", "trip/b.jpg", "trip/deep/c.jpg", "home/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    found = {Path(name).name: kind for name, kind in names(tmp_path)}
    assert found == {"a.jpg": "", "b.jpg": "trip", "c.jpg": "trip", "d.jpg": "home"}
    files = [name for name, _ in names(tmp_path)]
    assert names(*files[:2], files[0]) == [(name, "") for name in files[:2]]  # each once, without labels


def test_splits_of_data(data):
    assert [kind for _, kind in names(data)] == [kind for count in (4, 2) for kind in CLASSES for _ in range(count)]
    assert len(names(data, split="val")) == 6
    shutil.make_archive(str(data / "more"), "tar", data / "val")
    (data / "more.tar").rename(data / "test.tar")
    assert [kind for _, kind in names(data, split="test")] == [kind for kind in CLASSES for _ in range(2)]
    assert len(names(data)) == 24


def test_images_beside_splits_are_said(data, caplog):
    Image.new("RGB", (4, 4)).save(data / "map.png")
    assert len(names(data)) == 18
    assert "taken for data with the splits train, val: 1 images beside them are left out; give each of" in caplog.text


def test_known_classes_have_the_networks_labels(data):
    parts = reading.opened([str(data)], Config(**KEYS))
    known = ["elk", "cat", "bee", "ant"]
    samples = reading.ReadImages.of(parts, known)
    assert samples.classes == tuple(known)
    assert samples.labels[0] == 3
    assert reading.ReadImages.of(parts, known[:3]).classes == ("ant", "bee", "cat")


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("given", "split", "expected"),
    [
        (["D"], "dev", "--split: D has no split 'dev'; give one that is there"),
        (["D/val/ant/0.png"], "val", "--split: D/val/ant/0.png is no folder of data"),
        (["empty"], "", "empty: no image in this folder"),
        (["clip.mp4"], "", "clip.mp4: a video; give images"),
        (["*.gif"], "", "*.gif: no file matches this pattern"),
    ],
)
def test_what_cannot_be_looked_at(given, split, expected, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        names(*given, split=split)
    assert str(caught.value).startswith(expected)


# --- A run that was interrupted


class Interrupted(Exception):
    """As by Ctrl-C."""


def interrupt_after(monkeypatch, images: int) -> None:
    """Each batch is kept, and the run ends after so many images."""
    monkeypatch.setattr(embed, "_SECONDS", 0.0)

    def progress(count: int) -> None:
        nonlocal images
        images -= count
        if images <= 0:
            raise Interrupted

    return progress


def test_it_goes_on_and_gives_the_same(weights, data, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (data / "train" / "ant" / "1.png").write_bytes(b"no image")
    whole, problems = quickly(weights, data)
    work = embed.work_of(tmp_path / "v.npz")
    with pytest.raises(Interrupted):
        quickly(weights, data, work=work, progress=interrupt_after(monkeypatch, 12))
    parts = sorted(work.glob("*.part"))
    assert len(parts) == 3
    seen = []
    found, again = quickly(weights, data, work=work, progress=seen.append)
    assert "15 of 18 images were done by an earlier run" in caplog.text
    assert seen[0] == 15
    assert sum(seen) == 18
    np.testing.assert_allclose(found.vectors, whole.vectors, atol=1e-6)
    assert (found.paths == whole.paths).all()
    assert list(again) == list(problems)
    embed.finish(work)
    assert not work.exists()


@pytest.mark.parametrize("change", ["weights", "image", "more images", "dtype", "crop"])
def test_it_starts_afresh_for_another_network_or_other_images(change, weights, data, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    work, dtype = tmp_path / "work", "float32"
    with pytest.raises(Interrupted):
        quickly(weights, data, work=work, progress=interrupt_after(monkeypatch, 12))
    if change == "weights":
        weights = write_run(tmp_path / "run", **{**KEYS, "num_classes": 2})
    elif change == "crop":
        weights = write_run(tmp_path / "run", **{**KEYS, "crop_pct": 0.9})
    elif change == "image":
        os.utime(data / "val" / "cat" / "1.png", (1, 1))
    elif change == "more images":
        shutil.copy(data / "val" / "cat" / "1.png", data / "val" / "cat" / "2.png")
    else:
        dtype = "float16"
    caplog.clear()
    found, _ = quickly(weights, data, work=work, dtype=dtype)
    assert "was begun with another network or other images: it starts afresh" in caplog.text
    assert "earlier run" not in caplog.text
    assert len(found) == 18 + (change == "more images")


@pytest.mark.fault("vectors", "ok", once=True)
@pytest.mark.parametrize("content", [b"", b"rubbish", intact.seal(b"rubbish"), None])
def test_a_part_that_is_damaged_is_made_again(content, weights, data, tmp_path, monkeypatch):
    work = tmp_path / "work"
    with pytest.raises(Interrupted):
        quickly(weights, data, work=work, progress=interrupt_after(monkeypatch, 18))
    part = sorted(work.glob("*.part"))[1]
    part.write_bytes(part.read_bytes()[:-70] + bytes(70) if content is None else content)
    seen = []
    found, _ = quickly(weights, data, work=work, progress=seen.append)
    assert seen[0] == 5
    np.testing.assert_allclose(found.vectors, quickly(weights, data)[0].vectors, atol=1e-6)
