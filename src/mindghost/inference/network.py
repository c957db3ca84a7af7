"""A weight file or an exported file -> a function of images: MindSpore and other runtimes behind one face."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..errors import UserError
from ..files import intact, paths
from ..ops import plan
from . import formats, kept
from .batches import in_batches
from .deployment import Deployment
from .formats import Network

# Imported where weights are loaded: what an exported file, or a program that was kept, computes takes no MindSpore.
if TYPE_CHECKING:
    from mindspore import nn

    from ..graph_cache import GraphCache
    from ..ops.plan.program import Finished

log = logging.getLogger("mindghost")


def open_network(deployed: Deployment, operators: Path | None = None, graphs: GraphCache | None = None) -> Network:
    """The network of a file; weights run on our native operators (`Runtime.operators`), if they are given.

    `graphs` compiles weights, if it is given.

    Raises UserError where the file is damaged or does not fit its description; so does the network (see `checked`).
    """
    if deployed.exported:
        run = of_exported(deployed)
        say_unchecked(deployed.path)
    else:
        from .. import build

        form = build.for_plan(deployed.config, operators)
        place = None if form is None else kept.place_of(deployed)
        cell, prefix = trained_cell(deployed, operators)
        run = of_cell(cell, graphs, form, kept.keeper(place, deployed, prefix))
    return checked(run, deployed.path, len(deployed.classes), tasks.of(deployed.config).is_dense)


def say_unchecked(path: Path) -> None:
    """Say of an exported file that nothing vouches for its weights, where no sha256 lies beside it."""
    if not paths.is_file(intact.sidecar(path)):
        log.info(f"{path}: no sha256 beside it: its graph was checked, the values of its weights were not")


def trained_cell(deployed: Deployment, operators: Path | None = None) -> tuple[nn.Cell, str]:
    """The network of a weight file, and the prefix that was taken off the names in it.

    Raises UserError where it is damaged or does not fit its description.
    """
    from .. import build

    network, loaded = build.trained_network(deployed.config, operators)
    kept.say_prefix(deployed.path, loaded.prefix)
    return network, loaded.prefix


def of_exported(deployed: Deployment) -> Network:
    """What an exported file computes, for any number of images; its logits are as they come."""
    return of_any_number(deployed, formats.of(deployed.path).network(deployed.path))


def of_any_number(deployed: Deployment, run: Network) -> Network:
    """A network of an exported file, made one that takes any number of images."""
    return run if deployed.batch is None else in_batches(run, deployed.batch)


def checked(network: Network, path: Path, classes: int, is_dense: bool = False) -> Network:
    """A network that raises UserError, which names its file, for logits that are not finite, or not one a class.

    `is_dense`: there are logits for each pixel.
    """

    def run(images: NDArray[Any]) -> NDArray[Any]:
        logits = network(images)
        check_logits(logits, images, path, classes, is_dense)
        return logits

    return run


def check_logits(logits: NDArray[Any], images: NDArray[Any], path: Path, classes: int, is_dense: bool = False) -> None:
    """Raise UserError, as `checked` says, for what a network makes of images."""
    expected = (len(images), classes, *(images.shape[2:] if is_dense else ()))
    if logits.shape != expected:
        found, wanted = (" x ".join(map(str, shape)) for shape in (logits.shape, expected))
        raise UserError(f"{path}: gives logits of shape {found}, expected {wanted}: its description is of another file")
    bad = ~np.isfinite(logits).reshape(len(images), -1).all(axis=1)
    if bad.any():
        raise UserError(
            f"{path}: its logits are not finite (NaN or infinity) for {bad.sum()} of {len(bad)} images; use "
            "another copy of the file, or a higher precision if one was chosen"
        )


def of_cell(
    network: nn.Cell,
    graphs: GraphCache | None = None,
    form: plan.Form | None = None,
    keep: Callable[[Finished], None] | None = None,
) -> Network:
    """A network of MindSpore, in evaluation mode.

    With a `form` (`build.for_plan`), a network that `ops.plan` knows is run by a plan, with the weights that it has
    now; `keep` is given the program that it becomes. Any other is run by MindSpore; `graphs` compiles it, if it is
    given. In bfloat16, UserError is raised for it.
    """
    from mindspore import Tensor

    network.set_train(False)
    planned = None if form is None else plan.of(network, form, keep)
    if planned is not None:
        return planned
    if form is not None and form.bfloat16:
        raise plan.missing("this one")

    def run(images: NDArray[Any]) -> NDArray[Any]:
        tensor = Tensor(images)
        if graphs is not None:
            graphs.compile(network, tensor)
        return network(tensor).asnumpy()

    return run


def divided(logits: NDArray[Any], temperature: float) -> NDArray[Any]:
    """Logits, float32, divided by a temperature, float64: no two that differ become equal, so that no order changes."""
    return logits.astype(np.float64) / temperature


def mirrored(network: Network) -> Network:
    """The mean logits of each image and of its mirror image (left and right exchanged); of pixels, each its own."""

    def run(images: NDArray[Any]) -> NDArray[Any]:
        mirror = network(np.ascontiguousarray(images[..., ::-1]))
        return (network(images) + (mirror[..., ::-1] if mirror.ndim == images.ndim else mirror)) / 2

    return run
