"""The update of all weights in one pass, against MindSpore's optimizers."""

import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindspore import nn

from mindghost.config import Config
from mindghost.ops import library, momentum
from mindghost.ops.momentum import MomentumUpdate
from mindghost.train import optim
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers.steps import batch, run, tiny

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")

ALL_OF_IT = StepOptions(loss_scale=8.0, dynamic_scale=True, accumulation=2, clip_norm=0.5, ema_decay=0.9)


def make_step(fused: bool, options: StepOptions, **keys) -> TrainStep:
    config = Config(model="ghostnet_050", **{"opt": "momentum", "weight_decay": 0.05, **keys})
    network = tiny()
    optimizer = optim.optimizer(config, network, [0.1, 0.05, 0.2, 0.1, 0.1, 0.1], "CPU")
    update = update_by(optimizer, LIBRARY if fused else None)
    assert isinstance(update, MomentumUpdate) == fused
    return TrainStep(network, create_loss("CE"), update, options).set_train(True)


def assert_equal_states(found: TrainStep, expected: TrainStep) -> None:
    found, expected = found.state(), expected.state()
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (StepOptions(), {}),
        (StepOptions(), {"use_nesterov": True}),
        (StepOptions(), {"opt": "sgd", "weight_decay_filter": "norm_and_bias"}),
        (StepOptions(clip_norm=0.1, ema_decay=0.5, loss_scale=4.0), {"weight_decay_filter": "auto"}),
        (ALL_OF_IT, {"use_nesterov": True, "weight_decay_filter": "auto", "momentum": 0.5}),
        (ALL_OF_IT, {"weight_decay": 0.0}),
    ],
    ids=["momentum", "nesterov", "sgd", "clip, average", "everything, nesterov", "everything"],
)
def test_updates_are_the_optimizers(options, keys, mode):
    ms.set_context(mode=mode)
    steps = [make_step(fused, options, **keys) for fused in (False, True)]
    start = steps[0].raw_weights()
    for index in range(6):
        images, labels = batch(4, index)
        if index == 2:
            images[1, 0, 2, 2] = np.inf if options.dynamic_scale else 0.0
        expected, found = (run(step, images, labels) for step in steps)
        assert found[1:] == expected[1:]
        assert found[0] == pytest.approx(expected[0], rel=1e-5, nan_ok=True)
    if options.dynamic_scale:
        # Batch norm's statistics have seen the infinity; the weights have not.
        steps[0], steps[1] = (without_statistics(step) for step in steps)
    assert_equal_states(steps[1], steps[0])
    assert not np.allclose(start["conv.weight"], steps[1].raw_weights()["conv.weight"], atol=1e-3)


def without_statistics(step: TrainStep) -> TrainStep:
    for parameter in step.get_parameters():
        if "moving" in parameter.name:
            parameter.set_data(ms.ops.zeros_like(parameter))
    return step


def test_a_run_goes_on_without_our_operators():
    """The state holds all that MindSpore's own update reads, SGD's `stat` too."""
    ms.set_context(mode=ms.GRAPH_MODE)
    alone, begun = (make_step(fused, StepOptions(), use_nesterov=True) for fused in (False, True))
    for index in range(2):
        for step in (alone, begun):
            run(step, *batch(4, index))
    ended = make_step(False, StepOptions(), use_nesterov=True)
    ended.load_state(begun.state())
    for step in (alone, ended):
        run(step, *batch(4, 2))
    assert_equal_states(ended, alone)


def test_other_optimizers_stay_mindspores():
    weights = tiny().trainable_params()
    assert momentum.covers(nn.Momentum(weights, 0.1, 0.9))
    assert momentum.covers(nn.SGD(weights, 0.1, momentum=0.9, nesterov=True))
    for other in (
        nn.Adam(weights),
        nn.SGD(weights, 0.1),
        nn.SGD(weights, 0.1, momentum=0.9, dampening=0.5),
        nn.Momentum(weights, 0.1, 0.9, use_nesterov=True),
        nn.Momentum(weights, 0.1, 0.9, loss_scale=8.0),
        nn.Momentum([{"params": weights[:2], "lr": 0.5}, {"params": weights[2:]}], 0.1, 0.9),
        nn.Momentum([{"params": weights, "grad_centralization": True}], 0.1, 0.9),
    ):
        assert not momentum.covers(other)
