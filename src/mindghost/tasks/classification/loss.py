"""Config -> the loss of classes, made by mindcv's factory where that is exact."""

from __future__ import annotations

from mindcv.loss import create_loss
from mindspore import Tensor, nn, ops

from ...config import Config


def classification_loss(config: Config) -> nn.Cell:
    """The loss of `config.loss` with label smoothing, for logits (N, C) and labels (N,) int32 or (N, C) float32.

    Mixup and cutmix labels arrive unsmoothed; the smoothing happens here, once.
    """
    loss = create_loss(name=config.loss, reduction=config.reduction, label_smoothing=config.label_smoothing)
    if config.loss == "CE":
        loss = _CrossEntropy(loss, config.label_smoothing, config.reduction)
    return loss


class _CrossEntropy(nn.Cell):
    """mindcv's cross-entropy for classes; for soft labels the same value in sums that do not depend on history.

    MindSpore's `Tensor.sum`, which its cross-entropy of soft labels ends with, tries out ways to split its work over
    the first calls in a process: the same batch gives losses that differ in the last bit.
    """

    def __init__(self, hard: nn.Cell, smoothing: float, reduction: str) -> None:
        super().__init__(auto_prefix=False)
        self.hard = hard
        self.smoothing = smoothing
        self.mean = reduction == "mean"

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim == 1:
            return self.hard(logits, labels)
        goal = labels * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        losses = -ops.reduce_sum(goal * ops.log_softmax(logits, 1), 1)
        return ops.reduce_mean(losses) if self.mean else ops.reduce_sum(losses)
