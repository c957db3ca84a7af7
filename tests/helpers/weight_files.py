"""Weight files made by hand, whole and damaged."""

import json

import numpy as np
from mindspore.train.checkpoint_pb2 import Checkpoint

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bias": np.array([1.5, -2], np.float16),
    "step": np.array([7], np.int64),
    "scalar": np.array(3, np.int32),
    "empty": np.zeros((0,), np.float32),
}

SMALL = {"w": np.array([1.5, -2], np.float16), "step": np.array(7, np.int32)}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def entry(kind="Float32", dims=(2,), content=b"\0" * 8, name="w") -> bytes:
    message = Checkpoint()
    value = message.value.add()
    value.tag = name
    value.tensor.tensor_type = kind
    value.tensor.dims.extend(dims)
    value.tensor.tensor_content = content
    return message.SerializeToString()


def safetensors(entries, data=b"\0" * 8, length=None) -> bytes:
    """A file made by hand: name -> type, shape, begin, end."""
    header = entries
    if isinstance(entries, dict):
        fields = {n: {"dtype": k, "shape": s, "data_offsets": [b, e]} for n, (k, s, b, e) in entries.items()}
        header = json.dumps(fields).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def entries_end(content: bytes) -> list[int]:
    """Where the entries of a file end: its CRC has 17 bytes, and each entry is a message in a message."""
    ends, position = [], 0
    while position < len(content) - 17:
        assert content[position] == 0x0A
        size = shift = 0
        while True:
            position += 1
            size |= (content[position] & 0x7F) << shift
            shift += 7
            if content[position] < 0x80:
                break
        position += 1 + size
        ends.append(position)
    return ends


def damaged(content: bytes) -> list[bytes]:
    """Every cut and every bit flip of a file, those in its CRC and mark too."""
    cuts = [content[:length] for length in range(len(content))]
    flips = [
        content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        for at in range(len(content))
        for bit in range(8)
    ]
    return cuts + flips
