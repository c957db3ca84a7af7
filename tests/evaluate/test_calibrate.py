"""`mindghost calibrate`: what it finds, where it is kept, and who heeds it."""

import json
from pathlib import Path

import numpy as np
import pytest

from mindghost.deploy import export
from mindghost.errors import UserError
from mindghost.files.lock import FolderLock
from mindghost.inference import artifact, deployment
from mindghost.inference.network import open_network
from mindghost.inference.predictor import Predictor
from mindghost.runs.files import RunFiles, temperature_beside
from tests.helpers.commands import flags, run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

REMEDY = "calibrate again with `mindghost calibrate`, or delete it, which leaves the logits as they are"


@pytest.fixture
def run(short_network, tmp_path) -> Path:
    """A run's weights, with images to validate on."""
    write_images(tmp_path / "images", CLASSES, 2, 6)
    return write_run(
        tmp_path / "run", model="ghostnet_050", data_dir=str(tmp_path / "images"), num_parallel_workers=1, mode=1
    )


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def probabilities(file: Path, images: list[str]) -> np.ndarray:
    """What predict says of images: the probability of each class."""
    deployed = artifact.of_file(file)
    found = Predictor(deployed, open_network(deployed)).predict(images, 3)
    rows = [{answer.label: answer.probability for answer in each.answers} for each in found]
    return np.array([[row[label] for label in range(3)] for row in rows])


def test_all_who_read_the_weights_heed_the_temperature(run, tmp_path, capsys):
    images = sorted(map(str, (tmp_path / "images" / "val").glob("*/*")))
    plain = probabilities(run, images)
    assert run_mindghost("validate", *flags(ckpt_path=run)) == 0
    before = last_line(capsys)
    assert run_mindghost("calibrate", *flags(ckpt_path=run)) == 0
    found = last_line(capsys)
    temperature = found["temperature"]
    assert found["file"] == str(run.with_name("ghostnet_050_best.temperature.json"))
    assert json.loads(Path(found["file"]).read_text())["temperature"] == temperature == temperature_beside(run)
    assert found["loss"]["before"] == before["loss"]
    assert found["calibration_error"]["before"] == before["calibration_error"]
    assert found["loss"]["after"] < found["loss"]["before"]

    calibrated = probabilities(run, images)
    expected = plain ** (1 / temperature)
    np.testing.assert_allclose(calibrated, expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)
    assert (calibrated.argmax(axis=1) == plain.argmax(axis=1)).all()

    rows = tmp_path / "rows.jsonl"
    assert run_mindghost("validate", *flags(ckpt_path=run, predictions=rows)) == 0
    after = last_line(capsys)
    assert {key: after[key] for key in before} == before
    assert after["temperature"] == temperature
    assert after["calibrated_loss"] == pytest.approx(found["loss"]["after"], rel=1e-6)
    assert after["calibrated_calibration_error"] == pytest.approx(found["calibration_error"]["after"], rel=1e-4)
    said = {row["path"]: row["probability"] for row in map(json.loads, rows.read_text().splitlines())}
    np.testing.assert_allclose([said[image] for image in images], calibrated, rtol=1e-4)

    for made in export.export(artifact.of_file(run), ("onnx", "mindir"), tmp_path / "out"):
        assert artifact.of_file(made.path).temperature == temperature
        description = json.loads(made.description.read_text())
        assert description["temperature"] == temperature
        assert "divided by the temperature" in description["preprocessing"]["output"]
        np.testing.assert_allclose(probabilities(made.path, images), calibrated, rtol=1e-3, atol=1e-6)


def test_a_run_is_calibrated_again(run, capsys):
    for _ in range(2):
        assert run_mindghost("calibrate", *flags(ckpt_path=run)) == 0
    first, second = last_line(capsys), temperature_beside(run)
    assert first["temperature"] == second
    # A file of somebody else's by that name stays.
    RunFiles.temperature(run).write_text("my notes")
    assert run_mindghost("calibrate", *flags(ckpt_path=run)) == 2
    assert "is not what this command has written" in capsys.readouterr().err
    assert RunFiles.temperature(run).read_text() == "my notes"


@pytest.mark.fault("labels", "clean error")
def test_the_weights_of_a_training_that_goes_on_are_left_alone(run, capsys):
    lock = FolderLock(run.parent, "ckpt_save_dir")
    lock.take()
    try:
        assert run_mindghost("calibrate", *flags(ckpt_path=run)) == 2
    finally:
        lock.release()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"calibrate: {run.parent} is in use by another run" in line
    assert not RunFiles.temperature(run).exists()


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize("value", ["0", "-1", "1e9", "NaN", "true", '"1"', "null", "[1]"])
def test_a_temperature_that_is_none_is_refused(run, value):
    file = RunFiles.temperature(run)
    file.write_text(f'{{"temperature": {value}}}')
    with pytest.raises(UserError) as caught:
        artifact.of_file(run)
    assert str(caught.value) == f"{file}: expected a temperature from 0.01 to 100; {REMEDY}"
    file.write_text(value)
    with pytest.raises(UserError, match="expected a temperature"):
        artifact.of_file(run)
    description = {**artifact.of_file(_without(file, run)).describe(), "temperature": json.loads(value)}
    with pytest.raises(UserError, match="its description: expected a temperature from 0.01 to 100"):
        deployment.of_description(run, description)


def _without(file: Path, run: Path) -> Path:
    file.unlink()
    return run


@pytest.mark.fault("labels", "clean error")
def test_what_cannot_be_calibrated_is_said_in_a_line(run, tmp_path, capsys):
    made = export.export(artifact.of_file(run), ("onnx",), tmp_path / "out")[0].path
    labels = write_run(tmp_path / "labels", model="ghostnet_050", task="multi_label", loss="BCE")
    cases = [
        (flags(ckpt_path=made), "is an exported file; calibrate the checkpoint that it was made of"),
        (flags(ckpt_path=labels), "task multi_label: a temperature is for the probabilities of one class an image"),
        ([], "RUN or --ckpt_path P: give one of them"),
        ([run.parent, *flags(ckpt_path=run)], "RUN or --ckpt_path P: give one of them"),
        ([tmp_path / "nothing"], "nothing: "),
        ([tmp_path / "images"], "give the folder of a run"),
    ]
    capsys.readouterr()
    for arguments, why in cases:
        assert run_mindghost("calibrate", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    assert not list(tmp_path.rglob("*.temperature.json"))


def test_a_map_is_drawn_for_each_image(run, tmp_path, capsys):
    from PIL import Image

    images, folder = tmp_path / "images" / "val" / "ant", tmp_path / "maps"
    assert run_mindghost("predict", images, *flags(ckpt_path=run), "--json") == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for method, layer in (("layercam", "blocks.1"), ("gradcam", "")):
        more = ["--explain_layer", layer] if layer else []
        line = [*flags(ckpt_path=run, explain=folder / method, explain_method=method), *more, "--json"]
        assert run_mindghost("predict", images, *line) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for row, expected in zip(rows, plain, strict=True):
            file = Path(row.pop("explanation"))
            assert file == folder / method / f"{Path(row['image']).stem}.png"
            assert row["image"] == expected["image"]
            for found, wanted in zip(row["predictions"], expected["predictions"], strict=True):
                assert found["label"] == wanted["label"]
                assert found["probability"] == pytest.approx(wanted["probability"], rel=1e-4)
            with Image.open(file) as drawn, Image.open(row["image"]) as image:
                assert drawn.size == image.size
                assert drawn.mode == "RGB"


def test_what_cannot_be_explained_is_said_in_a_line(run, tmp_path, capsys):
    made = export.export(artifact.of_file(run), ("onnx",), tmp_path / "out")[0].path
    images, maps = tmp_path / "images" / "val", tmp_path / "maps"
    cases = [
        (flags(ckpt_path=made, explain=maps), "--explain: "),
        (flags(ckpt_path=run, explain=maps, explain_layer="nose"), "--explain_layer: no layer is called 'nose'"),
        (flags(ckpt_path=run, explain_layer="blocks"), "--explain_layer: give --explain DIR as well"),
        (flags(ckpt_path=run, explain_method="gradcam"), "--explain_method: give --explain DIR as well"),
        (flags(ckpt_path=run, explain=maps, save_dir=maps), f"--explain: {maps} is --save_dir, too"),
    ]
    capsys.readouterr()
    for arguments, why in cases:
        assert run_mindghost("predict", images, *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mindghost predict: error: {why}")
    assert not maps.exists()
