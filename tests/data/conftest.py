"""Small image folders whose pixels say which image they are, and what is asked of their batches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindghost.data.pack.writer import Options, pack
from tests.helpers.data_folders import CLASSES
from tests.helpers.pictures import save_image


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    # Two workers even where the tests are confined to one core.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """data_dir with 23 training, 7 validation images; the red channel of each is its index in the split."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 23), ("val", 7)):
        for index in range(count):
            name = CLASSES[index * len(CLASSES) // count]
            save_image(root / split / name / f"{index:03}.png", index)
    return root


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory) -> Path:
    """The pack of `folder`, in several shards."""
    target = tmp_path_factory.mktemp("packed")
    for split in ("train", "val"):
        found = pack(folder / split, target / split, Options(shard_bytes=400))
        assert found.images == {"train": 23, "val": 7}[split]
        assert found.shards == found.made > 1
    return target


@pytest.fixture(scope="module")
def uncompressed(folder, tmp_path_factory) -> Path:
    """The pack of `folder` that holds pixels, in several shards."""
    target = tmp_path_factory.mktemp("uncompressed")
    for split in ("train", "val"):
        found = pack(folder / split, target / split, Options(shard_bytes=1000, uncompressed=True))
        assert found.shards > 1
    return target
