"""Faults in bulk: what is given to a function, and what comes of it in a process of its own.

A case ends in one of three ways:

- ok: the function came to its end, and so did its own checks of the result;
- clean error: a UserError or RunError of one line, which names what the case says it has to name;
- failure: any other exception, a check that found a wrong result, death by a signal, more than TIMEOUT seconds.

    python -m tests.system.fault --help

runs groups of cases outside of pytest, with other seeds, and as MindSpore and MindCV answer to the same inputs.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import select
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindghost.errors import RunError, UserError

TIMEOUT = 20  # seconds for one case
OUTCOMES = ("ok", "clean error", "failure")


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: of the case, in its group.
        ours: does it all: makes the input, calls what is tested, checks the result.
        names: what the line of a clean error has to contain, such as the file's path.
        stock: the same by MindSpore's or MindCV's own function; None where there is none. Its errors need not be clean.
    """

    name: str
    ours: Callable[[], object]
    names: str = ""
    stock: Callable[[], object] | None = None


@dataclass(frozen=True)
class Group:
    """Cases of one kind.

    Attributes:
        name: in the table.
        least: how many cases there have to be.
        cases: makes them, from a generator of random numbers and an empty folder.
    """

    name: str
    least: int
    cases: Callable[[random.Random, Path], Iterator[Case]]


@dataclass
class Result:
    """What came of cases of one group: how many of each outcome, and of each failure its case and reason."""

    counts: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, case: str, outcome: str, reason: str) -> None:
        self.counts[outcome] += 1
        if outcome == "failure":
            self.failures.append(f"{case}: {reason}")


GROUPS: dict[str, Group] = {}


def group(name: str, least: int) -> Callable[[Callable], Callable]:
    """Enters a generator of cases as a group."""

    def enter(cases: Callable[[random.Random, Path], Iterator[Case]]) -> Callable:
        GROUPS[name] = Group(name, least, cases)
        return cases

    return enter


def run_group(chosen: Group, seed: int, share: int = 0, shares: int = 1, stock: bool = False) -> Result:
    """Runs every `shares`-th case of a group, from the one with number `share` on."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="ghostnet-fault-") as folder:
        for number, case in enumerate(chosen.cases(random.Random(seed), Path(folder))):
            call = case.stock if stock else case.ours
            if number % shares == share and call is not None:
                result.add(case.name, *attempt(call, case.names, stock))
    return result


def attempt(call: Callable[[], object], names: str = "", stock: bool = False, seconds: float = TIMEOUT) -> tuple:
    """Outcome and reason of a call in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(call, names, stock, writer)
    os.close(writer)
    try:
        if not select.select([reader], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "failure", f"no end after {seconds} seconds"
        said = os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    # After it has said what came of it, it only has to end.
    status = _wait(child, seconds)
    if status is None:
        return "failure", f"does not end, {seconds} seconds after it was done"
    if os.WIFSIGNALED(status):
        return "failure", f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    if not said:
        return "failure", f"ended with status {os.WEXITSTATUS(status)} without a word"
    return tuple(json.loads(said))


def _wait(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _in_child(call: Callable[[], object], names: str, stock: bool, writer: int) -> None:
    """Judges the call, says so, and ends without any of the parent's business."""
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    try:
        outcome = _judge(call, names, stock)
    except BaseException as error:  # nothing may get back into the parent's code
        outcome = ("failure", repr(error))
    os.write(writer, json.dumps([outcome[0], outcome[1][:500]]).encode())
    os._exit(0)


def _judge(call: Callable[[], object], names: str, stock: bool) -> tuple[str, str]:
    try:
        call()
    except AssertionError as error:
        return "failure", f"a wrong result: {' '.join(str(error).split())}"
    except (UserError, RunError) as error:
        text = str(error)
        if "\n" in text:
            return "failure", f"several lines: {text!r}"
        return ("clean error", text) if names in text else ("failure", f"{names!r} is not in {text!r}")
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return ("clean error" if stock else "failure"), reason
    return "ok", ""


def as_json(results: dict[str, Result]) -> dict[str, Any]:
    """Counts and failures of groups."""
    return {
        name: {"cases": result.counts.total(), **{kind: result.counts[kind] for kind in OUTCOMES}}
        | {"failures": result.failures}
        for name, result in results.items()
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line for each group with the number of cases and of each outcome, and one for all together."""
    width = max(len(name) for name in (*rows, "in all"))
    head = f"{'group':{width}}  {'cases':>6}  " + "  ".join(f"{kind:>11}" for kind in OUTCOMES)
    lines = [head]
    total: Counter = Counter()
    for name, row in rows.items():
        numbers = {kind: row[kind] for kind in ("cases", *OUTCOMES)}
        total.update(numbers)
        lines.append(_line(name, numbers, width))
    return "\n".join([*lines, _line("in all", total, width)])


def _line(name: str, numbers: dict[str, int], width: int) -> str:
    return f"{name:{width}}  {numbers['cases']:6}  " + "  ".join(f"{numbers[kind]:11}" for kind in OUTCOMES)
