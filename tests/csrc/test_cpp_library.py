"""Libraries that are compiled at first use: what the cache holds is compared before it is loaded."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindghost.csrc import cpp_library
from mindghost.csrc.cpp_library import CppLibrary, NativeError
from mindghost.files import intact
from mindghost.process.signals import RUN_SIGNALS
from tests.helpers.launchers import processes_with, wait_until_gone

SOURCE = Path(cpp_library.__file__).parent / "ops"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "native"


@pytest.fixture
def small(tmp_path) -> CppLibrary:
    """A library with one function, which returns 7."""
    (tmp_path / "source").mkdir()
    source = tmp_path / "source" / "seven.cpp"
    source.write_text('extern "C" int seven() { return 7; }')
    return CppLibrary("libseven", source.parent, {"seven": (source, ())}, load=lambda path: ctypes.CDLL(str(path)))


def seven(path: Path) -> int:
    """In a process of its own: a file that is damaged would end it."""
    program = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).seven())"
    return subprocess.run([sys.executable, "-c", program, str(path)]).returncode


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.fault("caches", "ok")
@pytest.mark.parametrize("harm", [half, flip, lambda path: path.write_bytes(b""), Path.unlink])
def test_a_damaged_library_is_built_again_and_said(harm, small, cache, caplog):
    path = small.build()
    harm(path)
    assert small.build() == path
    assert seven(path) == 7
    assert caplog.messages == [f"{path}: damaged; it is built again"]
    assert sorted(file.name for file in cache.iterdir()) == [f".{path.name}.lock", path.name, f"{path.name}.sha256"]


@pytest.mark.fault("caches", "ok")
def test_a_library_without_its_digest_is_not_loaded(small, cache, caplog):
    path = small.build()
    intact.sidecar(path).unlink()
    half(path)
    assert seven(small.build()) == 7
    assert caplog.messages == []


@pytest.mark.fault("caches", "ok")
def test_a_library_is_taken_from_a_cache_that_cannot_be_written(small, cache, read_only, monkeypatch):
    path = small.build()
    (cache / f".{path.name}.lock").unlink()
    read_only(cache.parent)
    monkeypatch.setattr(CppLibrary, "_build", None)
    assert small.build() == path


@pytest.mark.fault("caches", "clean error")
def test_a_cache_that_takes_no_library_is_one_line(small, cache, read_only):
    cache.mkdir(parents=True)
    read_only(cache)
    with pytest.raises(NativeError, match=r"libseven-.*\.so: Read-only file system") as caught:
        small.build()
    assert "\n" not in str(caught.value)


@pytest.mark.fault("caches", "clean error")
@pytest.mark.parametrize("kind", ["link", "folder", "FIFO"])
def test_a_lock_that_is_none_is_one_line_and_stays(kind, small, cache, tmp_path):
    path = small.build()
    flip(path)
    lock = cache / f".{path.name}.lock"
    lock.unlink()
    (tmp_path / "mine").write_text("precious")
    {"link": lambda: lock.symlink_to(tmp_path / "mine"), "folder": lock.mkdir, "FIFO": lambda: os.mkfifo(lock)}[kind]()
    with pytest.raises(NativeError) as caught:
        small.build()
    assert "\n" not in str(caught.value)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.fault("caches", "ok")
def test_a_run_builds_with_its_signals_blocked(small, cache):
    """Compilers inherit that: nothing of a build may depend on a signal that can be blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
    try:
        path = small.build()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert seven(path) == 7
    assert wait_until_gone(str(cache.parent), 10) == []


BUILD = """
import signal, sys
from pathlib import Path
from mindghost.csrc.cpp_library import CppLibrary
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv[2:]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
source = Path(sys.argv[1])
macros = ("-DGHOSTNET_WIDTH=4", "-DGHOSTNET_PIXELS=1", "-DGHOSTNET_KERNELS=kernels", '-DGHOSTNET_NAME="x"')
CppLibrary("libslow", source.parent, {"kernels": (source, macros)}, load=print).build()
"""


@pytest.mark.fault("caches", "ok")
@pytest.mark.parametrize(
    ("number", "blocked"), [(signal.SIGKILL, ()), (signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGKILL, ("run",))]
)
def test_a_build_that_is_stopped_leaves_nothing(number, blocked, cache):
    """Neither a compiler, which is several processes, nor its files."""
    command = [sys.executable, "-c", BUILD, str(SOURCE / "kernels.cpp"), *blocked]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        # Itself, a shell and its watcher, the compiler's driver and the compiler.
        while len(processes_with(str(cache.parent))) < 5 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
    assert process.returncode in (-number, 128 + number)
    assert wait_until_gone(str(cache.parent), 10) == []
    assert [file.suffix for file in cache.iterdir()] == [".lock"]
