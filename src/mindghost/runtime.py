"""Where a command runs: device, ranks, threads, and what is made for them. No other module asks for the device."""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import mindspore as ms

from . import limits_onednn
from .config import PLACE_KEYS, Config
from .errors import UserError
from .files import scratch
from .graph_cache import GraphCache
from .ops import library
from .parallel import replicas
from .parallel.cores import threads_for
from .parallel.ranks import Ranks, check_launch
from .parallel.ranks import start as start_ranks
from .process import launch, resources

log = logging.getLogger("mindghost")

_HERE = Path(__file__).parent

# That MindSpore starts, beside those of its pipeline.
_THREADS, _THREADS_OF_A_CORE = 8, 3


@dataclass(frozen=True)
class Runtime:
    """Where a command runs, and the one configuration that it runs by.

    Attributes:
        config: the configuration with what the device cannot do replaced, and settled by `with_classes` from the
            moment that the data is known.
        device: "CPU", "Ascend" or "GPU".
        ranks: the processes that share the run.
        threads: that operators may use at once.
        notes: one line for each thing that was replaced.
    """

    config: Config
    device: str
    ranks: Ranks
    threads: int
    notes: list[str]

    @classmethod
    def start(cls, config: Config) -> Runtime:
        """Set up the device, the ranks, graph or PyNative mode and the seed.

        Raises:
            UserError: a device that this machine does not have, `distribute` at odds with how the process was
                started, ranks with other keys, or this program in a folder that MindSpore cannot name.
            RunError: the ranks did not find each other.
        """
        check_launch(config.distribute)
        if not scratch.is_utf_8(_HERE):
            raise UserError(
                f"{_HERE}: MindSpore compiles no program in a folder whose name is no UTF-8; move it to another one"
            )
        resources.try_threads(_THREADS + _THREADS_OF_A_CORE * len(os.sched_getaffinity(0)))
        device = _device(config.device_target)
        _check_devices(device)
        ms.set_context(mode=ms.GRAPH_MODE if config.mode == 0 else ms.PYNATIVE_MODE)
        if ms.get_context("device_target") != device:
            # Refused once anything has run, so not done without need.
            ms.set_device(device)
        ranks = start_ranks(device)
        replicas.check_told(ranks, _told(config, device), "start them with one command line and one recipe")
        threads, notes = _threads(ranks)
        if device == "Ascend" and config.mode == 0:
            # The whole graph on the device (GraphEngine), as MindCV runs its recipes; only Ascend has it.
            ms.set_context(jit_config={"jit_level": "O2"})
        ms.set_seed(config.seed)
        random.seed(config.seed)
        config, replaced = _replace_what_is_missing(config, device)
        notes += replaced
        if variable := launch.left_over():
            notes.append(f"{variable} is set, but no launcher started this process: it runs on its own")
        if limits_onednn and device == "CPU":
            notes.append("ONEDNN_MAX_CPU_ISA=AVX2: with AVX-512, oneDNN runs these convolutions 100 times slower")
        return cls(config, device, ranks, threads, notes)

    @cached_property
    def operators(self) -> Path | None:
        """The library of our C++ operators (`ops.library.native_operators`), loaded at first use; None without them.

        Raises UserError where `native_ops` is on and they cannot be had.
        """
        return library.native_operators(self.config, self.device, self.threads)

    @cached_property
    def graphs(self) -> GraphCache:
        """Compiles cells, with the help of what earlier processes have compiled."""
        return GraphCache(self.config, self.device, self.ranks)

    def with_config(self, config: Config) -> Runtime:
        """The same by another configuration."""
        return replace(self, config=config)

    def with_classes(self, classes: Sequence[str]) -> Runtime:
        """The same with `num_classes` settled: that of the data where the key is absent.

        Says so where the network has more outputs than the data has classes.
        """
        config = self.config
        if config.num_classes is None:
            return self.with_config(config.replace(num_classes=len(classes)))
        if len(classes) < config.num_classes:
            place = config.train_list or config.val_list or config.data_dir
            log.info(
                f"{place}: {len(classes)} classes, fewer than num_classes: {config.num_classes}; "
                "labels follow their sorted names"
            )
        return self


@contextmanager
def in_mode(mode: int) -> Iterator[None]:
    """Graph mode or PyNative mode, for the time of the `with` block."""
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def _told(config: Config, device: str) -> dict[str, str]:
    """What ranks must have alike: the keys, and which of them were given; of files and folders that there are some."""
    keys = config.model_dump()
    del keys["num_parallel_workers"]  # hosts may have other numbers of cores
    told = {"device": device}
    for key, value in keys.items():
        said = ("a value" if value else "none") if key in PLACE_KEYS else str(value)
        told[key] = f"{said}{', given' if key in config.given else ''}"
    return told


def _threads(ranks: Ranks) -> tuple[int, list[str]]:
    """How many threads operators may use, which MindSpore is told, and what there is to say about it.

    As `threads_for` has it of the cores for this rank.
    """
    cores = ranks.cores or min(ms.get_context("runtime_num_threads"), len(os.sched_getaffinity(0)))
    threads, notes = threads_for(cores)
    ms.set_context(runtime_num_threads=threads)
    return threads, notes


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


def _check_devices(device: str) -> None:
    """Raise UserError where the launcher started more ranks on this machine than it has accelerators."""
    found = launch.detect()
    if device == "CPU" or found.local_ranks is None:
        return
    devices = ms.hal.device_count(device)
    if found.local_ranks > devices:
        raise UserError(
            f"{found.launcher}: it started {found.local_ranks} ranks on {socket.gethostname()}, which has {devices} "
            f"{device} device(s); start as many ranks on a host as it has devices"
        )


def _is_available(device: str) -> bool:
    try:
        return bool(ms.hal.is_available(device))
    except (RuntimeError, ValueError):
        return False


def _replace_what_is_missing(config: Config, device: str) -> tuple[Config, list[str]]:
    """Sink mode and MindSpore's dynamic loss scaling do not exist everywhere: say what takes their place."""
    replaced = []
    # A teacher runs as a graph of its own; a sunk epoch is one graph.
    if config.dataset_sink_mode and (device == "CPU" or config.teacher):
        config = config.replace(dataset_sink_mode=False)
        replaced.append("no sink mode")
    if device == "CPU" and (config.loss_scale_type != "fixed" or config.drop_overflow_update):
        replaced.append("our own finite check in place of MindSpore's dynamic loss scaling")
    reason = "on the CPU" if device == "CPU" else "with a teacher"
    return config, [f"{reason}: {', '.join(replaced)}"] if replaced else []
