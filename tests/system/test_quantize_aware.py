"""Training for integers by its commands: from a float network, resumed, on two ranks, exported."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from mindspore import nn

import train
from mindghost.checkpoint import weights as weights_file
from mindghost.models.quantized import is_range, quantize_aware
from mindghost.parallel import replicas
from tests.helpers import short
from tests.helpers.commands import command, process, run_mindghost
from tests.helpers.launchers import environment, mpirun_command, run
from tests.helpers.pictures import CLASSES
from tests.helpers.places import ROOT
from tests.helpers.steps import make_step
from tests.helpers.trained import write_run
from tests.helpers.training import arguments, assert_same_end, without_times
from tests.helpers.two_ranks import both

INTEGERS = {"quantize_aware": "int8", "ema": False, "gradient_accumulation_steps": 1, "num_parallel_workers": 1}


@pytest.fixture(scope="module", autouse=True)
def short_networks() -> Iterator[None]:
    with short.network():
        yield


@pytest.fixture(scope="module")
def in_float(short_networks, tmp_path_factory) -> Path:
    path = write_run(tmp_path_factory.mktemp("float") / "run", model="ghostnet_050", num_classes=len(CLASSES))
    path.with_name("classes.json").write_text(json.dumps(list(CLASSES)))
    return path


@pytest.fixture(scope="module")
def straight(images, in_float, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("integers") / "run"
    assert run_mindghost("train", *arguments(images, folder, **INTEGERS, ckpt_path=in_float)[2:]) == 0
    assert f"parameters from {in_float}" in (folder / "train.log").read_text()
    return folder


def test_a_run_that_goes_on_ends_the_same(images, in_float, straight, tmp_path):
    """Within an epoch: ranges are part of its state."""
    line = arguments(images, tmp_path / "again", **INTEGERS, ckpt_path=in_float)[2:]
    assert run_mindghost("train", *line, "--resume", straight / "run_state_previous.ckpt") == 0
    assert "1 epochs and 4 steps are done" in (tmp_path / "again" / "train.log").read_text()
    assert without_times(tmp_path / "again") == without_times(straight)
    for name in ("ghostnet_050_last.ckpt", "run_state.ckpt"):
        found, expected = (weights_file.read(folder / name) for folder in (tmp_path / "again", straight))
        assert set(found) == set(expected)
        for key in set(expected) - {"run_log_bytes", "run_metrics_bytes"}:  # of text that holds times
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name}: {key}")


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(images, in_float, straight, tmp_path):
    folder = tmp_path / "run"
    command = arguments(images, folder, **INTEGERS, ckpt_path=in_float)
    killed = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment(folder.parent), cwd=ROOT
    )
    assert any(line.startswith("epoch 2/2  step 3/6") for line in killed.stdout)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    killed.stdout.close()
    result = process(*command, "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert_same_end(folder, straight)


def test_its_file_evaluates_like_the_checkpoint(images, straight, tmp_path, capsys):
    """By mindghost and by ONNX Runtime alone; validate without any flag but the file."""
    path = straight / "ghostnet_050_best.ckpt"
    assert any(map(is_range, weights_file.read(path)))
    assert run_mindghost("export", "--ckpt_path", path, "--format", "onnx", "--out", tmp_path) == 0
    exported = tmp_path / "ghostnet_050_best.onnx"
    lines = []
    for file in (path, exported):
        capsys.readouterr()
        assert run_mindghost("validate", "--ckpt_path", file, "--data_dir", images) == 0
        lines.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert lines[0]["num_samples"] == lines[1]["num_samples"] > 0
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=0.02)
    taken = onnxruntime.InferenceSession(str(exported)).get_inputs()[0]
    assert (taken.name, taken.type) == ("image", "tensor(float)")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "quantize_aware: int8 begins with a network that is trained in float; name its weights with ckpt_path"),
        ({"amp_level": "O2", "ckpt_path": "w.ckpt"}, "amp_level"),
    ],
)
def test_what_cannot_be_trained_is_one_line(keys, expected, images, tmp_path, monkeypatch, capsys):
    line = arguments(images, tmp_path / "run", **INTEGERS, **keys)[2:]
    status, error = command(train.main, "train.py", *line, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert error.startswith("train.py: error: ")
    assert error.count("\n") == 1
    assert expected in error


def test_ranks_save_the_mean_of_their_ranges():
    """Each has seen other images; all else is equal on all of them."""
    layers = (nn.Conv2d(3, 4, 1, has_bias=True), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(4, 2))
    step = make_step(quantize_aware(nn.SequentialCell(*layers)), [0.1])
    ranges = {name for name in step.raw_weights() if is_range(name)}
    assert len(ranges) > 2
    assert ranges <= step.own_entries()

    def saved(ranks):
        weights = {name: array + ranks.rank * (name in ranges) for name, array in step.raw_weights().items()}
        replicas.check_equal(ranks, {name: weights[name] for name in set(weights) - step.own_entries()}, "here")
        return replicas.averaged(ranks, weights, sorted(step.own_entries() & set(weights)))

    for found in both(saved):
        for name, array in step.raw_weights().items():
            np.testing.assert_allclose(found[name], array + 0.5 * (name in ranges), rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_ranks_end_with_the_same_ranges(images, in_float, tmp_path):
    """Each rank has seen other images: what is saved is the mean of their ranges."""
    folder = tmp_path / "run"
    keys = {**INTEGERS, "epoch_size": 1, "decay_epochs": 1, "distribute": True}
    command = arguments(images, folder, **keys, ckpt_path=in_float)
    result = run(mpirun_command(2, *command), tmp_path)
    assert result.returncode == 0, result.stderr
    saved = weights_file.read(folder / "ghostnet_050_last.ckpt")
    ends = np.concatenate([array.reshape(-1) for name, array in saved.items() if is_range(name)])
    assert np.isfinite(ends).all()
    assert np.abs(ends).max() > 0
