"""What .ci/run relies on: the skipped tests are listed, and with --no-skips they fail."""

import subprocess
import sys

from tests.helpers.places import ROOT

SKIPPED = """
import pytest

def test_runs(): pass

def test_asks(): pytest.importorskip("a_module_that_nobody_has")

@pytest.mark.skipif(True, reason="no machine for it")
def test_marked(): pass

@pytest.mark.parametrize("value", ["a b"])
def test_case(value): pytest.skip("case")
"""


def run(folder, *arguments: str) -> subprocess.CompletedProcess:
    plain = [
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(folder),
    ]
    command = [sys.executable, "-m", "pytest", *plain, *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, capture_output=True, text=True
    )


def test_skipped_tests_are_listed_and_fail_where_none_may_be_skipped(tmp_path):
    (tmp_path / "test_x.py").write_text(SKIPPED)
    file = tmp_path / "made" / "skipped"
    done = run(tmp_path, "test_x.py", "--skipped", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    names = [f"test_x.py::{name}" for name in ("test_asks", "test_marked", "test_case[a b]")]
    assert sorted(file.read_text().splitlines()) == sorted(names)
    done = run(tmp_path, "--no-skips", f"@{file}")
    assert done.returncode == 1
    assert "test_runs" not in done.stdout
    for name, reason in zip(
        names, ("could not import 'a_module_that_nobody_has'", "no machine for it", "case"), strict=True
    ):
        assert f"{name}: Skipped: {reason}" in done.stdout
