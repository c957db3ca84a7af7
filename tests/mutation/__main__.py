"""Mutants: small faults put into the source one at a time, to see whether the tests of their room find them.

    python -m tests.mutation                       # 36 mutants of each room, by seed 0
    python -m tests.mutation --rooms step,data --each 80 --seed 3 --json found.json
    python -m tests.mutation --named               # the faults listed in NAMED, and no others

A mutant is killed where a test fails, or does not end in time. Mutants are made in a copy of the repository, which its
tests, and the processes that they start, take their modules from; the working tree is never written to. Each room's
tests run once without a mutant: that proves that they pass, and tells their time and which lines each of them runs. A
mutant is then tried on the tests that run its line, the quick ones first; where no test of this process does, on all.
Left alone: docstrings, type hints, decorators, messages (of errors, of f-strings), code for type checkers.
"""

from __future__ import annotations

import argparse
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
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutation.faults import Fault, faults_in
from tests.mutation.forked import run_tests

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "src/mindghost"


class Room(NamedTuple):
    """Source files below src/mindghost (patterns), the test files to judge them by, and how."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    untraced: bool = False  # MindSpore compiles these lines, or other processes run them: no trace shows who does
    mindspore: bool = True  # the tests need it: it is imported once for all mutants


ROOMS = {
    "config": Room(("config/*.py",), ("tests/config",), mindspore=False),
    "data": Room(("data/*.py", "data/*/*.py"), ("tests/data",)),
    "step": Room(("train/step.py",), ("tests/train/test_step.py",), untraced=True),
    "schedule": Room(("train/schedule.py",), ("tests/train/test_schedule_optim_loss.py",)),
    "evaluate": Room(
        ("evaluate/evaluator.py", "tasks/classification/metrics.py"), ("tests/evaluate/test_evaluator.py",)
    ),
    "checkpoint": Room(("checkpoint/load.py",), ("tests/checkpoint/test_load.py",)),
    "runs": Room(
        ("runs/folder.py", "runs/files.py", "runs/state.py"),
        (
            "tests/runs/test_folder.py",
            "tests/runs/test_folders_in_use.py",
            "tests/runs/test_saved_states.py",
            "tests/runs/test_files.py",
            "tests/runs/test_events.py",
            "tests/config/test_weights_say.py",
        ),
    ),
    "export": Room(("deploy/export.py",), ("tests/deploy/test_export.py",)),
    "artifact": Room(
        ("inference/artifact.py", "inference/deployment.py"),
        (
            "tests/inference/test_artifact.py",
            "tests/inference/test_descriptions.py",
            "tests/inference/test_exported.py",
        ),
    ),
}
# Of these only the faults in NAMED are tried.
OTHERS = {
    "trainer": Room(("train/trainer.py",), ("tests/system/test_defaults.py",), untraced=True),
    "predict": Room(("inference/predictor.py",), ("tests/inference/test_predictor.py", "tests/data/test_pictures.py")),
}
ROOM = ROOMS | OTHERS
MARGIN = 3, 30  # a mutant's tests may take so many times as long as without it, and so many seconds more


class Mutant(NamedTuple):
    """A fault in a file (named from src/mindghost on), for the tests of a room to find."""

    room: str
    file: str
    fault: Fault


def _last_row(below: str) -> tuple[str, str]:
    """The place of a box, drawn without the last row that it can stand at; what stands below tells which box it is."""
    left = f"left = int(rng.integers(width - box_width + 1))\n                {below}"
    rows = "rng.integers(height - box_height{}))\n                {}"
    return rows.format(" + 1", left), rows.format("", left)


# Faults that a sample by hand found to live: room, file, text, and what takes its place.
NAMED = [
    ("data", "data/loader.py", "SAMPLE, epoch, int(index), int(copy)", "SAMPLE, epoch, int(index)"),
    ("data", "data/operations.py", "if neutral else -strength", "if neutral else 0.0"),
    ("data", "data/operations.py", "padded.shape[0] - height + 1", "padded.shape[0] - height"),
    ("data", "data/operations.py", "padded.shape[1] - width + 1", "padded.shape[1] - width"),
    ("data", "data/operations.py", *_last_row("return top")),
    ("data", "data/operations.py", *_last_row("fill =")),
    ("data", "data/transforms.py", "* 0.45)", "* 0.4)"),
    ("data", "data/transforms.py", '"translate_const"', '"translate"'),
    ("predict", "inference/predictor.py", "path, upright=True", "path"),
    ("trainer", "train/trainer.py", "*runtime.notes, *news, *doubts", "*runtime.notes, *news"),
    (
        "trainer",
        "train/trainer.py",
        "WeightsEvaluator(runtime, ",
        "WeightsEvaluator(runtime.with_config(config.replace(num_classes=None)), ",
    ),
]


def mutants_of(root: Path, room: str) -> list[Mutant]:
    files = sorted({path for pattern in ROOM[room].sources for path in (root / SOURCE).glob(pattern)})
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


def choose(root: Path, rooms: list[str], each: int, seed: int) -> list[Mutant]:
    """So many of each room, of the kinds of fault in turn; the same whichever other rooms there are."""
    chosen = []
    for room in rooms:
        rng = random.Random(f"{room} {seed}")
        kinds = defaultdict(list)
        for mutant in mutants_of(root, room):
            kinds[mutant.fault.kind].append(mutant)
        for found in kinds.values():
            rng.shuffle(found)
        turns = range(max(map(len, kinds.values())))
        chosen += [found[turn] for turn in turns for found in kinds.values() if turn < len(found)][:each]
    return chosen


def try_room(copy: Path, room: str, mutants: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Each mutant, and what killed it: a test, or "timeout"; "" where it lives."""
    used = {copy / SOURCE / mutant.file for mutant in mutants}
    status, tests = run_tests(copy, list(ROOM[room].tests), 1800, None, set(map(str, used)))
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
        order = [] if ROOM[room].untraced else runners[str(file), mutant.fault.line]
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


def copy_repository(copy: Path) -> None:
    """The repository as it is in the working tree, links as links, into another folder."""
    files = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT).split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)


def prepare(copy: Path) -> None:
    """Have all be imported from a copy of the repository, which is made, from now on."""
    copy_repository(copy)
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
    for name in ("mindghost", "mindspore.dataset.vision", "mindcv.scheduler", "mindcv.data"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mindghost"]:
        del sys.modules[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", default=",".join(ROOMS), help="of these, separated by commas")
    parser.add_argument("--each", type=int, default=36, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--named", action="store_true", help="those of NAMED instead")
    parser.add_argument("--json", type=Path, help="append a JSON line for each, with what killed it, to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    rooms = sorted(options.rooms.split(","), key=lambda room: ROOM[room].mindspore)
    with tempfile.TemporaryDirectory(prefix="ghostnet-mutants-") as folder:
        copy = Path(folder).resolve()
        prepare(copy)
        mutants = named_mutants(copy) if options.named else choose(copy, rooms, options.each, options.seed)
        tried: list[tuple[Mutant, str]] = []
        for room in dict.fromkeys(mutant.room for mutant in mutants):
            if ROOM[room].mindspore and "mindspore" not in sys.modules:
                import_mindspore()
            gc.collect()
            gc.freeze()
            for mutant, killer in try_room(copy, room, [mutant for mutant in mutants if mutant.room == room]):
                tried.append((mutant, killer))
                fault = mutant.fault
                if not killer:
                    change = f"{fault.before[:150]} -> {fault.after[:150]}"
                    print(f"lives: {mutant.file}:{fault.line} [{fault.kind}] {change}", flush=True)
                if options.json:
                    row = {**mutant._asdict(), **fault._replace(source="")._asdict(), "killer": killer}
                    with options.json.open("a") as lines:
                        lines.write(json.dumps({**row, "fault": fault.kind}) + "\n")
            print(f"{room}: {_score([killer for mutant, killer in tried if mutant.room == room])}", flush=True)
    print(f"in all: {_score([killer for _, killer in tried])}")


def _score(killers: list[str]) -> str:
    killed = sum(map(bool, killers))
    return f"{killed} of {len(killers)} mutants killed ({100 * killed / max(1, len(killers)):.1f} %)"


if __name__ == "__main__":
    main()
