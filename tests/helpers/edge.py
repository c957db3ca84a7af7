"""Runtimes for devices, and the programs that convert for them: what of them is here."""

import sys

import pytest

from mindghost.deploy import tools
from mindghost.files.cache import cache_dir

LIBRARIES = {"openvino": "openvino", "litert": "ai_edge_litert", "ncnn": "ncnn"}
CONVERTERS = {"litert": tools.ONNX2TF, "ncnn": tools.PNNX}


def need(kind: str) -> None:
    """Skip where a runtime or its converter is not there; and beside other tests, in .venv.

    A worker that had run them once died later, in another test, for a reason that is not known: `.ci/run` runs them
    apart.
    """
    if "peers" not in sys.prefix:
        pytest.skip("runs in .venv-peers")
    pytest.importorskip(LIBRARIES[kind])
    tool = CONVERTERS.get(kind)
    if tool and not (cache_dir() / "tools" / tool.folder / tool.program).exists():
        pytest.skip(f"{tool} is not installed")
