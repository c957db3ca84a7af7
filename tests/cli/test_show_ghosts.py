"""The picture of a Ghost module: what is drawn equals what the layer gives."""

import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image

from mindghost.checkpoint import weights as weights_file
from mindghost.cli import main, show_ghosts
from mindghost.cli.show_ghosts import Maps
from mindghost.config import Config
from mindghost.models import create_model
from mindghost.models.ghostify import GhostConvolution
from mindghost.models.ghostnet import GhostModule
from mindghost.models.ghostnetv2 import DfcGhostModule
from mindghost.models.ghostnetv3 import branched, fused
from mindghost.models.repghostnet import RepGhostModule
from tests.helpers.places import ROOT
from tests.helpers.weights import randomise

LAYER = "blocks.1.0.ghost2"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """What training leaves: weights, configuration, classes; and an image that is not square."""
    folder = tmp_path_factory.mktemp("run")
    network = create_model("ghostnet_050", num_classes=2)
    randomise(network)
    weights_file.write(folder / "w.ckpt", {p.name: p.asnumpy() for p in network.get_parameters()})
    config = Config(model="ghostnet_050", num_classes=2, image_resize=64)
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "classes.json").write_text('["cat", "dog"]')
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    Image.fromarray(pixels).resize((160, 100)).save(folder / "photo.png")
    return folder


def run(*arguments: object, capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    status = main.run(["show-ghosts", *map(str, arguments)])
    return status, *capsys.readouterr()


def drawn(figure) -> dict[str, list[np.ndarray]]:
    """The pictures in a figure by what is written above them, without correlations."""
    found: dict[str, list[np.ndarray]] = {}
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_images")):
        for picture in axes.get_images():
            found.setdefault(axes.get_title().split("  ")[0], []).append(np.asarray(picture.get_array()))
    return found


def test_what_is_drawn_is_what_the_layer_gives(run_folder):
    """Without forward hooks: the bottleneck's own layers, one after the other."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    config = show_ghosts.settings(run_folder / "w.ckpt", None)
    image = show_ghosts.network_input(run_folder / "photo.png", config)
    assert image.shape == (3, 64, 64)
    network = create_model("ghostnet_050", num_classes=2)
    ms.load_param_into_net(network, ms.load_checkpoint(str(run_folder / "w.ckpt")))
    name, module = show_ghosts.module_named(network, "ghostnet_050", LAYER)
    assert (name, module) == (LAYER, network.blocks[1][0].ghost2)
    maps = show_ghosts.maps_of(network, module, image)

    network.set_train(False)
    x = network.blocks[0](network.act1(network.bn1(network.conv_stem(Tensor(image[np.newaxis])))))
    block = network.blocks[1][0]
    expected = block.ghost2(block.bn_dw(block.conv_dw(block.ghost1(x)))).asnumpy()[0]
    np.testing.assert_array_equal(np.concatenate([maps.intrinsic, maps.ghosts]), expected)
    half = len(expected) // 2
    assert (len(maps.intrinsic), maps.sources.tolist()) == (half, list(range(half)))

    found = drawn(show_ghosts.draw(image, maps, "title"))
    for channel in range(half):
        for kind, values in (("i", maps.intrinsic), ("g", maps.ghosts)):
            assert found[f"{kind}{channel}"]
            for picture in found[f"{kind}{channel}"]:
                np.testing.assert_array_equal(picture, values[channel])
    pairs = show_ghosts.similar_pairs(maps)
    assert sum(map(len, found.values())) == 1 + 2 * half + 2 * len(pairs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GhostModule(4, 8, ratio=4),
        lambda: GhostModule(4, 7, ratio=3),
        lambda: GhostConvolution(nn.Conv2d(4, 7, 3), ratio=3),
    ],
)
def test_ghosts_of_any_ratio_stand_beside_their_source(make):
    """A ghost depends on the intrinsic map that it is drawn beside, and on no other."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = make()
    randomise(module)
    image = np.random.default_rng(0).standard_normal((4, 6, 6)).astype(np.float32)
    maps = show_ghosts.maps_of(nn.SequentialCell(module), module, image)
    expected = module(Tensor(image[np.newaxis])).asnumpy()[0]
    np.testing.assert_array_equal(np.concatenate([maps.intrinsic, maps.ghosts]), expected)
    assert len(maps.sources) == len(maps.ghosts)
    for source in range(len(maps.intrinsic)):
        changed = maps.intrinsic.copy()
        changed[source] += 1 + np.arange(36).reshape(6, 6)
        ghosts = module.cheap_operation(Tensor(changed[np.newaxis])).asnumpy()[0][: len(maps.ghosts)]
        differs = np.abs(ghosts - maps.ghosts).max((1, 2)) > 0
        # A ghost may be cut off by ReLU before and after; a change elsewhere must leave it alone.
        assert set(np.flatnonzero(differs)) <= set(np.flatnonzero(maps.sources == source))
        assert differs.any() or not (maps.sources == source).any()


@pytest.mark.parametrize(
    ("make", "weighed"),
    [
        (lambda: DfcGhostModule(4, 8), True),
        (lambda: GhostModule(4, 8, conv_bn=branched), False),
        (lambda: GhostModule(4, 8, conv_bn=fused), False),
    ],
)
def test_modules_of_later_ghostnets(make, weighed):
    """GhostNetV2's maps are weighed by attention, as the layer gives them; GhostNetV3 has branches or none."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = make()
    randomise(module)
    network = nn.SequentialCell(module).set_train(False)
    assert [id(cell) for cell in show_ghosts.ghost_modules(network).values()] == [id(module)]
    image = np.random.default_rng(0).standard_normal((4, 6, 6)).astype(np.float32)
    maps = show_ghosts.maps_of(network, module, image)
    expected = network(Tensor(image[np.newaxis])).asnumpy()[0]
    np.testing.assert_array_equal(np.concatenate([maps.intrinsic, maps.ghosts]), expected)
    np.testing.assert_array_equal(maps.sources, np.arange(4))
    plain = module.primary_conv(Tensor(image[np.newaxis])).asnumpy()[0]
    assert np.array_equal(maps.intrinsic, plain) != weighed


def test_a_repghost_modules_maps_stand_beside_what_it_makes_of_them():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = RepGhostModule(4, 8, relu=False)
    randomise(module)
    network = nn.SequentialCell(module).set_train(False)
    image = np.random.default_rng(0).standard_normal((4, 6, 6)).astype(np.float32)
    maps = show_ghosts.maps_of(network, module, image)
    np.testing.assert_array_equal(maps.ghosts, network(Tensor(image[np.newaxis])).asnumpy()[0])
    np.testing.assert_array_equal(maps.intrinsic, module.primary_conv(Tensor(image[np.newaxis])).asnumpy()[0])
    np.testing.assert_array_equal(maps.sources, np.arange(8))


def test_the_most_similar_pairs():
    """A copy, a negative and a near copy are found, in this order; a constant map and chance are not above them."""
    rng = np.random.default_rng(0)
    a, b, c, d = rng.standard_normal((4, 20, 20)).astype(np.float32)
    near = c + 0.3 * d
    maps = Maps(np.stack([a, b, c]), np.stack([3 * a + 5, np.full_like(a, 7), -b + 0.01 * d, near]), np.zeros(4, int))
    pairs = show_ghosts.similar_pairs(maps, 3)
    assert [pair[:2] for pair in pairs] == [(0, 3), (1, 5), (2, 6)]
    expected = [1, np.corrcoef(b.ravel(), (-b + 0.01 * d).ravel())[0, 1], np.corrcoef(c.ravel(), near.ravel())[0, 1]]
    np.testing.assert_allclose([pair[2] for pair in pairs], expected, atol=1e-6)
    assert [maps.name(channel) for channel in (0, 2, 3, 6)] == ["i0", "i2", "g0", "g3"]
    assert len(show_ghosts.similar_pairs(maps, 9)) == 3


def test_dead_and_large_layers_are_drawn():
    """No pair where all maps are constant; of many maps the first ones, and it says so."""
    image = np.zeros((1, 4, 4), np.float32)
    dead = show_ghosts.draw(image, Maps(*np.zeros((2, 3, 4, 4), np.float32), np.arange(3)), "dead")
    assert sum(map(len, drawn(dead).values())) == 7
    maps = np.random.default_rng(0).standard_normal((2, 40, 4, 4)).astype(np.float32)
    figure = show_ghosts.draw(image, Maps(*maps, np.arange(40)), "large")
    assert {"i0", "g23"} <= set(drawn(figure))
    assert "(the first 24 of 40)" in " ".join(text.get_text() for text in figure.findobj() if hasattr(text, "get_text"))


def test_a_photo_is_upright_as_in_prediction(tmp_path):
    """A camera on its side: the stored row of black above white is shown with black on the right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0] * 8] * 4 + [[255] * 8] * 4, np.uint8)).save(tmp_path / "a.png", exif=exif)
    config = Config(num_classes=3, image_resize=8, crop_pct=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert show_ghosts.network_input(tmp_path / "a.png", config)[0, 0].tolist() == [255] * 4 + [0] * 4


def test_the_picture_as_a_user_gets_it(run_folder, tmp_path, capsys):
    arguments = (run_folder / "photo.png", "--ckpt_path", run_folder / "w.ckpt", "-o", tmp_path / "out.png")
    status, said, error = run(*arguments, capsys=capsys)
    assert (status, said, error) == (0, f"wrote {tmp_path / 'out.png'}\n", "")
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1400, 800))
        first = picture.convert("RGB").tobytes()
    status, *_ = run(*arguments, "--layer", LAYER, capsys=capsys)
    assert status == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.convert("RGB").tobytes() != first


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{run}/none.png", "--ckpt_path", "{run}/w.ckpt"], "{run}/none.png: no such file"),
        (["{run}/config.yaml", "--ckpt_path", "{run}/w.ckpt"], "{run}/config.yaml: not a readable image"),
        (["{run}/photo.png", "--ckpt_path", "{run}/none.ckpt"], "{run}/none.ckpt: no such file"),
        (["{run}/photo.png", "--ckpt_path", "{run}/photo.png"], "{run}/photo.png: not a MindSpore checkpoint"),
        (
            ["{run}/photo.png", "--ckpt_path", "{run}/w.ckpt", "--layer", "blocks.1"],
            "--layer: ghostnet_050 has no Ghost module 'blocks.1'; expected one of blocks.0.0.ghost1,",
        ),
        (["{run}/photo.png", "--ckpt_path", "{elsewhere}/w.ckpt"], "-c: {elsewhere}/config.yaml does not exist"),
        (["{run}/photo.png", "--ckpt_path", "{run}/w.ckpt", "-c", "{run}/none.yaml"], "{run}/none.yaml"),
        (["{run}/photo.png", "--ckpt_path", "{elsewhere}/w.ckpt", "-c", "{elsewhere}/open.yaml"], "num_classes"),
        (["{run}/photo.png", "--ckpt_path", "{run}/w.ckpt", "-o", "/proc/x.png"], "/proc/x.png: cannot be written"),
        (["{run}/photo.png", "--ckpt_path", "{run}/w.ckpt", "-o", "x.pdf"], "--output: x.pdf does not end with .png"),
        (["{run}/photo.png"], "the following arguments are required: --ckpt_path"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(arguments, expected, run_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "w.ckpt").write_bytes((run_folder / "w.ckpt").read_bytes())
    (tmp_path / "open.yaml").write_text("model: ghostnet_050\n")
    names = {"run": run_folder, "elsewhere": tmp_path}
    monkeypatch.chdir(tmp_path)
    status, said, error = run(*(a.format(**names) for a in arguments), capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert error.startswith("mindghost show-ghosts: error: ")
    assert expected.format(**names) in error
    assert not list(tmp_path.glob("*.png"))


def test_a_network_without_ghost_modules_and_a_machine_without_matplotlib(run_folder, monkeypatch, capsys):
    with pytest.raises(ValueError, match="model: plain has no Ghost modules to show"):
        show_ghosts.module_named(nn.SequentialCell(nn.Conv2d(3, 8, 3)), "plain", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = (run_folder / "photo.png", "--ckpt_path", run_folder / "w.ckpt")
    status, _, error = run(*arguments, capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "pip install matplotlib" in error


def test_help_as_a_user_types_it():
    command = [sys.executable, "-m", "mindghost", "show-ghosts", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(word in result.stdout for word in ("IMAGE", "--ckpt_path FILE", "--layer NAME", "--output PNG"))
