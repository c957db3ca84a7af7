"""Arrays in .npz files: what numpy reads of ours, what is read of numpy's, and what of strangers is refused."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from mindghost.errors import UserError
from mindghost.files import npz
from mindghost.files.npz import Column

ARRAYS = {
    "vectors": np.arange(24, dtype=np.float32).reshape(6, 4),
    "halves": np.arange(3, dtype=np.float16),
    "names": np.array(["a", "é", "\udcff"]),
    "none": np.empty((0, 5), np.float32),
    "bytes": np.frombuffer(b"{}", np.uint8),
}


def test_numpy_reads_what_is_written(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"".join(npz.encode({name: Column.of(array) for name, array in ARRAYS.items()})))
    with np.load(path) as found:
        assert found.files == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    assert zipfile.ZipFile(path).testzip() is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(save, tmp_path):
    path = tmp_path / "x.npz"
    save(path, fortran=np.asfortranarray(ARRAYS["vectors"]), **ARRAYS)
    found = npz.read(path, [*ARRAYS, "fortran", "not there"], "x")
    assert set(found) == {*ARRAYS, "fortran"}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(found["fortran"], ARRAYS["vectors"])
    assert npz.names_in(path, "x") == {*ARRAYS, "fortran"}


def test_blocks_come_one_after_the_other_and_are_counted(tmp_path):
    blocks = [ARRAYS["vectors"][:4], ARRAYS["vectors"][4:].astype(np.float64)]
    path = tmp_path / "x.npz"
    path.write_bytes(b"".join(npz.encode({"a": Column((6, 4), np.dtype(np.float32), blocks)})))
    np.testing.assert_array_equal(npz.read(path, ["a"], "x")["a"], ARRAYS["vectors"])
    with pytest.raises(ValueError, match="6 rows for 7"):
        list(npz.encode({"a": Column((7, 4), np.dtype(np.float32), blocks)}))


def test_a_mapped_array_stays_when_its_file_is_replaced(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones(100_000, np.float32))
    tracemalloc.start()
    found = npz.read(path, ["a"], "x")["a"]
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 200_000  # it has 400,000 bytes
    other = tmp_path / "y.npz"
    np.savez(other, a=np.zeros(100_000, np.float32))
    other.replace(path)
    assert (found == 1).all()


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        npz.read(path, ["a"], "make it again")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; make it again")
    assert len(message.splitlines()) == 1
    return message


def entry(header: bytes, content: bytes = b"") -> bytes:
    """An array's file with a description of its own."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.fault("vectors", "clean error")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (entry(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"), "its array a is damaged"),
        (
            entry(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2), }\n", bytes(16)),
            "its array a is damaged",
        ),
        (entry(b"{'descr': '|V0', 'fortran_order': False, 'shape': (10,), }\n"), "its array a is damaged"),
        (entry(b"(" * 5000), "its array a is damaged"),
        (entry(b"__import__('os').system('touch hacked')"), "its array a is damaged"),
        (
            entry(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"cos\nsystem\n"),
            "Python objects, which",
        ),
        (b"no array", "its array a is damaged"),
        (b"", "its array a is damaged"),
    ],
)
def test_an_array_that_lies_is_refused(content, expected, tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
    assert expected in refusal(path)


@pytest.mark.fault("vectors", "clean error")
def test_objects_are_not_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "hacked"), "w"))

    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([Bomb()], object))
    assert "its array a holds Python objects, which are never unpickled" in refusal(path)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.fault("vectors", "clean error", once=True)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_half_a_file_is_refused(share, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=ARRAYS["vectors"])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "not an .npz file, or a damaged one" in refusal(path)


@pytest.mark.fault("vectors", "clean error", once=True)
def test_a_bit_that_is_another_one_is_seen(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=ARRAYS["vectors"])
    content = bytearray(path.read_bytes())
    content[content.index(ARRAYS["vectors"].tobytes()) + 17] ^= 1
    path.write_bytes(content)
    assert "its array a is damaged (its sum is another one)" in refusal(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_one_error_however_an_array_is_packed(packing, tmp_path):
    path, values = tmp_path / "x.npz", np.random.default_rng(0).integers(0, 9, 4_000).astype(np.uint8)
    with zipfile.ZipFile(path, "w", packing) as archive, archive.open("a.npy", "w") as entry:
        np.lib.format.write_array(entry, values)
    whole, errors = path.read_bytes(), []
    for place in range(40, len(whole) - 200, 31):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            # Some bytes, such as the size of a dictionary, mean nothing to these values.
            np.testing.assert_array_equal(npz.read(path, ["a"], "make it again")["a"], values)
        except UserError as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert all(error.endswith("; make it again") and "\n" not in error for error in errors)


@pytest.mark.fault("vectors", "clean error")
def test_an_array_that_unpacks_to_more_than_there_is_memory(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(10_000_000, np.float32))
    monkeypatch.setattr(npz.resources, "free_memory", lambda: 1_000_000)
    assert "it unpacks to 40,000,128 bytes, more than there is memory" in refusal(path)


@pytest.mark.fault("vectors", "clean error")
def test_two_entries_of_one_name(tmp_path):
    path = tmp_path / "x.npz"
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ones(3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", content.getvalue())
    assert "2 entries, some of one name" in refusal(path)
