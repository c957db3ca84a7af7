"""Workers that make batches: how many a machine bears, how they meet and what they leave behind."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.util
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import psutil
import pytest

from mindghost.data import dataset, loader
from mindghost.data.dataset import open_split
from mindghost.data.evaluation import eval_batches
from mindghost.data.loader import error_from, train_batches
from mindghost.data.samples import FolderSamples
from mindghost.errors import RunError, UserError
from tests.helpers.data_folders import config_for, epochs
from tests.helpers.pictures import save_image


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_damaged_while_training_is_named(folder, tmp_path, workers):
    for value in range(8):
        save_image(tmp_path / "train" / "ant" / f"{value}.png", value)
    config = config_for(tmp_path, num_parallel_workers=workers)
    samples = open_split(config, "train")
    bad = tmp_path / "train" / "ant" / "3.png"
    bad.write_bytes(b"x")
    with pytest.raises(RuntimeError) as caught:
        epochs(train_batches(config, samples, 1))
    error = error_from(caught.value)
    assert str(error).startswith(f"{bad}: not a readable image")
    assert "\n" not in str(error)


@pytest.mark.fault("resources", "clean error")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_machine_out_of_memory_is_said_so_by_any_worker(folder, workers):
    config = config_for(folder, num_parallel_workers=workers)
    samples = open_split(config, "train")

    class Poor(FolderSamples):
        def open(self, index):
            raise MemoryError

    poor = Poor(samples.classes, samples.labels, samples.root, samples.files)
    with pytest.raises(RuntimeError) as caught:
        epochs(train_batches(config, poor, 3))
    error = error_from(caught.value)
    assert isinstance(error, RunError)
    assert str(error).startswith(str(folder / "train"))
    assert str(error).endswith("lower batch_size or num_parallel_workers")
    with pytest.raises(RunError, match="memory ran out"):
        list(eval_batches(config, poor))


def test_other_exceptions_are_no_user_errors():
    assert error_from(RuntimeError("ValueError: x")) is None
    known = UserError("x")
    assert error_from(known) is known


def test_more_workers_than_cores_are_cut_down_with_one_line(folder, caplog):
    caplog.set_level("INFO", "mindghost")
    config = config_for(folder, num_parallel_workers=64)
    epochs(train_batches(config, open_split(config, "train"), 3))
    assert [r.getMessage() for r in caplog.records] == [
        "num_parallel_workers: 64 cut down to the 2 core(s) that there are"
    ]


def test_small_shared_memory_means_fewer_workers(folder, caplog, monkeypatch):
    caplog.set_level("INFO", "mindghost")
    config = config_for(folder, num_parallel_workers=2)
    batch_bytes = 4 * 4 * 3 * 8 * 8
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 7 * batch_bytes))
    batches = train_batches(config, open_split(config, "train"), 3)
    assert batches.num_parallel_workers == 1
    assert "/dev/shm: 0 MB free, enough for 1 worker(s)" in caplog.text


@pytest.mark.fault("resources", "ok")
@pytest.mark.parametrize("lack", ["read-only", "missing"])
def test_without_shared_memory_there_is_one_worker(folder, caplog, monkeypatch, tmp_path, lack):
    def lock() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    if lack == "read-only":
        monkeypatch.setattr("multiprocessing.Lock", lock)
    else:
        monkeypatch.setattr("mindghost.data.loader._SHARED_MEMORY", str(tmp_path / "none"))
    caplog.set_level("INFO", "mindghost")
    config = config_for(folder, num_parallel_workers=2)
    batches = train_batches(config, open_split(config, "train"), 3)
    assert batches.num_parallel_workers == 1
    said = {"read-only": "(Read-only file system): one worker", "missing": "(it is not there): one worker"}[lack]
    assert [record.getMessage().endswith(said) for record in caplog.records] == [True]


@pytest.mark.fault("settings", "ok")
@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_any_seed_with_any_number_of_workers(folder, monkeypatch, seed):
    """MindSpore gives a worker the run's seed and its own number on top, which may be too large a seed."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    before = ms.get_seed()
    ms.set_seed(seed)
    found = []
    for workers in (1, 2):
        config = config_for(folder, num_parallel_workers=workers, seed=seed, shuffle=True)
        found.append(epochs(train_batches(config, open_split(config, "train"), 3)))
    ms.set_seed(before or 1)
    for one, two in zip(found[0][0], found[1][0], strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.fault("environments", "ok")
def test_workers_meet_under_a_short_name_that_goes_with_the_run(folder, monkeypatch, tmp_path):
    """A socket's name has 108 bytes, TMPDIR's may have more; Python's own folder there stays where a run is killed."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 60)))
    config = config_for(folder, num_parallel_workers=2)
    epochs(train_batches(config, open_split(config, "train"), 3))
    assert multiprocessing.util.get_temp_dir().startswith("/dev/shm/.ghostnet-workers-")


@pytest.mark.parametrize(
    ("batch_size", "batches_free", "ready"),
    [(32, 1000, 4), (40, 1000, 3), (4, 1000, 4), (128, 1000, 2), (32, 2 * 5, 3), (32, 2 * 4, 2)],
)
def test_small_batches_are_held_ready_as_shared_memory_has_it(folder, monkeypatch, batch_size, batches_free, ready):
    """128 images a worker, in two to four batches; fewer before there are fewer workers."""
    config = config_for(folder, num_parallel_workers=2, batch_size=batch_size, drop_remainder=False)
    batch_bytes = 4 * batch_size * 3 * 8 * 8
    usage = shutil._ntuple_diskusage(0, 0, batches_free * batch_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    batches = train_batches(config, open_split(config, "train"), 3)
    assert (batches.num_parallel_workers, ds.config.get_prefetch_size()) == (2, ready)


QUIET = """
import sys, time
import mindghost
import psutil
from mindghost.config import Config
from mindghost.data.dataset import open_split
from mindghost.data.evaluation import eval_batches
from mindghost.data.loader import train_batches
import mindspore
import numpy as np
if __name__ == "__main__":
    config = Config(data_dir=sys.argv[1], batch_size=4, image_resize=32, num_parallel_workers=2)
    samples = open_split(config, "train")
    network = mindspore.nn.Conv2d(3, 8, 3)
    network(mindspore.Tensor(np.ones((2, 3, 64, 64), np.float32)))  # starts its threads
    iterator = train_batches(config, samples, 3).create_tuple_iterator(num_epochs=3)
    for _ in range(2):
        assert sum(1 for _ in iterator) == 5
        assert sum(len(labels) for _, labels in eval_batches(config, samples)) == 23
    next(iterator)
    # These workers are forked after the evaluation's threads used the same operators.
    late = train_batches(config, samples, 3).create_tuple_iterator(num_epochs=1)
    assert sum(1 for _ in late) == 5
    if sys.argv[2] == "drop":
        del iterator, late
        assert not psutil.Process().children(recursive=True)
    print("done")
"""


@pytest.mark.parametrize("end", ["drop", "exit"])
def test_workers_are_silent_and_leave_nothing_behind(folder, end, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(QUIET)
    environment = {**os.environ, "PYTHONPATH": str(Path(dataset.__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "done", "")
    deadline = time.monotonic() + 10
    while (left := _session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _session(leader: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


@pytest.mark.fault("resources", "ok")
def test_few_open_files_mean_fewer_workers(folder, caplog):
    """A worker of four batches ready takes 2 * (4 + 2) + 3 = 15 of them; 8 are left for others."""
    caplog.set_level("INFO", "mindghost")
    samples = open_split(config_for(folder), "train")
    config = config_for(folder, num_parallel_workers=2)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    workers = []
    try:
        for free in (29, 30):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8 + free, before[1]))
            workers.append(loader._fitting_workers(config, 1, 2, 4 * 4 * 3 * 8 * 8)[0])
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, before[1]))
        (epoch,) = epochs(train_batches(config, samples, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert workers == [1, 2]
    assert len(epoch) == 5
    assert caplog.text.count("ulimit -n: few files may be open, enough for 1 worker(s)") == 2
