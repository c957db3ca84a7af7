"""Counts against values computed by hand, whatever the batch size."""

import io
import sys
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindghost import build
from mindghost.config import Config
from mindghost.data.samples import ArraySamples
from mindghost.evaluate.evaluator import Evaluator, WeightsEvaluator, counted, draws, outcomes
from mindghost.inference.batches import filled
from mindghost.inference.network import mirrored, of_cell
from mindghost.parallel.ranks import ALONE, Ranks
from mindghost.tasks.classification.metrics import Counts
from tests.helpers.runtimes import runtime_of


def metrics_of(logits, labels):
    counts = Counts()
    counts.add(np.array(logits, np.float32), np.array(labels))
    return counts.outcomes().metrics()


def test_by_hand():
    metrics = metrics_of([[2, 1, 0], [0, 3, 1], [1, 0, 0], [0, 0, 5]], [0, 1, 1, 2])
    assert metrics.top_1 == 75
    assert metrics.top_5 is None
    assert metrics.num_samples == 4
    rows = [(2, [2, 1, 0]), (3, [0, 3, 1]), (0, [1, 0, 0]), (5, [0, 0, 5])]
    expected = np.mean([np.log(np.exp(row).sum()) - true for true, row in rows])
    assert metrics.loss == pytest.approx(expected, rel=1e-12)


def test_a_summary_has_a_top_5_where_there_are_five_classes():
    logits = np.zeros((1, 5), np.float32)
    assert metrics_of(logits[:, :4], [0]).summary() == "top-1 100.00 %, loss 1.3863"
    assert metrics_of(logits, [0]).summary() == "top-1 100.00 %, top-5 100.00 %, loss 1.6094"


def test_mindcvs_words_are_shares_of_one():
    found = metrics_of(np.eye(6), [0, 1, 2, 3, 4, 0])
    assert found.in_mindcv_words() == {"Top_1_Accuracy": 5 / 6, "Top_5_Accuracy": 1.0, "loss": found.loss}
    few = metrics_of(np.eye(3), [0, 1, 0]).in_mindcv_words()
    assert list(few) == ["Top_1_Accuracy", "loss"]
    assert few["Top_1_Accuracy"] == 2 / 3


def test_top_5_and_ties():
    """Equal logits: the lower index is ahead, as a stable sort has it."""
    metrics = metrics_of([[0] * 6] * 6, [0, 1, 2, 3, 4, 5])
    assert metrics.top_1 == pytest.approx(100 / 6)
    assert metrics.top_5 == pytest.approx(500 / 6)


def test_five_classes_have_a_top_5_of_100():
    assert metrics_of(np.eye(5), [1, 2, 3, 4, 0]).top_5 == 100


@pytest.mark.fault("NaN, infinity", "ok")
def test_nan_is_never_right():
    metrics = metrics_of([[np.nan] * 6, [9, 0, 0, 0, 0, 0]], [0, 0])
    assert (metrics.top_1, metrics.top_5) == (50, 50)
    assert np.isnan(metrics.loss)


def test_large_logits_do_not_overflow():
    assert metrics_of([[30000.0, 0.0]], [1]).loss == pytest.approx(30000)


class Mean(nn.Cell):
    """Logits that depend on the image alone."""

    def construct(self, x):
        return x.reshape(x.shape[0], -1)[:, :6]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 64])
def test_every_sample_counts_once_at_any_batch_size(batch_size):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((10, 1, 3, 3)).astype(np.float32)
    labels = rng.integers(0, 6, 10).astype(np.int32)
    batches = [(images[i : i + batch_size], labels[i : i + batch_size]) for i in range(0, 10, batch_size)]
    found = outcomes(Counts(), of_cell(Mean()), batches, batch_size).metrics()
    expected = metrics_of(Mean()(Tensor(images)).asnumpy(), labels)
    assert (found.top_1, found.top_5, found.num_samples) == (expected.top_1, expected.top_5, 10)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)


def test_mirrored_by_hand():
    """Logits that are the first row's pixels: their means with those from the other end."""
    images = np.array([[[[1, 2, 6], [0, 0, 0]]], [[[3, 5, 8], [9, 9, 9]]]], np.float32)
    logits = mirrored(lambda batch: batch[:, 0, 0].copy())(images)
    np.testing.assert_array_equal(logits, [[3.5, 2, 3.5], [5.5, 5, 5.5]])


def test_outputs_of_pixels_are_turned_back():
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(mirrored(lambda batch: batch[:, :2].copy())(images), images[:, :2])
    seen = mirrored(lambda batch: np.cumsum(batch, axis=3))(images)
    by_hand = (np.cumsum(images, axis=3) + np.cumsum(images[..., ::-1], axis=3)[..., ::-1]) / 2
    np.testing.assert_array_equal(seen, by_hand)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="no sample"):
        Counts().outcomes().metrics()


def test_what_became_of_each_sample_by_hand():
    """Two classes of odds 3 to 1, a tie, which the lower index wins, and a sample without an answer."""
    counts = Counts()
    counts.add(np.log([[3.0, 1.0], [1.0, 3.0]]), np.array([0, 0]))
    counts.add(np.array([[2.0, 2.0], [np.nan, 0.0]]), np.array([1, 1]))
    found = counts.outcomes()
    assert (len(found), found.classes) == (4, 2)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.predicted.tolist() == [0, 1, 0, -1]
    assert found.ranks_of_truth.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(found.confidences, [0.75, 0.75, 0.5, np.nan])
    np.testing.assert_allclose(found.losses, [np.log(4 / 3), np.log(4), np.log(2), np.nan])
    assert {found.labels.dtype, found.predicted.dtype, found.ranks_of_truth.dtype} == {np.dtype(np.int64)}
    chosen = found.take(np.array([2, 0]))
    assert (chosen.labels.tolist(), chosen.predicted.tolist(), chosen.classes) == ([1, 0], [0, 0], 2)
    np.testing.assert_allclose(chosen.losses, [np.log(2), np.log(4 / 3)])


def test_a_loss_that_is_infinite_stays_so():
    counts = Counts()
    with np.errstate(invalid="ignore"):
        counts.add(np.array([[-np.inf, 0.0], [0.0, 0.0]]), np.array([0, 0]))
    assert counts.outcomes().metrics().loss == np.inf


class Together(Ranks):
    """Two ranks one after the other: the second to be asked is told what the first one gave, in the order of ranks."""

    def __init__(self, rank: int, given: dict[str, dict[int, object]]) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "given", given)

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return self._all("gather", array)

    def gather_bytes(self, content: bytes) -> list[bytes]:
        return self._all("gather_bytes", content)

    def _all(self, name: str, value: object) -> list:
        self.given.setdefault(name, {})[self.rank] = value
        return [self.given[name].get(rank, value) for rank in range(2)]


def test_all_ranks_get_the_outcomes_rank_after_rank():
    """One of them had no sample, and so knows of no classes."""
    given: dict = {}
    Counts().outcomes(Together(1, given))
    counts = Counts()
    counts.add(np.eye(6)[:2], np.array([0, 5]))
    found = counts.outcomes(Together(0, given))
    assert (found.labels.tolist(), found.classes) == ([0, 5], 6)
    assert found.metrics().top_5 == 50
    other = Counts()
    other.add(np.eye(6)[:1], np.array([3]))
    given["gather_bytes"].clear()
    counts.outcomes(Together(0, given))
    assert other.outcomes(Together(1, given)).labels.tolist() == [0, 5, 3]


class Recording(nn.Cell):
    def construct(self, x):
        return x + (1 if self.training else 0)


def test_a_network_is_evaluated_and_compiled_as_such():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network, compiled = Recording(), []
    network.set_train(True)

    class Graphs:
        def compile(self, *given):
            compiled.append(given)

    images = np.zeros((2, 3), np.float32)
    assert (of_cell(network)(images) == 0).all()
    assert (of_cell(network, Graphs())(images) == 0).all()
    ((cell, tensor),) = compiled
    assert cell is network
    assert tensor.shape == (2, 3)


def test_a_batch_is_filled_with_copies_of_its_last_image():
    images = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(filled(images, 5), [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]])
    assert filled(images, 3) is images


def test_a_network_sees_batches_of_one_size():
    seen = []

    def network(images):
        seen.append(images[:, 0].tolist())
        return np.stack([images[:, 0], 1 - images[:, 0]], axis=1)

    batches = [(np.array([[0.0], [1.0]]), np.array([1, 0])), (np.array([[0.0]]), np.array([1]))]
    assert outcomes(Counts(), network, batches, 2).predicted.tolist() == [1, 0, 1]
    assert seen == [[0, 1], [0, 0]]


def grey_samples(count: int) -> ArraySamples:
    """Images whose left half is as bright as their number, and whose right half is black."""
    pixels = np.zeros((count, 8, 8, 3), np.uint8)
    pixels[:, :, :4] = np.arange(count)[:, None, None, None]
    return ArraySamples(("a", "b", "c"), np.arange(count, dtype=np.int32) % 3, "grey", pixels)


def grey_config(**keys) -> Config:
    plain = {"image_resize": 8, "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "nearest"}
    return Config(**plain, batch_size=4, **keys)


def left_edge(images: np.ndarray) -> np.ndarray:
    """Logits that say how bright the left edge is: of class 0; others have none."""
    return np.stack([images[:, 0, 0, 0], *[np.zeros(len(images))] * 2], axis=1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_outcomes_have_the_order_of_the_samples(shuffle):
    """On one rank and on two, and in whatever order they were looked at."""
    samples, config = grey_samples(10), grey_config(eval_shuffle=shuffle)
    expected = [np.log(np.exp(n) + 2) - (n if n % 3 == 0 else 0) for n in range(10)]
    alone = Evaluator(runtime_of(config), samples).outcomes(left_edge)
    assert alone.labels.tolist() == samples.labels.tolist()
    np.testing.assert_allclose(alone.losses, expected)
    given: dict = {}
    second = Together(1, given)
    outcomes(Counts(), left_edge, Evaluator(runtime_of(config, second), samples).batches, 4, second)
    both = Evaluator(runtime_of(config, Together(0, given)), samples).outcomes(left_edge)
    np.testing.assert_array_equal(both.losses, alone.losses)


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (6, [4, 4])])
def test_batches_are_filled_up_to_their_size_but_not_beyond_the_set(count, sizes):
    seen = []

    def network(images):
        seen.append(len(images))
        return left_edge(images)

    assert len(Evaluator(runtime_of(grey_config()), grey_samples(count)).outcomes(network)) == count
    assert seen == sizes


def test_with_eval_mirror_an_image_and_its_mirror_image_count_half_each():
    """Of the mirror image the left edge is black."""
    found = Evaluator(runtime_of(grey_config(eval_mirror=True)), grey_samples(5)).outcomes(left_edge)
    np.testing.assert_allclose(found.losses[3], np.log(np.exp(1.5) + 2) - 1.5)
    assert counted(grey_config()) == "each image once"
    assert "its mirror image" in counted(grey_config(eval_mirror=True))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "rank", "drawn"), [(Terminal, 0, True), (Terminal, 1, False), (io.StringIO, 0, False)]
)
def test_a_bar_is_drawn_on_a_terminal_by_one_rank(monkeypatch, stream, rank, drawn):
    monkeypatch.setattr(sys, "stderr", stream())
    assert draws(Ranks(rank, 2)) is drawn
    evaluator = Evaluator(runtime_of(grey_config()), grey_samples(5))
    evaluator.runtime = runtime_of(grey_config(), replace(ALONE, rank=rank))
    evaluator.outcomes(left_edge)
    text = sys.stderr.getvalue()
    assert ("validation" in text and "batch/s" in text) is drawn
    # Nothing of it stays on the screen.
    assert text.rstrip(" ").endswith("\r") or not drawn


class Brightness(nn.Cell):
    """Logits: the mean of the image, weighed for each of three classes."""

    def __init__(self, weights) -> None:
        super().__init__()
        self.w = Parameter(Tensor(np.array(weights, np.float32)), name="w")

    def construct(self, x):
        return x.mean((1, 2, 3)).reshape(-1, 1) * self.w


def test_weights_are_evaluated_in_a_network_of_their_own(monkeypatch):
    config, samples, asked = grey_config(native_ops="off", compile_cache=False), grey_samples(9), []
    monkeypatch.setattr(build, "evaluation_network", lambda *given: asked.append(given) or Brightness([0, 0, 0]))
    evaluator = WeightsEvaluator(runtime_of(config), samples)
    found = []
    for weights in ([1, 0, 0], [0, 0, 1]):
        expected = Evaluator(runtime_of(config), samples).outcomes(of_cell(Brightness(weights))).metrics()
        found.append(evaluator({"w": np.array(weights, np.float32)}))
        assert found[-1] == expected
    assert found[0] != found[1]
    # It is made once.
    assert asked == [(config, None)]
