"""Losses of a batch, for what classes and samples count: made by mindcv's factory where all count alike.

A loss takes outputs (N, C) float32, labels as the batches have them and, where samples have weights, these, (N,)
float32. It gives a scalar float32. The weights' mean over the training set is 1, and the losses of a batch are divided
by its size and not by its weights: so ranks and accumulated batches agree with the global batch.
"""

from __future__ import annotations

from mindcv.loss import create_loss
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from ..config import Config


def settled_weights(config: Config) -> tuple[float, ...] | None:
    """The numbers of `class_weights`, which the data has settled; None where all classes count alike."""
    if isinstance(config.class_weights, str):
        raise ValueError("class_weights are not settled yet")
    return config.class_weights


def _weights(config: Config) -> Tensor | None:
    weights = settled_weights(config)
    return None if weights is None else Tensor(weights, mstype.float32)


def _factory(config: Config, name: str) -> nn.Cell:
    return create_loss(name=name, reduction=config.reduction, label_smoothing=config.label_smoothing)


class CrossEntropy(nn.Cell):
    """Cross-entropy of classes, for labels (N,) int32 or (N, C) float32; label smoothing happens here, once.

    With class weights, the losses of a batch are divided by the sum of the weights of its labels, as MindSpore's and
    PyTorch's `cross_entropy` do for classes. So they are for soft labels, too, whose weight is the mean of their
    classes': a soft label of one class gives what that class gives.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.plain = _factory(config, "CE")
        self.smoothing = config.label_smoothing
        self.mean = config.reduction == "mean"
        self.weights = _weights(config)

    def construct(self, logits: Tensor, labels: Tensor, *samples: Tensor) -> Tensor:
        if labels.ndim == 1 and self.weights is None and len(samples) == 0:
            return self.plain(logits, labels)
        classes = logits.shape[1]
        if labels.ndim == 1:
            labels = ops.one_hot(labels, classes, Tensor(1, mstype.float32), Tensor(0, mstype.float32))
        goal = labels * (1 - self.smoothing) + self.smoothing / classes
        if self.weights is not None:
            goal = goal * self.weights
        # Not `Tensor.sum`, with which MindSpore's own cross-entropy of soft labels ends: it tries out ways to split its
        # work over the first calls in a process, and the same batch gives losses that differ in the last bit.
        losses = -ops.reduce_sum(goal * ops.log_softmax(logits, 1), 1)
        if len(samples) > 0:
            losses = losses * samples[0]
        if not self.mean:
            return ops.reduce_sum(losses)
        if self.weights is None:
            return ops.reduce_mean(losses)
        # A batch whose classes all have weight 0 has no loss.
        return ops.reduce_sum(losses) / ops.maximum(ops.reduce_sum(labels * self.weights), SMALLEST)


# Of a sum of weights that is not 0: single precision has no smaller normal number.
SMALLEST = Tensor(1.2e-38, mstype.float32)


class BinaryCrossEntropy(nn.Cell):
    """Binary cross-entropy of each output, for labels (N,) int32 or (N, C) float32; label smoothing happens here, once.

    With class weights, each class's part counts so much in the mean over samples and classes, as in PyTorch's
    `BCEWithLogitsLoss(weight=...)`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.plain = _factory(config, "BCE")
        self.smoothing = config.label_smoothing
        self.mean = config.reduction == "mean"
        self.weights = _weights(config)

    def construct(self, logits: Tensor, labels: Tensor, *samples: Tensor) -> Tensor:
        if self.weights is None and len(samples) == 0:
            return self.plain(logits, labels)
        classes = logits.shape[1]
        if labels.ndim == 1:
            labels = ops.one_hot(labels, classes, Tensor(1, mstype.float32), Tensor(0, mstype.float32))
        goal = labels * (1 - self.smoothing) + self.smoothing / classes
        # log(1 + exp(-|x|)) and not log(1 + exp(x)), which overflows.
        parts = ops.relu(logits) - logits * goal + ops.log1p(ops.exp(-ops.abs(logits)))
        if self.weights is not None:
            parts = parts * self.weights
        if len(samples) > 0:
            parts = parts * ops.expand_dims(samples[0], 1)
        return ops.reduce_mean(parts) if self.mean else ops.reduce_sum(parts)
