"""Operators of quantisation-aware training: the bits of `models.quantized`, which runs without them."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost.models import quantized
from mindghost.ops import library, rewrite

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")


class Weighted(nn.Cell):
    """The sum of what a cell gives, each element with a weight."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        self.cell = cell

    def construct(self, x, weights):
        return ops.reduce_sum(self.cell(x) * weights)


def both(make) -> tuple[Weighted, Weighted]:
    """A cell as it is, and the same one by our operators."""
    own, native = (Weighted(make()) for _ in range(2))
    rewrite.use(native, LIBRARY)
    assert type(native.cell) is not type(own.cell)
    return own, native


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 3), (1,), (40, 1024)])
def test_maps_have_the_same_bits_and_ranges(shape):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    random = np.random.default_rng(1)
    own, native = both(quantized.FakeQuantize)
    for factor in (1, 3, 0.5):
        x, weights = (Tensor(random.normal(0, factor, shape).astype(np.float32)) for _ in range(2))
        for training in (True, False):
            found, expected = (cell.cell.set_train(training)(x).asnumpy() for cell in (native, own))
            np.testing.assert_array_equal(found, expected)
        for name in ("moving_minimum", "moving_maximum"):
            np.testing.assert_array_equal(
                getattr(native.cell, name).asnumpy(), getattr(own.cell, name).asnumpy(), err_msg=name
            )
        for training in (True, False):
            gradients = [ops.grad(cell.set_train(training))(x, weights).asnumpy() for cell in (native, own)]
            np.testing.assert_array_equal(*gradients)
    assert np.ptp(found) > 0 or shape == (1,)


def test_halves_and_what_is_out_of_range():
    """A range of 0 to 255 in steps of 1: halves go to the even number, gradients end beyond half a step."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    values = np.array([0, 0.5, 1.5, 2.5, 254.5, 255, 255.4, 255.6, 400, -0.4, -0.6, -9], np.float32)
    for cell in both(quantized.FakeQuantize):
        cell.set_train(False)
        cell.cell.moving_maximum.set_data(Tensor([255], ms.float32))
        expected = [0, 0, 2, 2, 254, 255, 255, 255, 255, 0, 0, 0]
        np.testing.assert_array_equal(cell.cell(Tensor(values)).asnumpy(), expected)
    x, ones = Tensor(values), Tensor(np.ones_like(values))
    inside = (values > -0.5) & (values < 255.5)
    rounded = Weighted(quantized.Rounded())
    gradient = ops.grad(lambda x: ops.reduce_sum(rounded.cell(x, ops.ones((1,)), ops.zeros((1,))) * ones))(x)
    np.testing.assert_array_equal(gradient.asnumpy(), inside.astype(np.float32))


def test_what_is_no_number_stays_visible():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for cell in both(quantized.FakeQuantize):
        out = cell.cell.set_train()(Tensor(np.array([1, np.nan, 2], np.float32))).asnumpy()
        assert np.isnan(out[1])


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 1, 1, 1), (3, 40)])
def test_weights_have_the_same_bits_and_all_of_the_gradient(shape):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    random = np.random.default_rng(2)
    values = random.standard_normal(shape).astype(np.float32)
    values[1] = 0
    own, native = both(quantized.RoundedWeight)
    found, expected = (cell.cell(Tensor(values)).asnumpy() for cell in (native, own))
    np.testing.assert_array_equal(found, expected)
    largest = np.abs(values).reshape(len(values), -1).max(1)
    np.testing.assert_allclose(np.abs(found).reshape(len(values), -1).max(1), largest, rtol=1e-6)
    weights = random.standard_normal(shape).astype(np.float32)
    for cell in (own, native):
        np.testing.assert_array_equal(ops.grad(cell)(Tensor(values), Tensor(weights)).asnumpy(), weights)


@pytest.mark.parametrize(("stride", "multiplier", "kernel"), [(1, 1, 3), (2, 1, 5), (1, 2, 3)])
def test_depthwise_convolutions_with_a_weight_that_is_given(stride, multiplier, kernel):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    like = nn.Conv2d(4, 4 * multiplier, kernel, stride, pad_mode="pad", padding=kernel // 2, group=4, has_bias=True)
    random = np.random.default_rng(3)
    x = Tensor(random.standard_normal((2, 4, 9, 8)).astype(np.float32))
    weight = Tensor(random.standard_normal(like.weight.shape).astype(np.float32))

    class Held(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = quantized.Convolution(like)

        def construct(self, x, weight):
            return ops.reduce_sum(self.convolution(x, weight) ** 2)

    own, native = Held(), Held()
    rewrite.use(native, LIBRARY)
    assert type(native.convolution) is not quantized.Convolution
    gradients = (ops.grad(cell.set_train(), (0, 1))(x, weight) for cell in (native, own))
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (3, 40)])
def test_biases_have_the_same_bits(shape):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    random = np.random.default_rng(4)
    weight = Tensor(random.standard_normal(shape).astype(np.float32))
    bias = Tensor(random.standard_normal(shape[0]).astype(np.float32))
    ends = Tensor([-0.7], ms.float32), Tensor([1.9], ms.float32)

    class Held(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.rounded = quantized.RoundedBias()

    own, native = Held(), Held()
    rewrite.use(native, LIBRARY)
    assert type(native.rounded) is not quantized.RoundedBias
    found, expected = (cell.rounded(bias, weight, *ends).asnumpy() for cell in (native, own))
    np.testing.assert_array_equal(found, expected)
    sums = (lambda bias, cell=cell: ops.reduce_sum(cell.rounded(bias, weight, *ends) * bias) for cell in (native, own))
    np.testing.assert_array_equal(*(ops.grad(each)(bias).asnumpy() for each in sums))
    steps = np.abs(weight.asnumpy()).reshape(shape[0], -1).max(1) / 63 * (1.9 + 0.7) / 255
    np.testing.assert_allclose(found / steps, np.rint(bias.asnumpy() / steps), atol=1e-2)
    assert np.abs(found - bias.asnumpy()).max() <= steps.max()
