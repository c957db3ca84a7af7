"""A run with masks, shipped: exported and int8 files have its numbers, and plain ONNX Runtime writes its masks."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mindghost.cli import main
from mindghost.models import ghostnet
from tests.helpers import short
from tests.helpers.masks import write_scenes
from tests.helpers.places import ROOT
from tests.helpers.trained import write_run

COLORS = [[9, 8, 7], [250, 0, 1], [0, 3, 250]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The scenes, the checkpoint with what training left, and the ONNX file for any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.all_strides())
        root = tmp_path_factory.mktemp("shipped")
        data = write_scenes(root / "data", train=6, val=5)
        keys = {"task": "segmentation", "image_resize": (32, 48), "model": "ghost_lraspp", "backbone": "ghostnet_050"}
        weights = write_run(root / "run", **keys, data_dir=str(data))
        (root / "run" / "colors.json").write_text(json.dumps(COLORS))
        out = root / "out"
        assert main.run(["export", "--ckpt_path", str(weights), "--free_size", "--out", str(out)]) == 0
        yield data, weights, out / f"{weights.stem}.onnx"


def numbers(capsys, file, data, *others) -> dict:
    """What `mindghost validate` prints."""
    capsys.readouterr()
    assert main.run(["validate", "--ckpt_path", str(file), "--data_dir", str(data), *others]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_exported_file_has_the_numbers_of_the_checkpoint(shipped, capsys):
    """Logits are within 1e-5, so that a pixel at even odds may have the other class: 0.1 points are two pixels."""
    data, weights, exported = shipped
    own, theirs = (numbers(capsys, file, data) for file in (weights, exported))
    assert theirs["num_samples"] == own["num_samples"] == 5
    assert theirs["miou"] == pytest.approx(own["miou"], abs=0.1)
    assert theirs["pixel_accuracy"] == pytest.approx(own["pixel_accuracy"], abs=0.1)
    assert theirs["loss"] == pytest.approx(own["loss"], rel=1e-4)
    # Of a file for any size another one may be given.
    assert numbers(capsys, exported, data, "--image_resize", "48", "72")["num_samples"] == 5


def test_int8_within_the_points_that_it_may_lose(shipped, capsys):
    """Ranges are measured on the images of the training split; its masks are none."""
    data, _, exported = shipped
    call = ["quantize", str(exported), "--calib_dir", str(data / "train"), "--data_dir", str(data), "--max_drop", "5"]
    capsys.readouterr()
    assert main.run([*call, "--max_float", "100", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == {"calibrated": 6, "evaluated": 5}
    source, int8 = record["files"]
    assert source["miou"] - int8["miou"] <= 5
    assert int8["size"] < source["size"]
    found = numbers(capsys, int8["path"], data)
    assert (found["miou"], found["iou"]) == (int8["miou"], int8["iou"])
    assert json.loads(exported.with_name(f"{exported.stem}_int8.json").read_text())["colors"] == COLORS


def test_plain_onnx_runtime_writes_the_masks_that_predict_writes(shipped, tmp_path, capsys):
    """Of images of other proportions than the network's input, one of them turned by its camera."""
    _, _, exported = shipped
    rng, files = np.random.default_rng(3), [tmp_path / f"{name}.png" for name in ("wide", "high", "turned")]
    for file, size in zip(files, ((20, 70, 3), (61, 33, 3), (25, 40, 3)), strict=True):
        exif = Image.Exif()
        exif[0x0112] = 6 if file.stem == "turned" else 1
        # Larger blocks than pixels: masks with areas.
        blocks = rng.integers(0, 256, (size[0] // 5 + 1, size[1] // 5 + 1, 3)).repeat(5, 0).repeat(5, 1)
        Image.fromarray(np.uint8(blocks[: size[0], : size[1]])).save(file, exif=exif)
    masks, here = tmp_path / "masks", tmp_path / "here"
    call = ["predict", *map(str, files), "--ckpt_path", str(exported), "--mask_dir", str(masks), "--json"]
    assert main.run(call) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    here.mkdir()
    command = [sys.executable, ROOT / "examples" / "predict_onnx.py", exported, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    for file, line, record in zip(files, done.stdout.splitlines(), said, strict=True):
        ours, theirs = Image.open(masks / file.name), Image.open(here / f"{file.stem}.mask.png")
        assert ours.size == theirs.size == ((25, 40) if file.stem == "turned" else Image.open(file).size)
        assert ours.getpalette()[:9] == theirs.getpalette()[:9] == np.ravel(COLORS).tolist()
        # Resized images differ by a rounding here and there.
        assert (np.asarray(ours) == np.asarray(theirs)).mean() > 0.97
        assert line.split("\t")[1].split()[0] == record["predictions"][0]["class"]
    again = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert (again.returncode, again.stderr) == (1, "wide.mask.png: is there already; move it away\n")
