"""Two processes and one folder of a run."""

import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.errors import UserError
from mindghost.runs.folder import RunFolder
from tests.helpers.locks import lock_holder
from tests.helpers.run_folders import WEIGHTS, config, names, run, save


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
