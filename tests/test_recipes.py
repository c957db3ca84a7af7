"""Every YAML builds its network, schedule, optimizer and loss."""

import math
from pathlib import Path

import pytest

from ghostnet import build, loss, optim, schedule
from ghostnet.config import Config
from ghostnet.models import card
from ghostnet.models.complexity import trainable_parameters
from ghostnet.step import StepOptions, TrainStep

RECIPES = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_builds(path):
    config = Config.from_file(path)
    network = build.network(config)
    assert trainable_parameters(network) == card(config.model).parameters

    rates = schedule.learning_rates(config, updates_per_epoch=10, ranks=8)
    assert len(rates) == 10 * config.epoch_size
    assert max(rates) == pytest.approx(config.lr * config.batch_size * 8 / config.lr_reference_batch)
    assert rates[0] == 0
    assert rates[-1] < 2e-6
    assert all(math.isfinite(rate) for rate in rates)

    optimizer = optim.optimizer(config, network, rates, "CPU")
    assert len(optimizer.parameters) == len(network.trainable_params())
    step = TrainStep(network, loss.training_loss(config), optimizer, StepOptions.from_config(config))
    assert step.options.dynamic_scale == (config.loss_scale_type == "dynamic")


def test_the_names_of_recipes_say_what_they_train():
    assert len(RECIPES) == 6
    for path in RECIPES:
        config = Config.from_file(path)
        assert path.stem == f"{config.model}_{'ascend' if config.distribute else 'cpu'}"
