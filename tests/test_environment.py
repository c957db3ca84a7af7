"""What importing the package sets before MindSpore is imported."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import mindghost

PACKAGE = Path(mindghost.__file__)
SOURCE = PACKAGE.read_text()
# A convolution that oneDNN 3.10 leaves to its reference code on AVX-512.
CONVOLVE = """
import mindghost
import numpy as np
import mindspore as ms
net = ms.nn.Conv2d(16, 16, 3, pad_mode="pad", padding=1)
ms.set_context(mode=ms.PYNATIVE_MODE)
x = ms.Tensor(np.ones((1, 16, 14, 14), np.float32))
ms.value_and_grad(lambda x: net(x).sum(), 0, net.trainable_params())(x)[0].asnumpy()
"""


def test_no_convolution_runs_onednns_reference_code():
    environment = os.environ | {"ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "PYTHONPATH": str(PACKAGE.parent.parent)}
    if mindghost.limits_onednn:
        # As a user starts it: the package itself has to set the limit.
        environment.pop("ONEDNN_MAX_CPU_ISA")
    done = subprocess.run([sys.executable, "-c", CONVOLVE], env=environment, capture_output=True, text=True, check=True)
    convolutions = [line for line in done.stdout.splitlines() if ",convolution," in line and "exec" in line]
    assert convolutions
    assert not [line for line in convolutions if "ref" in line.split(",convolution,")[1].split(",")[0]]


@pytest.mark.parametrize(
    ("machine", "flags", "version", "given", "expected"),
    [
        ("x86_64", "avx2 avx512f", "2.10.0", None, "AVX2"),
        ("x86_64", "avx2 avx512f", "2.10.0", "AVX512_CORE", "AVX512_CORE"),
        ("x86_64", "avx2 avx512f", "2.7.2", None, None),
        ("x86_64", "avx2", "2.10.0", None, None),
        ("aarch64", "avx512f", "2.10.0", None, None),
    ],
)
def test_onednn_is_limited_only_where_it_must_be(machine, flags, version, given, expected, monkeypatch):
    """Runs the package's first lines again, on a machine that is made up."""
    if given is None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", given)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: f"flags: {flags}")
    before = dict(os.environ)
    names: dict = {}
    exec(compile(SOURCE, mindghost.__file__, "exec"), names)
    assert os.environ.get("ONEDNN_MAX_CPU_ISA") == expected
    assert names["limits_onednn"] == (given is None and expected is not None)
    os.environ.clear()
    os.environ.update(before)
