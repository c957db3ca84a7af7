"""The training step against hand-computed values and the original code's trajectories."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindspore import Tensor, nn

from mindghost.checkpoint.names import from_pytorch
from mindghost.config import Config
from mindghost.models import create_model, layers
from mindghost.models.layers import Dropout, freeze_batch_norm
from mindghost.train import step as step_module
from mindghost.train.distill import TaughtStep
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers.places import GOLDEN
from tests.helpers.steps import batch, make_step, run, tiny
from tests.helpers.weights import golden_state


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
    loss = create_loss("CE", label_smoothing=0.1)
    step = TrainStep(network, loss, update_by(optimizer), StepOptions()).set_train(True)
    losses = [run(step, x, y)[0] for x, y in zip(images, labels, strict=True)]
    np.testing.assert_allclose(losses, golden["losses"], rtol=0, atol=1e-3)
    # The step is what is compiled here: tests/models do so with this network for its logits.
    ms.set_context(mode=ms.PYNATIVE_MODE)
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
        step = TrainStep(network, create_loss("CE", reduction="sum"), update_by(optimizer), options).set_train(True)
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
        decay = 0.9 * (1 - np.exp(-update / 2000))
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
        ({"clip_value": 2.0, "ema_decay": 0.9, "amp_level": "O2"}, StepOptions()),
        ({"reduction": "sum"}, StepOptions(sum_gradients=True)),
    ],
)
def test_options_from_keys(keys, expected):
    assert StepOptions.from_config(Config(model="ghostnet_050", **keys)) == expected


# --- One operation after the other, which takes no time to compile


@pytest.fixture
def at_once():
    ms.set_context(mode=ms.PYNATIVE_MODE)


class Times(nn.Cell):
    """Stands for the sum over ranks that all have the same gradients."""

    def __init__(self, ranks: int):
        super().__init__()
        self.ranks = ranks

    def construct(self, gradients):
        return tuple(gradient * self.ranks for gradient in gradients)


@pytest.mark.parametrize(("accumulation", "sum_gradients", "factor"), [(1, False, 1), (2, False, 1), (2, True, 6)])
def test_gradients_of_ranks_and_of_steps_are_averaged_or_summed_up(at_once, accumulation, sum_gradients, factor):
    """The same batch on three ranks, in both steps of an update: it moves as once, or as three and six times."""
    moves = []
    for options, ranks in (
        (StepOptions(), 1),
        (StepOptions(accumulation=accumulation, sum_gradients=sum_gradients), 3),
    ):
        network = tiny()
        freeze_batch_norm(network)
        rank_sum = Times(ranks) if ranks > 1 else None
        optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.01])
        step = TrainStep(network, create_loss("CE"), update_by(optimizer), options, ranks, rank_sum).set_train(True)
        before = step.raw_weights()
        for _ in range(options.accumulation):
            _, finite, _ = run(step, *batch(4))
            assert finite
        moves.append(np.concatenate([(step.raw_weights()[name] - w).ravel() for name, w in before.items()]))
    np.testing.assert_allclose(moves[1], factor * moves[0], atol=1e-6)
    assert np.abs(moves[0]).max() > 1e-3


def test_without_a_sum_of_ours_mindspore_sums_up_over_all_ranks(monkeypatch):
    made = []

    class Reducer(Times):
        def __init__(self, weights, **keys):
            super().__init__(keys["degree"])
            made.append((len(weights), keys))

    monkeypatch.setattr(nn, "DistributedGradReducer", Reducer)
    network = tiny()
    optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.1])
    TrainStep(network, create_loss("CE"), update_by(optimizer), StepOptions())
    TrainStep(network, create_loss("CE"), update_by(optimizer), StepOptions(), 3, Times(3))
    assert made == []
    TrainStep(network, create_loss("CE"), update_by(optimizer), StepOptions(), 3)
    assert made == [(5, {"mean": False, "degree": 3})]


def test_the_dynamic_scale_by_hand(at_once, monkeypatch):
    """Doubled after two good updates in a row, halved after each overflow, never below 1; no good one counts twice."""
    monkeypatch.setattr(step_module, "SCALE_WINDOW", 2)
    step = make_step(tiny(), [0.0] * 9, StepOptions(loss_scale=4.0, dynamic_scale=True))
    images, labels = batch(4)
    bad = np.full_like(images, np.nan)
    seen = []
    for good in (True, True, True, False, False, False, False, True):
        assert run(step, images if good else bad, labels)[1] is good
        seen.append((float(step.scale.asnumpy()), int(step.good_updates.asnumpy())))
        freshen(step)
    assert seen == [(4, 1), (8, 0), (8, 1), (4, 0), (2, 0), (1, 0), (1, 0), (1, 1)]


def freshen(step: TrainStep) -> None:
    """Statistics that a bad batch has spoilt, as they were."""
    for parameter in step.network.get_parameters():
        if layers.is_statistic(parameter.name):
            parameter.set_data(Tensor(np.ones(parameter.shape, np.float32)))


def test_the_fixed_scale_stays(at_once):
    step = make_step(tiny(), [0.0] * 9, StepOptions(loss_scale=4.0))
    for images in (batch(4)[0], np.full_like(batch(4)[0], np.nan)):
        run(step, images, batch(4)[1])
    assert (step.state()["loss_scale"], step.state()["good_updates"]) == (4, 0)


def test_windows_are_mindcvs():
    assert (step_module.SCALE_WINDOW, step_module.EMA_WARMUP) == (2000, 2000)


@pytest.mark.parametrize("clip", [None, 1e6])
def test_gradients_below_the_clip_norm_stay_as_they_are(at_once, clip):
    moved = []
    for options in (StepOptions(), StepOptions(clip_norm=clip)):
        step = make_step(tiny(), [0.5], options)
        run(step, *batch(4))
        moved.append(step.raw_weights())
    for name, weight in moved[0].items():
        np.testing.assert_array_equal(moved[1][name], weight)


def test_the_average_moves_once_an_update(at_once):
    options = StepOptions(ema_decay=0.9, accumulation=2)
    step = make_step(tiny(), [0.1] * 4, options)
    assert step.options == options
    seen = []
    for _ in range(4):
        run(step, *batch(4))
        seen.append((int(step.state()["micro_step"]), int(step.state()["updates"])))
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2)]
    for name, total in step.state().items():
        if name.startswith("accumulated."):
            assert (total == 0).all(), name


WEIGHTS = ("conv.weight", "bn.gamma", "bn.beta", "classifier.weight", "classifier.bias")
STATISTICS = ("bn.moving_mean", "bn.moving_variance")


@pytest.mark.parametrize(
    ("options", "own", "shared"),
    [
        (StepOptions(), [*STATISTICS], []),
        (
            StepOptions(ema_decay=0.9),
            [*STATISTICS, *(f"ema.{name}" for name in STATISTICS)],
            ["updates", *(f"ema.{name}" for name in WEIGHTS)],
        ),
        (StepOptions(accumulation=2), [*STATISTICS, *(f"accumulated.{name}" for name in WEIGHTS)], ["micro_step"]),
    ],
)
def test_what_each_rank_has_for_itself(options, own, shared):
    step = make_step(tiny(), [0.1, 0.2], options)
    always = [*WEIGHTS, *(f"moments.{name}" for name in WEIGHTS), "loss_scale", "good_updates", "global_step"]
    assert step.own_entries() == set(own)
    # MindSpore keeps momentum as a parameter; the learning rates are no part of the state.
    assert set(step.shared_state()) - {"momentum"} == {*always, *shared}
    assert set(step.state()) - {"momentum"} == {*always, *shared, *own}


def test_a_state_is_a_copy(at_once):
    step = make_step(tiny(), [0.1] * 3, StepOptions(ema_decay=0.0))
    taken = [step.state(), step.raw_weights(), step.evaluation_weights()]
    before = [{name: array.copy() for name, array in state.items()} for state in taken]
    run(step, *batch(4))
    for state, kept in zip(taken, before, strict=True):
        for name, array in state.items():
            np.testing.assert_array_equal(array, kept[name], err_msg=name)


def test_a_state_that_was_given_stays_as_it_is(at_once):
    step = make_step(tiny(1), [0.1])
    state = make_step(tiny(0), [0.1]).state()
    weight = state["conv.weight"].copy()
    step.load_state(state)
    run(step, *batch(4))
    assert (step.state()["conv.weight"] != weight).any()
    np.testing.assert_array_equal(state["conv.weight"], weight)


def test_a_state_may_hold_more(at_once):
    step = make_step(tiny(), [0.1])
    step.load_state({**step.state(), "more": np.zeros(3)})
    assert "more" not in step.state()


def test_the_masks_that_dropout_has_drawn_are_part_of_the_state():
    network = nn.SequentialCell(Dropout(0.5), tiny(), Dropout(0.5))
    assert {"dropout_counter_0", "dropout_counter_1"} <= set(make_step(network, [0.1]).state())


def test_a_teacher_sees_the_images_of_the_step():
    taught = TaughtStep(lambda *given: given, lambda image: ("taught", image))
    assert taught("image", "label") == ("image", "label", ("taught", "image"))


def test_statistics_are_known_by_their_names():
    names = ["bn.moving_mean", "ema.bn.moving_variance", "bn.gamma", "moving_mean.weight"]
    assert [layers.is_statistic(name) for name in names] == [True, True, False, False]
