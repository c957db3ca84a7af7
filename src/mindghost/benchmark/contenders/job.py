"""One job of a contender: what to measure, and how the answer goes back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What a process is to measure.

    Attributes:
        task: "training", "inference", "pipeline" or "evaluation pipeline"; "copy" for memory alone, "check" for the
            user's own file.
        variant: which form of the contender, e.g. how PyTorch runs.
        folder: what `prepare` wrote, and where the images are.
        model, image_size, batch_size, num_classes: of the network and what goes in; images are square.
        dense: whether every pixel of an image has a label, and not the image.
        threads: cores that the process may use.
        steps: steps to measure, after the first (which compiles) and one more; 0 stops after the first.
        seconds: no further step begins after that time, once three were measured.
        started: time.time() of when the process was started.
        answer: file for the result.
        torch_module: FILE:FUNCTION, the user's own network in PyTorch; empty for ours.
    """

    task: str
    variant: str
    folder: str
    model: str
    image_size: int
    batch_size: int
    num_classes: int
    dense: bool
    threads: int
    steps: int
    seconds: float
    started: float
    answer: str
    torch_module: str


def answer(measure: Callable[[Job], dict[str, Any]]) -> None:
    """Do the job that the command line names, and write the result.

    `measure` gives "missing", the reason, where the contender has no such network.
    """
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    result = measure(job) | {"peak_memory": peak_memory()}
    Path(job.answer).write_text(json.dumps(result), encoding="utf-8")


def time_steps(job: Job, step: Callable[[], object]) -> dict[str, Any]:
    """Call `step`, which must wait for its result: the first and one more unmeasured, then `job.steps` times.

    Returns seconds: "startup" from the start of the process to the end of the first step, "times" of the others.
    """
    step()
    startup = time.time() - job.started
    times: list[float] = []
    if job.steps:
        step()
    begun = time.perf_counter()
    while len(times) < job.steps and (len(times) < 3 or time.perf_counter() - begun < job.seconds):
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return {"startup": startup, "times": times, "images": job.batch_size}


def peak_memory() -> int | None:
    """The most bytes of memory that this process had (resident set); None where the kernel is not Linux."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    # Not getrusage: its peak begins with that of the process which started this one.
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
