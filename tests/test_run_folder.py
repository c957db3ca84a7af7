"""Which files a run leaves, and what a resumed run goes on from."""

import json

import mindspore as ms
import numpy as np
import pytest

from ghostnet import weights_file
from ghostnet.config import Config
from ghostnet.errors import RunError, UserError
from ghostnet.run_folder import Position, RunFolder, changed_keys

WEIGHTS = {"w": np.zeros(3, np.float32)}
DATA = "ab" * 32


def config(path, **keys) -> Config:
    return Config(model="ghostnet_050", ckpt_save_dir=str(path), val_while_train=True, **keys)


def names(folder):
    return sorted(file.name for file in folder.path.iterdir())


def run(path, accuracies, **keys) -> RunFolder:
    """A run of one epoch for each accuracy; the best so far is told as the trainer does."""
    folder = RunFolder(config(path, keep_checkpoint_max=2, **keys))
    folder.start()
    folder.config.write_text(config(path, **keys).to_yaml())
    best = None
    for epoch, top_1 in enumerate(accuracies, 1):
        better = top_1 is not None and (best is None or top_1 > best)
        best = top_1 if better else best
        folder.save_weights(WEIGHTS, epoch, 7, better, keep=True)
        folder.add_record({"epoch": epoch, "top_1": top_1})
    return folder


def kept(folder):
    """Epoch files that have their sidecars, and nothing else with such a name."""
    found = [name for name in names(folder) if "-" in name]
    assert found[1::2] == [f"{name}.sha256" for name in found[::2]]
    return found[::2]


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
    folder.check(overwrite=True)
    folder.start()
    assert names(folder) == ["notes.txt"]


def test_a_users_own_weights_are_not_replaced_unasked(tmp_path):
    weights_file.write(tmp_path / "ghostnet_050_best.ckpt", WEIGHTS)
    folder = RunFolder(config(tmp_path))
    with pytest.raises(UserError, match="already holds a run"):
        folder.check(overwrite=False)
    with pytest.raises(UserError, match="--overwrite True would delete"):
        folder.check(overwrite=True, ckpt_path=str(tmp_path / "ghostnet_050_best.ckpt"))
    folder.check(overwrite=True, ckpt_path=str(tmp_path / "other.ckpt"))


def test_a_run_that_finished_no_epoch_may_be_started_again(tmp_path):
    for name in ("config.yaml", "classes.json", "train.log"):
        (tmp_path / name).write_text("")
    RunFolder(config(tmp_path)).check(overwrite=False)
    (tmp_path / "train.log").unlink()
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder(config(tmp_path)).check(overwrite=False)


def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(UserError, match="ckpt_save_dir: /proc cannot be written"):
        RunFolder(config("/proc")).start()


def test_a_record_that_cannot_be_written_is_one_line(tmp_path):
    folder = RunFolder(config(tmp_path))
    folder.metrics.mkdir()
    with pytest.raises(RunError, match="metrics.jsonl: cannot be written"):
        folder.add_record({"epoch": 1, "top_1": None})


def test_epochs_without_evaluation_go_first_among_the_most_accurate(tmp_path):
    folder = run(tmp_path / "run", [None, 0.9, None, 0.95, None, 0.5], ckpt_save_policy="top_k")
    assert kept(folder) == ["ghostnet_050-2_7.ckpt", "ghostnet_050-4_7.ckpt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder(config(tmp_path / "run")).check(overwrite=True)


@pytest.mark.parametrize("resume", [True, "file", "folder"])
def test_a_state_comes_back_with_its_position(resume, tmp_path):
    folder = run(tmp_path / "run", [12.5])
    folder.log.write_text("one line\n")
    position = Position(epoch=1, step=3, losses=(2.5, 0.1, 1 / 3), skipped=1, best_top_1=12.5)
    folder.save_state({"w": np.ones(3, np.float32)}, position, DATA)
    saved = folder.read_state({"file": str(folder.state), "folder": str(folder.path)}.get(resume, True))
    assert saved.position == position
    assert saved.data == DATA
    assert saved.arrays["w"].tolist() == [1, 1, 1]
    assert (saved.log_bytes, saved.metrics_bytes) == (9, folder.metrics.stat().st_size)
    assert ms.load_checkpoint(str(folder.state))["w"].asnumpy().tolist() == [1, 1, 1]


def test_records_after_the_state_are_cut(tmp_path):
    folder = run(tmp_path / "run", [12.5])
    folder.save_state(WEIGHTS, Position(epoch=1), DATA)
    folder.add_record({"epoch": 2, "top_1": 13.0})
    folder.log.write_text("later\n")
    folder.go_on(folder.read_state(True))
    assert [json.loads(line)["epoch"] for line in folder.metrics.read_text().splitlines()] == [1]
    assert folder.log.read_text() == ""


def test_a_state_of_another_folder_brings_its_records(tmp_path):
    source = run(tmp_path / "source", [12.5])
    source.save_state(WEIGHTS, Position(epoch=1), DATA)
    source.add_record({"epoch": 2, "top_1": 13.0})
    other = RunFolder(config(tmp_path / "other"))
    other.go_on(other.read_state(str(source.path)))
    assert len(other.metrics.read_text().splitlines()) == 1
    assert len(source.metrics.read_text().splitlines()) == 2


def test_what_is_no_state_is_refused(tmp_path):
    folder = RunFolder(config(tmp_path / "run"))
    with pytest.raises(UserError, match="resume: .* does not exist"):
        folder.read_state(True)
    weights_file.write(tmp_path / "w.ckpt", WEIGHTS)
    with pytest.raises(UserError, match="holds weights, but no run state"):
        folder.read_state(str(tmp_path / "w.ckpt"))


def test_changes_that_matter_are_listed(tmp_path):
    before = config(tmp_path)
    after = before.replace(batch_size=7, log_interval=3, data_dir="moved", lr=0.5)
    assert changed_keys(before, after) == ["batch_size: 128 -> 7", "lr: 0.001 -> 0.5"]
