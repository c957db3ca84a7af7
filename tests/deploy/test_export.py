"""Exported files: run by other software than wrote them, they give the checkpoint's logits; or nothing is written."""

import contextlib
import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import Tensor, nn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import mindghost as ghostnet_package
from mindghost.config import Config
from mindghost.deploy import export, onnx_fixes, probe_images, writers
from mindghost.errors import UserError
from mindghost.inference import artifact, deployment, formats
from mindghost.inference.formats.onnx_file import Onnx
from mindghost.models import CLASSIFICATION, list_models
from mindghost.runtime import in_mode
from tests.helpers.commands import flags, process, run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, trained_logits, write_run


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
        {"model": "repghostnet_050"},
    ],
    ids=lambda keys: keys["model"],
)
def test_onnx_files_give_the_logits_for_any_number_of_images(short_network, tmp_path, keys):
    path = write_run(tmp_path, **keys)
    (written,) = export.export(artifact.of_file(path), ["onnx"])
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
    assert model.opset_import[0].version == onnx_fixes.OPSET
    assert artifact.of_file(written.path).config.model == keys["model"]


def test_both_formats_with_a_fixed_batch_by_the_script(short_network, tmp_path, capsys):
    path = write_run(tmp_path / "run", model="ghostnet_050", data_dir=str(write_images(tmp_path / "images")))
    out = tmp_path / "out"
    status = run_mindghost("export", *flags(ckpt_path=path, out=out, batch_size=2))
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.count("on 7 images of the run's data") == 2
    ends = ("json", "mindir", "mindir.sha256", "onnx", "onnx.sha256")
    assert sorted(file.name for file in out.iterdir()) == [f"{path.stem}.{end}" for end in ends]
    check_onnx(out / f"{path.stem}.onnx", path, batches=(2,))
    mindir = artifact.of_file(out / f"{path.stem}.mindir")
    assert (mindir.batch, mindir.classes) == (2, tuple(CLASSES))
    images = np.random.default_rng(5).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = trained_logits(path, images)
    ms.set_context(mode=ms.GRAPH_MODE)
    found = nn.GraphCell(ms.load(str(mindir.path)))(Tensor(images)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    # The short network is known to this process alone; the file needs none.
    images = tmp_path / "images" / "val" / "ant"
    result = process("-m", "mindghost", "predict", images, *flags(ckpt_path=mindir.path, top_k=1), "--json")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_a_file_with_other_logits_is_refused_and_nothing_is_written(short_network, tmp_path, monkeypatch):
    path = write_run(tmp_path, model="ghostnet_050")
    before = sorted(tmp_path.iterdir())
    real = onnx_fixes.tidy

    def spoil(*arguments):
        model = onnx.load_model_from_string(real(*arguments))
        # One weight of the classifier, a little.
        weight = next(entry for entry in model.graph.initializer if entry.name == "classifier.bias")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
        return model.SerializeToString()

    monkeypatch.setattr(onnx_fixes, "tidy", spoil)
    with pytest.raises(UserError, match="its logits differ from the checkpoint's by"):
        export.export(artifact.of_file(path), ["onnx"])
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
    content = onnx_fixes.tidy(model.SerializeToString(), 7, True, {"ghostnet": "{}"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 2, 3, 4)).astype(np.float32)
        expected = np.concatenate([x, np.zeros((batch, 3, 3, 4), np.float32)], 1).reshape(batch, 60)
        np.testing.assert_array_equal(session.run(None, {"image": x})[0], expected)


def test_missing_onnx_is_said_in_one_line(tmp_path, monkeypatch):
    path = write_run(tmp_path, model="ghost_resnet56")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is missing .*pip install onnx onnxruntime"):
        export.export(artifact.of_file(path), ["onnx"])


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


# --- What is compared, and what is written then, without a network


def constant(logits):
    """A network whose logits are these for the first images, whatever they show; keeps how many it got."""

    def run(images):
        run.sizes.append(len(images))
        return np.array(logits, np.float32)[: len(images)]

    run.sizes = []
    return run


@pytest.mark.parametrize(
    ("batch", "expected", "difference", "sizes"),
    [
        (None, [[4.0, -8.0], [1.0, 2.0], [0.0, 0.0]], 0.0, [1, 3]),
        (None, [[4.0, -8.0], [1.0, 2.0], [0.0, 2.0]], 2 / 8, [1, 3]),
        (3, [[4.0, -8.0], [1.0, 2.0], [0.0, -1.0]], 1 / 8, [3]),
        # Two at once, of which the second call has one image twice.
        (2, [[4.0, -8.0], [1.0, 2.0], [4.0, -8.0]], 0.0, [2, 2]),
    ],
)
def test_the_difference_by_hand(monkeypatch, tmp_path, batch, expected, difference, sizes):
    run = constant([[4.0, -8.0], [1.0, 2.0], [0.0, 0.0]])
    for suffix, form in formats.FORMATS.items():
        run.sizes.clear()
        monkeypatch.setattr(type(form), "network", lambda self, path: run)
        path = tmp_path / f"x{suffix}"
        assert export.compare(path, batch, np.zeros((3, 1, 2, 2)), np.array(expected)) == pytest.approx(difference)
        assert run.sizes == sizes


def test_a_difference_of_one_image_alone_is_seen(monkeypatch, tmp_path):
    """A file for any number that is wrong where it gets one."""
    monkeypatch.setattr(Onnx, "network", lambda self, path: lambda images: np.ones((len(images), 2)) * len(images))
    assert export.compare(tmp_path / "x.onnx", None, np.zeros((4, 1)), np.full((4, 2), 4.0)) == 3 / 4


def test_logits_of_zero_have_no_size(monkeypatch, tmp_path):
    monkeypatch.setattr(Onnx, "network", lambda self, path: constant([[0.5]]))
    assert export.compare(tmp_path / "x.onnx", None, np.zeros((1, 1)), np.zeros((1, 1))) == 0.5


@pytest.mark.parametrize(("train", "val", "real"), [(0, 8, 7), (8, 0, 7), (8, 3, 3), (0, 0, 0)])
def test_a_file_is_compared_on_images_of_the_run(tmp_path, train, val, real):
    """Those of validation, or of training where it has none; made-up ones fill up to seven."""
    for split, count, value in (("train", train, 10), ("val", val, 200)):
        (tmp_path / split / "ant").mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20, 20), (value,) * 3).save(tmp_path / split / "ant" / f"{index}.png")
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "image_resize": 16, "crop_pct": 1.0}
    config = Config(**plain, data_dir=str(tmp_path), num_classes=3)
    images, found = probe_images.comparison_images(deployment.Deployment(tmp_path / "x.ckpt", config, tuple(CLASSES)))
    assert (images.shape, images.dtype, found) == ((7, 3, 16, 16), np.float32, real)
    assert (images[:real] == (200 if val else 10)).all()
    assert all(image.std() > 20 for image in images[real:])
    assert len({image.tobytes() for image in images[real:]}) == 7 - real
    grey, _ = probe_images.comparison_images(
        deployment.Deployment(tmp_path / "x.ckpt", config.replace(in_channels=1), tuple(CLASSES))
    )
    assert grey.shape == (7, 1, 16, 16)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A checkpoint, and an export of it that compiles and compares nothing: each file differs by what is given."""
    path = tmp_path / "run" / "w_best.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    config = Config(model="ghostnet_050", num_classes=3, val_amp_level="O2", data_dir=str(tmp_path / "none"))
    deployed = deployment.Deployment(path, config.replace(image_resize=8), tuple(CLASSES))
    seen: dict = {"modes": []}

    def trained(config):
        seen["precision"] = config.val_amp_level
        return nn.ReLU().set_train(True), "loaded it"

    def deployed_form(model, network, num_classes, in_channels, **others):
        seen.update(training=network.training, form=(model, num_classes, in_channels))
        seen["modes"].append(ms.get_context("mode"))
        return network

    def write(network, draft, target, description):
        seen.setdefault("written", []).append((draft.suffix, target.batch))
        draft.write_bytes(description.encode())

    monkeypatch.setattr(export.build, "trained_network", trained)
    monkeypatch.setattr(export.fold, "deployed_form", deployed_form)
    monkeypatch.setattr(writers, "_write_onnx", write)
    monkeypatch.setattr(writers, "_write_mindir", write)

    def run(differences, *given, **keys):
        left = iter(differences)

        def compare(draft, batch, images, expected):
            seen["compared"] = (batch, len(images))
            np.testing.assert_array_equal(expected, np.maximum(images, 0))
            return next(left)

        monkeypatch.setattr(export, "compare", compare)
        return export.export(deployed, *given, **keys)

    run.path, run.seen, run.deployed = path, seen, deployed
    return run


def test_what_is_written_and_said(quick, tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    ms.set_context(mode=ms.GRAPH_MODE)
    out = tmp_path / "a" / "out"
    results = quick([1e-4, 0.0], ["mindir", "onnx"], out, batch=5)
    facts = {**dataclasses.replace(quick.deployed, batch=5).describe()}
    source = {"file": "w_best.ckpt", "sha256": hashlib.sha256(b"weights").hexdigest()}
    facts |= {"source": source, "ghostnet": ghostnet_package.__version__, "mindspore": ms.__version__}
    facts = json.loads(json.dumps(facts))
    facts["preprocessing"]["output"] = "logits; their softmax are the probabilities"
    for result, kind, difference in zip(results, ("mindir", "onnx"), (1e-4, 0.0), strict=True):
        content = (out / f"w_best.{kind}").read_bytes()
        assert json.loads(content) == facts
        assert result == export.Exported(
            out / f"w_best.{kind}", out / "w_best.json", len(content), difference, 7, False, ((8, 8),)
        )
        assert (out / f"w_best.{kind}.sha256").read_text().split()[0] == hashlib.sha256(content).hexdigest()
    assert (out / "w_best.json").read_text() == json.dumps(facts, indent=1)
    assert len(list(out.iterdir())) == 5
    assert quick.seen["written"] == [(".mindir", 5), (".onnx", 5)]
    assert quick.seen["compared"] == (5, 7)
    assert quick.seen["form"] == ("ghostnet_050", 3, 3)
    assert (quick.seen["training"], quick.seen["precision"]) == (False, "O0")
    # One operation after the other, which compiles nothing; then as it was.
    assert quick.seen["modes"] == [ms.PYNATIVE_MODE]
    assert ms.get_context("mode") == ms.GRAPH_MODE
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "loaded it"
    assert [line.split(":")[0] for line in said[1:]] == ["mindir", "onnx"]


def test_files_go_beside_the_checkpoint(quick):
    (result,) = quick([0.0], ["mindir"])
    assert result.path == quick.path.with_suffix(".mindir")
    assert quick.seen["written"] == [(".mindir", None)]


@pytest.mark.parametrize("difference", [1.01e-4, float("nan"), float("inf")])
def test_all_files_are_compared_before_one_is_written(quick, difference):
    with pytest.raises(UserError, match="w_best.onnx: not kept: its logits differ from the checkpoint's by"):
        quick([0.0, difference], ["mindir", "onnx"])
    assert [file.name for file in quick.path.parent.iterdir()] == ["w_best.ckpt"]


def test_a_folder_that_cannot_be_made(quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out: .*file/out cannot be made \(Not a directory\); give another folder"):
        quick([0.0], ["mindir"], tmp_path / "file" / "out")


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_each_library_of_onnx_is_asked_for_where_it_is_needed(quick, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"--format onnx: {library} is missing .*or give --format mindir"):
        quick([0.0, 0.0], ["mindir", "onnx"])
    assert quick([0.0], ["mindir"])


class Entries(list):
    """What a map is in some versions of protobuf."""

    def add(self, key, value):
        self.append((key, value))


@pytest.mark.parametrize(("batch", "shape"), [(None, (-1, 3, 8, 8)), (5, (5, 3, 8, 8))])
def test_mindir_is_written_for_a_batch_or_any(quick, monkeypatch, tmp_path, batch, shape):
    monkeypatch.undo()  # of what `quick` has put in place of the function
    seen = []
    monkeypatch.setattr(ms, "export", lambda *given, **keys: seen.append((*given, keys)))
    network, target = nn.ReLU(), dataclasses.replace(quick.deployed, batch=batch)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    writers._write_mindir(network, tmp_path / "x.mindir", target, "{}")
    ((given, example, keys),) = seen
    assert given is network
    assert (tuple(example.shape), example.dtype) == (shape, ms.float32)
    assert (keys["file_name"], keys["file_format"]) == (str(tmp_path / "x.mindir"), "MINDIR")
    for entries, wanted in (({}, {"ghostnet": "{}"}), (Entries(), [("ghostnet", "{}")])):
        keys["custom_func"](SimpleNamespace(user_info=entries))
        assert entries == wanted


def test_a_mode_ends_with_what_it_is_for():
    ms.set_context(mode=ms.GRAPH_MODE)
    modes = []
    with contextlib.suppress(ValueError), in_mode(ms.PYNATIVE_MODE):
        modes.append(ms.get_context("mode"))
        raise ValueError
    assert [*modes, ms.get_context("mode")] == [ms.PYNATIVE_MODE, ms.GRAPH_MODE]


def test_made_up_pictures_are_clouds_of_mostly_one_colour():
    picture = probe_images.picture(1, 60, 80)
    assert (picture.shape, picture.dtype) == ((60, 80, 3), np.uint8)
    np.testing.assert_array_equal(picture, probe_images.picture(1, 60, 80))
    assert (picture != probe_images.picture(2, 60, 80)).any()
    assert picture.mean() == pytest.approx(128, abs=3)
    assert picture.std() == pytest.approx(50, abs=3)
    colours = np.corrcoef(picture.reshape(-1, 3).T.astype(float))
    assert 0.8 < colours[0, 1] < 0.999
    # Clouds have no direction: neighbours are as alike in a row as in a column.
    rows, columns = (np.abs(np.diff(picture.astype(int), axis=axis)).mean() for axis in (0, 1))
    assert rows == pytest.approx(columns, rel=0.15)
    # Amplitudes fall with the frequency: half of what is left of the mean is in the slowest waves.
    powers = np.abs(np.fft.fft2(picture[..., 0].astype(float) - picture[..., 0].mean())) ** 2
    slow = np.hypot(np.fft.fftfreq(60)[:, None] * 60, np.fft.fftfreq(80) * 80) < 4
    assert 0.4 < powers[slow].sum() / powers.sum() < 0.9


def test_made_up_pictures_have_contrast():
    picture = probe_images.picture(0)
    assert picture.shape == (240, 320, 3)
    assert picture.std() > 30
    assert (picture.min(), picture.max()) == (0, 255)
    # Neighbours are alike, as in photos; in noise their difference is 1.1 of the deviation.
    assert np.abs(np.diff(picture.astype(int), axis=1)).mean() < 0.6 * picture.std()


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models(CLASSIFICATION))
def test_every_network_in_both_formats(tmp_path, name):
    path = write_run(tmp_path, model=name, image_resize=(64, 32))
    written = export.export(artifact.of_file(path), export.USUAL)
    assert [file.path.suffix for file in written] == [".mindir", ".onnx"]
    check_onnx(path.with_suffix(".onnx"), path)


@pytest.mark.fault("overwriting", "clean error")
def test_nothing_of_others_is_replaced_unless_that_is_said(short_network, tmp_path):
    path = write_run(tmp_path, model="ghostnet_050")
    other = path.with_suffix(".onnx")
    other.write_text("precious")
    with pytest.raises(UserError, match=str(other)):
        export.export(artifact.of_file(path), ["onnx"])
    assert other.read_text() == "precious"
