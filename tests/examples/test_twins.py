"""examples/evidence/twins.py: variants of a plan. Trainings are not run here."""

import json
import shlex
import sys

import pytest

import twins
from tests.helpers.commands import command
from tests.helpers.configs import cli
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT

PLANS = sorted((ROOT / "examples" / "evidence" / "plans").glob("*.json"))


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "my photos", ("ant", "bee"), train_images=1, val_images=1)


def printed(words, capsys, monkeypatch) -> dict[str, list[str]]:
    monkeypatch.setattr(sys, "argv", [twins.PROG, *map(str, words), "--print_commands"])
    twins.main()
    lines = capsys.readouterr().out.splitlines()
    return {name[2:]: shlex.split(line) for name, line in zip(lines[::2], lines[1::2], strict=True)}


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_our_plans_are_made_of_keys(plan, data, tmp_path, capsys, monkeypatch):
    found = printed([plan, "--data_dir", data, "--output", tmp_path / "out", "--seeds", 7], capsys, monkeypatch)
    for name, words in found.items():
        config = cli(*words[4:])
        assert (config.seed, config.data_dir, config.init) == (7, str(data), "pytorch"), name
        assert config.warnings() == []


def test_later_flags_win_and_names_have_values(data, tmp_path, capsys, monkeypatch):
    plan = tmp_path / "plan.json"
    flags = ["--data_dir {data} --lr 0.1", "--model ghostnet_050 --scale 0.35 1.0"]
    variants = {"big one": "--model ghostnet_100", "taught": "--teacher_ckpt_path {run of big one} --lr {rate}"}
    plan.write_text(json.dumps({"flags": flags, "variants": variants}))
    words = [plan, "--data_dir", data, "--output", tmp_path / "out", "--seeds", 2, 3, "--with", "rate=0.5"]
    found = printed(words, capsys, monkeypatch)
    assert list(found) == ["big one, seed 2", "taught, seed 2", "big one, seed 3", "taught, seed 3"]
    big = found["big one, seed 3"]
    assert big[4:] == [
        *("--data_dir", str(data), "--lr", "0.1", "--scale", "0.35", "1.0", "--model", "ghostnet_100"),
        *("--seed", "3", "--ckpt_save_dir", str(tmp_path / "out" / "runs" / "big-one-seed-3")),
    ]
    weights = tmp_path / "out" / "runs" / "big-one-seed-3" / "ghostnet_100_best.ckpt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    taught = printed(words, capsys, monkeypatch)["taught, seed 3"]
    assert taught[taught.index("--teacher_ckpt_path") + 1] == str(weights)
    assert taught[taught.index("--lr") + 1] == "0.5"


@pytest.mark.fault("examples", "clean error")
@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "not JSON"),
        ('{"flags": ""}', "expected an object with about, flags and variants"),
        ('{"flags": "", "variants": {}}', "variants: expected an object of names and flags"),
        ('{"flags": 1, "variants": {"a": ""}}', "flags: expected flags as a text or a list of texts"),
        ('{"flags": "", "variants": {"a": "--lr {rate}"}}', "{rate}: has no value; give --with rate=VALUE"),
    ],
)
def test_another_plan_is_refused_in_one_line(content, part, data, tmp_path, monkeypatch, capsys):
    plan = tmp_path / "plan.json"
    plan.write_text(content)
    words = (plan, "--data_dir", data, "--output", tmp_path / "out", "--print_commands")
    status, said = command(twins.main, twins.PROG, *words, monkeypatch=monkeypatch, capsys=capsys)
    assert (status, said.count("\n")) == (2, 1)
    assert part in said
