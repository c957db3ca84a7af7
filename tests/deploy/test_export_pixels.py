"""Exported networks that give each pixel a class: plain ONNX Runtime has the checkpoint's logits, at any size."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from mindghost.cli import main
from mindghost.deploy import export, onnx_sizes
from mindghost.errors import UserError
from mindghost.inference import artifact
from mindghost.models import ghostnet
from tests.helpers import short
from tests.helpers.masks import write_scenes
from tests.helpers.trained import trained_logits, write_run

KEYS = {"task": "segmentation", "image_resize": (40, 56)}


@pytest.fixture(autouse=True)
def short_backbone(monkeypatch):
    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())


def logits(file, images):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        # All of one pixel; a multiple of 32 and none; one side longer than any that was tried.
        pytest.param(
            {"model": "ghost_lraspp", "backbone": "ghostnet_050"},
            [(1, 1), (64, 33), (65, 97), (31, 200)],
            marks=pytest.mark.slow,
        ),
        # Attention takes maps of two pixels at least.
        (
            {"model": "ghost_unet", "backbone": "ghostnetv2_100", "upsampling": "transposed", "in_channels": 1},
            [(33, 34), (64, 96), (77, 50)],
        ),
    ],
    ids=lambda value: value["model"] if isinstance(value, dict) else "",
)
def test_a_file_for_any_size_has_the_logits_at_each(tmp_path, keys, sizes):
    path = write_run(tmp_path, **KEYS, **keys)
    (written,) = export.export(artifact.of_file(path), ["onnx"], free_size=True)
    assert written.sizes == ((40, 56), (31, 71))
    channels = keys.get("in_channels", 3)
    for number, size in enumerate(sizes):
        images = images_of(1 + number % 2, channels, *size)
        expected = trained_logits(path, images)
        found = logits(written.path, images)
        assert found.shape == (len(images), 3, *size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    facts = json.loads(path.with_suffix(".json").read_text())
    assert (facts["input"]["shape"], facts["output"]["shape"]) == ([None, channels, None, None], [None, 3, None, None])
    deployed = artifact.of_file(written.path)
    assert deployed.free_size
    # The size that images are fitted into is the file's word for those who give none, and no more.
    said = artifact.said(str(written.path), False)
    assert (said.values["image_resize"], "image_resize" in said.fixed) == ((40, 56), False)
    assert said.fixed["backbone"] == keys["backbone"]


@pytest.mark.slow
def test_both_formats_at_a_fixed_odd_size(tmp_path, capsys):
    """7 images of the run's data; resizing is ONNX's own operator, and its sizes are whole factors."""
    data = write_scenes(tmp_path / "data", train=1, val=7)
    path = write_run(
        tmp_path / "run",
        **{**KEYS, "image_resize": (39, 57), "model": "ghost_unet", "backbone": "ghostnet_050", "data_dir": str(data)},
    )
    (path.parent / "colors.json").write_text("[[1, 2, 3], [4, 5, 6], [7, 8, 9]]")
    assert main.run(["export", "--ckpt_path", str(path)]) == 0
    assert capsys.readouterr().out.count("on 7 images of the run's data\n") == 2
    images = images_of(2, 3, 39, 57)
    expected = trained_logits(path, images)
    np.testing.assert_allclose(
        logits(path.with_suffix(".onnx"), images), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )
    model = onnx.load(path.with_suffix(".onnx"))
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    constants = onnx_sizes.constants_of(model.graph)
    factors = [onnx.numpy_helper.to_array(constants[node.input[2]]).tolist() for node in resizes]
    assert factors == [[1, 1, 2, 2]] * 5
    for end in (".onnx", ".mindir"):
        deployed = artifact.of_file(path.with_suffix(end))
        assert deployed.graph_shapes == ((None, 3, 39, 57), (None, 3, 39, 57))
        assert deployed.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
        assert not deployed.free_size


@pytest.mark.fault("export", "clean error")
@pytest.mark.parametrize(
    ("keys", "formats", "message"),
    [
        ({"model": "ghostnet_050"}, ["onnx"], "--free_size: task classification resizes all images to one size"),
        ({**KEYS, "model": "ghost_lraspp"}, ["mindir"], "--free_size: files for MindSpore take images of one size"),
    ],
)
def test_what_cannot_be_free_is_one_line(tmp_path, keys, formats, message):
    with pytest.raises(UserError, match=message):
        export.export(artifact.of_file(write_run(tmp_path, **keys)), formats, free_size=True)


@pytest.mark.fault("export", "clean error")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[1, 2, 3]]", "1 colours for 3 outputs"),
        ("[[1, 2, 256], [0, 0, 0], [0, 0, 0]]", "expected a list of colours, each"),
        ('{"road": [1, 2, 3]}', "expected a list of colours, each"),
    ],
)
def test_colours_that_do_not_fit_are_refused(tmp_path, text, message):
    path = write_run(tmp_path, **KEYS, model="ghost_lraspp", backbone="ghostnet_050")
    (tmp_path / "colors.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        artifact.of_file(path)
    assert str(caught.value).startswith(f"{tmp_path / 'colors.json'}: ")


def test_a_size_that_does_not_follow_from_the_images_is_refused():
    """As of a network whose maps have a size of their own."""
    image, maps = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", [7, 3, *onnx_sizes.TRACED]), ("logits", [7, 3, 21, 97]))
    )
    values = {"start": 0, "end": 21, "axis": 2}
    constants = [onnx.numpy_helper.from_array(np.array([value]), name) for name, value in values.items()]
    node = onnx.helper.make_node("Slice", ["image", "start", "end", "axis"], ["logits"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [image], [maps], constants))
    with pytest.raises(UserError, match="maps have a height of 21 where images have 65"):
        onnx_sizes.make_free(model)
