"""GhostNetV3 is the published one, and its fused form computes the same."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.names import from_pytorch
from mindghost.models import card, create_model
from mindghost.models.ghostnetv3 import BranchedConvolution, fused
from mindghost.models.reparam import fold_batch_norm, fuse
from tests.helpers.networks import assert_golden_card, assert_golden_logits, images, load, logits
from tests.helpers.weights import golden_state, randomise

# As in golden/README: a sum of up to five branches needs a smaller range than a single convolution.
GAMMA = (0.225, 0.675)
NAMES = ["ghostnetv3_050", "ghostnetv3_100", "ghostnetv3_130", "ghostnetv3_160"]


def weights(network: nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def fill(network: nn.Cell, arrays: dict[str, np.ndarray]) -> None:
    """Every parameter from an array of its name and shape, and no array left over."""
    parameters = network.parameters_dict()
    assert parameters.keys() == arrays.keys()
    for name, array in arrays.items():
        assert parameters[name].shape == array.shape, name
        assert array.dtype == np.float32, name
        parameters[name].set_data(Tensor(array))


def test_golden_logits(tmp_path):
    """PyTorch names and weights, through the converter and a file: the original's logits, as trained and fused."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    converted = from_pytorch(golden_state("ghostnetv3_100"))
    for deploy, parameters, tolerance in ((False, converted, 1e-4), (True, fuse(converted), 1e-3)):
        weights_file.write(tmp_path / "golden.ckpt", parameters)
        network = create_model("ghostnetv3_100", deploy=deploy)
        load(network, tmp_path / "golden.ckpt")
        assert_golden_logits(network, "ghostnetv3_100", tolerance)


def test_timm_names_its_batch_norms_otherwise():
    official = golden_state("ghostnetv3_100")
    timm = {name.replace(".bn.", ".bn1."): array for name, array in official.items()}
    counted = {
        "blocks.0.0.total_ops": np.zeros(1),
        "blocks.0.0.ghost1.cheap_rpr_skip.num_batches_tracked": np.zeros(()),
    }
    assert timm.keys() != official.keys()
    converted = from_pytorch(timm | counted)
    assert list(converted) == list(from_pytorch(official))
    assert all(any(array is own for own in official.values()) for array in list(converted.values())[:20])


def test_golden_card():
    assert_golden_card("ghostnetv3_100")


@pytest.mark.parametrize("name", NAMES)
def test_the_fused_form_has_the_papers_size(name):
    assert card(name).fused_parameters == pytest.approx(card(name).paper_parameters * 1e6, abs=0.01e6)


@pytest.mark.parametrize("name", ["ghostnetv3_050", pytest.param("ghostnetv3_130", marks=pytest.mark.slow)])
def test_fused_form_computes_the_same(name):
    """From random weights and statistics; the outputs differ by rounding only."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    trained, deployed = create_model(name, num_classes=7), create_model(name, num_classes=7, deploy=True)
    randomise(trained, 1, gamma=GAMMA)
    fill(deployed, fuse(weights(trained)))
    for size in ((32, 32), (64, 96), (33, 47)):
        expected = logits(trained, 2, 3, *size)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            logits(deployed, 2, 3, *size), expected, rtol=0, atol=1e-3 * scale, err_msg=str(size)
        )
        assert np.abs(expected[0] - expected[1]).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("shape", "branches"),
    [
        ((6, 6, 1, 1, 1), {"conv", "skip"}),
        ((4, 6, 1, 1, 1), {"conv"}),
        ((6, 6, 3, 1, 6), {"conv", "scale", "skip"}),
        ((6, 6, 5, 2, 6), {"conv", "scale"}),
        ((6, 6, 3, 1, 2), {"conv", "scale", "skip"}),
        ((4, 8, 3, 1, 4), {"conv", "scale"}),
    ],
)
def test_branches_of_every_kind_are_fused(shape, branches):
    """(in_channels, out_channels, kernel_size, stride, group): a sum of branches and the convolution it becomes."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network, expected = nn.SequentialCell(BranchedConvolution(*shape)), nn.SequentialCell(*fused(*shape))
    randomise(network)
    network.set_train(False)
    assert {name.split(".")[1].removeprefix("rpr_") for name in weights(network)} == branches
    fill(expected, fuse(weights(network)))
    x = Tensor(images(2, shape[0], 9, 8))
    np.testing.assert_allclose(network(x).asnumpy(), expected(x).asnumpy(), rtol=0, atol=1e-5)


def test_folding_by_hand():
    """1x1 kernel 2, then (x - 3) / sqrt(4) * 5 + 7: slope 5, constant -0.5."""
    kernel, bias = fold_batch_norm(
        np.full((1, 1, 1, 1), 2.0), *(np.array([value]) for value in (5.0, 7.0, 3.0, 4.0 - 1e-5))
    )
    assert kernel.item() == pytest.approx(5.0, abs=1e-12)
    assert bias.item() == pytest.approx(-0.5, abs=1e-12)


def test_the_rest_stays_as_it_is():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    before = weights(create_model("ghostnetv3_050"))
    copies = {name: array.copy() for name, array in before.items()}
    after = fuse(before)
    assert set(before) == set(copies)
    kept = [name for name in before if ".rpr_" not in name]
    assert all(after[name] is before[name] for name in kept)
    # 16 bottlenecks of two modules of two convolutions, and the four strided ones.
    assert len(after) == len(kept) + 2 * (16 * 4 + 4)


def test_what_cannot_be_fused_is_named():
    trained = weights(create_model("ghostnetv3_050"))
    with pytest.raises(ValueError, match="nothing to fuse.*fused already"):
        fuse(fuse(trained))
    missing = "blocks.1.0.conv_dw.rpr_scale.bn.moving_variance"
    with pytest.raises(ValueError, match=f"^{missing}: missing"):
        fuse({name: array for name, array in trained.items() if name != missing})


def test_only_branches_have_a_fused_form():
    message = r"deploy: ghostnetv2_100 has no fused form, only ghostnetv3_\* and repghostnet_\* have; leave"
    with pytest.raises(ValueError, match=message):
        create_model("ghostnetv2_100", deploy=True)
