"""The update of all weights in one pass, against MindSpore's optimizers."""

import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindcv.optim.adamw import AdamW
from mindspore import nn

from mindghost.config import Config
from mindghost.ops import library
from mindghost.ops.updates import OnePassUpdate, one_pass
from mindghost.train import optim
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import averages_by, update_by
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
    optimizer = optim.optimizer(config, network, [0.1, 0.05, 0.2, 0.1, 0.1, 0.1], "CPU", native=fused)
    update = update_by(optimizer, LIBRARY if fused else None)
    assert isinstance(update, OnePassUpdate) == fused
    averages = averages_by(list(network.get_parameters()), LIBRARY if fused else None)
    return TrainStep(network, create_loss("CE"), update, options, averages=averages).set_train(True)


def assert_equal_states(found: TrainStep, expected: TrainStep) -> None:
    found, expected = found.state(), expected.state()
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=2e-6, err_msg=name)


CASES = {
    "momentum": (StepOptions(), {}),
    "nesterov": (StepOptions(), {"use_nesterov": True}),
    "sgd": (StepOptions(), {"opt": "sgd", "weight_decay_filter": "norm_and_bias"}),
    "clip, average": (StepOptions(clip_norm=0.1, ema_decay=0.5, loss_scale=4.0), {"weight_decay_filter": "auto"}),
    "everything, nesterov": (ALL_OF_IT, {"use_nesterov": True, "weight_decay_filter": "auto", "momentum": 0.5}),
    "everything": (ALL_OF_IT, {"weight_decay": 0.0}),
    "adamw": (StepOptions(), {"opt": "adamw", "weight_decay_filter": "norm_and_bias"}),
    "everything, adamw": (ALL_OF_IT, {"opt": "adamw", "weight_decay_filter": "auto"}),
    "rmsproptf": (StepOptions(), {"opt": "rmsproptf", "eps": 1e-3, "weight_decay_filter": "norm_and_bias"}),
    "everything, rmsproptf": (ALL_OF_IT, {"opt": "rmsproptf", "eps": 0.1}),
}
# Of each optimizer, what asks most of it; operator by operator, all of it.
GRAPHS = ("nesterov", "clip, average", "everything, nesterov", "everything, adamw", "everything, rmsproptf")


@pytest.mark.parametrize(
    ("case", "mode"), [*((case, ms.GRAPH_MODE) for case in GRAPHS), *((case, ms.PYNATIVE_MODE) for case in CASES)]
)
def test_updates_are_the_optimizers(case, mode):
    options, keys = CASES[case]
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


@pytest.mark.parametrize("keys", [{"use_nesterov": True}, {"opt": "adamw"}, {"opt": "rmsproptf", "eps": 1e-3}])
def test_a_run_goes_on_without_our_operators(keys):
    """The state holds all that MindSpore's own update reads: SGD's `stat`, the powers of AdamW's betas."""
    ms.set_context(mode=ms.GRAPH_MODE)
    alone, begun = (make_step(fused, StepOptions(), **keys) for fused in (False, True))
    for index in range(2):
        for step in (alone, begun):
            run(step, *batch(4, index))
    ended = make_step(False, StepOptions(), **keys)
    ended.load_state(begun.state())
    for step in (alone, ended):
        run(step, *batch(4, 2))
    assert_equal_states(ended, alone)


def test_other_optimizers_stay_mindspores():
    weights = tiny().trainable_params()
    assert one_pass(LIBRARY, nn.Momentum(weights, 0.1, 0.9))
    assert one_pass(LIBRARY, nn.SGD(weights, 0.1, momentum=0.9, nesterov=True))
    assert one_pass(LIBRARY, AdamW(weights, 0.1))
    for other in (
        nn.Adam(weights),
        AdamW(weights, 0.1, clip=True),
        AdamW(weights, 0.1, loss_scale=8.0),
        nn.SGD(weights, 0.1),
        nn.SGD(weights, 0.1, momentum=0.9, dampening=0.5),
        nn.Momentum(weights, 0.1, 0.9, use_nesterov=True),
        nn.Momentum(weights, 0.1, 0.9, loss_scale=8.0),
        nn.Momentum([{"params": weights[:2], "lr": 0.5}, {"params": weights[2:]}], 0.1, 0.9),
        nn.Momentum([{"params": weights, "grad_centralization": True}], 0.1, 0.9),
    ):
        assert one_pass(LIBRARY, other) is None


# --- LAMB, which MindSpore has no kernel for on a CPU

BETA1, BETA2, EPS, MOST = 0.9, 0.999, 1e-6, 10.0
LAMB_RATES = [0.1, 0.05, 0.2, 0.1]


def lamb_by_hand(weights, gradients, decays):
    """LAMB's definition in double precision (You et al., 2020), with MindSpore's limit of the ratio."""
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    means, squares = ({name: np.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    for count, (rate, update) in enumerate(zip(LAMB_RATES, gradients, strict=True), 1):
        for name, gradient in update.items():
            means[name] = BETA1 * means[name] + (1 - BETA1) * gradient
            squares[name] = BETA2 * squares[name] + (1 - BETA2) * gradient.astype(np.float64) ** 2
            mean, square = means[name] / (1 - BETA1**count), squares[name] / (1 - BETA2**count)
            direction = mean / (np.sqrt(square) + EPS) + decays[name] * weights[name]
            lengths = np.linalg.norm(weights[name]), np.linalg.norm(direction)
            trust = min(lengths[0] / lengths[1], MOST) if min(lengths) > 0 else 1.0
            weights[name] = weights[name] - rate * trust * direction
    return weights


def lamb_gradients(shapes):
    rng = np.random.default_rng(4)
    return [{name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in LAMB_RATES]


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_lamb_follows_its_definition(mode):
    ms.set_context(mode=mode)
    network = tiny()
    network.bn.beta.set_data(ms.ops.zeros_like(network.bn.beta))  # has no length
    network.classifier.bias.set_data(ms.ops.ones_like(network.classifier.bias) * 50)  # is longer than ten directions
    config = Config(model="ghostnet_050", opt="lamb", weight_decay=0.05, weight_decay_filter="norm_and_bias")
    update = one_pass(LIBRARY, optim.optimizer(config, network, LAMB_RATES, "CPU", native=True))
    start = {p.name: p.asnumpy().copy() for p in network.trainable_params()}
    gradients = lamb_gradients({name: weight.shape for name, weight in start.items()})
    decays = {name: 0.05 if name in ("conv.weight", "classifier.weight") else 0.0 for name in start}
    for each in gradients:
        # What a loss scale of 4 gives, and a factor that takes it back.
        scaled = tuple(ms.Tensor(4 * each[p.name]) for p in update.weights)
        update.apply(scaled, ms.Tensor(0.25, ms.float32)).asnumpy()
    expected = lamb_by_hand(start, gradients, decays)
    for parameter in network.trainable_params():
        np.testing.assert_allclose(parameter.asnumpy(), expected[parameter.name], rtol=2e-5, err_msg=parameter.name)


def test_the_hand_computed_lamb_is_timms(timm):
    import torch

    weight = np.random.default_rng(2).standard_normal(21).astype(np.float32)
    gradients = lamb_gradients({"w": weight.shape})
    expected = lamb_by_hand({"w": weight}, gradients, {"w": 0.05})
    parameter = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = timm.optim.Lamb([parameter], lr=0.1, weight_decay=0.05, max_grad_norm=None)
    for rate, update in zip(LAMB_RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.from_numpy(update["w"].copy())
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), expected["w"], rtol=1e-5)


def test_a_training_by_lamb():
    """It learns, and what its step holds is taken up by another one."""
    ms.set_context(mode=ms.GRAPH_MODE)
    steps = [make_step(True, ALL_OF_IT, opt="lamb") for _ in range(2)]
    losses = [run(steps[0], *batch(4))[0] for _ in range(6)]
    assert losses[-1] < losses[0]
    steps[1].load_state(steps[0].state())
    assert run(steps[0], *batch(4))[0] == pytest.approx(run(steps[1], *batch(4))[0], rel=1e-6)
