"""Compiled graphs, kept in the user's cache: what one start has compiled, the next ones take from there.

MindSpore can save a compiled graph and load it again, but it looks graphs up by their order in the process, and notices
neither another configuration nor a damaged file. Here each graph has an entry of its own under a digest of all that it
is made of, and what MindSpore gets to see is a folder of this process alone.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.ops import Primitive

from .config import FREE_KEYS, Config
from .errors import RunError, UserError
from .files import scratch
from .files.cache import cache_dir
from .files.shelf import Shelf, is_wanted, sources
from .parallel.ranks import Ranks
from .process.libc import give_back_memory

try:
    from mindspore.graph import api as compiler
except ImportError:  # MindSpore 2.7
    from mindspore.common import api as compiler

log = logging.getLogger("mindghost")

# Graphs take some 3 MB each. Older versions of this program leave folders behind when they are killed.
_SHELF = Shelf("graphs", most=50, left=r"\.process\.[a-z0-9_]{8}|\.new\.[a-z0-9_]{8}")
# MindSpore's variables of where ranks find each other, which are others in every run.
_MEETING = ("MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_ID", "MS_WORKER_IP", "MS_NODE_TIMEOUT", "MS_TOPO_TIMEOUT")
_SCALARS = (bool, int, float, str)
_ROOM = 64 << 20  # bytes that MindSpore may need for a graph
# Kinds of fields in protobuf's format, and bytes of those of fixed size.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_until_the_end = ExitStack()
atexit.register(_until_the_end.close)


class GraphCache:
    """Compiles cells of one process, with the help of what others have compiled.

    A cell is compiled as ever, when it is called, in PyNative mode, on Ascend and GPU, with `compile_cache: False`,
    and where the user's environment has MindSpore's own switch, MS_COMPILER_CACHE_ENABLE.

    Args:
        config: of the command.
        device: that it runs on.
        ranks: of which this process is one.
    """

    # MindSpore takes one folder for the life of a process, and numbers the graphs in it.
    _folder: Path | None = None
    _compiled = 0

    def __init__(self, config: Config, device: str, ranks: Ranks) -> None:
        self.graph_mode = config.mode == 0
        self.enabled = is_wanted(config.compile_cache) and device == "CPU"
        self.ranks = ranks
        self._keeps = True
        self.keys = {key: value for key, value in config.model_dump().items() if key not in FREE_KEYS}
        # With the cells themselves, so that no later one has the same id.
        self._known: dict[tuple[Any, ...], nn.Cell] = {}

    def compile(self, cell: nn.Cell, *inputs: Tensor, what: str = "") -> None:
        """Compile a cell for inputs of these shapes, unless that was done; what it computes is the same without this.

        Where it is not in the cache, the log says that `what` is compiled, if that is given. A cache that cannot be
        read or written is left alone.
        """
        shapes = tuple((tuple(each.shape), str(each.dtype)) for each in inputs)
        known = (id(cell), cell.training, shapes)
        if not self.graph_mode or known in self._known:
            return
        self._known[known] = cell
        if self.enabled:
            try:
                self._compile(_digest(cell, shapes, self.keys, self.ranks), cell, inputs, what)
            except OSError as error:
                self.enabled = False
                log.info(f"compiled graphs are not kept: {error.filename or cache_dir()}: {error.strerror or error}")
        elif what:
            log.info(f"compiling {what}")

    def forget(self, cell: nn.Cell) -> None:
        """Let go of a cell, so that its memory can be freed."""
        self._known = {known: each for known, each in self._known.items() if each is not cell}

    def _compile(self, name: str, cell: nn.Cell, inputs: tuple[Tensor, ...], what: str) -> None:
        shelf = _SHELF.folder
        shelf.mkdir(parents=True, exist_ok=True)
        if GraphCache._folder is None:
            GraphCache._folder = _folder_of_process(shelf)
        rank = GraphCache._folder / f"rank_{self.ranks.rank}"
        role = os.environ.get("MS_ROLE", "")  # of a process among several
        graph = rank / "graph_cache" / f"{role}compile_cache_{GraphCache._compiled}.mindir"
        found, damaged = _SHELF.read(name)
        start = f"{shelf / name}: damaged; " if damaged else ""
        try:
            graph.parent.mkdir(parents=True, exist_ok=True)
            if found:
                graph.write_bytes(found)
            elif what:
                log.info(f"{start}compiling {what}; later starts take it from {shelf}")
            elif damaged:
                log.info(f"{start}it is compiled again")
            with _mindspores_cache(GraphCache._folder):
                cell.compile(*inputs)
            GraphCache._compiled += 1
            made = graph.read_bytes()
        finally:
            shutil.rmtree(rank, ignore_errors=True)
        # Compiling leaves hundreds of MB behind, which a step's own memory would come on top of.
        give_back_memory()
        if made != found and self._keeps:
            self._keep(name, made)

    def _keep(self, name: str, graph: bytes) -> None:
        """Put a graph into its entry. Says once that nothing is kept."""
        try:
            if not _is_whole(graph):
                raise RunError(f"{_SHELF.folder / name}: MindSpore wrote half of a graph, as on a full disk")
            _SHELF.keep(name, graph)
        except (OSError, RunError) as error:
            self._keeps = False
            log.info(f"compiled graphs are not kept: {error}")


def _folder_of_process(shelf: Path) -> Path:
    """A new folder for MindSpore's own files, which goes when this process ends: on the shelf, else in $TMPDIR.

    Raises OSError where neither takes a graph.
    """
    for near in (shelf, None):
        with suppress(OSError, RunError, UserError):
            place = near or scratch.temporary()
            # On a full disk MindSpore prints errors; it takes no name but in UTF-8.
            if shutil.disk_usage(place).free >= _ROOM and scratch.is_utf_8(place):
                return _until_the_end.enter_context(scratch.folder("graphs", near))
    raise OSError(errno.ENOSPC, "neither it nor the folder for temporary files takes a graph", str(shelf))


@contextmanager
def _mindspores_cache(folder: Path) -> Iterator[None]:
    """Inside of `with`, MindSpore loads graphs that it finds in a folder, and saves there those that it compiles."""
    # It would parse the script that Python runs, and all that this imports, and fail where imports are relative.
    script, compiler.entry_script_path = compiler.entry_script_path, None
    ms.set_context(enable_compile_cache=True, compile_cache_path=str(folder))
    try:
        yield
    finally:
        ms.set_context(enable_compile_cache=False)
        compiler.entry_script_path = script


def _is_whole(graph: bytes) -> bool:
    """Whether a protobuf message ends where its last field does."""
    at = 0
    while at < len(graph):
        tag, at = _varint(graph, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(graph, at)
        elif kind == _BYTES:
            size, at = _varint(graph, at)
            at += size
        else:
            at += _FIXED.get(kind, len(graph) + 1)
    return at == len(graph) > 0


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends; behind the end where it has none."""
    value = shift = 0
    while at < len(content):
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 0x80:
            return value, at
    return value, len(content) + 1


def _digest(cell: nn.Cell, shapes: tuple[Any, ...], keys: dict[str, object], ranks: Ranks) -> str:
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
    """What runs: versions (optimizers are mindcv's), machine and our sources."""
    versions = (ms.__version__, version("mindcv"), platform.python_version())
    return (*versions, platform.machine(), sources())


def _described(name: str, cell: nn.Cell) -> tuple[Any, ...]:
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
