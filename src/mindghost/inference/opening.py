"""A file -> what it computes on this machine: by a program that was kept, or by MindSpore, which is then imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..process.signals import importing
from . import kept
from .class_activation import Explaining, PlanExplainer
from .deployment import Deployment
from .embedding import normalised, open_embedding
from .formats import Network
from .network import checked, open_network

if TYPE_CHECKING:
    from ..runtime import Runtime


def opened(deployed: Deployment, mode: int, embedding: bool = False) -> Network:
    """The network of a file on the device of this machine, or its embeddings (`open_embedding`).

    Where an earlier start has kept its program (`kept`), MindSpore is not imported: results, and errors, are those
    that it would give.

    Args:
        deployed: the file.
        mode: of MindSpore, as the key has it: 0 compiles the network, 1 runs operator by operator.
        embedding: in place of logits.

    Raises UserError as `Runtime.start`, `open_network` and `open_embedding`.
    """
    found = kept.find(deployed, embedding)
    if found is not None:
        return normalised(found, deployed.path) if embedding else checked(found, deployed.path, len(deployed.classes))
    runtime = _started(deployed, mode)
    make = open_embedding if embedding else open_network
    return make(deployed, None if deployed.exported else runtime.operators, runtime.graphs)


def explaining(deployed: Deployment, layer: str, method: str) -> Explaining:
    """What says of images where the network of a checkpoint saw their classes; see `explain.open_explainer`.

    As `opened`, it leaves MindSpore out where a program is kept that knows the layer.
    """
    found = kept.find_program(deployed.in_float32())
    if found is not None and (not layer or layer in found[1].marks):
        return PlanExplainer(*found, deployed.input_shape, layer, method)
    # Operator by operator, as gradients are taken of some images.
    runtime = _started(deployed, mode=1)
    from .explain import open_explainer

    return open_explainer(deployed, layer, method, None if deployed.exported else runtime.operators)


def _started(deployed: Deployment, mode: int) -> Runtime:
    with importing():
        from ..runtime import Runtime

    return Runtime.start(deployed.config.replace(mode=mode))
