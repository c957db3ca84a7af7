"""Exported files: run by other software than wrote them, they give the checkpoint's logits; or nothing is written."""

import json
import runpy
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import Tensor, nn
from onnx import TensorProto, helper, numpy_helper

from ghostnet import deployment, export, onnx_file, weights_file
from ghostnet.config import Config
from ghostnet.errors import UserError
from ghostnet.models import create_model, ghostnet, list_models
from tests.conftest import randomise, write_images
from tests.test_end_to_end import flags, process

ROOT = Path(__file__).parent.parent
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture
def short(monkeypatch):
    """One bottleneck of each kind; the last two have attention in GhostNetV2 and V3."""
    monkeypatch.setattr(ghostnet, "STAGES", tuple((ghostnet.STAGES[stage][0],) for stage in (0, 1, 3, 4)))


def write_run(folder: Path, **keys) -> Path:
    """What training leaves of a network with random weights: the checkpoint and what is beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = Config(**{"num_classes": 3, "image_resize": 32, "data_dir": str(folder / "none"), **keys})
    network = create_model(config.model, config.num_classes, config.in_channels)
    randomise(network, gamma=(0.3, 0.6) if config.model.startswith("ghostnet") else (0.5, 1.5))
    path = folder / f"{config.model}_best.ckpt"
    weights_file.write(path, {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "classes.json").write_text(json.dumps(CLASSES[: config.num_classes]))
    return path


def trained_logits(path: Path, images: np.ndarray) -> np.ndarray:
    config = Config.from_file(path.parent / "config.yaml")
    network = create_model(config.model, config.num_classes, config.in_channels)
    weights = weights_file.read(path)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(weights[parameter.name]))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return network.set_train(False)(Tensor(images)).asnumpy()


def check_onnx(path: Path, checkpoint: Path, batches=(1, 2, 7)) -> dict:
    """Compare a file, run by ONNX Runtime alone, with the checkpoint; what it says of itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ghostnet"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == ("image", "logits")
    images = np.random.default_rng(5).standard_normal((max(batches), *taken.shape[1:])).astype(np.float32)
    expected = trained_logits(checkpoint, images)
    for batch in batches:
        found = session.run(None, {"image": images[:batch]})[0]
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=2e-5 * np.abs(expected).max())
    return facts


@pytest.mark.parametrize(
    "keys",
    [
        {"model": "ghostnet_050", "in_channels": 1},
        {"model": "ghostnetv2_100", "image_resize": (32, 48)},
        # 6 x 16 pixels: attention on maps of one pixel's height, whose 5x1 convolutions are mostly padding.
        {"model": "ghostnetv3_050", "image_resize": (6, 16)},
    ],
    ids=lambda keys: keys["model"],
)
def test_onnx_files_give_the_logits_for_any_number_of_images(short, tmp_path, keys):
    path = write_run(tmp_path, **keys)
    (written,) = export.export(deployment.of_file(path), ["onnx"])
    assert written.path == path.with_suffix(".onnx")
    assert written.difference < 2e-5
    assert not written.real
    facts = check_onnx(written.path, path)
    size = keys.get("image_resize", (32, 32))
    assert facts["input"]["shape"] == [None, keys.get("in_channels", 3), *size]
    assert facts["classes"] == CLASSES
    assert facts == json.loads(path.with_suffix(".json").read_text())
    model = onnx.load(written.path)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert model.opset_import[0].version == onnx_file.OPSET
    assert deployment.of_file(written.path).config.model == keys["model"]


def test_both_formats_with_a_fixed_batch_by_the_script(short, tmp_path, monkeypatch, capsys):
    path = write_run(tmp_path / "run", model="ghostnet_050", data_dir=str(write_images(tmp_path / "images")))
    out = tmp_path / "out"
    arguments = ["export.py", *flags(ckpt_path=path, out=out, batch_size=2)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(ROOT / "scripts" / "export.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert exit_info.value.code == 0, printed.err
    assert printed.out.count("on 7 images of the run's data") == 2
    ends = ("json", "mindir", "mindir.sha256", "onnx", "onnx.sha256")
    assert sorted(file.name for file in out.iterdir()) == [f"{path.stem}.{end}" for end in ends]
    check_onnx(out / f"{path.stem}.onnx", path, batches=(2,))
    mindir = deployment.of_file(out / f"{path.stem}.mindir")
    assert (mindir.batch, mindir.classes) == (2, tuple(CLASSES))
    images = np.random.default_rng(5).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = trained_logits(path, images)
    ms.set_context(mode=ms.GRAPH_MODE)
    found = nn.GraphCell(ms.load(str(mindir.path)))(Tensor(images)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    # The short network is known to this process alone; the file needs none.
    images = tmp_path / "images" / "val" / "ant"
    result = process(ROOT / "scripts" / "predict.py", images, *flags(ckpt_path=mindir.path, top_k=1), "--json")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_a_file_with_other_logits_is_refused_and_nothing_is_written(short, tmp_path, monkeypatch):
    path = write_run(tmp_path, model="ghostnet_050")
    before = sorted(tmp_path.iterdir())
    real = onnx_file.tidy

    def spoil(*arguments):
        model = onnx.load_model_from_string(real(*arguments))
        # One weight of the classifier, a little.
        weight = next(entry for entry in model.graph.initializer if entry.name == "classifier.bias")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
        return model.SerializeToString()

    monkeypatch.setattr(onnx_file, "tidy", spoil)
    with pytest.raises(UserError, match="its logits differ from the checkpoint's by"):
        export.export(deployment.of_file(path), ["onnx"])
    assert sorted(tmp_path.iterdir()) == before


def test_zeros_for_new_channels_and_reshapes_lose_their_batch():
    """As MindSpore writes ResNet-56's shortcut and GhostNet's head, for 7 images."""
    nodes = [
        helper.make_node("Concat", ["x", "zeros"], ["wide"], axis=1),
        helper.make_node("Reshape", ["wide", "shape"], ["y"]),
    ]
    image, flat = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [7, 2, 3, 4]), ("y", [7, 60]))
    )
    constants = [
        numpy_helper.from_array(np.zeros((7, 3, 3, 4), np.float32), "zeros"),
        numpy_helper.from_array(np.array([7, 60]), "shape"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [flat], constants), opset_imports=[helper.make_opsetid("", 11)]
    )
    model.ir_version = 6
    content = onnx_file.tidy(model.SerializeToString(), 7, True, {"ghostnet": "{}"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 2, 3, 4)).astype(np.float32)
        expected = np.concatenate([x, np.zeros((batch, 3, 3, 4), np.float32)], 1).reshape(batch, 60)
        np.testing.assert_array_equal(session.run(None, {"image": x})[0], expected)


def test_missing_onnx_is_said_in_one_line(tmp_path, monkeypatch):
    path = write_run(tmp_path, model="ghost_resnet56")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed .*pip install -e .\[export\]"):
        export.export(deployment.of_file(path), ["onnx"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("classes"), "description does not fit"),
        (lambda facts: facts["config"].update(model=7), "description does not fit"),
        (lambda facts: facts["config"].update(num_classes=4), "3 class names for 4 outputs"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, change, message):
    config = Config(model="ghostnet_050", num_classes=3)
    facts = deployment.Deployment(tmp_path / "x.onnx", config, tuple(CLASSES)).describe()
    assert deployment.of_description(tmp_path / "x.onnx", json.loads(json.dumps(facts))).config.mean == config.mean
    change(facts)
    with pytest.raises(UserError, match=message):
        deployment.of_description(tmp_path / "x.onnx", facts)


def test_made_up_pictures_have_contrast():
    picture = export.picture(0)
    assert picture.shape == (240, 320, 3)
    assert picture.std() > 30
    # Neighbours are alike, as in photos; in noise their difference is 1.1 of the deviation.
    assert np.abs(np.diff(picture.astype(int), axis=1)).mean() < 0.6 * picture.std()


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_network_in_both_formats(tmp_path, name):
    path = write_run(tmp_path, model=name, image_resize=(64, 32))
    written = export.export(deployment.of_file(path), export.FORMATS)
    assert [file.path.suffix for file in written] == [".mindir", ".onnx"]
    check_onnx(path.with_suffix(".onnx"), path)
