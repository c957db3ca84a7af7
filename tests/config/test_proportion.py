"""A changed `epoch_size` takes warm-up, decay and milestones with it, unless they are given beside it."""

from __future__ import annotations

import pytest

from mindghost.config import Config, load, recipes
from tests.helpers.configs import cli, message_of, write

DEFAULTS = (3, 100, (30, 60, 90))
MILESTONES = "scheduler: multi_step_decay\nmulti_step_decay_milestones: [82, 123]\nwarmup_epochs: 0\nepoch_size: 164\n"


def schedule(recipe: str, line: str, tmp_path) -> Config:
    named = ["-c", str(write(tmp_path, recipe))] if recipe else []
    return cli(*named, *line.split())


@pytest.mark.parametrize(
    ("recipe", "line", "found"),
    [
        # Nothing but defaults: 90 epochs, of which 3 warm up; their decay of 100 is cut off at the end of the run.
        ("", "", DEFAULTS),
        ("", "--epoch_size 90", DEFAULTS),
        ("", "--epoch_size 2", (0, 2, DEFAULTS[2])),
        ("", "--epoch_size 1", (0, 1, DEFAULTS[2])),
        ("", "--epoch_size 30", (1, 29, DEFAULTS[2])),
        ("", "--epoch_size 120", (4, 116, DEFAULTS[2])),
        ("", "--epoch_size 30 --warmup_epochs 5", (5, 25, DEFAULTS[2])),
        ("", "--epoch_size 30 --decay_epochs 7", (1, 7, DEFAULTS[2])),
        ("", "--epoch_size 30 --warmup_epochs 2 --decay_epochs 28", (2, 28, DEFAULTS[2])),
        ("", "--epoch_size 30 --num_cycles 3", (1, 9, DEFAULTS[2])),
        ("epoch_size: 30\n", "", (1, 29, DEFAULTS[2])),
        ("epoch_size: 30\ndecay_epochs: 10\n", "", (1, 10, DEFAULTS[2])),
        # The recipe's belong to the recipe's epoch_size.
        ("epoch_size: 600\nwarmup_epochs: 20\ndecay_epochs: 580\n", "--epoch_size 30", (1, 29, DEFAULTS[2])),
        ("epoch_size: 600\nwarmup_epochs: 20\ndecay_epochs: 580\n", "--epoch_size 1200", (40, 1160, DEFAULTS[2])),
        ("epoch_size: 600\nwarmup_epochs: 20\ndecay_epochs: 580\n", "--epoch_size 600", (20, 580, DEFAULTS[2])),
        ("epoch_size: 600\nwarmup_epochs: 20\ndecay_epochs: 290\n", "--epoch_size 60", (2, 29, DEFAULTS[2])),
        ("epoch_size: 10\nwarmup_epochs: 9\n", "--epoch_size 5", (4, 1, DEFAULTS[2])),
        # One that names none is written for the default.
        ("warmup_epochs: 9\ndecay_epochs: 81\n", "--epoch_size 10", (1, 9, DEFAULTS[2])),
        # Steps and milestones stay where they were in the run.
        ("scheduler: step_decay\ndecay_epochs: 30\nwarmup_epochs: 0\n", "--epoch_size 9", (0, 3, DEFAULTS[2])),
        ("scheduler: step_decay\ndecay_epochs: 2.5\nwarmup_epochs: 0\n", "--epoch_size 9", (0, 0.25, DEFAULTS[2])),
        ("scheduler: step_decay\ndecay_epochs: 1.0e-4\nwarmup_epochs: 0\n", "--epoch_size 1", (0, 1e-4, DEFAULTS[2])),
        (MILESTONES, "--epoch_size 16", (0, 100, (8, 12))),
        (MILESTONES, "--epoch_size 1", (0, 100, (1, 1))),
        (MILESTONES, "--epoch_size 16 --multi_step_decay_milestones 3 5", (0, 100, (3, 5))),
        # Others take what epochs there are.
        ("scheduler: cyclic\nwarmup_epochs: 0\n", "--epoch_size 9", (0, 100, DEFAULTS[2])),
        ("scheduler: exponential_decay\n", "--epoch_size 30", (1, 100, DEFAULTS[2])),
    ],
)
def test_what_is_not_given_is_in_proportion(recipe, line, found, tmp_path):
    config = schedule(recipe, line, tmp_path)
    assert (config.warmup_epochs, config.decay_epochs, config.multi_step_decay_milestones) == found
    assert type(config.decay_epochs) is type(found[1])


def test_one_line_says_so(tmp_path):
    recipe = "epoch_size: 600\nwarmup_epochs: 20\ndecay_epochs: 580\n"
    (line,) = schedule(recipe, "--epoch_size 30", tmp_path).notes
    numbers = "warmup_epochs 1 (20 of 600) and decay_epochs 29 (580 of 600)"
    assert line == f"epoch_size 30: {numbers}, in proportion; give them to have others"
    (line,) = schedule(recipe, "--epoch_size 30 --warmup_epochs 1", tmp_path).notes
    assert line == "epoch_size 30: decay_epochs 29 (580 of 600), in proportion; give it to have another"
    (line,) = cli("--epoch_size", "45").notes
    assert "warmup_epochs 2 (3 of 90) and decay_epochs 43 (100 of 90)" in line
    for quiet in ("", "--epoch_size 600", "--epoch_size 30 --warmup_epochs 1 --decay_epochs 29"):
        assert schedule(recipe, quiet, tmp_path).notes == ()


def test_no_default_needs_a_word_from_the_user():
    """The shortest command lines: no error, and no doubt about a decay that is cut short."""
    for epochs in (*range(1, 90), 91, 1000):
        config = cli("--epoch_size", str(epochs))
        assert config.warnings() == []
        assert config.warmup_epochs + config.decay_epochs == epochs


def test_the_printed_recipe_has_the_numbers(tmp_path, capsys):
    with pytest.raises(SystemExit):
        load(["--epoch_size", "30", "--print_config"], prog="train.py", description="")
    printed = capsys.readouterr().out
    assert printed.startswith("# epoch_size 30: warmup_epochs 1 (3 of 90)")
    again = schedule(printed, "", tmp_path)
    assert again == cli("--epoch_size", "30")
    assert again.notes == ()
    # They are plain values there, and so belong to its epoch_size.
    assert schedule(printed, "--epoch_size 60", tmp_path).warmup_epochs == 2


@pytest.mark.fault("configurations", "clean error")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--epoch_size 3 --warmup_epochs 3", "--warmup_epochs: the warm-up (warmup_epochs: 3) must be shorter"),
        ("--epoch_size 0", "--epoch_size: expected an integer >= 1, got 0"),
        ("--epoch_size 3.5", "--epoch_size: expected an integer >= 1, got 3.5"),
        ("--epoch_size 3 --num_cycles x", "--num_cycles: expected an integer >= 1, got 'x'"),
        ("--epoch_size 3 --scheduler step", "--scheduler: expected one of constant,"),
    ],
)
def test_what_is_no_schedule_is_not_stretched(line, words):
    assert message_of(cli, *line.split()).startswith(words)


def test_the_recipes_of_ours_can_be_shortened():
    for name, path in recipes.files().items():
        whole, short = cli("-c", name), cli("-c", name, "--epoch_size", "10")
        assert whole == Config.from_file(path), name
        assert short.warnings() == [], name
