"""How long an Ethos-U takes for a file, by the estimate of Arm's compiler for it, Vela (PyPI: ethos-u-vela)."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...files import scratch
from ..programs import finished, last_line

_SECONDS = 600  # that it may take


@dataclass(frozen=True)
class Estimate:
    """What Vela expects; nothing was run.

    Attributes:
        accelerator, system, memory: configuration, in Vela's words.
        version: of Vela.
        clock: of the accelerator, in Hz.
        cycles: for an image, those of operators on the processor left out.
        milliseconds: the same at that clock.
        macs: multiply-accumulates for an image.
        sram: bytes.
        on_accelerator, on_processor: operators.
    """

    accelerator: str
    system: str
    memory: str
    version: str
    clock: float
    cycles: int
    milliseconds: float
    macs: int
    sram: int
    on_accelerator: int
    on_processor: int


def version() -> str:
    """The version that is installed. Raises UserError where there is none."""
    if importlib.util.find_spec("ethosu") is None:
        raise UserError("--target mcu: ethos-u-vela is missing; pip install ethos-u-vela")
    return importlib.metadata.version("ethos-u-vela")


def estimate(path: Path, graph: bytes, accelerator: str) -> Estimate:
    """What Vela expects of a file on an accelerator of `target.ACCELERATORS`.

    Raises UserError, which names `path`, with Vela's last line, where it does not take the file.
    """
    installed = version()
    with scratch.folder("vela") as folder:
        (folder / "model.tflite").write_bytes(graph)
        options = ["--accelerator-config", accelerator, "--output-dir", "made"]
        command = [sys.executable, "-m", "ethosu.vela", "model.tflite", *options]
        done = finished(f"{path}: ethos-u-vela", command, folder, _SECONDS)
        tables = sorted((folder / "made").glob("*_summary_*.csv"))
        if done.returncode != 0 or not tables:
            raise UserError(f"{path}: ethos-u-vela failed: {last_line(done)}")
        with tables[0].open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file))
    operators = {where: int(count) for where, count in re.findall(r"(CPU|NPU) operators = (\d+)", done.stdout)}
    return Estimate(
        row["accelerator_configuration"],
        row["system_config"],
        row["memory_mode"],
        installed,
        float(row["core_clock"]),
        int(row["cycles_total"]),
        1e3 * float(row["inference_time"]),
        int(row["nn_macs"]),
        round(1024 * float(row["sram_memory_used"])),
        operators.get("NPU", 0),
        operators.get("CPU", 0),
    )
