"""What timm's and MindCV's users expect of every network: head, embeddings, feature maps, MindCV's registry."""

import subprocess
import sys
from dataclasses import replace

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.load import fill_network
from mindghost.errors import UserError
from mindghost.models import CLASSIFICATION, card, create_model, list_models, registry
from mindghost.models.ghostnet import GhostNet
from mindghost.models.reparam import fuse
from tests.helpers.places import ROOT
from tests.helpers.weights import randomise

# One of each class.
KINDS = (
    "ghostnet_050",
    "g_ghost_regnetx_032",
    "ghost_resnet50_s4",
    "ghost_resnet56",
    "ghost_vgg16",
    "ghost_airbench",
)
# By hand: strides, channels, and the cells that make the maps, with the network cut after them.
MAPS = {
    "ghostnet_050": ((2, 4, 8, 16, 32), (8, 12, 20, 56, 80), [f"blocks.{i}" for i in (0, 2, 4, 6, 8)]),
    "g_ghost_regnetx_032": (
        (2, 4, 8, 16, 32),
        (32, 96, 192, 432, 1008),
        ["relu", "layer1", "layer2", "layer3", "layer4"],
    ),
    "ghost_resnet50_s4": (
        (2, 4, 8, 16, 32),
        (64, 256, 512, 1024, 2048),
        ["relu", "layer1", "layer2", "layer3", "layer4"],
    ),
    "ghost_resnet56": ((1, 2, 4), (16, 32, 64), ["layer1", "layer2", "layer3"]),
    "ghost_vgg16": (
        (1, 2, 4, 8, 16, 32),
        (64, 128, 256, 512, 512, 512),
        [f"features.{i}" for i in (0, 3, 7, 11, 15, 16)],
    ),
    "ghost_airbench": ((1, 2, 4, 8), (128, 384, 384, 384), [f"features.{i}" for i in (0, 4, 8, 11)]),
}


def image(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def names(network: nn.Cell) -> list[str]:
    return [parameter.name for parameter in network.get_parameters()]


def arrays(network: nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def tiny(**options) -> GhostNet:
    return GhostNet(width=0.1, **options).set_train(False)


@pytest.mark.parametrize("name", KINDS)
def test_head_and_embeddings(name):
    """The logits are the classifier's product with the embeddings; a network of 0 classes gives the embeddings."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model(name, num_classes=3).set_train(False)
    x = image(2, 3, 32, 32)
    features = network.forward_features(x)
    embeddings = network.forward_head(features, pre_logits=True).asnumpy()
    assert embeddings.shape == (2, network.num_features)
    dense = network.get_classifier()
    assert dense is getattr(network, card(name).classifier)
    assert dense.weight.name == f"{card(name).classifier}.weight"
    expected = embeddings @ dense.weight.asnumpy().T + dense.bias.asnumpy()
    np.testing.assert_allclose(network(x).asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    without = create_model(name, num_classes=0).set_train(False)
    assert names(without) == [n for n in names(network) if not n.startswith(f"{card(name).classifier}.")]
    network.reset_classifier(0)
    assert (names(network), network.num_classes) == (names(without), 0)
    np.testing.assert_array_equal(network(x).asnumpy(), embeddings)


def test_num_features_are_mindcvs():
    assert tiny().num_features == mindcv.create_model("ghostnet_050").num_features == 1280


def test_mindcvs_features_and_head(tmp_path):
    """forward_features and forward_head split the network where MindCV splits its own."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    theirs = mindcv.create_model("ghostnet_050", num_classes=4).set_train(False)
    ours = create_model("ghostnet_050", num_classes=4).set_train(False)
    randomise(theirs, 1)
    ms.load_param_into_net(ours, theirs.parameters_dict())
    x = image(1, 3, 32, 32)
    expected = theirs.forward_features(x)
    scale = np.abs(expected.asnumpy()).max()
    np.testing.assert_allclose(ours.forward_features(x).asnumpy(), expected.asnumpy(), rtol=0, atol=1e-5 * scale)
    found, logits = (net.forward_head(expected).asnumpy() for net in (ours, theirs))
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def test_classifiers_after_compilation(short_network):
    """Graph mode runs the new classifier; names are those of a network built so; fresh weights are GhostNet's."""
    network = tiny(num_classes=5)
    x = image(1, 3, 32, 32)
    assert network(x).shape == (1, 5)
    network.reset_classifier(7)
    assert names(network) == names(tiny(num_classes=7))
    assert network(x).shape == (1, 7)
    dense = network.classifier
    assert (dense.bias.asnumpy() == 0).all()
    # He-uniform: within sqrt(6 / 1280), and filling that range.
    assert 0.9 < np.abs(dense.weight.asnumpy()).max() / np.sqrt(6 / 1280) <= 1
    network.reset_classifier(0)
    embeddings = network(x).asnumpy()
    assert embeddings.shape == (1, 1280)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = network.forward_head(network.forward_features(x), True).asnumpy()
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="num_classes: expected 0 .* got -1"):
        network.reset_classifier(-1)


def test_a_classifier_inside_of_a_larger_network_keeps_its_prefix():
    larger = nn.SequentialCell(tiny(num_classes=5), nn.ReLU())
    before = names(larger)
    larger[0].reset_classifier(6)
    assert names(larger) == before
    assert "0.classifier.weight" in before


@pytest.mark.parametrize("name", KINDS)
def test_feature_maps(name):
    """Strides and channels by hand, and the same numbers as the network's own cells give, one after the other."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    strides, channels, cells = MAPS[name]
    whole, features = (create_model(name, features_only=only).set_train(False) for only in (False, True))
    randomise(whole, 1)
    missing, surplus = ms.load_param_into_net(features, whole.parameters_dict())
    assert (missing, sorted(surplus)) == ([], sorted(features.left_out))
    assert (features.feature_info.reduction(), features.feature_info.channels()) == (list(strides), list(channels))
    assert features.out_channels == list(channels)
    seen = {}
    for cell_name, cell in whole.cells_and_names():
        if cell_name in cells:
            cell.register_forward_hook(lambda _c, _x, out, key=cell_name: seen.update({key: out.asnumpy()}))
    x = image(1, 3, 64, 96)
    whole(x)
    maps = features(x)
    assert [m.shape for m in maps] == [(1, c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)]
    for cell_name, found in zip(cells, maps, strict=True):
        np.testing.assert_array_equal(found.asnumpy(), seen[cell_name])
        assert found.asnumpy().std() > 0


@pytest.mark.parametrize(
    "name", ["ghostnetv2_100", "ghostnetv3_050", "repghostnet_050", "resnet56_cifar", "vgg16_cifar"]
)
def test_other_networks_give_feature_maps(name):
    """What is said of the maps is so; their network's parameters and those left out are the whole network's."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    features = create_model(name, features_only=True).set_train(False)
    info, strides = features.feature_info, ([2, 4, 8, 16, 32] if card(name).input_size == 224 else [1, 2, 4])
    assert info.reduction()[: len(strides)] == strides
    assert not [n for n in features.left_out if n in set(names(features))]
    assert {n.partition(".")[0] for n in features.left_out} <= {"blocks", "conv_head", "hidden", card(name).classifier}


def test_chosen_maps_in_graph_mode_from_a_file_of_the_whole_network(tmp_path):
    """Layers behind the last chosen map are gone; a file of the classifying network loads, what is left is listed."""
    whole = tiny(num_classes=5)
    randomise(whole)
    weights_file.write(tmp_path / "w.ckpt", arrays(whole))
    with pytest.MonkeyPatch.context() as patch:
        small = replace(card("ghostnet_050"), build=lambda **options: GhostNet(width=0.1, **options))
        patch.setitem(registry.CARDS, "ghostnet_050", small)
        features = create_model("ghostnet_050", features_only=True, out_indices=(1, 3)).set_train(False)
        embedding = create_model("ghostnet_050", num_classes=0)
    assert features.feature_info.reduction() == [4, 16]
    loaded = fill_network(features, tmp_path / "w.ckpt", stem="conv_stem", classifier="classifier")
    assert set(loaded.dropped) == set(names(whole)) - set(names(features))
    assert all(
        name.startswith(("blocks.7.", "blocks.8.", "blocks.9.", "conv_head.", "class")) for name in loaded.dropped
    )
    assert f"dropped {len(loaded.dropped)} that the network does without: blocks.7." in str(loaded)
    x = image(1, 3, 33, 64)
    found = [m.asnumpy() for m in features(x)]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = whole.act1(whole.bn1(whole.conv_stem(x)))
    wanted = {}
    for index in range(7):
        wanted[index] = expected = whole.blocks[index](expected)
    for m, index in zip(found, (2, 6), strict=True):
        np.testing.assert_allclose(m, wanted[index].asnumpy(), rtol=0, atol=1e-4 * np.abs(m).max())

    loaded = fill_network(embedding, tmp_path / "w.ckpt", stem="conv_stem", classifier="classifier")
    assert loaded.dropped == ("classifier.weight", "classifier.bias")
    np.testing.assert_array_equal(embedding.conv_head.weight.asnumpy(), whole.conv_head.weight.asnumpy())
    weights_file.write(tmp_path / "other.ckpt", {**arrays(whole), "blocks.2.0.more.weight": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="not in the network: blocks.2.0.more.weight"):
        fill_network(features, tmp_path / "other.ckpt", stem="conv_stem", classifier="classifier")


@pytest.mark.parametrize("name", ["ghostnetv3_050", "repghostnet_050"])
def test_feature_maps_of_the_fused_form(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    trained, deployed = (
        create_model(name, features_only=True, out_indices=[4], deploy=deploy).set_train(False)
        for deploy in (False, True)
    )
    randomise(trained, 1, gamma=(0.225, 0.675))
    missing, surplus = ms.load_param_into_net(
        deployed, {name: ms.Parameter(Tensor(array), name) for name, array in fuse(arrays(trained)).items()}
    )
    assert (missing, surplus) == ([], [])
    x = image(1, 3, 64, 64)
    expected = trained(x)[0].asnumpy()
    np.testing.assert_allclose(deployed(x)[0].asnumpy(), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("indices", "said"), [((5,), "5"), ((-1,), "-1"), ((), "none"), ((1, 1), "1, 1"), ((2, 1), "2, 1")]
)
def test_wrong_indices_are_refused(indices, said):
    message = f"^out_indices: expected growing numbers from 0 to 4 \\(strides 2, 4, 8, 16, 32\\), got {said}$"
    with pytest.raises(ValueError, match=message):
        create_model("ghostnet_050", features_only=True, out_indices=indices)


def test_indices_of_a_classifying_network_are_refused():
    with pytest.raises(ValueError, match="out_indices: only for features_only=True"):
        create_model("ghostnet_050", out_indices=(1, 2))


def test_mindcvs_registry_has_what_it_lacked(tmp_path):
    network = mindcv.create_model("ghostnetv2_100", num_classes=7, in_channels=1, drop_rate=0.1)
    assert type(network).__module__ == "mindghost.models.ghostnetv2"
    assert (network.classifier.weight.shape, network.conv_stem.weight.shape[1]) == ((7, 1280), 1)
    assert network.dropout.p == 0.1
    assert set(mindcv.list_models()) >= set(list_models(CLASSIFICATION))
    randomise(network)
    ms.save_checkpoint(network, str(tmp_path / "w.ckpt"))
    again = mindcv.create_model(
        "ghostnetv2_100", num_classes=7, in_channels=1, checkpoint_path=str(tmp_path / "w.ckpt")
    )
    for parameter, other in zip(network.get_parameters(), again.get_parameters(), strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), other.asnumpy())
    features = mindcv.create_model("ghost_resnet56", num_classes=10, features_only=True, out_indices=[0, 2])
    assert features.out_channels == [16, 64]
    with pytest.raises(ValueError, match="^pretrained: no weights of ghostnetv2_100 are published for MindSpore; "):
        mindcv.create_model("ghostnetv2_100", pretrained=True)


def test_mindcvs_own_networks_stay():
    for name in ("ghostnet_050", "ghostnet_100", "ghostnet_130"):
        assert mindcv.models.registry.model_entrypoint(name) is getattr(mindcv.models.ghostnet, name)
    assert type(mindcv.create_model("ghostnet_050")) is mindcv.models.ghostnet.GhostNet


def test_mindcv_may_be_missing():
    code = "import sys; sys.modules['mindcv'] = None; import mindghost.models as m; print(len(m.list_models()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", timeout=120)
    assert (result.returncode, result.stdout) == (0, f"{len(list_models())}\n"), result.stderr
