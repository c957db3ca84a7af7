"""What a value of the configuration may be, and which values go together.

The types carry their ranges, so that checks, messages and `--help` come from one place. Everything here is
plain Python: checking a recipe must not import MindSpore.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.fields import FieldInfo

from ..errors import UserError

if TYPE_CHECKING:
    from . import Config

# MindSpore passes counts to C++ as 32-bit integers.
INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class Expected:
    """Words for a type that its bounds alone do not describe; used in messages and in `--help`."""

    text: str


class Problem(NamedTuple):
    """One thing that is wrong: the keys involved, the one to name first, and one line about it."""

    keys: tuple[str, ...]
    message: str


class ConfigError(UserError):
    """One line about the first problem, and how many more there are."""

    def __init__(self, problem: Problem, more: int = 0, where: Mapping[str, str] | None = None) -> None:
        """`where` maps a key to what stands before its name: `"FILE:LINE: "` or `"--"`."""
        where = where or {}
        key = next((key for key in problem.keys if key in where), problem.keys[0])
        name = _short(key if key.isprintable() else repr(key))
        super().__init__(f"{where.get(key, '')}{name}: {problem.message}{f' (and {more} more)' if more else ''}")
        self.problem, self.more = problem, more


# --- Types --------------------------------------------------------------------------------------------------


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _dataset(value: Any) -> Any:
    """The name of a data set in lower case; in MindCV's guide, an empty one stands for image folders."""
    return _lower(value) or "imagenet" if isinstance(value, str) else value


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError
    return value


def _one_if_equal(value: int | tuple[int, int]) -> int | tuple[int, int]:
    return value[0] if isinstance(value, tuple) and value[0] == value[1] else value


def _integral(value: int | float) -> int | float:
    return int(value) if value == int(value) else value


def _jitter(value: float | tuple[float, ...]) -> float | tuple[float, ...]:
    # MindSpore shifts the hue, the fourth number, by at most half a turn.
    if isinstance(value, tuple) and (len(value) not in (3, 4) or any(hue > 0.5 for hue in value[3:])):
        raise ValueError
    return value


def _per_channel(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) not in (1, 3):
        raise ValueError
    return value


def _file_name(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Text as pydantic takes it, and names that are no UTF-8: Python carries each such byte as a lone surrogate."""
    if isinstance(value, str) and re.fullmatch("[^\0\ud800-\udc7f\udd00-\udfff]+", value):
        return value
    return handler(value)


def _cast_list(value: Any) -> Any:
    """MindCV's `"[nn.Conv2d, nn.Dense]"` (evaluated there) or a list of names as a tuple of plain names."""
    if isinstance(value, str):
        inside = re.fullmatch(r"\s*(?:\[(.*)\]|\((.*)\)|([^\[\]()]*))\s*", value)
        if inside is None:
            raise ValueError
        value = [name.strip() for name in next(part for part in inside.groups() if part is not None).split(",")]
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError
    names = [re.fullmatch(r"(?:nn\.)?([A-Za-z_][A-Za-z0-9_]*)", item) for item in value if isinstance(item, str)]
    if len(names) != len(value) or None in names:
        raise ValueError
    return tuple(match[1] for match in names if match)


_WHOLE = (r"[0-9]{1,9}", "an integer")
_FEW = (r"0*[0-9]{1,2}", "an integer <= 99")
_FEW_ABOVE_0 = (r"0*[1-9][0-9]?", "an integer from 1 to 99")
_ABOVE_0 = (r"0*[1-9][0-9]{0,8}", "an integer >= 1")
_REAL = (r"[0-9]+(?:\.[0-9]*)?", "a number")
_REAL_ABOVE_0 = (r"(?=.*[1-9])[0-9]+(?:\.[0-9]*)?", "a number > 0")
_TO_10 = (r"0*(?:[0-9]|10)", "an integer <= 10, mindcv's operators fail above it")
# What mindcv 0.3.0 parses and can run: policy -> section -> its number, as a pattern and in words. It ignores
# a section without a number, and a number out of these ranges fails there, often in the middle of training.
_AUTO_AUGMENT = {
    "randaug": {"m": _WHOLE, "n": _FEW, "w": ("0+", "0"), "mstd": _REAL, "mmax": _TO_10, "inc": _WHOLE},
    "autoaug": {"mstd": _REAL},
    "autoaugr": {"mstd": _REAL},
    "3a": {"mstd": _REAL},
    "augmix": {"m": _WHOLE, "w": _FEW_ABOVE_0, "d": _FEW, "a": _REAL_ABOVE_0},
    "trivialaugwide": {"m": _ABOVE_0},
}
_WEIGHTED_OPERATIONS = 13  # of randaug's 14: w0 gives Invert no weight, and draws without replacement


def _auto_augment(value: str) -> str:
    policy, *sections = value.split("-")
    if policy not in _AUTO_AUGMENT:
        raise ValueError(f"unknown policy {_short(repr(policy))}, expected one of {', '.join(_AUTO_AUGMENT)}")
    known, numbers = _AUTO_AUGMENT[policy], {}
    for section in sections:
        name = section.rstrip("0123456789.")
        if name not in known:
            raise ValueError(f"unknown section {_short(repr(section))}, expected a number after {', '.join(known)}")
        pattern, words = known[name]
        numbers[name] = section.removeprefix(name)
        if not re.fullmatch(pattern, numbers[name]):
            raise ValueError(f"section {_short(repr(section))} of {policy}: expected {name} with {words}")
    if policy == "randaug" and "w" in numbers and int(numbers.get("n", 2)) > _WEIGHTED_OPERATIONS:
        raise ValueError(f"section n of randaug: expected at most {_WEIGHTED_OPERATIONS} together with w0")
    return value


Count = Annotated[int, Field(ge=1, le=INT_MAX)]
Natural = Annotated[int, Field(ge=0, le=INT_MAX)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1)]
ShareAbove0 = Annotated[float, Field(gt=0, le=1)]
# With the largest, a decoder has more channels than GhostNet itself; more may be asked for by anybody's config.yaml.
DECODER_WIDTHS = (0.1, 8)
DecoderWidth = Annotated[float, Field(ge=DECODER_WIDTHS[0], le=DECODER_WIDTHS[1])]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$"), WrapValidator(_file_name)]
Name = Annotated[Text, Field(min_length=1), Expected("text that is not empty")]
Pretrained = Annotated[bool | Name, Expected("True, False or the name of a variant")]

_AsTuple, _Lower = BeforeValidator(_to_tuple), BeforeValidator(_lower)
AreaRange = Annotated[
    tuple[ShareAbove0, ShareAbove0],
    _AsTuple,
    AfterValidator(_ordered),
    Expected("two numbers > 0 and <= 1, the lower first"),
]
ImageSize = Annotated[
    Count | tuple[Count, Count],
    _AsTuple,
    AfterValidator(_one_if_equal),
    Expected("an integer >= 1, or two: height and width"),
]
RatioRange = Annotated[
    tuple[Positive, Positive],
    _AsTuple,
    AfterValidator(_ordered),
    Expected("two numbers > 0, the lower first"),
]
Mean = Annotated[tuple[float, ...], _AsTuple, AfterValidator(_per_channel), Expected("one number or three")]
Std = Annotated[tuple[Positive, ...], _AsTuple, AfterValidator(_per_channel), Expected("one number > 0 or three")]
Milestones = Annotated[tuple[Count, ...], _AsTuple, Expected("a list of integers >= 1")]
ColorJitter = Annotated[
    NotNegative | tuple[NotNegative, ...],
    _AsTuple,
    AfterValidator(_jitter),
    Expected("one number >= 0, three, or four with the last <= 0.5"),
]
EraseValue = Annotated[
    int | float | Literal["random"] | tuple[float, float, float],
    _AsTuple,
    Expected("a number, three numbers or random"),
]
DecayEpochs = Annotated[
    Annotated[int, Field(gt=0, le=INT_MAX)] | Annotated[float, Field(gt=0, le=INT_MAX)],
    AfterValidator(_integral),
    Expected("a number > 0"),
]
AutoAugment = Annotated[
    Text, AfterValidator(_auto_augment), Expected("a policy with sections such as randaug-m9-mstd0.5")
]
ClassWeights = Annotated[
    tuple[NotNegative, ...] | Name, _AsTuple, Expected("numbers >= 0, one a class, the path of a file, or balanced")
]
CastList = Annotated[tuple[str, ...], BeforeValidator(_cast_list), Expected("names of cells such as [Conv2d, Dense]")]
Dataset = Annotated[Literal["imagenet", "cifar10", "cifar100", "mnist"], BeforeValidator(_dataset)]
Interpolation = Annotated[Literal["bilinear", "nearest", "bicubic", "area"], _Lower]
Optimizer = Annotated[
    Literal["sgd", "momentum", "adam", "adamw", "lion", "rmsprop", "rmsproptf", "adagrad", "lamb", "nadam"], _Lower
]
Scheduler = Literal[
    "constant",
    "cosine_decay",
    "exponential_decay",
    "step_decay",
    "multi_step_decay",
    "poly",
    "one_cycle",
    "cyclic",
]
LossScaleType = Annotated[Literal["fixed", "dynamic", "auto"], _Lower]
AmpLevel = Literal["O0", "O1", "O2", "O3"]


# --- Words for types and for errors -------------------------------------------------------------------------


def expected(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a type takes, in words: `"an integer >= 1 or None"`."""
    notes: list[Any] = []
    for item in metadata:
        notes.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    for note in notes:
        if isinstance(note, Expected):
            return note.text
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected(arguments[0], [*notes, *arguments[1:]])
    if origin in (Union, UnionType):
        options = ["None" if option is NoneType else expected(option) for option in arguments]
        return (", or " if "," in options[0] else " or ").join(options)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    noun = {bool: "True or False", int: "an integer", float: "a number", str: "text"}[annotation]
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    bounds = [(sign, getattr(note, name)) for note in notes for name, sign in signs if hasattr(note, name)]
    return noun + " and".join(f" {sign} {bound}" for sign, bound in bounds if bound != INT_MAX)


def translate(error: ValidationError, values: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> ConfigError:
    """Pydantic's findings as one line: the first in the order of `values`, and how many more keys."""
    findings = reversed(error.errors(include_url=False))
    # A key that is no UTF-8 has no place of its own.
    found = {(*finding["loc"], finding["input"])[0]: finding for finding in findings}
    key = next(key for key in values if key in found)
    return ConfigError(Problem((key,), _message(key, found[key], values[key], fields)), len(found) - 1)


def _message(key: str, finding: Mapping[str, Any], value: Any, fields: Mapping[str, FieldInfo]) -> str:
    if key not in fields:
        return f"unknown key; the nearest valid key is {nearest_key(key, fields)} (--help lists them all)"
    context = finding.get("ctx", {})
    wanted = f"expected {expected(fields[key].annotation, fields[key].metadata)}"
    if context.get("le") == INT_MAX:
        wanted = f"expected at most {INT_MAX}"
    if finding["type"] == "value_error" and str(context["error"]):
        wanted = str(context["error"])
    unquoted = finding["type"] == "string_type" and isinstance(value, (bool, int, float))
    shown = _short(repr(list(value) if isinstance(value, tuple) else value))
    return f"{wanted}, got {shown}{'; put it in quotes' if unquoted else ''}"


def contradiction(key: str, source: object, wanted: Any, got: Any) -> Problem:
    """A value other than the one that a file has, which settles it."""
    wanted, got = (list(value) if isinstance(value, tuple) else value for value in (wanted, got))
    return Problem((key,), f"{source} has {_short(str(wanted))}, got {_short(str(got))}; leave the key out")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that looks most like `name`."""
    return difflib.get_close_matches(name.lower().strip("-")[:100], list(names), n=1, cutoff=0.0)[0]


# What other tools and MindCV's guide to fine-tuning call what a key here does.
_KNOWN_AS = {
    "linear_probe": "freeze_backbone",
    "freeze_feature_network": "freeze_backbone",
    "freeze": "freeze_stages",
    "freeze_layer": "freeze_stages",
    "freeze_layers": "freeze_stages",
    "frozen_stages": "freeze_stages",
    "unfreeze": "unfreeze_epoch",
    "unfreeze_epochs": "unfreeze_epoch",
    "early_stop": "patience",
    "early_stopping": "patience",
    "classifier_lr": "head_lr_factor",
    "classifier_lr_factor": "head_lr_factor",
    "head_lr": "head_lr_factor",
    "backbone_lr": "backbone_lr_factor",
    "layerwise_lr_decay": "layer_decay",
    "encoder": "backbone",
    "encoder_name": "backbone",
    "encoder_weights": "backbone_ckpt_path",
    "backbone_ckpt": "backbone_ckpt_path",
    "backbone_checkpoint": "backbone_ckpt_path",
    "backbone_pretrained": "backbone_ckpt_path",
    "backbone_weights": "backbone_ckpt_path",
    "weights_backbone": "backbone_ckpt_path",
    "decoder_channels": "decoder_width",
}


def nearest_key(name: str, keys: Iterable[str]) -> str:
    """The key that does what others call `name`, else the one that looks most like it."""
    return _KNOWN_AS.get(name.lower().strip("-").replace("-", "_")) or nearest(name, keys)


# Keys that give parts of a network rates of their own -> the value that gives none.
RATE_FACTORS = {"layer_decay": None, "head_lr_factor": 1, "backbone_lr_factor": 1}


# --- Combinations -------------------------------------------------------------------------------------------


def conflicts(config: Config) -> Iterator[Problem]:
    """Values that are fine alone but cannot work together, or that no network of this project can honour."""
    yield from _schedule_conflicts(config)
    yield from _data_conflicts(config)
    yield from _model_conflicts(config)
    yield from _precision_conflicts(config)


def _schedule_conflicts(config: Config) -> Iterator[Problem]:
    if config.warmup_epochs >= config.epoch_size:
        yield Problem(
            ("warmup_epochs", "epoch_size"),
            f"the warm-up (warmup_epochs: {config.warmup_epochs}) must be shorter than the run (epoch_size: "
            f"{config.epoch_size}); lower warmup_epochs",
        )
    if config.scheduler in ("one_cycle", "cyclic"):
        if config.warmup_epochs > 0:
            yield Problem(
                ("warmup_epochs", "scheduler"),
                f"scheduler {config.scheduler} has a warm-up of its own; set warmup_epochs to 0",
            )
        if config.lr_epoch_stair:
            yield Problem(
                ("lr_epoch_stair", "scheduler"),
                f"scheduler {config.scheduler} changes the rate every step; set lr_epoch_stair to False",
            )
    if config.scheduler == "one_cycle" and config.min_lr == 0:
        yield Problem(("min_lr", "scheduler"), "scheduler one_cycle divides by min_lr; set it above 0")
    if config.scheduler != "step_decay" and not isinstance(config.decay_epochs, int):
        yield Problem(
            ("decay_epochs", "scheduler"),
            f"expected an integer for scheduler {config.scheduler}, got {config.decay_epochs}; only "
            "step_decay takes a fraction",
        )
    if config.use_nesterov and config.opt in ("sgd", "momentum") and config.momentum == 0:
        yield Problem(("use_nesterov", "momentum"), "Nesterov momentum needs a momentum above 0")


def _data_conflicts(config: Config) -> Iterator[Problem]:
    for key in ("train_list", "val_list", "val_fraction"):
        if config.dataset != "imagenet" and getattr(config, key):
            yield Problem(
                (key, "dataset"),
                f"{config.dataset} is read from its binary files, which have splits of their own; leave {key} out, or "
                "set dataset to imagenet",
            )
    if config.aug_repeats > 0 and config.num_samples is not None:
        yield Problem(
            ("num_samples", "aug_repeats"),
            "num_samples and aug_repeats cannot be combined; set num_samples to None or aug_repeats to 0",
        )
    if config.sampler == "balanced" and not config.shuffle:
        yield Problem(
            ("sampler", "shuffle"), "a balanced draw has a random order; set shuffle to True or sampler to None"
        )
    if config.sampler == "balanced" and config.task == "multi_label":
        yield Problem(
            ("sampler", "task"),
            "images with several labels cannot be drawn so that all labels are equally frequent; set sampler to None, "
            "and class_weights to balanced if rare labels are to count more",
        )
    if config.aug_splits != 0:
        yield Problem(
            ("aug_splits",),
            f"expected 0, got {config.aug_splits}; training on augmentation splits (JSD loss) is not part "
            "of the GhostNet recipes",
        )
    if len(config.mean) != len(config.std):
        yield Problem(
            ("std", "mean"),
            f"mean has {len(config.mean)} and std {len(config.std)} numbers; give both as many",
        )


def _model_conflicts(config: Config) -> Iterator[Problem]:
    if config.resume_opt and not config.ckpt_path:
        yield Problem(("resume_opt",), "there is no optimizer state to resume; name the checkpoint with ckpt_path")
    if config.ckpt_save_policy == "top_k" and not config.val_while_train:
        yield Problem(
            ("ckpt_save_policy", "val_while_train"),
            "top_k ranks checkpoints by accuracy; set val_while_train to True or the policy to latest_k",
        )
    if config.teacher_ckpt_path and not config.teacher:
        yield Problem(("teacher_ckpt_path", "teacher"), "there is no teacher to give weights to; name it with teacher")
    if config.teacher_ckpt_path and config.teacher.lower().endswith(".mindir"):
        yield Problem(("teacher_ckpt_path", "teacher"), "a MindIR file holds its weights; drop teacher_ckpt_path")
    if config.teacher and config.task == "multi_label":
        yield Problem(
            ("teacher", "task"),
            "what is learnt from a teacher are its softmax probabilities, which task multi_label has none of; drop it",
        )
    if config.teacher.lower().endswith(".mindir") and not config.drop_remainder:
        yield Problem(
            ("drop_remainder", "teacher"), "a MindIR teacher takes batches of one size; set drop_remainder to True"
        )
    if config.patience is not None and not config.val_while_train:
        yield Problem(
            ("patience", "val_while_train"), "scores are those of evaluations; set val_while_train to True, or drop it"
        )
    several = [key for key, same in RATE_FACTORS.items() if getattr(config, key) != same]
    if several and config.opt == "nadam":
        yield Problem(
            (several[0], "opt"), "mindcv's nadam has one rate for all weights; take another opt, such as adam"
        )


def _precision_conflicts(config: Config) -> Iterator[Problem]:
    if config.aux_factor > 0:
        yield Problem(
            ("aux_factor",),
            f"expected 0, got {config.aux_factor:g}; no network here has auxiliary logits",
        )
    if config.loss_scale_type == "dynamic" and not config.drop_overflow_update:
        yield Problem(
            ("drop_overflow_update", "loss_scale_type"),
            "dynamic loss scaling always drops updates that overflow; set drop_overflow_update to True",
        )
    if config.native_ops == "on" and config.amp_level != "O0":
        yield Problem(
            ("native_ops", "amp_level"),
            f"our operators are for float32, not for amp_level: {config.amp_level}; set amp_level to O0 or native_ops "
            "to auto",
        )
