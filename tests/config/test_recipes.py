"""Every YAML is one that train.py can follow, and means the schedule, optimizer and loss that its header speaks of."""

import math

import numpy as np
import pytest
from mindspore import nn

from mindghost import build
from mindghost.config import Config, recipes
from mindghost.models import CARDS, CLASSIFICATION, SEGMENTATION, card, list_models
from mindghost.models.complexity import trainable_parameters
from mindghost.models.layers import ConvBnAct
from mindghost.train import optim, schedule
from mindghost.train.step import StepOptions, TrainStep, training_loss
from mindghost.train.update import update_by
from tests.helpers.places import ROOT

CONFIGS = ROOT / "configs"
# Those of one network each; tests/train/test_settle.py has the one for any.
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "finetune")
UPDATES = 10  # in an epoch
# Folders of recipes for one set of photos -> their pixels, where these are not the network's own.
PHOTOS = {"camvid": None, "mcu": 96, "tiny_imagenet": 64}
# By part of a name: the rates of the first and the last update, for the global batch that the recipe is meant for.
RATES = {
    "unet": (0, 0.001 / (98 * UPDATES) ** 0.9),
    "lraspp": (0, 0.001 / (98 * UPDATES) ** 0.9),
    "repghostnet": (1e-4, 1e-5 + (0.6 - 1e-5) * (1 - math.cos(math.pi / 295)) / 2),
    "ghostnetv2": (1e-6, 0.064 * 0.973**185),
    "ghostnetv3": (1e-4, 1e-5),
    "ghostnet_": (0, 1e-7),
    "vgg16": (0.1, 0.0001),
    "res": (0.1, 0.001),
    "reg": (0.1, 0.001),
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_makes_a_step(path):
    """All that a recipe decides, over a small network: building all of them would take minutes."""
    config = Config.from_file(path)
    facts = card(config.model)
    if facts.task == SEGMENTATION:
        # Its classes and their weights are those of the masks, its size that of the images.
        assert (config.task, config.num_classes) == ("segmentation", None)
        config = config.replace(num_classes=5, class_weights=None)
    elif path.parent.name in PHOTOS:
        assert config.image_resize == PHOTOS[path.parent.name]
    else:
        assert (config.num_classes, config.image_resize) == (facts.num_classes, facts.input_size)

    ranks = config.lr_reference_batch // config.batch_size
    rates = schedule.learning_rates(config, UPDATES, ranks)
    assert len(rates) == UPDATES * config.epoch_size
    assert max(rates) == pytest.approx(config.lr)
    assert all(math.isfinite(rate) for rate in rates)
    if config.dataset_sink_mode:
        first, last = next(ends for part, ends in RATES.items() if part in path.stem)
        assert rates[0] == pytest.approx(first)
        assert rates[-1] == pytest.approx(last, rel=1e-6, abs=1e-7)

    network = nn.SequentialCell(ConvBnAct(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(4, 5))
    optimizer = optim.optimizer(config, network, rates, "Ascend" if config.dataset_sink_mode else "CPU")
    assert len(optimizer.parameters) == len(network.trainable_params())
    step = TrainStep(network, training_loss(config), update_by(optimizer), StepOptions.from_config(config))
    assert step.options.dynamic_scale == (config.loss_scale_type == "dynamic")
    assert (step.ema_decay is not None) == config.ema


@pytest.mark.parametrize(
    "name",
    [
        *("ghostnet_050", "ghostnetv2_100", "ghostnetv3_050", "repghostnet_050"),
        *("ghost_resnet50_s4", "ghost_resnet56", "ghost_vgg16"),
    ],
)
def test_recipe_builds_its_network(name):
    """One of a kind (G-Ghost-RegNet's, the largest, has no key of the network's): the others differ in their size."""
    (path,) = CONFIGS.rglob(f"{name}_cpu.yaml")
    network = build.network(Config.from_file(path))
    assert trainable_parameters(network) == card(name).parameters


def test_every_published_network_has_two_recipes_that_say_what_they_train():
    ours = {path for path in RECIPES if path.parent.name == "cifar10"}
    # Beside the recipes for any.
    photos = {path for path in RECIPES if path.parent.name in PHOTOS}
    published = {name for name, facts in CARDS.items() if facts.paper_top_1 is not None}
    dense = {"ghost_unet", "ghost_lraspp"}
    found = {path.stem for path in RECIPES if path not in ours | photos}
    assert found == {f"{name}_{device}" for name in published | dense for device in ("ascend", "cpu")}
    assert {path.stem for path in ours} == set(list_models(CLASSIFICATION)) - published
    for path in RECIPES:
        config = Config.from_file(path)
        device = "_ascend" if config.dataset_sink_mode else "_cpu"
        assert path.stem == config.model + (
            "" if path in ours else f"_{path.parent.name}" if path in photos else device
        )


def ghostnetv2_by_epoch() -> list[float]:
    config = Config.from_file(CONFIGS / "ghostnetv2" / "ghostnetv2_100_ascend.yaml")
    return schedule.learning_rates(config, UPDATES, ranks=8)[::UPDATES]


def test_ghostnetv2s_rate_epoch_by_epoch():
    """Three epochs up from 1e-6, then down by 0.973 every 2.4 epochs; an epoch's rate is that of its first update."""
    expected = [1e-6, 1e-6 + (0.064 - 1e-6) / 3, 1e-6 + (0.064 - 1e-6) * 2 / 3]
    # Five drops in twelve epochs: so many in the first 0, 1, ... 11 of them.
    drops = (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4)
    expected += [0.064 * 0.973 ** (5 * (epoch // 12) + drops[epoch % 12]) for epoch in range(447)]
    np.testing.assert_allclose(ghostnetv2_by_epoch(), expected, rtol=1e-9)


def test_ghostnetv2s_rate_is_that_of_timms_scheduler(timm):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.064)
    keys = {"decay_t": 2.4, "decay_rate": 0.973, "warmup_t": 3, "warmup_lr_init": 1e-6}
    theirs = timm.scheduler.StepLRScheduler(optimizer, warmup_prefix=True, **keys)
    rates = []
    for epoch in range(450):
        theirs.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(ghostnetv2_by_epoch(), rates, rtol=1e-9)


def test_a_checkout_without_links_has_its_recipes(tmp_path, monkeypatch):
    """As unzipped by a program that writes a link's target into a file."""
    package = tmp_path / "src" / "mindghost"
    package.mkdir(parents=True)
    (package / "configs").write_text("../../configs")
    (tmp_path / "configs" / "mine").mkdir(parents=True)
    (tmp_path / "configs" / "mine" / "small_cpu.yaml").write_text("model: ghostnet_050\n")
    monkeypatch.setattr(recipes, "_PACKAGE", package)
    assert recipes.find("small_cpu") == tmp_path / "configs" / "mine" / "small_cpu.yaml"
