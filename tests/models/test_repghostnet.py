"""RepGhostNet is the published one, as it is trained and fused."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.names import from_pytorch, timm_names
from mindghost.models import card, create_model, list_models
from mindghost.models.reparam import branches, fuse
from mindghost.models.repghostnet import RepGhostModule
from tests.helpers.networks import assert_golden_card, assert_golden_logits, images, load
from tests.helpers.places import GOLDEN
from tests.helpers.weights import golden_state, randomise

NAMES = [name for name in list_models() if name.startswith("repghostnet_")]
GOLDEN_NAMES = ["repghostnet_050", "repghostnet_080", "repghostnet_130", "repghostnet_200"]
SLOW_NAMES = [pytest.param(name, marks=pytest.mark.slow) for name in GOLDEN_NAMES[1:]]


def weights(network: nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


@pytest.mark.parametrize("name", [GOLDEN_NAMES[0], *SLOW_NAMES])
def test_golden_logits(name, tmp_path):
    """timm's names and weights, through the converter and a file: timm's logits, as trained and fused."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    converted = from_pytorch(golden_state(name))
    for deploy, parameters in ((False, converted), (True, fuse(converted))):
        weights_file.write(tmp_path / "golden.ckpt", parameters)
        network = create_model(name, deploy=deploy)
        load(network, tmp_path / "golden.ckpt")
        assert_golden_logits(network, name)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_card(name):
    assert_golden_card(name)


def test_layers_are_in_timms_order():
    theirs = [name for name, _, _ in json.loads((GOLDEN / "repghostnet_050.json").read_text())["entries"]]
    ours = timm_names(parameter.name for parameter in create_model("repghostnet_050").get_parameters()).values()

    def layers(names):
        return list(dict.fromkeys(name.rpartition(".")[0] for name in names))

    assert layers(ours) == layers(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_papers(name):
    """Of either form, to the digits that are printed. That cards count their networks is in tests/cli."""
    facts = card(name)
    for parameters in (facts.parameters, facts.fused_parameters):
        assert round(parameters / 1e6, 1) == facts.paper_parameters
    assert round(facts.macs / 1e6) == facts.paper_macs
    assert facts.macs == facts.fused_macs


@pytest.mark.parametrize("name", NAMES)
def test_every_width_is_timms(name, timm):
    """Random weights of timm's through the converter, both forms, and back: names, shapes, logits."""
    import torch

    ms.set_context(mode=ms.PYNATIVE_MODE)
    theirs = timm.create_model(name, num_classes=5).eval()
    generator = torch.Generator().manual_seed(0)
    for entry, value in theirs.state_dict().items():
        if entry.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.dim() == 1:
            value.normal_(0.5 if entry.endswith("weight") else 0.0, 0.1, generator=generator)
    state = {entry: value.numpy().copy() for entry, value in theirs.state_dict().items()}
    x = images(2, 3, 64, 96)
    ours = create_model(name, num_classes=5).set_train(False)
    ms.load_param_into_net(ours, parameters := as_parameters(from_pytorch(state)), strict_load=True)
    assert parameters.keys() == ours.parameters_dict().keys()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
        theirs.convert_to_deploy()
        fused_logits = theirs(torch.from_numpy(x)).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours(Tensor(x)).asnumpy(), expected, rtol=0, atol=1e-5 * scale)

    fused = fuse(weights(ours))
    back = {timm_names(fused)[ours_name]: array for ours_name, array in fused.items()}
    kept = {entry: value.numpy() for entry, value in theirs.state_dict().items() if "num_batches" not in entry}
    assert back.keys() == kept.keys()
    for entry, array in kept.items():
        np.testing.assert_allclose(back[entry], array, rtol=0, atol=1e-6, err_msg=entry)
    deployed = create_model(name, num_classes=5, deploy=True).set_train(False)
    ms.load_param_into_net(deployed, parameters := as_parameters(fused), strict_load=True)
    assert parameters.keys() == deployed.parameters_dict().keys()
    np.testing.assert_allclose(deployed(Tensor(x)).asnumpy(), fused_logits, rtol=0, atol=1e-5 * scale)


def test_training_is_timms(timm):
    """The same batch with the same weights: gradients of every parameter, and the statistics that it leaves."""
    import torch

    ms.set_context(mode=ms.PYNATIVE_MODE)
    torch.manual_seed(1)
    theirs = timm.create_model("repghostnet_050", num_classes=5, drop_rate=0.0).train()
    ours = create_model("repghostnet_050", num_classes=5, drop_rate=0.0).set_train(True)
    start = {entry: value.numpy().copy() for entry, value in theirs.state_dict().items()}
    ms.load_param_into_net(ours, as_parameters(from_pytorch(start)), strict_load=True)
    x, parameters = images(8, 3, 96, 96, seed=1), ours.trainable_params()
    gradients = ms.grad(lambda x: (ours(x) ** 2).mean(), None, parameters)(Tensor(x))
    (theirs(torch.from_numpy(x)) ** 2).mean().backward()
    names = timm_names(parameter.name for parameter in ours.get_parameters())
    expected = {name: parameter.grad.numpy().ravel() for name, parameter in theirs.named_parameters()}
    assert len(parameters) == len(expected)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        wanted, found = expected[names[parameter.name]], gradient.asnumpy().ravel()
        # Rounding opens or closes a ReLU now and then, and before a batch norm a bias has no gradient but rounding.
        if np.abs(wanted).max() > 1e-6:
            assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted), parameter.name
    left = {name: value.numpy() for name, value in theirs.state_dict().items()}
    for parameter in ours.get_parameters():
        if ".moving_" in parameter.name:
            np.testing.assert_allclose(
                parameter.asnumpy(), left[names[parameter.name]], rtol=1e-4, atol=1e-5, err_msg=parameter.name
            )


def as_parameters(arrays: dict[str, np.ndarray]) -> dict[str, ms.Parameter]:
    return {name: ms.Parameter(Tensor(array), name) for name, array in arrays.items()}


@pytest.mark.parametrize("relu", [True, False])
def test_the_module_against_its_definition(relu):
    """Maps, their depthwise convolution and their own batch norm, added up; and the fused form of it."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = RepGhostModule(5, 8, relu=relu)
    randomise(module)
    network = nn.SequentialCell(module).set_train(False)
    x = images(2, 5, 9, 7)
    maps = Tensor(x)
    for layer in (*module.primary_conv, module.cheap_operation):
        before, maps = maps, layer(maps)
    norm = module.fusion_bn[0]
    mean, variance, gamma, beta = (
        parameter.asnumpy()[:, None, None]
        for parameter in (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)
    )
    expected = maps.asnumpy() + (before.asnumpy() - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(network(Tensor(x)).asnumpy(), expected, rtol=0, atol=1e-5)
    assert expected.min() < 0 or relu

    deployed = nn.SequentialCell(RepGhostModule(5, 8, relu=relu, deploy=True)).set_train(False)
    arrays = fuse(weights(network))
    assert deployed.parameters_dict().keys() == arrays.keys()
    ms.load_param_into_net(deployed, as_parameters(arrays), strict_load=True)
    np.testing.assert_allclose(deployed(Tensor(x)).asnumpy(), expected, rtol=0, atol=1e-5)


def test_what_cannot_be_fused_is_named():
    trained = weights(create_model("repghostnet_050", num_classes=2))
    # 16 bottlenecks of two modules each.
    assert len(branches(trained)) == 32
    with pytest.raises(ValueError, match="nothing to fuse.*fused already"):
        fuse(fuse(trained))
    for missing in ("cheap_operation.0.weight", "cheap_operation.1.gamma", "fusion_bn.0.moving_mean"):
        name = f"blocks.3.0.ghost2.{missing}"
        with pytest.raises(ValueError, match=f"^{name}: missing among the weights, and blocks.3.0.ghost2.cheap_op"):
            fuse({key: array for key, array in trained.items() if key != name})


def test_ordinary_cheap_operations_are_no_branches():
    names = [parameter.name for parameter in create_model("ghostnet_050").get_parameters()]
    assert branches(names) == {}


def test_a_module_learns_on_both_branches():
    """Training mode: every parameter has a gradient, and it is that of the numbers' slope."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = RepGhostModule(4, 6, relu=False)
    randomise(module)
    module.set_train(True)
    x, weight = Tensor(images(4, 4, 6, 5)), Tensor(images(4, 6, 6, 5, seed=1))
    parameters = module.trainable_params()
    gradients = ms.grad(lambda x: ops.reduce_sum(module(x) * weight), None, parameters)(x)
    assert len(parameters) == 8
    for parameter, gradient in zip(parameters, gradients, strict=True):
        start = parameter.asnumpy().copy()
        direction = np.random.default_rng(2).standard_normal(start.shape).astype(np.float32)
        values = []
        for step in (1e-2, -1e-2):
            parameter.set_data(Tensor(start + step * direction))
            values.append(float((module(x).asnumpy().astype(np.float64) * weight.asnumpy()).sum()))
        parameter.set_data(Tensor(start))
        slope = float((gradient.asnumpy() * direction).sum())
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(slope, rel=2e-2, abs=2e-2), parameter.name
