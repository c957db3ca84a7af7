"""Golden weights by PyTorch's names and by ours, and the command that converts them."""

import re
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindghost.checkpoint import safetensors as safetensors_file
from mindghost.checkpoint.load import fill_network
from mindghost.checkpoint.names import from_pytorch
from mindghost.cli.command import run_command
from mindghost.models import create_model
from scripts import convert_weights
from tests.conftest import GOLDEN, golden_state

ROOT = Path(__file__).parents[2]
NAME = "ghostnet_050"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """The golden weights by PyTorch names, with the counters of PyTorch's batch norms and of thop."""
    arrays = golden_state(NAME)
    layers = [name.removesuffix(".running_var") for name in arrays if name.endswith(".running_var")]
    counters = {f"{layer}.num_batches_tracked": np.array(7) for layer in layers}
    return arrays | counters | {"total_ops": np.zeros(1), "blocks.0.0.total_params": np.zeros(1)}


@pytest.fixture(scope="module")
def ours(state) -> dict[str, np.ndarray]:
    """The same by our names, in the network's order."""
    return from_pytorch(state)


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit status, standard output and standard error of scripts/convert_weights.py with these arguments."""

    def command(*arguments: object) -> tuple[int, str, str]:
        model = () if "--model" in arguments else ("--model", NAME)
        monkeypatch.setattr(sys, "argv", ["convert_weights.py", *map(str, arguments), *model])
        status = run_command("convert_weights.py", convert_weights.main)
        return status, *capsys.readouterr()

    return command


def write_safetensors(path: Path, arrays) -> Path:
    path.write_bytes(safetensors_file.encode(arrays))
    return path


def loaded(path: Path) -> ms.nn.Cell:
    network = create_model(NAME)
    fill_network(network, path, stem="conv_stem", classifier="classifier")
    return network


def golden_example() -> tuple[np.ndarray, np.ndarray]:
    """Images and the original code's logits for them, of one size."""
    golden = np.load(GOLDEN / f"{NAME}.npz")
    key = golden.files[0]
    images = np.random.default_rng(20200613).standard_normal((2, 3, *map(int, re.findall(r"\d+", key))))
    return images.astype(np.float32), golden[key]


def assert_golden(path: Path) -> None:
    """The weights give the logits of the original code."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = loaded(path).set_train(False)
    images, expected = golden_example()
    np.testing.assert_allclose(network(Tensor(images)).asnumpy(), expected, rtol=0, atol=1e-4)


def assert_same(found, expected) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name
