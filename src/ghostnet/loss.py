"""Config -> training loss, made by mindcv's factory."""

from __future__ import annotations

from mindcv.loss import create_loss
from mindspore import nn

from .config import Config


def training_loss(config: Config) -> nn.Cell:
    """The loss of `config.loss` with label smoothing, for logits (N, C) and labels (N,) int32 or (N, C) float32.

    Mixup and cutmix labels arrive unsmoothed; the smoothing happens here, once.
    """
    return create_loss(name=config.loss, reduction=config.reduction, label_smoothing=config.label_smoothing)
