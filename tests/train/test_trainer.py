"""What a run that is resumed by force takes from a state of other epochs."""

import mindspore as ms
import numpy as np
import pytest

from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.runs.state import Position, RunState
from mindghost.train import trainer
from mindghost.train.step import StepOptions
from tests.helpers.steps import batch, make_step, run, tiny


def saved(arrays, **keys) -> RunState:
    """Of a run with 6 steps an epoch, 2 of them an update, in its third epoch."""
    return RunState(
        file=None,
        arrays=arrays,
        position=Position(epoch=2, step=3, losses=(1.0, 2.0, 3.0), skipped=1, best_score=50.0),
        config=Config(gradient_accumulation_steps=2, **keys),
        data="ab",
        ranks=2,
        steps=6,
    )


def test_the_schedule_stands_where_the_epoch_begins():
    """The first update has the rate of that epoch's first one, and none of the old partial update's gradients."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rates = [0.1 * (update + 1) for update in range(20)]
    options = StepOptions(accumulation=2)
    old = make_step(tiny(), rates, options, momentum=0.0)
    for seed in range(3):
        run(old, *batch(4, seed))
    assert (old.state()["global_step"], old.state()["micro_step"]) == (1, 3)

    fitted = trainer._fitted(saved(old.state()), steps=8, accumulation=2)
    assert fitted.position == Position(epoch=2, best_score=50.0)
    found = make_step(tiny(1), rates, options, momentum=0.0)
    found.load_state(fitted.arrays)
    expected = make_step(tiny(), rates[8:], options, momentum=0.0)
    weights = {p.name: ms.Parameter(old.raw_weights()[p.name]) for p in expected.network.get_parameters()}
    ms.load_param_into_net(expected.network, weights)
    for seed in (5, 6):
        for step in (found, expected):
            run(step, *batch(4, seed))
    assert found.state()["global_step"] == 9
    for name, weight in expected.raw_weights().items():
        np.testing.assert_array_equal(found.raw_weights()[name], weight, err_msg=name)


@pytest.mark.parametrize(("steps", "accumulation", "updates"), [(6, 3, 4), (12, 2, 12), (3, 1, 6)])
def test_updates_are_those_of_the_new_epochs(steps, accumulation, updates):
    fitted = trainer._fitted(saved({"global_step": np.array([7], np.int32)}), steps, accumulation)
    assert fitted.arrays["global_step"].tolist() == [updates]
    assert fitted.arrays["global_step"].dtype == np.int32
    assert fitted.position.step == 0


def test_equal_epochs_go_on_where_they_stood():
    state = saved({"global_step": np.array([7], np.int32)})
    assert trainer._fitted(state, 6, 2) is state


def test_other_ranks_are_a_change():
    state = saved({})
    trainer._check_unchanged(state, state.config, "ab", ranks=2)
    with pytest.raises(UserError, match="ranks: 2 -> 1; the training images; change it back"):
        trainer._check_unchanged(state, state.config, "cd", ranks=1)
    trainer._check_unchanged(state, state.config.replace(resume_force=True), "cd", ranks=1)
