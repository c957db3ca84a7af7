"""TensorBoard's event files hold what metrics.jsonl holds: written by tensorboardX, read back frame by frame."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from mindghost.config import Config
from mindghost.errors import RunError, UserError
from mindghost.runs.folder import RunFolder
from mindghost.runs.state import Position
from tests.helpers.event_files import TAGS, assert_equals_metrics, events
from tests.helpers.run_folders import state_of

DATA = "ab" * 32


def run_folder(path: Path, tensorboard: bool = True) -> RunFolder:
    return RunFolder(Config(model="ghostnet_050", ckpt_save_dir=str(path), tensorboard=tensorboard))


def record(epoch: int, validated: bool = True) -> dict:
    rng = np.random.default_rng(epoch)
    values = {key: float(rng.uniform(0, 90)) for key in TAGS.values()}
    if not validated:
        values |= dict.fromkeys(("val_loss", "top_1", "top_5"))
    return {"epoch": epoch, "step": 390 * epoch, "base_lr": 0.1, "seconds": 10.0, **values}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Three epochs, of which the second is not validated; the state is that of the end of the second."""
    folder = run_folder(tmp_path / "run")
    folder.start()
    folder.config.write_text(Config(model="ghostnet_050").to_yaml())
    for epoch in (1, 2, 3):
        folder.add_record(record(epoch, validated=epoch != 2))
        if epoch == 2:
            folder.save_state(state_of(folder, {"w": np.zeros(3, np.float32)}, Position(epoch=2), steps=5))
    return folder


def test_events_equal_the_metrics(run):
    assert_equals_metrics(run.path)
    times = [event.wall_time for event in events(run.path) if event.summary.value]
    assert np.diff(times) == pytest.approx(10.0)


def test_each_record_is_in_the_file_at_once(run):
    count = len(events(run.path))
    run.add_record(record(4))
    assert len(events(run.path)) == count + 1


@pytest.fixture
def ended(run) -> RunFolder:
    """The same run, and its process is no more."""
    with run:
        return run


def test_a_resumed_run_doubles_nothing(ended):
    resumed = run_folder(ended.path)
    resumed.go_on(resumed.read_state(True))
    assert_equals_metrics(ended.path)
    assert max(event.step for event in events(ended.path)) == 780
    resumed.add_record(record(3))
    assert_equals_metrics(ended.path)
    # A TensorBoard that has read the earlier file forgets it.
    assert [event.session_log.status for event in events(ended.path)][:2] == [0, SessionLog.START]


def test_files_that_were_replaced_do_not_pile_up(ended, monkeypatch):
    for second in range(4):
        monkeypatch.setattr("time.time", lambda now=1.8e9 + second: now)  # is part of a file's name
        with run_folder(ended.path) as resumed:
            resumed.go_on(resumed.read_state(True))
        assert [file.stat().st_size > 0 for file in sorted(ended.events.iterdir())] == [False, True]
        assert_equals_metrics(ended.path)


def test_a_resumed_run_may_begin_and_end_to_write_them(ended):
    with run_folder(ended.path, tensorboard=False) as without:
        without.go_on(without.read_state(True))
    assert events(ended.path) == []
    again = run_folder(ended.path)
    again.go_on(again.read_state(True))
    assert_equals_metrics(ended.path)


def test_a_state_of_another_folder_brings_its_events(ended, tmp_path):
    other = run_folder(tmp_path / "other")
    other.go_on(other.read_state(str(ended.path)))
    assert_equals_metrics(other.path)
    assert_equals_metrics(ended.path)


def test_overwriting_deletes_them_and_no_other_file(ended):
    (ended.events / "notes.txt").write_text("mine")
    folder = run_folder(ended.path, tensorboard=False)
    folder.check(overwrite=True)
    folder.start(overwrite=True)
    assert [file.name for file in ended.events.iterdir()] == ["notes.txt"]


def test_a_run_that_finished_no_epoch_may_be_started_again(tmp_path):
    folder = run_folder(tmp_path)
    folder.start()
    with pytest.raises(UserError, match="already holds a run .events.out"):
        folder.check(overwrite=False)
    folder.log.write_text("")
    folder.check(overwrite=False)


def test_bad_surroundings_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UserError, match="/tensorboard: a file, not a folder; move it away"):
        run_folder(tmp_path).start()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="tensorboard: True needs tensorboardX .*; pip install tensorboardX") as caught:
        run_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_ends_the_run(run):
    with open("/dev/full", "wb") as full:
        run.event_file.writer._py_recordio_writer._writer = full
        with pytest.raises(RunError, match="tensorboard: cannot be written .No space left"):
            run.add_record(record(4))
        with pytest.raises(OSError, match="No space"):
            full.close()
