"""scripts/launch_ascend.sh by real bash: the command that it makes, its errors, and that Open MPI takes its options."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

SCRIPT = ROOT / "scripts" / "launch_ascend.sh"
BIN = Path(sys.executable).parent
RANKS = ["--map-by", "numa", "--rank-by", "slot", "--bind-to", "numa"]
AS_ROOT = ["--allow-run-as-root"] if os.geteuid() == 0 else []
TRAINING = [str(BIN / "python"), str(ROOT / "train.py"), "--distribute", "True"]


def launch(*arguments: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), **variables}
    command = [shutil.which("bash"), str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)


def command_of(*arguments: str, **variables) -> list[str]:
    result = launch(*arguments, DRY_RUN="1", **variables)
    assert (result.returncode, result.stderr) == (0, "")
    # bash writes some names in a way of its own, and reads them back.
    words = subprocess.run(
        [shutil.which("bash"), "-c", f"printf '%s\\0' {result.stdout}"], capture_output=True, check=True
    )
    return os.fsdecode(words.stdout).split("\0")[:-1]


def test_one_host(tmp_path):
    """From another folder, with arguments that a shell would take apart."""
    arguments = ["-c", "a b.yaml", "--scale", "0.08", "1.0", "--data_dir", "$HOME/*'\""]
    command = command_of(*arguments, folder=tmp_path, DEVICES="8")
    assert command == [str(BIN / "mpirun"), "-n", "8", *RANKS, *AS_ROOT, *TRAINING, *arguments]


def test_two_hosts(tmp_path):
    """Hosts with and without slots, a comment, an empty line, no line break at the end."""
    (tmp_path / "my hosts").write_text("# ours\nfirst slots=192\n\n  10.0.0.2")
    passed = {"ASCEND_HOME_PATH": "/usr/local/a b", "HCCL_CONNECT_TIMEOUT": "600", "MS_X": "1"}
    command = command_of(
        "--lr", "0.1", folder=tmp_path, HOSTFILE="my hosts", DEVICES="4", HCCL_IF_IP="10.0.0.1", OTHER="x", **passed
    )
    names = [part for name in sorted([*passed, "PATH"]) for part in ("-x", name)]
    options = ["-n", "8", *RANKS, *AS_ROOT, "--host", "first:4,10.0.0.2:4", *names]
    assert command == [str(BIN / "mpirun"), *options, *TRAINING, "--lr", "0.1"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RANK_TABLE_FILE": "/x.json"}, "RANK_TABLE_FILE is set"),
        ({"PATH": "/nowhere"}, "no mpirun found"),
        ({"DEVICES": ""}, "no NPU found"),
        ({"DEVICES": "08"}, "DEVICES: expected the number of NPUs of a host, got '08'"),
        ({"DEVICES": "0,1"}, "DEVICES: expected the number of NPUs of a host, got '0,1'"),
        ({"HOSTFILE": "/nowhere"}, "HOSTFILE: /nowhere cannot be read"),
        ({"HOSTFILE": "/dev/null"}, "HOSTFILE: /dev/null names no host"),
    ],
)
def test_errors_are_one_line(variables, expected):
    if variables.get("DEVICES") == "" and list(Path("/dev").glob("davinci[0-9]*")):
        pytest.skip("this host has NPUs")
    result = launch(**{"DEVICES": "8", **variables})
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("launch_ascend.sh: error: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_open_mpi_takes_the_command():
    """One rank, since a host may have a single core; and the exit status is that of train.py."""
    source = {"DEVICES": "1", "PYTHONPATH": str(ROOT / "src")}
    result = launch("--data_dir", "a b", "--print_config", **source)
    assert (result.returncode, result.stderr) == (0, "")
    assert 'data_dir: "a b"' in result.stdout
    assert "distribute: True" in result.stdout
    result = launch("--data_dirr", "a b", **source)
    assert result.returncode == 2
    assert "train.py: error: '--data_dirr': unknown flag" in result.stderr
