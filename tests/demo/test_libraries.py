"""gradio, missing or of another version."""

import sys
from types import SimpleNamespace

import pytest

from mindghost.demo import libraries
from mindghost.errors import UserError
from tests.helpers.places import ROOT


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"gradio makes the page \(.*\); pip install 'mindghost\[demo\]'"):
        libraries.check()


@pytest.mark.parametrize("version", ["5.49.1", "6.21.9", "7.0.0", "7.0.0rc1", "10.1"])
def test_another_version_is_one_line(monkeypatch, version):
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__=version))
    with pytest.raises(
        UserError, match=f"gradio {version} is here, and the page is made for 6.22 and newer, below 7; "
    ):
        libraries.check()


def test_the_versions_are_those_that_are_installed(monkeypatch):
    assert '\ndemo = ["gradio>=6.22,<7"]\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "'gradio>=6.22,<7'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for version in ("6.22.0", "6.31.1", "6.22b1"):
        monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__=version))
        libraries.check()
