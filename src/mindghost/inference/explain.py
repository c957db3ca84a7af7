"""Where a network of MindSpore looks: maps of any cell, and gradients that MindSpore takes; or those of its program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common import _no_grad
from numpy.typing import NDArray

from .. import build, tasks
from ..config import Config
from ..config.wording import nearest, short
from ..data import transforms
from ..errors import UserError
from ..models.complexity import forward_hooks, run
from ..models.layers import Around
from ..models.network import RegistryNetwork
from ..models.parameters import reshape
from ..models.surgery import replace_cells
from ..ops import plan, rewrite
from ..ops.plan.program import Finished
from ..process.display import some
from ..runtime import in_mode
from ..tasks import heat
from ..tasks.task import Explain
from . import kept
from .batches import filled
from .class_activation import MOST, Explaining, PlanExplainer
from .deployment import Deployment
from .network import trained_cell


class Tap(Around):
    """A cell that keeps what it gives, and adds zeros to it, whose gradient is that of what it gives.

    Hooks do the same, but not in graph mode.

    Args:
        cell: gives a tensor.
        shape: of that tensor.
        name: of the cell, for the names of parameters.

    Attributes:
        before: closed once the cell has run: what is before it has no gradients, which outside of graphs takes nearly
            half the time of a forward pass. None in graphs, which leave out what nothing reads.
    """

    def __init__(self, cell: nn.Cell, shape: tuple[int, ...], name: str) -> None:
        super().__init__(cell)
        zeros = np.zeros(shape, np.float32)
        self.zeros = Parameter(Tensor(zeros), name=f"{name}.zeros")
        self.kept = Parameter(Tensor(zeros), name=f"{name}.kept", requires_grad=False)
        self.before: ExitStack | None = None

    def construct(self, *inputs: Tensor) -> Tensor:  # noqa: D102
        out = self.cell(*inputs)
        if self.before is not None:
            self.before.close()
        return ops.depend(out, ops.assign(self.kept, out)) + self.zeros


class _Gradient(nn.Cell):
    """Images and labels -> logits, and the gradient of each label's logit by what a tap gives.

    A label below 0 stands for the likeliest class. No image's logits depend on another image: the gradient of their sum
    is that of each.
    """

    def __init__(self, network: nn.Cell, tap: Tap) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.tap = tap
        self.gradient = ms.value_and_grad(self.chosen, None, ParameterTuple([tap.zeros]), has_aux=True)

    def chosen(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the logits that are asked for, and all logits."""
        if self.tap.before is not None:
            self.tap.before.enter_context(_no_grad())
        logits = self.network(images)
        likeliest = ops.cast(ops.argmax(logits, 1), ms.int32)
        wanted = ops.one_hot(ops.select(labels < 0, likeliest, labels), logits.shape[1])
        return ops.reduce_sum(logits * ops.stop_gradient(ops.cast(wanted, logits.dtype))), logits

    def construct(self, images: Tensor, labels: Tensor) -> Any:
        return self.gradient(images, labels)


class Explainer(Explaining):
    """One whose network is run by MindSpore.

    Args:
        network: whose weights are not trained any more; it must not be used for anything else.
        image: channels, height and width of its input.
        layer: name of a cell that gives feature maps; "": the last ones before they are pooled.
        method: of `METHODS`.
        operators: library of our C++ operators (`Runtime.operators`); None for MindSpore's own.

    Raises UserError for a layer that the network does not have, or that gives no feature maps.
    """

    def __init__(
        self,
        network: RegistryNetwork,
        image: tuple[int, int, int],
        layer: str = "",
        method: str = "layercam",
        operators: Path | None = None,
    ) -> None:
        self._network, self._operators = network.set_train(False), operators
        layer = layer or network.body[-1]
        self._cell = _cell_named(network, layer)
        self._channels, *size = _maps_of(network, self._cell, layer, image)
        reductions = {entry["name"]: entry["reduction"] for entry in network.feature_info}
        super().__init__(layer, (size[0], size[1]), image, method, reductions)
        for parameter in network.get_parameters():
            # Otherwise all of the network has gradients, down to the image.
            parameter.requires_grad = False
        # Made at the first call, which says how many images come at once in graph mode, and in which mode all is run.
        self._at_once = 0
        self._mode = ms.PYNATIVE_MODE
        self._tap: Tap | None = None
        self._gradient: nn.Cell | None = None

    def _parts(self, images: NDArray[Any], labels: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
        # Parts of equal size, as few as can be.
        size = -(-len(images) // -(-len(images) // MOST))
        if self._gradient is None:
            self._prepare(size)
        if self._mode == ms.GRAPH_MODE:
            # A graph is compiled for one number of images.
            size = self._at_once
        for start in range(0, len(images), size):
            with in_mode(self._mode):
                yield self._part(images[start : start + size], labels[start : start + size], size)

    def _prepare(self, images: int) -> None:
        self._at_once, self._mode = images, ms.get_context("mode")
        self._tap = Tap(self._cell, self._shape(images), self.layer)
        replace_cells(self._network, {id(self._cell): self._tap})
        if self._operators is not None:
            # Afterwards, so that no operator of ours does the work of the cell and of its neighbours in one.
            rewrite.use(self._network, self._operators)
            rewrite.freeze(self._network)
        self._gradient = _Gradient(self._network, self._tap).set_train(False)

    def _shape(self, images: int) -> tuple[int, ...]:
        return images, self._channels, *self.size

    def _part(self, images: NDArray[Any], labels: NDArray[Any], size: int) -> tuple[NDArray[Any], ...]:
        """Logits, maps and gradients of up to `size` images, filled up to that."""
        assert self._gradient is not None
        assert self._tap is not None
        count = len(images)
        if size != len(self._tap.zeros):
            for parameter in (self._tap.zeros, self._tap.kept):
                reshape(parameter, self._shape(size))
        inputs = Tensor(filled(images, size)), Tensor(filled(labels.astype(np.int32), size))
        with ExitStack() as before:  # gradients are back, whatever happens
            self._tap.before = None if self._mode == ms.GRAPH_MODE else before
            (_, logits), gradients = self._gradient(*inputs)
        # A copy: the next images take its place.
        kept = self._tap.kept.asnumpy()[:count].copy()
        return logits.asnumpy()[:count], kept, gradients[0].asnumpy()[:count]


def open_explainer(deployed: Deployment, layer: str, method: str, operators: Path | None) -> Explaining:
    """What explains a checkpoint: its program, if there is one that knows the layer; otherwise MindSpore.

    Raises UserError for an exported file and for a task whose answers are maps themselves; for weights that do not fit;
    and as `Explainer`.
    """
    if deployed.exported:
        raise UserError(
            f"--explain: {deployed.path} is an exported file, which has no gradients; give the checkpoint that it was "
            "made of"
        )
    task = tasks.of(deployed.config)
    if not task.explains:
        raise UserError(
            f"--explain: task {task.name} gives no class of a whole image that could be explained; leave it out"
        )
    deployed = deployed.in_float32()
    place = None if operators is None else kept.place_of(deployed)
    network, prefix = trained_cell(deployed)
    assert isinstance(network, RegistryNetwork)
    keep = kept.keeper(place, deployed, prefix)
    return _of_network(network, deployed.config, deployed.input_shape, layer, method, operators, keep)


def _of_network(
    network: RegistryNetwork,
    config: Config,
    image: tuple[int, int, int],
    layer: str = "",
    method: str = "layercam",
    operators: Path | None = None,
    keep: Callable[[Finished], None] | None = None,
) -> Explaining:
    """A network's program, which `keep` is given, where there is one that knows the layer; otherwise `Explainer`."""
    form = build.for_plan(config, operators)
    program = None if form is None else plan.program(network)
    if program is not None and keep is not None:
        keep(program)
    if form is not None and program is not None and (not layer or layer in program.marks):
        return PlanExplainer(form.library, program, image, layer, method)
    return Explainer(network, image, layer, method, operators)


def drawn(config: Config, operators: Path | None) -> Explain:
    """What draws the maps of a configuration's network, with its weights, over images; see `tasks.task.Explain`."""
    config = config.replace(val_amp_level="O0")

    def draw(images: Sequence[NDArray[Any]], labels: Sequence[int]) -> list[NDArray[Any]]:
        if not images:
            return []
        network, _ = build.trained_network(config)
        assert isinstance(network, RegistryNetwork)
        transform = tasks.of(config).eval_transform(config)
        seen = [np.asarray(transform(transforms.as_rgb(image, config.in_channels)), np.float32) for image in images]
        # To compile a graph takes longer than these few images.
        with in_mode(ms.PYNATIVE_MODE):
            size = (config.in_channels, *transforms.input_size(config))
            _, heats = _of_network(network, config, size, operators=operators)(np.stack(seen), np.array(labels))
        return [
            heat.over(image, found, transforms.seen_box(config, *image.shape[:2]))
            for image, found in zip(images, heats, strict=True)
        ]

    return draw


def _cell_named(network: RegistryNetwork, name: str) -> nn.Cell:
    cells = {key: cell for key, cell in network.cells_and_names() if key}
    if name not in cells:
        usual = dict.fromkeys((*(entry["name"] for entry in network.feature_info), *network.body))
        raise UserError(
            f"--explain_layer: no layer is called {short(name)!r}; the nearest is {nearest(name, cells)}, and others "
            f"are {some(list(usual), 8)}"
        )
    return cells[name]


def _maps_of(network: RegistryNetwork, cell: nn.Cell, name: str, image: tuple[int, int, int]) -> tuple[int, ...]:
    """Channels, height and width of the maps that a cell gives."""
    found: list[Any] = []

    def note(_cell: nn.Cell, _inputs: tuple[Tensor, ...], output: Any) -> None:
        found.append(output.shape if isinstance(output, Tensor) else None)

    with forward_hooks([cell], note):
        run(network, image)
    if len(found) != 1 or found[0] is None or len(found[0]) != 4:
        why = "gives no feature maps" if found else "does nothing on its own"
        raise UserError(
            f"--explain_layer: {name} {'runs more than once' if len(found) > 1 else why}; give another one, such as "
            f"{network.feature_info[-1]['name']}"
        )
    return tuple(found[0][1:])
