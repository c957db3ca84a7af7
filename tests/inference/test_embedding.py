"""Embeddings: their length, and what of an exported file says that it gives some."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.inference import artifact, embedding, formats
from mindghost.inference.deployment import Deployment
from mindghost.inference.formats import End, Graph

CONFIG = Config(model="ghostnet_050", num_classes=2, image_resize=32)
WANTED = Deployment(Path("x.onnx"), CONFIG, ("ant", "bee"), embedding=1280)
LOGITS = End("logits", "float32", (None, 2))
EMBEDDING = End("embedding", "float32", (None, 1280))


def normalised(outputs: np.ndarray) -> np.ndarray:
    return embedding.normalised(lambda images: outputs, Path("x.ckpt"))(np.zeros((len(outputs), 3, 2, 2)))


def test_vectors_have_length_1():
    outputs = np.array([[3, 4], [1e-30, 0], [2e30, 2e30], [0, 0]], np.float32)
    found = normalised(outputs)
    np.testing.assert_allclose(found, [[0.6, 0.8], [1, 0], [0.5**0.5, 0.5**0.5], [0, 0]], rtol=1e-6)
    assert found.dtype == np.float32
    assert normalised(outputs[:1].astype(np.float16)).dtype == np.float32


@pytest.mark.fault("exported files", "clean error", once=True)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(
        UserError, match=r"^x.ckpt: its embeddings are not finite \(NaN or infinity\) for 1 of 2 images"
    ):
        normalised(np.array([[1, 2], [value, 0]], np.float32))


@pytest.mark.fault("exported files", "clean error")
def test_maps_are_no_embeddings():
    with pytest.raises(UserError, match=r"^x.ckpt: gives embeddings of shape"):
        normalised(np.zeros((2, 3, 4, 4), np.float32))


@pytest.mark.fault("exported files", "clean error")
def test_a_network_of_pixels_has_none():
    dense = replace(WANTED, path=Path("x.ckpt"), config=CONFIG.replace(task="segmentation", model="ghost_unet"))
    with pytest.raises(UserError, match=r"^x.ckpt: a network that gives each pixel a class has no embedding"):
        embedding.open_embedding(dense)


# --- Descriptions and graphs


def of_file(monkeypatch, tmp_path, described: dict, *outputs: End) -> Deployment:
    (tmp_path / "x.onnx").touch()
    image = End("image", "float32", (outputs[0].shape[0], 3, 32, 32))
    monkeypatch.setattr(formats, "read", lambda path: Graph((image,), outputs, json.dumps(described)))
    return artifact.of_file(tmp_path / "x.onnx")


@pytest.mark.parametrize("batch", [None, 4])
def test_a_description_says_that_there_are_some(batch, monkeypatch, tmp_path):
    wanted = replace(WANTED, batch=batch)
    described = wanted.describe()
    assert described["embedding"] == {"name": "embedding", "type": "float32", "shape": [batch, 1280]}
    ends = [End(end.name, end.kind, (batch, *end.shape[1:])) for end in (LOGITS, EMBEDDING)]
    assert of_file(monkeypatch, tmp_path, described, *ends).embedding == 1280
    assert "embedding" not in replace(wanted, embedding=None).describe()


@pytest.mark.fault("exported files", "clean error")
@pytest.mark.parametrize(
    ("changes", "outputs", "expected"),
    [
        ({}, (LOGITS,), "its graph has 1 inputs and 1 outputs, expected one, and 2"),
        ({"embedding": None}, (LOGITS, EMBEDDING), "its description: an embedding of shape None, expected two sizes"),
        ({"embedding": {"shape": [None, 0]}}, (LOGITS, EMBEDDING), "an embedding of shape [None, 0], expected"),
        ({"embedding": {"shape": [None, 1 << 40]}}, (LOGITS, EMBEDDING), "an embedding of shape [None, 1099511627776]"),
        ({"embedding": {"shape": [4, 1280]}}, (LOGITS, EMBEDDING), "contradicts itself: embedding has shape [4, 1280]"),
        (
            {"embedding": {"name": "x", "shape": [None, 1280]}},
            (LOGITS, EMBEDDING),
            "embedding has name x, but embedding",
        ),
        (
            {},
            (LOGITS, End("embedding", "float32", (None, 960))),
            "its graph gives float32 any x 960, but its description",
        ),
        ({}, (EMBEDDING, LOGITS), "its graph gives float32 any x 1280, but its description says float32 any x 2"),
        (
            {},
            (LOGITS, End("x", "float32", (None, 1280))),
            "names 'image', 'logits' and 'x', not image, logits and embedding",
        ),
    ],
)
def test_one_that_lies_is_refused(changes, outputs, expected, monkeypatch, tmp_path):
    with pytest.raises(UserError) as caught:
        of_file(monkeypatch, tmp_path, {**WANTED.describe(), **changes}, *outputs)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.fault("exported files", "clean error")
def test_a_second_output_that_nothing_speaks_of_is_refused(monkeypatch, tmp_path):
    described = replace(WANTED, embedding=None).describe()
    with pytest.raises(UserError, match="its graph has 1 inputs and 2 outputs, expected one each"):
        of_file(monkeypatch, tmp_path, described, LOGITS, EMBEDDING)


@pytest.mark.fault("exported files", "clean error", once=True)
@pytest.mark.parametrize("name", ["x.xml", "x.tflite", "x.param"])
def test_formats_without(name):
    with pytest.raises(
        UserError, match=rf"^{name}: \w+ files carry no embedding; give the .onnx, .mindir or .ckpt file"
    ):
        formats.of(Path(name)).embedding(Path(name))
