"""Learning rates, optimizers and losses against values computed by hand."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.train import optim, schedule
from mindghost.train.step import training_loss


def config(**keys) -> Config:
    return Config(**{"model": "ghostnet_050", "warmup_epochs": 0, "lr": 0.4, "min_lr": 1e-7, **keys})


@pytest.mark.parametrize(
    ("keys", "ranks", "expected"),
    [
        ({}, 8, 0.4),
        ({"batch_size": 32, "gradient_accumulation_steps": 4}, 8, 0.4),
        ({"lr_reference_batch": 1024, "batch_size": 128}, 8, 0.4),
        ({"lr_reference_batch": 1024, "batch_size": 32}, 1, 0.0125),
        ({"lr_reference_batch": 1024, "batch_size": 32, "gradient_accumulation_steps": 4}, 2, 0.1),
    ],
)
def test_the_rate_scales_with_the_global_batch(keys, ranks, expected):
    assert schedule.base_rate(config(**keys), ranks) == pytest.approx(expected)


def test_without_ranks_there_is_one():
    keys = {"lr_reference_batch": 1024, "batch_size": 32}
    assert schedule.base_rate(config(**keys)) == pytest.approx(0.0125)
    assert max(schedule.learning_rates(config(scheduler="constant", **keys), 3)) == pytest.approx(0.0125)


def test_mindcvs_recipe_step_by_step():
    """Linear warm-up from 0, then half a cosine down to an unscaled min_lr."""
    keys = {"epoch_size": 10, "warmup_epochs": 2, "decay_epochs": 8, "min_lr": 1e-3}
    rates = schedule.learning_rates(config(lr_reference_batch=256, batch_size=128, **keys), 5)
    expected = [0.2 * i / 10 for i in range(10)]
    expected += [1e-3 + (0.2 - 1e-3) * 0.5 * (1 + math.cos(math.pi * i / 40)) for i in range(40)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("stair", "expected"),
    [
        (False, [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.4, 0.4, 0.4]),
        (True, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.4, 0.4]),
    ],
)
def test_warm_up_starts_at_its_factor_by_updates_or_by_epochs(stair, expected):
    """From a quarter of the rate up to all of it, in three epochs of two updates."""
    keys = {"scheduler": "constant", "epoch_size": 5, "warmup_epochs": 3, "warmup_factor": 0.25}
    rates = schedule.learning_rates(config(lr_epoch_stair=stair, **keys), 2)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def by_epoch(rates, steps):
    return [rates[i] for i in range(0, len(rates), steps)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"scheduler": "constant"}, [0.4] * 6),
        ({"scheduler": "step_decay", "decay_epochs": 2, "decay_rate": 0.5}, [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]),
        (
            {"scheduler": "step_decay", "decay_epochs": 2.4, "decay_rate": 0.5},
            [0.4, 0.4, 0.4, 0.2, 0.2, 0.1],
        ),
        ({"scheduler": "exponential_decay", "decay_rate": 0.5}, [0.4 * 0.5**e for e in range(6)]),
        ({"scheduler": "poly"}, [0.4 * (1 - e / 6) ** 0.9 for e in range(6)]),
        ({"scheduler": "poly", "decay_rate": 2.0}, [0.4 * (1 - e / 6) ** 2 for e in range(6)]),
        (
            {"scheduler": "multi_step_decay", "multi_step_decay_milestones": [1, 4], "decay_rate": 0.1},
            [0.4, 0.04, 0.04, 0.04, 0.004, 0.004],
        ),
        (
            {
                "scheduler": "cosine_decay",
                "decay_epochs": 3,
                "num_cycles": 2,
                "cycle_decay": 0.5,
                "lr_epoch_stair": True,
            },
            [p / 2 * (1 + math.cos(math.pi * e / 3)) for p in (0.4, 0.2) for e in range(3)],
        ),
        ({"scheduler": "cosine_decay", "decay_epochs": 3, "min_lr": 0.1}, [0.4, 0.325, 0.175, 0.1, 0.1, 0.1]),
    ],
)
def test_every_schedule_by_epoch(keys, expected):
    rates = schedule.learning_rates(config(epoch_size=6, **keys), 4)
    assert len(rates) == 24
    np.testing.assert_allclose(by_epoch(rates, 4), expected, rtol=1e-6, atol=1.1e-7)


@pytest.mark.parametrize(("name", "peak"), [("one_cycle", 0.4), ("cyclic", 0.4)])
def test_cycles_reach_their_peak_and_have_one_rate_an_update(name, peak):
    rates = schedule.learning_rates(config(scheduler=name, epoch_size=10), 7)
    assert len(rates) == 70
    assert max(rates) == pytest.approx(peak, rel=0.06)
    assert 0 < np.argmax(rates) < 69


def test_a_decay_past_the_end_is_cut_and_warned_of(caplog):
    long = config(epoch_size=4, decay_epochs=580, warmup_epochs=1)
    assert len(schedule.learning_rates(long, 3)) == 12
    assert not caplog.records, "mindcv has a warning of its own, which the run's log must not repeat"
    assert any("decay_epochs" in line for line in long.warnings())


def test_cycles_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="num_cycles: 4 cycles of the learning rate do not fit into 5 updates"):
        schedule.learning_rates(config(scheduler="cyclic", num_cycles=4, epoch_size=1), 5)
    assert len(schedule.learning_rates(config(scheduler="cyclic", num_cycles=2, epoch_size=1), 4)) == 4
    with pytest.raises(UserError, match=r"num_cycles: 4 cycles .* into 7 updates; give at most 3"):
        schedule.learning_rates(config(scheduler="cyclic", num_cycles=4, epoch_size=7), 1)
    # The other schedules have no pairs of updates to find.
    assert len(schedule.learning_rates(config(scheduler="cosine_decay", num_cycles=4, epoch_size=1), 5)) == 5


def test_milestones_past_the_end_are_warned_of():
    late = config(scheduler="multi_step_decay", multi_step_decay_milestones=[3, 30], epoch_size=10)
    assert any("[30] lie past the end" in line for line in late.warnings())


class Scalars(nn.Cell):
    """Parameters by the names that weight-decay filters look for."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(2, 2)
        self.bn = nn.BatchNorm1d(2)
        for parameter in self.get_parameters():
            parameter.set_data(Tensor(np.ones(parameter.shape, np.float32)))

    def construct(self, x):
        return self.bn(self.dense(x))


def updated(gradient=0.0, **keys) -> dict[str, float]:
    """One parameter value of each after an update with lr 0.1 and the same gradient everywhere."""
    network = Scalars()
    optimizer = optim.optimizer(config(opt="momentum", **keys), network, [0.1, 0.1], "CPU")
    optimizer(tuple(Tensor(np.full(p.shape, gradient, np.float32)) for p in optimizer.parameters))
    return {p.name: float(p.asnumpy().ravel()[0]) for p in network.trainable_params()}


def test_weight_decay_filters():
    decayed = pytest.approx(1 - 0.1 * 0.5)
    names = ("dense.weight", "dense.bias", "bn.gamma", "bn.beta")
    found = updated(weight_decay=0.5, weight_decay_filter="disable")
    assert [found[name] for name in names] == [decayed] * 4
    found = updated(weight_decay=0.5, weight_decay_filter="norm_and_bias")
    assert [found[name] for name in names] == [decayed, 1, 1, 1]
    found = updated(weight_decay=0.5, weight_decay_filter="auto")
    assert [found[name] for name in names] == [decayed, decayed, 1, 1]
    found = updated(weight_decay=0.5, use_nesterov=True)
    assert [found[name] for name in names] == [pytest.approx(1 - 0.1 * (0.5 + 0.9 * 0.5))] * 4


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ({"opt": "momentum"}, -0.1 * 2),
        ({"opt": "momentum", "use_nesterov": True}, -0.1 * (2 + 0.9 * 2)),
        ({"opt": "sgd"}, -0.1 * 2),
        ({"opt": "adam"}, -0.1),
        ({"opt": "adamw"}, -0.1),
        ({"opt": "lion"}, -0.1),
        ({"opt": "adagrad"}, -0.1 * 2 / math.sqrt(4 + 0.1)),
        ({"opt": "rmsprop", "eps": 1e-10}, -0.1 * 2 / math.sqrt(0.9 + 0.1 * 4)),
        ({"opt": "rmsproptf", "eps": 1.0}, -0.1 * 2 / math.sqrt(0.9 + 0.1 * 4 + 1)),
        ({"opt": "nadam"}, None),
    ],
)
def test_the_first_update_of_every_optimizer(keys, first):
    """From the optimizers' definitions, with a gradient of 2, lr 0.1 and no decay."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = Scalars()
    optimizer = optim.optimizer(config(weight_decay=0.0, **keys), network, [0.1, 0.1], "CPU")
    optimizer(tuple(Tensor(np.full(p.shape, 2, np.float32)) for p in optimizer.parameters))
    move = float(network.dense.weight.asnumpy()[0, 0]) - 1
    if first is None:
        assert -0.3 < move < -0.01
    else:
        assert move == pytest.approx(first, rel=1e-3)


RATES = [0.064, 0.032, 0.016, 0.008, 0.004]


def gradients_of(shapes, count):
    """Random gradients of so many updates, for parameters of these shapes."""
    rng = np.random.default_rng(3)
    return [{n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()} for _ in range(count)]


def rmsprop_tf_by_hand(weights, gradients, decayed, momentum, weight_decay, eps):
    """TensorFlow's definition in double precision, with alpha 0.9; `decayed` names what weight decay applies to."""
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    squares = {name: np.ones_like(weight) for name, weight in weights.items()}
    moments = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for rate, update in zip(RATES, gradients, strict=True):
        for name, gradient in update.items():
            full = gradient + weight_decay * weights[name] * (name in decayed)
            squares[name] = 0.9 * squares[name] + 0.1 * full**2
            moments[name] = momentum * moments[name] + rate * full / np.sqrt(squares[name] + eps)
            weights[name] = weights[name] - moments[name]
    return weights


class Wide(Scalars):
    """Parameters longer than the vectors of MindSpore's CPU kernels, with names that the filters look for."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(5, 7)
        self.bn = nn.BatchNorm1d(7)
        rng = np.random.default_rng(1)
        for parameter in self.trainable_params():
            parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))


@pytest.mark.parametrize(
    ("mode", "momentum", "filtering", "decayed"),
    [
        (ms.GRAPH_MODE, 0.9, "norm_and_bias", {"dense.weight"}),
        (ms.PYNATIVE_MODE, 0.9, "disable", {"dense.weight", "dense.bias", "bn.gamma", "bn.beta"}),
        (ms.PYNATIVE_MODE, 0.0, "auto", {"dense.weight", "dense.bias"}),
    ],
)
def test_rmsproptf_follows_its_definition(mode, momentum, filtering, decayed):
    ms.set_context(mode=mode)
    network = Wide()
    start = {p.name: p.asnumpy().copy() for p in network.trainable_params()}
    gradients = gradients_of({name: weight.shape for name, weight in start.items()}, len(RATES))
    keys = {"opt": "rmsproptf", "momentum": momentum, "weight_decay": 0.1, "eps": 0.5}
    optimizer = optim.optimizer(config(weight_decay_filter=filtering, **keys), network, RATES, "CPU")
    for update in gradients:
        optimizer(tuple(Tensor(update[p.name]) for p in optimizer.parameters))
    assert int(optimizer.global_step.asnumpy()[0]) == len(RATES)
    expected = rmsprop_tf_by_hand(start, gradients, decayed, momentum, weight_decay=0.1, eps=0.5)
    for parameter in network.trainable_params():
        found = parameter.asnumpy()
        np.testing.assert_allclose(found, expected[parameter.name], rtol=0, atol=1e-6, err_msg=parameter.name)
        assert np.abs(found - start[parameter.name]).max() > 1e-3


def test_the_hand_computed_rmsproptf_is_timms(timm):
    import torch

    weight = np.random.default_rng(2).standard_normal(21).astype(np.float32)
    gradients = gradients_of({"w": weight.shape}, len(RATES))
    expected = rmsprop_tf_by_hand({"w": weight}, gradients, {"w"}, 0.9, weight_decay=0.1, eps=1e-3)
    parameter = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = timm.optim.RMSpropTF([parameter], lr=RATES[0], momentum=0.9, weight_decay=0.1, eps=1e-3)
    for rate, update in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.from_numpy(update["w"].copy())
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), expected["w"], rtol=0, atol=1e-6)


def test_lamb_without_our_operators_is_refused_on_cpu():
    with pytest.raises(UserError, match="opt: lamb on a CPU takes our native operators"):
        optim.optimizer(config(opt="lamb"), Scalars(), [0.1], "CPU")


def test_the_loss_of_soft_labels_does_not_depend_on_earlier_calls():
    """MindSpore's own differs in the last bit after five calls, and would make a resumed run's records differ."""
    rng = np.random.default_rng(0)
    logits, labels = (Tensor(rng.random((6, 6)).astype(np.float32)) for _ in range(2))
    cross_entropy = training_loss(config(label_smoothing=0.1))
    assert len({cross_entropy(logits, labels).asnumpy().tobytes() for _ in range(40)}) == 1


LOGITS = np.array([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]], np.float32)
SOFT = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]], np.float32)
HARD = np.array([0, 2], np.int32)


def targets(labels, smoothing):
    one_hot = labels if labels.ndim == 2 else np.eye(3)[labels]
    return one_hot * (1 - smoothing) + smoothing / 3


@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses(labels, smoothing, reduction):
    keys = {"label_smoothing": smoothing, "reduction": reduction}
    goal = targets(labels, smoothing)
    log_softmax = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    cross_entropy = -(goal * log_softmax).sum(1)
    binary = -(goal * np.log(sigmoid) + (1 - goal) * np.log(1 - sigmoid))
    for name, expected in (("CE", cross_entropy), ("BCE", binary)):
        found = training_loss(config(loss=name, **keys))(Tensor(LOGITS), Tensor(labels))
        assert float(found) == pytest.approx(float(getattr(expected, reduction)()), rel=1e-5)
