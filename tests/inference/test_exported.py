"""An exported file is its own authority: what is given otherwise is refused, and so is what its graph contradicts."""

import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest
from mindspore.train.mind_ir_pb2 import ModelProto

import validate
from mindghost.cli.command import run_command
from mindghost.config import Config, load
from mindghost.deploy import export, quantize
from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.inference import artifact
from mindghost.inference import exported as exported_file
from mindghost.inference.exported import ENTRY
from mindghost.inference.network import checked, of_onnx, open_network
from mindghost.models import ghostnet
from tests.helpers import short
from tests.helpers.commands import command, flags, run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.runtimes import runtime_of
from tests.helpers.trained import CLASSES, write_run

KEYS = {"model": "ghostnet_050", "image_resize": 32, "crop_pct": 0.8, "mean": (120.0, 110.0, 100.0), "batch_size": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run, its images in `images`, and what is exported from it: any number of images, and two at once."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "images", CLASSES, 2, 2)
    stages, ghostnet.STAGES = ghostnet.STAGES, short.stages()
    try:
        path = write_run(folder / "run", data_dir=str(folder / "images"), num_parallel_workers=1, **KEYS)
        for kinds, batch, name in ((export.FORMATS, None, "any"), (("onnx",), 2, "two")):
            export.export(artifact.of_file(path), kinds, folder / name, batch)
    finally:
        ghostnet.STAGES = stages
    return folder


@pytest.fixture(params=[".onnx", ".mindir"])
def file(made, tmp_path, request) -> Path:
    """A copy of a file for any number of images, without its sha256, its description inside."""
    return Path(shutil.copy(made / "any" / f"ghostnet_050_best{request.param}", tmp_path / f"file{request.param}"))


@pytest.fixture
def files(made, tmp_path) -> list[Path]:
    """A copy of each."""
    endings = (".onnx", ".mindir")
    return [Path(shutil.copy(made / "any" / f"ghostnet_050_best{end}", tmp_path / f"file{end}")) for end in endings]


def changed(path: Path, change_description=None, change_graph=None, drop_description=False) -> None:
    """Change a file's description, or its graph."""
    model = onnx.ModelProto() if path.suffix == ".onnx" else ModelProto()
    model.ParseFromString(path.read_bytes())
    if drop_description:
        model.ClearField("metadata_props" if path.suffix == ".onnx" else "user_info")
    if change_graph:
        change_graph(model.graph)
    if change_description:
        entries = model.metadata_props if path.suffix == ".onnx" else model.user_info
        text = next(e.value for e in entries if e.key == ENTRY) if path.suffix == ".onnx" else entries[ENTRY]
        changed_text = change_description(text)
        if path.suffix == ".onnx":
            next(e for e in entries if e.key == ENTRY).value = changed_text
        else:
            entries[ENTRY] = changed_text
    path.write_bytes(model.SerializeToString())


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
    assert alone == {**by_recipe, "loss": pytest.approx(by_recipe["loss"], rel=1e-6)}
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


# --- What it says of itself


def described(**parts):
    """A change of a description: some of its parts replaced, or by a function of them."""

    def change(text: str) -> str:
        found = json.loads(text)
        for part, value in parts.items():
            found[part] = value(found[part]) if callable(value) else value
        return json.dumps(found)

    return change


def with_batch(batch):
    def both(end):
        return {**end, "shape": [batch, *end["shape"][1:]]}

    return described(input=both, output=both)


def configured(**keys):
    return described(config=lambda config: {**config, **keys})


# Each kind of lie: changes of a description, and what the line about each says.
LIES = {
    "a batch that is not the graph's": [
        (with_batch(4), "its graph takes float32 any x 3 x 32 x 32, but its description says float32 4 x 3 x 32 x 32"),
    ],
    "a batch that is no number of images": [
        *((with_batch(batch), "expected a batch of 1 to 4,096") for batch in (0, -1, True, "batch", 1.5, [1], 10**12)),
        (with_batch(10**40), "a number of 41 digits"),
    ],
    "another number of classes": [
        (described(classes=["a", "b", "c", "d"]), "4 class names for 3 outputs"),
        (configured(num_classes=4), "3 class names for 4 outputs"),
        (described(output=lambda o: {**o, "shape": [None, 4]}), "contradicts itself: output has shape"),
    ],
    "names that are none": [
        (described(classes=["a", "b", "a"]), "labels 0 and 2 have one name"),
        (described(classes=["a", None, "b"]), "label 1: expected a class name, got null"),
        (described(classes={"0": "a"}), "expected a list of class names"),
        (described(classes="abc"), "expected a list of class names"),
        (described(classes=["a" * 100_000, "b", "c"]), "a name of 100,000 letters"),
    ],
    "one thing for us, another for others": [
        (configured(image_resize=64), "contradicts itself: input has shape"),
        (configured(in_channels=1), "contradicts itself: input has shape"),
        (configured(crop_pct=0.5), "contradicts itself: preprocessing has resize"),
        (configured(mean=[1, 2, 3]), "contradicts itself: preprocessing has mean"),
        (configured(dataset="mnist"), "contradicts itself: preprocessing has"),
        (described(model="ghostnet_100"), "contradicts itself: model has model ghostnet_100"),
        (described(input=lambda i: {**i, "type": "float16"}), "contradicts itself: input has type float16"),
        (described(input=lambda i: {**i, "name": "pixels"}), "contradicts itself: input has name pixels"),
    ],
    "sizes that nothing has": [
        (configured(image_resize=2**31 - 1), "image_resize: expected at most 4,096"),
        (configured(crop_pct=1e-9), "crop_pct: expected a share"),
        (configured(num_classes=2**31 - 1), "num_classes: expected at most"),
    ],
    "other types": [
        (configured(mean=[float("nan"), 1, 2]), "mean: expected"),
        (configured(mean=json.loads("[" * 40 + "]" * 40)), "mean: expected"),
        (configured(image_resize="32"), "image_resize: expected"),
        (configured(image_resize=True), "image_resize: expected"),
        (configured(model=None), "model: expected text"),
        (described(config=[]), "its description does not fit"),
        (described(input=None), "its description does not fit"),
        (described(preprocessing=[]), "lacks 'preprocessing'"),
    ],
    "something left out": [
        (described(config=lambda c: {k: v for k, v in c.items() if k != "mean"}), "KeyError: 'mean'"),
        (lambda text: "{}", "KeyError: 'config'"),
    ],
    "no JSON object": [
        (lambda text: text[:-1], "not JSON"),
        (lambda text: "", "not JSON"),
        (lambda text: "[]", "not a JSON object"),
        (lambda text: "[" * 5_000 + "]" * 5_000, "nested too deep"),
        (lambda text: text[:-1] + ', "model": "x"}', "'model' is there twice"),
    ],
}


@pytest.mark.fault("exported files", "clean error")
@pytest.mark.parametrize("kind", LIES)
def test_a_description_that_lies_is_one_line(files, kind):
    for file in files:
        good = file.read_bytes()
        for change, words in LIES[kind]:
            file.write_bytes(good)
            changed(file, change)
            assert words in refusal(file)


def refusal(file: Path) -> str:
    """The line about a file that is refused before it runs."""
    with pytest.raises(UserError) as caught:
        artifact.of_file(file)
    message = str(caught.value)
    assert message.startswith(f"{file.with_suffix('')}.")
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message


def resized(end, index: int, size: int) -> None:
    """Change a size of an input or output of either format."""
    if hasattr(end, "tensor"):
        end.tensor[0].dims[index] = size
    else:
        end.type.tensor_type.shape.dim[index].dim_value = size


def retyped(end) -> None:
    if hasattr(end, "tensor"):
        end.tensor[0].data_type = 10
    else:
        end.type.tensor_type.elem_type = 10


GRAPHS = {
    "channels": lambda graph: resized(graph.input[0], 1, 1),
    "height": lambda graph: resized(graph.input[0], 2, 64),
    "outputs": lambda graph: resized(graph.output[0], 1, 5),
    "type": lambda graph: retyped(graph.input[0]),
    "two inputs": lambda graph: graph.input.add().CopyFrom(graph.input[0]),
    "two outputs": lambda graph: graph.output.add().CopyFrom(graph.output[0]),
    "no output": lambda graph: graph.ClearField("output"),
    "batch of one": lambda graph: resized(graph.input[0], 0, 1),
}


@pytest.mark.fault("exported files", "clean error")
@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_that_is_another_is_one_line(files, what):
    """ONNX Runtime refuses some of them by itself, and works the size of the output out."""
    for file in files:
        changed(file, change_graph=GRAPHS[what])
        if file.suffix == ".onnx" and what == "outputs":
            changed(file, described(classes=list("abcde"), output=lambda o: {**o, "shape": [None, 5]}))
            changed(file, configured(num_classes=5))
        message = refusal(file)
        assert "its graph" in message or file.suffix == ".onnx"


def test_a_file_for_two_images_is_one(made, tmp_path):
    file = Path(shutil.copy(made / "two" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    assert artifact.of_file(file).batch == 2
    changed(file, with_batch(None))
    with pytest.raises(UserError, match="takes float32 2 x 3 x 32 x 32, but its description says float32 any x 3"):
        artifact.of_file(file)


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


BESIDE = {
    "nothing": (None, "and file.json is not beside it"),
    "no JSON": (b"{", "file.json: not JSON"),
    "a list": (b"[]", "file.json: its description is not a JSON object"),
    "a number": (b"7", "file.json: its description is not a JSON object"),
    "no text": (b"\xff\xfe\x00", "file.json: not UTF-8 text"),
    "depth": (b"[" * 100_000, "file.json: nested too deep"),
}


@pytest.mark.fault("exported files", "clean error")
@pytest.mark.parametrize("what", BESIDE)
def test_a_description_beside_the_file_is_read_as_one_inside(files, what):
    content, words = BESIDE[what]
    for file in files:
        changed(file, drop_description=True)
        if content is not None:
            file.with_suffix(".json").write_bytes(content)
        assert words in refusal(file)


def test_a_description_beside_the_file_is_enough(made, file):
    expected = artifact.of_file(file)
    changed(file, drop_description=True)
    described_there = made / "any" / "ghostnet_050_best.json"
    file.with_suffix(".json").write_bytes(b"\xef\xbb\xbf" + described_there.read_bytes())
    assert artifact.of_file(file) == expected


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
    expected = of_onnx(file)(images)
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
        exported_file.read(file)


# --- What is damaged


@pytest.mark.fault("exported files", "clean error")
def test_text_that_is_no_text_in_an_exported_file(files):
    for file in files:
        good = file.read_bytes()
        for old in (b'"model": "ghostnet_050"', b"ghostnet", b'"classes"'):
            file.write_bytes(good.replace(old, b"\xff" * len(old)))
            refusal(file)


def test_mindir_runs(made):
    """As ONNX does, and what MindSpore refuses to run is one line."""
    network = open_network(artifact.of_file(made / "any" / "ghostnet_050_best.mindir"))
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = of_onnx(made / "any" / "ghostnet_050_best.onnx")(images)
    np.testing.assert_allclose(network(images), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"mindir: MindSpore cannot run it"):
        network(np.zeros((2, 5, 32, 32), np.float32))
    assert ms.get_context("mode") == ms.GRAPH_MODE
