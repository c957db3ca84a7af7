"""What the tests of the configuration share."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def graph_mode() -> None:
    """Replaces conftest's: nothing here runs MindSpore, and collecting garbage would take a minute."""
