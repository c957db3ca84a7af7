"""Where the values of a configuration come from: recipe and command line, what weights say, defaults."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..process import launch
from ..process.display import say
from . import beside_weights, command_line, problems, proportion, yaml_file
from .arguments import Parser
from .config import Config
from .keys import grouped
from .problems import ConfigError


class Said(NamedTuple):
    """What the file of `ckpt_path`, and what lies beside it, say of a configuration.

    Attributes:
        values: of keys; what is given otherwise goes before them, but for those that are fixed.
        where: key -> what stands before its name in messages.
        fixed: values that nothing else may contradict.
        source: the file that fixes them.
    """

    values: Mapping[str, Any] = {}
    where: Mapping[str, str] = {}
    fixed: Mapping[str, Any] = {}
    source: Path = Path()


def load(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    weights: Callable[[str, bool], Said] | None = None,
) -> Config:
    """The configuration of a command line: defaults, then the recipe that `-c` names, then `--key value`.

    Args:
        argv: arguments without the program's name; None takes those of the process.
        prog: name of the program, for `--help`.
        description: what the program does, for `--help`.
        weights: called with `ckpt_path` (empty where it is not given) and whether there is a recipe that leaves
            nothing to settle; gives what the file says, of the keys that neither recipe nor command line have, and what
            they must not contradict.

    Raises:
        UserError: bad input; one line that starts with `FILE:LINE: ` or with the flag.
        SystemExit: with status 0 after `--help` or `--print_config` printed.
    """
    arguments = command_line.parse(argv, prog, description, grouped(), Config.model_fields)
    recipe, where = ({}, {}) if arguments.config is None else yaml_file.recipe(arguments.config)
    values = {**recipe, **arguments.values}
    where |= dict.fromkeys(arguments.values, "--")
    worked_out, note = proportion.scaled(Config.defaults(), recipe, arguments.values)
    launched, word = _launched(values, "distribute" in arguments.values)
    values |= worked_out | launched
    # What a recipe with `auto` leaves out was settled when the weights were trained.
    complete = arguments.config is not None and values.get("auto") is not True
    said = Said() if weights is None else weights(str(values.get("ckpt_path") or ""), complete)
    config = settled(values, where, said)
    given = (set(values) | set(said.values)) - set(worked_out)
    config = config.of_recipe(str(arguments.config or ""), given, [line for line in (note, word) if line])
    if arguments.print_config:
        for line in config.notes:
            say(f"# {line}")
        print(config.to_yaml(), end="")
        raise SystemExit(0)
    return config


def _launched(values: Mapping[str, Any], is_flag: bool) -> tuple[dict[str, Any], str]:
    """`distribute` where a launcher started several ranks, and a line about it; a flag has the last word.

    A recipe for one process says False, and whoever starts several of them with it means to share the work.
    """
    found = launch.detect()
    if found.ranks == 1 or is_flag or values.get("distribute") is True:
        return {}, ""
    return {"distribute": True}, f"{found.launcher} started {found.ranks} ranks: distribute is True"


def arguments_of(prog: str, description: str) -> Parser:
    """The command line that `load` reads."""
    return command_line.make_parser(prog, description, grouped(), Config.model_fields)


def settled(values: Mapping[str, Any], where: Mapping[str, str], said: Said) -> Config:
    """Defaults, then what weights say, then `values`, which are not to contradict what the weights fix.

    Args:
        values: of keys; None for one that is fixed leaves it to the weights.
        where: key -> what stands before its name in messages.
        said: by the weights.

    Raises UserError, which names the key, where a value is bad or contradicts the weights.
    """
    given = {key: value for key, value in values.items() if value is not None or key not in said.fixed}
    places = {**said.where, **{key: where[key] for key in given if key in where}}
    config = Config.located({**beside_weights.fitting(said.values, given), **given}, places)
    for key, wanted in said.fixed.items():
        if key in given and not _same(getattr(config, key), wanted):
            raise ConfigError(problems.contradiction(key, said.source, wanted, getattr(config, key)), where=places)
    theirs = {key: place for key, place in said.where.items() if key not in given}
    for keys, message in beside_weights.oversized(config) if theirs else ():
        if keys[0] in theirs:
            raise ConfigError(problems.Problem(keys, f"{message}; if it is right, give --{keys[0]}"), where=theirs)
    return config


def _same(value: Any, wanted: Any) -> bool:
    """Whether two values of a key mean the same: numbers up to their last digits, one for all channels or each."""
    if isinstance(value, tuple) and isinstance(wanted, tuple):
        longer = max(len(value), len(wanted))
        pairs = zip(value * (longer // len(value)), wanted * (longer // len(wanted)), strict=True)
        return all(_same(one, other) for one, other in pairs)
    if isinstance(value, float) and isinstance(wanted, float):
        return math.isclose(value, wanted, rel_tol=1e-6)
    return value == wanted
