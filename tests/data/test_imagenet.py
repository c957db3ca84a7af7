"""ImageNet as it is downloaded: a made-up tree of a few synsets, with the devkit's numbers in an order of their own."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mindghost.data.dataset import open_split
from mindghost.data.imagenet import names as imagenet_names
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image
from tests.helpers.shards import image_files, tar

# In the devkit's order; the last is no class: it has synsets below it.
SYNSETS = ("n02119789", "n01443537", "n02100735", "n01440764", "n04552348")
PARENT = "n02083346"
# Of the images 1 to 8: numbers of the devkit.
TRUTH = (4, 1, 1, 3, 2, 5, 4, 2)
CLASSES = tuple(sorted(SYNSETS))


pytestmark = pytest.mark.usefixtures("own_cache")


def meta() -> bytes:
    """As the devkit's `meta.mat`: a column of structs."""
    rows = [(number, synset, 0) for number, synset in enumerate(SYNSETS, 1)] + [(6, PARENT, 2)]
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    table = np.zeros((len(rows), 1), [(name, object) for name in (*fields, "num_train_images")])
    for row, (number, synset, below) in enumerate(rows):
        children = np.array([[1.0, 3.0]]) if below else np.zeros((1, 0))
        table[row, 0] = (float(number), synset, "words, more", "what it is", float(below), children, 3.0, 1300.0)
    file = io.BytesIO()
    savemat(file, {"synsets": table})
    return file.getvalue()


def name_of(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


def synset_of(number: int) -> str:
    return SYNSETS[TRUTH[number - 1] - 1]


def images(root: Path, folder: str = "ILSVRC2012_img_val") -> Path:
    """The training images of each class, and flat validation images whose red channel is their number."""
    for synset in SYNSETS:
        save_image(root / "ILSVRC2012_img_train" / synset / f"{synset}_1.JPEG", 1)
    for number in range(1, 9):
        (root / folder).mkdir(parents=True, exist_ok=True)
        save_image(root / "a.png", number)
        (root / folder / name_of(number)).write_bytes((root / "a.png").read_bytes())
    (root / "a.png").unlink()
    return root


def devkit(root: Path, truth: str = "\n".join(map(str, TRUTH))) -> None:
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    (folder / "meta.mat").write_bytes(meta())
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(f"{truth}\n")


def packed_devkit(root: Path) -> None:
    devkit(root / "unpacked")
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(root / "unpacked" / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")


def kaggle(root: Path) -> None:
    lines = [f"{Path(name_of(number)).stem},{synset_of(number)} 85 1 499 272" for number in (3, 1, 2, 8, 7, 6, 5, 4)]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(lines) + "\n")


def listed(root: Path) -> None:
    label = {synset: label for label, synset in enumerate(imagenet_names.synsets())}
    lines = [f"{name_of(number)} {label[synset_of(number)]}" for number in range(1, 9)]
    (root / "val.txt").write_text("\n".join(lines))


def assert_labels_of_synsets(samples) -> None:
    """Each image has the label of its synset among the sorted ones, in the order of class folders."""
    assert samples.classes == CLASSES
    numbers = [int(samples.read(index)[0, 0, 0]) for index in range(len(samples))]
    assert numbers == sorted(range(1, 9), key=lambda number: (synset_of(number), number))
    assert [CLASSES[label] for label in samples.labels] == [synset_of(number) for number in numbers]


@pytest.mark.fault("imagenet", "ok")
@pytest.mark.parametrize("labels", [devkit, packed_devkit, kaggle, listed])
def test_flat_images_have_the_labels_of_sorted_synsets(tmp_path, labels):
    config = config_for(images(tmp_path / "data"))
    labels(tmp_path / "data")
    train = open_split(config, "train")
    assert train.classes == CLASSES
    assert_labels_of_synsets(open_split(config, "val", train.classes))
    if labels is not listed:  # that one knows all of the classes
        assert_labels_of_synsets(open_split(config, "val"))


@pytest.mark.fault("imagenet", "ok")
def test_kaggles_folders(tmp_path):
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    images(root, "val")
    (root / "ILSVRC2012_img_train").rename(root / "train")
    kaggle(tmp_path)
    assert_labels_of_synsets(open_split(config_for(root), "val", open_split(config_for(root), "train").classes))


@pytest.mark.fault("imagenet", "ok")
def test_tar_files_as_they_are_downloaded(tmp_path):
    root = images(tmp_path / "unpacked")
    inner = []
    for synset in SYNSETS:
        files = image_files(root / "ILSVRC2012_img_train" / synset)
        inner.append((f"{synset}.tar", tar(tmp_path / "parts" / f"{synset}.tar", files).read_bytes()))
    tar(tmp_path / "data" / "ILSVRC2012_img_train.tar", inner)
    tar(tmp_path / "data" / "ILSVRC2012_img_val.tar", image_files(root / "ILSVRC2012_img_val"))
    packed_devkit(tmp_path / "data")
    config = config_for(tmp_path / "data")
    train = open_split(config, "train")
    assert train.digest() == open_split(config_for(root), "train").digest()
    assert_labels_of_synsets(open_split(config, "val", train.classes))
    # Half unpacked: a tar file for each class.
    assert open_split(config_for(tmp_path, train_split="parts"), "train").digest() == train.digest()


def test_some_of_the_classes_and_images(tmp_path, caplog):
    """Training knows two classes; the images of others are not there."""
    caplog.set_level("INFO", "mindghost")
    root = images(tmp_path / "data")
    devkit(root)
    for number in range(1, 9):
        if synset_of(number) not in CLASSES[:2]:
            (root / "ILSVRC2012_img_val" / name_of(number)).unlink()
    samples = open_split(config_for(root), "val", CLASSES[:2])
    assert samples.labels.tolist() == [0, 0, 1, 1]
    samples = open_split(config_for(root), "val")
    assert len(samples.classes) == 5, "labels of a network of all classes would shift"
    assert "no image of 3 of the 5 classes: n02100735, n02119789, n04552348" in caplog.messages[-1]


TOO_FEW = "\n".join(map(str, TRUTH[:-1]))


@pytest.mark.fault("imagenet", "clean error")
@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (
            lambda root: None,
            ["ILSVRC2012_img_val: ImageNet's validation images, but no labels", "LOC_val_solution.csv"],
        ),
        (lambda root: devkit(root, TOO_FEW), ["ILSVRC2012_val_00000008.JPEG: ", "devkit_t12 has no label for it"]),
        (lambda root: devkit(root, "4\n7"), ["ground_truth.txt: line 2: expected the number of a class", "got 7"]),
        (lambda root: devkit(root, "4\n\u0664"), ["ground_truth.txt: line 2: expected the number of a class"]),
        (
            lambda root: (root / "ILSVRC2012_devkit_t12" / "data").mkdir(parents=True),
            ["ILSVRC2012_devkit_t12/data/meta.mat: no such file"],
        ),
        (
            lambda root: (devkit(root), (root / "ILSVRC2012_devkit_t12/data/meta.mat").write_bytes(meta()[:-400])),
            ["meta.mat cannot be read"],
        ),
        (
            lambda root: (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"\x1f\x8b" + bytes(99)),
            ["ILSVRC2012_devkit_t12.tar.gz: meta.mat cannot be read"],
        ),
        (
            lambda root: (root / "LOC_val_solution.csv").write_text(
                "ImageId,PredictionString\nILSVRC2012_val_00000001,7"
            ),
            ["LOC_val_solution.csv: line 2: expected an image and its synset"],
        ),
        (
            lambda root: (root / "val.txt").write_text("a.JPEG 3\nb.JPEG 1000"),
            ["val.txt: line 2", "0 to 999, got 1000"],
        ),
        (lambda root: (root / "val.txt").write_text("a.JPEG 3\n\nb.JPEG 1"), ["val.txt: line 2: expected an image"]),
        (lambda root: (root / "val.txt").write_bytes(b"a.JPEG 3\n\xff 1"), ["val.txt: line 2: no UTF-8 text"]),
    ],
)
def test_labels_that_are_missing_or_damaged_are_one_line(tmp_path, damage, parts):
    root = images(tmp_path / "data")
    damage(root)
    with pytest.raises(UserError) as caught:
        open_split(config_for(root), "val")
    message_of(caught, root, *parts)


def test_the_table_of_names():
    """Known from elsewhere: Keras's and torchvision's lists, in their order."""
    synsets = imagenet_names.synsets()
    assert len(synsets) == 1000
    assert list(synsets) == sorted(synsets)
    names = imagenet_names.shown_as(synsets)
    assert len(set(map(str.lower, names))) == 1000
    expected = {0: "tench", 1: "goldfish", 65: "sea snake", 207: "golden retriever", 281: "tabby", 817: "sports car"}
    assert {label: names[label] for label in expected} == expected
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    assert [names[label] for label in (638, 639)] == ["maillot (n03710637)", "maillot (n03710721)"]
    assert [names[label] for label in (264, 474)] == ["Cardigan (n02113186)", "cardigan (n02963159)"]
    assert imagenet_names.shown_as(["tench", "n01440764", "rose"]) == ["tench", "tench (n01440764)", "rose"]
    assert [imagenet_names.synset_of(name) for name in ("tench", "n01440764", "rose")] == ["n01440764"] * 2 + [None]


def written(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        save_image(root / "val" / name / "a.png", number)
    return root


@pytest.mark.fault("imagenet", "ok")
def test_classes_may_be_called_by_their_words(tmp_path):
    words = ["tench", "golden retriever", "crane (n02012849)"]
    samples = open_split(config_for(written(tmp_path, words)), "val", imagenet_names.synsets())
    assert sorted(samples.labels.tolist()) == [0, 134, 207]
    with pytest.raises(UserError) as caught:
        open_split(config_for(written(tmp_path, ["crane"])), "val", imagenet_names.synsets())
    message_of(caught, "1000 known ones lack: ", "crane")


@pytest.mark.fault("imagenet", "ok")
def test_numbers_count_the_known_classes(tmp_path):
    save_image(tmp_path / "a.png", 1)
    image = (tmp_path / "a.png").read_bytes()
    tar(tmp_path / "data" / "val.tar", [("a.png", image), ("a.cls", "1"), ("b.png", image), ("b.cls", "2")])
    config = config_for(tmp_path / "data")
    samples = open_split(config, "val", ["rose", "tulip", "aster"])
    assert (samples.classes, samples.labels.tolist()) == (("rose", "tulip", "aster"), [1, 2])
    assert open_split(config, "val", ["2", "1"]).labels.tolist() == [1, 0], "names that are numbers are names"
    with pytest.raises(UserError) as caught:
        open_split(config, "val", ["rose", "tulip"])
    message_of(caught, "2 class(es) that the 2 known ones lack: 1, 2")


def test_some_folders_of_a_network_of_all_classes(tmp_path):
    """Without a name beside the weights they would be taken for its first outputs."""
    config = config_for(written(tmp_path, ["n02099601", "n01440764"]))
    assert open_split(config.replace(num_classes=1000), "val").labels.tolist() == [0, 207]
    assert open_split(config.replace(num_classes=999), "val").labels.tolist() == [0, 1]


def test_the_names_of_other_libraries():
    words = [name.partition(" (")[0] for name in imagenet_names.shown_as(imagenet_names.synsets())]
    hugging_face = [f"{word}, and more" for word in words]
    keras = [word.replace(" ", "_") for word in words]
    assert all(map(imagenet_names.are_all, (words, hugging_face, keras)))
    assert not any(map(imagenet_names.are_all, (words[:-1], words[::-1], ["tench"] * 1000)))
