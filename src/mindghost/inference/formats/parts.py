"""Parts of protobuf messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def messages_of(message: Any, kind: type) -> Iterator[Any]:
    """All parts of a protobuf message that are of some kind, wherever they are."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if hasattr(value, "__len__") else (value,):
                yield from messages_of(part, kind)
