"""Which files a run leaves, and what a resumed run goes on from."""

import dataclasses
import json
import logging
import os
import pickle
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.errors import RunError, UserError
from mindghost.files import intact
from mindghost.runs import files as run_files
from mindghost.runs import folder as run_folder
from mindghost.runs.folder import RunFolder
from mindghost.runs.state import Position, RunState, changed_keys, taken_up
from tests.helpers.locks import lock_holder
from tests.helpers.run_folders import DATA, WEIGHTS, config, damage, epochs_of_states, kept, names, run, save, state_of


@pytest.mark.fault("resources", "clean error")
def test_a_state_travels_to_other_ranks_as_numbers_and_text_and_every_length_is_compared(tmp_path):
    """What the other ranks hear is no pickle: a damaged or crafted message is refused."""
    with RunFolder(config(tmp_path / "run ä", mean=(1.5, 2, 3), auto_augment="randaug-m9")) as folder:
        folder.start()
        folder.config.write_text(config(tmp_path, mean=(1.5, 2, 3), auto_augment="randaug-m9").to_yaml())
        arrays = {
            "w": np.linspace(0, 1, 7, dtype=np.float32).reshape(7, 1),
            "step": np.array(3, np.int32),
            "half": np.ones(2, np.float16),
            "flags": np.array([True, False]),
        }
        folder.save_state(state_of(folder, arrays, Position(2, 1, (0.1, 1 / 3), 4, 50.0)))
        saved = folder.read_state(True)
    content = saved.to_bytes()
    heard = RunState.from_bytes(content)
    for field in dataclasses.fields(RunState):
        if field.name != "arrays":
            assert getattr(heard, field.name) == getattr(saved, field.name), field.name
    assert set(heard.arrays) == set(saved.arrays)
    for name, array in saved.arrays.items():
        assert (heard.arrays[name].dtype, heard.arrays[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(heard.arrays[name], array)
    crafted = pickle.dumps(saved)
    for damaged in (content[:-1], content + b"x", b"\xff" * 8 + content[8:], content[:3], crafted):
        with pytest.raises((UserError, json.JSONDecodeError, UnicodeDecodeError)):
            RunState.from_bytes(damaged)


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


@pytest.mark.parametrize("resume", [True, "file", "folder"])
def test_a_state_comes_back_with_its_position(resume, tmp_path):
    folder = run(tmp_path / "run", [12.5])
    folder.log.write_text("one line\n")
    position = Position(epoch=1, step=3, losses=(2.5, 0.1, 1 / 3), skipped=1, best_score=12.5)
    folder.save_state(state_of(folder, {"w": np.ones(3, np.float32)}, position))
    saved = folder.read_state({"file": str(folder.state), "folder": str(folder.path)}.get(resume, True))
    assert saved.position == position
    assert (saved.data, saved.ranks, saved.steps) == (DATA, 2, 7)
    assert saved.arrays["w"].tolist() == [1, 1, 1]
    assert saved.record_bytes == (9, folder.metrics.stat().st_size)
    assert ms.load_checkpoint(str(folder.state))["w"].asnumpy().tolist() == [1, 1, 1]


def test_a_new_run_stands_at_its_beginning():
    assert Position() == Position(epoch=0, step=0, losses=(), skipped=0, best_score=None)


@pytest.mark.parametrize("best", [None, 0.0, 0.5, 100.0])
def test_no_accuracy_yet_is_not_one_of_0(best, tmp_path):
    folder = run(tmp_path / "run", [12.5])
    save(folder, 1, best_score=best)
    assert folder.read_state(True).position.best_score == best


def test_records_after_the_state_are_cut(tmp_path):
    folder = run(tmp_path / "run", [12.5])
    save(folder, 1)
    folder.add_record({"epoch": 2, "top_1": 13.0})
    folder.log.write_text("later\n")
    folder.go_on(folder.read_state(True))
    assert [json.loads(line)["epoch"] for line in folder.metrics.read_text().splitlines()] == [1]
    assert folder.log.read_text() == ""


def test_a_state_of_another_folder_brings_its_records(tmp_path):
    with run(tmp_path / "source", [12.5]) as source:
        save(source, 1)
        source.add_record({"epoch": 2, "top_1": 13.0})
    other = RunFolder(config(tmp_path / "other"))
    other.go_on(other.read_state(str(source.path)))
    assert len(other.metrics.read_text().splitlines()) == 1
    assert len(source.metrics.read_text().splitlines()) == 2


def test_a_folder_with_another_run_takes_no_state(tmp_path):
    """And says so before images are read."""
    source, other = run(tmp_path / "source", [1.0]), run(tmp_path / "other", [2.0])
    save(source, 1)
    with pytest.raises(UserError, match="other already holds a run"):
        other.read_state(str(source.path))


@pytest.mark.fault("damaged states", "clean error")
def test_what_is_no_state_is_refused(tmp_path):
    folder = RunFolder(config(tmp_path / "run"))
    with pytest.raises(UserError, match="resume: .*: no such file"):
        folder.read_state(True)
    weights_file.write(tmp_path / "w.ckpt", WEIGHTS)
    with pytest.raises(UserError, match="w.ckpt holds weights, but no run state"):
        folder.read_state(str(tmp_path / "w.ckpt"))
    weights_file.write(tmp_path / "w.ckpt", {**WEIGHTS, "run_epoch": np.array([1])})
    with pytest.raises(UserError, match="w.ckpt lacks run_best_top_1, .* run_steps: another version"):
        folder.read_state(str(tmp_path / "w.ckpt"))


@pytest.mark.fault("damaged states", "ok")
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (damage, "run_state.ckpt: damaged: its sha256"),
        (lambda file: file.write_bytes(b""), "run_state.ckpt: damaged: its sha256"),
        (lambda file: file.unlink(), "run_state.ckpt: no such file"),
        (lambda file: weights_file.write(file, WEIGHTS), "run_state.ckpt holds weights"),
        (lambda file: intact.sidecar(file).write_text("?"), "run_state.ckpt.sha256: not what sha256sum writes"),
    ],
)
@pytest.mark.parametrize("by_path", [False, True])
def test_a_damaged_state_gives_way_to_the_one_before(harm, why, by_path, tmp_path, caplog):
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    save(folder, 2)
    harm(folder.state)
    with caplog.at_level(logging.WARNING, logger="mindghost"):
        saved = folder.read_state(str(folder.path) if by_path else True)
    assert (saved.position.epoch, saved.file) == (1, folder.previous_state)
    [line] = caplog.messages
    assert why in line
    assert line.endswith(f"going on from {folder.previous_state}, the state before it")


def test_an_intact_state_is_taken_without_a_word(tmp_path, caplog):
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    save(folder, 2)
    with caplog.at_level(logging.INFO, logger="mindghost"):
        assert folder.read_state(True).position.epoch == 2
    assert caplog.messages == []


@pytest.mark.fault("damaged states", "clean error")
def test_a_named_file_has_no_substitute(tmp_path):
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    save(folder, 2)
    damage(folder.state)
    with pytest.raises(UserError, match=r"resume: .*run_state\.ckpt: damaged"):
        folder.read_state(str(folder.state))
    assert folder.read_state(str(folder.previous_state)).position.epoch == 1


@pytest.mark.fault("damaged states", "clean error")
def test_two_damaged_states_are_both_named(tmp_path):
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    save(folder, 2)
    damage(folder.state)
    damage(folder.previous_state)
    with pytest.raises(
        UserError, match=r"resume: .*run_state\.ckpt: damaged.*run_state_previous\.ckpt: damaged"
    ) as caught:
        folder.read_state(True)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("damaged states", "ok")
def test_after_a_fall_back_the_intact_state_is_kept(tmp_path):
    """The first save replaces the damaged state, not the only intact one; then the two change places as always."""
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    save(folder, 2)
    damage(folder.state)
    resumed = RunFolder(config(tmp_path / "run"))
    resumed.go_on(folder.read_state(True))
    save(resumed, 3)
    assert epochs_of_states(folder) == [3, 1]
    save(resumed, 4)
    assert epochs_of_states(folder) == [4, 3]


def test_a_resumed_run_keeps_the_state_it_came_from(tmp_path):
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    resumed = RunFolder(config(tmp_path / "run"))
    resumed.go_on(folder.read_state(True))
    save(resumed, 2)
    assert epochs_of_states(folder) == [2, 1]


# Kills a process that saves states over and over, and goes on in another, 30 times; every third time the newest state
# is damaged in between. Prints the epoch that each goes on from.
KILLS = """
import itertools, os, random, signal, sys, time
from mindghost.runs import files as run_files
from mindghost.runs import folder as run_folder
from mindghost.runs.folder import RunFolder
from tests.helpers.run_folders import config, damage, run, save, state_of

def say(*words):
    # In one call, so that a kill does not cut it.
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

path = sys.argv[1]
with run(path, [1.0]) as folder:
    save(folder, 1)
for kill in range(30):
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        folder = RunFolder(config(path))
        saved = folder.read_state(True)
        folder.go_on(saved)
        for epoch in itertools.count(saved.position.epoch + 1):
            save(folder, epoch, losses=(0.5,) * 1000)
            say(epoch)
            os.write(write, b".")
    # One save is done, however busy the machine is: a second damage of the same file would mend it.
    os.read(read, 1)
    time.sleep(random.uniform(0, 0.05))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(read), os.close(write)
    with RunFolder(config(path)) as folder:
        saved = folder.read_state(True)
        assert saved.arrays["w"][0] == saved.position.epoch
        before = folder.read_state(str(folder.previous_state)) if folder.previous_state.exists() else None
        say("found", saved.position.epoch)
        if before is not None:
            # The previous state is replaced last.
            assert saved.file == before.file or saved.position.epoch - before.position.epoch in (1, 2)
        if before is not None and kill % 3 == 2:
            damage(folder.state)
            assert folder.read_state(True).position == before.position
            say(before.position.epoch)
"""


@pytest.mark.fault("damaged states", "ok")
def test_a_kill_in_any_save_loses_nothing(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("src", "."))}
    program = [sys.executable, "-c", KILLS, str(tmp_path / "run")]
    result = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("going on from") > 5
    saved = 1
    for line in result.stdout.splitlines():
        word, *rest = line.split()
        if word == "found":
            # The state that was said to be saved, or the one whose saving was interrupted.
            assert int(rest[0]) - saved in (0, 1)
            saved = int(rest[0])
        else:
            saved = int(word)
    assert saved > 10


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
def test_a_full_disk_keeps_what_was_saved(full_disk):
    path, reason = full_disk
    with run(path / "run", [1.0]) as folder:
        save(folder, 1)
        save(folder, 2)
    before = {file.name: file.read_bytes() for file in folder.path.iterdir()}
    large = {"w": np.ones(100_000, np.float32)}
    with pytest.raises(RunError, match=rf"run_state\.ckpt: cannot be written \({reason}\)"):
        folder.save_state(state_of(folder, large, Position(epoch=3)))
    with pytest.raises(RunError, match=rf"ghostnet_050_last\.ckpt: cannot be written \({reason}\)"):
        folder.save_weights(large, 3, 7, best=True, keep=True)
    assert {file.name: file.read_bytes() for file in folder.path.iterdir()} == before
    assert epochs_of_states(folder) == [2, 1]
    # The failed save changes nothing for the next one.
    save(folder, 3)
    assert epochs_of_states(folder) == [3, 2]


@pytest.fixture
def other_run(tmp_path):
    """A process that has begun a run in tmp_path/run, at its first epoch."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").write_text("")
    with lock_holder(tmp_path / "run") as process:
        yield process


def in_use(process) -> str:
    return f"run is in use by another run \\(process {process.pid} on .+\\); wait for it to end, or give another folder"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_use_is_refused(overwrite, other_run, tmp_path):
    with RunFolder(config(tmp_path / "run")) as folder:
        for call in (folder.check, folder.start):
            with pytest.raises(UserError, match=f"ckpt_save_dir: .*{in_use(other_run)}"):
                call(overwrite=overwrite)
    assert names(folder) == ["train.log"]


def test_a_state_of_a_run_that_goes_on_is_not_taken(other_run, tmp_path):
    weights_file.write(tmp_path / "run" / "run_state.ckpt", WEIGHTS)
    with RunFolder(config(tmp_path / "run")) as folder, pytest.raises(UserError, match=in_use(other_run)):
        folder.read_state(True)
    with RunFolder(config(tmp_path / "new")) as folder:
        with pytest.raises(UserError, match=f"resume: .*{in_use(other_run)}"):
            folder.read_state(str(tmp_path / "run"))
        assert not folder.path.exists()


def test_a_run_that_began_and_ended_meanwhile_is_not_deleted(tmp_path):
    late = RunFolder(config(tmp_path / "run"))
    late.check(overwrite=False)
    with run(tmp_path / "run", [1.0]) as other:
        pass
    with pytest.raises(UserError, match="already holds a run"):
        late.start()
    assert other.last.exists()


def test_a_source_is_free_again_once_its_records_are_copied(tmp_path):
    with run(tmp_path / "source", [1.0]) as source:
        save(source, 1)
    with RunFolder(config(tmp_path / "a")) as a, RunFolder(config(tmp_path / "b")) as b:
        for folder in (a, b):
            folder.go_on(folder.read_state(str(source.path)))
        assert a.metrics.read_bytes() == b.metrics.read_bytes() == source.metrics.read_bytes() != b""


def test_a_source_that_was_only_read_is_free_when_its_reader_ends(tmp_path):
    with run(tmp_path / "source", [1.0]) as source:
        save(source, 1)
    with RunFolder(config(tmp_path / "a")) as a:
        a.read_state(str(source.path))
        with RunFolder(config(tmp_path / "b")) as b, pytest.raises(UserError, match="in use by another run"):
            b.read_state(str(source.path))
    with RunFolder(config(tmp_path / "b")) as b:
        assert b.read_state(str(source.path)).position.epoch == 1


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


def test_changes_that_matter_are_listed(tmp_path):
    before = config(tmp_path)
    after = before.replace(batch_size=7, log_interval=3, data_dir="moved", lr=0.5)
    assert changed_keys(before, after) == ["batch_size: 128 -> 7", "lr: 0.001 -> 0.5"]


def test_a_resumed_run_keeps_the_epochs_that_nobody_gave():
    """As one of an older version, whose decay of 580 epochs was not shortened with the run."""
    before = Config(epoch_size=600, warmup_epochs=20, decay_epochs=590)
    now = Config(epoch_size=600)
    assert changed_keys(before, taken_up(before, now)) == []
    given = Config(epoch_size=600, decay_epochs=580)
    assert changed_keys(before, taken_up(before, given)) == ["decay_epochs: 590 -> 580"]
    longer = Config(epoch_size=700)
    assert taken_up(before, longer) == longer


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("size", [0, 3, 6, 9])
def test_records_are_cut_to_a_size_and_another_name_of_them_keeps_all(tmp_path, linked, size):
    file, other = tmp_path / "train.log", tmp_path / "copy"
    file.write_bytes(b"abcdef")
    if linked:
        os.link(file, other)
    run_folder._cut(file, size)
    assert file.read_bytes() == b"abcdef"[:size]
    assert not linked or other.read_bytes() == b"abcdef"
    run_folder._cut(tmp_path / "missing", size)
    assert not (tmp_path / "missing").exists()


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
