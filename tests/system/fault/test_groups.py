"""The groups of faults, whole: every case has to end well."""

import json
import subprocess
import sys

import pytest

from tests.helpers.launchers import environment
from tests.helpers.places import ROOT
from tests.system.fault import folders, images, saves, weights  # noqa: F401  (their groups)
from tests.system.fault.harness import GROUPS, OUTCOMES

SHARES = 2  # processes at a time


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("name", GROUPS)
def test_every_case_ends_well(name, tmp_path, record_property):
    files = [tmp_path / f"{share}.json" for share in range(SHARES)]
    command = [sys.executable, "-m", "tests.system.fault", name]
    running = [
        subprocess.Popen(
            [*command, "--share", f"{share}/{SHARES}", "--json", file],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(tmp_path),
            cwd=ROOT,
        )
        for share, file in enumerate(files)
    ]
    said = [process.communicate(timeout=600)[0] for process in running]
    assert all(file.exists() for file in files), "\n".join(said)
    parts = [json.loads(file.read_text())[name] for file in files]
    row = {kind: sum(part[kind] for part in parts) for kind in ("cases", *OUTCOMES)}
    row["failures"] = [failure for part in parts for failure in part["failures"]]
    record_property("faults", {name: row})
    assert row["failures"] == []
    assert row["cases"] >= GROUPS[name].least


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> dict[str, dict]:
    """What comes of a few cases of each group, of one start."""
    folder = tmp_path_factory.mktemp("few")
    command = [sys.executable, "-m", "tests.system.fault", "--few", "--json", str(folder / "few.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(folder), cwd=ROOT, timeout=600)
    assert (folder / "few.json").exists(), done.stdout + done.stderr
    return json.loads((folder / "few.json").read_text())


@pytest.mark.parametrize("name", GROUPS)
def test_some_cases_end_well(name, few):
    """A few of each group, for every run of the tests."""
    assert few[name]["failures"] == []
    assert few[name]["cases"] >= 3
