"""Cells that run our C++ operators, and their way into a network.

They hold the cells that they stand for, parameters and all: names and weight files stay what they are. Chains have the
gradients of training mode and of evaluation mode, in which their norms do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ..models.layers import Mask, SqueezeExcite
from .library import OPTIONS, SAMPLES_TOGETHER


class Chain(nn.Cell):
    """[batch norm [-> ReLU]] -> [depthwise convolution -> [batch norm [-> ReLU]]] as one operator.

    Where there is a norm before and one after the convolution it is the end of a Ghost module: the result begins with
    what the first norm gives, and what the convolution makes of that follows.

    Args:
        library: file of the C++ operators.
        norm1, relu1: batch norm of the input, and whether a ReLU follows.
        depthwise: convolution of each map on its own.
        norm2, relu2: batch norm of its outputs, and whether a ReLU follows.
        out_channels: maps of the result, where they are fewer than there could be.
        adds: the cell takes a second input, which is added to the result.

    (N, C, H, W) -> (N, out_channels, H / stride, W / stride), float32.
    """

    def __init__(
        self,
        library: Path,
        *,
        norm1: nn.BatchNorm2d | None = None,
        relu1: bool = False,
        depthwise: nn.Conv2d | None = None,
        norm2: nn.BatchNorm2d | None = None,
        relu2: bool = False,
        out_channels: int | None = None,
        adds: bool = False,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.norm1, self.relu1 = norm1, relu1
        self.depthwise = depthwise
        self.norm2, self.relu2 = norm2, relu2
        self.out_channels = out_channels
        self.adds = adds
        self.options = Tensor(self._options(running=False), ms.float32)
        self.running_options = Tensor(self._options(running=True), ms.float32)
        # Parameters of their own: graph mode compiles for minutes where cells are handed to functions.
        if norm1 is not None:
            self.mean1, self.variance1, self.gamma1, self.beta1 = parameters(norm1)
        if depthwise is not None:
            self.weight = depthwise.weight
        if norm2 is not None:
            self.mean2, self.variance2, self.gamma2, self.beta2 = parameters(norm2)
        self.trained, self.evaluated = self._operators(library)

    def construct(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        inputs = (self.options if self.training else self.running_options, x)
        if self.norm1 is not None:
            inputs = (*inputs, self.gamma1, self.beta1, self.mean1, self.variance1)
        if self.depthwise is not None:
            inputs = (*inputs, self.weight)
        if self.norm2 is not None:
            inputs = (*inputs, self.gamma2, self.beta2, self.mean2, self.variance2)
        if self.norm1 is not None and self.norm2 is not None:
            inputs = (*inputs, other if self.adds else self.options)
        if not self.training:
            return self.evaluated(*inputs)[0]
        outputs = self.trained(*inputs)
        # The running statistics are stored once the operator has read the old ones.
        out = outputs[0]
        if self.norm1 is not None:
            stored = (ops.assign(self.mean1, outputs[3]), ops.assign(self.variance1, outputs[4]))
            out = ops.depend(out, stored)
        if self.norm2 is not None:
            stored = (ops.assign(self.mean2, outputs[-2]), ops.assign(self.variance2, outputs[-1]))
            out = ops.depend(out, stored)
        return out

    def freeze(self) -> None:
        """Have the gradients of its weights be zeros in evaluation, so that none is computed."""
        self.running_options = Tensor(self._options(running=True, frozen=True), ms.float32)

    def _options(self, running: bool, frozen: bool = False) -> list[float]:
        """What the operators are told, in the order of `OPTIONS`; `running`: the norms' statistics are running ones."""
        stride, pad_height, pad_width = _geometry(self.depthwise) if self.depthwise is not None else (1, 0, 0)
        found = {
            "First": self.norm1 is not None,
            "Convolution": self.depthwise is not None,
            "Second": self.norm2 is not None,
            "Residual": self.adds,
            "Stride": stride,
            "PadHeight": pad_height,
            "PadWidth": pad_width,
            "Running": running,
            "Frozen": frozen,
        }
        for place, norm, relu in ((1, self.norm1, self.relu1), (2, self.norm2, self.relu2)):
            values = (relu, norm.eps, norm.momentum) if norm is not None else (0, 0, 0)
            found |= zip((f"Relu{place}", f"Eps{place}", f"Momentum{place}"), values, strict=True)
        return [float(found[name]) for name in OPTIONS]

    def _operators(self, library: Path) -> tuple[ops.Custom, ops.Custom]:
        """That of training, with its gradient, and that of evaluation."""
        norm1: Any = self.norm1
        depthwise: Any = self.depthwise
        first, convolution, second = (part is not None for part in (norm1, depthwise, self.norm2))
        channels = (norm1.num_features,) if first else ()
        outputs = depthwise.weight.shape[0] if convolution else 0
        ghosts = (outputs,) if second else ()
        stride, pad_height, pad_width = _geometry(depthwise) if convolution else (1, 0, 0)
        kernel_height, kernel_width = depthwise.weight.shape[2:] if convolution else (1, 1)
        out_channels = self.out_channels or (norm1.num_features if first else 0) + outputs

        def out_shape(options: list[int], x: list[int], *_: list[int]) -> tuple[list[int]]:
            height = (x[2] + 2 * pad_height - kernel_height) // stride + 1
            width = (x[3] + 2 * pad_width - kernel_width) // stride + 1
            return ([x[0], out_channels, height, width],)

        def shapes(*inputs: list[int]) -> tuple[Any, ...]:
            return (*out_shape(*inputs), *([channels] * 4 if first else ()), *([ghosts] * 4 if second else ()))

        def gradient_shapes(options: list[int], x: list[int], *_: list[int]) -> tuple[Any, ...]:
            kernel = [list(depthwise.weight.shape)] if convolution else []
            return (x, *([channels] * 2 if first else ()), *kernel, *([ghosts] * 2 if second else ()))

        types = floats(1 + 2 * first + convolution + 2 * second)
        gradient = ops.Custom(f"{library}:ghostnet_backward", gradient_shapes, types, "aot")
        bprop: Any = {
            (True, False, False): _norm_bprop,
            (False, True, False): _depthwise_bprop,
            (False, True, True): _depthwise_norm_bprop,
            (True, True, True): _ghost_bprop,
        }[first, convolution, second]
        count = 1 + 4 * first + 4 * second
        trained = ops.Custom(
            f"{library}:ghostnet_forward", shapes, floats(count), "aot", bprop(gradient, _of_batch(1), _of_batch(5))
        )
        evaluated = ops.Custom(
            f"{library}:ghostnet_evaluate", out_shape, floats(1), "aot", bprop(gradient, _running, _running)
        )
        # MindSpore keeps one inferred shape and one gradient for operators of equal attributes.
        kernel = (kernel_height, kernel_width, stride, pad_height, pad_width)
        kind = [first, convolution, second, *channels, outputs, out_channels, *kernel]
        for each in (trained, gradient, evaluated):
            each.add_prim_attr("kind", [int(value) for value in kind])
        return trained, evaluated


class Recorded(nn.Cell):
    """One of our operators, outside of graphs, with a gradient that MindSpore notes as a whole.

    It notes an operator of ours, one input after the other, in several times the operator's own time.

    Args:
        operator: of evaluation, with a gradient.
    """

    def __init__(self, operator: ops.Custom) -> None:
        super().__init__(auto_prefix=False)
        self.operator = operator

    def construct(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.operator(*inputs)

    def bprop(self, *inputs: Any) -> tuple[Tensor, ...]:
        """The gradients of the inputs, from these, the output and the gradient of the output."""
        *given, out, d_out = inputs
        # MindSpore takes a single output out of its tuple.
        return self.operator.bprop(*given, *(each if isinstance(each, tuple) else (each,) for each in (out, d_out)))


class RecordedConvolution(nn.Cell):
    """A convolution, outside of graphs, that has a gradient of its input alone, which is noted as in `Recorded`.

    Args:
        convolution: what it stands for.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(auto_prefix=False)
        self.convolution = convolution
        self.backward = ops.Conv2DBackpropInput(
            out_channel=convolution.out_channels,
            kernel_size=convolution.kernel_size,
            pad_mode=convolution.pad_mode,
            pad=convolution.padding,
            stride=convolution.stride,
            dilation=convolution.dilation,
            group=convolution.group,
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.convolution(x)

    def bprop(self, x: Tensor, _: Tensor, d_out: Tensor) -> tuple[Tensor]:
        """The gradient of the input, from that, the output and its gradient."""
        return (self.backward(d_out, self.convolution.weight, x.shape),)


def record(cell: nn.Cell) -> None:
    """Have the operator of one of our cells be `Recorded`, if it has gradients in evaluation."""
    names: dict[type[nn.Cell], str] = {Chain: "evaluated", OfMaps: "operator", Gated: "scaled", Dense: "convolved"}
    if name := names.get(type(cell)):
        recorded = Recorded(getattr(cell, name))
        # An attribute that is no cell cannot become one.
        delattr(cell, name)
        setattr(cell, name, recorded)


class OfMaps(nn.Cell):
    """One operator of feature maps alone.

    Args:
        library: file of the C++ operators.
        name: "means" of every map, or "max_pool": the largest of every 2x2 pixels.
    """

    def __init__(self, library: Path, name: str) -> None:
        super().__init__()
        prefix = f"{library}:ghostnet_{name}"
        gradient = ops.Custom(f"{prefix}_gradient", lambda x, _: (x,), floats(1), "aot")
        self.operator = ops.Custom(prefix, _SHAPES[name], floats(1), "aot", _of_maps_bprop(gradient))

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(x)[0]


# What an operator of maps makes of their shape.
_SHAPES = {
    "means": lambda x: ([x[0], x[1], 1, 1],),
    "max_pool": lambda x: ([x[0], x[1], x[2] // 2, x[3] // 2],),
}


class Gated(nn.Cell):
    """A squeeze-and-excitation whose maps are scaled by our operator.

    Args:
        library: file of the C++ operators.
        se: what it stands for.
    """

    def __init__(self, library: Path, se: SqueezeExcite) -> None:
        super().__init__(auto_prefix=False)
        self.se = se
        gradient = ops.Custom(f"{library}:ghostnet_gate_gradient", lambda x, gates, _: (x, gates), floats(2), "aot")
        self.scaled = ops.Custom(f"{library}:ghostnet_gate", lambda x, _: (x,), floats(1), "aot", _gate_bprop(gradient))

    def construct(self, x: Tensor) -> Tensor:
        return self.scaled(x, self.se.gates(x))[0]


class NativeMask(nn.Cell):
    """The mask of a dropout by our operator, the same to the last bit.

    Args:
        library: file of the C++ operators.
        mask: what it stands for.
    """

    def __init__(self, library: Path, mask: Mask) -> None:
        super().__init__()
        self.options = Tensor([mask.p, 1 - mask.p], ms.float32)
        # Equal masks drop the same of the gradient.
        gradient = ops.Custom(f"{library}:ghostnet_drop", lambda _, x, key: (x,), floats(1, 2), "aot")
        self.operator = ops.Custom(
            f"{library}:ghostnet_drop", lambda _, x, key: (x,), floats(1, 2), "aot", _mask_bprop(gradient)
        )

    def construct(self, x: Tensor, key: Tensor) -> Tensor:
        return self.operator(self.options, x, key)[0]


# Pixels of maps that are worked on in parts: these fill blocks of samples whatever the batch is.
_LARGE_MAP = 64 * 64


class Dense(nn.Cell):
    """A dense convolution of stride 1 by our operators.

    In float32, small maps in batches that are no whole blocks of samples run as they were.

    Args:
        library: file of the C++ operators.
        convolution: what it stands for.
        bfloat16: inputs, weights and gradients are rounded to bfloat16 before they are multiplied; sums, and all that
            the cell takes and gives, are in float32.
    """

    def __init__(self, library: Path, convolution: nn.Conv2d, bfloat16: bool = False) -> None:
        super().__init__(auto_prefix=False)
        self.convolution = convolution
        self.bfloat16 = bfloat16
        self.weight = convolution.weight
        _, pad_height, pad_width = _geometry(convolution)
        self.settings = Tensor([float(pad_height), float(pad_width), float(bfloat16)], ms.float32)
        out_channels, _, kernel_height, kernel_width = self.weight.shape

        def out_shape(settings: list[int], x: list[int], _: list[int]) -> tuple[list[int]]:
            height, width = x[2] + 2 * pad_height - kernel_height + 1, x[3] + 2 * pad_width - kernel_width + 1
            return ([x[0], out_channels, height, width],)

        prefix = f"{library}:ghostnet_convolution"
        for_input = ops.Custom(f"{prefix}_input_gradient", lambda _, x, *others: (x,), floats(1), "aot")
        for_weight = ops.Custom(f"{prefix}_weight_gradient", lambda _, x, d_out, weight: (weight,), floats(1), "aot")
        self.convolved = ops.Custom(prefix, out_shape, floats(1), "aot", _dense_bprop(for_input, for_weight))
        for each in (self.convolved, for_input, for_weight):
            each.add_prim_attr("kind", [*self.weight.shape, pad_height, pad_width, int(bfloat16)])

    def construct(self, x: Tensor) -> Tensor:
        if not self.bfloat16 and x.shape[0] % SAMPLES_TOGETHER and x.shape[2] * x.shape[3] < _LARGE_MAP:
            return self.convolution(x)
        return self.convolved(self.settings, x, self.weight)[0]


# What the gradient of a batch norm needs, from the outputs of its operator and its running statistics: mean and
# 1 / deviation; with running statistics, the variance, of which the operator makes that.
_Statistics = Callable[..., tuple[Any, Any]]


def _of_batch(place: int) -> _Statistics:
    """Those of the batch, which begin at this place among the outputs."""

    def statistics(out, mean, variance):
        return out[place], out[place + 1]

    return statistics


def _running(out, mean, variance):
    return mean, variance


# Gradients by kind of operator; graph mode wants each input by name. Each takes the inputs, the outputs and the
# gradients of the outputs, and gives those of the inputs. Nothing reads those of options and running statistics: these
# stand in their own places, since each operator that makes zeros takes its time outside of graphs.


def _norm_bprop(gradient: ops.Custom, saved: _Statistics, _: object = None) -> Callable[..., tuple[Any, ...]]:
    def bprop(options, x, gamma, beta, mean, variance, out, d_out):
        d_x, d_gamma, d_beta = gradient(options, x, d_out[0], gamma, beta, *saved(out, mean, variance))
        return options, d_x, d_gamma, d_beta, mean, variance

    return bprop


def _depthwise_bprop(gradient: ops.Custom, *_: object) -> Callable[..., tuple[Any, ...]]:
    def bprop(options, x, weight, out, d_out):
        d_x, d_weight = gradient(options, x, d_out[0], weight)
        return options, d_x, d_weight

    return bprop


def _depthwise_norm_bprop(gradient: ops.Custom, saved: _Statistics, _: object) -> Callable[..., tuple[Any, ...]]:
    def bprop(options, x, weight, gamma, beta, mean, variance, out, d_out):
        statistics = saved(out, mean, variance)
        d_x, d_weight, d_gamma, d_beta = gradient(options, x, d_out[0], weight, gamma, beta, *statistics)
        return options, d_x, d_weight, d_gamma, d_beta, mean, variance

    return bprop


def _ghost_bprop(gradient: ops.Custom, saved1: _Statistics, saved2: _Statistics) -> Callable[..., tuple[Any, ...]]:
    def bprop(options, x, gamma1, beta1, mean1, variance1, weight, gamma2, beta2, mean2, variance2, other, out, d_out):
        first, second = saved1(out, mean1, variance1), saved2(out, mean2, variance2)
        d_x, d_gamma1, d_beta1, d_weight, d_gamma2, d_beta2 = gradient(
            options, x, d_out[0], gamma1, beta1, *first, weight, gamma2, beta2, *second
        )
        first = (options, d_x, d_gamma1, d_beta1, mean1, variance1)
        # Where nothing is added, `other` stands for no input, and nothing reads its gradient.
        return (*first, d_weight, d_gamma2, d_beta2, mean2, variance2, d_out[0])

    return bprop


def _of_maps_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(x, out, d_out):
        return gradient(x, d_out[0])

    return bprop


def _gate_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(x, gates, out, d_out):
        return gradient(x, gates, d_out[0])

    return bprop


def _mask_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(options, x, key, out, d_out):
        return ops.zeros_like(options), gradient(options, d_out[0], key)[0], ops.zeros_like(key)

    return bprop


def _dense_bprop(for_input: ops.Custom, for_weight: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(settings, x, weight, out, d_out):
        d_x = for_input(settings, x, d_out[0], weight)[0]
        return ops.zeros_like(settings), d_x, for_weight(settings, x, d_out[0], weight)[0]

    return bprop


def floats(count: int, integers: int | None = None) -> Callable[..., tuple[Any, ...]]:
    """For `ops.Custom`: infers the types of `count` outputs; refuses inputs of another type than float32.

    Args:
        count: outputs, float32.
        integers: the place of an input that is int32, where there is one.
    """

    def infer(*types: Any) -> tuple[Any, ...]:
        wanted = ["Int32" if place == integers else "Float32" for place in range(len(types))]
        if any(name not in str(kind) for name, kind in zip(wanted, types, strict=True)):
            raise TypeError(
                f"our native operators take tensors of {', '.join(wanted)}, got {', '.join(map(str, types))}"
            )
        return (ms.float32,) * count

    return infer


def parameters(norm: nn.BatchNorm2d) -> tuple[Parameter, ...]:
    """In the order in which a network lists them."""
    return (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)


def _geometry(convolution: nn.Conv2d) -> tuple[int, int, int]:
    """Stride and padding (above and below, left and right)."""
    padding = convolution.padding if convolution.pad_mode == "pad" else 0
    top, _, left, _ = (padding,) * 4 if isinstance(padding, int) else padding
    return convolution.stride[0], top, left
