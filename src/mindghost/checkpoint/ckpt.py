"""MindSpore's checkpoint files, byte by byte."""

from __future__ import annotations

import binascii
from pathlib import Path

from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from ..errors import UserError

CRC_MARK = b"crc_num"
CRC_BYTES = 10


def entries(path: Path, content: bytes) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, type, shape and bytes of each entry of a `.ckpt` file."""
    content = without_crc(path, content)
    message = Checkpoint()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise UserError(
            f"{path}: not a MindSpore checkpoint or .safetensors file, or a damaged one; give one of the two"
        ) from error
    if not message.value:
        raise UserError(f"{path}: not a MindSpore checkpoint: it holds no parameters; give a weight file")
    pieces: dict[str, list[bytes]] = {}
    headers = {}
    for entry in message.value:
        # Parameters over 512 MB are written in pieces under one name.
        pieces.setdefault(entry.tag, []).append(entry.tensor.tensor_content)
        headers[entry.tag] = (entry.tensor.tensor_type, tuple(entry.tensor.dims))
    return [(name, *headers[name], b"".join(parts)) for name, parts in pieces.items() if headers[name][0] != "str"]


def without_crc(path: Path, content: bytes) -> bytes:
    """Strip the CRC, if the file has one (MindCV's have none), and check it."""
    mark = len(content) - CRC_BYTES - len(CRC_MARK)
    if mark < 0 or content[mark : mark + len(CRC_MARK)] != CRC_MARK:
        return content
    expected = int.from_bytes(content[-CRC_BYTES:], "big")
    if binascii.crc32(content[:mark]) != expected:
        raise UserError(f"{path}: damaged: its CRC does not match its content; use another copy of the file")
    return content[:mark]
