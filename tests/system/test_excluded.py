"""A training that leaves images out is one that never had them: unread, in its state, over ranks, when it goes on."""

import shutil
from pathlib import Path

import pytest

import train
from mindghost.checkpoint import weights as weights_file
from mindghost.data.dataset import open_split
from tests.helpers.commands import command, process
from tests.helpers.data_folders import config_for
from tests.helpers.launchers import mpirun_command, run
from tests.helpers.pictures import write_images
from tests.helpers.training import arguments, assert_same_end

BAD = ("ant/0.png", "bee/1.png", "bee/2.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """D, of whose images for training three are no images; `less`, which lacks these; lists that name them."""
    folder = tmp_path_factory.mktemp("excluded")
    write_images(folder / "less", ("ant", "bee", "cat"), train_images=8, val_images=2)
    for name in BAD:
        (folder / "less" / "train" / name).unlink()
    shutil.copytree(folder / "less", folder / "D")
    for name in BAD:
        (folder / "D" / "train" / name).write_bytes(b"no image")
    lines = [f"train/{name}\n" for name in BAD]
    (folder / "out.txt").write_text("".join(lines))
    (folder / "same.txt").write_text("".join(f"D/{line}" for line in reversed(lines)))
    (folder / "more.txt").write_text("".join([*lines, "train/cat/3.png\n"]))
    return folder


def images_in(folder: Path) -> str:
    """The digest of the training images in a run's state, of which there is one."""
    state = weights_file.read(folder / "run_state.ckpt")
    (name,) = (name for name in state if name.endswith("run_data"))
    return state[name].tobytes().hex()


def line(data_dir: Path, folder: Path, **keys: object) -> list[str]:
    """Of Python: a short training."""
    return arguments(data_dir, folder, num_classes=3, **keys)


@pytest.fixture(scope="module")
def excluded(data) -> Path:
    """A finished run without the images that cannot be read."""
    result = process(*line(data / "D", data / "run", exclude_list=data / "out.txt"))
    assert (result.returncode, result.stderr) == (0, "")
    assert "exclude_list: 3 of 24 training images are left out\n" in result.stdout
    return data / "run"


def test_they_are_not_read_and_the_run_is_that_without_them(data, excluded, tmp_path):
    result = process(*line(data / "less", tmp_path / "run"))
    assert (result.returncode, result.stderr) == (0, "")
    assert_same_end(excluded, tmp_path / "run")


def left(data: Path) -> str:
    """The digest of the images that a list leaves."""
    return open_split(config_for(data / "D", exclude_list=str(data / "out.txt")), "train").digest()


def test_the_state_says_which_are_left(data, excluded):
    assert images_in(excluded) == left(data)


def test_a_run_goes_on_with_the_same_images_alone(data, excluded, short_network, monkeypatch, capsys):
    def resumed(**keys: object) -> tuple[int, str]:
        words = [*line(data / "D", excluded, **keys)[2:], "--resume"]
        return command(train.main, "train.py", *words, monkeypatch=monkeypatch, capsys=capsys)

    assert resumed(exclude_list=data / "same.txt") == (0, "")
    status, error = resumed(exclude_list=data / "more.txt")
    assert (status, error.count("\n")) == (2, 1)
    assert "changed since" in error
    assert "the training images" in error
    # Without a list the images that cannot be read are there again.
    status, error = resumed()
    assert (status, error.count("\n")) == (2, 1)
    assert "D/train/ant/0.png" in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nowhere.png\n", "names no image of the training"),
        (b"".join(b"train/ant/%d.png\n" % number for number in range(8)), "leaves no image of the class ant"),
        (b"a\0b\n", "no text"),
    ],
)
def test_a_bad_list_is_one_line_and_leaves_nothing(content, said, data, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.txt").write_bytes(content)
    words = line(data / "D", tmp_path / "run", exclude_list=tmp_path / "bad.txt")[2:]
    status, error = command(train.main, "train.py", *words, monkeypatch=monkeypatch, capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "exclude_list: " in error or "bad.txt:1" in error
    assert said in error
    assert not (tmp_path / "run").exists()


def ranks_line(data: Path, folder: Path, name: str) -> list[str]:
    keys = {"distribute": True, "batch_size": 3, "epoch_size": 1, "decay_epochs": 1, "tensorboard": False}
    return line(data / "D", folder, exclude_list=data / name, **keys)


def test_ranks_leave_out_the_same(data, tmp_path):
    result = run(mpirun_command(2, *ranks_line(data, tmp_path / "run", "out.txt")), tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("exclude_list: 3 of 24 training images are left out\n") == 1
    assert images_in(tmp_path / "run") == left(data)


def each_with(data: Path, folder: Path, first: dict[str, object], second: dict[str, object]) -> tuple[int, str, str]:
    """How a run of two ranks with keys of their own ends: status, output and errors."""
    keys = {"distribute": True, "batch_size": 3, "epoch_size": 1, "decay_epochs": 1, "tensorboard": False}
    words = [mpirun_command(1, *line(data / "D", folder, **{**keys, **own})) for own in (first, second)]
    start = words[1].index("-n")
    result = run([*words[0], ":", *words[1][start:]], folder.parent, timeout=120)
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"exclude_list": "more.txt"}, "training images: rank 0 has 21 of 3 classes"),
        ({"exclude_list": "out.txt", "lr": 0.7}, "lr: rank 0 has "),
    ],
)
def test_ranks_with_other_lists_or_keys_end_at_once_in_one_line(second, said, data, tmp_path):
    first = {"exclude_list": data / "out.txt"}
    second = {**second, "exclude_list": data / second["exclude_list"]}
    status, _, error = each_with(data, tmp_path / "run", first, second)
    assert status == 2, error
    ours = [text for text in error.splitlines() if said in text]
    assert len(ours) == 1, error
    assert "all ranks need the same" in ours[0]
    assert not list((tmp_path / "run").glob("*.ckpt"))
