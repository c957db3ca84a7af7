"""The loss of a batch of masks: cross entropy of each pixel, of the hardest ones, and Dice beside it."""

from __future__ import annotations

import math

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from ...config import Config
from ...ops.pixels import LogSoftmax, PixelLosses
from ..losses import SMALLEST, settled_weights


class MaskLoss(nn.Cell):
    """Cross entropy of pixels, for logits (N, C, H, W) float32 and masks (N, H, W) int32; scalar float32.

    With `reduction: mean`, the losses of a batch are divided by the sum of the weights of its labels, or by the number
    of its pixels: as PyTorch's `cross_entropy` does with `weight`, `label_smoothing` and `ignore_index`. Pixels of
    `ignore_index` have no part. A batch that has no others has the loss 0.

    With `ohem`, of the pixels that count only this share has a part: those whose true class is the least probable. With
    `dice_weight`, that times the batch's Dice loss is added (see `Dice`).

    Where samples have weights, these, (N,) float32, multiply the cross entropies of their pixels.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(auto_prefix=False)
        assert config.num_classes is not None  # the data has settled it
        classes, ignored, weights = config.num_classes, config.ignore_index, settled_weights(config)
        self.losses = PixelLosses(classes, ignored, config.label_smoothing, weights)
        self.hardest = None if config.ohem is None else Hardest(classes, ignored, config.ohem, weights)
        self.dice = Dice(classes, ignored) if config.dice_weight > 0 else None
        self.dice_weight = config.dice_weight
        self.mean = config.reduction == "mean"

    def construct(self, logits: Tensor, labels: Tensor, *samples: Tensor) -> Tensor:
        losses, total, weight = self.losses(logits, labels)
        if len(samples) > 0:
            losses = losses * samples[0].reshape(-1, 1, 1)
            total = ops.reduce_sum(losses)
        if self.hardest is not None:
            kept, weight = self.hardest(logits, labels)
            total = ops.reduce_sum(losses * kept)
        total = total.reshape(())
        if self.mean:
            # Of a batch whose pixels all have weight 0, too.
            total = total / ops.maximum(weight.reshape(()), SMALLEST)
        if self.dice is not None:
            total = total + self.dice_weight * self.dice(logits, labels)
        return total


class Hardest(nn.Cell):
    """Of the pixels that count, the share whose true class is the least probable; all that are as probable as the last.

    Logits (N, C, H, W) and labels (N, H, W) -> 1 for such a pixel, float32 (N, H, W), and the sum of the weights of
    their labels, a scalar. There is no gradient.
    """

    def __init__(self, classes: int, ignored: int, share: float, weights: tuple[float, ...] | None) -> None:
        super().__init__(auto_prefix=False)
        self.losses = PixelLosses(classes, ignored)
        self.ignored, self.share = ignored, share
        self.weights = Tensor((1.0,) * classes if weights is None else weights, mstype.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        losses = self.losses(ops.stop_gradient(logits), labels)[0]
        counts = labels != self.ignored
        valid = ops.cast(counts, mstype.float32)
        # All that could be, so that the graph has one size for any number of pixels that count.
        most = math.ceil(self.share * losses.size)
        values, _ = ops.topk((losses - (1 - valid)).reshape(-1), most)
        number = ops.cast(ops.reduce_sum(ops.cast(counts, mstype.int32)), mstype.float32)
        last = ops.cast(ops.ceil(self.share * number), mstype.int32) - 1
        lowest = ops.gather(values, ops.clamp(last, 0, most - 1), 0)
        kept = ops.cast(losses >= lowest, mstype.float32) * valid
        weights = ops.gather(self.weights, ops.select(counts, labels, ops.zeros_like(labels)), 0)
        return ops.stop_gradient(kept), ops.stop_gradient(ops.reduce_sum(kept * weights))


class Dice(nn.Cell):
    """The mean over the classes that a batch has of 1 - 2 |P * T| / (|P| + |T|); 0 where no pixel counts.

    P are the probabilities of a class, T is 1 where a pixel has it: of all pixels of the batch that count together.
    Logits (N, C, H, W), labels (N, H, W) -> scalar.
    """

    def __init__(self, classes: int, ignored: int) -> None:
        super().__init__(auto_prefix=False)
        self.classes, self.ignored = classes, ignored
        self.logs = LogSoftmax()
        self.on, self.off = Tensor(1, mstype.float32), Tensor(0, mstype.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        shape = (logits.shape[0], self.classes, -1)
        counts = labels != self.ignored
        valid = ops.cast(counts, mstype.float32).reshape(logits.shape[0], 1, -1)
        known = ops.select(counts, labels, ops.zeros_like(labels)).reshape(logits.shape[0], -1)
        truth = ops.one_hot(known, self.classes, self.on, self.off, 1) * valid
        shares = ops.exp(self.logs(logits)).reshape(shape) * valid
        sizes = self.of_classes(truth)
        both = self.of_classes(shares * truth)
        all_of = self.of_classes(shares) + sizes
        there = ops.cast(sizes > 0, mstype.float32)
        losses = there * (1 - 2 * both / ops.maximum(all_of, SMALLEST))
        return ops.reduce_sum(losses) / ops.maximum(ops.reduce_sum(there), SMALLEST)

    def of_classes(self, values: Tensor) -> Tensor:
        """The sum of each class: of (N, classes, pixels), (classes,)."""
        # Of two axes: MindSpore takes seven times as long for the last of three.
        sums = ops.reduce_sum(values.reshape(values.shape[0] * self.classes, -1), 1)
        return ops.reduce_sum(sums.reshape(-1, self.classes), 0)
