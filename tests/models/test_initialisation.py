"""How fresh weights are drawn: the key `init`."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mindghost import build
from mindghost.models import create_model
from mindghost.models.ghost_cifar import cosine_patterns
from tests.helpers.configs import cli

MINDCV_IS_HE_UNIFORM = ("ghostnet_050", "ghostnetv2_100", "ghostnetv3_050")
MINDCV_IS_HE_NORMAL = ("ghost_resnet50_s4", "g_ghost_regnetx_032", "ghost_resnet56", "ghost_vgg16")


def layers(network):
    """Convolutions and dense layers of some size, so that what is drawn says of what it was drawn."""
    kinds = (nn.Conv2d, nn.Dense)
    found = [cell for _, cell in network.cells_and_names() if isinstance(cell, kinds) and cell.weight.size > 2000]
    assert len(found) > 5
    return found


def fan_in(cell):
    return math.prod(cell.weight.shape[1:])


def assert_uniform(values, bound):
    assert 0.9 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert abs(values.mean()) < 0.1 * bound


@pytest.mark.parametrize("name", MINDCV_IS_HE_UNIFORM)
def test_ghostnets_start_as_mindcvs(name):
    ms.set_seed(1)
    for cell in layers(create_model(name)):
        assert_uniform(cell.weight.asnumpy(), math.sqrt(6 / fan_in(cell)))
        assert cell.bias is None or not cell.bias.asnumpy().any()


@pytest.mark.parametrize("name", MINDCV_IS_HE_NORMAL)
def test_others_start_as_mindcvs_resnets(name):
    ms.set_seed(1)
    for cell in layers(create_model(name)):
        if isinstance(cell, nn.Conv2d):
            fan_out = cell.weight.shape[0] * math.prod(cell.weight.shape[2:])
            assert cell.weight.asnumpy().std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


@pytest.mark.parametrize("name", [*MINDCV_IS_HE_UNIFORM, *MINDCV_IS_HE_NORMAL])
def test_all_can_start_as_pytorchs_layers(name):
    assert_pytorchs(create_model(name, init="pytorch"))


def test_repghostnets_start_as_pytorchs_layers_in_any_case():
    assert_pytorchs(create_model("repghostnet_050"))


def assert_pytorchs(network):
    for cell in layers(network):
        bound = 1 / math.sqrt(fan_in(cell))
        assert_uniform(cell.weight.asnumpy(), bound)
        if cell.bias is not None and cell.bias.size > 500:
            assert_uniform(cell.bias.asnumpy(), bound)


def test_a_later_classifier_starts_as_the_network_did():
    for init, bound in (("mindcv", math.sqrt(6 / 1280)), ("pytorch", 1 / math.sqrt(1280))):
        network = create_model("ghostnet_050", init=init)
        network.reset_classifier(100)
        assert_uniform(network.get_classifier().weight.asnumpy(), bound)


@pytest.mark.parametrize("init", ["mindcv", "pytorch"])
def test_first_filters_that_are_patterns_stay_patterns(init):
    first = create_model("ghost_airbench", init=init).conv1.weight.asnumpy()
    np.testing.assert_array_equal(first[0], cosine_patterns(3)[0])


def test_the_key_reaches_the_network_and_is_mindcvs_when_left_out():
    drawn = {}
    for init in (None, "mindcv", "pytorch"):
        given = () if init is None else ("--init", init)
        ms.set_seed(1)
        drawn[init] = build.network(
            cli("--model", "ghostnet_050", "--num_classes", "5", *given)
        ).conv_stem.weight.asnumpy()
    np.testing.assert_array_equal(drawn[None], drawn["mindcv"])
    assert drawn["pytorch"].std() < 0.5 * drawn["mindcv"].std()


def test_another_value_is_refused():
    with pytest.raises(ValueError, match="init: expected mindcv or pytorch, got 'timm'"):
        create_model("ghostnet_050", init="timm")
