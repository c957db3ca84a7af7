"""Mutants: small faults put into the source one at a time, to see whether the tests of their room find them.

    python tests/mutants.py                       # 320 mutants of all rooms, by seed 0
    python tests/mutants.py --rooms step,data --count 40 --seed 3 --json found.json
    python tests/mutants.py --named               # the faults listed in NAMED, and no others

A mutant is killed where a test fails, or does not end in time. Mutants are made in a copy of the repository, which its
tests, and the processes that they start, take their modules from; the working tree is never written to. Each room's
tests run once without a mutant: that proves that they pass, and tells their time and which lines each of them runs. A
mutant is then tried on the tests that run its line, the quick ones first; where no test of this process does, on all.
Left alone: docstrings, type hints, decorators, messages (of errors, of f-strings), code for type checkers.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from source_faults import Fault, faults_in

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "src/ghostnet"


class Room(NamedTuple):
    """Source files below src/ghostnet (patterns), the test files to judge them by, and how."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    graph: bool = False  # MindSpore compiles these lines: no trace shows who runs them
    mindspore: bool = True  # the tests need it: it is imported once for all mutants


ROOMS = {
    "config": Room(("config/*.py",), ("tests/config",), mindspore=False),
    "data": Room(("data/*.py",), ("tests/data", "tests/test_transforms.py")),
    "step": Room(("step.py",), ("tests/test_step.py",), graph=True),
    "schedule": Room(("schedule.py",), ("tests/test_schedule_optim_loss.py",)),
    "evaluate": Room(("evaluate.py",), ("tests/test_evaluate.py",)),
    "checkpoint": Room(("checkpoint.py",), ("tests/test_checkpoint.py",)),
    "run_folder": Room(("run_folder.py",), ("tests/test_run_folder.py",)),
    "export": Room(("export.py",), ("tests/test_export.py",)),
    "deployment": Room(("deployment.py",), ("tests/test_export.py", "tests/test_predict.py")),
}
MARGIN = 3, 30  # a mutant's tests may take so many times as long as without it, and so many seconds more


class Mutant(NamedTuple):
    """A fault in a file (named from src/ghostnet on), for the tests of a room to find."""

    room: str
    file: str
    fault: Fault


# Faults that a sample by hand found to live: room, file, text, and what takes its place.
NAMED: list[tuple[str, str, str, str]] = []


def mutants_of(root: Path, room: str) -> list[Mutant]:
    files = sorted({path for pattern in ROOMS[room].sources for path in (root / SOURCE).glob(pattern)})
    names = [str(file.relative_to(root / SOURCE)) for file in files]
    return [Mutant(room, name, fault) for name in names for fault in faults_in((root / SOURCE / name).read_text())]


def named_mutants(root: Path) -> list[Mutant]:
    found = []
    for room, file, before, after in NAMED:
        text = (root / SOURCE / file).read_text()
        if text.count(before) != 1:
            raise SystemExit(f"NAMED: {file} has {text.count(before)} times {before!r}; expected once")
        line = text[: text.index(before)].count("\n") + 1
        found.append(Mutant(room, file, Fault(line, "named", before, after, text.replace(before, after))))
    return found


def choose(root: Path, rooms: list[str], count: int, seed: int) -> list[Mutant]:
    """Evenly from rooms, and within a room from kinds, as far as there are enough."""
    rng = random.Random(seed)
    queues = {}
    for room in rooms:
        kinds = defaultdict(list)
        for mutant in mutants_of(root, room):
            kinds[mutant.fault.kind].append(mutant)
        for found in kinds.values():
            rng.shuffle(found)
        rounds = range(max(map(len, kinds.values())))
        queues[room] = [found[index] for index in rounds for found in kinds.values() if index < len(found)]
    rounds = range(max(map(len, queues.values())))
    spread = [queue[index] for index in rounds for queue in queues.values() if index < len(queue)]
    return sorted(spread[:count], key=lambda mutant: rooms.index(mutant.room))


class Tests:
    """What pytest runs in a child: tests in a given order, or all of them with a trace; writes what came of them."""

    def __init__(self, report: Path, order: list[str] | None, traced: set[str]) -> None:
        self.report, self.order, self.traced = report, order, traced
        self.found: dict[str, dict[str, Any]] = {}
        self.lines: set[tuple[str, int]] = set()

    def pytest_collection_modifyitems(self, items: list) -> None:
        if self.order is not None:
            places = {name: place for place, name in enumerate(self.order)}
            items[:] = sorted((item for item in items if item.nodeid in places), key=lambda item: places[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.lines.clear()
        self.found[nodeid] = {"seconds": 0.0, "failed": False}
        if self.traced:
            sys.settrace(self._call)

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = self.found[report.nodeid]
        found["seconds"] += report.duration
        found["failed"] |= report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        self.found[nodeid]["lines"] = sorted(self.lines)

    def pytest_sessionfinish(self) -> None:
        self.report.write_text(json.dumps(self.found))

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self.traced else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def run_tests(copy: Path, files: list[str], timeout: float, order: list[str] | None, traced: set[str]) -> tuple:
    """Exit status of pytest in a forked process (None: no end in time), and what came of each test."""
    report = copy / "report.json"
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        output = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = not traced
        if not traced:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={copy / 'tmp'}", *([] if traced else ["-x"])]
        import pytest

        status = 99
        try:
            status = int(pytest.main([*options, *files], plugins=[Tests(report, order, traced)]))
        finally:
            sys.stdout.flush()
            os._exit(status)
    deadline, status = time.monotonic() + timeout, None
    while status is None and time.monotonic() < deadline:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it, or what it leaves behind
    if status is None:
        os.waitpid(child, 0)
    return status, json.loads(report.read_text()) if report.exists() else {}


def try_room(copy: Path, room: str, mutants: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Each mutant, and what killed it: a test, or "timeout"; "" where it lives."""
    used = {copy / SOURCE / mutant.file for mutant in mutants}
    status, tests = run_tests(copy, list(ROOMS[room].tests), 1800, None, set(map(str, used)))
    failed = [name for name, test in tests.items() if test["failed"]]
    if status != 0:
        raise SystemExit(
            f"{room}: its tests fail without a mutant: {failed or (copy / 'output.txt').read_text()[-2000:]}"
        )
    names = sorted(tests, key=lambda name: tests[name]["seconds"])
    runners = defaultdict(list)
    for name in names:
        for line in tests[name]["lines"]:
            runners[tuple(line)].append(name)
    print(f"{room}: {len(tests)} tests, {sum(test['seconds'] for test in tests.values()):.0f} s", flush=True)
    for mutant in mutants:
        file = copy / SOURCE / mutant.file
        order = [] if ROOMS[room].graph else runners[str(file), mutant.fault.line]
        order = order or names
        timeout = MARGIN[0] * sum(tests[name]["seconds"] for name in order) + MARGIN[1]
        whole = file.read_text()
        file.write_text(mutant.fault.source)
        try:
            status, found = run_tests(copy, sorted({name.split("::")[0] for name in order}), timeout, order, set())
        finally:
            file.write_text(whole)
        killers = [name for name, test in found.items() if test["failed"]] or ["the tests do not start"]
        yield mutant, "" if status == 0 else "timeout" if status is None else killers[0]


def prepare(copy: Path) -> None:
    """The repository as it is in the working tree, in a folder of its own, from where all is imported from now on."""
    files = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT).split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    os.chdir(copy)
    sys.path[:] = [
        str(copy / "src"),
        str(copy),
        *(path for path in sys.path if not Path(path).is_relative_to(ROOT / "src")),
    ]
    os.environ["PYTHONPATH"] = f"{copy / 'src'}:{copy}"
    # Imported once, for all forked processes; our own package by each of them, with its mutant.
    for name in ("numpy", "pytest", "pydantic", "yaml", "PIL.Image"):
        importlib.import_module(name)


def import_mindspore() -> None:
    for name in ("ghostnet", "mindspore.dataset.vision", "mindcv.scheduler", "mindcv.data"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ghostnet"]:
        del sys.modules[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", default=",".join(ROOMS), help="of these, separated by commas")
    parser.add_argument("--count", type=int, default=320, help="mutants in all")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--named", action="store_true", help="those of NAMED instead")
    parser.add_argument("--json", type=Path, help="write all of them, with what killed each, to this file")
    options = parser.parse_args()
    rooms = sorted(options.rooms.split(","), key=lambda room: ROOMS[room].mindspore)
    with tempfile.TemporaryDirectory(prefix="ghostnet-mutants-") as folder:
        copy = Path(folder).resolve()
        prepare(copy)
        mutants = named_mutants(copy) if options.named else choose(copy, rooms, options.count, options.seed)
        tried: list[tuple[Mutant, str]] = []
        for room in dict.fromkeys(mutant.room for mutant in mutants):
            if ROOMS[room].mindspore and "mindspore" not in sys.modules:
                import_mindspore()
            gc.collect()
            gc.freeze()
            for mutant, killer in try_room(copy, room, [mutant for mutant in mutants if mutant.room == room]):
                tried.append((mutant, killer))
                fault = mutant.fault
                if not killer:
                    print(
                        f"lives: {mutant.file}:{fault.line} [{fault.kind}] {fault.before!r} -> {fault.after!r}",
                        flush=True,
                    )
            print(f"{room}: {_score([killer for mutant, killer in tried if mutant.room == room])}", flush=True)
    print(f"in all: {_score([killer for _, killer in tried])}")
    if options.json:
        rows = [{"room": m.room, "file": m.file, **m.fault._asdict(), "killer": killer} for m, killer in tried]
        options.json.write_text(json.dumps([{**row, "source": None} for row in rows], indent=1))


def _score(killers: list[str]) -> str:
    killed = sum(map(bool, killers))
    return f"{killed} of {len(killers)} mutants killed ({100 * killed / max(1, len(killers)):.1f} %)"


if __name__ == "__main__":
    main()
