"""Small image folders whose pixels say which image they are, and what is asked of their batches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
