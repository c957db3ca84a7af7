"""A lock that another process holds."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Takes the lock, forks a worker that outlives it if it is killed, and waits.
HOLD = """
import os, sys, time
from pathlib import Path
from mindghost.files.lock import FolderLock

lock = FolderLock(Path(sys.argv[1]), "ckpt_save_dir")
lock.take()
worker = os.fork()
if worker:
    print(worker, flush=True)
time.sleep(60)
"""


@contextmanager
def lock_holder(folder: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the lock of `folder`; its worker is killed after it."""
    program = [sys.executable, "-c", HOLD, str(folder)]
    environment = {**os.environ, "PYTHONPATH": "src"}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        worker = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            os.kill(worker, signal.SIGKILL)
