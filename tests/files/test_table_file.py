"""Tables in three formats hold the same; a file of pieces is whole."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mindghost.errors import UserError
from mindghost.files import intact, table_file
from mindghost.files.table_file import Column

NAMES = ("=cat", 'a,"b"\n', "c\udcff")
COLUMNS = (
    Column("label", "i4"),
    Column("class", "i4", NAMES),
    Column("loss", "f8"),
    Column("share", "f4", parts=("x", "=y")),
)


def rows() -> np.ndarray:
    found = np.empty(3, table_file.dtype_of(COLUMNS))
    found["label"] = found["class"] = [2, 0, 1]
    found["loss"] = [1 / 3, np.nan, 1e-300]
    found["share"] = [[0.1, 1e-8], [1, 0], [np.inf, 1 / 3]]
    return found


def content(ending: str) -> bytes:
    """In two blocks."""
    found = rows()
    blocks = [(["-a", "b"], found[:2]), (["c\udcff.png"], found[2:])]
    return b"".join(table_file.encode(Path(f"t{ending}"), "path", COLUMNS, blocks))


def test_csv():
    table = list(csv.reader(io.StringIO(content(".csv").decode())))
    assert table == [
        ["path", "label", "class", "loss", "share x", "share =y"],
        ["'-a", "2", "c\\xff", "0.3333333333333333", "0.1", "1e-08"],
        ["b", "0", "'=cat", "", "1.0", "0.0"],
        ["c\\xff.png", "1", 'a,"b"\\n', "1e-300", "", "0.33333334"],
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".JSON"])
def test_json_lines(ending):
    first, second, third = map(json.loads, content(ending).decode().splitlines())
    assert first == {"path": "-a", "label": 2, "class": "c\udcff", "loss": 1 / 3, "share": [0.1, 1e-8]}
    assert second == {"path": "b", "label": 0, "class": "=cat", "loss": None, "share": [1.0, 0.0]}
    assert third["share"][0] is None
    assert np.float32(third["share"][1]) == np.float32(1 / 3)
    assert third["class"] == NAMES[1]


def test_parquet():
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content(".parquet")))
    assert [str(kind) for kind in table.schema.types] == [
        *("string", "int32", "string", "double"),
        "list<element: float>",
    ]
    found = rows()
    assert table["path"].to_pylist() == ["-a", "b", "c\\xff.png"]
    assert table["class"].to_pylist() == ["c\\xff", "=cat", 'a,"b"\n']
    np.testing.assert_array_equal(table["loss"].to_numpy(), found["loss"])
    np.testing.assert_array_equal(np.array(table["share"].to_pylist(), np.float32), found["share"])
    assert content(".parquet") == content(".parquet")


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_table_without_rows(ending):
    said = b"".join(table_file.encode(Path(f"t{ending}"), "path", COLUMNS, [])).decode()
    assert said == ("path,label,class,loss,share x,share =y\n" if ending == ".csv" else "")


@pytest.mark.fault("written", "clean error")
@pytest.mark.parametrize("name", ["t", "t.xlsx", "csv", "t.csv.gz"])
def test_other_endings_are_refused(name):
    with pytest.raises(UserError, match=f"^out: {name}: expected a name that ends in .csv, .jsonl, .json or .parquet$"):
        table_file.check_ending(name, "out")


@pytest.mark.fault("environments", "clean error")
def test_without_pyarrow_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"^out: t.parquet: pyarrow writes .*; pip install pyarrow, or name a .csv"):
        table_file.check_ending("t.parquet", "out")


def test_a_file_is_made_of_pieces_or_not_at_all(tmp_path):
    path = tmp_path / "t"
    intact.write_atomically(path, iter([b"a", b"bc", b""]))
    assert path.read_bytes() == b"abc"

    def broken():
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        intact.write_atomically(path, broken())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"t": b"abc"}
