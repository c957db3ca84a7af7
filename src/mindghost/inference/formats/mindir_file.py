"""MindIR files, which MindSpore runs in graph mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...files import intact, scratch
from .base import ENTRY, End, Format, Graph, Network
from .parts import messages_of

if TYPE_CHECKING:
    from mindspore import nn
    from numpy.typing import NDArray

_FLOAT32 = 1


class MindIR(Format):
    """MindIR files."""

    name = "mindir"
    suffix = ".mindir"
    runtime = "MindSpore"
    has_names = False

    def read(self, path: Path) -> Graph:
        from google.protobuf.message import DecodeError
        from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

        model = ModelProto()
        try:
            model.ParseFromString(intact.read_intact(path))
        except DecodeError as error:
            raise UserError(f"{path}: not a MindIR file, or a damaged one ({error}); export it again") from error
        if any(tensor.HasField("external_data") for tensor in messages_of(model, TensorProto)):
            raise UserError(
                f"{path}: keeps weights in other files, which no digest covers; export it again as one file"
            )
        # A map, or with some versions of MindSpore and protobuf what a map is on disk: a list of keys and values.
        entries = model.user_info
        entries = {entry.key: entry.value for entry in entries} if hasattr(entries, "add") else dict(entries)
        inputs = tuple(_end(end.name, end.tensor) for end in model.graph.input)
        outputs = tuple(each for end in model.graph.output for each in _outputs(end))
        return Graph(inputs, outputs, entries.get(ENTRY))

    def network(self, path: Path, threads: int = 0) -> Network:
        """See `Format.network`: the first call of each batch size compiles it, and threads are the process's own."""
        return self._output(path, 0)

    def embedding(self, path: Path, threads: int = 0) -> Network:
        """See `network`."""
        return self._output(path, 1)

    def _output(self, path: Path, index: int) -> Network:
        import mindspore as ms
        from mindspore import Tensor

        cell = cell_of(path)

        def run(images: NDArray[Any]) -> NDArray[Any]:
            mode = ms.get_context("mode")
            ms.set_context(mode=ms.GRAPH_MODE)
            try:
                found = cell(Tensor(images))
                outputs = [each.asnumpy() for each in (found if isinstance(found, tuple) else (found,))]
            except (RuntimeError, ValueError, TypeError) as error:
                raise self.cannot_run(path, error) from error
            finally:
                ms.set_context(mode=mode)
            if index >= len(outputs):
                raise UserError(f"{path}: carries no embedding; export it again with `mindghost export --embedding`")
            return outputs[index]

        return run


MINDIR = MindIR()


def _outputs(end: Any) -> list[End]:
    """The outputs that an entry of a graph stands for: a tuple has several."""
    parts = end.attr_info.values if end.denotation == "Tuple" else ()
    return [_end(end.name, part.tensors) for part in parts] or [_end(end.name, end.tensor)]


def _end(name: str, tensors: Any) -> End:
    if len(tensors) != 1:
        return End(name, "no tensor", ())
    (tensor,) = tensors
    kind = "float32" if tensor.data_type == _FLOAT32 else f"type {tensor.data_type} of MindIR"
    return End(name, kind, tuple(size if size >= 0 else None for size in tensor.dims))


def cell_of(path: Path) -> nn.GraphCell:
    """What a MindIR file holds; raises UserError where it is damaged. It compiles to a graph of its own only."""
    import mindspore as ms
    from mindspore import nn

    intact.read_intact(path)  # the loader takes other numbers for what they are, and dies of other bytes
    try:
        with scratch.readable(path) as file:
            return nn.GraphCell(ms.load(str(file)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise MINDIR.cannot_load(path, error) from error
