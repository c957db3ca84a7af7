"""Cells of dense prediction that run our C++ operators, and the losses of pixels that one of them stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from .fused import floats


class NativeUpsample(nn.Cell):
    """Bilinear resizing with half-pixel centres by our operator.

    Args:
        library: file of the C++ operators.

    (N, C, h, w), (H, W) -> (N, C, H, W), float32. H and W are known when a graph is compiled.
    """

    def __init__(self, library: Path) -> None:
        super().__init__()

        def shapes(maps: list[int], rows: list[int], columns: list[int]) -> tuple[list[int]]:
            return ([*maps[:2], rows[0], columns[0]],)

        gradient = ops.Custom(f"{library}:ghostnet_upsample_gradient", shapes, floats(1), "aot")
        self.operator = ops.Custom(f"{library}:ghostnet_upsample", shapes, floats(1), "aot", _upsample_bprop(gradient))

    def construct(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        # A tensor's length is all that an operator can be told when shapes are inferred.
        return self.operator(x, ops.zeros((size[0],), ms.float32), ops.zeros((size[1],), ms.float32))[0]


class LogSoftmax(nn.Cell):
    """Log probabilities of logits (N, C, H, W) over C. MindSpore's own gradient takes 20 times as long on a CPU."""

    def construct(self, logits: Tensor) -> Tensor:
        return ops.log_softmax(logits, 1)

    def bprop(self, logits: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (dout - ops.exp(out) * ops.expand_dims(ops.reduce_sum(dout, 1), 1),)


class PixelLosses(nn.Cell):
    """Cross-entropy of the classes of every pixel, with what the mean over a batch needs.

    Args:
        num_classes: of the logits.
        ignore_index: label of pixels that have no loss.
        label_smoothing: share of the loss that is the mean over all classes instead of the label's own.
        class_weights: factor on the loss of each class, as PyTorch's `cross_entropy` has it; None: 1 each.

    Logits (N, C, H, W) float32, labels (N, H, W) int32 -> losses (N, H, W), their sum (1,), and the sum of the weights
    of the labels (1,), by which a mean divides. Pixels that are ignored are 0 in all of them. Of the last one there is
    no gradient. A label that is neither a class nor ignored is an error, or makes numbers without a meaning.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        weights = [1.0] * num_classes if class_weights is None else list(class_weights)
        self.weights = Tensor(weights, ms.float32)
        self.logs = LogSoftmax()

    def construct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counts = labels != self.ignore_index
        places = ops.expand_dims(ops.select(counts, labels, ops.zeros_like(labels)), 1)
        weighted = ops.reshape(self.weights, (1, -1, 1, 1)) * self.logs(logits)
        own = ops.squeeze(ops.gather_elements(weighted, 1, places), 1)
        others = ops.reduce_mean(weighted, 1)
        counted = ops.cast(counts, ms.float32)
        losses = -counted * ((1 - self.label_smoothing) * own + self.label_smoothing * others)
        weights = counted * ops.gather(self.weights, ops.squeeze(places, 1), 0)
        return losses, ops.reshape(ops.reduce_sum(losses), (1,)), ops.reshape(ops.reduce_sum(weights), (1,))


class NativePixelLosses(nn.Cell):
    """`PixelLosses` by our operator.

    Args:
        library: file of the C++ operators.
        losses: what it stands for.
    """

    def __init__(self, library: Path, losses: PixelLosses) -> None:
        super().__init__(auto_prefix=False)
        self.options = Tensor([float(losses.ignore_index), losses.label_smoothing], ms.float32)
        self.weights = losses.weights

        def shapes(options: list[int], logits: list[int], labels: list[int], weights: list[int]) -> tuple[Any, ...]:
            return (labels, [1], [1])

        prefix = f"{library}:ghostnet_pixel_losses"
        gradient = ops.Custom(f"{prefix}_gradient", lambda _, logits, *others: (logits,), floats(1, 2), "aot")
        self.operator = ops.Custom(prefix, shapes, floats(3, 2), "aot", _losses_bprop(gradient))

    def construct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.operator(self.options, logits, labels, self.weights)


def _upsample_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(x, rows, columns, out, d_out):
        # Lengths in place of the maps themselves, which nothing needs to keep.
        height, width = ops.zeros((x.shape[2],), ms.float32), ops.zeros((x.shape[3],), ms.float32)
        return gradient(d_out[0], height, width)[0], ops.zeros_like(rows), ops.zeros_like(columns)

    return bprop


def _losses_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(options, logits, labels, weights, out, d_out):
        d_logits = gradient(options, logits, labels, weights, d_out[0], d_out[1])[0]
        return ops.zeros_like(options), d_logits, ops.zeros_like(labels), ops.zeros_like(weights)

    return bprop
