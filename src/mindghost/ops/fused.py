"""Cells that run our C++ operators, and their way into a network.

They hold the cells that they stand for, parameters and all: names and weight files stay what they are. Gradients are
those of training mode; in evaluation mode there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ..models.ghostnet import GhostBottleneck
from ..models.ghostnetv3 import ConvBn
from ..models.layers import GhostMaps, MapMeans, SqueezeExcite
from ..models.network import Network
from ..models.surgery import replace_cells

_SAMPLES_TOGETHER = 8  # kTogether in kernels.h


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
        self.options = Tensor(self._options(), ms.float32)
        # Parameters of their own: graph mode compiles for minutes where cells are handed to functions.
        if norm1 is not None:
            self.mean1, self.variance1, self.gamma1, self.beta1 = _parameters(norm1)
        if depthwise is not None:
            self.weight = depthwise.weight
        if norm2 is not None:
            self.mean2, self.variance2, self.gamma2, self.beta2 = _parameters(norm2)
        self.trained, self.evaluated = self._operators(library)

    def construct(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        inputs = (self.options, x)
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

    def _options(self) -> list[float]:
        """In the order of `Option` in operators.cpp."""
        stride, pad_height, pad_width = _geometry(self.depthwise) if self.depthwise is not None else (1, 0, 0)
        parts = (self.norm1, self.depthwise, self.norm2)
        norms = []
        for norm, relu in ((self.norm1, self.relu1), (self.norm2, self.relu2)):
            norms += [relu, norm.eps, norm.momentum] if norm is not None else [0, 0, 0]
        flags = [part is not None for part in parts]
        return [float(value) for value in (*flags, self.adds, stride, pad_height, pad_width, *norms)]

    def _operators(self, library: Path) -> tuple[ops.Custom, ops.Custom]:
        """That of training, with its gradient, and that of evaluation."""
        depthwise = self.depthwise
        first, convolution, second = (part is not None for part in (self.norm1, depthwise, self.norm2))
        channels = (self.norm1.num_features,) if first else ()
        outputs = depthwise.weight.shape[0] if convolution else 0
        ghosts = (outputs,) if second else ()
        stride, pad_height, pad_width = _geometry(depthwise) if convolution else (1, 0, 0)
        kernel_height, kernel_width = depthwise.weight.shape[2:] if convolution else (1, 1)
        out_channels = self.out_channels or (channels[0] if first else 0) + outputs

        def out_shape(options, x, *_):
            height = (x[2] + 2 * pad_height - kernel_height) // stride + 1
            width = (x[3] + 2 * pad_width - kernel_width) // stride + 1
            return ([x[0], out_channels, height, width],)

        def shapes(*inputs):
            return (*out_shape(*inputs), *([channels] * 4 if first else ()), *([ghosts] * 4 if second else ()))

        def gradient_shapes(options, x, *_):
            kernel = [list(depthwise.weight.shape)] if convolution else []
            return (x, *([channels] * 2 if first else ()), *kernel, *([ghosts] * 2 if second else ()))

        types = floats(1 + 2 * first + convolution + 2 * second)
        gradient = ops.Custom(f"{library}:ghostnet_backward", gradient_shapes, types, "aot")
        bprop = {
            (True, False, False): _norm_bprop,
            (False, True, False): _depthwise_bprop,
            (False, True, True): _depthwise_norm_bprop,
            (True, True, True): _ghost_bprop,
        }[first, convolution, second](gradient)
        trained = ops.Custom(f"{library}:ghostnet_forward", shapes, floats(1 + 4 * first + 4 * second), "aot", bprop)
        evaluated = ops.Custom(f"{library}:ghostnet_evaluate", out_shape, floats(1), "aot")
        # MindSpore keeps one inferred shape and one gradient for operators of equal attributes.
        kernel = (kernel_height, kernel_width, stride, pad_height, pad_width)
        kind = [first, convolution, second, *channels, outputs, out_channels, *kernel]
        for each in (trained, gradient, evaluated):
            each.add_prim_attr("kind", [int(value) for value in kind])
        return trained, evaluated


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


class Dense(nn.Cell):
    """A dense convolution of stride 1 by our operators, for whole blocks of samples; others run as they were.

    Args:
        library: file of the C++ operators.
        convolution: what it stands for.
    """

    def __init__(self, library: Path, convolution: nn.Conv2d) -> None:
        super().__init__(auto_prefix=False)
        self.convolution = convolution
        self.weight = convolution.weight
        _, pad_height, pad_width = _geometry(convolution)
        self.padding = Tensor([float(pad_height), float(pad_width)], ms.float32)
        out_channels, _, kernel_height, kernel_width = self.weight.shape

        def out_shape(padding, x, _):
            height, width = x[2] + 2 * pad_height - kernel_height + 1, x[3] + 2 * pad_width - kernel_width + 1
            return ([x[0], out_channels, height, width],)

        prefix = f"{library}:ghostnet_convolution"
        for_input = ops.Custom(f"{prefix}_input_gradient", lambda _, x, *others: (x,), floats(1), "aot")
        for_weight = ops.Custom(f"{prefix}_weight_gradient", lambda _, x, d_out, weight: (weight,), floats(1), "aot")
        self.convolved = ops.Custom(prefix, out_shape, floats(1), "aot", _dense_bprop(for_input, for_weight))
        for each in (self.convolved, for_input, for_weight):
            each.add_prim_attr("kind", [*self.weight.shape, pad_height, pad_width])

    def construct(self, x: Tensor) -> Tensor:
        if x.shape[0] % _SAMPLES_TOGETHER:
            return self.convolution(x)
        return self.convolved(self.padding, x, self.weight)[0]


# Gradients by kind of operator; graph mode wants each input by name. Each takes the inputs, the outputs and the
# gradients of the outputs, and gives those of the inputs; nothing reads those of options and running statistics.


def _norm_bprop(gradient: ops.Custom) -> Callable[..., tuple]:
    def bprop(options, x, gamma, beta, mean, variance, out, d_out):
        d_x, d_gamma, d_beta = gradient(options, x, d_out[0], gamma, beta, out[1], out[2])
        return (ops.zeros_like(options), d_x, d_gamma, d_beta, ops.zeros_like(mean), ops.zeros_like(variance))

    return bprop


def _depthwise_bprop(gradient: ops.Custom) -> Callable[..., tuple]:
    def bprop(options, x, weight, out, d_out):
        d_x, d_weight = gradient(options, x, d_out[0], weight)
        return (ops.zeros_like(options), d_x, d_weight)

    return bprop


def _depthwise_norm_bprop(gradient: ops.Custom) -> Callable[..., tuple]:
    def bprop(options, x, weight, gamma, beta, mean, variance, out, d_out):
        d_x, d_weight, d_gamma, d_beta = gradient(options, x, d_out[0], weight, gamma, beta, out[1], out[2])
        zero = ops.zeros_like(mean)
        return (ops.zeros_like(options), d_x, d_weight, d_gamma, d_beta, zero, zero)

    return bprop


def _ghost_bprop(gradient: ops.Custom) -> Callable[..., tuple]:
    def bprop(options, x, gamma1, beta1, mean1, variance1, weight, gamma2, beta2, mean2, variance2, other, out, d_out):
        d_x, d_gamma1, d_beta1, d_weight, d_gamma2, d_beta2 = gradient(
            options, x, d_out[0], gamma1, beta1, out[1], out[2], weight, gamma2, beta2, out[5], out[6]
        )
        zero1, zero2 = ops.zeros_like(mean1), ops.zeros_like(mean2)
        first = (ops.zeros_like(options), d_x, d_gamma1, d_beta1, zero1, zero1)
        # Where nothing is added, `other` stands for no input, and nothing reads its gradient.
        return (*first, d_weight, d_gamma2, d_beta2, zero2, zero2, d_out[0])

    return bprop


def _of_maps_bprop(gradient: ops.Custom) -> Callable[..., tuple]:
    def bprop(x, out, d_out):
        return gradient(x, d_out[0])

    return bprop


def _gate_bprop(gradient: ops.Custom) -> Callable[..., tuple]:
    def bprop(x, gates, out, d_out):
        return gradient(x, gates, d_out[0])

    return bprop


def _dense_bprop(for_input: ops.Custom, for_weight: ops.Custom) -> Callable[..., tuple]:
    def bprop(padding, x, weight, out, d_out):
        d_x = for_input(padding, x, d_out[0], weight)[0]
        return ops.zeros_like(padding), d_x, for_weight(padding, x, d_out[0], weight)[0]

    return bprop


def floats(count: int) -> Callable[..., tuple]:
    """For `ops.Custom`: infers the types of `count` outputs; refuses inputs that are not float32."""

    def infer(*types):
        if any("Float32" not in str(kind) for kind in types):
            raise TypeError(f"our native operators take float32 tensors only, got {', '.join(map(str, types))}")
        return (ms.float32,) * count

    return infer


def _parameters(norm: nn.BatchNorm2d) -> tuple[Parameter, ...]:
    """In the order in which a network lists them."""
    return (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)


def _geometry(convolution: nn.Conv2d) -> tuple[int, int, int]:
    """Stride and padding (above and below, left and right)."""
    padding = convolution.padding if convolution.pad_mode == "pad" else 0
    top, _, left, _ = (padding,) * 4 if isinstance(padding, int) else padding
    return convolution.stride[0], top, left


def _is_norm(cell: nn.Cell | None) -> bool:
    """Whether this is a batch norm that our operators know: of maps, over the batch in training."""
    return (
        type(cell) is nn.BatchNorm2d
        and cell.use_batch_statistics is None
        and all(parameter.dtype == ms.float32 for parameter in _parameters(cell))
    )


def _is_depthwise(cell: nn.Cell | None) -> bool:
    """Whether this is a convolution that our operators know: each map on its own, padded alike on opposite sides."""
    if type(cell) is not nn.Conv2d or cell.group != cell.in_channels or cell.has_bias:
        return False
    return cell.stride[0] == cell.stride[1] and _is_plain(cell)


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is in float32, without gaps, and padded alike on opposite sides."""
    padding = convolution.padding if isinstance(convolution.padding, tuple) else (convolution.padding,) * 4
    symmetric = convolution.pad_mode == "valid" or (
        convolution.pad_mode == "pad" and padding[0] == padding[1] and padding[2] == padding[3]
    )
    return symmetric and set(convolution.dilation) == {1} and convolution.weight.dtype == ms.float32


def _is_dense(cell: nn.Cell) -> bool:
    """Whether this is a convolution that `Dense` knows. Those of one pixel are fast in MindSpore."""
    return (
        type(cell) is nn.Conv2d
        and cell.group == 1
        and not cell.has_bias
        and cell.stride == (1, 1)
        and max(cell.kernel_size) > 1
        and _is_plain(cell)
    )


def _is_max_pool(cell: nn.Cell) -> bool:
    """Whether this is the pooling that `OfMaps` knows."""
    return (
        type(cell) is nn.MaxPool2d
        and (cell.kernel_size, cell.stride) == (2, 2)
        and cell.pad_mode.lower() == "valid"
        and not cell.return_indices
    )


def use(network: nn.Cell, library: Path) -> None:
    """Have a float32 network's norms, depthwise convolutions, means and gates of maps computed by our operators.

    Together with what follows them, where that is known: ReLU, a Ghost module's concatenation, a bottleneck's sum.
    Parameters stay the same objects under the same names, in the same order.
    """
    names = [(parameter, parameter.name) for parameter in network.get_parameters()]
    done = _fuse_ghosts(network, library)
    # A tail's cells renamed what they share with it, and `replace_cells` goes by names.
    _rename(names)
    replacements = {}
    parents = [cell for _, cell in network.cells_and_names() if id(cell) not in done and not isinstance(cell, Chain)]
    for parent in parents:
        replacements |= _fused_runs(_run(parent), library)
    for parent in parents:
        rest = [child for child in parent._cells.values() if id(child) not in replacements]
        replacements |= _singles(rest, library)
    for _, cell in network.cells_and_names():
        # A convolution of a single map is a depthwise one, too, and may be part of a chain by now.
        if id(cell) in replacements:
            continue
        if _is_dense(cell):
            replacements[id(cell)] = Dense(library, cell)
        elif _is_max_pool(cell):
            replacements[id(cell)] = OfMaps(library, "max_pool")
    replace_cells(network, replacements)
    _rename(names)


def _rename(names: list[tuple[Parameter, str]]) -> None:
    for parameter, name in names:
        parameter.name = name


def _fuse_ghosts(network: nn.Cell, library: Path) -> set[int]:
    """Give every Ghost module whose parts we know a tail. Returns the ids of these parts, which do not run any more."""
    done = set()
    cells = [cell for _, cell in network.cells_and_names()]
    adds = {id(cell.ghost2) for cell in cells if isinstance(cell, GhostBottleneck)}
    for cell in cells:
        if not isinstance(cell, GhostMaps):
            continue
        primary, cheap = _parts(cell.primary_conv), _parts(cell.cheap_operation)
        if primary and cheap and _is_depthwise(cheap[0]):
            tail = Chain(
                library,
                norm1=primary[1],
                relu1=primary[2],
                depthwise=cheap[0],
                norm2=cheap[1],
                relu2=cheap[2],
                out_channels=cell.cut[0] if cell.cut is not None else None,
                adds=id(cell) in adds,
            )
            # An attribute that is no cell cannot become one.
            del cell.tail
            cell.tail = tail
            done |= {id(cell.primary_conv), id(cell.cheap_operation)}
    return done


def _parts(part: nn.Cell) -> tuple[nn.Cell, nn.BatchNorm2d, bool] | None:
    """A Ghost module's part as convolution, norm and whether a ReLU follows; None if it is made of anything else."""
    cells = list(part.name_cells().values()) if isinstance(part, nn.SequentialCell) else []
    if len(cells) not in (2, 3) or not _is_norm(cells[1]) or (len(cells) == 3 and type(cells[2]) is not nn.ReLU):
        return None
    return cells[0], cells[1], len(cells) == 3


def _run(parent: nn.Cell) -> list[nn.Cell]:
    """Children that run one after the other."""
    if isinstance(parent, nn.SequentialCell):
        return list(parent._cells.values())
    names = ()
    if isinstance(parent, Network):
        names = parent.body
    elif isinstance(parent, GhostBottleneck):
        names = ("conv_dw", "bn_dw")
    elif isinstance(parent, ConvBn):
        names = ("conv", "bn")
    return [parent._cells[name] for name in names if name in parent._cells]


def _fused_runs(cells: list[nn.Cell], library: Path) -> dict[int, nn.Cell]:
    """What takes the place of each [depthwise convolution,] batch norm[, ReLU] among cells that follow each other."""
    replacements = {}
    place = 0
    while place < len(cells):
        start = place
        depthwise = cells[place] if _is_depthwise(cells[place]) else None
        place += depthwise is not None
        norm = cells[place] if place < len(cells) and _is_norm(cells[place]) else None
        if norm is None:
            place = start + 1
            continue
        place += 1
        relu = place < len(cells) and type(cells[place]) is nn.ReLU
        place += relu
        if depthwise is None:
            chain = Chain(library, norm1=norm, relu1=relu)
        else:
            chain = Chain(library, depthwise=depthwise, norm2=norm, relu2=relu)
        replacements[id(cells[start])] = chain
        replacements |= {id(cell): nn.Identity() for cell in cells[start + 1 : place]}
    return replacements


def _singles(cells: list[nn.Cell], library: Path) -> dict[int, nn.Cell]:
    """What takes the place of cells that are known, each on its own."""
    replacements = {}
    for cell in cells:
        if _is_norm(cell):
            replacements[id(cell)] = Chain(library, norm1=cell)
        elif _is_depthwise(cell):
            replacements[id(cell)] = Chain(library, depthwise=cell)
        elif type(cell) is SqueezeExcite and cell.conv_reduce.weight.dtype == ms.float32:
            replacements[id(cell)] = Gated(library, cell)
        elif type(cell) is MapMeans:
            replacements[id(cell)] = OfMaps(library, "means")
    return replacements
