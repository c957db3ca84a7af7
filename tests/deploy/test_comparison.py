"""Which file to ship: all that can be made is made and measured, and the recommendation follows from the numbers."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mindghost.deploy import comparison
from mindghost.deploy.comparison import Measured, clock
from mindghost.deploy.comparison.clock import Speed
from mindghost.deploy.comparison.files import Candidate
from mindghost.inference.formats.onnx_file import ONNX
from tests.helpers import card_runs, trained
from tests.helpers.commands import run_mindghost
from tests.helpers.edge import need
from tests.helpers.pictures import write_images

SHORT = ("--formats", "onnx", "openvino", "--seconds", 1, "--calib_images", 8, "--max_drop", 100)


@pytest.fixture
def run(tmp_path, short_network) -> Path:
    """A run's folder, with random weights, and its images."""
    images = write_images(tmp_path / "images", trained.CLASSES, 8, 6)
    folder = card_runs.write_run(tmp_path / "run")
    trained.write_run(folder, model="ghostnet_050", data_dir=str(images))
    return folder


def test_all_files_are_made_and_measured(run, capsys):
    need("openvino")
    pytest.importorskip("nncf")
    assert run_mindghost("deploy-report", run, *SHORT) == 0
    printed = capsys.readouterr().out.splitlines()
    record = json.loads((run / "deploy" / "deploy_report.json").read_text())
    kinds = {(file["format"], file["precision"].split()[0]) for file in record["files"]}
    assert kinds == {(form, kind) for form in ("onnx", "openvino") for kind in ("float32", "float16", "int8")}
    assert record["missing"] == {}
    for file in record["files"]:
        path = Path(file["path"])
        parts = [path] if path.suffix == ".onnx" else [path, path.with_suffix(".bin")]
        assert file["size"] == sum(part.stat().st_size for part in parts)
        assert 0 < file["latency_ms"] <= file["latency_p90_ms"]
        assert file["images_per_second"] > 0
        # Float files have the checkpoint's answers.
        assert file["precision"] != "float32" or file["top_1"] == record["top_1"]
        assert run_mindghost("validate", "--ckpt_path", path, "--data_dir", run.parent / "images") == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["top_1"] == pytest.approx(file["top_1"], abs=1e-9)
    assert f"ship: {record['recommended']}" in printed
    with Image.open(run / "deploy" / "deploy_report.png") as drawn:
        assert drawn.format == "PNG"
    # A second time, the files that were made are replaced.
    assert run_mindghost("deploy-report", run, *SHORT, "--no_int8", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert [file["precision"] for file in again["files"]] == ["float32", "float32"]


def test_a_runtime_that_is_not_here_is_left_out(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run_mindghost("deploy-report", run, *SHORT, "--no_int8") == 0
    assert "left out: openvino: --format openvino: openvino is missing" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run_mindghost("deploy-report", run, *SHORT, "--no_int8") == 2
    assert "no file can be made of it here: onnx: " in capsys.readouterr().err


def test_without_matplotlib_nothing_is_begun(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_mindghost("deploy-report", run) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (run / "deploy").exists()


def file_of(name: str, score: float, median: float, size: int) -> Measured:
    return Measured(
        Candidate(Path(name), ONNX, "float32", size), SimpleNamespace(score=score), Speed(median, median, 1.0)
    )


def test_the_fastest_that_is_good_enough_is_chosen():
    files = [file_of("slow", 90.0, 4.0, 9), file_of("good", 89.1, 2.0, 9), file_of("bad", 88.9, 1.0, 9)]
    checkpoint = SimpleNamespace(score=90.0)
    for max_drop, name in ((0.0, "slow"), (0.9, "good"), (1.0, "good"), (1.1, "bad")):
        assert comparison._chosen(files, checkpoint, max_drop).candidate.path.name == name
    assert comparison._chosen(files, SimpleNamespace(score=95.0), 1.0) is None
    # As fast, but smaller; much smaller, but slower.
    small = [*files, file_of("small", 89.5, 2.09, 5), file_of("tiny", 89.5, 2.2, 1)]
    assert comparison._chosen(small, checkpoint, 1.0).candidate.path.name == "small"


def test_files_take_turns():
    order = []
    calls = [lambda name=name: order.append(name) for name in "abc"]
    times = clock._times(calls, 0.0)
    assert [len(part) for part in times] == [5, 5, 5]
    assert "".join(order) == "abc" * 6
