"""Compiled graphs, kept in the user's cache: what one start has compiled, the next ones take from there.

MindSpore can save a compiled graph and load it again, but it looks graphs up by their order in the process, and notices
neither another configuration nor a damaged file. Here each graph has an entry of its own under a digest of all that it
is made of, and what MindSpore gets to see is a folder of this process alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.ops import Primitive

from .config import FREE_KEYS, Config
from .distributed import Ranks
from .download import cache_dir

log = logging.getLogger("ghostnet")

_GRAPH, _SOURCES, _DIGESTS = "graph.mindir", "sources.hash", "digests.json"
_MAX_ENTRIES = 50  # some 3 MB each
_STALE = 24 * 3600  # seconds after which a process's folder is left over from one that was killed
# MindSpore's variables of where ranks find each other, which are others in every run.
_MEETING = ("MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_ID", "MS_WORKER_IP", "MS_NODE_TIMEOUT", "MS_TOPO_TIMEOUT")
_SCALARS = (bool, int, float, str)


class GraphCache:
    """Compiles cells of one process, with the help of what others have compiled.

    A cell is compiled as ever, when it is called, in PyNative mode, on Ascend and GPU, with `compile_cache: False`,
    where the user's environment has MindSpore's own switch, MS_COMPILER_CACHE_ENABLE, and where Python runs no file:
    MindSpore reads that one.

    Args:
        config: of the command.
        device: that it runs on.
        ranks: of which this process is one.
    """

    # MindSpore takes one folder for the life of a process, numbers the graphs in it, and digests its sources once.
    _folder: Path | None = None
    _compiled = 0
    _sources = b""

    def __init__(self, config: Config, device: str, ranks: Ranks) -> None:
        self.graph_mode = config.mode == 0
        wanted = config.compile_cache and "MS_COMPILER_CACHE_ENABLE" not in os.environ
        self.enabled = wanted and device == "CPU" and Path(sys.argv[0]).is_file()
        self.ranks = ranks
        self.keys = {key: value for key, value in config.model_dump().items() if key not in FREE_KEYS}
        self._known: set[tuple] = set()

    def compile(self, what: str, cell: nn.Cell, *inputs: Tensor) -> None:
        """Compile a cell for inputs of these shapes, unless that was done; what it computes is the same without this.

        Where it is not in the cache, the log says that `what` is compiled. A cache that cannot be read or written is
        left alone.
        """
        shapes = tuple((tuple(each.shape), str(each.dtype)) for each in inputs)
        known = (id(cell), cell.training, shapes)
        if not self.graph_mode or known in self._known:
            return
        self._known.add(known)
        if self.enabled:
            try:
                self._compile(what, cell, inputs, _digest(cell, shapes, self.keys, self.ranks))
            except OSError as error:
                self.enabled = False
                log.info(f"compiled graphs are not kept: {error.filename or cache_dir()}: {error.strerror or error}")
        else:
            log.info(f"compiling {what}")

    def _compile(self, what: str, cell: nn.Cell, inputs: tuple[Tensor, ...], name: str) -> None:
        shelf = cache_dir() / "graphs"
        shelf.mkdir(parents=True, exist_ok=True)
        if GraphCache._folder is None:
            GraphCache._folder = Path(tempfile.mkdtemp(prefix=".process.", dir=shelf))
        place = GraphCache._folder / f"rank_{self.ranks.rank}" / "graph_cache"
        role = os.environ.get("MS_ROLE", "")  # of a process among several
        graph = place / f"{role}compile_cache_{GraphCache._compiled}.mindir"
        sources = place / f"{role}compile_dependency.hash"
        found = _read(shelf / name)
        try:
            place.mkdir(parents=True, exist_ok=True)
            if found:
                graph.write_bytes(found[_GRAPH])
                sources.write_bytes(found[_SOURCES])
            else:
                log.info(f"compiling {what}; later starts take it from {shelf}")
            with _mindspores_cache(GraphCache._folder):
                cell.compile(*inputs)
            GraphCache._compiled += 1
            if sources.exists():
                GraphCache._sources = sources.read_bytes()
            made = {_GRAPH: graph.read_bytes(), _SOURCES: GraphCache._sources}
        finally:
            shutil.rmtree(GraphCache._folder, ignore_errors=True)
        if made != found:
            _write(shelf / name, made)
            _tidy(shelf)


@contextmanager
def _mindspores_cache(folder: Path) -> Iterator[None]:
    """Inside of `with`, MindSpore loads graphs that it finds in a folder, and saves there those that it compiles."""
    ms.set_context(enable_compile_cache=True, compile_cache_path=str(folder))
    try:
        yield
    finally:
        ms.set_context(enable_compile_cache=False)


def _read(entry: Path) -> dict[str, bytes] | None:
    """The files of an entry; None where there is none, or where it is damaged, which deletes it."""
    try:
        digests = json.loads((entry / _DIGESTS).read_bytes())
        files = {name: (entry / name).read_bytes() for name in (_GRAPH, _SOURCES)}
        if digests == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}:
            os.utime(entry)
            return files
    except FileNotFoundError:
        return None
    except ValueError:
        pass
    shutil.rmtree(entry, ignore_errors=True)
    return None


def _write(entry: Path, files: dict[str, bytes]) -> None:
    """Make an entry, complete or not at all; of two processes that do, one wins."""
    made = Path(tempfile.mkdtemp(prefix=".new.", dir=entry.parent))
    try:
        for name, content in files.items():
            (made / name).write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        (made / _DIGESTS).write_text(json.dumps(digests))
        shutil.rmtree(entry, ignore_errors=True)
        os.rename(made, entry)
    except FileExistsError:
        pass
    except OSError as error:
        # A directory that is not empty: another process was faster.
        if not entry.is_dir():
            raise error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _tidy(shelf: Path) -> None:
    """Delete the entries that were not used for longest, and what killed processes have left."""
    entries, left = [], []
    for path in shelf.iterdir():
        (left if path.name.startswith(".") else entries).append((path.stat().st_mtime, path))
    old = [path for changed, path in left if time.time() - changed > _STALE]
    for path in [*old, *(path for _, path in sorted(entries)[:-_MAX_ENTRIES])]:
        shutil.rmtree(path, ignore_errors=True)


def _digest(cell: nn.Cell, shapes: tuple, keys: dict[str, object], ranks: Ranks) -> str:
    """Digest of all that a graph is made of.

    Our sources, versions, machine, ranks and MindSpore's settings in the environment; the configuration's keys; the
    cells with their plain attributes (dropout's seed among them) and operators; the parameters but for their values;
    the shapes and types of the inputs.
    """
    facts = [
        _program(),
        sorted(item for item in os.environ.items() if item[0].startswith("MS_") and item[0] not in _MEETING),
        sorted((name, repr(value)) for name, value in keys.items()),
        [ranks.rank, ranks.size, ms.get_context("runtime_num_threads"), ms.get_context("jit_config")],
        [_described(name, each) for name, each in cell.cells_and_names()],
        [(p.name, tuple(p.shape), str(p.dtype), p.requires_grad) for p in cell.get_parameters()],
        [cell.training, shapes],
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@cache
def _program() -> tuple[str, ...]:
    """What runs: versions, machine, the script (MindSpore wants to know its sources, too) and our sources."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(root.rglob("*.py")):
        digest.update(f"{source.relative_to(root)}\0".encode() + source.read_bytes())
    script = os.path.realpath(sys.argv[0])
    return (ms.__version__, platform.python_version(), platform.machine(), script, digest.hexdigest())


def _described(name: str, cell: nn.Cell) -> tuple:
    """A cell by name, class, plain attributes and operators."""
    # MindSpore notes the last call's arguments in a cell.
    own = {key: value for key, value in vars(cell).items() if key[0] != "_" and key != "arguments_key"}
    plain = sorted((key, value) for key, value in own.items() if _is_plain(value))
    operators = sorted(
        (key, value.name, sorted((attribute, str(setting)) for attribute, setting in value.attrs.items()))
        for key, value in own.items()
        if isinstance(value, Primitive)
    )
    return name, type(cell).__qualname__, plain, operators


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, _SCALARS)
