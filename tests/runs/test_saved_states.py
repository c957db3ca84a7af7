"""What a resumed run goes on from: saved states, damaged ones, and the records that belong to them."""

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
from mindghost.runs import folder as run_folder
from mindghost.runs.folder import RunFolder
from mindghost.runs.state import Position, RunState, changed_keys, taken_up
from tests.helpers.run_folders import DATA, WEIGHTS, config, damage, epochs_of_states, run, save, state_of


@pytest.fixture
def two_states(tmp_path) -> RunFolder:
    """A run that has saved two states."""
    folder = run(tmp_path / "run", [1.0])
    save(folder, 1)
    save(folder, 2)
    return folder


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
def test_a_damaged_state_gives_way_to_the_one_before(harm, why, by_path, two_states, caplog):
    folder = two_states
    harm(folder.state)
    with caplog.at_level(logging.WARNING, logger="mindghost"):
        saved = folder.read_state(str(folder.path) if by_path else True)
    assert (saved.position.epoch, saved.file) == (1, folder.previous_state)
    [line] = caplog.messages
    assert why in line
    assert line.endswith(f"going on from {folder.previous_state}, the state before it")


def test_an_intact_state_is_taken_without_a_word(two_states, caplog):
    folder = two_states
    with caplog.at_level(logging.INFO, logger="mindghost"):
        assert folder.read_state(True).position.epoch == 2
    assert caplog.messages == []


@pytest.mark.fault("damaged states", "clean error")
def test_a_named_file_has_no_substitute(two_states):
    folder = two_states
    damage(folder.state)
    with pytest.raises(UserError, match=r"resume: .*run_state\.ckpt: damaged"):
        folder.read_state(str(folder.state))
    assert folder.read_state(str(folder.previous_state)).position.epoch == 1


@pytest.mark.fault("damaged states", "clean error")
def test_two_damaged_states_are_both_named(two_states):
    folder = two_states
    damage(folder.state)
    damage(folder.previous_state)
    with pytest.raises(
        UserError, match=r"resume: .*run_state\.ckpt: damaged.*run_state_previous\.ckpt: damaged"
    ) as caught:
        folder.read_state(True)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("damaged states", "ok")
def test_after_a_fall_back_the_intact_state_is_kept(two_states, tmp_path):
    """The first save replaces the damaged state, not the only intact one; then the two change places as always."""
    folder = two_states
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
