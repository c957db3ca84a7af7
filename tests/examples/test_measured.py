"""examples/evidence/measured.py: what programs take."""

import os
import signal
import sys
import threading
import time

import pytest

import measured
from mindghost.errors import RunError, Stopped

HELD = 60_000_000  # bytes
BUSY = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


@pytest.fixture(autouse=True)
def _glances(monkeypatch):
    monkeypatch.setattr(measured, "GLANCE", 0.05)


def test_memory_and_time_of_children_count(tmp_path):
    child = (
        f"import time; held = bytearray({HELD}); end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('done')"
    status, cost, stopped = measured.run(program(parent), tmp_path / "log")
    assert (status, stopped) == (0, None)
    assert (tmp_path / "log").read_text() == "done\n"
    assert cost.cpu_seconds >= 0.5
    assert cost.wall_seconds >= 0.5
    assert HELD / 1e6 < cost.peak_memory_mb < HELD / 1e6 + 100


def test_time_of_a_child_that_nobody_waits_for_counts(tmp_path):
    child = f"{BUSY}\nopen({str(tmp_path / 'busy no more')!r}, 'w').close()\ntime.sleep(60)"
    parent = (
        f"import os, subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"while not os.path.exists({str(tmp_path / 'busy no more')!r}): time.sleep(0.02)\n"
        "time.sleep(0.5)\nos.kill(child.pid, 9)\nos._exit(0)"
    )
    assert measured.run(program(parent), tmp_path / "log")[1].cpu_seconds > 0.4


def test_a_signal_goes_to_the_program_which_is_waited_for(tmp_path):
    text = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    log = tmp_path / "log"

    def stop_when_ready() -> None:
        while not (log.exists() and log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop_when_ready).start()
    status, _, stopped = measured.run(program(text), log)
    assert status == 143
    assert isinstance(stopped, Stopped)
    assert stopped.signal == signal.SIGINT
    assert log.read_text() == "ready\nsaved\n"


def test_costs_of_sessions_add_up_and_memory_is_the_most():
    first, second = measured.Cost(1, 2, 3, 40), measured.Cost(10, 20, 30, 4)
    assert first + second == measured.Cost(11, 22, 33, 40)


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match=r"nowhere: cannot be started \(No such file or directory\)"):
        measured.run([str(tmp_path / "nowhere")], tmp_path / "log")
