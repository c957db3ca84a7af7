"""Parameters get values of their own shape, or none."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindghost.config import Config
from mindghost.evaluate.evaluator import WeightsEvaluator
from mindghost.models.parameters import assign
from tests.helpers.places import ROOT

SOURCE = ROOT / "src" / "mindghost"
SHAPES = [(8,), (9,), (1,), (), (2, 4), (1, 8), (8, 1), (1, 1), (0,)]


def test_mindspore_takes_any_shape():
    """What `assign` is for. Where this fails, MindSpore has learnt it."""
    parameter = Parameter(Tensor(np.ones(8, np.float32)), name="w")
    parameter.set_data(Tensor(np.ones((1,), np.float32)))
    assert parameter.shape == (1,)


@pytest.mark.fault("weights", "clean error")
@pytest.mark.parametrize("wanted", SHAPES)
def test_another_shape_is_never_assigned(wanted):
    parameter = Parameter(Tensor(np.zeros(wanted, np.float32)), name="layer.w")
    for found in SHAPES:
        values = np.ones(found, np.float32)
        if found == wanted:
            continue
        for given in (values, Tensor(values)):
            message = f"layer.w has shape {found} instead of {wanted}"
            with pytest.raises(ValueError, match=re.escape(message)):
                assign(parameter, given)
    assert parameter.shape == wanted
    assert not parameter.asnumpy().any()


def test_values_are_copied_into_the_parameters_own_type():
    values = np.array([1.5, 2.5, 3.5])
    parameter = Parameter(Tensor(np.zeros(3, np.float32)), name="w")
    assign(parameter, values)
    values[:] = 0
    assert parameter.dtype == ms.float32
    assert parameter.asnumpy().tolist() == [1.5, 2.5, 3.5]
    number = Parameter(Tensor(0, ms.int32), name="n")
    assign(number, np.array(7))
    assert (number.dtype, int(number)) == (ms.int32, 7)


def test_nothing_else_assigns():
    users = [path.name for path in SOURCE.rglob("*.py") if re.search(r"\bset_data\(", path.read_text())]
    assert users == ["parameters.py"]


@pytest.mark.fault("weights", "clean error")
def test_weights_of_another_network_are_never_evaluated():
    """A network of other classes than its evaluator's was evaluated without a word, and shipped."""
    evaluator = WeightsEvaluator.__new__(WeightsEvaluator)
    evaluator.config = Config()
    evaluator.network = nn.Dense(4, 3)
    weights = {p.name: np.zeros(p.shape, np.float32) for p in nn.Dense(4, 1000).get_parameters()}
    with pytest.raises(ValueError, match=r"weight has shape \(1000, 4\) instead of \(3, 4\)"):
        evaluator(weights)
