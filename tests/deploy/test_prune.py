"""Channels stand or fall together: without some, a network computes what it did with these set to 0."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.deploy import prune
from mindghost.deploy.prune import select
from mindghost.deploy.prune.graph import Convolution, Group, Member, dependencies
from mindghost.models import create_model
from mindghost.models.complexity import complexity
from mindghost.models.pruned import channels_of, narrow
from tests.helpers.weights import randomise

SHAPE = (3, 64, 64)
NETWORKS = {
    "ghostnet_050": {},
    "ghostnetv2_100": {},
    "ghostnetv3_050": {},
    "repghostnet_050": {},
    "ghost_resnet56": {},
    "ghost_vgg16": {},
    "ghost_unet": {"backbone": "ghostnet_050"},
    "ghost_lraspp": {"backbone": "ghostnet_050"},
}


def made(name, seed=0):
    ms.set_seed(seed)
    network = create_model(name, num_classes=7, **NETWORKS[name])
    randomise(network, gamma=(0.3, 0.6))
    return network


def arrays_of(network):
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def fill(network, arrays):
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(arrays[parameter.name]))


def logits(network, images):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return network.set_train(False)(Tensor(images)).asnumpy()


@pytest.mark.parametrize(
    "name", ["ghostnet_050", *(pytest.param(n, marks=pytest.mark.slow) for n in list(NETWORKS)[1:])]
)
def test_without_channels_it_is_what_it_was_with_them_at_0(request, name):
    if "backbone" not in NETWORKS[name]:
        request.getfixturevalue("short_network")
    network = made(name)
    found = dependencies(network, *SHAPE)
    arrays = arrays_of(network)
    # Every parameter is in it, each row of it once.
    rows = [(m.parameter, m.index) for group in found.groups for m in group.members if m.axis == 0]
    assert len(rows) == len(set(rows))
    assert {parameter for parameter, _ in rows} == set(arrays)
    assert select.macs_of(found.convolutions) == complexity(network, *SHAPE[1:]).macs
    rng = np.random.default_rng(1)
    free = [group for group in found.groups if not group.fixed]
    gone, after = select.chosen(found, rng.random(len(found.groups)), 0.6)
    assert 0.1 * len(free) < len(gone) < len(free)
    assert all(not group.fixed for group in gone)
    # Maps that are 0 are those of filters, scales and biases of 0.
    masked = {name: array.copy() for name, array in arrays.items()}
    for member in (member for group in gone for member in group.members):
        # A moving variance of 0 would have no inverse; of maps that are 0 it does not matter.
        if member.axis == 0 and not member.parameter.endswith("moving_variance"):
            masked[member.parameter][member.index] = 0
    left = prune.without(arrays, gone)
    channels = prune._channels(network, arrays, left)
    smaller = made(name)
    narrow(smaller, channels)
    fill(smaller, left)
    fill(network, masked)
    images = rng.standard_normal((2, *SHAPE)).astype(np.float32)
    expected = logits(network, images)
    np.testing.assert_allclose(logits(smaller, images), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert complexity(smaller, *SHAPE[1:]).macs == after <= 0.6 * select.macs_of(found.convolutions)


def test_the_budget_is_kept_and_layers_are_not_emptied(short_network):
    network = made("ghostnet_050")
    whole = complexity(network, *SHAPE[1:]).macs
    for share in (0.9, 0.5):
        found = prune.prune(network, SHAPE, share)
        assert found.macs[0] == whole
        assert share * whole * 0.9 < found.macs[1] <= share * whole
    least = prune.prune(network, SHAPE, 0.0)
    full = channels_of(network)
    for name, channels in least.channels.items():
        assert all(new >= 2 or new == old for new, old in zip(channels, full[name], strict=True)), name
    assert least.macs[1] > 0


def test_importance_by_hand():
    groups = [Group([Member("a.weight", 0, 0), Member("b.weight", 1, 0), Member("n.gamma", 0, 0)])]
    groups += [Group([Member("a.weight", 0, 1), Member("b.weight", 1, 1), Member("n.gamma", 0, 1)])]
    groups += [Group([Member("b.weight", 0, 0)])]
    arrays = {
        "a.weight": np.float32([[3, 4], [0, 5]]).reshape(2, 2, 1, 1) * np.float32([[[[1]]], [[[3]]]]),
        "b.weight": np.float32([[1, 1]]),
        "n.gamma": np.float32([-1, 3]),
    }
    # Lengths 5 and 15, of which 10 is the mean.
    np.testing.assert_allclose(select.by_magnitude(groups, arrays), [0.5, 1.5, 1.0])
    np.testing.assert_allclose(select.by_scale(groups, arrays), [0.5, 1.5, np.inf])
    gradients = {"a.weight": np.ones((2, 2, 1, 1)), "n.gamma": np.float64([2, 0])}
    np.testing.assert_allclose(select.by_loss(groups, arrays, gradients), [(7 - 2) ** 2, 15**2, 0])


def test_a_budget_by_hand():
    """10 -> 8 -> 4 channels, of which the middle ones can go: each saves 10 x 3 + 4 x 5."""
    groups = [Group([Member("a.weight", 0, i), Member("b.weight", 1, i)]) for i in range(8)]
    groups.append(Group([Member("a.weight", 1, 0)], fixed=True))
    layers = [Convolution("a.weight", 8, 10, 3, False), Convolution("b.weight", 4, 8, 5, False)]
    found = prune.graph.Dependencies(groups, layers)
    order = np.array([3, 1, 2, 0, 7, 6, 5, 4, -1.0])
    gone, left = select.chosen(found, order, 0.7)
    assert (left, [groups.index(group) for group in gone]) == (400 - 3 * 50, [3, 1, 2])
    gone, left = select.chosen(found, order, 0.0)
    assert (len(gone), left) == (6, 100)


def test_what_cannot_be_narrowed_is_refused():
    network = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    name, norm = channels_of(network)
    for channels, why in (
        ({"x": (1, 1)}, "x is no layer of this network"),
        ({name: (9, 3)}, "has 8 and 3 channels, and cannot have 9 and 3"),
        ({name: (0, 3)}, "cannot have 0 and 3"),
        ({norm: (4, 4)}, "has 8 channels, and cannot have 4 and 4"),
    ):
        with pytest.raises(ValueError, match=why):
            narrow(network, channels)
