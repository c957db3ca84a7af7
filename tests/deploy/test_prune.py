"""Channels stand or fall together: without some, a network computes what it did with these set to 0."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost import build
from mindghost.config import Config
from mindghost.deploy import prune
from mindghost.deploy.prune import select
from mindghost.deploy.prune.graph import Convolution, Group, Member, dependencies
from mindghost.errors import UserError
from mindghost.models import create_model, g_ghost_regnet, ghost_resnet
from mindghost.models.complexity import complexity
from mindghost.models.pruned import channels_of, narrow
from mindghost.train import trainer
from tests.helpers.commands import run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run
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
    "ghost_resnet50_s2": {},
    "g_ghost_regnetx_032": {},
}
# Cut: a block of each stage, and one stage of ghosts, all of them narrow.
RESNET_STAGES = ((1, 16, 1), (1, 24, 2), (1, 32, 2), (1, 40, 2))
REGNET = {"depths": (1, 3, 1, 1), "widths": (16, 32, 48, 64), "group_width": 8}


def made(name, seed=0):
    ms.set_seed(seed)
    if name == "g_ghost_regnetx_032":
        network = g_ghost_regnet.GGhostRegNet(**REGNET, num_classes=7)
    else:
        network = create_model(name, num_classes=7, **NETWORKS[name])
    randomise(network, gamma=(0.3, 0.6))
    return network


def arrays_of(network):
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def fill(network, arrays):
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(arrays[parameter.name]))


def grouped_convolutions(network):
    """The weights of convolutions with groups of several channels."""
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.Conv2d)]
    return {cell.weight.name for cell in cells if 1 < cell.group < cell.in_channels}


def logits(network, images):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return network.set_train(False)(Tensor(images)).asnumpy()


@pytest.mark.parametrize(
    "name", ["ghostnet_050", *(pytest.param(n, marks=pytest.mark.slow) for n in list(NETWORKS)[1:])]
)
def test_without_channels_it_is_what_it_was_with_them_at_0(request, monkeypatch, name):
    monkeypatch.setattr(ghost_resnet, "STAGES", RESNET_STAGES)
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
    grouped = grouped_convolutions(network)
    assert bool(grouped) == (name == "g_ghost_regnetx_032")
    assert not [member for group in gone for member in group.members if member.parameter in grouped]
    # Maps that are 0 are those of filters, scales and biases of 0.
    masked = {name: array.copy() for name, array in arrays.items()}
    for member in (member for group in gone for member in group.members):
        # A moving variance of 0 would have no inverse; of maps that are 0 it does not matter.
        if member.axis == 0 and not member.parameter.endswith("moving_variance"):
            masked[member.parameter][member.index] = 0
    left = prune.without(arrays, gone)
    channels = prune._channels(network, left)
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
        assert all(new >= 2 or new in (0, old) for new, old in zip(channels, full[name], strict=True)), name
    assert least.macs[1] > 0


@pytest.fixture
def trained(tmp_path, short_network):
    """A checkpoint with what training leaves beside it, and its images."""
    images = write_images(tmp_path / "images", CLASSES, 8, 6)
    keys = {"opt": "adamw", "lr": 0.003, "hflip": 0.25, "pretrained": True, "distribute": True, "resume": True}
    return write_run(
        tmp_path / "run", model="ghostnet_050", data_dir=str(images), batch_size=8, num_parallel_workers=1, **keys
    )


def test_what_is_left_is_an_ordinary_network(trained, tmp_path, capsys):
    """Evaluated, fine-tuned, exported, and pruned again."""
    out = tmp_path / "pruned"
    assert run_mindghost("prune", "--ckpt_path", trained, "--macs", 0.6, "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    weights = out / "ghostnet_050_pruned.ckpt"
    assert said[-2] == f"wrote {weights}"
    assert said[-1].endswith(f"mindghost train -c {out / 'config.yaml'} --ckpt_path {weights} --ckpt_save_dir RUN")
    before, after = (
        complexity(build.network(Config.from_file(f / "config.yaml")), 32, 32).macs for f in (trained.parent, out)
    )
    assert 0.5 * before < after <= 0.6 * before
    assert run_mindghost("validate", "--ckpt_path", weights) == 0
    config = Config.from_file(out / "config.yaml")
    # It is trained as the whole one was, but starts from its own weights, in a folder of its own.
    assert (config.opt, config.lr, config.hflip) == ("adamw", 0.003, 0.25)
    assert (config.pretrained, config.distribute, config.resume) == (False, False, False)
    keys = {"epoch_size": 2, "warmup_epochs": 0, "decay_epochs": 2, "val_while_train": True, "mode": 1}
    trainer.train(config.replace(**keys, ckpt_path=str(weights), ckpt_save_dir=str(tmp_path / "tuned")))
    tuned = tmp_path / "tuned" / "ghostnet_050_best.ckpt"
    assert run_mindghost("export", "--ckpt_path", tuned, "--format", "onnx") == 0
    capsys.readouterr()
    answers = []
    for path in (tuned, tuned.with_suffix(".onnx")):
        assert run_mindghost("validate", "--ckpt_path", path) == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1])["loss"])
    assert answers[0] == pytest.approx(answers[1], rel=1e-4)
    # To other classes, too: the classifier is fresh.
    other = config.replace(num_classes=5, ckpt_path=str(weights))
    build.load_weights(build.network(other), other, fine_tune=True)
    # So few channels are left that 8 at a time are too many.
    by_loss = ("--importance", "loss", "--batches", 2, "--multiple", 2, "--out", tmp_path / "by_loss")
    assert run_mindghost("prune", "--ckpt_path", tuned, "--macs", 0.8, *by_loss) == 0
    again = tmp_path / "again"
    by_scale = ("--importance", "scale", "--multiple", 2, "--out", again)
    assert run_mindghost("prune", "--ckpt_path", tuned, "--macs", 0.8, *by_scale) == 0
    least = complexity(build.network(Config.from_file(again / "config.yaml")), 32, 32).macs
    assert 0.7 * after < least <= 0.8 * after


def test_bad_input_is_one_line(trained, tmp_path, capsys):
    out = tmp_path / "pruned"
    assert run_mindghost("prune", "--ckpt_path", trained, "--macs", 0.6, "--out", out) == 0
    capsys.readouterr()
    for words, why in (
        (
            ("--ckpt_path", trained, "--macs", 0.6, "--out", out),
            "pruned is not empty; give a folder that is not there yet",
        ),
        (
            ("--ckpt_path", trained, "--macs", 0.01, "--out", tmp_path / "least"),
            "of the multiply-accumulates is the least",
        ),
        (("--ckpt_path", trained, "--macs", 1.5, "--out", out), "--macs: expected a number from 0.01 to 0.99"),
        (("--ckpt_path", tmp_path / "no.ckpt", "--macs", 0.5, "--out", out), "no.ckpt: no such file"),
    ):
        assert run_mindghost("prune", *words) == 2
        error = capsys.readouterr().err
        assert why in error
        assert error.count("\n") == 1
    config = Config.from_file(out / "config.yaml")
    for channels, why in (
        (("nowhere=1x1",), "channels: nowhere is no layer of this network"),
        (("conv_stem=900x3",), "channels: conv_stem has 8 and 3 channels, and cannot have 900 and 3"),
    ):
        with pytest.raises(UserError, match=why):
            build.network(config.replace(channels=channels))
    with pytest.raises(UserError, match="channels: expected LAYER=OUTxIN"):
        Config(channels=("conv_stem",))


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


def test_so_many_go_at_a_time():
    """10 -> 10 -> 4 channels: with 4 at a time, first the two beyond a multiple, then the least important 4."""
    groups = [Group([Member("a.weight", 0, i), Member("b.weight", 1, i)]) for i in range(10)]
    layers = [Convolution("a.weight", 10, 10, 3, False), Convolution("b.weight", 4, 10, 5, False)]
    found = prune.graph.Dependencies(groups, layers)
    worth = np.array([9, 0, 8, 1, 7, 2, 6, 3, 5, 4.0])
    for share, expected in ((0.9, [1, 3]), (0.7, [1, 3, 5, 7, 9, 8]), (0.4, [1, 3, 5, 7, 9, 8])):
        gone, left = select.chosen(found, worth, share, 4)
        assert [groups.index(group) for group in gone] == expected
        assert left == (10 - len(expected)) * 50
    # Alike are groups with rows of the same parameters: of these layers each keeps a multiple of its own.
    others = [Group([Member("c.weight", 0, i), Member("d.weight", 1, i)]) for i in range(8)]
    layers += [Convolution("c.weight", 8, 10, 3, False), Convolution("d.weight", 4, 8, 5, False)]
    found = prune.graph.Dependencies([*groups, *others], layers)
    gone, _ = select.chosen(found, np.array([*worth, *range(10, 18)]), 0.5, 4)
    assert [sum(group in each for group in gone) for each in (groups, others)] == [6, 4]


def test_what_is_narrower_trains_as_before():
    network, other = (nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=0.01, momentum=0.7)) for _ in "ab")
    name, norm = channels_of(network)
    narrow(network, {name: (4, 0), norm: (4,)})
    for new, old in zip(network, other, strict=True):
        kept = ("momentum", "eps", "use_batch_statistics", "kernel_size", "stride", "pad_mode", "has_bias")
        for key in kept:
            assert getattr(new, key, None) == getattr(old, key, None), key


def test_what_cannot_be_narrowed_is_refused():
    network = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    name, norm = channels_of(network)
    for channels, why in (
        ({"x": (1, 1)}, "x is no layer of this network"),
        ({name: (9, 3)}, "has 8 and 3 channels, and cannot have 9 and 3"),
        ({name: (-1, 3)}, "cannot have -1 and 3"),
        ({norm: (4, 4)}, "has 8 channels, and cannot have 4 and 4"),
    ):
        with pytest.raises(ValueError, match=why):
            narrow(network, channels)
