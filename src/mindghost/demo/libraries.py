"""gradio and what it needs, imported when they are: they take seconds, and may be missing."""

from __future__ import annotations

import os
import re
from typing import Any

from ..errors import UserError

# Before gradio is imported, whatever the user's own environment says: it calls home, keeps runs, starts node.
_ALONE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
# As pyproject.toml has them.
_OLDEST, _TOO_NEW = (6, 22), (7,)


def check() -> None:
    """Raise UserError where gradio is missing, or not of a version that is known: before what takes its time."""
    os.environ.update(_ALONE)
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"gradio makes the page ({error}); pip install 'mindghost[demo]'") from error
    found = tuple(map(int, re.findall(r"\d+", gradio.__version__)[:2]))
    if not _OLDEST <= found < _TOO_NEW:
        raise UserError(
            f"gradio {gradio.__version__} is here, and the page is made for {_name(_OLDEST)} and newer, below "
            f"{_name(_TOO_NEW)}; pip install 'mindghost[demo]'"
        )


def _name(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def opened() -> tuple[Any, Any, Any]:
    """gradio, fastapi and uvicorn, of which the first needs the others."""
    os.environ.update(_ALONE)
    import fastapi
    import gradio
    import uvicorn

    return gradio, fastapi, uvicorn
