"""The tables of a LiteRT file as objects, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# As the format asks of the contents of its buffers (`force_align`): some processors read numbers at such places alone.
_ALIGNMENT = 16


def read(graph: bytes) -> Any:
    """The tables of a file, as objects."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(graph, 0))


def content(buffer: Any, graph: bytes) -> NDArray[np.uint8] | None:
    """What a buffer holds, uint8; None where a tensor is computed."""
    if buffer.offset > 1:
        return np.frombuffer(graph, np.uint8, buffer.size, buffer.offset)
    return None if buffer.data is None or len(buffer.data) == 0 else np.asarray(buffer.data, np.uint8)


def take_in(model: Any, graph: bytes) -> None:
    """Put what lies behind the tables of a file into them, where microcontrollers find it."""
    for buffer in model.buffers:
        buffer.data = content(buffer, graph)
        buffer.offset = buffer.size = 0


def written(model: Any, size: int) -> bytes:
    """The file of some tables, whose contents are all among them; `size` is about what it takes, in bytes."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        """The library's own knows no alignment of vectors."""

        def CreateNumpyVector(self, values: NDArray[Any]) -> int:
            if values.dtype != np.uint8:
                return super().CreateNumpyVector(values)
            self.StartVector(1, values.size, _ALIGNMENT)
            self.head -= values.size
            self.Bytes[self.head : self.head + values.size] = values.tobytes()
            self.vectorNumElems = values.size
            return self.EndVector()

    builder = Builder(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def names(enumeration: type) -> dict[int, str]:
    """Numbers of the format's, and what they are called."""
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


def kind(code: Any) -> int:
    """The number of an operator of an entry of `operatorCodes`: older programs wrote it elsewhere."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)
