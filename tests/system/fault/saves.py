"""Saves that are cut off by SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindghost.checkpoint import weights as weights_file
from mindghost.files import intact
from tests.system.fault.harness import Case, group

# About as much as GhostNet 1.0x, in as many parts.
PARTS, SIZE = 50, 100_000
LONGEST = 0.15  # seconds from the first byte to the kill


def arrays(version: int) -> dict[str, np.ndarray]:
    return {f"w{part}": np.full(SIZE, version * PARTS + part, np.float32) for part in range(PARTS)}


def version_in(found: dict[str, np.ndarray]) -> int:
    """Which save these are; all of it."""
    version = int(found["w0"][0]) // PARTS
    wanted = arrays(version)
    assert list(found) == list(wanted), "parameters are missing"
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted), "parts of two saves"
    return version


def kill_a_save(save: Callable[[dict[str, np.ndarray]], None], seconds: float) -> int:
    """Starts saving versions 2, 3, ... and kills the process after so long. Returns the last one that was completed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for version in range(2, 200):
            prepared = arrays(version)
            os.write(writer, bytes([version]))
            save(prepared)
        os._exit(0)
    os.close(writer)
    started = os.read(reader, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 1):
        started = more
    os.close(reader)
    return started[0] - 1


@group("SIGKILL during a save", 200)
def kills(rng: random.Random, folder: Path) -> Iterator[Case]:
    for number in range(200):
        path, seconds = folder / f"{number}.ckpt", rng.uniform(0, LONGEST)

        def ours(path: Path = path, seconds: float = seconds) -> None:
            weights_file.write(path, arrays(1))
            done = kill_a_save(lambda new: weights_file.write(path, new), seconds)
            assert version_in(weights_file.read(path)) in (done, done + 1)
            # The next save is as good as any, and what the killed one has left is cleared away.
            weights_file.write(path, arrays(0))
            assert version_in(weights_file.read(path)) == 0
            intact.delete_leftovers(path.parent, lambda name: name.startswith(path.name))
            assert not list(path.parent.glob(".*.tmp"))
            intact.delete(path)

        def stock(path: Path = path, seconds: float = seconds) -> None:
            stock_save(path, arrays(1))
            done = kill_a_save(lambda new: stock_save(path, new), seconds)
            assert path.exists(), "the file is gone"
            found = {name: parameter.asnumpy() for name, parameter in ms.load_checkpoint(str(path)).items()}
            path.unlink()
            assert version_in(found) in (done, done + 1)

        yield Case(f"after {1000 * seconds:.0f} ms", ours, stock=stock)


def stock_save(path: Path, new: dict[str, np.ndarray]) -> None:
    ms.save_checkpoint([{"name": name, "data": Tensor(array)} for name, array in new.items()], str(path))
