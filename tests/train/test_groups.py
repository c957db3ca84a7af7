"""Rates of parts of a network: real updates against those computed by hand."""

import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindspore import nn

from mindghost.checkpoint import load, weights
from mindghost.config import Config
from mindghost.models.network import FeatureInfo, Network
from mindghost.ops import library
from mindghost.ops.updates import OnePassUpdate
from mindghost.train import groups, optim
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers.steps import batch, run
from tests.helpers.weights import randomise

RATE, DECAY = 0.1, 0.05
FACTORS = {"layer_decay": 0.5, "head_lr_factor": 10.0, "backbone_lr_factor": 2.0}
# Stem, two blocks, classifier: 2 * 0.5 ** 3 to 2 * 0.5 ** 1, and 10.
SCALES = {"conv1": 0.25, "bn1": 0.25, "layer1.0": 0.5, "layer1.1": 1.0, "fc": 10.0}


class Small(Network):
    """Stem, two blocks and a classifier, with bias and norms."""

    body = ("conv1", "bn1", "layer1")
    classifier_name = "fc"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, has_bias=True)
        self.bn1 = nn.BatchNorm2d(4)
        blocks = [nn.SequentialCell(nn.SequentialCell(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))) for _ in range(2)]
        self.layer1 = nn.SequentialCell(blocks)
        self.feature_info = FeatureInfo.last_of_each_stride([("layer1", 4, 1)])
        self.add_head(4, 5, 0.0)


def small() -> Small:
    network = Small()
    randomise(network, 0)
    return network


def make_step(native: bool = False, rates=(RATE, RATE), options=None, **keys) -> TrainStep:
    config = Config(model="ghostnet_050", **{"weight_decay": DECAY, "eps": 1e-3, **keys})
    network = small()
    optimizer = optim.optimizer(config, network, list(rates), "CPU", native=native)
    update = update_by(optimizer, library.library() if native else None)
    assert isinstance(update, OnePassUpdate) == native
    return TrainStep(network, create_loss("CE"), update, options or StepOptions()).set_train(True)


def scale_of(name: str) -> float:
    return next(scale for start, scale in SCALES.items() if name.startswith(f"{start}."))


def undecayed(name: str, decay_filter: str) -> bool:
    return {
        "disable": False,
        "auto": name.endswith((".gamma", ".beta")),
        "norm_and_bias": name.endswith((".gamma", ".beta", ".bias")),
    }[decay_filter]


@pytest.fixture(scope="module")
def gradients() -> dict[str, np.ndarray]:
    """Of the first batch, from an update by rate 1 without factors or decay."""
    ms.set_context(mode=ms.GRAPH_MODE)
    step = make_step(rates=(1.0, 1.0), opt="momentum", weight_decay=0.0)
    before = step.raw_weights()
    run(step, *batch(4))
    after = step.raw_weights()
    return {p.name: before[p.name].astype(np.float64) - after[p.name] for p in step.network.trainable_params()}


def first_update(opt: str, weight: np.ndarray, gradient: np.ndarray, rate: float, decay: float) -> np.ndarray:
    """Change of a weight by the definitions, in double precision; eps is 1e-3 for rmsproptf."""
    if opt == "adamw":
        # Both moments are corrected for their start, so that the gradient's size falls out.
        return -rate * (gradient / (np.abs(gradient) + 1e-8) + decay * weight)
    gradient = gradient + decay * weight
    if opt == "adam":
        return -rate * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1e-3))
    if opt == "rmsproptf":
        return -rate * gradient / np.sqrt(0.9 + 0.1 * gradient**2 + 1e-3)
    return -rate * gradient


@pytest.mark.parametrize(
    ("opt", "decay_filter", "native"),
    [
        ("momentum", "norm_and_bias", False),
        ("momentum", "norm_and_bias", True),
        pytest.param("momentum", "auto", True, marks=pytest.mark.slow),
        ("sgd", "disable", True),
        pytest.param("sgd", "disable", False, marks=pytest.mark.slow),
        pytest.param("adam", "auto", False, marks=pytest.mark.slow),
        ("adamw", "norm_and_bias", False),
        ("adamw", "norm_and_bias", True),
        ("rmsproptf", "norm_and_bias", False),
        ("rmsproptf", "norm_and_bias", True),
    ],
)
def test_the_first_update_of_each_layer(opt, decay_filter, native, gradients):
    step = make_step(native, opt=opt, weight_decay_filter=decay_filter, **FACTORS)
    before = step.raw_weights()
    run(step, *batch(4))
    after = step.raw_weights()
    assert len(gradients) == 12
    for name, gradient in gradients.items():
        decay = 0.0 if undecayed(name, decay_filter) else DECAY
        expected = first_update(opt, before[name], gradient, RATE * scale_of(name), decay)
        # Of a gradient near zero (a bias before a norm), adam makes anything between one rate and its negative.
        clear = np.abs(gradient) > 1e-5 if opt.startswith("adam") else np.full(gradient.shape, True)
        found = after[name].astype(np.float64) - before[name]
        np.testing.assert_allclose(found[clear], expected[clear], rtol=2e-3, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    "keys", [pytest.param({}, marks=pytest.mark.slow), {"use_nesterov": True}], ids=["momentum", "nesterov"]
)
def test_our_operators_update_as_mindspore_does(keys):
    options = StepOptions(loss_scale=8.0, dynamic_scale=True, accumulation=2, clip_norm=0.5, ema_decay=0.9)
    rates = (0.1, 0.05, 0.2)
    steps = [make_step(native, rates, options, opt="momentum", **FACTORS, **keys) for native in (False, True)]
    for index in range(6):
        for step in steps:
            run(step, *batch(4, index))
    expected, found = (step.state() for step in steps)
    assert list(found) == list(expected)
    assert expected["global_step"] == 3
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=2e-6, err_msg=name)


def test_a_state_holds_no_rates_and_is_taken_up(tmp_path):
    """Resumed exactly; and its moments, by `resume_opt`, without its count of updates."""
    keys = {"opt": "momentum", **FACTORS}
    first = make_step(rates=(0.1, 0.2, 0.3), **keys)
    for index in range(2):
        run(first, *batch(4, index))
    state = first.state()
    assert not [name for name in state if "learning_rate" in name or "table" in name]
    assert set(state) == set(make_step(opt="momentum").state())
    second = make_step(rates=(0.1, 0.2, 0.3), **keys)
    second.load_state(state)
    for step in (first, second):
        run(step, *batch(4, 2))
    for name, array in first.state().items():
        np.testing.assert_array_equal(second.state()[name], array, err_msg=name)
    weights.write(tmp_path / "state.ckpt", state)
    third = make_step(rates=(0.1, 0.2, 0.3), **keys)
    assert load.fill_optimizer(third.optimizer, tmp_path / "state.ckpt") == 12
    assert third.state()["global_step"] == 0
    np.testing.assert_array_equal(third.state()["moments.fc.weight"], state["moments.fc.weight"])


def test_without_factors_there_are_no_groups():
    network = small()
    for keys in ({}, {"layer_decay": 1.0, "head_lr_factor": 1.0}):
        assert groups.scales(Config(**keys), network) == {}
    assert not optim.optimizer(Config(opt="momentum", layer_decay=1.0), network, [0.1], "CPU").is_group_lr


def test_factors_multiply_with_the_decay_of_layers():
    network = small()
    found = groups.scales(Config(**FACTORS), network)
    assert found == {p.name: scale_of(p.name) for p in network.trainable_params()}
    network.conv1.weight.requires_grad = False
    assert "conv1.weight" not in groups.scales(Config(**FACTORS), network)
