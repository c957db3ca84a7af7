"""The `.ckpt` format: as MindSpore reads and writes it, atomic, and closed to damage."""

import contextlib
import os
import random
import re
import stat

import mindspore as ms
import numpy as np
import pytest

from mindghost.checkpoint import safetensors as safetensors_file
from mindghost.checkpoint import weights as weights_file
from mindghost.errors import RunError, UserError
from mindghost.files import intact
from tests.helpers.weight_files import ARRAYS, SMALL, assert_equal, damaged, entries_end, entry, safetensors


def test_round_trip(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    assert_equal(weights_file.read(path), ARRAYS)
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~_umask()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


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


def test_safetensors_round_trip(tmp_path):
    """With a sidecar, whatever the name of the file; arrays that are no contiguous memory are written in order."""
    arrays = ARRAYS | {"turned": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    path = tmp_path / "a.ckpt"
    weights_file.write_safetensors(path, arrays)
    assert_equal(weights_file.read(path), dict(sorted(arrays.items())))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]
    path.write_bytes(safetensors_file.encode({"w": np.ones(2, np.float32)}))
    with pytest.raises(UserError, match="damaged: its sha256 is not that in a.ckpt.sha256"):
        weights_file.read(path)
    with pytest.raises(RunError, match="w holds values that are not finite"):
        weights_file.write_safetensors(path, {"w": np.array([np.nan], np.float32)})


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    values = np.array([1.0, -2.5, 3.0e38, 2.0**-130], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(expected, values, rtol=2**-7)
    files = (safetensors({"w": ("BF16", [4], 0, 8)}, halves.tobytes()), entry("BFloat16", (4,), halves.tobytes()))
    for content in files:
        (tmp_path / "w").write_bytes(content)
        assert_equal(weights_file.read(tmp_path / "w"), {"w": expected})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (safetensors({"w": ("F32", [2], 0, 8)}, b"\0" * 7), "damaged .safetensors"),
        (safetensors({"w": ("F32", [2], 0, 8)}, b"\0" * 9), "damaged .safetensors"),
        (safetensors({"w": ("F32", [3], 0, 8)}), "damaged .safetensors"),
        (safetensors({"w": ("F32", [-2], 0, 8)}), "damaged .safetensors"),
        (safetensors({"w": ("F32", [2], -8, 0)}), "damaged .safetensors"),
        (safetensors({"w": ("F32", [1 << 62, 8], 0, 8)}), "damaged .safetensors"),
        (safetensors({"w": ("F32", [2], 0, 8), "v": ("F32", [2], 0, 8)}), "damaged .safetensors"),
        (safetensors({"w": ("F32", [2], 0, 8), "v": ("F32", [2], 16, 24)}, b"\0" * 24), "damaged .safetensors"),
        (safetensors({"w": ("F32", [2], 0, 8)}, length=99_999_999), "damaged .safetensors"),
        (safetensors({"w": ("F32", [2], 0, 8)}, length=1 << 62), "not a MindSpore checkpoint or .safetensors"),
        (safetensors(b'{"w":' + b"[" * 200_000), "damaged .safetensors"),
        (safetensors({"w": ("F31", [2], 0, 8)}), "damaged .safetensors"),
        (safetensors({"w": ("F8_E4M3", [8], 0, 8)}), "type 'F8_E4M3'"),
        (safetensors({"w\x1b[2J": ("F32", [2], 0, 8)}), "no name of a parameter"),
        (safetensors({"w": ("F32", [0, 1 << 62, 1 << 62], 0, 0)}, b""), "damaged"),
        (entry(dims=(0, 1 << 62, 1 << 62), content=b""), "damaged"),
        (entry(dims=(1,) * 99, content=b"\0" * 4), "damaged"),
        (safetensors({"w": ("F32", [2], 0, 8)}, b"\0\0\x80\x7f" * 2), "w holds values that are not finite"),
        (safetensors({"w": ("BF16", [2], 0, 4)}, b"\x80\x7f" * 2), "w holds values that are not finite"),
        (b"PK\x03\x04" + b"\0" * 99, "a PyTorch file; convert it first: mindghost convert"),
        (b"\x80\x02]q\0.", "a PyTorch file; convert it first: mindghost convert"),
    ],
)
def test_bad_safetensors_and_pytorch_files_are_one_line(content, expected, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        weights_file.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_safetensors_file_is_refused(tmp_path):
    content = safetensors_file.encode(SMALL)
    for length in range(len(content)):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"damaged|not a MindSpore checkpoint"):
            weights_file.read(tmp_path / "cut")


def test_every_cut_and_flip_is_refused_with_a_sidecar(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, SMALL)
    for bad in [*damaged(path.read_bytes()), b"foreign", path.read_bytes() + b"\0"]:
        path.write_bytes(bad)
        with pytest.raises(UserError, match="a.ckpt: damaged: its sha256") as caught:
            weights_file.read(path)
    assert "\n" not in str(caught.value)


def test_without_a_sidecar_all_but_cuts_between_parameters_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, SMALL)
    content = path.read_bytes()
    intact.sidecar(path).unlink()
    accepted = []
    for bad in damaged(content):
        path.write_bytes(bad)
        with contextlib.suppress(UserError):
            assert set(weights_file.read(path)) <= set(SMALL)
            accepted.append(bad)
    assert accepted == [content[:end] for end in entries_end(content)]


def test_random_damage_to_a_large_file_is_refused(tmp_path):
    """As above, where entries are longer than the file's last bytes, on a sample."""
    path = tmp_path / "a.ckpt"
    rng = random.Random(0)
    values = np.random.default_rng(0)
    weights_file.write(path, {f"w{n}": values.standard_normal(50_000).astype(np.float32) for n in range(20)})
    content = path.read_bytes()
    ends = entries_end(content)
    sums = intact.sidecar(path).read_bytes()
    for _ in range(50):
        at = rng.randrange(len(content))
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.randrange(8)
        for bad in (bytes(flipped), content[: at if at not in ends else at - 1]):
            path.write_bytes(bad)
            intact.sidecar(path).write_bytes(sums)
            with pytest.raises(UserError, match="its sha256"):
                weights_file.read(path)
            intact.sidecar(path).unlink()
            with pytest.raises(UserError, match="damaged"):
                weights_file.read(path)


@pytest.mark.parametrize(("make", "said"), [("missing", "no such file"), ("folder", "a folder, not a file")])
def test_a_path_that_is_no_file(make, said, tmp_path):
    path = tmp_path / "x.ckpt"
    if make == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=said):
        weights_file.read(path)


@pytest.mark.fault("NaN, infinity", "clean error")
def test_nan_is_not_saved_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    with pytest.raises(RunError, match="bias holds values that are not finite"):
        weights_file.write(path, {"bias": np.array([np.inf], np.float32)})
    assert_equal(weights_file.read(path), ARRAYS)
