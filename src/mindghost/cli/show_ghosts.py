"""Draw what a Ghost module makes of an image: its intrinsic maps beside their ghosts, and its most similar maps.

The network, its preprocessing and its classes come from the files that training left beside the weights, or from -c.
A map is scaled to its own range; iN is intrinsic map N, gN ghost N of the layer. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config, settled
from ..config.arguments import Parser, add_overwrite, input_file, output_file, recipe_file
from ..errors import UserError
from ..files import figures, outputs
from ..process.display import say
from ..runs.files import RunFiles, saved_by_training

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from mindspore import nn

PROG = "mindghost show-ghosts"
# What it is called in files that it writes; the second is its name of the past.
MARKS = ("show-ghosts", "show_ghosts.py")
INCHES, DPI = (14, 8), 100
# Maps in a row, and rows, of the panel of intrinsic maps and ghosts; of larger layers the first ones are drawn.
MAPS_IN_ROW, ROWS = 12, 4
PAIRS = 6
COLORS = ("tab:red", "tab:green", "tab:blue", "tab:orange", "tab:purple", "tab:cyan")


@dataclass(frozen=True)
class Maps:
    """The output of a Ghost module for one image.

    Attributes:
        intrinsic: (m, height, width), float32.
        ghosts: (k, height, width), float32; together they are the module's output.
        sources: (k,) the intrinsic map that each ghost is made of.
    """

    intrinsic: NDArray[Any]
    ghosts: NDArray[Any]
    sources: NDArray[Any]

    def name(self, index: int) -> str:
        """What the picture calls channel `index` of the output."""
        count = len(self.intrinsic)
        return f"i{index}" if index < count else f"g{index - count}"


def settings(ckpt_path: Path, config_file: Path | None) -> Config:
    """The configuration that weights were trained with.

    Raises UserError where it is not known, or leaves the number of classes open.
    """
    from ..tasks import names as class_names

    if config_file:
        path, config = config_file, Config.from_file(config_file)
    else:
        path, config = RunFiles.beside(ckpt_path).config, settled({}, {}, saved_by_training(str(ckpt_path)))
    config = config.replace(ckpt_path=str(ckpt_path))
    if config.num_classes is None:
        classes = class_names.saved_classes(str(ckpt_path))
        if classes is None:
            raise UserError(f"{path}: num_classes: not given, and no classes.json is beside {ckpt_path}; add the key")
        config = config.replace(num_classes=len(classes))
    return config


def network_input(image: Path, config: Config) -> NDArray[Any]:
    """An image file as the network gets it in prediction: float32, (in_channels, height, width).

    Raises UserError where it cannot be read.
    """
    from .. import tasks
    from ..data import images, transforms

    pixels = transforms.as_rgb(images.read_image(str(image), upright=True), config.in_channels)
    return np.asarray(tasks.of(config).eval_transform(config)(pixels), np.float32)


def ghost_modules(network: nn.Cell) -> dict[str, nn.Cell]:
    """The Ghost modules of a network by name: the cells with a `primary_conv` and a `cheap_operation`."""
    cells = network.cells_and_names()
    return {name: cell for name, cell in cells if {"primary_conv", "cheap_operation"} <= set(cell.name_cells())}


def module_named(network: nn.Cell, model: str, layer: str | None) -> tuple[str, nn.Cell]:
    """The Ghost module `layer`, or the first one. Raises UserError that lists the valid names."""
    modules = ghost_modules(network)
    if not modules:
        raise UserError(f"model: {model} has no Ghost modules to show")
    if layer is None:
        layer = next(iter(modules))
    if layer not in modules:
        raise UserError(f"--layer: {model} has no Ghost module {layer!r}; expected one of {', '.join(modules)}")
    return layer, modules[layer]


def maps_of(network: nn.Cell, module: nn.Cell, image: NDArray[Any]) -> Maps:
    """Run a network on one image, (in_channels, height, width), and take the output of one of its Ghost modules.

    A RepGhost module, which adds where others join, puts out what it made of each intrinsic map.
    """
    from mindspore import Tensor

    from ..models.complexity import forward_hooks, run
    from ..models.repghostnet import RepGhostModule

    seen: dict[str, NDArray[Any]] = {}

    def ran(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if cell is module:
            seen["output"] = output.asnumpy()[0]
        else:
            seen["intrinsic"], seen["ghosts"] = inputs[0].asnumpy()[0], output.asnumpy()[0]

    with forward_hooks([module, module.cheap_operation], ran):
        run(network, Tensor(image[np.newaxis]))
    # From the output, which may be weighed (DFC attention) and without maps beyond its channels.
    count = len(seen["intrinsic"])
    intrinsic, ghosts = seen["output"][:count], seen["output"][count:]
    if isinstance(module, RepGhostModule):
        intrinsic, ghosts = seen["intrinsic"], seen["output"]
    return Maps(intrinsic, ghosts, np.arange(len(ghosts)) // (len(seen["ghosts"]) // count))


def similar_pairs(maps: Maps, number: int = PAIRS) -> list[tuple[int, int, float]]:
    """The most correlated pairs of output channels, each channel in one pair at most: (channel, channel, correlation).

    Negative correlation counts like positive; constant maps have none.
    """
    flat = np.concatenate([maps.intrinsic, maps.ghosts]).reshape(len(maps.intrinsic) + len(maps.ghosts), -1)
    flat = flat.astype(np.float64) - flat.mean(axis=1, keepdims=True, dtype=np.float64)
    norms = np.linalg.norm(flat, axis=1)
    alive = norms > 1e-6 * norms.max(initial=0)
    flat[alive] /= norms[alive, np.newaxis]
    flat[~alive] = 0
    correlation = np.triu(flat @ flat.T, 1)
    pairs: list[tuple[int, int, float]] = []
    while len(pairs) < number:
        first, second = np.unravel_index(np.abs(correlation).argmax(), correlation.shape)
        value = float(correlation[first, second])
        if value == 0:
            break
        pairs.append((int(first), int(second), value))
        for channel in (first, second):
            correlation[channel] = correlation[:, channel] = 0
    return pairs


def draw(image: NDArray[Any], maps: Maps, title: str) -> Figure:
    """The image, intrinsic maps beside their ghosts, and the most similar pairs in frames of one colour each."""
    from matplotlib.figure import Figure

    figure = Figure(INCHES, DPI, layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 4))
    left, right = parts
    upper, lower = right.subfigures(2, 1, height_ratios=(ROWS, 1.4))
    _draw_image(left, image, title, maps)
    pairs = similar_pairs(maps)
    frames = {channel: COLORS[n % len(COLORS)] for n, pair in enumerate(pairs) for channel in pair[:2]}
    _draw_groups(upper, maps, frames)
    _draw_pairs(lower, maps, pairs)
    return figure


def _draw_image(part: SubFigure, image: NDArray[Any], title: str, maps: Maps) -> None:
    axes = part.subplots()
    pixels = image.transpose(1, 2, 0)
    spread = pixels.max() - pixels.min()
    pixels = (pixels - pixels.min()) / (spread if spread > 0 else 1)
    axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray")
    axes.set_axis_off()
    height, width = maps.intrinsic.shape[1:]
    size = f"{len(maps.intrinsic)} intrinsic maps, {len(maps.ghosts)} ghosts\nof {height} x {width}"
    axes.set_title(f"{title}\n{size}", fontsize=9)


def _draw_groups(part: SubFigure, maps: Maps, frames: dict[int, str]) -> None:
    """Each intrinsic map, and right of it the ghosts that are made of it."""
    count = len(maps.intrinsic)
    groups = [[i, *(count + np.flatnonzero(maps.sources == i))] for i in range(count)]
    longest = max(map(len, groups))
    # Few maps are drawn larger, in a panel of about the same shape.
    filling = math.ceil(math.sqrt(MAPS_IN_ROW / ROWS * count / longest))
    in_row = max(1, min(MAPS_IN_ROW // longest, filling))
    shown = groups[: in_row * ROWS]
    rows = -(-len(shown) // in_row)
    grid = part.subplots(rows, in_row * longest, squeeze=False)
    for number, axes in enumerate(grid.flat):
        group, place = divmod(number, longest)
        if group < len(shown) and place < len(shown[group]):
            channel = shown[group][place]
            _draw_map(axes, maps, channel, frames.get(channel))
        else:
            axes.set_axis_off()
    more = f" (the first {len(shown)} of {count})" if len(shown) < count else ""
    part.suptitle(f"Intrinsic maps, each with its ghosts on its right{more}", fontsize=10)


def _draw_pairs(part: SubFigure, maps: Maps, pairs: list[tuple[int, int, float]]) -> None:
    if not pairs:
        part.suptitle("No two maps of the layer are alike: all but one are constant", fontsize=10)
        return
    grid = part.subplots(1, 2 * len(pairs))
    for number, (first, second, correlation) in enumerate(pairs):
        color = COLORS[number % len(COLORS)]
        _draw_map(grid[2 * number], maps, first, color)
        _draw_map(grid[2 * number + 1], maps, second, color, f"  ({correlation:+.3f})")
    part.suptitle("The most similar maps of the layer, with their correlation", fontsize=10)


def _draw_map(axes: Axes, maps: Maps, channel: int, frame: str | None, note: str = "") -> None:
    count = len(maps.intrinsic)
    axes.imshow(maps.intrinsic[channel] if channel < count else maps.ghosts[channel - count], cmap="viridis")
    axes.set_title(maps.name(channel) + note, fontsize=7, pad=4)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame or "none", linewidth=3)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("image", type=input_file("give an image"), metavar="IMAGE", help="an image file")
    weights = input_file("give the path of a .ckpt file")
    parser.add_argument("--ckpt_path", type=weights, required=True, metavar="FILE", help="the weights, a .ckpt file")
    parser.add_argument("--layer", metavar="NAME", help="a Ghost module; without it, the first one of the network")
    parser.add_argument(
        "-c",
        "--config",
        type=recipe_file,
        metavar="RECIPE",
        help="the recipe, a file or a name, if it is not beside the weights",
    )
    parser.add_argument(
        "-o", "--output", type=output_file, default=Path("ghosts.png"), metavar="PNG", help="default: ghosts.png"
    )
    add_overwrite(parser)
    return parser


def parse(line: Sequence[str]) -> argparse.Namespace:
    """What a command line says."""
    arguments = make_parser().parse_args(line)
    figures.check_ending(arguments.output, "--output")
    return arguments


def picture(arguments: argparse.Namespace) -> Figure:
    """The picture that a command line asks for. Raises UserError for weights, image or layer that are not there."""
    from .. import build

    config = settings(arguments.ckpt_path, arguments.config)
    image = network_input(arguments.image, config)
    network, _ = build.trained_network(config.replace(val_amp_level="O0"))
    layer, module = module_named(network, config.model, arguments.layer)
    title = "\n".join(map(figures.label, (arguments.image.name, config.model, layer)))
    return draw(image, maps_of(network, module, image), title)


def main(arguments: Sequence[str]) -> None:
    """Draw, write."""
    args = parse(arguments)
    inputs = outputs.identities(filter(None, (args.image, args.ckpt_path, args.config)))
    output = outputs.Output(args.output, "--output", outputs.png_of(*MARKS), args.overwrite, inputs)
    output.check()
    try:
        content = figures.png(lambda: picture(args))
    except ImportError as error:
        raise UserError(f"matplotlib draws the picture ({error}); pip install matplotlib") from error
    output.write(outputs.mark_png(content, MARKS[0]))
    say(f"wrote {args.output}")
