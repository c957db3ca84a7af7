"""Int8 and float16 files: run by ONNX Runtime alone they do what was promised, or nothing is written."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config, settled
from mindghost.deploy import export, quantize
from mindghost.deploy.quantize import search
from mindghost.deploy.quantize.by_onnxruntime import OnnxQuantizer
from mindghost.errors import UserError
from mindghost.evaluate.validate import validate
from mindghost.files import intact
from mindghost.inference import artifact, formats
from mindghost.models import ghostnet
from tests.helpers import short
from tests.helpers.commands import flags, process, run_mindghost
from tests.helpers.edge import need
from tests.helpers.places import ROOT
from tests.helpers.runtimes import runtime_of
from tests.helpers.trained import CLASSES, write_run

SPOILT = ("conv_head", "classifier")


def predicted(path: Path, images: list[Path]) -> np.ndarray:
    """Labels by ONNX Runtime alone; the images have the size of the network's input."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    steps = json.loads(session.get_modelmeta().custom_metadata_map["ghostnet"])["preprocessing"]
    pixels = np.stack([np.float32(Image.open(image)) for image in images])
    inputs = ((pixels - np.float32(steps["mean"])) / np.float32(steps["std"])).transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {"image": image[np.newaxis]})[0] for image in inputs]).argmax(1)


def top_1(path: Path, images: Path) -> float:
    files = sorted((images / "val").rglob("*.png"))
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    return 100 * float((predicted(path, files) == labels).mean())


def edit(path: Path, changes: dict[str, np.ndarray]) -> None:
    model = onnx.load(path)
    for entry in model.graph.initializer:
        if entry.name in changes:
            entry.CopyFrom(numpy_helper.from_array(changes[entry.name].astype(np.float32), entry.name))
    intact.write_with_sidecar(path, model.SerializeToString())


def constants(path: Path) -> dict[str, np.ndarray]:
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(path).graph.initializer}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with an exported network whose own answers are the labels of its images, and these, in images/."""
    folder = tmp_path_factory.mktemp("run")
    # Squeezed and stretched colours, so that the answers are not all alike.
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (240, 8, 8, 3)) * rng.uniform(0, 1, (240, 1, 1, 3))
    pixels = np.uint8(pixels.repeat(4, axis=1).repeat(4, axis=2))
    drafts = [folder / f"{index}.png" for index in range(len(pixels))]
    for draft, image in zip(drafts, pixels, strict=True):
        Image.fromarray(image).save(draft)
    images = folder / "images"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.stages())
        checkpoint = write_run(folder, model="ghostnet_050", data_dir=str(images), crop_pct=1.0)
        (written,) = export.export(artifact.of_file(checkpoint), ["onnx"])
    session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    steps = json.loads(session.get_modelmeta().custom_metadata_map["ghostnet"])["preprocessing"]
    inputs = ((pixels - np.float32(steps["mean"])) / np.float32(steps["std"])).transpose(0, 3, 1, 2)
    logits = session.run(None, {"image": np.float32(inputs)})[0]
    centre = np.median(logits, axis=0)
    edit(written.path, {"classifier.bias": constants(written.path)["classifier.bias"] - centre})
    # Those that the network is surest of: the others' classes are a matter of chance.
    highest = np.sort(logits - centre, axis=1)
    surest = np.argsort(highest[:, -2] - highest[:, -1], kind="stable")[:120]
    drafts = [drafts[index] for index in sorted(surest)]
    for index, (draft, label) in enumerate(zip(drafts, predicted(written.path, drafts), strict=True)):
        place = images / ("val" if index % 4 else "train") / CLASSES[label] / draft.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(draft, place)
    assert len(list((images / "val").iterdir())) == 3
    return folder


@pytest.fixture
def model(run) -> Path:
    return run / "ghostnet_050_best.onnx"


@pytest.fixture
def spoilt(run, model, tmp_path) -> Path:
    """The same function, but one of the head's channels has values 3,000 times as large: the others vanish in int8."""
    shutil.copytree(run, tmp_path / "spoilt")
    path = tmp_path / "spoilt" / model.name
    before = constants(model)
    factor = np.ones(before["conv_head.bias"].size)
    factor[before["conv_head.bias"].argmax()] = 3000
    axis = before["classifier.weight"].shape.index(factor.size)
    changes = {
        "conv_head.weight": before["conv_head.weight"] * factor[:, None, None, None],
        "conv_head.bias": before["conv_head.bias"] * factor,
        "classifier.weight": before["classifier.weight"] / (factor if axis == 1 else factor[:, None]),
    }
    edit(path, changes)
    return path


def test_both_files_by_the_command(run, model, tmp_path, capsys):
    images = run / "images"
    arguments = flags(calib_dir=images / "train", max_drop=10, out=tmp_path)
    assert run_mindghost("quantize", model, *arguments, "--float16", "--json") == 0, capsys.readouterr().err
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == {"calibrated": 30, "evaluated": 90}
    assert {variant["kind"] for variant in record["tried"]} >= {"int8 per-tensor", "int8 per-channel", "float16"}
    before, int8, half = record["files"]
    assert before["top_1"] == 100
    for file in (int8, half):
        path = Path(file["path"])
        assert file["top_1"] == pytest.approx(top_1(path, images))
        assert file["top_1"] >= 90
        assert file["size"] == path.stat().st_size
        assert file["latency_ms"] > 0
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert {value.type for value in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}
        facts = json.loads(session.get_modelmeta().custom_metadata_map["ghostnet"])
        assert facts == json.loads(path.with_suffix(".json").read_text())
        assert facts["quantization"]["kind"] == file["kind"]
        # A whole set at once is taken, too.
        assert session.run(None, {"image": np.zeros((3, 3, 32, 32), np.float32)})[0].shape == (3, 3)
    best = max((v for v in record["tried"] if v["kind"].startswith("int8")), key=lambda variant: variant["top_1"])
    assert int8["top_1"] == best["top_1"]
    assert int8["size"] < 0.6 * before["size"]
    assert half["size"] < 0.6 * before["size"]
    kinds = {entry.data_type for entry in onnx.load(half["path"]).graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds
    # Every weight is in 7 bits.
    weights = [v for name, v in constants(Path(int8["path"])).items() if name.endswith(".weight_quantized")]
    assert len(weights) == record["layers"] - len(int8["float_layers"])
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 64
    # validate.py and the plain reader take the file.
    keys = {"ckpt_path": int8["path"], "data_dir": str(images), "num_parallel_workers": 1}
    config = settled(keys, {}, artifact.said(int8["path"], False))
    assert validate(config).metrics.score == int8["top_1"]
    picture = next((images / "val" / "bee").iterdir())
    plain = process(ROOT / "examples" / "predict_onnx.py", int8["path"], picture)
    assert plain.stdout.split("\t")[1] == CLASSES[predicted(Path(int8["path"]), [picture])[0]]


def test_the_layers_that_cost_most_stay_in_float(spoilt, capsys):
    images = spoilt.parent / "images"
    before = sorted(spoilt.parent.iterdir())
    common = (spoilt, *flags(calib_dir=images / "train", data_dir=images, max_drop=10))
    assert run_mindghost("quantize", *common, *flags(max_float=0)) == 2
    error = capsys.readouterr().err
    assert "nothing written: the best that was reached, int8 per-" in error
    assert len(error.splitlines()) == 1
    assert sorted(spoilt.parent.iterdir()) == before
    assert run_mindghost("quantize", *common) == 0
    printed = capsys.readouterr().out
    path = spoilt.with_name(f"{spoilt.stem}_int8.onnx")
    listed = [line.split() for line in printed.splitlines() if line.endswith(SPOILT)]
    assert {name for _, name in listed} == set(SPOILT)
    assert all(float(share.rstrip("%")) > 20 for share, _ in listed)
    assert f"2 of {len(constants_of_layers(spoilt))} layers are in float" in printed
    assert top_1(path, images) >= 90
    kept = constants(path)
    assert {name for name in constants_of_layers(spoilt) if name in kept} == {f"{name}.weight" for name in SPOILT}


def constants_of_layers(path: Path) -> list[str]:
    return [name for name in constants(path) if name.endswith(".weight")]


def test_the_best_is_written_anyway_where_that_was_said(spoilt, monkeypatch):
    images = spoilt.parent / "images"
    # Where no layer may stay in float, the minutes for their costs are not spent.
    monkeypatch.setattr(OnnxQuantizer, "costs", None)
    deployed = artifact.of_file(spoilt)
    config = deployed.config.replace(data_dir=str(images))
    goal = quantize.Goal(max_drop=0.0, max_float=0.0, anyway=True)
    result = quantize.quantize(deployed, runtime_of(config), images / "train", 8, goal)
    (path,) = result.written
    assert path.is_file()
    assert result.tried[0].metrics.score - result.written[path].metrics.score > 10
    assert top_1(path, images) == pytest.approx(result.written[path].metrics.score)


@pytest.mark.fault("names", "ok")
def test_any_name_is_quantised_and_nothing_beside_it_is_touched(model, tmp_path, monkeypatch):
    """ONNX's functions take names in UTF-8 alone, and write NAME-inferred.onnx beside what they are given."""
    odd, temporary = (tmp_path / os.fsdecode(name) for name in (b"a b\xff.onnx", b"tmp\xff"))
    shutil.copy(model, odd)
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    mine = odd.with_name(f"{odd.stem}-inferred.onnx")
    mine.write_bytes(b"mine")
    network = OnnxQuantizer(artifact.of_file(odd))
    network.calibrate(np.random.default_rng(0).random((2, 3, 32, 32), np.float32))
    assert b"QuantizeLinear" in network.int8("per-tensor", network.layers)[0]
    assert mine.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((odd.name, mine.name, temporary.name))


def test_a_fixed_batch_stays_fixed(run, model, tmp_path):
    path = tmp_path / "four.onnx"
    fixed = onnx.load(model)
    facts = json.loads(fixed.metadata_props[0].value)
    for key, value in (("input", fixed.graph.input[0]), ("output", fixed.graph.output[0])):
        value.type.tensor_type.shape.dim[0].dim_value = facts[key]["shape"][0] = 4
    fixed.metadata_props[0].value = json.dumps(facts)
    onnx.save(fixed, path)
    deployed = artifact.of_file(path)
    config = deployed.config.replace(data_dir=str(run / "images"))
    result = quantize.quantize(deployed, runtime_of(config), run / "images" / "val", 30, quantize.Goal(max_drop=100.0))
    assert (result.batch, result.calibrated) == (4, 30)
    (written,) = result.written
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [4, 3, 32, 32]
    assert result.written[written].metrics.score >= 80


def test_calibration_images_are_chosen_by_a_fixed_seed(run, tmp_path):
    config = Config(model="ghostnet_050", num_classes=3, image_resize=32, crop_pct=1.0)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (run / "images" / "val").rglob("*.png"):
        shutil.copy(file, flat)
    first, second = (quantize.calibration_images(config, flat, 10, CLASSES) for _ in range(2))
    assert first.shape == (10, 3, 32, 32)
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first.sum(axis=(1, 2, 3)))) == 10
    tree = quantize.calibration_images(config, run / "images" / "val", 1000, CLASSES)
    every = quantize.calibration_images(config, flat, 1000, CLASSES)
    assert sorted(tree.sum(axis=(1, 2, 3))) == sorted(every.sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("kind", ["openvino", "litert", "ncnn"])
def test_other_formats_become_int8_and_float16(run, model, tmp_path, kind, monkeypatch):
    """What is written is opened and evaluated like any exported file."""
    need(kind)
    pytest.importorskip({"openvino": "nncf", "litert": "ai_edge_quantizer", "ncnn": "ncnn"}[kind])
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    # The network whose answers are the labels.
    checkpoint = Path(shutil.copytree(run, tmp_path / "run")) / "ghostnet_050_best.ckpt"
    biases = {"classifier.bias": constants(model)["classifier.bias"]}
    weights_file.write(checkpoint, {**weights_file.read(checkpoint), **biases})
    (made,) = export.export(artifact.of_file(checkpoint), [kind], tmp_path)
    deployed = artifact.of_file(made.path)
    config = deployed.config.replace(data_dir=str(run / "images"))
    goal = quantize.Goal(max_drop=50.0)  # random weights lose more than trained ones
    result = quantize.quantize(deployed, runtime_of(config), run / "images" / "val", 30, goal, float16=True)
    assert {path.name for path in result.written} == {
        f"ghostnet_050_best_{name}{formats.of(made.path).infix}{made.path.suffix}" for name in ("int8", "float16")
    }
    images = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)
    expected = formats.of(made.path).network(made.path)(images)
    for path, variant in result.written.items():
        again = artifact.of_file(path)
        assert again.classes == deployed.classes
        said = artifact.description_of(path)["quantization"]
        assert said["kind"] == variant.kind
        assert said["source"]["file"] == made.path.name
        assert json.loads(formats.of(path).description_beside(path).read_text())["quantization"] == said
        assert variant.metrics.score >= (50 if "int8" in variant.kind else 98)
        found = formats.of(path).network(path)(images)
        change = np.abs(found - expected).max() / np.abs(expected).max()
        # These images are others than those of the calibration, and exceed its ranges.
        assert 0 < change < (2 if "int8" in variant.kind else 0.05)
        # The last part has the weights.
        assert len(variant.parts[-1]) < 0.7 * len(result.tried[0].parts[-1])
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists, and is not what this command has written"):
        quantize.quantize(deployed, runtime_of(config), run / "images" / "val", 8, goal, float16=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--calib_dir", "none"], "--calib_dir: none: no such folder"),
        (["MODEL", "--calib_dir", "EMPTY"], "no image in it or below it"),
        (["none.onnx", "--calib_dir", "EMPTY"], "none.onnx: no such file"),
        (["CKPT", "--calib_dir", "EMPTY"], "not an exported file; make one with `mindghost export"),
        (["HALF", "--calib_dir", "EMPTY"], "int8 or float16 already; give the file that `mindghost export` wrote"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_said_in_one_line(model, tmp_path, capsys, arguments, message):
    half = tmp_path / "half.onnx"
    empty = tmp_path / "empty"
    empty.mkdir()
    if "HALF" in arguments:
        half.write_bytes(OnnxQuantizer(artifact.of_file(model)).float16()[0])
    places = {"MODEL": model, "EMPTY": empty, "HALF": half, "CKPT": model.with_suffix(".ckpt")}
    assert run_mindghost("quantize", *(places.get(part, part) for part in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_fewest_layers_are_found():
    for limit in range(12):
        for least in range(1, 14):
            tried = []

            def enough(count, least=least, tried=tried):
                tried.append(count)
                return count >= least

            assert search.fewest(enough, limit) == (least if least <= limit else None)
            assert len(set(tried)) == len(tried) <= 8
            assert all(1 <= count <= limit for count in tried)
