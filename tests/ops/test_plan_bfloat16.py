"""Plans in bfloat16: against MindSpore's operators on rounded values, and where they are refused.

Where the processor has no AMX, loops do the same.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost import build
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.inference.network import of_cell
from mindghost.models import create_model, ghostnet
from mindghost.models.folded import folded
from mindghost.ops import library, plan
from tests.helpers.families import one_of_each
from tests.helpers.networks import images
from tests.helpers.weights import randomise

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")

BFLOAT16 = plan.Form(LIBRARY, bfloat16=True)


@pytest.fixture(autouse=True)
def operator_by_operator():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    library.load(LIBRARY, 2)


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest values of 8 bits of mantissa, halves to the even one: bfloat16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


class Rounded(nn.Cell):
    """A convolution or dense layer of rounded weights, whose input is rounded, too."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        cell.weight.set_data(Tensor(rounded(cell.weight.asnumpy())))
        self.cell = cell

    def construct(self, x: Tensor) -> Tensor:
        return self.cell(Tensor(rounded(x.asnumpy())))


def with_rounded_products(network: nn.Cell) -> nn.Cell:
    """The same network with `Rounded` in the place of its 1x1 convolutions and its classifier; changes it in place."""
    for _, parent in list(network.cells_and_names()):
        for name, cell in list(parent._cells.items()):
            flat = type(cell) is nn.Conv2d and cell.group == 1 and set(cell.kernel_size) == {1}
            if flat or type(cell) is nn.Dense:
                parent._cells[name] = Rounded(cell)
    return network


def network(name: str) -> nn.Cell:
    made = create_model(name, 30)
    randomise(made, gamma=(0.3, 0.9))
    return made.set_train(False)


def differences(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of the plan in bfloat16, and those of MindSpore on rounded values; less those in float32, in shares of
    the largest of them. Then the first less the second."""
    made, given = network(name), images(3, 3, 64, 48)
    found, exact = plan.of(made, BFLOAT16)(given), plan.of(made, plan.Form(LIBRARY))(given)
    emulated = with_rounded_products(folded(name, made, num_classes=30).set_train(False))(Tensor(given)).asnumpy()
    return tuple(part / np.abs(exact).max() for part in (found - exact, emulated - exact, found - emulated))


def test_products_are_those_of_rounded_values(monkeypatch):
    """In a few layers: what lies in the middle between two values may go either way, and takes others with it."""
    monkeypatch.setattr(ghostnet, "STAGES", (ghostnet.STAGES[0],))
    _, emulated, between = differences("ghostnet_050")
    assert np.abs(between).max() < 0.4 * np.abs(emulated).max()


@pytest.mark.parametrize("name", one_of_each(["ghostnet_050", "ghostnetv2_100", "repghostnet_050"]))
def test_whole_networks_are_off_as_far_as_rounded_values_are(name):
    found, emulated, _ = differences(name)
    assert np.abs(found).max() < 0.02
    assert 0.6 < found.std() / emulated.std() < 1.6


def config(model: str = "ghostnet_050") -> Config:
    return Config(model=model, num_classes=3, val_amp_level="bfloat16")


def test_evaluation_is_by_a_plan_in_it(monkeypatch):
    monkeypatch.setattr(build, "check_bfloat16", lambda *_: None)
    made = build.evaluation_network(config(), LIBRARY)
    form = build.for_plan(config(), LIBRARY)
    assert form == BFLOAT16
    given = images(1, 3, 32, 32)
    np.testing.assert_array_equal(of_cell(made, None, form)(given), plan.of(made, BFLOAT16)(given))
    assert build.for_plan(config().replace(val_amp_level="O0"), LIBRARY) == plan.Form(LIBRARY)
    assert build.for_plan(config().replace(val_amp_level="O2"), LIBRARY) is None


def test_networks_without_a_plan_are_refused(monkeypatch):
    monkeypatch.setattr(build, "check_bfloat16", lambda *_: None)
    with pytest.raises(
        UserError, match="^val_amp_level: bfloat16 is for networks that run as a plan, and ghost_airbench"
    ):
        build.evaluation_network(config("ghost_airbench"), LIBRARY)
    dilated = network("ghostnet_050")
    dilated.conv_stem.dilation = (2, 2)
    with pytest.raises(
        UserError, match="^val_amp_level: bfloat16 is for networks that run as a plan, and this one does"
    ):
        of_cell(dilated, None, BFLOAT16)


def test_a_machine_that_lacks_it(monkeypatch):
    with pytest.raises(
        UserError, match="^val_amp_level: bfloat16 takes our native operators, .*; set val_amp_level to O0"
    ):
        build.evaluation_network(config())

    class NoTiles:
        def __init__(self, path):
            self.ghostnet_bfloat16 = lambda: 0

    monkeypatch.setattr(library.ctypes, "CDLL", NoTiles)
    with pytest.raises(
        UserError, match=r"^val_amp_level: bfloat16 takes a processor with AMX .*; set val_amp_level to O0"
    ):
        build.evaluation_network(config(), LIBRARY)
