"""examples/evidence/against_timm.py: what it runs, and what it makes of it. Trainings are not run here."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import against_timm
import runner
import timm_environment
from tests.helpers.commands import command
from tests.helpers.configs import cli
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*words):
        status, said = command(against_timm.main, against_timm.PROG, *words, monkeypatch=monkeypatch, capsys=capsys)
        return status, said

    return call


@pytest.fixture
def data(tmp_path) -> Path:
    return write_images(tmp_path / "my photos", ("ant", "bee"), train_images=1, val_images=1)


def commands(capsys, monkeypatch, *words: object) -> dict[str, list[str]]:
    """Name of each run -> its command line."""
    monkeypatch.setattr(sys, "argv", [against_timm.PROG, *map(str, words), "--print_commands"])
    against_timm.main()
    lines = capsys.readouterr().out.splitlines()
    return {name[2:]: shlex.split(line) for name, line in zip(lines[::2], lines[1::2], strict=True)}


def test_sides_take_turns_and_have_the_same_numbers(data, tmp_path, capsys, monkeypatch):
    words = ("--data_dir", data, "--output", tmp_path / "out", "--seeds", 5, 6, "--models", "ghostnet_050")
    found = commands(capsys, monkeypatch, *words, "--timm_python", "P", "--epochs", 9, "--size", 96)
    assert list(found) == [f"ghostnet_050, {side}, seed {seed}" for seed in (5, 6) for side in ("ours", "timm")]
    ours, timms = found["ghostnet_050, ours, seed 6"], found["ghostnet_050, timm, seed 6"]

    def after(line, flag):
        return line[line.index(flag) + 1]

    assert after(ours, "--data_dir") == after(timms, "--data-dir") == str(data)
    assert after(ours, "--image_resize") == after(timms, "--img-size") == "96"
    assert after(ours, "--num_classes") == after(timms, "--num-classes") == "2"
    # Ours counts the epoch of warm-up among all, timm's beside them.
    assert (after(ours, "--epoch_size"), after(timms, "--epochs"), after(timms, "--warmup-epochs")) == ("9", "8", "1")
    assert after(ours, "--seed") == after(timms, "--seed") == "6"
    assert timms[:2] == ["P", str(tmp_path / "out" / "timm_train.py")]
    assert ours[:4] == [*runner.MINDGHOST, "train"]
    folder = tmp_path / "out" / "runs" / "ghostnet_050-timm-seed-6"
    assert (after(timms, "--output"), after(timms, "--experiment")) == (str(folder.parent), folder.name)


def test_our_flags_are_keys_with_the_values_that_are_meant(data, tmp_path, capsys, monkeypatch):
    found = commands(capsys, monkeypatch, "--data_dir", data, "--output", tmp_path / "out", "--only", "100, ours")
    config = cli(*found["ghostnet_100, ours, seed 1"][4:])
    assert (config.epoch_size, config.warmup_epochs, config.decay_epochs, config.lr) == (12, 1, 11, 0.1)
    assert (config.init, config.weight_decay_filter, config.color_jitter) == ("pytorch", "norm_and_bias", None)
    assert config.warnings() == []


def test_settings_are_printed_as_a_table():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "evidence" / "against_timm.py"), "--settings"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 + len(against_timm.SETTINGS)
    assert "`--opt momentum --momentum 0.9 --use_nesterov False` | `--opt momentum --momentum 0.9`" in done.stdout


SUMMARY = """epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
0,1.58,1.42,38.5,100.0,0.05
1,1.33,1.20,50.25,100.0,0.0
"""


def test_timms_table_is_read(tmp_path):
    (tmp_path / "summary.csv").write_text(SUMMARY)
    records = against_timm.read_summary(tmp_path / "summary.csv")
    assert [(record["epoch"], record["top_1"]) for record in records] == [(1, 38.5), (2, 50.25)]
    assert records[0]["train_loss"] == 1.58


@pytest.mark.fault("examples", "clean error")
def test_another_table_is_refused_in_one_line(tmp_path):
    from mindghost.errors import UserError

    (tmp_path / "summary.csv").write_text(SUMMARY.replace("eval_top1", "top1"))
    with pytest.raises(UserError, match="not the table that timm's train.py writes") as caught:
        against_timm.read_summary(tmp_path / "summary.csv")
    assert "\n" not in str(caught.value)


def entry(variant: str, seed: int, last: float, seconds: float) -> dict:
    cost = {"wall_seconds": seconds, "cpu_seconds": seconds, "other_cpu_seconds": 0.0, "peak_memory_mb": 100.0}
    facts = {"variant": variant, "seed": seed, "last": last, "best": last, "done": True, "cost": cost}
    return {**facts, "epochs": [], "lost_sessions": 0}


def test_the_comparison_is_of_seeds_that_both_have(tmp_path):
    results = runner.Results(tmp_path / "out", against_timm.PROG)
    for variant, seed, last, seconds in (
        ("n, ours", 1, 70.0, 60),
        ("n, ours", 2, 90.0, 600),
        ("n, timm", 1, 71.0, 120),
        ("m, ours", 1, 50.0, 60),
    ):
        results.entries[f"{variant}, seed {seed}"] = entry(variant, seed, last, seconds)
    assert against_timm.comparison(results, ["n", "m"]) == "- n: ours -1.00 points in 0.50 of timm's time (1 seeds)"


# --- timm's environment and train.py

FAKE = """#!/bin/sh
exec {python} -c "$(tail -n +4 "$0")" "$@"

import sys
if sys.argv[1] == "-c":
    print('["1.2.3", "2.4.0"]')
else:
    sys.argv = sys.argv[1:]
    exec(open(sys.argv[0]).read())
"""
TRAIN = "print('usage: train.py [-h] [--sched NAME] [--drop PCT], --seed S')"


@pytest.fixture
def fake_python(tmp_path) -> Path:
    """An interpreter that says it has timm 1.2.3."""
    file = tmp_path / "python"
    file.write_text(FAKE.format(python=shlex.quote(sys.executable)))
    file.chmod(0o755)
    return file


def test_train_py_is_that_of_the_release_that_is_installed(tmp_path, fake_python):
    checkout = tmp_path / "timm"
    (checkout / "timm").mkdir(parents=True)
    (checkout / "timm" / "version.py").write_text("__version__ = '1.3.0.dev0'\n")

    def commit(text, *tags):
        (checkout / "train.py").write_text(text)
        git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com"]
        for words in (["add", "."], ["commit", "-q", "-m", "x"], *(["tag", tag] for tag in tags)):
            subprocess.run([*git, *words], cwd=checkout, check=True)

    subprocess.run(["git", "-c", "init.defaultBranch=main", "init", "-q"], cwd=checkout, check=True)
    commit("# newest\n" + TRAIN)
    line = timm_environment.prepare(fake_python, checkout, tmp_path, {"--drop"})
    assert line == "timm 1.2.3 with its train.py (of '1.3.0.dev0'), PyTorch 2.4.0"
    commit("# released\n" + TRAIN, "v1.2.3")
    commit("# later\n" + TRAIN)
    assert "(of v1.2.3)" in timm_environment.prepare(fake_python, checkout / ".git", tmp_path, {"--drop", "--seed"})
    assert (tmp_path / "timm_train.py").read_text().startswith("# released")


@pytest.mark.fault("examples", "clean error")
@pytest.mark.parametrize(
    ("train", "part"),
    [
        (TRAIN, "has no --warmup-prefix; take that of timm 1.2.3"),
        ("import a_module_that_nobody_has", "does not run with timm 1.2.3 (ModuleNotFoundError"),
        (None, "train.py: no such file"),
    ],
)
def test_a_train_py_that_does_not_fit_is_refused(tmp_path, fake_python, train, part, data, run):
    checkout = tmp_path / "timm"
    checkout.mkdir()
    if train:
        (checkout / "train.py").write_text(train)
    words = (
        "--data_dir",
        data,
        "--output",
        tmp_path / "out",
        "--timm_checkout",
        checkout,
        "--timm_python",
        fake_python,
    )
    status, said = run(*words)
    assert (status, said.count("\n")) == (2, 1)
    assert part in said or re.search("has no .*--warmup-prefix", said)


@pytest.mark.fault("examples", "clean error")
def test_what_is_missing_is_said_in_one_line(tmp_path, data, run, fake_python):
    out = ("--output", tmp_path / "out")
    assert run("--data_dir", data, *out, "--timm_python", tmp_path / "none")[1].startswith(
        f"against_timm.py: error: --timm_python: {tmp_path / 'none'}: cannot be started"
    )
    status, said = run("--data_dir", data, *out, "--timm_python", fake_python)
    assert (status, "--timm_checkout: is missing; git clone" in said) == (2, True)
    status, said = run("--data_dir", data, *out, "--timm_python", sys.executable, "--timm_checkout", data)
    assert (status, "has no timm with PyTorch" in said) == (2, True)
    (tmp_path / "empty").mkdir()
    status, said = run("--data_dir", tmp_path / "empty", *out)
    assert (status, "no train/CLASS and val/CLASS in it; photos.py makes them" in said) == (2, True)
