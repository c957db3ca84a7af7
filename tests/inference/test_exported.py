"""An exported file is its own authority: what is given otherwise is refused, and so is what its graph contradicts."""

import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest

import validate
from mindghost.cli.command import run_command
from mindghost.config import Config, load
from mindghost.deploy import export, quantize
from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.inference import artifact, formats
from mindghost.inference.formats.onnx_file import ONNX
from mindghost.inference.network import checked, open_network
from mindghost.models import ghostnet
from tests.helpers import short
from tests.helpers.commands import command, flags, run_mindghost
from tests.helpers.exported_files import KEYS, changed, refusal
from tests.helpers.runtimes import runtime_of
from tests.helpers.trained import CLASSES

# --- What is given beside it


CONTRADICTIONS = {
    "model": "ghostnet_100",
    "num_classes": 7,
    "in_channels": 1,
    "dataset": "cifar10",
    "image_resize": 64,
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": "1, 2, 3",
    "std": "1, 2, 3",
    "val_amp_level": "O3",
    "pretrained": "true",
}


@pytest.mark.fault("exported files", "clean error")
def test_a_key_that_says_otherwise_is_named(made, file, tmp_path, monkeypatch, capsys):
    """On the command line of validate.py and in a recipe, before MindSpore is asked for anything."""
    images, recipe = flags(ckpt_path=file, data_dir=made / "images"), tmp_path / "recipe.yaml"
    for key, value in CONTRADICTIONS.items():
        listed = f"[{value}]" if key in ("mean", "std") else value
        recipe.write_text(f"batch_size: 2\n{key}: {listed}\n")
        for line, place in (
            ([*images, *flags(**{key: listed})], "--"),
            (["-c", str(recipe), *images], f"{recipe}:2: "),
        ):
            with pytest.raises(UserError) as caught:
                load(line, prog="validate.py", description="", weights=artifact.said)
            assert str(caught.value).startswith(f"{place}{key}: {file} has ")
            assert len(str(caught.value).splitlines()) == 1
    line = [*images, *flags(model="ghostnet_100")]
    status, error = command(validate.main, "validate.py", *line, monkeypatch=monkeypatch, capsys=capsys)
    expected = f"validate.py: error: --model: {file} has ghostnet_050, got ghostnet_100; leave the key out\n"
    assert (status, error) == (2, expected)


@pytest.mark.fault("exported files", "clean error")
def test_prediction_refuses_the_same(made, file, tmp_path, capsys):
    recipe, names = tmp_path / "recipe.yaml", tmp_path / "names.txt"
    recipe.write_text("crop_pct: 0.5\n")
    names.write_text("cat\nbee\nant\n")
    for key, line in {
        "--model": flags(model="ghostnet_100"),
        f"{recipe}:1: crop_pct": ["-c", recipe],
        "--class_names": flags(class_names=names),
    }.items():
        assert run_mindghost("predict", made / "images", *flags(ckpt_path=file), *line) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"mindghost predict: error: {key}: {file} has "), error
        assert error.count("\n") == 1


@pytest.mark.fault("exported files", "ok")
def test_equal_keys_and_those_of_the_evaluation_pass(made, file, tmp_path, monkeypatch, capsys):
    """A run's own config.yaml says what the file says; what does not concern the network applies."""
    own = ["-c", made / "run" / "config.yaml", *flags(ckpt_path=file, mode=1)]
    with monkeypatch.context() as patch:
        patch.setattr(
            "sys.argv",
            ["validate.py", *map(str, own), *flags(batch_size=3, model="ghostnet_050"), "--mean", "120", "110", "100"],
        )
        assert run_command("validate.py", validate.main) == 0
    by_recipe = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Beside the run's files, nothing has to be said but the file.
    beside = made / "run" / f"beside{file.suffix}"
    shutil.copy(file, beside)
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", ["validate.py", *flags(ckpt_path=beside, mode=1)])
        assert run_command("validate.py", validate.main) == 0
    alone = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert alone.pop("ckpt_path") == str(beside)
    assert by_recipe.pop("ckpt_path") == str(file)
    assert alone == {
        **by_recipe,
        **{key: pytest.approx(by_recipe[key], rel=1e-6) for key in ("loss", "calibration_error")},
    }
    assert (alone["model"], alone["num_samples"]) == ("ghostnet_050", 6)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES))
    assert artifact.of_file(file, made / "run" / "config.yaml", "ghostnet_050", names).classes == tuple(CLASSES)


def test_a_configuration_from_elsewhere_has_to_agree(made):
    """As one that another program gives to `validate.validate`."""
    found = artifact.of_file(made / "any" / "ghostnet_050_best.onnx")
    config = Config(**KEYS, data_dir="D")
    assert artifact.agreed(config, found) == config.replace(num_classes=3)
    with pytest.raises(UserError, match=r"crop_pct: .* has 0\.8, got 0\.9"):
        artifact.agreed(config.replace(crop_pct=0.9), found)


def test_numbers_may_be_named(made, tmp_path):
    """A file of bare weights has numbers where others have names."""
    file = Path(shutil.copy(made / "any" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    changed(file, lambda text: text.replace('["ant", "bee", "cat"]', '["0", "1", "2"]'))
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    assert artifact.of_file(file).classes == ("0", "1", "2")
    assert artifact.of_file(file, class_names=names).classes == tuple(CLASSES)
    names.write_text("ant\nbee\n")
    with pytest.raises(UserError, match="--class_names"):
        artifact.of_file(file, class_names=names)


# --- What it gives


def spoil(graph) -> None:
    """Put a NaN into the classifier of an ONNX file."""
    bias = next(entry for entry in graph.initializer if list(entry.dims) == [3])
    bias.raw_data = np.array([0, np.nan, 0], np.float32).tobytes()


@pytest.mark.fault("exported files", "clean error")
def test_logits_that_are_not_finite_are_no_class(made, tmp_path, monkeypatch, capsys):
    """For every image a class and a probability came out."""
    file = Path(shutil.copy(made / "any" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    changed(file, change_graph=spoil)
    status = run_mindghost("predict", made / "images" / "val", *flags(ckpt_path=file))
    printed = capsys.readouterr()
    assert (status, printed.err.count("\n")) == (2, 1)
    assert f"{file}: its logits are not finite (NaN or infinity) for 6 of 6 images" in printed.err
    line = flags(ckpt_path=file, data_dir=made / "images", mode=1)
    status, error = command(validate.main, "validate.py", *line, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert "its logits are not finite" in error


@pytest.mark.fault("exported files", "clean error")
def test_quantising_needs_a_whole_file_with_finite_logits(made, tmp_path):
    file = Path(shutil.copy(made / "any" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    intact.write_with_sidecar(tmp_path / "file.data", outside(file, "file.data"))
    config = Config(**KEYS, num_classes=3, data_dir=str(made / "images"), mode=1)
    with pytest.raises(UserError, match="keeps weights in a second file"):
        quantize.quantize(artifact.of_file(file), runtime_of(config), made / "images" / "train")
    shutil.copy(made / "any" / "ghostnet_050_best.onnx", file)
    changed(file, change_graph=spoil)
    with pytest.raises(UserError, match="its logits are not finite"):
        quantize.quantize(artifact.of_file(file), runtime_of(config), made / "images" / "train")
    assert {path.name for path in tmp_path.iterdir()} == {"file.onnx", "file.data", "file.data.sha256"}


def test_logits_are_checked_whoever_gives_them(tmp_path):
    images = np.zeros((2, 3, 8, 8), np.float32)
    for logits in (np.zeros((2, 4)), np.zeros((1, 3)), np.zeros(3), np.zeros((2, 3, 1))):
        with pytest.raises(UserError, match="gives logits of shape"):
            checked(lambda _, found=logits: found, tmp_path, 3)(images)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(UserError, match="for 1 of 2 images"):
            checked(lambda _, found=value: np.array([[0, 1, 2], [0, found, 2]]), tmp_path, 3)(images)
    assert checked(lambda _: np.ones((2, 3)), tmp_path, 3)(images).sum() == 6
    # Of each pixel.
    pixels = np.ones((2, 3, 8, 8))
    assert checked(lambda _: pixels, tmp_path, 3, is_dense=True)(images).sum() == pixels.size
    with pytest.raises(UserError, match="gives logits of shape 2 x 3, expected 2 x 3 x 8 x 8"):
        checked(lambda _: np.ones((2, 3)), tmp_path, 3, is_dense=True)(images)
    pixels[1, 0, 3, 3] = np.nan
    with pytest.raises(UserError, match="for 1 of 2 images"):
        checked(lambda _: pixels, tmp_path, 3, is_dense=True)(images)


@pytest.mark.fault("class names", "ok")
def test_numbers_in_the_place_of_names_are_not_compared_with_folders(made, tmp_path, monkeypatch, capsys):
    """Of weights without names, the file knows that it has none: labels follow the folders, as for the weights."""
    weights = tmp_path / "bare.ckpt"
    shutil.copy(made / "run" / "ghostnet_050_best.ckpt", weights)
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    (written,) = export.export(artifact.of_file(weights, made / "run" / "config.yaml"), ["onnx"])
    found = artifact.of_file(written.path)
    assert (found.classes, found.known_classes) == (("0", "1", "2"), None)
    results = []
    for path in (written.path, weights):
        line = ["-c", made / "run" / "config.yaml", *flags(ckpt_path=path, mode=1)]
        monkeypatch.setattr("sys.argv", ["validate.py", *map(str, line)])
        assert run_command("validate.py", validate.main) == 0
        said = capsys.readouterr().out
        assert "labels follow the sorted names of the class folders: 0 ant, 1 bee, 2 cat" in said
        results.append(json.loads(said.splitlines()[-1])["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


# --- Weights in a second file


def outside(path: Path, location: str, **facts) -> bytes:
    """Put the largest weight of a file into a second one; what that has to hold."""
    model = onnx.load_model_from_string(path.read_bytes())
    tensor = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    return content


@pytest.mark.fault("exported files", "ok")
def test_weights_beside_the_file_with_a_digest_are_taken(made, tmp_path, monkeypatch):
    """From beside the file, not from the working folder."""
    file = Path(shutil.copy(made / "any" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = ONNX.network(file)(images)
    content = outside(file, "file.data", offset=16)
    intact.write_with_sidecar(tmp_path / "file.data", bytes(16) + content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file.data").write_bytes(bytes(len(content) + 16))
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(open_network(artifact.of_file(file))(images), expected)


@pytest.mark.fault("exported files", "clean error")
@pytest.mark.parametrize(
    ("location", "facts", "prepare", "words"),
    [
        ("file.data", {}, "without a digest", "file.data.sha256 is not beside that"),
        ("file.data", {}, "of another digest", "file.data: damaged"),
        ("file.data", {}, "nothing", "no such file"),
        ("file.data", {}, "a link", "which is a link"),
        ("file.data", {}, "a folder", "a folder, not a file"),
        ("../file.data", {}, "nothing", "no plain name"),
        ("/etc/passwd", {}, "nothing", "no plain name"),
        ("sub/file.data", {}, "nothing", "no plain name"),
        ("..", {}, "nothing", "no plain name"),
        ("", {}, "nothing", "no plain name"),
        ("file.data", {"offset": 1}, "whole", "is not in that file"),
        ("file.data", {"offset": -4}, "whole", "is not in that file"),
        ("file.data", {"length": 10**12}, "whole", "is not in that file"),
        ("file.data", {"length": "many"}, "whole", "is not in that file"),
        ("file.data", {"length": 4}, "whole", "ONNX Runtime cannot load it"),
    ],
)
def test_weights_elsewhere_are_refused(made, tmp_path, location, facts, prepare, words):
    file = Path(shutil.copy(made / "any" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    content = outside(file, location, **facts)
    second = tmp_path / "file.data"
    if prepare in ("whole", "of another digest"):
        intact.write_with_sidecar(second, content)
    if prepare in ("without a digest", "of another digest"):
        second.write_bytes(content[:-1] + b"x")
    elif prepare == "a link":
        second.symlink_to(file)
    elif prepare == "a folder":
        second.mkdir()
    if facts.get("offset") == 1:
        changed(file, change_graph=lambda graph: _with_length(graph, len(content)))
    with pytest.raises(UserError) as caught:
        artifact.of_file(file)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def _with_length(graph, length: int) -> None:
    tensor = next(entry for entry in graph.initializer if len(entry.external_data))
    tensor.external_data.add(key="length", value=str(length))


def test_mindir_with_weights_elsewhere_is_refused(made, tmp_path):
    file = Path(shutil.copy(made / "any" / "ghostnet_050_best.mindir", tmp_path / "file.mindir"))

    def move(graph):
        graph.parameter[0].external_data.location = "data_0"

    changed(file, change_graph=move)
    with pytest.raises(UserError, match="keeps weights in other files"):
        formats.read(file)


# --- What is damaged


@pytest.mark.fault("exported files", "clean error")
def test_text_that_is_no_text_in_an_exported_file(files):
    for file in files:
        good = file.read_bytes()
        for old in (b'"model": "ghostnet_050"', b"ghostnet", b'"classes"'):
            file.write_bytes(good.replace(old, b"\xff" * len(old)))
            assert "export" in refusal(file)


def test_mindir_runs(made):
    """As ONNX does, and what MindSpore refuses to run is one line."""
    network = open_network(artifact.of_file(made / "any" / "ghostnet_050_best.mindir"))
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = ONNX.network(made / "any" / "ghostnet_050_best.onnx")(images)
    np.testing.assert_allclose(network(images), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"mindir: MindSpore cannot run it"):
        network(np.zeros((2, 5, 32, 32), np.float32))
    assert ms.get_context("mode") == ms.GRAPH_MODE
