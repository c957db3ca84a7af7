"""The training step against hand-computed values and the original code's trajectories."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindspore import Tensor, nn

from ghostnet import optim
from ghostnet import step as step_module
from ghostnet.config import Config
from ghostnet.convert import from_pytorch
from ghostnet.models import create_model
from ghostnet.models.layers import freeze_batch_norm
from ghostnet.step import StepOptions, TrainStep
from tests.conftest import GOLDEN, golden_state, randomise


class Tiny(nn.Cell):
    """Convolution, batch norm and a classifier of 5 classes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, pad_mode="pad", padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.classifier = nn.Dense(4, 5)

    def construct(self, x):
        return self.classifier(self.bn(self.conv(x)).mean((2, 3)))


def tiny(seed: int = 0) -> Tiny:
    network = Tiny()
    randomise(network, seed)
    return network


def make_step(network, rates, options=None, *, opt="momentum", momentum=0.9, weight_decay=0.0) -> TrainStep:
    config = Config(model="ghostnet_050", opt=opt, momentum=momentum, weight_decay=weight_decay, eps=1e-3)
    optimizer = optim.optimizer(config, network, rates, "CPU")
    return TrainStep(network, create_loss("CE"), optimizer, options or StepOptions()).set_train(True)


def batch(size: int, seed: int = 0, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, 3, 6, 6)).astype(np.float32)
    return images, rng.integers(0, classes, size).astype(np.int32)


def run(step: TrainStep, images: np.ndarray, labels: np.ndarray) -> tuple[float, bool, float]:
    loss, finite, scale = step(Tensor(images), Tensor(labels))
    return float(loss), bool(finite), float(scale)


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_trajectory_of_the_original_code(index):
    golden = json.loads((GOLDEN / "trajectories.json").read_text())[index]
    network = create_model(golden["model"], num_classes=10, drop_rate=0.0)
    weights = from_pytorch(golden_state(golden["model"], num_classes=10))
    ms.load_param_into_net(network, {name: ms.Parameter(array, name=name) for name, array in weights.items()})
    rng = np.random.default_rng(11)
    images = rng.standard_normal((6, 16, 3, 96, 96)).astype(np.float32)
    labels = rng.integers(0, 10, (6, 16)).astype(np.int32)
    optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.005] * 6, weight_decay=4e-5)
    step = TrainStep(network, create_loss("CE", label_smoothing=0.1), optimizer, StepOptions()).set_train(True)
    losses = [run(step, x, y)[0] for x, y in zip(images, labels, strict=True)]
    np.testing.assert_allclose(losses, golden["losses"], rtol=0, atol=1e-3)
    network.set_train(False)
    found = network(Tensor(images[0])).asnumpy()[0]
    np.testing.assert_allclose(found, golden["eval_logits_first_batch_row0"], rtol=0, atol=2e-3)


def test_accumulation_is_the_large_batch_when_batch_norm_is_frozen():
    images, labels = batch(24)
    results = []
    for options, size in ((StepOptions(), 12), (StepOptions(accumulation=3), 4)):
        network = tiny()
        freeze_batch_norm(network)
        step = make_step(network, [0.1, 0.05], options, weight_decay=1e-2)
        for start in range(0, 24, size):
            run(step, images[start : start + size], labels[start : start + size])
        results.append(step.raw_weights())
        # The schedule counts updates: two, whatever the number of steps.
        assert int(step.optimizer.global_step.asnumpy()[0]) == 2
    for name, weight in results[0].items():
        np.testing.assert_allclose(results[1][name], weight, rtol=0, atol=1e-6, err_msg=name)


def test_accumulation_of_a_summed_loss_is_the_large_batch():
    images, labels = batch(8)
    results = []
    for options, size in ((StepOptions(), 8), (StepOptions(accumulation=2, sum_gradients=True), 4)):
        network = tiny()
        freeze_batch_norm(network)
        optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.01])
        step = TrainStep(network, create_loss("CE", reduction="sum"), optimizer, options).set_train(True)
        for start in range(0, 8, size):
            run(step, images[start : start + size], labels[start : start + size])
        results.append(step.raw_weights())
    for name, weight in results[0].items():
        np.testing.assert_allclose(results[1][name], weight, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("opt", ["momentum", "rmsproptf"])
def test_a_state_taken_up_gives_the_same_next_step(opt):
    options = StepOptions(ema_decay=0.9, accumulation=2, loss_scale=8.0, dynamic_scale=True, clip_norm=0.5)
    images, labels = batch(4)
    first = make_step(tiny(0), [0.1] * 4, options, opt=opt)
    for _ in range(3):
        run(first, images, labels)
    second = make_step(tiny(1), [0.1] * 4, options, opt=opt)
    second.load_state(first.state())
    run(first, images, labels)
    run(second, images, labels)
    expected = first.state()
    assert expected["global_step"] == 2
    assert len([name for name in expected if name.startswith(("moments.", "moment."))]) == len(first.weights)
    for name, array in second.state().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_state_of_another_step_is_refused_whole():
    first = make_step(tiny(), [0.1])
    state = first.state()
    with pytest.raises(KeyError, match="conv.weight"):
        first.load_state({name: array for name, array in state.items() if name != "conv.weight"})
    changed = {name: array + 1 for name, array in state.items()} | {"bn.gamma": np.zeros(9, np.float32)}
    with pytest.raises(ValueError, match="bn.gamma has shape"):
        first.load_state(changed)
    for name, array in first.state().items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)


def test_clipping_bounds_the_accumulated_gradient():
    """Two steps, one update: its length is lr times the clip norm, and its direction that of the mean gradient."""
    images, labels = batch(8)
    moves = []
    for clip in (None, 0.05):
        network = tiny()
        freeze_batch_norm(network)
        step = make_step(network, [0.5], StepOptions(accumulation=2, clip_norm=clip), momentum=0.0)
        before = step.raw_weights()
        run(step, images[:4], labels[:4])
        assert all((step.raw_weights()[name] == weight).all() for name, weight in before.items())
        run(step, images[4:], labels[4:])
        moves.append(np.concatenate([(step.raw_weights()[n] - w).ravel() for n, w in before.items()]))
    full, clipped = moves
    assert np.linalg.norm(full) > 0.5 * 0.05 * 1.5
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.5 * 0.05, rtol=1e-3)
    np.testing.assert_allclose(clipped / np.linalg.norm(clipped), full / np.linalg.norm(full), atol=1e-4)


def test_average_follows_its_formula_with_batch_norm_statistics():
    network = tiny()
    step = make_step(network, [0.1] * 4, StepOptions(ema_decay=0.9))
    expected = step.raw_weights()
    images, labels = batch(6)
    for update in range(1, 5):
        run(step, images, labels)
        decay = 0.9 * (1 - np.exp(-update / step_module.EMA_WARMUP))
        expected = {n: decay * expected[n] + (1 - decay) * w for n, w in step.raw_weights().items()}
    averaged = step.evaluation_weights()
    assert set(averaged) == {p.name for p in network.get_parameters()}
    for name, weight in expected.items():
        np.testing.assert_allclose(averaged[name], weight, rtol=1e-5, atol=1e-6, err_msg=name)
    assert any((averaged[n] != w).any() for n, w in step.raw_weights().items())


def test_the_average_of_what_stands_still_is_exact():
    """A frozen backbone's averaged weights are the backbone's, to the last bit."""
    network = tiny()
    network.conv.weight.requires_grad = False
    before = network.conv.weight.asnumpy().copy()
    step = make_step(network, [0.1] * 5, StepOptions(ema_decay=0.9999))
    for _ in range(5):
        run(step, *batch(4))
    np.testing.assert_array_equal(step.evaluation_weights()["conv.weight"], before)


@pytest.mark.fault("NaN, infinity", "ok")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_overflow_changes_nothing_but_the_dynamic_scale(accumulation, monkeypatch):
    monkeypatch.setattr(step_module, "SCALE_WINDOW", 2)
    options = StepOptions(loss_scale=1024.0, dynamic_scale=True, ema_decay=0.9, accumulation=accumulation)
    network = tiny()
    freeze_batch_norm(network)
    step = make_step(network, [0.1] * 9, options)
    images, labels = batch(4)
    bad = images.copy()
    bad[0, 0, 0, 0] = np.inf

    def update(x):
        return [run(step, x, labels) for _ in range(accumulation)][-1]

    update(images)
    before = step.state()
    assert update(bad)[1] is False
    after = step.state()
    changed = {name for name, value in before.items() if (after[name] != value).any()}
    assert changed == {"loss_scale", "good_updates"} | ({"micro_step"} if accumulation > 1 else set())
    assert after["loss_scale"] == 512
    assert update(images)[1] is True
    assert update(images)[2] == 512
    # Two good updates in a row: the scale has doubled.
    assert step.state()["loss_scale"] == 1024


def test_the_scale_cancels_out():
    """The same update at scale 1 and 4096."""
    images, labels = batch(8)
    weights = []
    for scale in (1.0, 4096.0):
        step = make_step(tiny(), [0.1], StepOptions(loss_scale=scale))
        loss, finite, used = run(step, images, labels)
        assert finite
        assert used == scale
        weights.append((loss, step.raw_weights()))
    assert weights[0][0] == weights[1][0]
    for name, weight in weights[0][1].items():
        np.testing.assert_allclose(weights[1][1][name], weight, rtol=1e-5, atol=1e-7, err_msg=name)


def test_frozen_batch_norm_keeps_its_statistics():
    network = tiny()
    before = network.bn.moving_mean.asnumpy().copy()
    freeze_batch_norm(network)
    run(make_step(network, [0.1]), *batch(8))
    np.testing.assert_array_equal(network.bn.moving_mean.asnumpy(), before)
    thawed = tiny()
    run(make_step(thawed, [0.1]), *batch(8))
    assert (thawed.bn.moving_mean.asnumpy() != before).any()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, StepOptions()),
        (
            {"loss_scale_type": "dynamic", "drop_overflow_update": True, "loss_scale": 8.0},
            StepOptions(8.0, dynamic_scale=True),
        ),
        ({"loss_scale_type": "auto", "amp_level": "O2"}, StepOptions(dynamic_scale=True)),
        ({"loss_scale_type": "auto"}, StepOptions()),
        (
            {"clip_grad": True, "clip_value": 2.0, "ema": True, "gradient_accumulation_steps": 4},
            StepOptions(clip_norm=2.0, ema_decay=0.9999, accumulation=4),
        ),
    ],
)
def test_options_from_keys(keys, expected):
    assert StepOptions.from_config(Config(model="ghostnet_050", **keys)) == expected
