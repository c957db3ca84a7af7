"""Full disks, and limits on the size of files, at what commands write: one line, status 1, nothing half-written."""

import contextlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mindghost.cli import command, main
from mindghost.config import Config
from mindghost.errors import RunError
from mindghost.evaluate import predictions
from mindghost.files import outputs
from mindghost.inference import pictures
from mindghost.process import streams
from mindghost.runs.folder import RunFolder
from mindghost.tasks.classification import report
from tests.helpers.places import ROOT

MORE = bytes(300_000)  # bytes, than there is room for


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def ended(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs a command, or an example, with arguments; its status, and what it said on standard error."""

    def run(name: str, *words: object) -> tuple[int, str]:
        monkeypatch.setattr(streams, "guard", lambda: None)
        if name in main.COMMANDS:
            status = main.run([name, *map(str, words)])
        else:
            monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
            example = runpy.run_path(str(ROOT / "examples" / name), run_name="a command")["main"]
            status = command.run_command(name, example)
        return status, capsys.readouterr().err

    return run


@pytest.mark.fault("disks", "clean error")
def test_a_file_that_an_option_names(full_disk):
    small, why = full_disk
    (small / "x.tsv").write_bytes(b"before")
    with pytest.raises(RunError) as caught:
        outputs.Output(small / "x.tsv", "--report", outputs.starts_with(b"before")).write(MORE)
    assert str(caught.value) == f"{small}/x.tsv: cannot be written ({why}); name another file with --report"
    assert files_in(small) == ["x.tsv"]
    assert (small / "x.tsv").read_bytes() == b"before"


@pytest.mark.fault("disks", "clean error")
def test_predictions(full_disk):
    """Which are written in pieces."""
    small, why = full_disk
    output = predictions.prepare(Config(predictions=str(small / "p.csv")))
    with pytest.raises(RunError, match=rf"p\.csv: cannot be written \({why}\); name another file with predictions"):
        output.write(iter([b"path,true_label\n", MORE]))
    assert files_in(small) == []


@pytest.mark.fault("disks", "clean error")
def test_annotated_pictures(full_disk):
    small, why = full_disk
    with pytest.raises(RunError, match=rf"big\.png: cannot be written \({why}\)"):
        pictures.save(
            Image.effect_noise((900, 900), 90), outputs.Output(small / "big.png", "--save_dir", outputs.nothing)
        )
    assert files_in(small) == []


# A limit on the size of files leaves room for small ones.
FULL = pytest.mark.parametrize("full_disk", ["tmpfs"], indirect=True)


@pytest.mark.fault("disks", "clean error")
@FULL
def test_plots(full_disk, tmp_path, ended):
    pytest.importorskip("matplotlib")
    small, why = full_disk
    line = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "val_loss": None, "top_1": None, "top_5": None}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    fill(small)
    status, said = ended("plot", tmp_path, "--output", small / "x.png")
    expected = f"{small}/x.png: cannot be written ({why}); name another file with --output\n"
    assert (status, said) == (1, f"mindghost plot: error: {expected}")
    assert files_in(small) == ["fill"]


@pytest.mark.fault("disks", "clean error")
@FULL
def test_what_is_to_be_written_at_the_end_is_tried_before(full_disk):
    small, why = full_disk
    fill(small)
    with pytest.raises(RunError, match=rf"^report: {small}/report cannot be written \({why}\); give another folder$"):
        report.prepare(small / "report", overwrite=False)
    folder = RunFolder(Config(model="ghostnet_050", ckpt_save_dir=str(small / "run")))
    with folder, pytest.raises(RunError, match=rf"^ckpt_save_dir: {small}/run cannot be written \({why}\)"):
        folder.start()
    assert files_in(small) == ["fill", "run/.lock"]


@pytest.mark.fault("disks", "clean error")
@FULL
def test_the_digits(full_disk, ended):
    pytest.importorskip("sklearn")
    small, why = full_disk
    expected = f"make_digits.py: error: {small}/d: cannot be written ({why}); name another folder\n"
    assert ended("make_digits.py", small / "d") == (1, expected)
    assert not (small / "d" / ".complete").exists()
    assert all(path.stat().st_size for path in (small / "d").rglob("*.png"))


def fill(folder: Path) -> None:
    """Leave no room on a small disk."""
    for size in (1 << 14, 1 << 10):
        with contextlib.suppress(OSError), open(folder / "fill", "ab", buffering=0) as file:
            for _ in range(20):
                file.write(bytes(size))
