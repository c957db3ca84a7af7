"""Maps of where a network saw a class: their gradients, their formulas, their place in the image."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.inference import explain
from mindghost.inference.explain import Explainer
from mindghost.models import create_model
from mindghost.models.surgery import replace_cells
from mindghost.ops import library
from tests.helpers.weights import randomise

# At import, where the cache is still the user's.
try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError:
    LIBRARY = None
MODES = (ms.PYNATIVE_MODE, ms.GRAPH_MODE)
IMAGE = (3, 32, 32)


class Nudged(nn.Cell):
    """A cell to whose output something is added."""

    tail = None

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell, self.added, self.output = cell, None, None

    def construct(self, *inputs):
        out = self.cell(*inputs)
        self.output = out
        return out if self.added is None else out + self.added


def network_of(model: str, **options) -> nn.Cell:
    network = create_model(model, num_classes=4, **options)
    randomise(network, gamma=(0.3, 0.6))
    return network


def images_of(count: int, shape=IMAGE) -> np.ndarray:
    return np.random.RandomState(5).normal(size=(count, *shape)).astype(np.float32)


def operators(native: bool):
    if native and LIBRARY is None:
        pytest.skip("no library of native operators")
    return LIBRARY if native else None


def what_explains(monkeypatch, model: str, layer: str, native: bool, **options):
    """Logits, maps and gradients, and the network's own logits and a nudged twin of it."""
    seen = []

    def both(maps, gradients):
        seen.append((maps, gradients))
        return maps[:, 0]

    monkeypatch.setitem(explain.METHODS, "both", both)
    images, labels = images_of(3), np.array([1, 3, 0])
    logits, _ = Explainer(network_of(model, **options), IMAGE, layer, "both", operators(native))(images, labels)
    ((maps, gradients),) = seen
    return images, labels, logits, maps, gradients


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("layer", "nudge"), [("", 3e-2), ("blocks.1", 3e-2), ("bn1", 1e-2), ("blocks.1.0.ghost2", 3e-2)]
)
def test_gradients_are_those_of_finite_differences(short_network, monkeypatch, mode, native, layer, nudge):
    if mode == ms.GRAPH_MODE and layer not in ("", "blocks.1"):
        pytest.skip("two layers are enough")
    ms.set_context(mode=mode)
    images, labels, logits, maps, gradients = what_explains(monkeypatch, "ghostnet_050", layer, native)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    twin = network_of("ghostnet_050").set_train(False)
    np.testing.assert_allclose(logits, twin(Tensor(images)).asnumpy(), rtol=1e-4, atol=1e-4)
    cell = dict(twin.cells_and_names())[layer or "blocks"]
    nudged = Nudged(cell)
    replace_cells(twin, {id(cell): nudged})
    twin.set_train(False)
    twin(Tensor(images))
    np.testing.assert_allclose(maps, nudged.output.asnumpy(), rtol=1e-4, atol=1e-4)

    def logit(added):
        nudged.added = Tensor(added)
        return twin(Tensor(images)).asnumpy()[np.arange(3), labels].astype(np.float64)

    random = np.random.RandomState(1)
    for _ in range(4):
        direction = random.normal(size=maps.shape).astype(np.float32)
        direction *= nudge * maps.std() / np.abs(direction).max()
        slope = (logit(direction) - logit(-direction)) / 2
        np.testing.assert_allclose((gradients * direction).sum(axis=(1, 2, 3)), slope, rtol=0.05, atol=2e-3)
    assert np.abs(gradients).max() > 0
