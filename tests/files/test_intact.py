"""Files that are written atomically, with their sha256 beside them; weight files stand for all."""

import contextlib
import os
import re
import subprocess

import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.errors import RunError, UserError
from mindghost.files import intact
from tests.helpers.weight_files import ARRAYS, SMALL, assert_equal


def test_sha256sum_reads_the_sidecar(tmp_path):
    path = tmp_path / "a.ckpt"
    for value in (1.0, 2.0):
        weights_file.write(path, {"w": np.array([value])})
        intact.copy(path, tmp_path / "b.ckpt")
    for name in ("a", "b"):
        result = subprocess.run(
            ["sha256sum", "-c", f"{name}.ckpt.sha256"], cwd=tmp_path, capture_output=True, text=True
        )
        assert result.stdout == f"{name}.ckpt: OK\n"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0123  a.ckpt\n", b"0" * 64 + b"  a.ckpt\nmore\n"])
def test_a_sidecar_that_is_none(content, tmp_path):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    intact.sidecar(path).write_bytes(content)
    with pytest.raises(UserError, match="a.ckpt.sha256: not what sha256sum writes") as caught:
        weights_file.read(path)
    assert "\n" not in str(caught.value)
    weights_file.write(path, ARRAYS)
    assert_equal(weights_file.read(path), ARRAYS)


def test_a_damaged_file_does_not_become_intact_by_being_replaced(tmp_path, monkeypatch):
    """Whatever moment the replacement ends at."""
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    bad = path.read_bytes()[:-1]
    path.write_bytes(bad)
    monkeypatch.setattr(os, "replace", _only(1))
    with pytest.raises(RunError):
        weights_file.write(path, {"w": np.zeros(3)})
    assert len(intact.sidecar(path).read_text().splitlines()) == 2
    assert path.read_bytes() == bad
    with pytest.raises(UserError, match="its sha256"):
        weights_file.read(path)


def _only(count: int):
    """os.replace that fails after some calls."""
    real, calls = os.replace, iter(range(count))

    def replace(source, target):
        if next(calls, None) is None:
            raise OSError(5, "Input/output error")
        real(source, target)

    return replace


@pytest.mark.parametrize("sidecar", ["there", "deleted", "of two lines"])
@pytest.mark.parametrize("moments", range(7))
def test_at_each_moment_the_file_and_what_is_kept_are_intact(moments, sidecar, tmp_path, monkeypatch):
    path, kept = tmp_path / "a.ckpt", tmp_path / "kept.ckpt"
    for value in (0, 1):
        weights_file.write(path, {"w": np.array([value])}, keep_as=kept)
    if sidecar == "deleted":
        intact.sidecar(path).unlink()
    if sidecar == "of two lines":
        with path.with_name("a.ckpt.sha256").open("a") as file:
            file.write("0" * 64 + "  a.ckpt\n")
    monkeypatch.setattr(os, "replace", _only(moments))
    with contextlib.suppress(RunError):
        weights_file.write(path, {"w": np.array([2])}, keep_as=kept)
    found = [int(weights_file.read(file)["w"][0]) for file in (path, kept)]
    # Sidecar, file, sidecar of the one and then of the other.
    assert found == [1 if moments < 2 else 2, 0 if moments < 5 else 1]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("moments", "expected"), [(0, []), (1, ["a.ckpt"]), (2, ["a.ckpt", "a.ckpt.sha256"])])
def test_a_first_file_is_never_behind_its_sidecar(moments, expected, tmp_path, monkeypatch):
    """A folder with a sidecar alone would look like that of a run that cannot be resumed."""
    monkeypatch.setattr(os, "replace", _only(moments))
    with contextlib.suppress(RunError):
        weights_file.write(tmp_path / "a.ckpt", SMALL)
    assert sorted(os.listdir(tmp_path)) == expected
    assert all(set(weights_file.read(tmp_path / name)) == set(SMALL) for name in expected[:1])


def test_a_sidecar_of_a_file_that_was_deleted_does_no_harm(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, ARRAYS)
    path.unlink()
    monkeypatch.setattr(os, "replace", _only(2))
    with pytest.raises(RunError):
        weights_file.write(path, SMALL)
    assert set(weights_file.read(path)) == set(SMALL)


def test_the_replaced_file_is_kept_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path, kept = tmp_path / "a.ckpt", tmp_path / "kept.ckpt"
    for value in (0, 1):
        weights_file.write(path, {"w": np.array([value])}, keep_as=kept)
    assert [int(weights_file.read(file)["w"][0]) for file in (path, kept)] == [1, 0]


def test_a_file_that_is_replaced_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    weights_file.write(path, SMALL)
    digests = intact._digests

    def then_replaced(path):
        listed = digests(path)
        monkeypatch.undo()
        weights_file.write(path, ARRAYS)
        return listed

    monkeypatch.setattr(intact, "_digests", then_replaced)
    assert_equal(weights_file.read(path), ARRAYS)


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
def test_a_full_disk_changes_nothing(full_disk):
    folder, reason = full_disk
    path = folder / "a.ckpt"
    for value in (0, 1):
        weights_file.write(path, {"w": np.array([value])}, keep_as=folder / "kept.ckpt")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    expected = re.escape(f"{path}: cannot be written ({reason}); files saved earlier are kept")
    with pytest.raises(RunError, match=expected):
        weights_file.write(path, {"w": np.ones(50_000)}, keep_as=folder / "kept.ckpt")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_file_is_deleted_with_its_sidecar(tmp_path):
    weights_file.write(tmp_path / "a.ckpt", ARRAYS)
    intact.delete(tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_a_name_of_any_length_that_the_system_takes(name, tmp_path):
    """Its temporary file has a longer one; there is no room for a sidecar's, which is said, and the file stays."""
    path = tmp_path / name
    intact.write_atomically(path, b"content")
    assert intact.read_intact(path) == b"content"
    with pytest.raises(RunError, match=r"cannot be written \(File name too long\)"):
        intact.write_with_sidecar(path, b"other")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"content")]


def test_a_folder_that_refuses_is_one_line(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        weights_file.write(tmp_path / "absent" / "a.ckpt", ARRAYS)


def test_several_files_are_replaced_with_their_sidecars_or_none(tmp_path, monkeypatch):
    one, two, other = tmp_path / "one.onnx", tmp_path / "two.mindir", tmp_path / "one.json"
    for content in (b"old", b"new"):
        intact.write_all_atomically({one: content, two: content, other: content}, (one, two))
    assert [file.read_bytes() for file in (one, two, other)] == [b"new"] * 3
    assert [intact.read_intact(file) for file in (one, two)] == [b"new"] * 2
    assert not intact.sidecar(other).exists()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(RunError, match="No space left"):
        intact.write_all_atomically({one: b"newest", two: b"newest", other: b"newest"}, (one, two))
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_takes_a_place_is_on_the_disk_before(tmp_path, monkeypatch):
    """Each file is synced, then all take their places, then the folder is synced: read off the calls themselves."""
    calls, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def replaced(source, target) -> None:
        calls.append(("replace", os.path.basename(source)))
        replace(source, target)

    path = tmp_path / "a.ckpt"
    weights_file.write(path, SMALL)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    weights_file.write(path, ARRAYS, keep_as=tmp_path / "kept.ckpt")
    places = [name for call, name in calls if call == "replace"]
    # Two digests, the file, its digest; the file that is kept is a link to one that was synced long ago.
    assert len(places) >= 4
    for name in places:
        if ("fsync", name) in calls:
            assert calls.index(("fsync", name)) < calls.index(("replace", name))
    unsynced = [name for name in places if ("fsync", name) not in calls]
    assert [name.split(".")[1] for name in unsynced] == ["kept"]
    assert calls[-1] == ("fsync", tmp_path.name)
    assert [call for call, _ in calls].index("replace") > max(
        number for number, (call, name) in enumerate(calls) if call == "fsync" and name != tmp_path.name
    )


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.fault("names", "ok")
@pytest.mark.parametrize("name", [b"caf\xe9.ckpt", b"two\nlines.ckpt", b"back\\slash.ckpt", b"n" * 240 + b".ckpt"])
def test_any_name_has_a_sidecar_that_sha256sum_reads(name, tmp_path):
    path = tmp_path / os.fsdecode(name)
    for value in (1.0, 2.0):
        weights_file.write(path, {"w": np.array([value])})
    assert weights_file.read(path)["w"] == [2.0]
    command = ["sha256sum", "-c", "--status", os.fsencode(path.name) + b".sha256"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.fault("overwriting", "ok")
def test_temporary_names_that_are_taken_stay_as_they_are(tmp_path):
    (tmp_path / "mine").write_text("precious")
    names = [tmp_path / f".a.ckpt.{os.getpid()}.{number}.tmp" for number in range(3)]
    names[0].symlink_to(tmp_path / "mine")
    names[1].mkdir()
    names[2].write_text("precious")
    weights_file.write(tmp_path / "a.ckpt", SMALL)
    assert set(weights_file.read(tmp_path / "a.ckpt")) == set(SMALL)
    assert [name.is_symlink() or name.is_dir() or name.read_text() == "precious" for name in names] == [True] * 3
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.fault("overwriting", "ok")
def test_what_killed_processes_left_is_deleted_and_nothing_else(tmp_path):
    for name in (".a.ckpt.1.0.tmp", ".notes.1.0.tmp", ".a.ckpt.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".a.ckpt.2.0.tmp").mkdir()
    intact.delete_leftovers(tmp_path, lambda name: name == "a.ckpt")
    assert sorted(os.listdir(tmp_path)) == [".a.ckpt.2.0.tmp", ".a.ckpt.tmp", ".notes.1.0.tmp"]


@pytest.mark.fault("caches", "ok")
def test_a_seal_tells_of_every_bit():
    sealed = intact.seal(b"some content")
    assert intact.unseal(sealed) == b"some content"
    for place in range(8 * len(sealed)):
        content = bytearray(sealed)
        content[place // 8] ^= 1 << place % 8
        assert intact.unseal(bytes(content)) is None
    assert all(intact.unseal(sealed[:size]) is None for size in range(len(sealed)))
    assert intact.unseal(sealed * 2) is None
