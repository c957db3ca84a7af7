"""Operators of dense prediction: results and gradients against MindSpore's."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost.ops import library, pixels, rewrite

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")

RANDOM = np.random.RandomState(3)


def maps(*shape: int) -> Tensor:
    return Tensor(RANDOM.uniform(-1, 1, shape).astype(np.float32))


class Interpolated(nn.Cell):
    def construct(self, x, size):
        return ops.interpolate(x, size=size, mode="bilinear", align_corners=False)


class Weighted(nn.Cell):
    """The sum of resized maps, each element with a weight."""

    def __init__(self, cell: nn.Cell, size: tuple[int, int]) -> None:
        super().__init__()
        self.cell = cell
        self.size = size

    def construct(self, x, weights):
        return ops.reduce_sum(self.cell(x, self.size) * weights)


@pytest.mark.parametrize(
    ("size", "larger"), [((5, 7), (10, 14)), ((3, 4), (24, 16)), ((7, 6), (13, 9)), ((9, 8), (4, 3)), ((1, 1), (3, 5))]
)
def test_upsampling_is_mindspores(size, larger):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    x, weights = maps(2, 3, *size), maps(2, 3, *larger)
    own, native = (Weighted(cell, larger) for cell in (Interpolated(), pixels.NativeUpsample(LIBRARY)))
    np.testing.assert_allclose(native.cell(x, larger).asnumpy(), own.cell(x, larger).asnumpy(), atol=1e-6)
    found, expected = (ops.grad(cell)(x, weights).asnumpy() for cell in (native, own))
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_upsampling_in_one_graph():
    """Two sizes, one after the other, and their gradients: each operator has shapes of its own."""
    ms.set_context(mode=ms.GRAPH_MODE)

    class Twice(nn.Cell):
        def __init__(self, cell: nn.Cell) -> None:
            super().__init__()
            self.cell = cell

        def construct(self, x, weights):
            half = self.cell(x, (x.shape[2] * 2, x.shape[3] * 2))
            return ops.reduce_sum(self.cell(half * half, (weights.shape[2], weights.shape[3])) * weights)

    x, weights = maps(2, 3, 5, 4), maps(2, 3, 17, 33)
    found, expected = (
        ops.value_and_grad(Twice(cell))(x, weights) for cell in (pixels.NativeUpsample(LIBRARY), Interpolated())
    )
    assert float(found[0].asnumpy()) == pytest.approx(float(expected[0].asnumpy()), rel=1e-4)
    np.testing.assert_allclose(found[1].asnumpy(), expected[1].asnumpy(), atol=5e-5)


class Loss(nn.Cell):
    """All that `PixelLosses` gives: the mean, and the losses with a weight each."""

    def __init__(self, *arguments: object) -> None:
        super().__init__()
        self.losses = pixels.PixelLosses(*arguments)

    def construct(self, logits, labels, weights):
        losses, total, divisor = self.losses(logits, labels)
        mean = ops.reduce_sum(total / divisor)
        return mean + ops.reduce_sum(losses * weights), mean


@pytest.mark.parametrize("settings", [(5,), (5, 254, 0.1), (5, 255, 0.2, (1.0, 0.5, 2.0, 0.0, 1.0))])
@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_pixel_losses_are_mindspores(settings, mode):
    ms.set_context(mode=mode)
    ignored, smoothing, class_weights = (*settings[1:], *(255, 0.0, None)[len(settings) - 1 :])
    logits, weights = Tensor(20 * maps(2, 5, 7, 9).asnumpy()), maps(2, 7, 9)
    labels = RANDOM.randint(0, 5, (2, 7, 9)).astype(np.int32)
    labels[0, :3] = ignored
    own, native = Loss(*settings), Loss(*settings)
    rewrite.use(native, LIBRARY)
    assert isinstance(native.losses, pixels.NativePixelLosses)
    found, expected = (
        ops.value_and_grad(cell, 0, None, has_aux=True)(logits, Tensor(labels), weights) for cell in (native, own)
    )
    np.testing.assert_allclose(found[0][0].asnumpy(), expected[0][0].asnumpy(), rtol=2e-5)
    np.testing.assert_allclose(found[1].asnumpy(), expected[1].asnumpy(), atol=1e-5)
    by_class = None if class_weights is None else Tensor(class_weights, ms.float32)
    whole = ops.cross_entropy(logits, Tensor(labels), by_class, ignored, "mean", smoothing)
    assert float(found[0][1].asnumpy()) == pytest.approx(float(whole.asnumpy()), rel=1e-5)


def test_gradients_are_differences():
    """Of the losses of enlarged logits, along a random direction; the labels of some pixels are ignored."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    upsample, loss = pixels.NativeUpsample(LIBRARY), Loss(4, 255, 0.1)
    rewrite.use(loss, LIBRARY)
    labels = RANDOM.randint(0, 4, (2, 9, 14)).astype(np.int32)
    labels[:, 2] = 255
    weights = maps(2, 9, 14)

    def value(x: Tensor) -> Tensor:
        return loss(upsample(x, (9, 14)), Tensor(labels), weights)[0]

    x, along = maps(2, 4, 5, 7), maps(2, 4, 5, 7)
    slope = float((ops.grad(value)(x) * along).sum().asnumpy())
    ahead, behind = (float(value(x + step * along).asnumpy()) for step in (1e-2, -1e-2))
    assert (ahead - behind) / 2e-2 == pytest.approx(slope, rel=2e-3)


def test_labels_that_are_no_class_are_an_error():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    loss = Loss(3)
    rewrite.use(loss, LIBRARY)
    # Where MindSpore 2.10 waits for what has failed in another thread, the process sometimes ends (SIGSEGV).
    ms.set_context(pynative_synchronize=True)
    try:
        with pytest.raises(RuntimeError):
            loss(maps(1, 3, 2, 2), Tensor(np.full((1, 2, 2), 3, np.int32)), maps(1, 2, 2))[0].asnumpy()
    finally:
        ms.set_context(pynative_synchronize=False)
    with pytest.raises(TypeError, match="take tensors of Float32, Float32, Int32, Float32, got"):
        loss(maps(1, 3, 2, 2), Tensor(np.zeros((1, 2, 2), np.int64)), maps(1, 2, 2))
