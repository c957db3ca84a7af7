"""Golden weights by PyTorch's names and by ours, and the command that converts them."""

import numpy as np
import pytest

from mindghost.checkpoint.names import from_pytorch
from mindghost.cli import main
from tests.helpers.converted import NAME
from tests.helpers.weights import golden_state


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
def run(capsys):
    """Exit status, standard output and standard error of `mindghost convert` with these arguments."""

    def command(*arguments: object) -> tuple[int, str, str]:
        model = () if "--model" in arguments else ("--model", NAME)
        status = main.run(["convert", *map(str, arguments), *model])
        return status, *capsys.readouterr()

    return command
