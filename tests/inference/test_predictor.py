"""Predictions are those of validation, whatever the file and the way that images are named."""

import csv
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.data import dataset, evaluation, images
from mindghost.deploy import export, probe_images
from mindghost.errors import UserError
from mindghost.inference import artifact, deployment, predictor
from mindghost.inference.network import open_network
from mindghost.inference.sources import expand, frames, picture_name
from mindghost.models import create_model
from mindghost.tasks import show
from mindghost.tasks.classification import show as classes
from tests.helpers.commands import flags, run_mindghost
from tests.helpers.places import ROOT
from tests.helpers.trained import CLASSES, write_run
from tests.helpers.weights import randomise


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures like photos, of several sizes and kinds, in class folders."""
    root = tmp_path_factory.mktemp("photos")
    for index, (name, size) in enumerate((("ant", (90, 60)), ("bee", (40, 70)), ("cat", (64, 64)), ("cat", (33, 47)))):
        folder = root / "val" / name
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(probe_images.picture(index, size[1], size[0]))
        picture.convert("L" if index == 2 else "RGB").save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    return root


def test_a_prefix_that_is_taken_off_the_weights_is_said(short_network, tmp_path, caplog):
    arrays = {f"module.{p.name}": p.asnumpy() for p in create_model("ghostnet_050", num_classes=3).get_parameters()}
    weights_file.write(tmp_path / "w.ckpt", arrays)
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    open_network(artifact.of_file(tmp_path / "w.ckpt", model="ghostnet_050", class_names=tmp_path / "names.txt"))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path}/w.ckpt: took the prefix module. off its names"
    ]


@pytest.mark.parametrize("keys", [{}, {"in_channels": 1, "interpolation": "bicubic", "image_resize": (40, 56)}])
def test_predictions_are_validations_logits(short_network, photos, tmp_path, keys):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    deployed = artifact.of_file(write_run(tmp_path, model="ghostnet_050", data_dir=str(photos), **keys))
    network = open_network(deployed)
    samples = dataset.open_split(deployed.config, "val", deployed.classes)
    (inputs, _), *_ = evaluation.eval_batches(deployed.config, samples, 0, 1)
    run = predictor.Predictor(deployed, network, batch_size=3)
    names = [samples.name(index) for index in range(len(samples))]
    np.testing.assert_array_equal(np.stack([run.prepare(images.read_image(name)) for name in names]), inputs)
    expected = network(inputs)
    shares = np.exp(expected.astype(np.float64)) / np.exp(expected.astype(np.float64)).sum(1, keepdims=True)
    predictions = list(run.predict(names, top_k=2))
    assert [prediction.image for prediction in predictions] == names
    for prediction, share in zip(predictions, shares, strict=True):
        labels = np.argsort(-share)[:2]
        assert [guess.label for guess in prediction.answers] == labels.tolist()
        assert [guess.name for guess in prediction.answers] == [CLASSES[label] for label in labels]
        np.testing.assert_allclose([g.probability for g in prediction.answers], share[labels], rtol=1e-4)


def test_the_script_prints_tables_json_and_csv_and_saves_pictures(
    short_network,
    photos,
    tmp_path,
    monkeypatch,
    capsys,
):
    path = write_run(tmp_path / "run", model="ghostnet_050")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    code = run_mindghost("predict", photos / "val", bad, *flags(ckpt_path=path, top_k=2), "--json")
    printed = capsys.readouterr()
    assert code == 1
    skipped, summary = printed.err.splitlines()
    assert skipped.startswith(f"mindghost predict: skipped: {bad}: not a readable image (of no format that is known)")
    assert summary == "mindghost predict: error: 1 of 5 images could not be read"
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert [Path(record["image"]).name for record in records] == ["0.jpg", "1.png", "2.jpg", "3.png", "bad.jpg"]
    assert records[-1]["predictions"] == []

    # A list on standard input, a pattern, another form.
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos}/val/ant/*.jpg\n\n{photos}/val/bee\n"))
    saved = tmp_path / "saved"
    assert run_mindghost("predict", "-", "--csv", *flags(ckpt_path=path, top_k=9, save_dir=saved)) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    for row, guess in zip(rows[:3], records[0]["predictions"], strict=False):
        assert (row["class"], float(row["probability"])) == (
            guess["class"],
            pytest.approx(guess["probability"], rel=1e-3),
        )
    assert sorted(file.name for file in saved.iterdir()) == ["0.png", "1.png"]
    before = {file: file.read_bytes() for file in [*saved.iterdir(), *photos.rglob("*.*")]}
    line = [f"{photos}/val/ant", f"{photos}/val/bee", "--csv", *flags(ckpt_path=path, top_k=9)]
    # Again; then into the folder of the images, through a link too, which some of the pictures would replace.
    assert run_mindghost("predict", *line, "--save_dir", saved) == 0
    (tmp_path / "link").symlink_to(photos / "val" / "bee")
    for folder in (photos / "val" / "bee", tmp_path / "link"):
        capsys.readouterr()
        for overwrite in ([], ["--overwrite"]):
            assert run_mindghost("predict", *line, "--save_dir", folder, *overwrite) == 2
            assert "1.png: is what is read; name another file" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in [*saved.iterdir(), *photos.rglob("*.*")]} == before
    with Image.open(saved / "0.png") as picture:
        assert picture.size[0] == 360  # 90 pixels, four times
        assert picture.size[1] > 240

    assert run_mindghost("predict", photos / "val" / "ant", *flags(ckpt_path=path, top_k=1)) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["image", "%", "class"]
    best = records[0]["predictions"][0]
    assert row.split() == [records[0]["image"], f"{100 * best['probability']:.2f}", best["class"]]


def test_only_a_network_of_pixels_has_masks(photos, tmp_path, capsys):
    path = write_run(tmp_path / "run", model="ghostnet_050")
    assert run_mindghost("predict", photos, *flags(ckpt_path=path, mask_dir=tmp_path / "masks")) == 2
    assert "--mask_dir: task classification says nothing of single pixels; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "masks").exists()


def test_exported_files_answer_and_validate_alike(short_network, photos, tmp_path, monkeypatch, capsys):
    path = write_run(tmp_path / "run", model="ghostnet_050", data_dir=str(photos), num_parallel_workers=1)
    deployed = artifact.of_file(path)
    out = tmp_path / "elsewhere"
    export.export(deployed, ["onnx"], out)
    exported = artifact.of_file(out / f"{path.stem}.onnx")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    names = expand([str(photos)])
    found, expected = (
        [p.answers for p in predictor.Predictor(d, open_network(d)).predict(names)] for d in (exported, deployed)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert [guess.name for guess in ours] == [guess.name for guess in theirs]
        np.testing.assert_allclose([g.probability for g in ours], [g.probability for g in theirs], rtol=1e-3, atol=1e-6)

    # The example that needs neither MindSpore nor this package, in a process that cannot import them.
    for package in ("mindspore", "mindghost"):
        (tmp_path / "blocked" / package).mkdir(parents=True)
        (tmp_path / "blocked" / package / "__init__.py").write_text("raise ImportError")
    command = [sys.executable, ROOT / "examples" / "predict_onnx.py", exported.path, *names]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == names
    assert [line[1] for line in lines] == [guesses[0].name for guesses in expected]

    # Names of any kind, in a locale that has no letters for them.
    odd = [tmp_path / os.fsdecode(name) for name in (b"a\xff b\n.onnx", b"\x1b\xc3\xb6\xff.jpg")]
    for plain, other in zip((exported.path, names[0]), odd, strict=True):
        shutil.copy(plain, other)
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = subprocess.run([*command[:2], *odd], capture_output=True, env={**environment, **settings}, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.decode("ascii").splitlines()
    assert line.split("\t")[1:] == lines[0][1:]
    assert r"\x1b\udcc3\udcb6\udcff.jpg" in line

    import validate

    results = []
    for arguments in (flags(ckpt_path=path), flags(ckpt_path=exported.path, data_dir=photos, num_parallel_workers=1)):
        monkeypatch.setattr(sys, "argv", ["validate.py", *arguments, "--mode", "1"])
        validate.main()
        results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert results[1].pop("ckpt_path") == str(exported.path)
    assert results[0]["num_samples"] == 4
    for key in ("loss", "calibration_error"):
        assert results[1].pop(key) == pytest.approx(results[0].pop(key), rel=1e-4)
    assert results[1] == {key: value for key, value in results[0].items() if key != "ckpt_path"}


def test_bare_weights_need_a_name_and_take_one(tmp_path):
    network = create_model("ghostnet_050", num_classes=3)
    path = tmp_path / "some.ckpt"
    weights_file.write(path, {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})
    with pytest.raises(UserError, match="no config.yaml beside it.*--model NAME"):
        artifact.of_file(path)
    published = artifact.of_file(path, model="ghostnet_050")
    assert published.classes[:3] == ("0", "1", "2")
    assert (len(published.classes), published.config.image_resize) == (1000, 224)
    assert artifact.of_file(path, model="ghost_vgg16").config.dataset == "cifar10"
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n\n")
    three = artifact.of_file(path, model="ghostnet_050", class_names=names)
    assert three.classes == ("ant", "bee", "cat")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    randomise(network)
    assert open_network(three)(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 3)


def test_a_run_without_the_number_of_classes_has_it_from_the_names(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "x.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text(Config(model="ghostnet_050", device_target="Ascend").to_yaml())
    with pytest.raises(UserError, match="--class_names"):
        artifact.of_file(folder / "x.ckpt")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    found = artifact.of_file(folder / "x.ckpt")
    assert (found.config.num_classes, found.config.device_target) == (3, None)
    (folder / "config.yaml").write_text(Config(model="ghostnet_050", num_classes=5).to_yaml())
    assert artifact.of_file(folder / "x.ckpt").classes == (*CLASSES, "3", "4")


def files_of_each_kind(folder: Path) -> list[Path]:
    """One picture, in every way that files have of saying it."""
    picture = Image.fromarray(probe_images.picture(3, 90, 130))
    grey, deep = picture.convert("L"), np.asarray(picture.convert("L")).astype(np.uint16) * 257 + 100
    turned = Image.Exif()
    turned[0x0112] = 6
    translucent = {mode: picture.convert(mode) for mode in ("L", "RGB")}
    for image in translucent.values():
        image.putalpha(Image.fromarray(255 - np.asarray(grey)))
    palette = picture.quantize(40)
    palette.info["transparency"] = bytes(range(40))
    kinds = {
        **{f"turned.{ending}": (picture, {"exif": turned}) for ending in ("jpg", "png", "webp", "tif")},
        **{f"deep.{ending}": (Image.fromarray(deep), {}) for ending in ("png", "tif", "pgm")},
        "palette.png": (palette, {}),
        "palette.gif": (picture.quantize(40), {"transparency": 3}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "cmyk.tif": (picture.convert("CMYK"), {}),
        "grey_alpha.png": (translucent["L"], {}),
        "alpha.png": (translucent["RGB"], {}),
        "grey.jpg": (grey, {}),
        "bilevel.png": (picture.convert("1"), {}),
        "first.gif": (picture, {"save_all": True, "append_images": [Image.new("RGB", picture.size)]}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("channels", [3, 1])
def test_the_plain_reader_gives_the_same_answers_for_files_of_each_kind(
    short_network,
    tmp_path,
    monkeypatch,
    capsys,
    channels,
):
    """Probabilities, and the pixels that they come from: no value is more than one of 255 off."""
    size = {"image_resize": 64} if channels == 3 else {"image_resize": (40, 56), "interpolation": "bicubic"}
    path = write_run(tmp_path / "run", model="ghostnet_050", in_channels=channels, **size)
    export.export(artifact.of_file(path), ["onnx"], tmp_path / "out")
    deployed = artifact.of_file(tmp_path / "out" / f"{path.stem}.onnx")
    files = files_of_each_kind(tmp_path)
    network = open_network(deployed)
    ours = predictor.Predictor(deployed, network)
    plain = runpy.run_path(str(ROOT / "examples" / "predict_onnx.py"))
    steps = deployed.describe()["preprocessing"]
    for file, prediction in zip(files, ours.predict(map(str, files)), strict=True):
        assert not prediction.problem
        theirs = plain["network_input"](str(file), steps)
        ours_in = ours.prepare(images.read_image(str(file), upright=True))
        assert np.abs((theirs[0] - ours_in) * np.reshape(steps["std"], (-1, 1, 1))).max() < 1.01, file.name
        shares = classes.probabilities(network(theirs))[0]
        found = {guess.label: guess.probability for guess in prediction.answers}
        np.testing.assert_allclose(shares, [found[label] for label in range(3)], atol=0.02, err_msg=file.name)
    monkeypatch.setattr(sys, "argv", ["predict_onnx.py", str(deployed.path), *map(str, files)])
    runpy.run_path(str(ROOT / "examples" / "predict_onnx.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    expected = [prediction.answers[0].name for prediction in ours.predict(map(str, files))]
    assert [line.split("\t")[1] for line in lines] == expected


def test_sources_are_expanded(photos, tmp_path):
    hidden = tmp_path / ".hidden"
    hidden.mkdir()
    Image.new("RGB", (4, 4)).save(hidden / "x.png")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="no image in this folder"):
        expand([str(tmp_path)])
    with pytest.raises(UserError, match="no file matches"):
        expand([str(tmp_path / "*.jpg")])
    # What is not there is reported as an image that cannot be read, in its place.
    assert expand(["a.jpg", "-", "b.jpg"], ["c.jpg\n"]) == ["a.jpg", "c.jpg", "b.jpg"]
    assert len(expand([f"{photos}/**/*.png"])) == 2
    odd = tmp_path / "[1].png"
    odd.write_bytes(b"")
    assert expand([str(odd)]) == [str(odd)]


def test_pictures_with_one_name_do_not_meet():
    taken: set[str] = set()
    names = [picture_name(image, taken) for image in ("a/x.jpg", "b/x.png", "clip.mp4#3")]
    assert names == ["x.png", "x_2.png", "clip_3.png"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 1), (320, 352)),
        ((900, 1), (320, 3632)),
        ((5000, 5), (320, 5032)),
        ((1, 900), (900, 33)),
        ((60, 90), (360, 272)),
    ],
)
def test_annotated_pictures_of_any_shape_are_legible_and_no_larger_than_that(shape, expected):
    """A line takes 20 pixels and the margins 12; what is narrow is enlarged, but not beyond 4,096 pixels."""
    prediction = predictor.Prediction("x", (show.Guess(0, "ant", 1.0),), pixels=np.zeros((*shape, 3), np.uint8))
    assert show.draw(prediction.pixels, prediction.answers).size == expected


def test_frames_of_a_video(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 50 * shade), np.uint8))
    writer.release()
    found = list(frames(str(path), every=2))
    assert [name for name, _ in found] == [f"{path}#{number}" for number in (0, 2, 4)]
    assert found[2][1].shape == (48, 64, 3)
    # Red, in OpenCV's order the last.
    np.testing.assert_allclose(found[2][1].mean((0, 1)), (200, 0, 0), atol=8)
    deployed = deployment.Deployment(tmp_path, Config(num_classes=3, image_resize=32), tuple(CLASSES))
    # Instead of a network: the mean of each channel as a logit.
    run = predictor.Predictor(deployed, lambda inputs: inputs.mean((2, 3)), batch_size=2)
    seen = list(run.predict([str(path), str(tmp_path / "none.mp4"), str(path)], top_k=1, every=4))
    assert [p.image.rpartition("/")[2] for p in seen] == [
        "clip.avi#0",
        "clip.avi#4",
        "none.mp4",
        "clip.avi#0",
        "clip.avi#4",
    ]
    assert [p.answers[0].name for p in seen if p.answers][1] == "ant"
    assert "cannot open this video" in seen[2].problem
