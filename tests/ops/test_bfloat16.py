"""Products of convolutions in bfloat16: against MindSpore's of rounded values, what runs in them, and what is refused.

Where the processor has no AMX, the operators take loops that do the same; tests/csrc compares both.
"""

import ctypes

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost import build
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.models.ghost_cifar import ghost_airbench
from mindghost.models.layers import convolution
from mindghost.ops import fused, library
from mindghost.train.step import StepOptions
from tests.helpers.commands import process
from tests.helpers.training import arguments
from tests.helpers.weights import randomise

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest values of 8 bits of mantissa, halves to the even one: bfloat16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def passed(cell: nn.Cell, x: np.ndarray) -> list[np.ndarray]:
    """Output, and gradients of the input and the weight, where those of the output are whole numbers."""
    shape = cell(Tensor(x)).shape
    factors = Tensor(np.random.RandomState(5).randint(-3, 4, shape).astype(np.float32))

    def forward(x):
        y = cell(x)
        return ops.reduce_sum(y * factors), y

    (_, y), (d_x, (d_weight,)) = ops.value_and_grad(forward, 0, cell.trainable_params(), has_aux=True)(Tensor(x))
    return [value.asnumpy() for value in (y, d_x, d_weight)]


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: convolution(16, 40, 3), (3, 16, 9, 6)),
        (lambda: convolution(48, 20, 1), (2, 48, 7, 7)),
        (lambda: convolution(17, 16, (5, 3), pad_mode="valid"), (1, 17, 8, 8)),
    ],
    ids=["3x3, an odd batch", "1x1", "5x3, no padding"],
)
def test_products_are_those_of_rounded_values(make, shape, mode):
    ms.set_context(mode=mode)
    own, plain = make(), make()
    randomise(own)
    x = np.random.RandomState(3).uniform(-1, 1, shape).astype(np.float32)
    plain.weight.set_data(Tensor(rounded(own.weight.asnumpy())))
    found = passed(fused.Dense(LIBRARY, own, bfloat16=True), x)
    for name, value, expected in zip(("y", "d_x", "d_weight"), found, passed(plain, rounded(x)), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-5 * np.abs(expected).max(), err_msg=name)
    exact = passed(own, x)[0]
    assert np.abs(found[0] - exact).max() > 1e-4 * np.abs(exact).max(), "nothing was rounded"


KEYS = {"amp_level": "O2", "amp_type": "bfloat16", "model": "ghost_airbench", "num_classes": 10}


def test_convolutions_of_many_channels_are_in_it_and_nothing_else():
    network = build.training_precision(ghost_airbench(), Config(**KEYS), LIBRARY)
    cells = [cell for _, cell in network.cells_and_names()]
    dense = [cell for cell in cells if isinstance(cell, fused.Dense)]
    assert {cell.bfloat16 for cell in dense} == {True, False}
    for cell in dense:
        assert cell.bfloat16 == (min(cell.weight.shape[:2]) >= 16)
    left = [cell for cell in cells if type(cell) is nn.Conv2d and cell.group == 1 and cell.stride == (1, 1)]
    inside = {id(cell.convolution) for cell in dense}
    assert all(min(cell.weight.shape[:2]) < 16 for cell in left if id(cell) not in inside)
    assert all(parameter.dtype == ms.float32 for parameter in network.get_parameters())


def test_evaluation_is_in_float32():
    network = build.evaluation_network(Config(**KEYS), LIBRARY)
    assert not any(getattr(cell, "bfloat16", False) for _, cell in network.cells_and_names())


def test_no_loss_scale_is_needed():
    assert not StepOptions.from_config(Config(**KEYS, loss_scale_type="auto")).dynamic_scale
    assert StepOptions.from_config(Config(amp_level="O2", loss_scale_type="auto")).dynamic_scale


def test_a_machine_that_lacks_it(monkeypatch):
    with pytest.raises(UserError, match="amp_type: bfloat16 takes our native operators, which cannot be had here"):
        library.check_bfloat16(None)

    class NoTiles:
        def __init__(self, path):
            self.ghostnet_bfloat16 = lambda: 0

    monkeypatch.setattr(library.ctypes, "CDLL", NoTiles)
    with pytest.raises(UserError, match=r"takes a processor with AMX .*; leave amp_type and amp_level out"):
        library.check_bfloat16(LIBRARY)


def test_a_training_says_so_or_is_refused(images, tmp_path):
    """By the processor that this is."""
    keys = {
        "amp_level": "O2",
        "amp_type": "bfloat16",
        "epoch_size": 1,
        "decay_epochs": 1,
        "drop_overflow_update": False,
    }
    done = process(*arguments(images, tmp_path / "run", **keys))
    if ctypes.CDLL(str(LIBRARY)).ghostnet_bfloat16():
        assert done.returncode == 0, done.stderr
        assert "6 classes, O2 in bfloat16" in done.stdout + done.stderr
        assert (tmp_path / "run" / "ghostnet_050_last.ckpt").is_file()
    else:
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("train.py: error: amp_type: bfloat16 takes a processor with AMX")
