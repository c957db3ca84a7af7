"""Files of vectors: what is written is read again, by others too; what strangers write is checked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.errors import UserError
from mindghost.search import vector_file
from tests.helpers.vectors import ORIGIN, changed_arrays, changed_facts, unit, vectors

COLUMNS = ("vectors", "paths", "labels", "sizes", "times", "digests")


def write(path: Path, found) -> Path:
    path.write_bytes(b"".join(vector_file.encode(path, found)))
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "v.npz", vectors(6))


@pytest.mark.parametrize("ending", vector_file.ENDINGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read(ending, dtype, tmp_path):
    rng = np.random.default_rng(0)
    made = replace(
        vectors(7, classes=("ant", "é x")),
        vectors=unit(7).astype(dtype),
        paths=np.array([f"D/é {number}\n.jpg" for number in range(7)]),
        sizes=np.arange(7),
        times=np.arange(7) * 10**18,
        digests=rng.integers(256, size=(7, 16)).astype(np.uint8),
    )
    found = vector_file.read(write(tmp_path / f"v{ending}", made))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert getattr(found, name).dtype.kind == getattr(made, name).dtype.kind
    assert found.vectors.dtype == dtype
    assert (found.classes, found.origin) == (made.classes, ORIGIN)


def test_names_that_are_no_text_survive(tmp_path):
    made = replace(vectors(2), paths=np.array(["a\udcff.jpg", "b.jpg"]))
    assert vector_file.read(write(tmp_path / "v.npz", made)).paths.tolist() == ["a\udcff.jpg", "b.jpg"]
    assert vector_file.read(write(tmp_path / "v.parquet", made)).paths.tolist() == [r"a\xff.jpg", "b.jpg"]


def test_others_read_them(file, tmp_path):
    with np.load(file, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["vectors"], unit(6))
        assert (found["paths"][1], found["labels"].tolist()) == ("D/00001.jpg", [0, 1, 0, 1, 0, 1])
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "v.parquet", vectors(6)))
    assert table.column_names[:3] == ["paths", "labels", "vectors"]
    np.testing.assert_array_equal(np.array(table["vectors"].to_pylist(), np.float32), unit(6))


def test_a_strangers_file_needs_vectors_and_paths_alone(tmp_path):
    np.savez_compressed(tmp_path / "s.npz", vectors=unit(3), paths=np.array([b"a", b"\xff", b"c"]))
    found = vector_file.read(tmp_path / "s.npz")
    assert (found.paths.tolist(), found.labels.tolist(), found.classes) == (["a", "\udcff", "c"], [-1] * 3, ())
    assert found.origin is None
    np.savez(tmp_path / "n.npz", vectors=unit(3), paths=["a", "b", "c"], labels=["x", "y", "x"])
    found = vector_file.read(tmp_path / "n.npz")
    assert (found.labels.tolist(), found.classes) == ([0, 1, 0], ("x", "y"))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        vector_file.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.fault("vectors", "clean error")
@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"vectors": None}, "has no array 'vectors'"),
        ({"paths": None}, "has no array 'paths'"),
        ({"vectors": unit(6).astype(np.float64)}, "its vectors are float64 (6, 16), expected (images, dimensions)"),
        ({"vectors": unit(6)[0]}, "its vectors are float32 (16,), expected"),
        ({"vectors": np.empty((6, 0), np.float32)}, "its vectors are float32 (6, 0), expected"),
        ({"vectors": np.full((6, 16), np.nan, np.float32)}, "its vector 0 is not finite"),
        ({"vectors": 2 * unit(6)}, "its vector 0 has the length 2, expected 1"),
        ({"paths": np.array(["a"])}, "1 paths for 6 vectors"),
        ({"paths": np.arange(6)}, "its paths are int64, expected text"),
        ({"paths": np.full(6, 0xFFFFFFFF, "<u4").view("<U1")}, "its paths are no text"),
        ({"labels": np.arange(6)}, "its labels go from 0 to 5, and it has 2 class names"),
        ({"labels": np.full(6, -2)}, "its labels go from -2 to -2"),
        ({"labels": np.zeros(6)}, "its labels are float64, expected whole numbers"),
        ({"labels": np.zeros(5, int)}, "labels of shape (5,) for 6 vectors"),
        ({"classes": np.array(["a", "a"])}, "two of its classes have one name"),
        ({"sizes": np.zeros(5, np.int64)}, "its sizes are not one for each of 6 vectors"),
        ({"digests": np.zeros((6, 32), np.uint8)}, "its digests are not one for each of 6 vectors"),
        ({"facts": np.frombuffer(b"{", np.uint8)}, "its facts: not JSON"),
        ({"facts": np.frombuffer(b"[]", np.uint8)}, "its facts are no JSON object"),
        ({"facts": np.frombuffer(b'{"format": 2}', np.uint8)}, "format 2 of such files, 1 is known"),
        ({"facts": np.zeros(3)}, "its facts are no text"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, expected, file, tmp_path):
    assert expected in refusal(changed_arrays(file, tmp_path / "bad.npz", **arrays))


@pytest.mark.fault("vectors", "clean error")
def test_a_network_that_is_none(file, tmp_path):
    assert "does not say which network" in refusal(changed_facts(file, tmp_path / "bad.npz", network=3))


@pytest.mark.fault("vectors", "clean error")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PAR1", bytes(1000)])
@pytest.mark.parametrize("ending", vector_file.ENDINGS)
def test_files_of_something_else(content, ending, tmp_path):
    path = tmp_path / f"bad{ending}"
    path.write_bytes(content)
    assert "not a Parquet file of vectors" in refusal(path) or "not an .npz file, or a damaged one" in refusal(path)


@pytest.mark.fault("vectors", "clean error")
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([[0.6, 0.8], [1.0]], "lists of several lengths"),
        ([[1.0, None], [1.0, 0.0]], "value missing"),
        ([None, [1.0]], "missing"),
    ],
)
def test_parquet_files_of_something_else(column, expected, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    found = pa.table({"paths": ["a", "b"], "vectors": pa.array(column, pa.list_(pa.float32()))})
    pq.write_table(found, tmp_path / "bad.parquet")
    assert expected in refusal(tmp_path / "bad.parquet")


def test_names_say_the_kind(tmp_path):
    for name in ("v.npy", "v", "v.csv"):
        with pytest.raises(UserError, match=r"-o: .*: expected a name that ends in .npz or .parquet"):
            vector_file.check_ending(tmp_path / name, "-o")
