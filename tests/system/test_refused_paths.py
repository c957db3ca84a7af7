"""Paths that the system refuses, or that name another kind of thing: one line that names them, for every option.

All commands run in this process: what is wrong with a path is said before anything takes time.
"""

import importlib.util
import json
import os
import runpy
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
import validate
from mindghost.cli import command, main
from mindghost.config import Config
from mindghost.process import streams
from mindghost.process.display import shown
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT

# What a path is for, and the kinds of path that do not do.
READ_FILE, READ_FOLDER, WRITE_FILE, WRITE_FOLDER = range(4)
ALL = (READ_FILE, READ_FOLDER, WRITE_FILE, WRITE_FOLDER)
READ = (READ_FILE, READ_FOLDER)
KINDS = {
    "a name that is too long": ALL,
    "a path that is too long": ALL,
    "below a file": ALL,
    "a link to itself": ALL,
    "a link that leads nowhere": (*READ, WRITE_FOLDER),
    "nothing": READ,
    "in a folder that is not there": (*READ, WRITE_FILE),
    "a FIFO": ALL,
    "a socket": ALL,
    "a device": ALL,
    "a file": (READ_FOLDER, WRITE_FOLDER),
    "a folder": (READ_FILE, WRITE_FILE),
}
WITHOUT_PERMISSION = "without permission"
OPTIONS = [
    ("train.py", ("--data_dir D -c", READ_FILE), ""),
    ("train.py", ("--data_dir", READ_FOLDER), ""),
    ("train.py", ("--dataset mnist --data_dir", READ_FOLDER), ""),
    ("train.py", ("--dataset cifar10 --data_dir", READ_FOLDER), ""),
    ("train.py", ("--dataset cifar10 --dataset_download True --data_dir", WRITE_FOLDER), ""),
    ("train.py", ("--data_dir D --ckpt_path", READ_FILE), ""),
    ("train.py", ("--data_dir D --ckpt_save_dir", WRITE_FOLDER), ""),
    ("train.py", ("--data_dir D --resume", READ_FILE), ""),
    ("train.py", ("--data_dir D --batch_size 2 --teacher ghostnet_050 --teacher_ckpt_path", READ_FILE), ""),
    ("train.py", ("--data_dir D --batch_size 2 --teacher", READ_FILE), ".mindir"),
    ("find-lr", ("--data_dir D --batch_size 2 --output", WRITE_FOLDER), ""),
    ("find-lr", ("--output O --data_dir", READ_FOLDER), ""),
    ("validate.py", ("--ckpt_path", READ_FILE), ""),
    ("validate.py", ("--ckpt_path", READ_FILE), ".onnx"),
    ("validate.py", ("--ckpt_path", READ_FILE), ".mindir"),
    ("validate.py", ("--ckpt_path R/w.ckpt -c", READ_FILE), ""),
    ("validate.py", ("--ckpt_path R/w.ckpt --data_dir", READ_FOLDER), ""),
    ("validate.py", ("--ckpt_path R/w.ckpt --report", WRITE_FOLDER), ""),
    ("validate.py", ("--ckpt_path R/w.ckpt --predictions", WRITE_FILE), ".csv"),
    ("predict", ("D --ckpt_path", READ_FILE), ""),
    ("predict", ("D --ckpt_path", READ_FILE), ".onnx"),
    ("predict", ("D --ckpt_path R/w.ckpt --class_names", READ_FILE), ""),
    ("predict", ("D --ckpt_path R/w.ckpt -c", READ_FILE), ""),
    ("predict", ("D --ckpt_path R/w.ckpt --save_dir", WRITE_FOLDER), ""),
    ("predict", ("D --ckpt_path R/w.ckpt --mask_dir", WRITE_FOLDER), ""),
    ("embed", ("D -o O.npz --ckpt_path", READ_FILE), ""),
    ("embed", ("D --ckpt_path R/w.ckpt -o", WRITE_FILE), ".npz"),
    ("index", ("build -o O", READ_FILE), ".npz"),
    ("index", ("build R/w.onnx -o", WRITE_FILE), ""),
    ("index", ("add R/w.onnx", READ_FILE), ".npz"),
    ("index", ("remove {} D", READ_FILE), ""),
    ("index", ("info", READ_FILE), ""),
    ("index", ("sync R/w.onnx --ckpt_path R/w.ckpt", READ_FOLDER), ""),
    ("index", ("sync R/w.onnx D --ckpt_path", READ_FILE), ""),
    ("search", ("D --ckpt_path R/w.ckpt --index", READ_FILE), ""),
    ("search", ("D --index R/w.onnx --ckpt_path", READ_FILE), ""),
    ("search", ("D --index R/w.onnx --ckpt_path R/w.ckpt --picture", WRITE_FILE), ".png"),
    ("duplicates", ("D --ckpt_path", READ_FILE), ""),
    ("duplicates", ("D --picture", WRITE_FILE), ".png"),
    ("duplicates", ("D --leave_out", WRITE_FILE), ""),
    ("label-errors", ("D --ckpt_path", READ_FILE), ""),
    ("label-errors", ("D --ckpt_path R/w.ckpt -o", WRITE_FOLDER), ""),
    ("export", ("--ckpt_path", READ_FILE), ""),
    ("export", ("--ckpt_path R/w.ckpt -c", READ_FILE), ""),
    ("export", ("--ckpt_path R/w.ckpt --class_names", READ_FILE), ""),
    ("export", ("--ckpt_path R/w.ckpt --data_dir", READ_FOLDER), ""),
    ("export", ("--ckpt_path R/w.ckpt --out", WRITE_FOLDER), ""),
    ("quantize", ("--calib_dir D/train", READ_FILE), ".onnx"),
    ("quantize", ("R/w.onnx --calib_dir", READ_FOLDER), ""),
    ("quantize", ("R/w.onnx --calib_dir D/train --data_dir", READ_FOLDER), ""),
    ("quantize", ("R/w.onnx --calib_dir D/train --out", WRITE_FOLDER), ""),
    ("pack", ("--out P --data_dir", READ_FOLDER), ""),
    ("pack", ("--data_dir D --out", WRITE_FOLDER), ""),
    ("convert", ("--model ghostnet_050 {} O.ckpt", READ_FILE), ""),
    ("convert", ("--model ghostnet_050 R/w.ckpt", WRITE_FILE), ".ckpt"),
    ("convert", ("--model ghostnet_050 R/w.ckpt O.ckpt --report", WRITE_FILE), ""),
    ("plot", ("", READ_FILE), ".jsonl"),
    ("plot", ("R --output", WRITE_FILE), ".png"),
    ("model-card", ("", READ_FOLDER), ""),
    ("model-card", ("R --output", WRITE_FILE), ".md"),
    ("release", ("--output O", READ_FOLDER), ""),
    ("release", ("R --output", WRITE_FOLDER), ""),
    ("show-ghosts", ("--ckpt_path R/w.ckpt", READ_FILE), ".png"),
    ("show-ghosts", ("D/val/ant/0.png --ckpt_path", READ_FILE), ""),
    ("show-ghosts", ("D/val/ant/0.png --ckpt_path R/w.ckpt -c", READ_FILE), ""),
    ("show-ghosts", ("D/val/ant/0.png --ckpt_path R/w.ckpt -o", WRITE_FILE), ".png"),
    ("benchmark", ("--quick --json", WRITE_FILE), ""),
    ("benchmark", ("--quick --plot", WRITE_FILE), ".png"),
    ("make_digits.py", ("", WRITE_FOLDER), ""),
    ("make_scenes.py", ("--train 1 --val 1", WRITE_FOLDER), ""),
]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A data set D, and a run R of which nothing is good but the names; any user may write there."""
    home = Path(tempfile.mkdtemp(prefix="refused-", dir="/tmp"))
    home.chmod(0o777)
    write_images(home / "D", classes=("ant", "bee"), train_images=2, val_images=1)
    run = home / "R"
    run.mkdir()
    config = Config(model="ghostnet_050", num_classes=2, data_dir=str(home / "D"), image_resize=32)
    (run / "config.yaml").write_text(config.to_yaml())
    (run / "classes.json").write_text(json.dumps(["ant", "bee"]))
    (run / "w.ckpt").write_bytes(b"no weights")
    (run / "w.onnx").write_bytes(b"no graph")
    (run / "metrics.jsonl").write_text("")
    yield home
    for path in home.rglob("secret*"):
        path.chmod(0o700)
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def make(home) -> Iterator[Callable[[str, str, int], Path]]:
    """Makes a path of a kind, with an ending, for a purpose."""
    open_sockets = []
    (home / "file").touch()

    def path(kind: str, ending: str, use: int) -> Path:
        if kind == WITHOUT_PERMISSION:
            place = home / f"secret{use}{ending}"
            if not place.exists():
                place.touch() if use == READ_FILE else place.mkdir()
                place.chmod(0)
            return place if use == READ_FILE else place / f"x{ending}"
        place = home / f"{list(KINDS).index(kind)}{ending}"
        if kind == "a name that is too long":
            return home / f"{'n' * 300}{ending}"
        if kind == "a path that is too long":
            return home / ("d/" * 2500) / f"p{ending}"
        if kind == "below a file":
            return home / "file" / f"x{ending}"
        if kind == "in a folder that is not there":
            return home / "none" / f"x{ending}"
        if kind == "a device" and not ending:
            return Path("/dev/zero")
        if not os.path.lexists(place):
            if kind == "a link to itself":
                place.symlink_to(place)
            elif kind == "a link that leads nowhere":
                place.symlink_to(home / "nowhere" / "at all")
            elif kind == "a FIFO":
                os.mkfifo(place)
            elif kind == "a socket":
                server = socket.socket(socket.AF_UNIX)
                server.bind(str(place))
                open_sockets.append(server)
            elif kind == "a device":
                place.symlink_to("/dev/zero")
            elif kind == "a file":
                place.touch()
            elif kind == "a folder":
                place.mkdir()
        return place

    yield path
    for server in open_sockets:
        server.close()


@pytest.fixture
def run(monkeypatch) -> Callable[[str, list[str]], int]:
    """Runs a command of `mindghost`, or a program's `main` by its file's name; the exit status."""
    programs = {"train.py": train.main, "validate.py": validate.main}
    for name in ("make_digits.py", "make_scenes.py"):
        programs[name] = runpy.run_path(str(ROOT / "examples" / name), run_name="a command")["main"]
    monkeypatch.setattr(streams, "guard", lambda: None)

    def status(name: str, arguments: list[str]) -> int:
        if name in main.COMMANDS:
            return main.run([name, *arguments])
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return command.run_command(name, programs[name])

    return status


@pytest.mark.fault("permissions", "clean error")
def test_a_path_that_needs_permission_is_one_line(home, make, run, monkeypatch, capsys):
    """As another user than root, to whom all is permitted."""
    monkeypatch.chdir(home)
    problems = []
    for name, (start, use), ending in OPTIONS:
        path = make(WITHOUT_PERMISSION, ending, use)
        # Once as root: what is imported for it may lie where nobody else may look (matplotlib does it when it draws).
        run(name, arguments_for(start, home / "file" / "x"))
        capsys.readouterr()
        with nobody():
            status = run(name, arguments_for(start, path))
        lines = capsys.readouterr().err.splitlines()
        if status != 2 or len(lines) != 1 or str(path.parent) not in lines[0] or "Permission denied" not in lines[0]:
            problems.append(f"{name} {start}: status {status}, {[line[:300] for line in lines]}")
    assert not problems, "\n".join(problems)


@contextmanager
def nobody() -> Iterator[None]:
    """Inside of `with`, another user than root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def arguments_for(start: str, path: Path) -> list[str]:
    """The words of a command line, with the path at its end or in place of {}."""
    if "{}" not in start:
        return [*start.split(), str(path)]
    return [str(path) if word == "{}" else word for word in start.split()]


@pytest.mark.fault("permissions", "clean error")
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_is_refused_is_one_line(kind, home, make, run, monkeypatch, capsys):
    monkeypatch.chdir(home)
    before = sorted(path.name for path in home.iterdir())
    problems = []
    for name, (start, use), ending in OPTIONS:
        if use not in KINDS[kind]:
            continue
        path = make(kind, ending, use)
        try:
            status = run(name, arguments_for(start, path))
        except BaseException as error:  # a traceback
            problems.append(f"{name} {start}: {type(error).__name__}: {str(error)[:200]}")
            continue
        lines = capsys.readouterr().err.splitlines()
        named = shown(str(path))[:100]
        if status != 2 or len(lines) != 1 or named not in lines[0]:
            problems.append(f"{name} {start}: status {status}, {[line[:300] for line in lines]}")
    assert not problems, "\n".join(problems)
    made = {path.name for path in home.iterdir()} - set(before)
    assert all(name[0].isdigit() for name in made), f"something was written: {made}"


def test_every_option_that_names_a_path_is_tried():
    tried = {(name, word) for name, (start, _), _ in OPTIONS for word in start.split() if word.startswith("-")}
    for name in {name for name, _, _ in OPTIONS} - {"train.py", "validate.py"}:
        module = importlib.util.find_spec(main.module_of(name)) if name in main.COMMANDS else None
        source = Path(module.origin if module else ROOT / "examples" / name).read_text()
        for option in ("--out", "--output", "--data_dir", "--ckpt_path", "--save_dir", "--calib_dir", "--report"):
            if f'"{option}"' in source:
                assert (name, option) in tried or (name, option[1:3]) in tried, (name, option)
