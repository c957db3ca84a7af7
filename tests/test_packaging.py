"""What is installed is what is declared."""

import re
import sys

import pytest

from tests.helpers.places import ROOT


def requirement_lines(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_requirements_repeat_the_packages_of_pyproject():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"]
    # torch is several GB, and only files of PyTorch need it.
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "torch" for line in lines]
    listed = requirement_lines((ROOT / "requirements.txt").read_text())
    assert listed[: len(declared) + len(extras)] == declared + extras
    assert "-e ." in listed
    for line in listed:
        assert line == "-e ." or re.search(r"==|<", line), f"{line}: no upper bound"


def test_version_is_stated_once():
    import mindghost

    assert f'version = "{mindghost.__version__}"' in (ROOT / "pyproject.toml").read_text()
