"""Data sets that are downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..files import paths, scratch
from ..files.archives import unpack_tar
from ..files.cache import locked
from ..files.download import fetch, writing


class _Dataset(NamedTuple):
    host: str
    files: dict[str, str]  # name: md5
    folder: str  # what the archive unpacks to; empty: no archive


_DATASETS = {
    "cifar10": _Dataset(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        "cifar-10-batches-bin",
    ),
    "cifar100": _Dataset(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        "cifar-100-binary",
    ),
    "mnist": _Dataset(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        "",
    ),
}


def fetch_dataset(name: str, data_dir: Path) -> None:
    """Puts the binary form of `cifar10`, `cifar100` or `mnist` into data_dir; what is there is kept.

    Raises:
        UserError: a download failed; names the url.
    """
    dataset = _DATASETS[name]
    folder = data_dir / dataset.folder
    if dataset.folder and paths.is_folder(folder):
        return
    for file, md5 in dataset.files.items():
        path = fetch(dataset.host + file, data_dir, digest=md5, algorithm="md5")
        if dataset.folder:
            with locked(path):
                _unpack_folder(path, folder)


def _unpack_folder(archive: Path, folder: Path) -> None:
    """Unpacks an archive of one folder beside itself: all of it or nothing, once for all processes."""
    if paths.is_folder(folder):
        return
    with writing(folder), scratch.folder("unpack", near=folder.parent) as temporary:
        unpack_tar(archive, temporary / "content", below=folder.name)
        os.replace(temporary / "content" / folder.name, folder)
