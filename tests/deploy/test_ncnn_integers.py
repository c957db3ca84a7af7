"""ncnn's files of integers: the layers of a small one by hand, which ncnn computes as integers."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from mindghost.deploy.quantize.by_ncnn import NcnnQuantizer
from mindghost.errors import UserError
from mindghost.inference.formats.ncnn_file import NCNN
from tests.helpers.edge import need

LINES = (
    "7767517",
    "4 4",
    "Input image 0 1 image",
    "Convolution first 1 1 image a 0=2 1=1 11=1 5=1 6=6",
    "ConvolutionDepthWise second 1 1 a b 0=2 1=1 11=1 5=1 6=2 7=2",
    "InnerProduct last 1 1 b logits 0=3 1=1 2=24",
)
WEIGHTS = np.array([[1, -2, 0.5], [0, 0, 0]], np.float32), np.array([0.5, -1], np.float32)
WEIGHTS = (*WEIGHTS, np.arange(24, dtype=np.float32).reshape(3, 8) - 11)
BIASES = np.array([0.5, 1], np.float32), np.array([0, 0.25], np.float32), np.array([1, 2, 3], np.float32)


@pytest.fixture
def file(tmp_path):
    """A network of three layers for images of 2 x 2 pixels."""
    need("ncnn")
    path = tmp_path / "a.ncnn.param"
    path.write_text("\n".join(LINES) + "\n")
    parts = [struct.pack("<I", 0) + w.tobytes() + b.tobytes() for w, b in zip(WEIGHTS, BIASES, strict=True)]
    path.with_suffix(".bin").write_bytes(b"".join(parts))
    return path


def test_integers_and_scales_by_hand(file, tmp_path):
    quantizer = NcnnQuantizer(SimpleNamespace(path=file))
    images = np.stack([np.full((3, 2, 2), value, np.float32) for value in (1, -2)])
    quantizer.calibrate(images)
    text, content = quantizer.int8("largest", ())
    assert [line.endswith(" 8=1") for line in text.decode().splitlines()] == [False] * 3 + [True] * 3
    # Layer by layer: the kind of weights, integers filled up to whole words, biases, scales, what the input is times.
    place = 0
    largest = 2.0  # of the input of the first layer; then 1 - 2 + 0.5 = -0.5 times 1 and -2, plus 0.5
    for weights, bias, input_largest in zip(WEIGHTS, BIASES, (largest, 1.5, 0.75), strict=True):
        rows = weights.reshape(len(bias), -1)
        tops = np.abs(rows).max(1)
        scales = np.where(tops > 0, 127 / np.where(tops > 0, tops, 1), 1)
        assert struct.unpack_from("<I", content, place) == (0x000D4B38,)
        found = np.frombuffer(content, np.int8, rows.size, place + 4)
        np.testing.assert_array_equal(found, np.rint(rows * scales[:, None]).ravel())
        place += 4 + -(-rows.size // 4) * 4
        found = np.frombuffer(content, np.float32, 2 * len(bias) + 1, place)
        np.testing.assert_allclose(found, [*bias, *scales, 127 / input_largest], rtol=1e-6)
        place += 4 * (2 * len(bias) + 1)
    assert place == len(content)

    made = tmp_path / "b.ncnn.param"
    for part, written in zip(NCNN.parts(made), (text, content), strict=True):
        part.write_bytes(written)
    expected, logits = (NCNN.network(path)(images) for path in (file, made))
    change = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 0 < change < 0.02


def test_what_is_no_float_file_is_refused(file):
    quantizer = NcnnQuantizer(SimpleNamespace(path=file))
    quantizer.calibrate(np.ones((1, 3, 2, 2), np.float32))
    float_parts = [part.read_bytes() for part in NCNN.parts(file)]
    for parts, why in (
        (quantizer.int8("nearly all", ()), "the weights of first are not in float32"),
        (quantizer.float16(), "the weights of first are not in float32"),
        ((float_parts[0], float_parts[1] + bytes(8)), "8 bytes are left over"),
    ):
        for part, content in zip(NCNN.parts(file), parts, strict=True):
            part.write_bytes(content)
        with pytest.raises(UserError, match=f"a.ncnn.param: not in float32, or with layers .*: {why}"):
            NcnnQuantizer(SimpleNamespace(path=file))
