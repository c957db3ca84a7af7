"""The same images as tar and parquet files, and what is asked of both: to be as the images in class folders."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mindghost.data import evaluation, loader
from mindghost.data.dataset import open_split
from tests.helpers.data_folders import config_for, epochs
from tests.helpers.pictures import save_image


def tar(
    path: Path, members: Iterable[tuple[str, bytes | str | tarfile.TarInfo]], form: int = tarfile.PAX_FORMAT
) -> Path:
    """A tar file of (path, content); a `TarInfo` stands for a member that is no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def png(folder: Path, value: int = 0) -> bytes:
    """The file of a small image."""
    save_image(folder / "one" / "image.png", value)
    return (folder / "one" / "image.png").read_bytes()


def shuffled(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return random.Random(0).sample(files, len(files))


def assert_samples_of_folders(files: Path, folder: Path, kind: type) -> None:
    """The splits in `files` are `kind` of samples, and hold what the class folders in `folder` do, in their order."""
    for split in ("train", "val"):
        theirs, ours = (open_split(config_for(root), split) for root in (folder, files))
        assert isinstance(ours, kind)
        assert ours.classes == theirs.classes
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.labels.dtype == np.int32
        for index in range(len(theirs)):
            np.testing.assert_array_equal(ours.read(index), theirs.read(index))
            assert ours.content(index) == theirs.content(index)
        assert ours.digest() == theirs.digest(), "a run could not go on with the other one"


def assert_batches_of_folders(files: Path, folder: Path, workers: int) -> None:
    """Two epochs of training and an evaluation have the same batches of both, bit for bit."""
    found = []
    for root in (folder, files):
        config = config_for(root, num_parallel_workers=workers, scale=(0.5, 1.0), hflip=0.5)
        training = epochs(loader.train_batches(config, open_split(config, "train"), 3), 2)
        found.append([*(pair for epoch in training for pair in epoch)])
        found[-1] += list(evaluation.eval_batches(config, open_split(config, "val")))
    assert len(found[0]) == 2 * 5 + 2
    for theirs, ours in zip(*found, strict=True):
        for expected, array in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(array, expected)


def image_files(folder: Path) -> list[tuple[str, bytes]]:
    """(path below the folder, content) of all files in it, sorted."""
    return [(str(file.relative_to(folder)), file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file()]


def webdataset(path: Path, folder: Path, files: Iterable[tuple[str, bytes]], numbers: bool = True) -> Path:
    """Images with `KEY.cls` beside them: the number of their class in `folder`, or its name."""
    classes = sorted(entry.name for entry in folder.iterdir())
    members: list[tuple[str, bytes | str]] = []
    for name, content in files:
        label = name.split("/")[0]
        members += [
            (name, content),
            (f"{name.rpartition('.')[0]}.cls", str(classes.index(label)) if numbers else label),
        ]
    return tar(path, members)


def parquet(path: Path, columns: dict[str, list], features: dict | None = None, group: int = 4, **options) -> Path:
    """A parquet file, with what Hugging Face notes of its columns; `options` are `write_table`'s."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features is not None:
        noted = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
    pyarrow.parquet.write_table(table, path, row_group_size=group, **options)
    return path


IMAGE = {"_type": "Image"}


def huggingface(path: Path, folder: Path, files: Iterable[tuple[str, bytes]], group: int = 4, **options) -> Path:
    """Images as `datasets` writes an image folder: paths are those of the files alone, images are as they are."""
    files = list(files)
    classes = sorted(entry.name for entry in folder.iterdir())
    images = [{"bytes": content, "path": name.rpartition("/")[2]} for name, content in files]
    labels = [classes.index(name.split("/")[0]) for name, _ in files]
    features = {"image": IMAGE, "label": {"names": classes, "_type": "ClassLabel"}}
    options = {"compression": "none", "use_dictionary": False, **options}
    return parquet(path, {"image": images, "label": labels}, features, group, **options)
