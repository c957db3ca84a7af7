"""Trainings of several variants and seeds, one after the other, and what each learnt and took.

A folder holds `results.json`, the runs' own folders and what they said. What is done is not done again; a training that
was stopped, or whose process was killed, goes on where it was.
"""

import os
import platform
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measured
from mindghost.config.arguments import Parser, number, output_folder
from mindghost.errors import RunError, UserError
from mindghost.files import intact, json_text, outputs, paths
from mindghost.process.display import say, shell, shown, some
from mindghost.runs import provenance
from mindghost.runs.files import RunFiles
from mindghost.runs.metrics import read_records

RESULTS = "results.json"
# How the trainer is started.
MINDGHOST = (sys.executable, "-m", "mindghost")

Record = dict[str, Any]
# What each run has in the results.
_ENTRY = {"variant", "seed", "command", "arguments", "sessions", "lost_sessions", "done", "cost"}


@dataclass(frozen=True)
class Run(ABC):
    """A training.

    Attributes:
        variant: what is compared, beside others.
        seed: of it.
        words: its command line, for a folder, asked for when it starts: an earlier run may decide.
    """

    variant: str
    seed: int
    words: Callable[["Run", Path], Sequence[str]]

    @property
    def name(self) -> str:
        """Of its entry in the results."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder_name(self) -> str:
        """Of its folder: letters, digits and few signs."""
        return re.sub(r"[^\w.]+", "-", self.name)

    @abstractmethod
    def to_go_on(self, folder: Path) -> list[str] | None:
        """What is added to its command to go on with what is in its folder; None: it has to begin afresh."""

    @abstractmethod
    def records(self, folder: Path) -> list[Record]:
        """`epoch` (from 1), `top_1` (percent), `train_loss` and `val_loss` of its epochs."""


def place(folder: Path, run: Run) -> Path:
    """The folder of a run, in that of the results."""
    return folder / "runs" / run.folder_name


class MindghostRun(Run):
    """A training of ours; `words` have all but `--seed` and `--ckpt_save_dir`."""

    def to_go_on(self, folder: Path) -> list[str] | None:
        files = RunFiles(folder)
        return ["--resume"] if paths.exists(files.state) or paths.exists(files.previous_state) else None

    def records(self, folder: Path) -> list[Record]:
        return read_records(RunFiles(folder).metrics)


def trained_with(*flags: str) -> Callable[[Run, Path], list[str]]:
    """Command line of `mindghost train` with some flags."""
    return lambda run, folder: [
        *MINDGHOST,
        "train",
        *flags,
        *("--seed", str(run.seed)),
        *("--ckpt_save_dir", str(folder)),
    ]


def merged(words: Sequence[str], more: Sequence[str]) -> list[str]:
    """Flags with their values, those of `more` in the place of the same ones in `words`."""
    given = {_flag(word) for word in more if _flag(word)}
    kept, keep = [], True
    for word in words:
        if flag := _flag(word):
            keep = flag not in given
        if keep:
            kept.append(word)
    return [*kept, *more]


def _flag(word: str) -> str:
    """The name of a flag; nothing for a value, such as a negative number."""
    return word.partition("=")[0] if re.match("--?[A-Za-z]", word) else ""


class Results:
    """The file of results, and the folders of the runs beside it.

    Args:
        folder: of both; made if it is not there.
        prog: the program that makes them, by which it knows its own.

    Raises UserError where the folder holds results of another program, or something that is none.
    """

    def __init__(self, folder: Path, prog: str) -> None:
        self.folder, self.prog = folder, prog
        self.file = folder / RESULTS
        self.entries: dict[str, dict[str, Any]] = {}
        remedy = "give another folder by --output"
        if paths.exists(self.file):
            content = json_text.read(self.file, remedy)
            if not outputs.json_of(prog)(paths.read(self.file, remedy)) or not _are_entries(content.get("runs")):
                raise UserError(f"{self.file}: was not made by {prog}, or was changed since; {remedy}")
            self.entries = content["runs"]
        elif paths.exists(folder) and paths.names_in(folder):
            raise UserError(f"--output: {folder}: holds files, and no {RESULTS} of {prog}; {remedy}")
        paths.make_folder(folder / "runs", "--output")
        self.write()

    def place(self, run: Run) -> Path:
        """The folder of a run."""
        return place(self.folder, run)

    def write(self) -> None:
        """Replace the file. Raises RunError on a full disk."""
        content = outputs.mark_json({"machine": machine(), "runs": self.entries}, self.prog)
        intact.write_atomically(self.file, json_text.dumps(content, indent=1).encode())

    def is_done(self, run: Run) -> bool:
        """Whether the results have a run. Raises UserError where they have another one of its name."""
        entry = self.entries.get(run.name, {})
        if not entry.get("done"):
            return False
        # The first word is a Python, which may have moved.
        words = list(run.words(run, self.place(run)))[1:]
        if entry["arguments"] != words:
            changed = [word for word in words if word not in entry["arguments"]] or entry["arguments"]
            raise UserError(
                f"{self.file}: {run.name} was trained with other arguments (now {shown(' '.join(changed))}); "
                "give another folder by --output"
            )
        return True

    def do(self, run: Run) -> None:
        """Train, or go on with it, and write down what it took.

        Raises:
            RunError: it ended with an error.
            Stopped: a signal came.
        """
        folder = self.place(run)
        log = folder.with_name(f"{folder.name}.log")
        entry = self.entries.get(run.name, {})
        more = run.to_go_on(folder) if entry else None
        if more is None and paths.exists(folder):
            # Of a run that has saved nothing yet: the folder is under ours, and so is all that is in it.
            shutil.rmtree(folder)
            entry = {}
        command = list(run.words(run, folder))
        before = measured.Cost(**entry.get("cost", {}))
        entry = {
            "variant": run.variant,
            "seed": run.seed,
            "command": " ".join(map(shell, command)),
            "arguments": command[1:],
            "sessions": entry.get("sessions", 0) + 1,
            # Where this program was killed, the time of that session is not known.
            "lost_sessions": entry.get("lost_sessions", 0) + entry.get("running", False),
        }
        self._keep(run, entry | {"done": False, "running": True, "cost": asdict(before)})
        status, cost, stopped = measured.run([*command, *(more or [])], log)
        learnt = {} if status else _learnt(run, run.records(folder))
        self._keep(run, entry | {"done": not status, "cost": asdict(before + cost)} | learnt)
        if stopped:
            raise stopped
        if status:
            last = paths.read(log, "see there").decode(errors="replace").strip().split("\n")[-1]
            raise RunError(f"{run.name}: ended with status {status} ({log}): {shown(last)}")

    def _keep(self, run: Run, entry: dict[str, Any]) -> None:
        self.entries[run.name] = entry
        self.write()


def _are_entries(runs: Any) -> bool:
    """Whether a value is what `Results` keeps of its runs."""
    return isinstance(runs, dict) and all(isinstance(entry, dict) and set(entry) >= _ENTRY for entry in runs.values())


def _learnt(run: Run, records: list[Record]) -> dict[str, Any]:
    scores = [record["top_1"] for record in records if record.get("top_1") is not None]
    if not scores:
        raise RunError(f"{run.name}: no epoch was evaluated; leave out the flags that say so")
    return {"last": scores[-1], "best": max(scores), "epochs": records}


def do_all(results: Results, runs: Sequence[Run]) -> None:
    """Do what is not done yet, in this order; says what begins and what came out.

    Raises UserError where two runs would have one folder.
    """
    if len({run.folder_name for run in runs}) < len(runs):
        raise UserError(f"{some(variants_of(runs), 8)}: names of variants have to differ by letters or digits")
    for index, run in enumerate(runs, 1):
        if not results.is_done(run):
            say(f"{index} of {len(runs)}: {run.name}")
            sys.stdout.flush()
            results.do(run)
        entry = results.entries[run.name]
        minutes = entry["cost"]["wall_seconds"] / 60
        say(f"{run.name}: {entry['last']:.2f} % top-1 (best {entry['best']:.2f} %), {minutes:.1f} minutes")
        sys.stdout.flush()


def machine() -> dict[str, Any]:
    """What the times are of."""
    return {"cpu": provenance.cpu(), "cores": len(os.sched_getaffinity(0)), "platform": platform.platform()}


# --- Command line


def add_options(parser: Parser, seeds: str) -> None:
    """The options that all of these programs have."""
    parser.add_argument("--output", type=output_folder, required=True, metavar="DIR", help="folder for all of this")
    seed = number(int, 0, 2**32 - 1)
    help_of_seeds = f"of each variant ({seeds})"
    parser.add_argument(
        "--seeds", type=seed, nargs="+", default=list(map(int, seeds.split())), metavar="N", help=help_of_seeds
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="variants that have one of these in them")
    parser.add_argument(
        "--print_commands", action="store_true", help="print what would be run, as it can be typed, and run nothing"
    )


def chosen(runs: Sequence[Run], only: Sequence[str]) -> list[Run]:
    """The runs of the variants that `--only` names. Raises UserError where it names none."""
    found = [run for run in runs if not only or any(part in run.variant for part in only)]
    if not found:
        raise UserError(f"--only: {some(only)}: in no variant; there are {some({run.variant: 0 for run in runs}, 8)}")
    return found


def variants_of(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.variant for run in runs))


def print_commands(folder: Path, runs: Sequence[Run]) -> None:
    """Print the command line of each run, for a shell."""
    for run in runs:
        say(f"# {run.name}")
        say(" ".join(map(shell, run.words(run, place(folder, run)))))
