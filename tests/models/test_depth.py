"""Stages and layers of the networks, against mindcv's own grouping and by hand."""

import pytest
from mindcv.optim.optim_factory import group_with_matcher

from mindghost.models import create_model
from mindghost.models.depth import layers, stages

# As timm has them: GhostNet, ResNet, RegNet, VGG. What matches nothing is the head; 99999 joins the group before.
MATCHERS = {
    "ghostnet_050": {
        "stem": r"^conv_stem|bn1",
        "blocks": [(r"^blocks\.(\d+)\.(\d+)\.", None), (r"^blocks\.(9)\.", None), (r"conv_head", (99999,))],
    },
    "ghostnetv2_100": {
        "stem": r"^conv_stem|bn1",
        "blocks": [(r"^blocks\.(\d+)\.(\d+)\.", None), (r"^blocks\.(9)\.", None), (r"conv_head", (99999,))],
    },
    "repghostnet_050": {
        "stem": r"^conv_stem|bn1",
        "blocks": [(r"^blocks\.(\d+)\.(\d+)\.", None), (r"^blocks\.(9)\.", None), (r"conv_head", (99999,))],
    },
    "ghost_resnet50_s4": {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)\.(\d+)"},
    "resnet56_cifar": {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)\.(\d+)"},
    "vgg16_cifar": {"stem": r"^conv1|bn1", "blocks": [(r"^features\.(\d+)", None), (r"hidden", (99999,))]},
}


@pytest.mark.parametrize("name", MATCHERS)
def test_layers_are_those_of_timms_matchers(name):
    network = create_model(name, num_classes=3)
    found = layers(network)
    parameters = network.trainable_params()
    expected = group_with_matcher(parameters, MATCHERS[name], reverse=True)
    assert {p.name: found[p.name] for p in parameters} == expected
    assert set(found) == {p.name for p in network.get_parameters()}


def test_a_ghost_stage_counts_its_blocks():
    """Stages of 2, 6, 15 and 2 blocks, between stem and classifier."""
    found = layers(create_model("g_ghost_regnetx_032", num_classes=3))
    assert (found["conv1.weight"], found["layer1.0.conv1.weight"], found["layer1.1.conv1.weight"]) == (0, 1, 2)
    assert (found["layer2.base.bn1.gamma"], found["layer2.layers.3.bn1.gamma"]) == (3, 7)
    assert {found[f"layer2.{part}.weight"] for part in ("end.conv1", "cheap.0", "merge.1")} == {8}
    assert (found["layer4.1.bn3.moving_mean"], found["fc.bias"]) == (25, 26)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ghostnet_050", ["the stem", *(f"stride {2**power}" for power in range(1, 6)), "what follows"]),
        ("g_ghost_regnetx_032", ["the stem", *(f"stride {2**power}" for power in range(2, 6))]),
        # Its last map, of stride 32, is a pooled one.
        ("vgg16_cifar", ["the stem", *(f"stride {2**power}" for power in range(5)), "what follows"]),
        ("ghost_resnet56", ["the stem", "stride 1", "stride 2", "stride 4"]),
        ("ghost_airbench", ["the stem", *(f"stride {2**power}" for power in range(4))]),
    ],
)
def test_stages_end_with_the_maps(name, expected):
    network = create_model(name, num_classes=3)
    found = stages(network)
    assert [stage.name for stage in found] == expected
    held = [parameter for stage in found for parameter in stage.parameters]
    classifier = [p.name for p in network.get_parameters() if p.name.startswith(f"{network.classifier_name}.")]
    assert sorted(held + classifier) == sorted(p.name for p in network.get_parameters())


def test_the_stages_of_ghostnet():
    found = [{name.rpartition(".")[0] for name in stage.parameters} for stage in stages(create_model("ghostnet_050"))]
    assert found[0] == {"conv_stem", "bn1"}
    begin = [sorted({name.partition(".ghost")[0] for name in stage if ".ghost" in name}) for stage in found]
    assert begin[1:4] == [["blocks.0.0"], ["blocks.1.0", "blocks.2.0"], ["blocks.3.0", "blocks.4.0"]]
    assert found[6] == {"blocks.9.features.0", "blocks.9.features.1", "conv_head"}
