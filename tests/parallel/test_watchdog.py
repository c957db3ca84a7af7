"""Processes that stand for ranks on one host: who is in trouble, and how they leave."""

import signal
import subprocess
import sys
import time

import pytest

from mindghost.parallel import watchdog
from mindghost.parallel.watchdog import Neighbours
from tests.helpers.launchers import environment

# Says who it is, hears who the other one is, and leaves with it after so many seconds.
RANK = """
import sys, time
from mindghost.parallel.watchdog import Neighbours, own_process
print(*own_process(), flush=True)
others = Neighbours(0, {1: tuple(map(int, sys.stdin.readline().split()))})
time.sleep(float(sys.argv[1]))
print(time.monotonic(), flush=True)
others.leave_together()
print(time.monotonic(), flush=True)
"""


def start(home, *command: str) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(home), **pipes)


@pytest.fixture
def sleeper(tmp_path):
    process = start(tmp_path, "sleep", "300")
    yield process
    process.kill()
    process.wait()


def test_ranks_wait_for_the_last_one_to_leave(tmp_path):
    ranks = [start(tmp_path, sys.executable, "-c", RANK, seconds) for seconds in ("0", "1.5")]
    known = [rank.stdout.readline() for rank in ranks]
    for rank, other in zip(ranks, reversed(known), strict=True):
        rank.stdin.write(other)
        rank.stdin.flush()
    (came, left), (last_came, last_left) = (
        [float(line) for line in rank.communicate(timeout=60)[0].split()] for rank in ranks
    )
    assert came + 1 < last_came <= left < last_came + 1
    assert last_left < last_came + 1


def test_nobody_waits_for_a_rank_that_is_gone(tmp_path, sleeper):
    rank = start(tmp_path, sys.executable, "-c", RANK, "0")
    rank.stdout.readline()
    rank.stdin.write(f"{sleeper.pid} {watchdog._stat(sleeper.pid)[1]}\n")
    rank.stdin.flush()
    came = float(rank.stdout.readline())
    sleeper.kill()
    assert float(rank.stdout.readline()) < came + 5
    assert rank.wait(60) == 0


def test_what_counts_as_trouble(sleeper):
    process, birth = sleeper.pid, watchdog._stat(sleeper.pid)[1]
    assert watchdog._trouble(process, birth) is None
    assert watchdog._trouble(process, birth + 1) == "has left the job"
    sleeper.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while watchdog._trouble(process, birth) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watchdog._trouble(process, birth) == "has been stopped (SIGSTOP) for 12 seconds"
    sleeper.kill()
    sleeper.wait()
    assert watchdog._trouble(process, birth) == "has left the job"


def test_processes_that_cannot_be_seen_are_left_alone(sleeper):
    """Those of other containers: another process, or none, has their number here."""
    birth = watchdog._stat(sleeper.pid)[1]
    unseen = {1: (sleeper.pid, birth + 1), 2: (sleeper.pid, 0), 3: (2**22 + 1, 5)}
    assert Neighbours(0, {0: watchdog.own_process(), **unseen})._others == {}
    assert Neighbours(0, {1: (sleeper.pid, birth)})._others == {1: (sleeper.pid, birth)}
