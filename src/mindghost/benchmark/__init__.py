"""How fast this project is beside others, measured in turns: speed of steps and of input, memory, time to start.

Every measurement is a process of its own, and the contenders take turns (A B C A B C ...), so that what else the
machine does hits all of them. `contenders` holds what is measured; this module knows who they are and runs the rounds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import RunError, UserError
from ..files import json_text, scratch
from .contenders.job import Job

OURS = "ours"
COPY = "memory copy"
ONNX_RUNTIME = "ONNX Runtime"
PYTORCH = "PyTorch"
# Of the network that --torch_module names.
OWN_PYTORCH = "PyTorch module"
# The variable that decides between mindcv as it is and with oneDNN kept from its slow code.
_ISA = "ONEDNN_MAX_CPU_ISA"
# What importing mindghost sets; contenders start without.
_SET_BY_US = (_ISA, "GLOG_v")
_QUIET = {"GLOG_v": "3"}
TASKS = ("training", "inference", "latency", "pipeline", "startup")
# The tasks of workers that each word of --what stands for.
_PARTS = {"pipeline": ("pipeline", "evaluation pipeline")}
# What a contender may lack; its process ends with this as its last line then.
_NOT_INSTALLED = re.compile(r"ModuleNotFoundError: No module named '(mindcv|torch|timm)'")
# Seconds after which a process counts as hanging: stock mindcv takes 16 seconds for a step of 32 images.
_TIMEOUT = 1800


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Attributes:
        name: in the table.
        module: of `contenders`.
        tasks: what it can do.
        variant: form of it.
        environment: variables beyond those of the benchmark's own process.
        torch: whether it runs in PyTorch's interpreter.
        own: whether its network is that of `Plan.torch_module`.
    """

    name: str
    module: str
    tasks: tuple[str, ...]
    variant: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    torch: bool = False
    own: bool = False


_STEPS = ("training", "inference", "latency", "startup")
_ANSWERS = ("inference", "latency")
# How PyTorch runs: what stands behind its name, and the variant.
_FORMS = {
    "": "eager",
    ", channels-last": "channels_last",
    ", compiled": "compile",
    ", bfloat16": "bfloat16",
    ", bfloat16, compiled": "bfloat16 compile",
}
CONTENDERS = (
    Contender(OURS, "ours", (*_STEPS, "pipeline", "evaluation pipeline")),
    Contender("ours, native_ops off", "ours", ("training", "inference"), "off"),
    Contender("ours, bfloat16", "ours", ("training", "inference", "latency"), "bfloat16"),
    Contender("ours, from a pack", "ours", ("pipeline", "evaluation pipeline"), "pack"),
    Contender("ours, uncompressed pack", "ours", ("pipeline", "evaluation pipeline"), "uncompressed"),
    Contender("mindcv", "stock_mindcv", (*_STEPS, "pipeline", "evaluation pipeline"), environment=_QUIET),
    Contender("mindcv, AVX2", "stock_mindcv", _STEPS, environment={**_QUIET, _ISA: "AVX2"}),
    *(
        Contender(network + form, "torch_ghostnet", _STEPS, variant, torch=True, own=network == OWN_PYTORCH)
        for network in (PYTORCH, OWN_PYTORCH)
        for form, variant in _FORMS.items()
    ),
    Contender(ONNX_RUNTIME, "exported", _ANSWERS, "onnx"),
    Contender("ONNX Runtime, int8", "exported", _ANSWERS, "onnx int8"),
    Contender("OpenVINO", "exported", _ANSWERS, "openvino"),
    Contender("OpenVINO, int8", "exported", _ANSWERS, "openvino int8"),
    Contender("LiteRT", "exported", _ANSWERS, "litert"),
    Contender("LiteRT, int8", "exported", _ANSWERS, "litert int8"),
    Contender("ncnn", "exported", _ANSWERS, "ncnn"),
    Contender("ncnn, int8", "exported", _ANSWERS, "ncnn int8"),
)
_COPY = Contender(COPY, "memory_copy", ("training",))


@dataclass(frozen=True)
class Plan:
    """What a benchmark measures, see the command's options of the same names."""

    model: str = "ghostnet_100"
    batch_size: int = 32
    image_size: int = 224
    num_classes: int = 1000
    rounds: int = 3
    steps: int = 10
    seconds: float = 30.0
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    what: tuple[str, ...] = TASKS
    contenders: tuple[str, ...] = tuple(contender.name for contender in CONTENDERS)
    photos: int = 256
    torch_python: str = sys.executable
    torch_module: str = ""

    def asked(self) -> list[Contender]:
        """Who is measured; nobody's own network where none is named."""
        return [one for one in CONTENDERS if one.name in self.contenders and (self.torch_module or not one.own)]

    def tasks(self) -> list[str]:
        """The tasks of workers; the start is what training shows, so it needs a run of its own only without."""
        chosen = [task for task in self.what if task != "startup" or "training" not in self.what]
        return [part for task in chosen for part in _PARTS.get(task, (task,))]


@dataclass(frozen=True)
class Measured:
    """What one contender showed in one task.

    Attributes:
        task, contender: which.
        results: a dict of each round, see `contenders.job.time_steps`.
        note: why there are none: what is not installed or not there, or how the process ended.
        failed: whether it was to run, and did not.
    """

    task: str
    contender: str
    results: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    failed: bool = False


def run(plan: Plan, say: Callable[[str], None]) -> tuple[dict[str, Any], list[Measured]]:
    """Measure all that a plan asks for.

    Args:
        plan: what.
        say: is told what is measured next; it takes minutes.

    Returns what is known of the network ("macs", "parameters", "bytes" and "fused_bytes" of a training step), and what
    was measured, by task and then contender. Raises UserError for a `torch_module` that cannot be measured, RunError
    where the network cannot be prepared.
    """
    with scratch.folder("benchmark") as folder, _on_cores(plan.threads):
        if plan.torch_module:
            check_module(plan, str(folder))
        facts = prepare(plan, str(folder), say)
        if "pipeline" in plan.what:
            write_photos(folder, plan.photos)
        measured = [result for task in plan.tasks() for result in _rounds(plan, task, str(folder), say)]
    return facts, measured


def prepare(plan: Plan, folder: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Have the shared files written to a folder; see `contenders.prepare`."""
    say(f"{plan.model}: weights, table and costs")
    files = [one.variant for one in plan.asked() if one.module == "exported" and set(one.tasks) & set(plan.what)]
    worker = Contender("preparation", "prepare", (), ";".join(files))
    result, note = _measure(plan, worker, "training", folder)
    if note:
        raise RunError(f"{plan.model}: the network cannot be prepared: {note}")
    return result


def check_module(plan: Plan, folder: str) -> None:
    """Raise UserError where `plan.torch_module` gives no network that can be measured."""
    worker = Contender("check", "torch_module", (), torch=True, own=True)
    result, note = _measure(plan, worker, "check", folder)
    if "missing" in result:
        note = f"{plan.torch_python} has no PyTorch; name an interpreter that has it by --torch_python"
    if note or "refused" in result:
        raise UserError(f"--torch_module: {note or result['refused']}")


def _rounds(plan: Plan, task: str, folder: str, say: Callable[[str], None]) -> list[Measured]:
    """One task of all contenders that do it, in turns; who is missing or fails is not asked again."""
    asked = [one for one in plan.asked() if task in one.tasks]
    if task == "training":
        asked.append(_COPY)
    measured = {one.name: Measured(task, one.name) for one in asked}
    for number in range(1, plan.rounds + 1):
        for one in asked:
            if measured[one.name].note:
                continue
            say(f"{task}, round {number} of {plan.rounds}: {one.name}")
            result, note = _measure(plan, one, task, folder)
            if "missing" in result:
                measured[one.name] = Measured(task, one.name, note=result["missing"])
            elif note:
                measured[one.name] = Measured(task, one.name, measured[one.name].results, note, failed=True)
            else:
                measured[one.name].results.append(result)
    return list(measured.values())


def _measure(plan: Plan, one: Contender, task: str, folder: str) -> tuple[dict[str, Any], str]:
    """Run a contender once; its answer, and what is wrong where there is none.

    The answer of one that cannot be measured here has "missing", the reason.
    """
    from ..models import SEGMENTATION, card  # it imports MindSpore, which takes seconds

    answer, order = Path(folder, "answer.json"), Path(folder, "job.json")
    answer.unlink(missing_ok=True)
    job = Job(
        task="training" if task == "startup" else "inference" if task == "latency" else task,
        variant=one.variant,
        folder=folder,
        model=plan.model,
        image_size=plan.image_size,
        batch_size=1 if task == "latency" else plan.batch_size,
        num_classes=plan.num_classes,
        dense=card(plan.model).task == SEGMENTATION,
        threads=plan.threads,
        steps=0 if task == "startup" else plan.steps,
        seconds=plan.seconds,
        started=time.time(),
        answer=str(answer),
        torch_module=plan.torch_module if one.own else "",
    )
    order.write_text(json_text.dumps(asdict(job)), encoding="utf-8")
    python = plan.torch_python if one.torch else sys.executable
    command = [python, "-m", f"contenders.{one.module}", str(order)]
    try:
        done = subprocess.run(
            command, env=environment(plan, one), capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer in {_TIMEOUT} seconds"
    except OSError as error:
        return {}, f"{python}: {error.strerror}"
    if answer.exists():
        return json.loads(answer.read_text(encoding="utf-8")), ""
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
    if library := _NOT_INSTALLED.match(lines[-1]):
        return {"missing": f"not installed: {library[1]}"}, ""
    return {}, f"exit status {done.returncode}: {lines[-1].strip()[:200]}"


def environment(plan: Plan, one: Contender) -> dict[str, str]:
    """The environment of a contender's process: that of the benchmark, without what importing mindghost put there."""
    kept = {name: value for name, value in os.environ.items() if name not in _SET_BY_US}
    here = Path(__file__).parent
    # The first is where `contenders` is; mindghost itself is for those of them that import it.
    paths = [str(here)] if one.torch else [str(here), str(here.parent.parent)]
    if "PYTHONPATH" in kept and not one.torch:
        paths.append(kept["PYTHONPATH"])
    return {**kept, "OMP_NUM_THREADS": str(plan.threads), **one.environment, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Inside of `with`, processes that are started have so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def write_photos(folder: Path, count: int) -> None:
    """A training split of made-up photos of ImageNet's usual size, two classes: JPEG, 500 x 375 pixels."""
    from PIL import Image

    from ..deploy.probe_images import picture

    for name in ("one", "two"):
        (folder / "train" / name).mkdir(parents=True)
    # A picture takes longer to make than to read: a few, turned.
    originals = [Image.fromarray(picture(seed, 375, 500)) for seed in range(min(8, count))]
    for index in range(count):
        turned = originals[index % len(originals)].rotate(180 * (index // len(originals) % 2))
        turned.save(folder / "train" / ("one", "two")[index % 2] / f"{index:05}.jpg", quality=90)


def family(plan: Plan, names: Sequence[str], say: Callable[[str], None]) -> dict[str, list[dict[str, Any]]]:
    """Name -> results of each round, one image at a time in ONNX Runtime, the networks taking turns."""
    plans = {name: replace(plan, model=name, contenders=(ONNX_RUNTIME,), what=("latency",)) for name in names}
    contender = next(one for one in CONTENDERS if one.name == ONNX_RUNTIME)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with scratch.folder("benchmark") as parent, _on_cores(plan.threads):
        for name, named in plans.items():
            (parent / name).mkdir()
            prepare(named, str(parent / name), say)
        for number in range(1, plan.rounds + 1):
            for name, named in plans.items():
                say(f"family, round {number} of {plan.rounds}: {name}")
                result, note = _measure(named, contender, "latency", str(parent / name))
                if note or "missing" in result:
                    raise RunError(f"{name}: it cannot be measured: {note or result['missing']}")
                found[name].append(result)
    return found
