"""Ghost modules for any network: its convolutions are replaced, in place.

Of N filters a Ghost module keeps N / ratio; depthwise filters make the other maps from theirs (Han et al., CVPR 2020,
https://arxiv.org/abs/1911.11907, section 3.1). It is linear, as a convolution is, and takes its place alone: batch norm
and activation that follow stay as they are. `ghostify` says which convolutions are replaced.
"""

from __future__ import annotations

import difflib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from .complexity import complexity, forward_hooks, run
from .ghost_fit import Fit, fit
from .layers import GhostMaps, depthwise_convolution, he_uniform_init
from .parameters import assign
from .surgery import replace_cells

# A convolution with fewer channels, before or after, is left alone: there is little to save.
MIN_CHANNELS = 16
_TIMED_RUNS = 5
_PIXEL = (1, 1)
# Names that a line of the report lists.
_NAMED = 4
# Of the report: title, field of Cost, format.
_ROWS = (("parameters", "parameters", ",d"), ("MACs", "macs", ",d"), ("ms an image", "milliseconds", ".2f"))


class Gather(nn.Cell):
    """Channels in another order: output c is input `order[c]`; `inverse` is the permutation that undoes it.

    (N, C, H, W), (C,), (C,) -> (N, C, H, W)
    """

    def construct(self, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return ops.gather(x, order, 1)

    def bprop(self, x: Tensor, order: Tensor, inverse: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient. MindSpore's own adds up what may share an input, and is 20 times slower on CPU."""
        return ops.gather(dout, inverse, 1), ops.zeros_like(order), ops.zeros_like(inverse)


class Reorder(nn.Cell):
    """`Gather` with its permutation as parameters that are not trained, so that weight files hold it."""

    def __init__(self, order: NDArray[Any]) -> None:
        super().__init__()
        self.order = Parameter(Tensor(order.astype(np.int32)), "order", requires_grad=False)
        self.inverse = Parameter(Tensor(np.argsort(order).astype(np.int32)), "inverse", requires_grad=False)
        self.gather = Gather()

    def construct(self, x: Tensor) -> Tensor:
        return self.gather(x, self.order, self.inverse)


class GhostConvolution(GhostMaps):
    """A linear Ghost module in place of a convolution: same input, same output shape.

    Kernel size, stride, padding, dilation and bias are the convolution's, in `primary_conv`; `cheap_operation` makes
    ghosts of its maps.

    Args:
        conv: what it stands for; not grouped.
        ratio: one map in `ratio` is intrinsic.
        dw_size: kernel size of the depthwise convolution, odd.
        start: from where; None for fresh He-uniform weights.

    (N, in_channels, H, W) -> (N, out_channels, H', W'), H' and W' as the convolution's.
    """

    def __init__(self, conv: nn.Conv2d, ratio: int = 2, dw_size: int = 3, start: Fit | None = None) -> None:
        options = ("kernel_size", "stride", "pad_mode", "padding", "dilation", "has_bias")
        geometry = {key: getattr(conv, key) for key in options}
        super().__init__(
            conv.out_channels,
            ratio,
            primary=lambda intrinsic: nn.Conv2d(conv.in_channels, intrinsic, **geometry),
            cheap=lambda intrinsic, _: depthwise_convolution(intrinsic, dw_size, 1, ratio - 1, conv.has_bias),
        )
        self.reorder: Reorder | None = None
        he_uniform_init(self)
        if start is not None:
            self._start_from(conv, start)

    def _start_from(self, conv: nn.Conv2d, start: Fit) -> None:
        self.reorder = Reorder(start.order)
        assign(self.primary_conv.weight, conv.weight.asnumpy()[start.intrinsic])
        assign(self.cheap_operation.weight, start.filters)
        if conv.has_bias:
            assign(self.primary_conv.bias, conv.bias.asnumpy()[start.intrinsic])
            assign(self.cheap_operation.bias, start.bias)

    def construct(self, x: Tensor) -> Tensor:
        out = super().construct(x)
        return out if self.reorder is None else self.reorder(out)


@dataclass(frozen=True)
class Site:
    """A convolution that may be replaced, for `skip` to judge.

    Attributes:
        name: of the cell in the network, such as "layer1.0.conv1".
        conv: the convolution.
        first: whether it ran first.
        map_size: height and width of its output; None if it did not run.
        pooled: whether it reads single pixels that a pooling made, as in squeeze-and-excitation.
    """

    name: str
    conv: nn.Conv2d
    first: bool = False
    map_size: tuple[int, int] | None = None
    pooled: bool = False


def default_skip(site: Site) -> str | None:
    """Why a convolution is better left alone; None where it is not."""
    if site.first:
        return "the first convolution"
    if min(site.conv.in_channels, site.conv.out_channels) < MIN_CHANNELS:
        return f"fewer than {MIN_CHANNELS} channels"
    # A depthwise filter would have nothing to look at but padding.
    return "after a global pooling" if site.pooled else None


@dataclass(frozen=True)
class Cost:
    """Of a network: trainable parameters, and for one image in evaluation multiply-accumulates and the fastest run."""

    parameters: int
    macs: int
    milliseconds: float


@dataclass(frozen=True)
class Report:
    """What `ghostify` did.

    Attributes:
        replaced: names of the convolutions that are Ghost modules now.
        kept: names of those that are not, and why.
        before, after: cost of the network.
        image: (channels, height, width) that it was measured with.
        explained: for each replaced convolution, the share of the variance of its other maps that the ghosts start
            with; empty if they started fresh.
    """

    replaced: tuple[str, ...]
    kept: dict[str, str]
    before: Cost
    after: Cost
    image: tuple[int, int, int]
    explained: dict[str, float]

    def __str__(self) -> str:
        rows = [("", "before", "after", "after / before")]
        for title, key, form in _ROWS:
            before, after = getattr(self.before, key), getattr(self.after, key)
            rows.append((title, format(before, form), format(after, form), f"{after / before:.3f}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in rows]
        channels, height, width = self.image
        lines.append(f"one image of {channels} x {height} x {width}; {len(self.replaced)} convolutions replaced")
        for reason in dict.fromkeys(self.kept.values()):
            names = [name for name, why in self.kept.items() if why == reason]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            lines.append(f"left alone ({reason}): {', '.join(names[:_NAMED])}{more}")
        if self.explained:
            mean = statistics.mean(self.explained.values())
            lines.append(f"ghosts start with {mean:.0%} of the variance of the maps that they replace (mean of layers)")
        return "\n".join(lines)


def ghostify(
    net: nn.Cell,
    ratio: int = 2,
    dw_size: int = 3,
    skip: Callable[[Site], object] | Sequence[str] = (),
    *,
    image: tuple[int, int, int] = (3, 224, 224),
    start_from: Tensor | None = None,
) -> Report:
    """Replace a network's convolutions by linear Ghost modules, in place.

    Always left alone: grouped and depthwise convolutions, and classes derived from `nn.Conv2d`. By `default_skip`: the
    first convolution that an image passes, those with fewer than 16 channels before or after, and those that read what
    a global pooling left, as in squeeze-and-excitation. Other 1x1 convolutions are replaced.

    Call it before the optimizer, mixed precision and compiled training steps are made: parameters change. Their new
    names are the convolution's with `primary_conv` and `cheap_operation` in between. Modules with `start_from` also
    reorder their maps, for which they have two integer parameters: weights saved from them need a network that was
    made with `start_from`, too (the images don't matter then).

    Args:
        net: takes images and is in any mode; graphs it was compiled to are dropped.
        ratio: one map in `ratio` is intrinsic; from 2.
        dw_size: kernel size of the depthwise convolutions; odd.
        skip: names of cells to leave alone besides, with all that is in them; or a function that takes the place of
            `default_skip`: Site -> something true (a text is the reason in the report) to leave it alone.
        image: channels, height, width of the images that the network is for: counts and times are for one of them.
        start_from: a few dozen images (n, channels, height, width), preprocessed as for the network. The modules then
            start near the trained convolutions (see `ghost_fit.fit`) instead of fresh; `image` is theirs.

    Raises:
        ValueError: an impossible ratio or dw_size, or a name in `skip` that no convolution has.
        RuntimeError: the network calls a convolution that is not one of its cells' attributes, such as one in a list.
    """
    if ratio < 2 or dw_size < 1 or dw_size % 2 == 0:
        raise ValueError(f"ratio: expected 2 or more, dw_size: odd; got {ratio} and {dw_size}")
    if start_from is not None:
        image = tuple(start_from.shape[1:])
    sites, norms = _survey(net, image)
    judge = _judge(skip, [site.name for site in sites])
    kept = {site.name: reason for site in sites if (reason := _cannot(site.conv) or judge(site))}
    chosen = [site for site in sites if site.name not in kept]
    before = _cost(net, image)
    starts = {} if start_from is None else _fits(net, chosen, norms, start_from, ratio, dw_size)
    modules = {id(s.conv): GhostConvolution(s.conv, ratio, dw_size, starts.get(s.name)) for s in chosen}
    replace_cells(net, modules)
    for site in chosen:
        prefix = site.conv.weight.name.rpartition("weight")[0]
        for name, parameter in modules[id(site.conv)].parameters_and_names():
            parameter.name = prefix + name
    _check_unused(net, chosen, image)
    explained = {name: start.explained for name, start in starts.items()}
    return Report(tuple(s.name for s in chosen), kept, before, _cost(net, image), image, explained)


def _survey(net: nn.Cell, image: tuple[int, int, int]) -> tuple[list[Site], dict[int, nn.BatchNorm2d]]:
    """The convolutions of a network, and by their ids the batch norms that read their outputs."""
    convolutions = {id(cell): name for name, cell in net.cells_and_names() if isinstance(cell, nn.Conv2d) and name}
    sites: dict[int, Site] = {}
    norms: dict[int, nn.BatchNorm2d] = {}
    outputs: dict[int, tuple[nn.Cell, Tensor]] = {}

    def ran(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(cell, nn.Conv2d):
            # The tensor is kept, so that its id stays its own.
            outputs[id(output)] = cell, output
            if id(cell) not in sites:
                before = next(reversed(sites.values()), None)
                shrunk = before is not None and (before.pooled or before.map_size != _PIXEL)
                pooled = tuple(inputs[0].shape[2:]) == _PIXEL and shrunk
                sites[id(cell)] = Site(convolutions[id(cell)], cell, not sites, tuple(output.shape[2:]), pooled)
        elif id(inputs[0]) in outputs:
            norms[id(outputs[id(inputs[0])][0])] = cell

    cells = dict(net.cells_and_names())
    batch_norms = [cell for cell in cells.values() if isinstance(cell, nn.BatchNorm2d)]
    with forward_hooks([*(cells[name] for name in convolutions.values()), *batch_norms], ran):
        run(net, image)
    return [sites.get(key) or Site(name, cells[name]) for key, name in convolutions.items()], norms


def _cannot(conv: nn.Conv2d) -> str | None:
    """Why a convolution cannot be replaced at all."""
    if conv.group > 1:
        return "grouped or depthwise"
    return None if type(conv) is nn.Conv2d else f"a {type(conv).__name__}"


def _judge(skip: Callable[[Site], object] | Sequence[str], names: list[str]) -> Callable[[Site], str | None]:
    """`skip` as a function that gives the reason, or None."""
    if callable(skip):

        def judge(site: Site) -> str | None:
            reason = skip(site)
            return (reason if isinstance(reason, str) else "skip") if reason else None

        return judge
    cells = (skip,) if isinstance(skip, str) else tuple(skip)
    within = {cell: {name for name in names if f"{name}.".startswith(f"{cell}.")} for cell in cells}
    for cell, found in within.items():
        if not found:
            nearest = difflib.get_close_matches(cell, names, n=1, cutoff=0)
            raise ValueError(f"skip: no convolution is called {cell!r} or lies in it; the nearest is {nearest}")
    named = set().union(*within.values())
    return lambda site: "skip" if site.name in named else default_skip(site)


def _fits(
    net: nn.Cell,
    sites: list[Site],
    norms: dict[int, nn.BatchNorm2d],
    images: Tensor,
    ratio: int,
    dw_size: int,
) -> dict[str, Fit]:
    """Where each Ghost module starts, from the maps of the trained convolutions."""
    names = {id(site.conv): site.name for site in sites}
    found: dict[str, Fit] = {}

    def ran(conv: nn.Conv2d, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[names[id(conv)]] = fit(output.asnumpy(), _gain(norms.get(id(conv))), ratio, dw_size, bias=conv.has_bias)

    with forward_hooks([site.conv for site in sites], ran):
        run(net, images)
    missing = [name for name in names.values() if name not in found]
    if missing:
        raise ValueError(f"start_from: {', '.join(missing)}: not used in evaluation, so nothing to start from; skip it")
    return found


def _gain(norm: nn.BatchNorm2d | None) -> NDArray[Any] | float:
    """The factors by which a batch norm scales its channels in evaluation; 1 without one."""
    if norm is None:
        return 1.0
    return norm.gamma.asnumpy() / np.sqrt(norm.moving_variance.asnumpy() + norm.eps)


def _check_unused(net: nn.Cell, sites: list[Site], image: tuple[int, int, int]) -> None:
    names = {id(site.conv): site.name for site in sites}
    used = []
    with forward_hooks([site.conv for site in sites], lambda conv, *_: used.append(names[id(conv)])):
        run(net, image)
    if used:
        raise RuntimeError(f"{used[0]}: the network also holds this convolution where it cannot be replaced; skip it")


def _cost(net: nn.Cell, image: tuple[int, int, int]) -> Cost:
    """Counts, and the fastest of a few runs in the mode in use, after one that compiles."""
    counts = complexity(net, *image[1:], in_channels=image[0])
    training = net.training
    net.set_train(False)
    x = Tensor(np.zeros((1, *image), np.float32))
    seconds = []
    for _ in range(1 + _TIMED_RUNS):
        start = time.perf_counter()
        net(x).asnumpy()
        seconds.append(time.perf_counter() - start)
    net.set_train(training)
    return Cost(counts.parameters, counts.macs, 1e3 * min(seconds[1:]))
