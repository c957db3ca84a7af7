"""The binary forms of CIFAR-10, CIFAR-100 and MNIST: files -> arrays, every size and label checked."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import archives, paths


class Arrays(NamedTuple):
    """A whole split in memory."""

    images: NDArray[Any]  # uint8, (n, height, width, 3), RGB; MNIST: (n, height, width, 1)
    labels: NDArray[Any]  # int32, (n,)
    classes: tuple[str, ...]


class _Cifar(NamedTuple):
    folder: str  # the archive's own folder, looked for below data_dir
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int  # before each image; the last of them is the (fine) label
    num_classes: int


_CIFAR = {
    "cifar10": _Cifar(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
        "batches.meta.txt",
        1,
        10,
    ),
    "cifar100": _Cifar("cifar-100-binary", ("train.bin",), ("test.bin",), "fine_label_names.txt", 2, 100),
}
# Twenty times MNIST's largest file, unpacked.
_MOST_BYTES = 1 << 30
_CIFAR_SHAPE = (3, 32, 32)
_MNIST_FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_cifar(name: str, data_dir: Path, train: bool) -> Arrays:
    """Reads `cifar10` or `cifar100` from data_dir or from the archive's folder below it.

    Class names come from the archive's own list; without it they are "0", "1", ...

    Raises:
        UserError: a file is missing, its size is no multiple of a record's, or a label is out of range.
    """
    form = _CIFAR[name]
    folder = data_dir / form.folder if paths.is_folder(data_dir / form.folder) else data_dir
    parts = [_read_records(folder / file, form) for file in (form.train if train else form.test)]
    labels, images = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Arrays(images, labels, _class_names(folder / form.names, form.num_classes))


def _read_records(path: Path, form: _Cifar) -> tuple[NDArray[Any], NDArray[Any]]:
    data = np.frombuffer(_read_bytes(path), np.uint8)
    record = form.label_bytes + int(np.prod(_CIFAR_SHAPE))
    if data.size == 0 or data.size % record:
        raise UserError(f"{path}: {data.size} bytes, expected a multiple of {record}; download the file again")
    data = data.reshape(-1, record)
    labels = data[:, form.label_bytes - 1].astype(np.int32)
    _check_labels(path, labels, form.num_classes)
    images = data[:, form.label_bytes :].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return labels, images


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    if not paths.is_file(path):
        return tuple(map(str, range(count)))
    names = tuple(paths.read(path, "restore it").decode("utf-8", "replace").split())
    if len(names) != count:
        raise UserError(f"{path}: {len(names)} class names, expected {count}; download the file again")
    return names


def read_mnist(data_dir: Path, train: bool) -> Arrays:
    """Reads MNIST's idx files (plain or .gz) from data_dir; the classes are "0" to "9".

    Raises:
        UserError: a file is missing, is no idx file, or its size differs from what its header says.
    """
    image_file, label_file = (_plain_or_gz(data_dir / name) for name in _MNIST_FILES[train])
    images = _read_idx(image_file, dimensions=3)
    labels = _read_idx(label_file, dimensions=1).astype(np.int32)
    if len(images) != len(labels):
        raise UserError(f"{label_file}: {len(labels)} labels for {len(images)} images; download both files again")
    _check_labels(label_file, labels, 10)
    return Arrays(images[..., np.newaxis], labels, tuple(map(str, range(10))))


def _plain_or_gz(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    return packed if paths.is_file(packed) and not paths.is_file(path) else path


def _read_idx(path: Path, dimensions: int) -> NDArray[Any]:
    """An idx file of unsigned bytes: magic 0x000008DD (DD dimensions), DD big-endian sizes, the values."""
    content, packed = _read_bytes(path), path.suffix == ".gz"
    header = 4 * (1 + dimensions)
    start = archives.gunzip_start(path, content, header) if packed else content[:header]
    magic, *shape = struct.unpack(f">{1 + dimensions}I", start) if len(start) == header else (None,)
    if magic != 0x800 + dimensions:
        raise UserError(f"{path}: not an idx file of {dimensions} dimension(s); download the file again")
    expected = math.prod(shape)
    if packed and expected <= _MOST_BYTES:
        content = archives.gunzip(path, content, header + expected)
    values = np.frombuffer(content, np.uint8, offset=header)
    if values.size != expected or expected == 0:
        raise UserError(f"{path}: {values.size} values, its header says {expected}; download the file again")
    return values.reshape(shape)


def _read_bytes(path: Path) -> bytes:
    return paths.read(path, "correct data_dir or set dataset_download: True", _MOST_BYTES)


def _check_labels(path: Path, labels: NDArray[Any], num_classes: int) -> None:
    if labels.max() >= num_classes:
        raise UserError(f"{path}: label {labels.max()}, expected 0 to {num_classes - 1}; download the file again")
