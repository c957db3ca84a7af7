"""What a value of the configuration may be.

The types carry their ranges, so that checks, messages and `--help` come from one place. Everything here is
plain Python: checking a recipe must not import MindSpore.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.fields import FieldInfo

from .wording import short

# MindSpore passes counts to C++ as 32-bit integers.
INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class Expected:
    """Words for a type that its bounds alone do not describe; used in messages and in `--help`."""

    text: str


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


def _layer_channels(value: str) -> str:
    if not re.fullmatch(r"[^=]+=[0-9]{1,6}(x[0-9]{1,6})?", value):
        raise ValueError(f"expected LAYER=OUTxIN, or of a batch norm LAYER=N, got {short(value)}")
    return value


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
        raise ValueError(f"unknown policy {short(repr(policy))}, expected one of {', '.join(_AUTO_AUGMENT)}")
    known, numbers = _AUTO_AUGMENT[policy], {}
    for section in sections:
        name = section.rstrip("0123456789.")
        if name not in known:
            raise ValueError(f"unknown section {short(repr(section))}, expected a number after {', '.join(known)}")
        pattern, words = known[name]
        numbers[name] = section.removeprefix(name)
        if not re.fullmatch(pattern, numbers[name]):
            raise ValueError(f"section {short(repr(section))} of {policy}: expected {name} with {words}")
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
LayerChannels = Annotated[
    tuple[Annotated[Name, AfterValidator(_layer_channels)], ...],
    BeforeValidator(_to_tuple),
    Expected("entries LAYER=OUTxIN, of batch norms LAYER=N, as `mindghost prune` writes them"),
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
EvaluationLevel = Literal["O0", "O1", "O2", "O3", "bfloat16"]


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
