"""The loss of masks, against hand computations in float64 and PyTorch's meaning of them."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindghost.config import Config
from mindghost.train.step import training_loss

CLASSES = 4
RNG = np.random.default_rng(8)
LOGITS = RNG.normal(0, 3, (2, CLASSES, 5, 6)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, (2, 5, 6)).astype(np.int32)
LABELS[:, 0] = 255
LABELS[1, 1:3, 2] = 255
WEIGHTS = (0.5, 2.0, 0.0, 3.5)


@pytest.fixture(autouse=True)
def pynative():
    ms.set_context(mode=ms.PYNATIVE_MODE)


def cell(**keys):
    return training_loss(Config(**{"task": "segmentation", "num_classes": CLASSES, **keys}))


def loss(*arrays, **keys) -> float:
    return float(cell(**keys)(*map(Tensor, arrays)))


def parts(labels=LABELS, weights=(1,) * CLASSES, smoothing=0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pixel that counts: its loss, the weight of its label, its plain loss; one after the other."""
    losses, counts, plain = [], [], []
    for image, row, column in np.argwhere(labels != 255):
        logits = LOGITS[image, :, row, column].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum())
        label = labels[image, row, column]
        goal = np.full(CLASSES, smoothing / CLASSES)
        goal[label] += 1 - smoothing
        losses.append(-(goal * weights * logs).sum())
        counts.append(weights[label])
        plain.append(-logs[label])
    return np.array(losses), np.array(counts), np.array(plain)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy(smoothing, weights, reduction):
    losses, counts, _ = parts(LABELS, weights or (1,) * CLASSES, smoothing)
    expected = losses.sum() / (counts.sum() if reduction == "mean" else 1)
    found = loss(LOGITS, LABELS, class_weights=weights, label_smoothing=smoothing, reduction=reduction)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ignored", [255, 2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_pytorchs(ignored, weights, smoothing):
    torch = pytest.importorskip("torch")
    labels = np.where(LABELS == 255, ignored, LABELS)
    more = {"weight": None if weights is None else torch.tensor(weights), "label_smoothing": smoothing}
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels).long(), ignore_index=ignored, **more)
    expected.backward()
    expected = expected.item()
    found = cell(ignore_index=ignored, class_weights=weights, label_smoothing=smoothing)
    value, gradient = ms.value_and_grad(found)(Tensor(LOGITS), Tensor(labels))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), logits.grad.numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_the_hardest_pixels(share, weights):
    """The share of those that count, rounded up; by their plain loss, whatever the weights of their classes are."""
    losses, counts, plain = parts(LABELS, weights or (1,) * CLASSES, 0.1)
    kept = np.argsort(-plain)[: int(np.ceil(share * len(plain)))]
    found = loss(LOGITS, LABELS, ohem=share, class_weights=weights, label_smoothing=0.1)
    assert found == pytest.approx(losses[kept].sum() / max(counts[kept].sum(), 1.2e-38), rel=1e-5)


def test_pixels_of_equal_loss_are_all_kept():
    logits = np.zeros((1, 2, 1, 5), np.float32)
    logits[0, 1, 0, :3] = 1
    labels = np.zeros((1, 1, 5), np.int32)
    expected = -np.log(1 / (1 + np.e))
    assert loss(logits, labels, ohem=0.2, num_classes=2) == pytest.approx(expected, rel=1e-5)
    assert loss(logits, labels, ohem=0.2, num_classes=2, reduction="sum") == pytest.approx(3 * expected, rel=1e-5)


def dice_by_hand(labels) -> float:
    shares = np.exp(LOGITS.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    valid = labels != 255
    scores = []
    for label in range(CLASSES):
        truth = labels == label
        if truth.any():
            share = shares[:, label][valid]
            scores.append(2 * share[truth[valid]].sum() / (share.sum() + truth.sum()))
    return 1 - np.mean(scores)


@pytest.mark.parametrize("labels", [LABELS, np.where(LABELS == 3, 255, LABELS), np.where(LABELS == 255, 255, 1)])
def test_dice(labels):
    labels = labels.astype(np.int32)
    plain = loss(LOGITS, labels)
    assert loss(LOGITS, labels, dice_weight=0.7) - plain == pytest.approx(0.7 * dice_by_hand(labels), rel=1e-4)


def test_weights_of_samples():
    losses, _, _ = parts()
    images = np.argwhere(LABELS != 255)[:, 0]
    samples = np.array([0.5, 1.5], np.float32)
    assert loss(LOGITS, LABELS, samples) == pytest.approx((losses * samples[images]).mean(), rel=1e-5)
    assert loss(LOGITS, LABELS, np.ones(2, np.float32)) == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize(
    "keys", [{}, {"class_weights": WEIGHTS, "label_smoothing": 0.1, "ohem": 0.5, "dice_weight": 1.0}]
)
def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient(keys):
    nothing = np.full_like(LABELS, 255)
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        value, gradient = ms.value_and_grad(cell(**keys))(Tensor(LOGITS), Tensor(nothing))
        assert float(value) == 0
        assert not gradient.asnumpy().any()


def test_graphs_and_gradients():
    keys = {"class_weights": WEIGHTS, "label_smoothing": 0.1, "dice_weight": 0.5, "ohem": 0.6}
    found = cell(**keys)
    expected = float(found(Tensor(LOGITS), Tensor(LABELS)))
    ms.set_context(mode=ms.GRAPH_MODE)
    value, gradient = ms.value_and_grad(found)(Tensor(LOGITS), Tensor(LABELS))
    assert float(value) == pytest.approx(expected, rel=1e-6)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert not gradient.asnumpy()[:, :, 0].any()
    for place in ((0, 1, 2, 3), (1, 0, 4, 5), (0, 3, 3, 0)):
        step = np.zeros_like(LOGITS)
        step[place] = 1e-2
        up, down = (float(found(Tensor(LOGITS + sign * step), Tensor(LABELS))) for sign in (1, -1))
        assert float(gradient.asnumpy()[place]) == pytest.approx((up - down) / 2e-2, rel=2e-2, abs=2e-5)


def test_large_logits_and_many_classes():
    """150 classes, logits as large as they come: nothing overflows, and a sure answer has no loss."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 150, (1, 4, 4)).astype(np.int32)
    logits = np.where(np.arange(150)[None, :, None, None] == labels[:, None], 3e4, -3e4).astype(np.float32)
    assert loss(logits, labels, num_classes=150) == 0
    assert np.isfinite(loss(-logits, labels, num_classes=150, dice_weight=1.0, ohem=0.5))
    one = np.zeros((1, 1, 4, 4), np.float32)
    assert loss(one, np.zeros((1, 4, 4), np.int32), num_classes=1) == 0
