"""The scheduler of an msrun that fails; the cores of ranks that msrun has bound."""

import os
import socket
import subprocess
import sys

import pytest

from mindghost.config import load
from mindghost.errors import UserError
from mindghost.parallel import msrun
from mindghost.parallel.cores import share
from tests.helpers.configs import cli, write


def test_a_scheduler_waits_for_ranks_that_were_started(tmp_path):
    variables = {"MS_ROLE": "MS_WORKER", "MS_SCHED_PORT": "40123"}
    rank = subprocess.Popen([sys.executable, "-c", "input()"], env=os.environ | variables, stdin=subprocess.PIPE)
    try:
        msrun.check_scheduler(2, {"MS_SCHED_PORT": "40123"})
        with pytest.raises(UserError, match="^msrun: it has ended without starting a rank here: with --worker_num 2, "):
            msrun.check_scheduler(2, {"MS_SCHED_PORT": "40124"})
    finally:
        rank.communicate()
    with pytest.raises(UserError, match="give --local_worker_num 7 as well, which is 8 otherwise$"):
        msrun.check_scheduler(7, {"MS_SCHED_PORT": "40123"})


@pytest.mark.fault("environments", "clean error")
def test_a_port_that_is_taken_is_one_line():
    """Ranks of this run would join the other one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        environment = {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port)}
        with pytest.raises(UserError, match=f"^msrun: port {port} of 127.0.0.1 is taken, .* with --master_port$"):
            msrun.check_scheduler(8, environment)
    msrun.check_scheduler(8, environment)


def test_a_scheduler_waits_while_msrun_may_yet_start_ranks(monkeypatch):
    # As many ranks as msrun starts by itself, or more: they may be on other machines.
    assert msrun.check_scheduler(8, {}) is None
    monkeypatch.setattr(msrun.os, "getppid", os.getpid)
    monkeypatch.setattr(msrun.Path, "read_bytes", lambda path: b"python\0/usr/bin/msrun\0--worker_num\0")
    assert msrun.check_scheduler(2, {}) is None


def test_ranks_that_msrun_has_bound_keep_their_cores():
    bound = [{0, 1}, {2, 3}]
    assert [share(bound, {0, 1, 2, 3}, place) for place in (0, 1)] == bound
    everything = {0, 1, 2, 3}
    assert [share([everything] * 2, everything, place) for place in (0, 1)] == bound


def test_several_ranks_share_the_work_unless_a_flag_says_otherwise(monkeypatch, tmp_path):
    recipe = str(write(tmp_path, "distribute: False\n"))
    assert not cli("-c", recipe).distribute
    monkeypatch.setenv("MS_WORKER_NUM", "2")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    for line in ((), ("-c", recipe)):
        config = cli(*line)
        assert (config.distribute, config.notes) == (True, ("msrun started 2 ranks: distribute is True",))
    assert not cli("--distribute", "False").distribute
    assert cli("--distribute", "True").notes == ()
    monkeypatch.setenv("MS_WORKER_NUM", "1")
    assert not load(["-c", recipe], prog="train.py", description="").distribute
