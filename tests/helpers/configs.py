"""Configurations from command lines and files."""

from pathlib import Path

import pytest

from mindghost.config import Config, load
from mindghost.errors import UserError


def cli(*argv: str, **options) -> Config:
    return load(argv, prog="train.py", description="Train.", **options)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message_of(call, *args, **keys) -> str:
    """The message of the UserError that the call raises, which must be one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **keys)
    message = str(caught.value)
    assert message
    assert len(message.splitlines()) == 1
    return message
