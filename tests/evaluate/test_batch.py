"""How many images are looked at once: by hand, where memory is short, and where somebody has said how many."""

import logging
from pathlib import Path

import numpy as np
import pytest

from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.evaluate import batch
from mindghost.inference.artifact import agreed
from mindghost.inference.deployment import Deployment
from mindghost.inference.network import mirrored
from mindghost.process import resources
from tests.helpers.runtimes import runtime_of
from tests.helpers.two_ranks import both

GIGABYTE = 10**9


@pytest.mark.parametrize(
    ("side", "free", "expected"),
    [
        (224, 100 * GIGABYTE, 64),
        # Half of it, at 60 MB an image: 16.7 images.
        (224, 2 * GIGABYTE, 16),
        (224, 0, 1),
        (32, 100 * GIGABYTE, 256),
        (448, 100 * GIGABYTE, 16),
        (2048, 100 * GIGABYTE, 8),
        (2048, 20 * GIGABYTE, 1),
    ],
)
def test_a_batch_by_hand(side, free, expected):
    assert batch.fitting(side * side, free) == expected


@pytest.mark.parametrize("samples", [1, 2, 7, 13, 997])
def test_any_number_of_images_has_a_batch(monkeypatch, samples):
    monkeypatch.setattr(resources, "free_memory", lambda: 100 * GIGABYTE)
    assert batch.settled(runtime_of(Config()), samples).config.batch_size == min(64, samples)


def test_a_batch_that_somebody_gave_stays():
    assert batch.settled(runtime_of(Config(batch_size=128)), 5).config.batch_size == 128


def test_a_file_that_takes_seven_images_at_once_gets_a_multiple_of_them(monkeypatch):
    monkeypatch.setattr(resources, "free_memory", lambda: 100 * GIGABYTE)
    assert batch.settled(runtime_of(Config()), 1000, 7).config.batch_size == 63
    assert batch.settled(runtime_of(Config()), 1000, 100).config.batch_size == 100


def test_ranks_agree(monkeypatch):
    free = iter([3 * GIGABYTE, 90 * GIGABYTE])
    monkeypatch.setattr(resources, "free_memory", lambda: next(free))
    found = both(lambda ranks: batch.settled(runtime_of(Config(), ranks), 1000).config.batch_size)
    assert found == [16, 16] or found == [8, 8]


def test_what_an_exported_file_says_is_no_batch_size():
    found = Deployment(Path("x.onnx"), Config(num_classes=2), ("a", "b"))
    given = agreed(Config(data_dir="D"), found).given
    assert "batch_size" not in given
    assert "data_dir" in given


class Small:
    """A network for which memory is short above a number of images."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.seen = most, error, []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return 2 * images


def wrapped(cause: Exception) -> UserError:
    error = UserError("w.onnx: ONNX Runtime cannot run it; export it again")
    error.__cause__ = cause
    return error


@pytest.mark.fault("resources", "ok")
@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("- Memory not enough:\nMemory isn't enough and alloc failed, kernel name: 160"),
        wrapped(RuntimeError("Failed to allocate memory for requested buffer")),
    ],
    ids=["Python", "MindSpore", "ONNX Runtime"],
)
def test_where_memory_runs_out_the_batch_is_halved(error, caplog):
    network = Small(3, error)
    run = batch.sparing(network)
    images = np.arange(10.0).reshape(10, 1)
    with caplog.at_level(logging.INFO, "mindghost"):
        np.testing.assert_array_equal(run(images), 2 * images)
        np.testing.assert_array_equal(run(images), 2 * images)
    assert [record.getMessage() for record in caplog.records] == [
        "memory ran out with 10 images at once: it goes on with 5 (--batch_size 5)",
        "memory ran out with 5 images at once: it goes on with 2 (--batch_size 2)",
    ]
    # It remembers; all parts have one size.
    assert network.seen == [10, 5, *[2] * 10]
    np.testing.assert_array_equal(mirrored(run)(images), 2 * images)


def test_other_errors_and_a_single_image_that_is_too_much_are_said():
    with pytest.raises(RuntimeError, match="^broken$"):
        batch.sparing(Small(1, RuntimeError("broken")))(np.zeros((4, 1)))
    with pytest.raises(MemoryError):
        batch.sparing(Small(0, MemoryError()))(np.zeros((4, 1)))
