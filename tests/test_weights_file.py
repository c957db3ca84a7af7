"""The `.ckpt` format: as MindSpore reads and writes it, atomic, and closed to damage."""

import os
import stat

import mindspore as ms
import numpy as np
import pytest
from mindspore.train.checkpoint_pb2 import Checkpoint

from ghostnet import weights_file
from ghostnet.errors import RunError, UserError

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bias": np.array([1.5, -2], np.float16),
    "step": np.array([7], np.int64),
    "scalar": np.array(3, np.int32),
    "empty": np.zeros((0,), np.float32),
}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_round_trip(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    assert_equal(weights_file.read(path), ARRAYS)
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~_umask()
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_mindspore_reads_ours_and_we_read_mindspores(tmp_path):
    arrays = {name: array for name, array in ARRAYS.items() if array.size}
    weights_file.write(tmp_path / "ours.ckpt", arrays)
    loaded = ms.load_checkpoint(str(tmp_path / "ours.ckpt"), crc_check=True)
    assert_equal({name: parameter.asnumpy() for name, parameter in loaded.items()}, arrays)

    parameters = [{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()]
    for crc in (False, True):
        path = tmp_path / f"theirs{crc}.ckpt"
        ms.save_checkpoint(parameters, str(path), crc_check=crc)
        assert_equal(weights_file.read(path), arrays)


def entry(kind="Float32", dims=(2,), content=b"\0" * 8) -> bytes:
    message = Checkpoint()
    value = message.value.add()
    value.tag = "w"
    value.tensor.tensor_type = kind
    value.tensor.dims.extend(dims)
    value.tensor.tensor_content = content
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no parameters"),
        (b"not a checkpoint at all, just text\n" * 9, "not a MindSpore checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not a MindSpore checkpoint"),
        (entry(dims=(1 << 40, 1 << 40)), "claims shape"),
        (entry(dims=(-2,)), "claims shape"),
        (entry(dims=(3,)), "claims shape"),
        (entry(kind="Float31"), "type 'Float31'"),
        (entry(content=np.array([1, np.nan], np.float32).tobytes()), "w holds values that are not finite"),
    ],
)
def test_damage_is_one_line(content, expected, tmp_path):
    path = tmp_path / "bad.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        weights_file.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_bit_flip_and_truncation_of_a_small_file_is_noticed(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, {"w": np.arange(5, dtype=np.float32)})
    content = path.read_bytes()
    body = len(content) - 17  # before the CRC and its mark
    bad = tmp_path / "b.ckpt"
    for position in range(body):
        bad.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(UserError, match="damaged"):
            weights_file.read(bad)
    for length in range(1, body):
        bad.write_bytes(content[:length])
        with pytest.raises(UserError):
            weights_file.read(bad)


@pytest.mark.parametrize("make", ["missing", "folder"])
def test_a_path_that_is_no_file(make, tmp_path):
    path = tmp_path / "x.ckpt"
    if make == "folder":
        path.mkdir()
    with pytest.raises(UserError, match="no such file"):
        weights_file.read(path)


def test_nan_is_not_saved_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    with pytest.raises(RunError, match="bias holds values that are not finite"):
        weights_file.write(path, {"bias": np.array([np.inf], np.float32)})
    assert_equal(weights_file.read(path), ARRAYS)


def test_a_folder_that_refuses_is_one_line(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        weights_file.write(tmp_path / "absent" / "a.ckpt", ARRAYS)
