"""A configuration -> a network for segmentation and its weights: all of them, or its backbone's alone."""

from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from mindghost import build
from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.names import timm_names
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.models import card, create_model, ghostnet
from mindghost.train import groups
from mindghost.train.freeze import freeze
from tests.helpers import short
from tests.helpers.weights import randomise


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """GhostNets of five bottlenecks, and a task of pixels."""
    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())
    monkeypatch.setattr(build.tasks, "of", lambda config: SimpleNamespace(is_dense=config.task == "segmentation"))
    ms.set_context(mode=ms.PYNATIVE_MODE)


def config(**keys) -> Config:
    usual = {"model": "ghost_lraspp", "task": "segmentation", "backbone": "ghostnet_050", "num_classes": 3}
    return Config(**usual | keys)


@pytest.fixture
def classifier(tmp_path) -> Path:
    """The file of a classifier with 7 classes."""
    network = create_model("ghostnet_050", num_classes=7)
    randomise(network)
    path = tmp_path / "classifier.ckpt"
    weights_file.write(path, {p.name: p.asnumpy() for p in network.get_parameters()})
    return path


def values(network) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().copy() for p in network.get_parameters()}


@pytest.mark.parametrize("kind", ["ours", "timm"])
def test_a_classifiers_weights_fill_the_backbone(classifier, tmp_path, kind):
    """All of the backbone, and nothing else; by names of PyTorch's, too."""
    arrays = weights_file.read(classifier)
    if kind == "timm":
        theirs = timm_names(arrays)
        classifier = tmp_path / "classifier.safetensors"
        weights_file.write_safetensors(classifier, {theirs[name]: array for name, array in arrays.items()})
    made = config(backbone_ckpt_path=str(classifier))
    network = build.network(made)
    before = values(network)
    loaded = build.load_weights(network, made, fine_tune=True)
    for name, found in values(network).items():
        is_backbone = name.startswith("backbone.")
        np.testing.assert_array_equal(found, arrays[name.removeprefix("backbone.")] if is_backbone else before[name])
    fresh = [name for name in before if not name.startswith("backbone.")]
    said = (
        f"loaded {len(before) - len(fresh)} parameters of the backbone ghostnet_050 from {classifier}; dropped 9 that "
    )
    assert str(loaded).startswith(said + "the network does without: blocks.5.features.0.weight, ")
    assert str(loaded).endswith(f"; everything else is fresh: decoder, classifier ({len(fresh)} parameters)")


def test_another_decoders_backbone_is_taken(tmp_path):
    """Of a file of the whole network; a backbone that does not fit is told from one that does."""
    other = build.network(config(model="plain_unet"))
    randomise(other)
    path = tmp_path / "unet.ckpt"
    weights_file.write(path, values(other))
    made = config(backbone_ckpt_path=str(path))
    network = build.network(made)
    loaded = build.load_weights(network, made, fine_tune=True)
    assert {name.partition(".")[0] for name in loaded.dropped} == {"decoder", "classifier"}
    theirs, ours = values(other), values(network)
    backbone = [name for name in ours if name.startswith("backbone.")]
    assert loaded.parameters == len(backbone)
    for name in backbone:
        np.testing.assert_array_equal(ours[name], theirs[name])
    wrong = made.replace(backbone="ghostnet_100")
    with pytest.raises(UserError, match="does not fit the network .*; give the backbone that the file was made with$"):
        build.load_weights(build.network(wrong), wrong, fine_tune=True)


def test_weights_of_another_network_are_one_line(classifier):
    made = config(backbone="ghostnet_100", backbone_ckpt_path=str(classifier))
    with pytest.raises(UserError, match="does not fit the network .*; give the backbone that the file was made with$"):
        build.load_weights(build.network(made), made, fine_tune=True)


def test_published_weights_are_the_backbones(classifier, monkeypatch):
    asked = []
    monkeypatch.setattr(build, "published_file", lambda *names: asked.append(names) or classifier)
    made = config(pretrained=True)
    network = build.network(made)
    assert build.load_weights(network, made, fine_tune=True).part == "the backbone ghostnet_050"
    assert asked == [("ghostnet_050", True)]


@pytest.mark.fault("weights", "clean error")
def test_a_classifier_is_not_the_whole_network(classifier):
    made = config(ckpt_path=str(classifier))
    message = f"^{classifier}: holds a classifier, not the whole of ghost_lraspp; .* takes it as backbone_ckpt_path$"
    with pytest.raises(UserError, match=message):
        build.load_weights(build.network(made), made, fine_tune=True)
    with pytest.raises(UserError, match=message):
        build.trained_network(made)


@pytest.mark.fault("weights", "clean error")
def test_weights_are_named_once():
    for other in ({"ckpt_path": "w.ckpt"}, {"pretrained": True}):
        both = config(backbone_ckpt_path="b.ckpt", **other)
        with pytest.raises(UserError, match="both name weights to start from; drop one of them"):
            build.check(both)
    with pytest.raises(UserError, match="^backbone_ckpt_path: ghostnet_050 is a classifier, which has no backbone"):
        build.check(Config(model="ghostnet_050", backbone_ckpt_path="b.ckpt"))


@pytest.mark.fault("settings", "clean error")
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"task": "classification"}, "model: ghost_lraspp is a network for segmentation, not for task classification"),
        ({"model": "ghostnet_050"}, "model: ghostnet_050 is a network for classification, not for task segmentation"),
        ({"backbone": "ghostnet_51"}, "backbone: 'ghostnet_51' is not known; the nearest is 'ghostnet_"),
        ({"upsampling": "transposed"}, "upsampling: ghost_lraspp takes bilinear, not 'transposed'"),
    ],
)
def test_networks_that_do_not_fit(keys, words):
    with pytest.raises(UserError, match=f"^{words}"):
        build.network(config(**keys))


def test_a_network_goes_through_its_file(tmp_path):
    """And sizes that are not the file's are refused by the key to blame."""
    made = config(decoder_width=0.5)
    network = build.network(made)
    randomise(network)
    path = tmp_path / "w.ckpt"
    weights_file.write(path, values(network))
    saved = made.replace(ckpt_path=str(path), val_amp_level="O0")
    again, _ = build.trained_network(saved)
    for name, found in values(again).items():
        np.testing.assert_array_equal(found, values(network)[name])
    for key, value in (("num_classes", 4), ("in_channels", 5)):
        with pytest.raises(UserError, match=f"^{key}: {value}, but "):
            build.trained_network(saved.replace(**{key: value}))
    with pytest.raises(UserError, match="; give the model, backbone, decoder_width, upsampling that the file was made"):
        build.trained_network(saved.replace(decoder_width=1.0))
    grey, loaded = build.trained_network(saved.replace(in_channels=1))
    assert loaded.stem_summed
    assert grey.backbone.conv_stem.weight.shape[1] == 1
    # A training on other classes starts with a fresh classifier.
    other = saved.replace(num_classes=5)
    fresh = build.load_weights(build.network(other), other, fine_tune=True).fresh
    assert fresh == tuple(f"classifier.{part}.{kind}" for part in ("low", "high") for kind in ("weight", "bias"))


def test_the_head_is_decoder_and_classifier():
    """For rates of its own, and for a backbone that stays as it is."""
    made = config(model="ghost_unet", head_lr_factor=10.0, backbone_lr_factor=0.5, layer_decay=0.5)
    network = build.network(made)
    found = groups.scales(made, network)
    # Five bottlenecks: the stem is six layers below the head.
    assert found["backbone.conv_stem.weight"] == 0.5 * 0.5**6
    assert found["backbone.blocks.4.0.ghost1.primary_conv.0.weight"] == 0.5 * 0.5
    heads = {name for name, scale in found.items() if scale == 10}
    assert heads == {p.name for p in network.trainable_params() if p.name.startswith(("decoder.", "classifier."))}

    freeze(network, made.replace(freeze_backbone=True))
    assert {p.name for p in network.trainable_params()} == heads
    assert card("ghost_unet").backbone == "ghostnet_100"
