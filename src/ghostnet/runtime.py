"""Device, mode, seed and logging: the only file that asks where it runs."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import random
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms

from .config import Config
from .errors import UserError

log = logging.getLogger("ghostnet")

_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MS_WORKER_NUM")


@dataclass(frozen=True)
class Runtime:
    """Where a command runs.

    Attributes:
        config: the configuration with what the device cannot do replaced.
        device: "CPU", "Ascend" or "GPU".
        notes: one line for each thing that was replaced.
    """

    config: Config
    device: str
    notes: list[str] = field(default_factory=list)


def init(config: Config) -> Runtime:
    """Set up the device, graph or PyNative mode and the seed.

    Raises:
        UserError: a device that this machine does not have, or data-parallel training without a launcher.
    """
    device = _device(config.device_target)
    if config.distribute:
        _refuse_distribution()
    ms.set_context(mode=ms.GRAPH_MODE if config.mode == 0 else ms.PYNATIVE_MODE)
    if ms.get_context("device_target") != device:
        # Refused once anything has run, so not done without need.
        ms.set_device(device)
    if device == "Ascend" and config.mode == 0:
        # The whole graph on the device (GraphEngine), as MindCV runs its recipes; only Ascend has it.
        ms.set_context(jit_config={"jit_level": "O2"})
    ms.set_seed(config.seed)
    random.seed(config.seed)
    return _replace_what_is_missing(config, device)


def _device(target: str | None) -> str:
    """The device to use: the one that was named, else the fastest that the machine has."""
    if target is None:
        return next(name for name in ("Ascend", "GPU", "CPU") if _is_available(name))
    if not _is_available(target):
        raise UserError(
            f"device_target: MindSpore finds no {target} device on this machine; "
            "leave the key out to use what the machine has, or give CPU"
        )
    return target


def _is_available(device: str) -> bool:
    try:
        return bool(ms.hal.is_available(device))
    except (RuntimeError, ValueError):
        return False


def _refuse_distribution() -> None:
    if any(name in os.environ for name in _LAUNCHERS):
        raise UserError(
            "distribute: data-parallel training is not supported yet; give --distribute False on one process"
        )
    raise UserError(
        "distribute: True needs a launcher, such as `mpirun -n 8 python train.py ...`; "
        "give --distribute False to train on one device"
    )


def _replace_what_is_missing(config: Config, device: str) -> Runtime:
    """On CPU, sink mode and MindSpore's dynamic loss scaling do not exist: say what takes their place."""
    if device != "CPU":
        return Runtime(config, device)
    replaced = []
    if config.dataset_sink_mode:
        config = config.replace(dataset_sink_mode=False)
        replaced.append("no sink mode")
    if config.loss_scale_type != "fixed" or config.drop_overflow_update:
        replaced.append("our own finite check in place of MindSpore's dynamic loss scaling")
    notes = [f"on the CPU: {', '.join(replaced)}"] if replaced else []
    return Runtime(config, device, notes)


class StopSignals:
    """Notes SIGTERM and Ctrl-C, for a run that wants to stop between two steps.

    Attributes:
        received: number of the first signal; None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def listen(self) -> None:
        """Take the signals over, until one comes: a second one ends the process at once, as it would without us.

        MindSpore's pipeline takes SIGINT for itself more than once, so call this with every step.
        """
        if self.received is not None:
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.received = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)


class _ScreenHandler(logging.Handler):
    """Log lines on standard output, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stdout)
        # A log file or a pipe gets each line when it is said, not when a buffer is full.
        sys.stdout.flush()


class _FileHandler(logging.FileHandler):
    """The log of a run on disk. A full disk stops the run where it saves, with one line, not where it talks."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class RunLog:
    """The log of a run: on the screen at once, in a file from the moment that the file may exist."""

    def __init__(self) -> None:
        self._screen = _ScreenHandler()
        # Lines from before the run folder is known to be good wait in memory.
        self._buffer = logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(self._screen)
        log.addHandler(self._buffer)

    def to_file(self, path: Path) -> None:
        """Write what was said so far, and all that follows, to `path`, with the time of each line."""
        file = _FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._buffer.setTarget(file)
        self._buffer.flush()
        log.removeHandler(self._buffer)
        log.addHandler(file)

    def end(self, reason: str) -> None:
        """Write why the run ends to the file alone: the screen hears it from the command."""
        log.removeHandler(self._screen)
        log.info(reason)

    def close(self) -> None:
        """Stop logging."""
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()
        log.propagate = True
