"""What a weight file or an exported file is said to be, by what lies beside or in it; no network is made here."""

import json
from argparse import ArgumentParser
from pathlib import Path

import pytest

from mindghost.cli import network_arguments
from mindghost.config import Config, Said
from mindghost.errors import UserError
from mindghost.inference import artifact, deployment, formats
from mindghost.inference.deployment import Deployment
from mindghost.inference.formats import End, Graph

KEYS = {
    "model": "ghostnet_050",
    "num_classes": 3,
    "in_channels": 1,
    "dataset": "imagenet",
    "image_resize": (32, 48),
    "crop_pct": 0.8,
    "interpolation": "bicubic",
    "mean": (120.0,),
    "std": (60.0,),
}
CLASSES = ("ant", "bee", "cat")


def graph(taken=(None, 1, 32, 48), given=(None, 3), description=None, kinds=("float32", "float32"), **more) -> Graph:
    names = more.get("ends", ("image", "logits"))
    ends = [(End(name, kind, shape),) for name, kind, shape in zip(names, kinds, (taken, given), strict=True)]
    return Graph(*(end * more.get(side, 1) for end, side in zip(ends, ("inputs", "outputs"), strict=True)), description)


def described(folder: Path, batch=None, classes=CLASSES, **keys) -> dict:
    """A description as a file carries it: through JSON."""
    found = Deployment(folder / "x.onnx", Config(**{**KEYS, **keys}), tuple(classes), batch)
    return json.loads(json.dumps(found.describe()))


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Makes an exported file with a graph (of `graph`) and a description; what it is taken for."""

    def make(description=None, file="x.onnx", names=None, config=None, model="", **facts) -> Deployment:
        path = tmp_path / file
        path.write_bytes(b"")
        text = json.dumps(described(tmp_path) if description is None else description)
        monkeypatch.setattr(formats, "read", lambda _: graph(**{"description": text, **facts}))
        class_names = tmp_path / "names.json" if names else None
        if names:
            class_names.write_text(json.dumps(names))
        recipe = tmp_path / "recipe.yaml" if config else None
        if config:
            recipe.write_text(config)
        return artifact.of_file(path, recipe, model, class_names)

    return make


def refused(call, *given, **keys) -> str:
    with pytest.raises(UserError) as caught:
        call(*given, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Descriptions


def test_a_description_by_hand(tmp_path):
    found = described(tmp_path, batch=4)
    assert list(found) == ["model", "classes", "named", "input", "output", "preprocessing", "config"]
    assert (found["model"], found["classes"], found["named"]) == ("ghostnet_050", ["ant", "bee", "cat"], True)
    assert found["input"] == {"name": "image", "type": "float32", "shape": [4, 1, 32, 48]}
    assert found["output"] == {"name": "logits", "type": "float32", "shape": [4, 3]}
    assert found["preprocessing"]["center_crop"] == [32, 48]
    assert found["config"] == {key: list(value) if isinstance(value, tuple) else value for key, value in KEYS.items()}


@pytest.mark.parametrize("batch", [None, 1, 4096])
def test_a_description_is_read_as_it_was_written(tmp_path, batch):
    path = tmp_path / "x.onnx"
    wanted = Deployment(path, Config(**KEYS, ckpt_path=str(path)), CLASSES, batch)
    assert deployment.of_description(path, described(tmp_path, batch)) == wanted
    assert wanted.exported
    assert not Deployment(tmp_path / "x.ckpt", wanted.config, CLASSES).exported


@pytest.mark.parametrize("batch", [0, -1, 4097, True, 1.0, "1"])
def test_a_batch_is_a_number_of_images(tmp_path, batch):
    message = refused(deployment.of_description, tmp_path / "x.onnx", described(tmp_path, batch))
    assert "expected a batch of 1 to 4,096 images" in message


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("input", "type", "float16"),
        ("input", "shape", [None, 1, 48, 32]),
        ("output", "type", "float16"),
        ("output", "shape", [None, 4]),
        ("preprocessing", "color", "RGB"),
        ("preprocessing", "resize", [40, 40]),
        ("preprocessing", "interpolation", "area"),
        ("preprocessing", "center_crop", [48, 32]),
        ("preprocessing", "mean", [0.0]),
        ("preprocessing", "std", [1.0]),
    ],
)
def test_what_is_said_to_other_programs_must_follow(tmp_path, part, key, value):
    found = described(tmp_path)
    found[part][key] = value
    message = refused(deployment.of_description, tmp_path / "x.onnx", found)
    assert f"contradicts itself: {part} has {key} {value}, but" in message
    # An older export may not have said it.
    del found[part][key]
    if part != "input":
        assert deployment.of_description(tmp_path / "x.onnx", found).classes == CLASSES


def test_another_network_in_the_description_is_a_contradiction(tmp_path):
    found = {**described(tmp_path), "model": "ghostnet_100"}
    message = refused(deployment.of_description, tmp_path / "x.onnx", found)
    assert "model has model ghostnet_100, but ghostnet_050 follows" in message


@pytest.mark.parametrize("part", ["input", "output", "preprocessing", "model"])
def test_a_part_that_is_missing_is_one_line(tmp_path, part):
    found = described(tmp_path)
    del found[part]
    message = refused(deployment.of_description, tmp_path / "x.onnx", found)
    assert message.startswith(f"{tmp_path / 'x.onnx'}: its description ")


def test_each_key_of_the_configuration_is_needed(tmp_path):
    for key in KEYS:
        found = described(tmp_path)
        del found["config"][key]
        assert f"KeyError: {key!r}" in refused(deployment.of_description, tmp_path / "x.onnx", found)


def test_sizes_and_classes_are_bounded(tmp_path):
    huge = described(tmp_path)
    huge["config"]["image_resize"] = 5000
    assert "image_resize: expected at most 4,096" in refused(deployment.of_description, tmp_path / "x.onnx", huge)
    fewer = {**described(tmp_path), "classes": ["ant", "bee"]}
    assert "2 class names for 3 outputs" in refused(deployment.of_description, tmp_path / "x.onnx", fewer)


# --- Graphs


@pytest.mark.parametrize(
    ("batch", "taken", "given"),
    [
        (None, (None, 1, 32, 48), (None, 3)),
        (2, (2, 1, 32, 48), (2, 3)),
        (2, (2, 1, None, None), (None, 3)),  # what a graph leaves open is seen when it runs
        (None, (None, None, 32, 48), (None, None)),
    ],
)
def test_graphs_that_are_what_is_said_of_them(exported, tmp_path, batch, taken, given):
    found = exported(described(tmp_path, batch), taken=taken, given=given)
    assert (found.batch, found.classes) == (batch, CLASSES)


@pytest.mark.parametrize(
    ("batch", "facts", "words"),
    [
        (2, {"taken": (None, 1, 32, 48)}, "takes float32 any x 1 x 32 x 48, but its description says float32 2 x 1"),
        (None, {"taken": (2, 1, 32, 48)}, "takes float32 2 x 1 x 32 x 48, but its description says float32 any x 1"),
        (None, {"taken": (None, 3, 32, 48)}, "takes float32 any x 3"),
        (None, {"taken": (None, 1, 48, 32)}, "takes float32 any x 1 x 48 x 32"),
        (None, {"taken": (None, 1, 32)}, "takes float32 any x 1 x 32,"),
        (None, {"given": (None, 4)}, "gives float32 any x 4, but its description says float32 any x 3"),
        (None, {"given": (1, 3)}, "gives float32 1 x 3"),
        (None, {"given": (None, 3, 1)}, "gives float32 any x 3 x 1"),
        (None, {"kinds": ("float16", "float32")}, "takes float16 any x 1"),
        (None, {"kinds": ("float32", "int64")}, "gives int64 any x 3"),
        (None, {"inputs": 2}, "has 2 inputs and 1 outputs, expected one each"),
        (None, {"outputs": 0}, "has 1 inputs and 0 outputs"),
        (None, {"ends": ("images", "logits")}, "names 'images' and 'logits', not image and logits"),
        (None, {"ends": ("image", "out")}, "names 'image' and 'out'"),
    ],
)
def test_graphs_that_are_something_else(exported, tmp_path, batch, facts, words):
    message = refused(exported, described(tmp_path, batch), **facts)
    assert message.startswith(f"{tmp_path / 'x.onnx'}: its graph ")
    assert words in message


def test_in_mindir_names_are_mindspores(exported):
    assert exported(file="x.mindir", ends=("x", "y")).classes == CLASSES
    assert exported(file="X.MINDIR").batch is None


# --- What is given beside an exported file


def test_a_description_beside_the_file_is_taken_where_it_carries_none(exported, tmp_path, monkeypatch):
    path = exported().path
    monkeypatch.setattr(formats, "read", lambda _: graph())
    message = refused(artifact.of_file, path)
    assert message.startswith(f"{path}: carries no description of its classes and preprocessing, and x.json is not")
    (tmp_path / "x.json").write_text(json.dumps(described(tmp_path)))
    assert artifact.of_file(path).classes == CLASSES
    (tmp_path / "x.json").write_text("[]")
    assert refused(artifact.of_file, path).startswith(f"{tmp_path / 'x.json'}: its description is not a JSON object")


@pytest.mark.parametrize(
    ("names", "classes"),
    [(["ant", "bee", "cat"], CLASSES), (["0", "1", "2"], ("0", "1", "2"))],
)
def test_equal_names_change_nothing(exported, tmp_path, names, classes):
    assert exported(described(tmp_path, classes=classes), names=names).classes == classes


def test_names_take_the_place_of_numbers_alone(exported, tmp_path):
    numbers = described(tmp_path, classes=("0", "1", "2"))
    assert exported(numbers, names=list(CLASSES)).classes == CLASSES
    for description, names in ((numbers, ["ant", "bee"]), (described(tmp_path), ["cat", "bee", "ant"])):
        message = refused(exported, description, names=names)
        assert message.startswith(f"--class_names: {tmp_path / 'x.onnx'} has the names of its 3 classes")


@pytest.mark.parametrize(
    ("config", "model", "start"),
    [
        ("crop_pct: 0.7\n", "", "recipe.yaml:1: crop_pct: "),
        ("mean: [1]\n", "", "recipe.yaml:1: mean: "),
        ("lr: 0.1\nval_amp_level: O2\n", "", "recipe.yaml:2: val_amp_level: "),
        ("pretrained: True\n", "", "recipe.yaml:1: pretrained: "),
        ("", "ghostnet_100", "--model: "),
    ],
)
def test_what_says_otherwise_is_refused(exported, tmp_path, config, model, start):
    message = refused(exported, config=config, model=model)
    place = start if start.startswith("--") else f"{tmp_path}/{start}"
    assert message.startswith(f"{place}{tmp_path / 'x.onnx'} has ")


def test_what_says_the_same_or_something_else_passes(exported):
    found = exported(config="crop_pct: 0.8\nbatch_size: 9\nval_amp_level: O0\n", model="ghostnet_050")
    assert found == exported()


def test_a_configuration_that_agrees(exported):
    found = exported()
    config = Config(**KEYS, batch_size=9)
    assert artifact.agreed(config, found) == config
    assert "crop_pct: " in refused(artifact.agreed, config.replace(crop_pct=0.7), found)
    assert "pretrained: " in refused(artifact.agreed, config.replace(pretrained=True), found)


# --- Weights


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "w.ckpt"
    path.write_bytes(b"")
    return path


def beside(weights: Path, classes=CLASSES, **keys) -> Config:
    config = Config(**{**KEYS, **keys})
    (weights.parent / "config.yaml").write_text(config.to_yaml())
    if classes is not None:
        (weights.parent / "classes.json").write_text(json.dumps(classes))
    return config


def test_what_training_saved_is_taken_but_for_its_device(weights):
    given = {"device_target": "GPU", "distribute": True, "pretrained": True, "ckpt_path": "other.ckpt", "lr": 7.0}
    beside(weights, **given, eval_mirror=True)
    assert artifact.of_file(weights) == Deployment(
        weights, Config(**KEYS, ckpt_path=str(weights), eval_mirror=True), CLASSES
    )


def test_a_recipe_takes_the_place_of_what_is_beside_the_weights(weights, tmp_path):
    beside(weights)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: ghostnet_100\nnum_classes: 3\ndevice_target: GPU\npretrained: True\ndistribute: True\n")
    found = artifact.of_file(weights, recipe)
    assert found.config == Config(model="ghostnet_100", num_classes=3, ckpt_path=str(weights))
    assert found.classes == CLASSES
    assert artifact.of_file(weights, recipe, "ghostnet_130").config.model == "ghostnet_130"


def test_another_network_than_that_beside_the_weights_is_refused(weights):
    beside(weights)
    assert refused(artifact.of_file, weights, model="ghostnet_100").startswith("--model: ")
    assert artifact.of_file(weights, model="ghostnet_050").config.model == "ghostnet_050"


@pytest.mark.parametrize(
    ("model", "facts"),
    [("ghostnet_100", ("imagenet", 224, 1000)), ("ghost_resnet56", ("cifar10", 32, 10))],
)
def test_weights_alone_are_as_they_were_published(weights, tmp_path, model, facts):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))  # whosever they are
    found = artifact.of_file(weights, model=model)
    config = found.config
    assert (config.model, config.dataset, config.image_resize, config.num_classes) == (model, *facts)
    assert found.classes == tuple(map(str, range(facts[2])))
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\n")
    fewer = artifact.of_file(weights, model=model, class_names=names)
    assert (fewer.classes, fewer.config.num_classes) == (("ant", "bee"), 2)


def test_weights_of_which_nothing_is_known(weights):
    message = refused(artifact.of_file, weights)
    assert message == (
        f"{weights}: no config.yaml beside it, so the network is not known; give --model NAME or -c FILE"
    )
    assert "no such file" in refused(artifact.of_file, weights.with_name("none.ckpt"))


@pytest.mark.parametrize(
    ("num_classes", "classes", "names", "found"),
    [
        (3, CLASSES, None, ("ant", "bee", "cat")),
        (3, None, None, ("0", "1", "2")),
        (4, CLASSES, None, ("ant", "bee", "cat", "3")),
        (4, ("3", "bee"), None, ("3", "bee", "2", "#3")),
        (None, CLASSES, None, ("ant", "bee", "cat")),
        (None, None, ["x", "y"], ("x", "y")),
        (None, CLASSES, ["x", "y", "z"], ("x", "y", "z")),
        (4, CLASSES, ["x", "y", "z"], ("x", "y", "z", "3")),
        (4, CLASSES, ["x", "y", "z", "q"], ("x", "y", "z", "q")),
        (4, None, ["x", "y", "z", "q"], ("x", "y", "z", "q")),
    ],
)
def test_a_name_for_each_output(weights, tmp_path, num_classes, classes, names, found):
    beside(weights, classes, num_classes=num_classes)
    file = tmp_path / "names.json"
    file.write_text(json.dumps(names))
    result = artifact.of_file(weights, class_names=file if names else None)
    assert (result.classes, result.config.num_classes) == (found, len(found))


@pytest.mark.parametrize(
    ("num_classes", "classes", "names", "words"),
    [
        (2, CLASSES, None, "classes.json: 3 names, but the network has 2 outputs; give --class_names FILE"),
        (3, CLASSES, ["x", "y"], "--class_names: 2 names, but the network has 3 outputs; correct the list"),
        (4, CLASSES, ["x", "y"], "--class_names: 2 names, but the network has 4 outputs"),
        (None, None, None, "config.yaml: num_classes is open, and no classes.json is beside"),
    ],
)
def test_names_that_do_not_fit_the_outputs(weights, tmp_path, num_classes, classes, names, words):
    beside(weights, classes, num_classes=num_classes)
    file = tmp_path / "names.json"
    file.write_text(json.dumps(names))
    assert words in refused(artifact.of_file, weights, class_names=file if names else None)


# --- What a command is told


def test_the_command_line(weights, tmp_path):
    beside(weights)
    names = tmp_path / "names.txt"
    names.write_text("x\ny\nz\n")
    parser = ArgumentParser()
    network_arguments.add_arguments(parser)
    line = ["--ckpt_path", str(weights), "-c", str(tmp_path / "config.yaml"), "--model", "ghostnet_130"]
    found = network_arguments.of_arguments(parser.parse_args([*line, "--class_names", str(names)]))
    assert (found.path, found.config.model, found.classes) == (weights, "ghostnet_130", ("x", "y", "z"))
    assert network_arguments.of_arguments(parser.parse_args(["--ckpt_path", str(weights)])).classes == CLASSES
    assert ".mindir" in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args([])
    other = ArgumentParser()
    network_arguments.add_arguments(other, exported=False)
    assert ".mindir" not in other.format_help()


def test_what_weights_say_of_a_configuration(weights):
    beside(weights)
    # A network that is named makes up for what is not there, and for nothing that is.
    assert artifact.said("", with_recipe=False, with_model=True) == Said()
    bare = weights.parent / "bare" / "w.ckpt"
    assert artifact.said(str(bare), with_recipe=False, with_model=True) == Said()
    assert artifact.said(str(weights), False, with_model=True) == artifact.said(str(weights), False) != Said()
    assert artifact.said(str(weights), with_recipe=True) == Said()
    found = artifact.said(str(weights), with_recipe=False)
    assert (found.values["crop_pct"], found.fixed) == (0.8, {"model": "ghostnet_050"})


def test_what_an_exported_file_says_of_a_configuration(exported, tmp_path):
    path = exported().path
    fixed = {**KEYS, "task": "classification", "val_amp_level": "O0", "pretrained": False}
    assert artifact.said(str(path), with_recipe=False) == Said(fixed, {}, fixed, path)
    # A run's configuration beside it says where its images are; of the network the file has the last word.
    beside(path, data_dir="D", crop_pct=0.5, batch_size=7)
    assert artifact.said(str(path), with_recipe=True) == Said(fixed, {}, fixed, path)
    found = artifact.said(str(path), with_recipe=False)
    assert (found.fixed, found.source) == (fixed, path)
    assert (found.values["data_dir"], found.values["batch_size"], found.values["crop_pct"]) == ("D", 7, 0.8)
    assert "data_dir" in found.where
    assert not set(found.where) & set(fixed)
