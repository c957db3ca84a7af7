"""Signals to a run: what `runtime.StopSignals` makes of those that MindSpore sends, in processes of their own; and a
run's one configuration."""

import os
import sys
from pathlib import Path

import pytest

from mindghost import runtime
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.parallel.ranks import ALONE
from tests.helpers.launchers import run


def test_a_dead_worker_that_nobody_reports_ends_a_run_that_waits(tmp_path, tried):
    tried("data worker killed, MindSpore says nothing")
    lines = """
import os, time
from mindghost.process.signals import StopSignals

with StopSignals() as signals:
    signals.defer()
    if os.fork() == 0:
        os._exit(0)
    signals.waits_since = time.monotonic() - 31
    time.sleep(50)
"""
    result = run([sys.executable, "-c", lines], tmp_path, timeout=40)
    last = "stopped because a data worker process died (out of memory?); the data that the run waits for will not come"
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, last)


def test_a_second_report_of_a_dead_worker_does_not_end_a_run_that_ends(tmp_path, tried):
    """MindSpore sends SIGTERM to its own process; what comes after the run's last step must not kill it."""
    tried("data worker killed, MindSpore says it twice")
    lines = """
import os, signal, time
from mindghost.process.signals import importing

with importing():
    from mindghost.process.signals import StopSignals

with StopSignals() as signals:
    signals.defer()
    os.kill(os.getpid(), signal.SIGTERM)
    while signals.received is None:
        time.sleep(0.1)
os.kill(os.getpid(), signal.SIGTERM)
print("said its last words")
"""
    result = run([sys.executable, "-c", lines], tmp_path, timeout=40)
    assert (result.returncode, result.stdout) == (0, "said its last words\n")


def test_the_end_of_a_stopped_run_is_not_reported_as_the_death_of_its_workers(tmp_path):
    """MindSpore's handler of SIGCHLD gets a second here to see what a run kills on its way out."""
    lines = """
import os, subprocess, time
from mindghost.process.signals import importing

with importing():
    import mindspore.dataset as ds
    from mindghost.process.signals import StopSignals

class Numbers:
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        return (index,)

end = os._exit
os._exit = lambda status: (time.sleep(1), end(status))
with StopSignals():
    numbers = ds.GeneratorDataset(Numbers(), ["number"], num_parallel_workers=2, python_multiprocessing=True)
    iterator = numbers.create_tuple_iterator(num_epochs=1)
    next(iterator)
    subprocess.Popen(["kill", str(os.getpid())])
    time.sleep(50)
"""
    result = run([sys.executable, "-c", lines], tmp_path, timeout=40)
    assert (result.returncode, result.stderr) == (143, "stopped by SIGTERM\n")


@pytest.mark.parametrize(("ignored", "stops"), [(False, "1"), (True, "None")])
def test_a_closed_terminal_stops_what_wants_that_but_where_it_is_ignored(tmp_path, ignored, stops):
    lines = """
import os, signal, sys, time
from mindghost.process.signals import StopSignals

# As nohup leaves it, or as a terminal does: the tests may run under either.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "True" else signal.SIG_DFL)
with StopSignals(hang_up_stops=True) as signals:
    signals.defer()
    if os.fork() == 0:
        os.kill(os.getppid(), signal.SIGHUP)
        os._exit(0)
    os.wait()
    time.sleep(0.5)
print(signals.received)
"""
    result = run([sys.executable, "-c", lines, str(ignored)], tmp_path, timeout=40)
    assert (result.returncode, result.stdout) == (0, f"{stops}\n")


def runtime_of(**keys) -> runtime.Runtime:
    return runtime.Runtime(Config(data_dir="D", **keys), "CPU", ALONE, 1, [])


def test_the_data_gives_the_number_of_classes_where_the_key_is_absent():
    assert runtime_of().with_classes(["a", "b", "c"]).config.num_classes == 3


def test_fewer_classes_than_outputs_are_one_line_in_the_log(caplog):
    caplog.set_level("INFO", "mindghost")
    assert runtime_of(num_classes=10).with_classes(["a", "b", "c"]).config.num_classes == 10
    assert [record.getMessage() for record in caplog.records] == [
        "D: 3 classes, fewer than num_classes: 10; labels follow their sorted names"
    ]


@pytest.mark.fault("names", "clean error")
def test_a_program_that_mindspore_cannot_name_is_one_line(monkeypatch):
    """Compiling fails with MindSpore's own words in a clone whose folder's name is no UTF-8."""
    monkeypatch.setattr(runtime, "_HERE", Path(os.fsdecode(b"/clone\xff/src")))
    with pytest.raises(UserError, match="compiles no program in a folder whose name is no UTF-8"):
        runtime.Runtime.start(Config())
