"""Losses of classes and samples that count differently, against MindSpore's own and hand computations."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mindghost.config import Config
from mindghost.data import mix
from mindghost.train.step import training_loss

CLASSES, IMAGES = 5, 12
RNG = np.random.default_rng(4)
LOGITS = RNG.normal(0, 3, (IMAGES, CLASSES)).astype(np.float32)
TAUGHT = RNG.normal(0, 3, (IMAGES, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, IMAGES).astype(np.int32)
SOFT = mix.soft_labels(LABELS, CLASSES, 0.7)
SAMPLES = RNG.uniform(0.1, 3, IMAGES).astype(np.float32)
WEIGHTS = (0.5, 2.0, 0.0, 1.0, 3.5)


@pytest.fixture(autouse=True, params=[ms.PYNATIVE_MODE])
def pynative(request):
    ms.set_context(mode=request.param)


def loss(*arrays, **keys) -> float:
    return float(training_loss(Config(num_classes=CLASSES, **keys))(*map(Tensor, arrays)))


def one_hot(labels) -> np.ndarray:
    return np.eye(CLASSES)[labels] if labels.ndim == 1 else labels.astype(np.float64)


def goal(labels, smoothing) -> np.ndarray:
    return one_hot(labels) * (1 - smoothing) + smoothing / CLASSES


def log_softmax(logits) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def binary(labels, smoothing) -> np.ndarray:
    """Of each image and class."""
    share, target = 1 / (1 + np.exp(-LOGITS.astype(np.float64))), goal(labels, smoothing)
    return -(target * np.log(share) + (1 - target) * np.log(1 - share))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_are_mindspores(smoothing, reduction):
    found = loss(LOGITS, LABELS, class_weights=WEIGHTS, label_smoothing=smoothing, reduction=reduction)
    tensors = Tensor(LOGITS), Tensor(LABELS), Tensor(WEIGHTS, ms.float32)
    expected = ops.cross_entropy(*tensors, reduction=reduction, label_smoothing=smoothing)
    assert found == pytest.approx(float(expected), rel=2e-6)


def test_class_weights_are_pytorchs():
    torch = pytest.importorskip("torch")
    tensors = torch.from_numpy(LOGITS), torch.from_numpy(LABELS).long(), torch.tensor(WEIGHTS)
    expected = torch.nn.functional.cross_entropy(*tensors, label_smoothing=0.1)
    assert loss(LOGITS, LABELS, class_weights=WEIGHTS, label_smoothing=0.1) == pytest.approx(float(expected), rel=2e-6)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(LOGITS), torch.from_numpy(SOFT), torch.tensor(WEIGHTS)
    )
    assert loss(LOGITS, SOFT, loss="BCE", class_weights=WEIGHTS) == pytest.approx(float(binary), rel=2e-6)


@pytest.mark.parametrize("keys", [{}, {"class_weights": WEIGHTS}, {"loss": "BCE", "class_weights": WEIGHTS}])
def test_a_soft_label_of_one_class_is_that_class(keys):
    keys |= {"label_smoothing": 0.1}
    rows = one_hot(LABELS).astype(np.float32)
    assert loss(LOGITS, rows, **keys) == pytest.approx(loss(LOGITS, LABELS, **keys), rel=1e-6)


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "class weights"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_samples_of_different_weight(labels, weights, reduction):
    keys = {"class_weights": weights, "label_smoothing": 0.1, "reduction": reduction}
    of_class = np.ones(CLASSES) if weights is None else np.array(weights)
    losses = SAMPLES * -(goal(labels, 0.1) * of_class * log_softmax(LOGITS)).sum(1)
    divisor = {"sum": 1, "mean": (one_hot(labels) * of_class).sum()}[reduction]
    assert loss(LOGITS, labels, SAMPLES, **keys) == pytest.approx(losses.sum() / divisor, rel=1e-5)
    parts = SAMPLES[:, None] * of_class * binary(labels, 0.1)
    expected = getattr(np, reduction)(parts)
    assert loss(LOGITS, labels, SAMPLES, **keys, loss="BCE") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("keys", [{}, {"loss": "BCE"}, {"class_weights": WEIGHTS}, {"teacher": "ghostnet_100"}])
def test_equal_weights_change_nothing(keys):
    more = (TAUGHT,) if "teacher" in keys else ()
    weighted = loss(LOGITS, LABELS, np.ones(IMAGES, np.float32), *more, **keys)
    assert weighted == pytest.approx(loss(LOGITS, LABELS, *more, **keys), rel=1e-6)


@pytest.mark.parametrize("name", ["CE", "BCE"])
def test_half_batches_amount_to_the_whole(name):
    """As with gradient accumulation, and with ranks."""
    whole = loss(LOGITS, LABELS, SAMPLES, loss=name)
    halves = [loss(LOGITS[part], LABELS[part], SAMPLES[part], loss=name) for part in (slice(0, 6), slice(6, 12))]
    assert np.mean(halves) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", ["CE", "BCE"])
def test_a_mix_is_the_weighted_sum_of_its_two_labels(name):
    """lam x weight x loss for a sample's own label, and likewise for the other's."""
    lam, keys = 0.3, {"loss": name, "label_smoothing": 0.1}
    mixed, weights = mix.soft_weighted(LABELS, CLASSES, lam, SAMPLES)
    own = loss(LOGITS, LABELS, SAMPLES, **keys)
    other = loss(LOGITS, LABELS[::-1].copy(), SAMPLES[::-1].copy(), **keys)
    assert loss(LOGITS, mixed, weights, **keys) == pytest.approx(lam * own + (1 - lam) * other, rel=1e-5)


def test_a_teacher_counts_by_sample_too():
    keys = {"teacher": "ghostnet_100", "distill_alpha": 0.3, "distill_temperature": 4.0}
    true = -log_softmax(LOGITS)[np.arange(IMAGES), LABELS]
    wanted, found = log_softmax(TAUGHT / 4), log_softmax(LOGITS / 4)
    divergence = (np.exp(wanted) * (wanted - found)).sum(1)
    expected = (SAMPLES * (0.7 * true + 0.3 * 16 * divergence)).mean()
    assert loss(LOGITS, LABELS, SAMPLES, TAUGHT, **keys) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_weight_has_no_loss():
    labels = np.full(IMAGES, 2, np.int32)
    assert loss(LOGITS, labels, class_weights=WEIGHTS) == 0


def test_graphs_and_gradients():
    ms.set_context(mode=ms.GRAPH_MODE)
    keys = {"class_weights": WEIGHTS, "label_smoothing": 0.1, "teacher": "ghostnet_100"}
    cell = training_loss(Config(num_classes=CLASSES, **keys))
    arrays = list(map(Tensor, (LOGITS, LABELS, SAMPLES, TAUGHT)))
    value, gradient = ms.value_and_grad(cell)(*arrays)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert float(value) == pytest.approx(float(cell(*arrays)), rel=1e-6)
    step = np.zeros_like(LOGITS)
    step[3, 1] = 1e-2
    up, down = (float(cell(Tensor(LOGITS + sign * step), *arrays[1:])) for sign in (1, -1))
    assert float(gradient.asnumpy()[3, 1]) == pytest.approx((up - down) / 2e-2, rel=1e-2, abs=1e-5)
