"""Which files a run leaves, and what they replace."""

import json
import os

import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.errors import RunError, UserError
from mindghost.runs import files as run_files
from mindghost.runs.folder import RunFolder
from tests.helpers.run_folders import WEIGHTS, config, kept, names, run, save


def test_the_newest_files_are_kept(tmp_path):
    folder = run(tmp_path / "run", [1.0, 3.0, 2.0] + [0.0] * 7)
    assert kept(folder) == ["ghostnet_050-10_7.ckpt", "ghostnet_050-9_7.ckpt"]
    assert folder.best.exists()
    assert folder.last.exists()


def test_the_most_accurate_files_are_kept(tmp_path):
    folder = run(tmp_path / "run", [5.0, 3.0, 4.0, None], ckpt_save_policy="top_k")
    assert kept(folder) == ["ghostnet_050-1_7.ckpt", "ghostnet_050-3_7.ckpt"]


def test_without_validation_there_is_no_best(tmp_path):
    folder = run(tmp_path / "run", [None, None])
    assert kept(folder) == ["ghostnet_050-1_7.ckpt", "ghostnet_050-2_7.ckpt"]
    assert not folder.best.exists()


def test_a_folder_with_a_run_is_refused_and_overwritten_on_demand(tmp_path):
    folder = run(tmp_path / "run", [1.0])
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds a run .* --overwrite True"):
        folder.check(overwrite=False)
    assert folder.last.exists()
    save(folder, 1)
    save(folder, 1)
    (folder.path / ".run_state.ckpt.123.0.tmp").write_text("of a killed run")
    folder.check(overwrite=True)
    folder.start(overwrite=True)
    assert sorted(os.listdir(folder.path)) == [".lock", "notes.txt"]


def test_weights_to_start_from_are_not_deleted(tmp_path):
    folder = run(tmp_path / "run", [1.0])
    with pytest.raises(UserError, match="--overwrite True would delete .*, which ckpt_path names"):
        folder.check(overwrite=True, ckpt_path=str(folder.best))
    folder.check(overwrite=True, ckpt_path=str(tmp_path / "other.ckpt"))


def test_a_run_that_finished_no_epoch_may_be_started_again(tmp_path):
    folder = RunFolder(config(tmp_path))
    folder.start()
    folder.add_session({"command": "train"}, None)
    for file in (folder.config, folder.classes, folder.log):
        file.write_text("")
    folder.check(overwrite=False)
    folder.start()
    assert names(folder) == []


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(UserError, match="ckpt_save_dir: /proc cannot be written"):
        RunFolder(config("/proc")).start()


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
def test_a_record_that_cannot_be_written_is_one_line(tmp_path):
    folder = RunFolder(config(tmp_path))
    folder.metrics.mkdir()
    with pytest.raises(RunError, match="metrics.jsonl: cannot be written"):
        folder.add_record({"epoch": 1, "top_1": None})


def test_epochs_without_evaluation_go_first_among_the_most_accurate(tmp_path):
    folder = run(tmp_path / "run", [None, 0.9, None, 0.95, None, 0.5], ckpt_save_policy="top_k")
    assert kept(folder) == ["ghostnet_050-2_7.ckpt", "ghostnet_050-4_7.ckpt"]


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=": a file, not a folder"):
        RunFolder(config(tmp_path / "run")).check(overwrite=True)


@pytest.mark.parametrize("best", [None, 0.0, 0.5, 100.0])
def test_no_accuracy_yet_is_not_one_of_0(best, tmp_path):
    folder = run(tmp_path / "run", [12.5])
    save(folder, 1, best_score=best)
    assert folder.read_state(True).position.best_score == best


def test_a_new_run_has_its_event_file_from_the_start(tmp_path):
    pytest.importorskip("tensorboardX")
    with RunFolder(config(tmp_path / "run", tensorboard=True)) as folder:
        folder.start()
        assert len(list(folder.events.iterdir())) == 1
        assert folder.event_file is not None
    with RunFolder(config(tmp_path / "other")) as folder:
        folder.start()
        assert (folder.event_file, folder.events.exists()) == (None, False)


def test_what_made_a_run_is_kept_over_its_parts_and_a_damaged_file_is_said(tmp_path, caplog):
    with run(tmp_path / "run", [1.0]) as folder:
        folder.add_session({"command": "first"}, None)
        folder.add_session({"command": "second"}, folder.path)
        assert [entry["command"] for entry in json.loads(folder.sessions.read_text())] == ["first", "second"]
        folder.sessions.write_text("[")
        folder.add_session({"command": "third"}, folder.path)
        assert [entry["command"] for entry in json.loads(folder.sessions.read_text())] == ["third"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{folder.sessions}: not JSON")
    assert record.getMessage().endswith("what it said about earlier parts of the run is lost")


def test_a_refused_folder_stays_as_it_is(tmp_path):
    weights_file.write(tmp_path / "ghostnet_050_best.ckpt", WEIGHTS)
    with RunFolder(config(tmp_path)) as folder, pytest.raises(UserError, match="which no run has made there"):
        folder.check(overwrite=False)
    assert not (tmp_path / ".lock").exists()


def test_the_record_of_sessions_has_a_line_for_each_entry(tmp_path):
    with RunFolder(config(tmp_path / "run")) as folder:
        folder.start()
        folder.add_session({"epoch": 0}, None)
        assert folder.sessions.read_text().startswith('[\n {\n  "epoch": 0,\n')


@pytest.mark.fault("overwriting", "ok")
def test_colours_are_the_run_s_and_go_with_it(tmp_path):
    with RunFolder(config(tmp_path)) as folder:
        folder.start()
        folder.keep_colors([(1, 2, 3), (0, 0, 255)])
        # As a run that goes on does, with the same or others.
        folder.keep_colors([(1, 2, 3), (4, 5, 6)])
    assert run_files.colors_beside(tmp_path / "w.ckpt", 2) == ((1, 2, 3), (4, 5, 6))
    with RunFolder(config(tmp_path)) as folder:
        folder.start(overwrite=True)
    assert not folder.colors.exists()


@pytest.mark.fault("overwriting", "clean error")
def test_colours_replace_no_file_of_others(tmp_path):
    (tmp_path / "colors.json").write_text("mine")
    with RunFolder(config(tmp_path)) as folder:
        folder.start()
        with pytest.raises(RunError, match=r"colors\.json: is not the run's, which would replace it"):
            folder.keep_colors([(1, 2, 3)])
    with RunFolder(config(tmp_path)) as folder:
        folder.start(overwrite=True)
    assert folder.colors.read_text() == "mine"
