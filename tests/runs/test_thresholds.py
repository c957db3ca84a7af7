"""The thresholds of a network's answers lie beside the weights that they were found for, and go with them."""

import json

import pytest

from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.runs import files as run_files
from mindghost.runs.files import RunFiles, temperature_beside, thresholds_beside
from mindghost.runs.folder import RunFolder
from tests.helpers.run_folders import WEIGHTS, config

END = ".thresholds.json"


def started(path, **keys) -> RunFolder:
    folder = RunFolder(config(path, keep_checkpoint_max=2, **keys))
    folder.start(keys.get("overwrite", False))
    folder.add_session({"command": "python train.py", "started": "2026-01-01T00:00:00+00:00"}, None)
    return folder


def found(path) -> dict[str, list[float]]:
    return {file.name.removesuffix(END): json.loads(file.read_text()) for file in path.glob(f"*{END}")}


def test_each_weight_file_has_its_own(tmp_path):
    with started(tmp_path) as folder:
        for epoch, best in ((1, True), (2, False), (3, False)):
            folder.save_weights(WEIGHTS, epoch, 7, best, keep=True, thresholds=(0.1 * epoch, 0.5))
            folder.add_record({"epoch": epoch, "top_1": 1.0})
        # Those of the first epoch's file went with it.
        expected = {"best": [0.1, 0.5], "last": [0.1 * 3, 0.5], "2_7": [0.1 * 2, 0.5], "3_7": [0.1 * 3, 0.5]}
        assert {name[13:]: values for name, values in found(tmp_path).items()} == expected
        assert thresholds_beside(folder.best, 2) == (0.1, 0.5)
        # An epoch that was not validated has none.
        folder.save_weights(WEIGHTS, 4, 7, best=False, keep=False)
        assert thresholds_beside(folder.last, 2) is None
    assert {file.name for file in run_files.belonging(tmp_path)} >= {f"{name}{END}" for name in found(tmp_path)}
    with started(tmp_path, overwrite=True):
        assert found(tmp_path) == {}


def test_a_temperature_goes_with_its_weights(tmp_path):
    with started(tmp_path) as folder:
        folder.save_weights(WEIGHTS, 1, 7, best=True, keep=True)
        files = [RunFiles.temperature(file) for file in (folder.best, folder.last, folder.of_epoch(1, 7))]
        assert [file.name[13:] for file in files] == [f"{name}.temperature.json" for name in ("best", "last", "1_7")]
        for file in files:
            file.write_text('{"temperature": 1.5, "images": 3}')
        assert temperature_beside(folder.best) == 1.5
        assert set(files) <= set(run_files.belonging(tmp_path))
        assert files[0] in run_files.companions(folder.best)
        # The best weights stay, the last ones are others now.
        folder.save_weights(WEIGHTS, 2, 7, best=False, keep=True)
        assert [file.exists() for file in files] == [True, False, True]
        for epoch in (1, 2):
            folder.add_record({"epoch": epoch, "top_1": 1.0})
        folder.save_weights(WEIGHTS, 3, 7, best=False, keep=True)
        folder.add_record({"epoch": 3, "top_1": 1.0})
        # That of the first epoch's file went with it.
        assert [file.exists() for file in files] == [True, False, False]
    with started(tmp_path, overwrite=True):
        assert not any(file.exists() for file in files)


def test_a_crash_leaves_no_weights_beside_the_thresholds_of_others(tmp_path, monkeypatch):
    with started(tmp_path) as folder:
        folder.save_weights(WEIGHTS, 1, 7, best=True, keep=False, thresholds=(0.1,))
        real = intact.write_atomically

        def dies(path, content):
            if path.name.endswith(END):
                raise KeyboardInterrupt
            real(path, content)

        monkeypatch.setattr(intact, "write_atomically", dies)
        with pytest.raises(KeyboardInterrupt):
            folder.save_weights(WEIGHTS, 2, 7, best=True, keep=False, thresholds=(0.2,))
    # The last weights are the new ones, without thresholds; the best ones were not reached yet.
    assert {name[13:]: values for name, values in found(tmp_path).items()} == {"best": [0.1]}


@pytest.mark.fault("labels", "clean error")
def test_thresholds_of_somebody_else_are_not_replaced(tmp_path):
    (tmp_path / f"ghostnet_050_best{END}").write_text("[0.5]")
    with pytest.raises(UserError, match=f"holds ghostnet_050_best{END}, which no run has made there"):
        started(tmp_path)


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[0.1, 1.5]", "expected a list of thresholds from 0 to 1"),
        ('{"a": 0.1}', "expected a list of thresholds from 0 to 1"),
        ("[0.1, true]", "expected a list of thresholds from 0 to 1"),
        ("[0.1, NaN]", "expected a list of thresholds from 0 to 1"),
        ("[0.1]", "1 thresholds for 2 outputs"),
        ("[0.1", "not JSON"),
    ],
)
def test_files_that_hold_something_else(tmp_path, text, why):
    weights = tmp_path / "x_best.ckpt"
    file = RunFiles.thresholds(weights)
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        thresholds_beside(weights, 2)
    assert str(caught.value).startswith(f"{file}: {why}")
    assert "restore the one that training wrote, or delete it" in str(caught.value)


def test_names():
    assert RunFiles.thresholds(run_files.Path("r/a_best.ckpt")).name == f"a_best{END}"
    for name in (f"a_best{END}", "a_best.ckpt", "a_best.ckpt.sha256"):
        assert run_files.weights_of(name) == "a_best.ckpt"
        assert run_files.is_given(name)
    assert not run_files.is_given(f"notes{END}")
