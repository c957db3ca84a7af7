"""Weights from elsewhere: other names -> ours and back, which entries of a file are weights, and whether they fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import intact, paths
from ..models import card, check_fused_form, create_model, reparam
from ..process.display import shown
from . import pytorch as pytorch_file
from . import weights as weights_file

# Parts of names that differ in PyTorch: ours, timm's. `#` stands for a number. All rows apply, in this order.
_RENAMED = (
    # The stage after the bottlenecks is one Conv-BN-ReLU cell here, a named block in PyTorch.
    ("blocks.#.features.0.", "blocks.#.0.conv."),
    ("blocks.#.features.1.", "blocks.#.0.bn1."),
    # GhostNetV3's branches stand, as one cell, where the fused convolution will. Their batch norm, `bn` for the authors
    # too, is `bn1` in timm.
    (".primary_conv.0.rpr_", ".primary_rpr_"),
    (".cheap_operation.0.rpr_", ".cheap_rpr_"),
    (".conv_dw.rpr_", ".dw_rpr_"),
    ("rpr_conv.#.bn.", "rpr_conv.#.bn1."),
    ("rpr_scale.bn.", "rpr_scale.bn1."),
)
_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_STATISTICS = (".running_mean", ".running_var")
# Counters without a counterpart: of PyTorch's batch norm, and those that thop left in the authors' GhostNetV2 files
# (https://github.com/huawei-noah/Efficient-AI-Backbones/issues/175).
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
# What wrappers put before each name: DistributedDataParallel, torch.compile, FSDP, Lightning and timm's trainers, and
# MindSpore's and MindCV's cells around a network (`_backbone` is that of nn.WithLossCell).
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "model", "network", "train_network", "backbone", "net")
_WRAPPED = re.compile(rf"(?:_?(?:{'|'.join(_WRAPPERS)})\.)+")
# What wrappers put before each name: DistributedDataParallel, torch.compile, FSDP, Lightning and training scripts, and
# MindSpore's and MindCV's cells around a network (`_backbone` is nn.WithLossCell's).
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "model", "network", "train_network", "backbone", "net")
_WRAPPED = re.compile(rf"(?:_?(?:{'|'.join(_WRAPPERS)})\.)+")
# A mismatch can name hundreds of parameters; a line names this many of each kind.
_NAMED = 4


def _rules(rows: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    """Rows of (template, template) as patterns and what replaces them."""
    rules = []
    for found, wanted in rows:
        groups = iter(range(1, wanted.count("#") + 1))
        pattern = re.escape(found).replace(re.escape("#"), r"(\d+)")
        rules.append((re.compile(pattern), re.sub("#", lambda _, groups=groups: rf"\g<{next(groups)}>", wanted)))
    return rules


_TO_THEIRS, _TO_OURS = _rules(_RENAMED), _rules((theirs, ours) for ours, theirs in _RENAMED)


def _rename(name: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def our_names(names: Collection[str]) -> dict[str, str]:
    """Names in a PyTorch state dict (the authors' code or timm) -> our names, without the counters.

    A layer with statistics is a batch norm.
    """
    norms = {name.rpartition(".")[0] for name in names if name.endswith(_STATISTICS)}
    found = {}
    for name in names:
        layer, _, kind = name.rpartition(".")
        if kind not in _COUNTERS:
            kind = _BATCH_NORM.get(kind, kind) if layer in norms else kind
            found[name] = _rename(f"{layer}.{kind}" if layer else kind, _TO_OURS)
    return found


def timm_names(names: Iterable[str]) -> dict[str, str]:
    """Our names -> those in the state dict of the same network of timm's (of its authors', where timm has none)."""
    kinds = {ours: theirs for theirs, ours in _BATCH_NORM.items()}
    found = {}
    for name in names:
        layer, dot, kind = _rename(name, _TO_THEIRS).rpartition(".")
        found[name] = f"{layer}{dot}{kinds.get(kind, kind)}"
    return found


def from_pytorch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the entries of a PyTorch state dict to our names; arrays keep their shapes and values."""
    return {ours: state[theirs] for theirs, ours in our_names(state).items()}


def wrapper(path: Path, found: Collection[str], wanted: Collection[str]) -> str:
    """What to take off the names in a file, `module.` or `model.module.`, so that they are those of a network.

    A trainer's file holds other entries beside the weights, so those count that a network has: the prefix is taken
    under which most of them stand, if one does, and none where at least as many stand under no prefix.

    Args:
        path: the file, for messages.
        found: the names in it, as ours.
        wanted: names of the network's parameters.

    Raises UserError where a parameter is there both with and without it, so that nobody knows which one is meant.
    """
    fitting: Counter[str] = Counter()
    for name in found:
        for prefix in _prefixes(name):
            fitting[prefix] += name.removeprefix(prefix) in wanted
    if all(name in found for name in wanted) and not any(count == len(wanted) for count in ...):
        return ""
    return ""


def unwrapped(path: Path, found: Collection[str], wanted: Collection[str]) -> tuple[str, dict[str, str]]:
    """The prefix of a wrapper, such as `module.` or `model.module.`, and each name in a file without it.

    A trainer's file holds other entries, too, so those count that a network has: the prefix is taken off under which
    the most of them stand. It is empty where as many stand under none, or under two.

    Args:
        path: the file, for messages.
        found: the names in it, as ours.
        wanted: names of the network's parameters.

    Raises UserError where a parameter is there twice, under another prefix or none.
    """
    fitting = Counter(prefix for name in found for prefix in _prefixes(name) if name.removeprefix(prefix) in wanted)
    fitting[""] = sum(name in wanted for name in found)
    (prefix, count), *others = fitting.most_common()
    if others and others[0][1] == count:
        prefix = ""
    bare = {name: _without(prefix, name) for name in found}
    there = set(bare.values())
    for name, rest in bare.items():
        again = [rest.removeprefix(other) for other in _prefixes(rest)] if rest not in wanted else []
        if twice := next((other for other in again if other in wanted and other in there), None):
            raise UserError(f"{path}: holds {twice} twice, also as {name}; use another copy of the file")
    return prefix, bare


def _prefixes(name: str) -> list[str]:
    """`model.`, `model.module.` for model.module.x."""
    found = _WRAPPED.match(name)
    return [name[: dot.end()] for dot in re.finditer(r"\.", found[0])] if found else []


def _without(prefix: str, name: str) -> str:
    """A name without a prefix; that of a trainer's entry, moments.module.x, without what follows its first part."""
    if name.startswith(prefix):
        return name.removeprefix(prefix)
    kind, dot, rest = name.partition(".")
    return kind + dot + rest.removeprefix(prefix)


@dataclass(frozen=True)
class Selection:
    """The weights among the entries of a file.

    Attributes:
        names: our name -> name in the file.
        prefix: what was taken off the file's names.
        training: how many entries of a trainer (moments, averages, counts) are left out.
        averaged: whether the file's averaged weights (`ema.*`) were taken.
    """

    names: dict[str, str]
    prefix: str
    training: int
    averaged: bool


def select(path: Path, found: Collection[str], wanted: Collection[str], averaged: bool) -> Selection:
    """Choose from the names in a file, ours or PyTorch's.

    Args:
        path: the file, for messages.
        found: the names in it.
        wanted: names of the network's parameters.
        averaged: take the `ema.*` entries, where the file has them.

    Raises UserError where two entries of the file have one name here; see `unwrapped`.
    """
    renamed = our_names(found) if any(name.endswith(_STATISTICS) for name in found) else {name: name for name in found}
    prefix, bare = unwrapped(path, renamed.values(), wanted)
    names: dict[str, str] = {}
    for theirs, wrapped in renamed.items():
        ours = bare[wrapped]
        if ours in names:
            both = " and ".join(sorted((names[ours], theirs)))
            raise UserError(f"{path}: {both} are one parameter here; use another copy of the file")
        names[ours] = theirs
    take_average = averaged and any(name.startswith("ema.") for name in names)
    if take_average:
        # All or nothing, but for batch-norm statistics, which MindCV's older averages leave out.
        average = {name.removeprefix("ema."): theirs for name, theirs in names.items() if name.startswith("ema.")}
        statistics = (".moving_mean", ".moving_variance")
        raw = {name for name in names if name.startswith("ema.") or (name in wanted and not name.endswith(statistics))}
        names = {name: theirs for name, theirs in names.items() if name not in raw} | average
    weights = {n: theirs for n, theirs in names.items() if n in wanted or not _is_training_entry(n, names)}
    return Selection(weights, prefix, len(names) - len(weights), take_average)


def _is_training_entry(name: str, names: Collection[str]) -> bool:
    """True for what optimizers and trainers keep: `moments.<another entry>`, or a name outside of any layer."""
    return "." not in name or name.partition(".")[2] in names


@dataclass(frozen=True)
class Differences:
    """How what a file holds and what a network has differ; false where they do not.

    Attributes:
        missing: parameters of the network that the file lacks.
        surplus: entries of the file that the network lacks.
        unequal: parameters of another shape, with that in the file and that in the network.
    """

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    unequal: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def between(cls, weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> Differences:
        """Compare names and shapes, from both sides."""
        return cls(
            missing=tuple(name for name in shapes if name not in weights),
            surplus=tuple(name for name in weights if name not in shapes),
            unequal={
                name: (weights[name].shape, tuple(shape))
                for name, shape in shapes.items()
                if name in weights and weights[name].shape != tuple(shape)
            },
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.unequal)

    def __str__(self) -> str:
        unequal = [f"{name} {found} instead of {wanted}" for name, (found, wanted) in self.unequal.items()]
        kinds = (("missing", self.missing), ("not in the network", self.surplus), ("of another shape", unequal))
        return "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in kinds if names)


def some(names: Collection[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(list(names)[:_NAMED]) + more


def check_fit(path: Path, differences: Differences, keys: Mapping[str, str], prefix: str = "") -> None:
    """Raise UserError where there are differences.

    `keys` says which option sets the shapes of which cells, `prefix` what was taken off the file's names.
    """
    if not differences:
        return
    if prefix and not (differences.missing or differences.unequal):
        raise UserError(
            f"{path}: holds the network under {prefix}, and more beside it ({differences}); have the network's weights "
            "saved alone"
        )
    to_blame = "model"
    if not (differences.missing or differences.surplus):
        to_blame = next(
            (key for cell, key in keys.items() if all(name.startswith(cell) for name in differences.unequal)), "model"
        )
    raise UserError(
        f"{path}: does not fit the network ({differences}{_taken_off(prefix)}); give the {to_blame} that the file was "
        "made with"
    )


def _taken_off(prefix: str) -> str:
    return f"; took off the prefix {prefix}" if prefix else ""


def as_float32(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """A copy in the networks' type. Raises UserError for what is no floating-point number, or too large for it."""
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: {name} holds {array.dtype}; expected floating-point weights")
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise UserError(f"{path}: {name} holds values that float32 cannot; use another checkpoint")
    return converted


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
    """

    source: Path
    target: Path
    model: str
    key: str
    arrays: dict[str, np.ndarray] = field(repr=False)
    names: dict[str, str] = field(repr=False)
    prefix: str
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    fuse: bool = False

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
        fused = ", fused for deploy=True" if self.fuse else ""
        return (
            f"{self.target}: {len(self.shapes)} parameters of {self.model} from {self.source}{taken}{fused}"
            f"{_taken_off(self.prefix)}{left_out}"
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
    options = {} if num_classes is None else {"num_classes": num_classes}
    try:
        if fuse:
            check_fused_form(model)
        network = create_model(model, in_channels=in_channels, **options)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    shapes = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}
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
    if fuse and not any(".rpr_" in name for name in selection.names):
        raise UserError(f"{source}: holds no branches to fuse; are the weights fused already? leave --deploy out")
    return Conversion(source, target, model, key, arrays, selection.names, selection.prefix, shapes, fuse)


def _check_target(source: Path, target: Path) -> None:
    """Raise UserError for a file that cannot be written to or should not."""
    if target.suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"{target}: the file to write must end in .ckpt or .safetensors")
    paths.check_output(target)
    if paths.is_file(target) and target.samefile(source):
        raise UserError(f"{target}: is what is read; give another file to write")
