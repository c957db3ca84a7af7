"""Frozen stages: what is trainable, and which batch norms go by their stored statistics."""

import pytest
from mindspore import nn

from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.models import create_model
from mindghost.models.depth import stages
from mindghost.train.freeze import freeze

NETWORK = create_model("ghost_resnet50_s4", num_classes=3)
TRAINABLE = {parameter.name for parameter in NETWORK.trainable_params()}
PARTS = [set(stage.parameters) for stage in stages(NETWORK)]


def frozen_stages(epoch: int = 0, **keys) -> int:
    """How many stages are frozen; everything else is as it was."""
    norms = [cell for _, cell in NETWORK.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    for parameter in NETWORK.get_parameters():
        parameter.requires_grad = parameter.name in TRAINABLE
    for norm in norms:
        norm.use_batch_statistics = None
    freeze(NETWORK, Config(model="ghost_resnet50_s4", **keys), epoch)
    frozen = TRAINABLE - {parameter.name for parameter in NETWORK.trainable_params()}
    count = next(index for index in range(6) if frozen == TRAINABLE & set().union(*PARTS[:index]))
    kept = {norm.moving_mean.name for norm in norms if norm.use_batch_statistics is False}
    assert kept == {norm.moving_mean.name for norm in norms} & set().union(*PARTS[:count])
    return count


@pytest.mark.parametrize(
    ("keys", "epoch", "count"),
    [
        ({}, 0, 0),
        ({"freeze_stages": 1}, 7, 1),
        ({"freeze_stages": 3}, 0, 3),
        ({"freeze_stages": 5}, 0, 5),
        ({"freeze_backbone": True}, 0, 5),
        ({"freeze_backbone": True, "freeze_stages": 2}, 0, 5),
        ({"unfreeze_epoch": 3}, 0, 5),
        ({"unfreeze_epoch": 3}, 1, 5),
        ({"unfreeze_epoch": 3}, 2, 0),
        ({"unfreeze_epoch": 3, "freeze_stages": 2}, 1, 2),
        ({"unfreeze_epoch": 3, "freeze_stages": 2, "freeze_backbone": True}, 1, 5),
        ({"unfreeze_epoch": 3, "freeze_stages": 2}, 9, 0),
    ],
    ids=str,
)
def test_what_is_frozen(keys, epoch, count):
    assert frozen_stages(epoch, **keys) == count


@pytest.mark.fault("settings", "clean error")
def test_too_many_stages_are_counted_in_the_message():
    with pytest.raises(
        UserError,
        match=r"^freeze_stages: 6, but ghost_resnet50_s4 has 5 stages \(the stem, stride 4, .* 32\); give at most 5$",
    ):
        frozen_stages(freeze_stages=6)
