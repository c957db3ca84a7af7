"""The command `mindghost`: which command it runs, what it says without one, recipes by name, what a shell is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindghost import __version__
from mindghost.cli import main
from mindghost.config import Config, load, recipes
from mindghost.errors import UserError
from mindghost.process import table
from tests.helpers.launchers import environment
from tests.helpers.places import ROOT

ANSWER = 8  # the descriptor that argcomplete writes to


def run(*words: str, capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `mindghost WORDS`."""
    try:
        status = main.run(words)
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def test_help_of_all_commands_is_quick(tmp_path):
    """Neither it nor a list of recipes waits for MindSpore, or for libraries that draw and export."""
    lines = """
import sys
from mindghost.cli import main
for words in [["--help"], ["--version"], *([name, "--help"] for name in main.COMMANDS), ["recipes"]]:
    try:
        assert main.run(words) == 0
    except SystemExit as end:
        assert end.code == 0
print(sorted({"mindspore", "matplotlib", "onnx", "onnxruntime", "torch"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", lines],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
    for name in main.COMMANDS:
        assert f"usage: mindghost {name} " in done.stdout


def test_without_a_command(capsys):
    for words in ((), ("--help",), ("-h",)):
        status, said, error = run(*words, capsys=capsys)
        assert (status, error) == (0, "")
        assert all(f"\n  {name} " in said and summary in said for name, summary in main.COMMANDS.items())
        assert 'eval "$(register-python-argcomplete mindghost)"' in said
    assert run("--version", capsys=capsys) == (0, f"mindghost {__version__}\n", "")


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "mindghost: error: 'trian': unknown command; the nearest is train (`mindghost --help` lists all)"),
        (["show_ghosts"], "mindghost: error: 'show_ghosts': unknown command; the nearest is show-ghosts ("),
        ([""], "mindghost: error: '': unknown command; "),
        (["a\x1b[2J\n"], r"mindghost: error: 'a\x1b[2J\n': unknown command; "),
        (["-c", "x", "train"], "mindghost: error: '-c': unknown flag, or one of a command, which comes first: "),
        (["--vers"], "mindghost: error: '--vers': unknown flag"),
        (["export"], "mindghost export: error: the following arguments are required: --ckpt_path; "),
        (["recipes", "x"], "mindghost recipes: error: unrecognized arguments: x; "),
        (["train", "--lrr", "1"], "mindghost train: error: '--lrr': unknown flag; the nearest valid flag is --lr"),
        (["model-card"], "mindghost model-card: error: the following arguments are required: RUN; "),
    ],
)
def test_bad_lines_are_one_line(words, expected, capsys):
    status, said, error = run(*words, capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert error.startswith(expected)


def test_the_module_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mindghost", "export"], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mindghost export: error: the following arguments are required: --ckpt_path")


# --- Recipes


def test_every_recipe_is_listed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, said, error = run("recipes", capsys=capsys)
    assert (status, error) == (0, "")
    rows = [line.split() for line in said.splitlines()]
    assert rows[0] == ["name", "network", "device", "file"]
    files = sorted(ROOT.glob("configs/*/*.yaml"))
    assert [row[0] for row in rows[1:]] == [file.stem for file in files]
    assert [row[3] for row in rows[1:]] == [str(file.relative_to(ROOT)) for file in files]
    assert ["ghostnet_100_ascend", "ghostnet_100", "Ascend", "configs/ghostnet/ghostnet_100_ascend.yaml"] in rows
    assert ["ghost_airbench", "ghost_airbench", "any", "configs/cifar10/ghost_airbench.yaml"] in rows


def test_no_two_recipes_have_one_name():
    assert len(recipes.files()) == len(list(ROOT.glob("configs/*/*.yaml")))


def test_a_recipe_by_its_name(tmp_path, monkeypatch):
    """A file of that name is taken before it, a folder is not, and what it came from is known."""
    monkeypatch.chdir(tmp_path)
    file = ROOT / "configs" / "ghostnet" / "ghostnet_100_cpu.yaml"
    line = ["-c", "ghostnet_100_cpu", "--lr", "0.1"]

    def loaded() -> Config:
        return load(line, prog="mindghost train", description="")

    assert (loaded().model, loaded().lr, loaded().recipe) == ("ghostnet_100", 0.1, str(file))
    Path("ghostnet_100_cpu").mkdir()
    assert loaded().recipe == str(file)
    Path("ghostnet_100_cpu").rmdir()
    Path("ghostnet_100_cpu").write_text("model: ghostnet_130\n")
    assert (loaded().model, loaded().recipe) == ("ghostnet_130", "ghostnet_100_cpu")


@pytest.mark.fault("configurations", "clean error")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghostnet_100_cp", "ghostnet_100_cp: no such file; give a recipe: a file, or a name that `mindghost recipes`"),
        ("./ghostnet_100_cpu", "ghostnet_100_cpu: no such file; "),
        ("my.yaml", "my.yaml: no such file; give a recipe: a file, or a name that `mindghost recipes` lists"),
        ("", ".: a folder, not a file; "),
        ("ghostnet_100_cpu.yml", "ghostnet_100_cpu.yml: no such file; "),
        ("n" * 300, f"{'n' * 300}: cannot be read (File name too long); "),
    ],
)
def test_a_word_that_is_neither_file_nor_recipe(text, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load(["-c", text], prog="mindghost train", description="")
    assert str(caught.value).startswith(f"-c: {expected}")
    assert ("the nearest is ghostnet_100_cpu" in str(caught.value)) == (
        text in ("ghostnet_100_cp", "./ghostnet_100_cpu")
    )
    weights = tmp_path / "w.ckpt"
    weights.touch()
    status, _, error = run("export", "--ckpt_path", str(weights), "-c", text, capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(f"mindghost export: error: --config: {expected}")


# --- Tables


def test_columns_are_aligned():
    rows = [("name", "size"), ("a", "1,000"), ("bcdefg", "7")]
    assert table.lines(rows) == ["name    size", "a       1,000", "bcdefg  7"]
    assert table.lines(rows, right=True) == ["name     size", "a       1,000", "bcdefg      7"]


# --- Completion


def completed(line: str, folder: Path) -> list[str]:
    """What a shell is offered at the end of a line."""
    answer, writer = os.pipe()

    def hand_over() -> None:
        os.dup2(writer, ANSWER)
        os.dup2(2, ANSWER + 1)  # for argcomplete's debugging

    words = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9", "COMP_LINE": line}
    done = subprocess.run(
        [sys.executable, "-m", "mindghost"],
        env=environment(folder, COMP_POINT=str(len(line)), **words),
        cwd=folder,
        capture_output=True,
        preexec_fn=hand_over,
        pass_fds=(ANSWER, ANSWER + 1),
        timeout=60,
    )
    os.close(writer)
    with open(answer) as found:
        offered = found.read().split("\n")
    assert (done.returncode, done.stdout) == (0, b"")
    return sorted(word.strip() for word in offered if word)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mindghost ", sorted(main.COMMANDS)),
        ("mindghost tr", ["train"]),
        (
            "mindghost train -c ghostnet_1",
            [f"ghostnet_1{end}" for end in ("00_ascend", "00_cpu", "00_tiny_imagenet", "30_ascend", "30_cpu")],
        ),
        ("mindghost train -c my", ["my.yaml"]),
        ("mindghost validate --config ghost_air", ["ghost_airbench"]),
        ("mindghost train --ckpt_p", ["--ckpt_path"]),
        ("mindghost train --val_amp_level ", ["O0", "O1", "O2", "O3", "bfloat16"]),
        ("mindghost train --ema ", ["False", "True"]),
        ("mindghost export --format ", ["all", "litert", "mindir", "ncnn", "onnx", "openvino"]),
        ("mindghost index ", ["add", "build", "info", "remove", "sync"]),
        ("mindghost index build --app", ["--approximate"]),
        ("mindghost embed --dtype ", ["float16", "float32"]),
        ("mindghost quantize --target ", ["mcu"]),
        ("mindghost quantize --npu ethos-u65", ["ethos-u65-256", "ethos-u65-512"]),
        ("mindghost predict --model ghostnetv2_1", [f"ghostnetv2_{n}" for n in (100, 130, 160)]),
        ("mindghost export --ckpt_path run", ["runs/"]),
        ("mindghost nonsense --", ["--help", "--version"]),
    ],
)
def test_what_a_shell_completes(line, expected, tmp_path):
    (tmp_path / "my.yaml").touch()
    (tmp_path / "runs").mkdir()
    assert completed(line, tmp_path) == expected


def test_completion_waits_for_no_library(tmp_path):
    """MindSpore alone would take seconds."""
    for name in ("mindspore", "numpy", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    assert "train" in completed("mindghost ", tmp_path)
    assert "--ckpt_path" in completed("mindghost validate --ckpt", tmp_path)
