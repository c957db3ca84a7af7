"""The network that another one learns from (knowledge distillation), from the registry or a MindIR file."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .. import build
from ..checkpoint import weights as weights_file
from ..checkpoint.load import fill_network
from ..config import Config
from ..config.wording import nearest
from ..errors import UserError
from ..files import download, paths
from ..files.cache import cache_dir
from ..inference.formats.mindir_file import cell_of
from ..models import USUAL, card, create_model, list_models

log = logging.getLogger("mindghost")

_MINDIR = ".mindir"


class Teacher(nn.Cell):
    """Images (N, C, H, W) float32 -> the teacher's logits (N, classes) float32, without a gradient.

    It stays in evaluation whatever the network around it does: batch norm uses the stored statistics, and nothing is
    dropped. Its parameters are called `distill.NAME` and do not require gradients.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network.set_train(False)
        for parameter in network.get_parameters():
            parameter.name = f"teacher.{parameter.name}"
            parameter.requires_grad = False

    def add_flags_recursive(self, **flags: Any) -> nn.Cell:
        """Hand flags on to the network, all but the one for training."""
        flags.pop("training", None)
        return super().add_flags_recursive(**flags)

    def construct(self, image: Tensor) -> Tensor:
        return ops.stop_gradient(ops.cast(self.network(image), ms.float32))


def digest(config: Config) -> str:
    """Hexadecimal SHA-256 of the file that holds the teacher's weights.

    Raises UserError where there is no such file.
    """
    return hashlib.sha256(paths.read(_file(config), "give another file")).hexdigest()


def load(config: Config) -> Teacher:
    """The teacher of `config.teacher`, with its weights, in the precision of `amp_level` (a MindIR file has its own).

    Raises UserError where there is no such network or file, the weights don't fit, or it does not give logits of
    `num_classes` classes for a batch of the configured size.
    """
    path = _file(config)
    if _is_mindir(config):
        network = cell_of(path)
    else:
        network = _from_registry(config)
        log.info(f"teacher: {fill_network(network, path, stem='', classifier='', averaged=True)}")
        build.training_precision(network, config, None)
    teacher = Teacher(network)
    _check_logits(teacher, config)
    return teacher


def _is_mindir(config: Config) -> bool:
    return config.teacher.lower().endswith(_MINDIR)


def _file(config: Config) -> Path:
    """Where the teacher's weights are; published ones are fetched."""
    if _is_mindir(config):
        path = Path(config.teacher)
        paths.check_file(path, "give the path of a MindIR file or the name of a network", "teacher")
        return path
    if config.teacher_ckpt_path:
        weights_file.check_exists(config.teacher_ckpt_path)
        return Path(config.teacher_ckpt_path)
    facts = card(config.teacher) if config.teacher in list_models() else None
    if facts is None or not facts.weights:
        raise UserError(
            f"teacher_ckpt_path: no weights of {config.teacher} are published here; name a file that holds them"
        )
    usual = facts.weights[USUAL]
    return download.fetch(usual.url, cache_dir(), digest=usual.sha256)


def _from_registry(config: Config) -> nn.Cell:
    """The network of that name, ours before mindcv's, with fresh weights."""
    options: dict[str, Any] = {"num_classes": config.num_classes, "in_channels": config.in_channels}
    if config.teacher in list_models():
        return create_model(config.teacher, **options)
    names = [*list_models(), *mindcv.list_models()]
    if config.teacher not in names:
        raise UserError(
            f"teacher: no network {config.teacher!r} here or in mindcv; the nearest is "
            f"{nearest(config.teacher, names)!r}. A MindIR file's name ends in {_MINDIR}"
        )
    return mindcv.create_model(config.teacher, **options)


def _check_logits(teacher: Teacher, config: Config) -> None:
    """Raise UserError where a batch of images does not come out as logits of the configured classes."""
    size = config.image_resize
    height, width = (size, size) if isinstance(size, int) else size
    shape = (config.batch_size, config.in_channels, height, width)
    try:
        logits = teacher(Tensor(np.zeros(shape, np.float32)))
    except (RuntimeError, ValueError, TypeError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"teacher: {config.teacher} does not take images of shape {shape}: {line}") from error
    if logits.shape != (config.batch_size, config.num_classes):
        raise UserError(
            f"teacher: {config.teacher} gives {' x '.join(map(str, logits.shape))} for images of shape {shape}; "
            f"expected logits of num_classes: {config.num_classes} classes"
        )
    if not np.isfinite(logits.asnumpy()).all():
        raise UserError(f"teacher: the logits of {config.teacher} are not finite (NaN or infinity); use another copy")


class TaughtStep(nn.Cell):
    """A training step whose loss also takes a teacher's logits of the batch.

    Two graphs, one after the other: MindSpore cannot compile what a MindIR file holds into a graph of ours. Sink mode
    wants one.
    """

    def __init__(self, step: nn.Cell, teacher: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.step = step
        self.teacher = teacher

    def __call__(self, image: Tensor, label: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step on a batch: what the step returns, which sees the teacher's logits, too."""
        return self.step(image, label, *weights, self.teacher(image))


class DistillationLoss(nn.Cell):
    """(1 - alpha) x loss(logits, labels) + alpha x T^2 x KL(softmax(taught / T) || softmax(logits / T)).

    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; T^2 keeps the size of the
    gradients. Behind the labels come the samples' weights, if they have any, and the teacher's logits `taught`, (N, C)
    float32 like the network's own. A weight counts for both parts.

    Args:
        loss: of the logits and the true labels (and the samples' weights).
        alpha: the teacher's share, 0 to 1.
        temperature: T.
        reduction: "mean" or "sum" over the batch, as in `loss`.
    """

    def __init__(self, loss: nn.Cell, alpha: float, temperature: float, reduction: str) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.alpha = alpha
        self.temperature = temperature
        self.mean = reduction == "mean"

    def construct(self, logits: Tensor, labels: Tensor, *more: Tensor) -> Tensor:
        taught, weights = more[-1], more[:-1]
        goal = ops.log_softmax(taught / self.temperature, 1)
        found = ops.log_softmax(logits / self.temperature, 1)
        divergences = ops.reduce_sum(ops.exp(goal) * (goal - found), 1)
        if len(weights) > 0:
            divergences = divergences * weights[0]
        divergence = ops.reduce_mean(divergences) if self.mean else ops.reduce_sum(divergences)
        share = self.alpha * self.temperature**2
        return (1 - self.alpha) * self.loss(logits, labels, *weights) + share * divergence
