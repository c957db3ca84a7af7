"""What an exported file says of itself, inside or beside it, has to be true of its graph."""

import json
import shutil
from pathlib import Path

import pytest

from mindghost.errors import UserError
from mindghost.inference import artifact
from tests.helpers.exported_files import changed, refusal


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


def integers(**said):
    def both(end):
        return {**end, "type": "int8", **said}

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
    "integers that are none": [
        (
            integers(scale=0.5, zero_point=-3),
            "its graph takes float32 any x 3 x 32 x 32, but its description says int8",
        ),
        (integers(scale=0.5), "its description does not fit (KeyError: 'zero_point')"),
        *(
            (integers(scale=scale, zero_point=zero), "no scale and zero_point: ")
            for scale, zero in (("x", 0), (0.0, 0), (-1.0, 0), (1, 0), (0.5, 0.5), (0.5, None))
        ),
        (described(input=lambda end: {**end, "type": "int8"}), "contradicts itself: input has type int8"),
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


def test_a_file_for_two_images_is_one(made, tmp_path):
    file = Path(shutil.copy(made / "two" / "ghostnet_050_best.onnx", tmp_path / "file.onnx"))
    assert artifact.of_file(file).batch == 2
    changed(file, with_batch(None))
    with pytest.raises(UserError, match="takes float32 2 x 3 x 32 x 32, but its description says float32 any x 3"):
        artifact.of_file(file)
