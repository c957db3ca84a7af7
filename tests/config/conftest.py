"""What the tests of the configuration share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def graph_mode() -> None:
    """Replaces conftest's: nothing here runs MindSpore, and collecting garbage would take a minute."""
