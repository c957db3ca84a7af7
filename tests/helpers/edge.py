"""Runtimes for devices, and the programs that convert for them: what of them is here."""

import sys

import pytest

from mindghost.deploy import tools
from mindghost.files.cache import cache_dir

LIBRARIES = {"openvino": "openvino", "litert": "ai_edge_litert", "ncnn": "ncnn"}
CONVERTERS = {"litert": tools.ONNX2TF, "ncnn": tools.PNNX}


def need(kind: str) -> None:
    """Skip where a runtime or its converter is not there; and beside other tests, in .venv.

    A worker that had run them died later in a test of a native operator's error; `.ci/run` runs them by themselves.
    """
    if "peers" not in sys.prefix:
        pytest.skip("runs in .venv-peers")
    pytest.importorskip(LIBRARIES[kind])
    tool = CONVERTERS.get(kind)
    if tool and not (cache_dir() / "tools" / tool.folder / tool.program).exists():
        pytest.skip(f"{tool} is not installed")
