"""Odd image folders: which samples they hold, under which label, or one line that names what is odd."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mindghost.config import Config
from mindghost.data.dataset import open_split
from tests.system.fault.harness import Case, group

Tree = Callable[[Path], None]
CLASSES = ("ant", "bee", "cat")


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (value, 7, 9)).save(path)


def plain(root: Path) -> None:
    """Two images of each class; the red channel is the label."""
    for label, name in enumerate(CLASSES):
        for number in range(2):
            save(root / name / f"{number}.png", label)


# What is done to a plain tree, and the classes that must be found with their labels; None: it must be refused.
def hidden_class(root: Path) -> None:
    save(root / ".cache" / "0.png", 99)


def hidden_image(root: Path) -> None:
    save(root / "ant" / "._0.png", 99)


def stray_image(root: Path) -> None:
    save(root / "0.png", 99)


def finders_files(root: Path) -> None:
    (root / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "Thumbs.db").write_bytes(b"x")
    (root / "ant" / "Thumbs.db").write_bytes(b"x")


def text_files(root: Path) -> None:
    (root / "labels.txt").write_text("ant\n")
    (root / "bee" / "README.md").write_text("bees\n")


def an_archive(root: Path) -> None:
    with zipfile.ZipFile(root / "ant.zip", "w") as archive:
        archive.writestr("ant/0.png", b"")


def nested(root: Path) -> None:
    save(root / "bee" / "more" / "still" / "3.png", 1)


def hidden_below(root: Path) -> None:
    save(root / "bee" / ".trash" / "3.png", 99)


def a_fifo(root: Path) -> None:
    os.mkfifo(root / "ant" / "pipe.png")


def a_fifo_for_a_class(root: Path) -> None:
    os.mkfifo(root / "dog")


def a_link_to_nowhere(root: Path) -> None:
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")


def a_link_to_itself(root: Path) -> None:
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")


def a_loop(root: Path) -> None:
    (root / "cat" / "again").symlink_to(root)


def a_class_that_links_to_itself(root: Path) -> None:
    (root / "dog").symlink_to(root / "dog")


def a_link_out_of_the_root(root: Path) -> None:
    save(root.parent.parent / "elsewhere" / "0.png", 3)
    (root / "dog").symlink_to(root.parent.parent / "elsewhere")


def unicode_names(root: Path) -> None:
    save(root / "dög \u732b" / "\u0301e .png", 3)


def names_that_are_no_utf_8(root: Path) -> None:
    folder = os.fsencode(root / "ant")
    os.rename(folder + b"/0.png", folder + b"/\xff\xfe.png")


def capitals(root: Path) -> None:
    os.rename(root / "ant" / "0.png", root / "ant" / "0.PNG")


def line_breaks(root: Path) -> None:
    os.rename(root / "ant" / "0.png", root / "ant" / "0\n1.png")


def an_empty_class(root: Path) -> None:
    (root / "bat").mkdir()


def a_class_of_texts(root: Path) -> None:
    (root / "bat").mkdir()
    (root / "bat" / "a.txt").write_text("x")


def no_class(root: Path) -> None:
    for name in CLASSES:
        for file in (root / name).iterdir():
            file.rename(root / f"{name}{file.name}")
        (root / name).rmdir()


def a_missing_split(root: Path) -> None:
    root.rename(root.with_name("training"))


def a_file_for_a_split(root: Path) -> None:
    root.rename(root.with_name("training"))
    root.write_text("x")


def a_damaged_image(root: Path) -> None:
    content = (root / "ant" / "0.png").read_bytes()
    (root / "ant" / "0.png").write_bytes(content[: len(content) // 2])


def an_empty_image(root: Path) -> None:
    (root / "ant" / "0.png").write_bytes(b"")


def a_text_for_an_image(root: Path) -> None:
    (root / "ant" / "0.jpg").write_text("x" * 99)


WITH_DOG = (*CLASSES, "dog")
TREES: tuple[tuple[Tree, Sequence[str] | None], ...] = (
    *((tree, CLASSES) for tree in (hidden_class, hidden_image, stray_image, finders_files, text_files, an_archive)),
    *((tree, CLASSES) for tree in (nested, hidden_below, a_fifo, a_fifo_for_a_class, a_link_to_nowhere, a_loop)),
    *((tree, CLASSES) for tree in (a_link_to_itself, a_class_that_links_to_itself, names_that_are_no_utf_8)),
    *((tree, CLASSES) for tree in (capitals, line_breaks)),
    (a_link_out_of_the_root, WITH_DOG),
    (unicode_names, (*CLASSES, "dög \u732b")),
    *((tree, None) for tree in (an_empty_class, a_class_of_texts, no_class, a_missing_split, a_file_for_a_split)),
    *((tree, None) for tree in (a_damaged_image, an_empty_image, a_text_for_an_image)),
)


@group("folder trees", 20)
def trees(rng: random.Random, folder: Path) -> Iterator[Case]:
    for tree, classes in TREES:
        root = folder / tree.__name__ / "train"

        def ours(root: Path = root, tree: Tree = tree, classes: Sequence[str] | None = classes) -> None:
            plain(root)
            tree(root)
            samples = open_split(Config(data_dir=str(root.parent), num_classes=10), "train")
            assert classes is not None, f"accepted as {samples.classes}"
            assert samples.classes == tuple(classes)
            found = [int(samples.read(index)[0, 0, 0]) for index in range(len(samples))]
            assert np.array_equal(found, samples.labels), f"labels {samples.labels} of images of {found}"
            assert len(samples) == 6 + (tree is nested) + (len(classes) > 3)

        def stock(root: Path = root, tree: Tree = tree, classes: Sequence[str] | None = classes) -> None:
            from mindcv.data import create_dataset

            plain(root)
            tree(root)
            rows = create_dataset("imagenet", root=str(root.parent), split="train", shuffle=False)
            from mindspore.dataset import vision

            rows = rows.map(vision.Decode(), "image")
            found = [(int(row["image"][0, 0, 0]), int(row["label"])) for row in rows.create_dict_iterator(1, True)]
            assert classes is not None, "accepted"
            assert all(red == label for red, label in found), "shifted labels"
            assert len(found) == 6 + (tree is nested) + (len(classes) > 3), f"{len(found)} images"

        yield Case(tree.__name__.replace("_", " "), ours, str(folder), stock)
