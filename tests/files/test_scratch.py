"""Temporary folders: removed by their maker, or by the next one where that was killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindghost.cli import command
from mindghost.errors import RunError, UserError
from mindghost.files import scratch


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files, as a process that has just begun finds it."""
    monkeypatch.setattr(scratch, "_tidied", set())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_lives_as_long_as_its_block(place):
    with scratch.folder("test") as made:
        (made / "sub").mkdir()
        (made / "sub" / "file").write_bytes(b"x")
        assert made.parent == place
        assert made.name.startswith("ghostnet-test-")
        assert made.stat().st_mode & 0o777 == 0o700
    assert names(place) == []


def test_one_that_is_near_is_hidden(tmp_path):
    with scratch.folder("test", near=tmp_path) as made:
        assert made.parent == tmp_path
        assert made.name.startswith(".ghostnet-test-")
    assert names(tmp_path) == []


def test_an_error_in_the_block_passes_and_the_folder_goes(place):
    with pytest.raises(ZeroDivisionError), scratch.folder("test"):
        raise ZeroDivisionError
    assert names(place) == []


@pytest.mark.fault("disks", "ok")
@pytest.mark.parametrize("near", [False, True])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(place, near):
    """Processes, as users have them: one is killed, one sleeps, and both made folders."""
    code = "\n".join(
        (
            "import sys, time; from pathlib import Path; from mindghost.files import scratch",
            f"with scratch.folder('test', {'Path(sys.argv[1])' if near else 'None'}) as made:",
            "    (made / 'file').write_text('x'); print(made, flush=True); time.sleep(60)",
        )
    )
    env = {**os.environ, "TMPDIR": str(place)}
    makers = [
        subprocess.Popen([sys.executable, "-c", code, place], env=env, text=True, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    made = [Path(maker.stdout.readline().strip()) for maker in makers]
    makers[0].send_signal(signal.SIGKILL)
    makers[0].wait()
    assert all((folder / "file").exists() for folder in made)
    with scratch.folder("other", place if near else None):
        assert [folder.exists() for folder in made] == [False, True]
    makers[1].terminate()
    makers[1].wait()
    for maker in makers:
        maker.stdout.close()


@pytest.mark.fault("disks", "ok")
def test_any_command_removes_what_killed_ones_have_left(place):
    left = place / "ghostnet-export-abcdefgh"
    left.mkdir()
    (left / scratch._LOCK).touch()
    (left / "network.onnx").write_bytes(b"x")
    assert command.run_command("p.py", lambda: None) == 0
    assert not left.exists()


@pytest.mark.fault("disks", "ok")
def test_only_folders_with_our_names_are_removed(place, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    (mine / scratch._LOCK).touch()
    (mine / "file").touch()
    (place / "ghostnet-test-abcdefgh").symlink_to(mine)
    for name in ("ghostnet-test", "ghostnet-data", "ghostnet-my-folder1", "ghostnet-benchmark-1234567", "notes"):
        (place / name).mkdir()
        (place / name / scratch._LOCK).touch()
    (place / "ghostnet-test-abcdefg1").write_bytes(b"a file")
    before = names(place)
    scratch.tidy(place)
    assert names(place) == before
    assert names(mine) == [scratch._LOCK, "file"]


def test_links_inside_a_leftover_are_not_followed(place, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    (mine / "file").touch()
    left = place / "ghostnet-test-abcdefgh"
    left.mkdir()
    (left / scratch._LOCK).touch()
    (left / "link").symlink_to(mine)
    scratch.tidy(place)
    assert names(place) == []
    assert names(mine) == ["file"]


def test_a_folder_without_its_file_may_be_in_the_making(place):
    young, old = place / "ghostnet-test-aaaaaaaa", place / "ghostnet-test-bbbbbbbb"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    scratch.tidy(place)
    assert names(place) == [young.name]


def test_a_folder_of_another_user_stays(place, monkeypatch):
    left = place / "ghostnet-test-abcdefgh"
    left.mkdir()
    (left / scratch._LOCK).touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    scratch.tidy(place)
    assert names(place) == [left.name]


def test_a_maker_whose_file_was_found_before_it_was_locked_makes_another(place, monkeypatch):
    """The moment between the file and its lock, in which another process takes the folder for a leftover."""
    real, seen = scratch.fcntl.flock, []

    def flock(lock, operation):
        if not seen:
            seen.append(names(place))
            lost = place / seen[0][0]
            monkeypatch.setattr(scratch.fcntl, "flock", real)
            scratch._remove_if_left(lost)
        real(lock, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", flock)
    with scratch.folder("test") as made:
        assert made.exists()
        assert made.name != seen[0][0]
        assert names(place) == [made.name]


def test_a_forked_process_leaves_its_parents_folder_alone():
    block = scratch.folder("test")
    made = block.__enter__()
    child = os.fork()
    if not child:
        block.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    assert made.exists()
    block.__exit__(None, None, None)
    assert not made.exists()


@pytest.mark.fault("disks", "clean error")
@pytest.mark.parametrize("library", [False, True])
def test_a_full_disk_is_one_line_that_names_the_place(full_disk, monkeypatch, library):
    small, why = full_disk
    monkeypatch.setattr("tempfile.tempdir", str(small))

    def fill(folder: Path) -> None:
        try:
            (folder / "file").write_bytes(bytes(300_000))
        except OSError as error:
            if library and why != "File too large":
                raise RuntimeError("save failed") from error
            raise

    with pytest.raises(RunError) as caught, scratch.folder("test") as made:
        fill(made)
    message = f"{small}: temporary files cannot be written ({why}); make room there, or give another folder by TMPDIR"
    assert str(caught.value) == message
    assert names(small) == []


@pytest.mark.fault("environments", "clean error")
def test_no_folder_for_temporary_files_at_all(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc/nothing"])
    with pytest.raises(UserError, match="^TMPDIR: no folder takes temporary files"), scratch.folder("test"):
        pass


@pytest.mark.fault("environments", "clean error")
def test_a_place_that_takes_no_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    message = r"file: temporary files cannot be written \(Not a directory\); make room there$"
    with pytest.raises(RunError, match=message), scratch.folder("test", near=file):
        pass


# --- Names that MindSpore takes

ODD = ("a b", "a=b", "a(b)", "dö", "a\nb", os.fsdecode(b"\xff"))


@pytest.mark.fault("names", "ok")
@pytest.mark.parametrize("name", ODD)
def test_a_tmpdir_of_any_name_gives_a_folder_of_a_plain_name(name, tmp_path, monkeypatch):
    odd = tmp_path / name
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    with scratch.folder("test") as made:
        assert re.fullmatch("[0-9A-Za-z@_./-]+", str(made))
        # Not under that name for MindSpore alone: what is no UTF-8 would be found out behind the link.
        str(made.resolve()).encode()
        (made / "file").write_bytes(b"x")
        real = made.resolve()
        assert (real.parent == odd) == scratch.is_utf_8(odd)
    assert not real.exists()
    assert not made.exists()
    assert names(odd) == []


@pytest.mark.fault("names", "ok")
def test_a_file_of_any_name_can_be_read_by_mindspore(tmp_path):
    plain, odd = tmp_path / "a b.mindir", tmp_path / os.fsdecode(b"\xff.mindir")
    for file in (plain, odd):
        file.write_bytes(b"content")
    with scratch.readable(plain) as given:
        assert given == plain
    with scratch.readable(odd) as given:
        assert given.suffix == ".mindir"
        str(given.resolve()).encode()
        assert given.read_bytes() == b"content"
    assert not given.exists()
    assert odd.exists()


@pytest.mark.fault("names", "clean error")
def test_no_place_for_a_link(tmp_path, monkeypatch):
    odd = tmp_path / "a b"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    monkeypatch.setattr(scratch, "_PLACES", ())
    refused = pytest.raises(UserError, match="a b/.*: a library takes no such name, and none of")
    with refused, scratch.folder("test"):
        pass
    assert names(odd) == []
