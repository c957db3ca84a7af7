"""What a file of results says: tables and pictures beside it."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import measured
from mindghost import tasks
from mindghost.errors import UserError
from mindghost.files import figures, intact, outputs
from mindghost.process.display import say
from mindghost.runs import curves
from runner import Results, machine

TABLE = "table.md"
# CPU seconds of others, as a share of the time of a run on all cores, from which on its time says little.
_DISTURBED = 0.05


def of_variant(results: Results, variant: str) -> list[dict[str, Any]]:
    """The entries of a variant's runs that are done."""
    return [entry for entry in results.entries.values() if entry["variant"] == variant and entry["done"]]


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample (n - 1); 0 of a single number."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of some numbers; of one, the number."""
    return f"{mean(values):.2f} ± {deviation(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def table(results: Results, variants: Sequence[str]) -> str:
    """A Markdown table, a row a variant: accuracies over the seeds, times and memory."""
    lines = [
        "| | seeds | top-1, last epoch (%) | top-1, best epoch (%) | minutes | CPU minutes | memory (GB) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant in variants:
        if not (entries := of_variant(results, variant)):
            continue
        costs = [measured.Cost(**entry["cost"]) for entry in entries]
        cells = [
            variant,
            " ".join(str(entry["seed"]) for entry in entries),
            spread([entry["last"] for entry in entries]),
            spread([entry["best"] for entry in entries]),
            f"{mean([cost.wall_seconds for cost in costs]) / 60:.2f}{_marks(entries)}",
            f"{mean([cost.cpu_seconds for cost in costs]) / 60:.2f}",
            f"{max(cost.peak_memory_mb for cost in costs) / 1e3:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rows = "\n".join(lines)
    notes = ["Mean ± standard deviation over the seeds; memory: the most of any."]
    notes += [f"{mark}: {meaning}." for mark, meaning in _MARKS.items() if mark in rows]
    facts = machine()
    return "\n".join([rows, "", *notes, f"{facts['cores']} cores of {facts['cpu']}."])


_MARKS = {
    "*": f"other programs used more than {_DISTURBED:.0%} of the machine meanwhile",
    "†": "without the time of a session whose measurement was killed",
}


def _marks(entries: Sequence[Mapping[str, Any]]) -> str:
    """What is to be said of the times of some runs."""
    costs = [measured.Cost(**entry["cost"]) for entry in entries]
    limit = _DISTURBED * (os.cpu_count() or 1)
    disturbed = any(cost.other_cpu_seconds > limit * cost.wall_seconds for cost in costs)
    return ("*" if disturbed else "") + ("†" if any(entry["lost_sessions"] for entry in entries) else "")


def say_lines(text: str) -> None:
    """Print a text of several lines, with names in it."""
    for line in text.split("\n"):
        say(line)


def write_table(results: Results, text: str) -> None:
    """Print a table and keep it beside the results."""
    say_lines(text)
    intact.write_atomically(results.folder / TABLE, f"{text}\n".encode())


def write_picture(results: Results, name: str, picture: bytes) -> None:
    """Keep a PNG picture beside the results. Raises UserError where another one has its name."""
    file = results.folder / name
    outputs.Output(file, "--output", outputs.png_of(results.prog)).write(outputs.mark_png(picture, results.prog))
    say(f"wrote {file}")


def write_curves(results: Results, variants: Sequence[str], name: str = "curves.png") -> None:
    """Keep a picture of loss, accuracy and rate over the epochs of each variant's first run."""
    first = [(variant, entries[0]) for variant in variants if (entries := of_variant(results, variant))]
    if first:
        labels = [(f"{variant}, seed {entry['seed']}", entry["epochs"]) for variant, entry in first]
        write_picture(results, name, curves.png(labels, tasks.score_titles()))


def picture(draw: Callable[[], Any]) -> bytes:
    """The PNG file of a figure. Raises UserError where matplotlib is missing."""
    try:
        return figures.png(draw)
    except ImportError as error:
        raise UserError(f"matplotlib draws the picture ({error}); pip install matplotlib") from error
