"""Weights from elsewhere: other names -> ours and back, which entries of a file are weights, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import UserError
from ..files import intact, paths
from ..models import card, check_fused_form, create_model, reparam
from ..process.display import shown
from . import pytorch as pytorch_file
from . import weights as weights_file
from .fit import Differences, as_float32, check_fit, taken_off
from .names import select, timm_names


@dataclass(frozen=True)
class Conversion:
    """A weight file, compared with a network: `report` it, `check` it, then `write` it.

    Attributes:
        source: the file.
        target: the file to write.
        model: name of the network.
        key: which weights of the file were taken: the key of PyTorch's state dict, "ema" for MindCV's averages, or "".
        arrays: all that was read, by the file's names.
        names: our name -> name in the file, of the weights.
        prefix: of the file's names, that ours lack.
        shapes: of the network's parameters, by our names.
        fuse: whether the weights are written as those of the fused form.
        is_fused: whether the file holds those of the fused form.
    """

    source: Path
    target: Path
    model: str
    key: str
    arrays: dict[str, NDArray[Any]] = field(repr=False)
    names: dict[str, str] = field(repr=False)
    prefix: str
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    fuse: bool = False
    is_fused: bool = False

    @property
    def differences(self) -> Differences:
        """Between the weights and the network's parameters, by our names."""
        return Differences.between({ours: self.arrays[theirs] for ours, theirs in self.names.items()}, self.shapes)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names in the file of what is no weight: counters, optimizer state, raw weights beside chosen averages."""
        used = set(self.names.values())
        return tuple(name for name in self.arrays if name not in used)

    def check(self) -> None:
        """Raise UserError, one line, where anything is missing, left over or of another shape."""
        facts = card(self.model)
        keys = {f"{facts.classifier}.": "--num_classes", f"{facts.stem}.": "--in_channels"}
        check_fit(self.source, self.differences, keys, self.prefix)

    def write(self) -> None:
        """Write all of the weights: ours by MindCV's names as `.ckpt`, by timm's as `.safetensors`, sha256 beside.

        Raises UserError as `check` does, or for values that are no weights, and RunError where the file system
        refuses; nothing is written then.
        """
        self.check()
        weights = {ours: as_float32(self.source, ours, self.arrays[self.names[ours]]) for ours in self.shapes}
        if self.fuse:
            weights = reparam.fuse(weights)
        if self.target.suffix == ".ckpt":
            weights_file.write(self.target, weights)
        else:
            theirs = timm_names(weights)
            weights_file.write_safetensors(self.target, {theirs[ours]: array for ours, array in weights.items()})

    def report(self) -> str:
        """What became of each entry: a line each of what, name in the file, MindCV's name, timm's name, shape, type.

        The columns are separated by tabs, a dash stands for none. What: mapped, shape (another one than the network's,
        which follows), missing, surplus, left out.
        """
        differences = self.differences
        timm = timm_names([*self.shapes, *self.names])
        lines = ["what\tin the file\tMindCV's name\ttimm's name\tshape\ttype"]
        for ours, shape in self.shapes.items():
            if ours in differences.missing:
                lines.append(f"missing\t-\t{ours}\t{timm[ours]}\t{_by_x(shape)}\t-")
                continue
            array = self.arrays[self.names[ours]]
            what, found = "mapped", _by_x(array.shape)
            if ours in differences.unequal:
                what, found = "shape", f"{found} instead of {_by_x(shape)}"
            lines.append(f"{what}\t{shown(self.names[ours])}\t{ours}\t{timm[ours]}\t{found}\t{array.dtype}")
        for what, names in (
            ("surplus", [self.names[ours] for ours in differences.surplus]),
            ("left out", self.left_out),
        ):
            arrays = ((name, self.arrays[name]) for name in names)
            lines += [f"{what}\t{shown(name)}\t-\t-\t{_by_x(array.shape)}\t{array.dtype}" for name, array in arrays]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        taken = f" ({self.key})" if self.key else ""
        left_out = f"; left out {len(self.left_out)} entries that are no weights" if self.left_out else ""
        form = " (fused, for deploy=True)" if self.is_fused else ""
        fused = ", fused for deploy=True" if self.fuse else ""
        return (
            f"{self.target}: {len(self.shapes)} parameters of {self.model}{form} from {self.source}{taken}{fused}"
            f"{taken_off(self.prefix)}{left_out}"
        )


def _by_x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def plan(
    source: Path,
    target: Path,
    model: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    averaged: bool = False,
    fuse: bool = False,
) -> Conversion:
    """Read a weight file of any kind and compare it with a network; writes nothing.

    Args:
        source: a PyTorch file, a `.safetensors` or a `.ckpt`, by PyTorch's or MindCV's names, whatever it is called.
            Without branches, where the network has some in training, it is one of the fused form.
        target: the file to write; its suffix, `.ckpt` or `.safetensors`, chooses the format.
        model: a name of `models.list_models()`.
        num_classes: outputs of the network that the file was made with; None is the network's own default.
        in_channels: channels of its images.
        averaged: take the averaged weights of a training state.
        fuse: write the weights of the fused form (`deploy=True`); the file holds those of the training form.

    Raises:
        UserError: an unknown network, one without a fused form, weights that are fused already, a source that cannot
            be read, averages that it does not have, or a target that cannot be.
    """
    weights_file.check_exists(source)
    _check_target(source, target)
    try:
        if fuse:
            check_fused_form(model)
        shapes = _shapes(model, num_classes, in_channels)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    content, key = intact.read_intact(source), ""
    is_pytorch = pytorch_file.is_one(content)
    if is_pytorch:
        content, key = pytorch_file.to_safetensors(source, averaged)
    arrays = weights_file.decode(source, content)
    selection = select(source, arrays, shapes, averaged)
    if averaged and not is_pytorch:
        if not selection.averaged:
            raise UserError(f"{source}: holds no averaged weights (ema.*); leave --ema out")
        key = "ema"
    is_fused = bool(reparam.branches(shapes)) and not reparam.branches(selection.names)
    if is_fused:
        if fuse:
            raise UserError(f"{source}: holds no branches to fuse; are the weights fused already? leave --deploy out")
        shapes = _shapes(model, num_classes, in_channels, deploy=True)
        selection = select(source, arrays, shapes, averaged)
    return Conversion(source, target, model, key, arrays, selection.names, selection.prefix, shapes, fuse, is_fused)


def _shapes(model: str, num_classes: int | None, in_channels: int, deploy: bool = False) -> dict[str, tuple[int, ...]]:
    """Of a network's parameters, by name."""
    network = create_model(model, num_classes, in_channels, deploy=deploy)
    return {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}


def _check_target(source: Path, target: Path) -> None:
    """Raise UserError for a file that cannot be written to or should not."""
    if target.suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"{target}: the file to write must end in .ckpt or .safetensors")
    paths.check_output(target)
    if paths.is_file(target) and target.samefile(source):
        raise UserError(f"{target}: is what is read; give another file to write")
