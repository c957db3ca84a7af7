"""What shows once the data is known: batches of one image, sets smaller than a batch, doubts about classes."""

from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import nn

from mindghost.config import Config
from mindghost.data.examples import Examples
from mindghost.errors import UserError
from mindghost.evaluate.evaluator import Evaluator
from mindghost.models import create_model, ghostnet
from mindghost.models.complexity import smallest_norm
from mindghost.models.layers import freeze_batch_norm
from mindghost.train import checks
from tests.helpers import short
from tests.helpers.runtimes import runtime_of

ANIMALS = ("ant", "bee", "cat")


class Set(SimpleNamespace):
    """As much of a set of images as is asked here."""

    def __len__(self) -> int:
        return self.size


def settled(size: int, classes=ANIMALS, ranks: int = 1, **keys) -> Config:
    sizes = {"model": "ghostnet_050", "num_classes": len(classes), "image_resize": 8, "epoch_size": 90}
    config = Config(**{**sizes, "batch_size": 4, "drop_remainder": False, **keys})
    return checks.settled(config, Set(size=size, classes=classes), ranks)


@pytest.fixture
def log(caplog, monkeypatch):
    """The lines that were logged. The network is cut to four bottlenecks, and leaves one pixel of eight."""
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    caplog.set_level("INFO", "mindghost")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("name", "size", "values"), [("ghostnet_050", 32, 1), ("ghostnet_050", (64, 96), 6)])
def test_the_smallest_map_that_batch_norm_sees(name, size, values):
    """An image's sides are divided by 32, rounded up."""
    height, width = size if isinstance(size, tuple) else (size, size)
    network = create_model(name, num_classes=3)
    assert smallest_norm(network, (3, height, width)) == values
    freeze_batch_norm(network)
    assert smallest_norm(network, (3, height, width)) is None


def test_maps_are_those_of_batch_norms():
    network = nn.SequentialCell(nn.Conv2d(2, 3, 3, 2, pad_mode="same"), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3, 9))
    assert smallest_norm(network, (2, 6, 10)) == 15
    assert smallest_norm(nn.SequentialCell(nn.Conv2d(2, 3, 3)), (2, 6, 6)) is None


@pytest.mark.fault("settings", "ok")
def test_a_last_batch_of_one_image_is_dropped_where_batch_norm_would_see_one_value(log):
    """Its variance was NaN, and the run was lost after its first epoch."""
    config = settled(9)
    assert config.drop_remainder
    assert log() == [
        "the last batch of an epoch would be one image of 8 x 8 pixels, of which ghostnet_050 leaves a single pixel to "
        "batch norm: it is dropped (drop_remainder: True)"
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"image_resize": 32},
        {"size": 10},
        {"size": 8},
        {"drop_remainder": True},
        {"freeze_backbone": True},
        {"size": 18, "gradient_accumulation_steps": 2},
        {"size": 11, "ranks": 2},  # five each, and one each for a last batch, but in wider images
    ],
    ids=str,
)
def test_no_other_batch_is_dropped(keys, log):
    keys = {"size": 9, **({"image_resize": 16} if "ranks" in keys else {}), **keys}
    assert settled(**keys).drop_remainder == keys.get("drop_remainder", False)
    assert log() == []


@pytest.mark.fault("settings", "ok")
def test_the_last_batch_is_that_of_each_rank(log):
    assert settled(11, ranks=2).drop_remainder
    assert not settled(12, ranks=2).drop_remainder
    assert len(log()) == 1


@pytest.mark.fault("settings", "clean error")
def test_batches_of_one_image_are_refused_where_batch_norm_would_see_one_value(log):
    with pytest.raises(
        UserError, match=r"^batch_size: 1: one image of 8 x 8 pixels.*raise batch_size or image_resize$"
    ):
        settled(9, batch_size=1)
    assert settled(9, batch_size=1, image_resize=32).batch_size == 1


@pytest.mark.fault("settings", "clean error")
def test_a_run_without_end_is_refused_before_its_rates_fill_the_memory(log):
    with pytest.raises(UserError, match=r"^epoch_size: 2,000,000,000 epochs are 4,000,000,000 updates; give a run of"):
        settled(8, epoch_size=2_000_000_000)
    assert settled(8, epoch_size=50_000_000).epoch_size == 50_000_000


@pytest.mark.fault("settings", "ok")
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"classes": ("ant",)}, "one class (ant): every answer is right"),
        ({"classes": tuple("0123456789")}, "(0, 1, 2, ...): hflip 0.5 mirrors them; set 0"),
        ({"classes": tuple("0123456789"), "hflip": 0.0, "vflip": 0.1}, "(0, 1, 2, ...): vflip 0.1 mirrors them"),
        ({"classes": ("images", "masks")}, "if these are images with masks, give --task segmentation"),
        ({"ohem": 0.5}, "ohem: only task segmentation reads it"),
        ({"batch_size": 20_000, "size": 8}, "batch_size 20000: there are only 8 images for it"),
        ({"ckpt_save_interval_steps": 2}, "ckpt_save_interval_steps 2: an epoch has 2 steps, so none is saved inside"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_doubts_are_one_line(keys, words, log):
    settled(**{"size": 8, **keys})
    (line,) = log()
    assert words in line


@pytest.mark.parametrize(
    "keys",
    [
        {"classes": ("ant",), "num_classes": 3},
        {"classes": tuple("012345678")},
        {"classes": tuple("0123456789"), "hflip": 0.0},
        {"classes": (*map(str, range(11)),)},
        {"classes": tuple("0123456789"), "dataset": "mnist"},
        {"batch_size": 8},
        {"ckpt_save_interval_steps": 1},
    ],
    ids=str,
)
def test_nothing_is_said_without_a_doubt(keys, log):
    settled(**{"size": 8, **keys})
    assert log() == []


class Images(Set):
    """Images that say which they are."""

    def name(self, index: int) -> str:
        return str(index)

    def open(self, index: int) -> np.ndarray:
        return np.full((8, 8, 3), index, np.uint8)

    def examples(self, config: Config, training: bool) -> Examples:
        return Examples(config, self, training)


@pytest.mark.fault("settings", "ok")
def test_no_batch_is_filled_beyond_the_size_of_the_set():
    """364 images were filled up to a batch of 20,000, which took gigabytes."""
    samples = Images(size=5, classes=ANIMALS, labels=np.array([0, 1, 2, 0, 1], np.int32))
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "image_resize": 8, "crop_pct": 1.0, "num_classes": 6}
    found = {}
    for batch in (2, 5, 6, 20_000):
        seen = []

        def network(images: np.ndarray, seen: list = seen) -> np.ndarray:
            seen.append(len(images))
            return images[:, :, 0, 0].repeat(2, axis=1)

        outcomes = Evaluator(runtime_of(Config(batch_size=batch, **plain)), samples).outcomes(network)
        found[batch] = (seen, outcomes.losses.tolist())
    assert [shapes for shapes, _ in found.values()] == [[2, 2, 2], [5], [5], [5]]
    assert len({tuple(losses) for _, losses in found.values()}) == 1
