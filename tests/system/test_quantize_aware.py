"""Training for integers by its commands: from a float run, killed and resumed, on two ranks, exported."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.models.quantized import is_range
from tests.helpers.commands import process
from tests.helpers.launchers import environment, mpirun_command, run
from tests.helpers.places import ROOT
from tests.helpers.training import arguments, assert_same_end

INTEGERS = {"quantize_aware": "int8", "ema": False, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def in_float(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("float") / "run"
    result = process(*arguments(images, folder, epoch_size=1, decay_epochs=1))
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "ghostnet_050_best.ckpt"


@pytest.fixture(scope="module")
def straight(images, in_float, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("integers") / "run"
    result = process(*arguments(images, folder, **INTEGERS, ckpt_path=in_float))
    assert (result.returncode, result.stderr) == (0, "")
    assert f"parameters from {in_float}" in result.stdout
    return folder


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


def test_its_file_evaluates_like_the_checkpoint(images, straight, tmp_path):
    """By mindghost and by ONNX Runtime alone; validate without any flag but the file."""
    short = str(ROOT / "tests" / "helpers" / "short.py")
    program = tmp_path / "mindghost.py"
    program.write_text("from mindghost.cli.main import main\n\nmain()\n", encoding="utf-8")
    path = straight / "ghostnet_050_best.ckpt"
    assert any(map(is_range, weights_file.read(path)))
    result = process(short, program, "export", "--ckpt_path", path, "--format", "onnx", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    exported = tmp_path / "ghostnet_050_best.onnx"
    lines = []
    for file in (path, exported):
        result = process(short, "validate.py", "--ckpt_path", str(file), "--data_dir", str(images))
        assert result.returncode == 0, result.stderr
        lines.append(json.loads(result.stdout.splitlines()[-1]))
    assert lines[0]["num_samples"] == lines[1]["num_samples"] > 0
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=0.02)
    taken = onnxruntime.InferenceSession(str(exported)).get_inputs()[0]
    assert (taken.name, taken.type) == ("image", "tensor(float)")


def test_it_begins_with_trained_weights(images, tmp_path):
    result = process(*arguments(images, tmp_path / "run", **INTEGERS))
    assert result.returncode == 2
    assert "quantize_aware: int8 begins with a network that is trained in float; name its weights with ckpt_path" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr


def test_half_precision_is_refused(images, tmp_path):
    result = process(*arguments(images, tmp_path / "run", **INTEGERS, amp_level="O2", ckpt_path="w.ckpt"))
    assert result.returncode == 2
    assert "amp_level" in result.stderr
    assert "Traceback" not in result.stderr


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
