"""Releases: all that others need of a run, in half the size; or nothing, and one line."""

import hashlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.cli import main
from tests.helpers.card_runs import write_run

FILES = ["config.yaml", "classes.json", "ghostnet_050_best.ckpt", "ghostnet_050_best.safetensors", "model_card.md"]


def release(run: Path, output: Path, *more: str, capsys) -> tuple[int, str, str]:
    status = main.run(["release", str(run), "--output", str(output), *more])
    return (status, *capsys.readouterr())


def weights_with(run: Path, values: np.ndarray) -> None:
    weights_file.write(run / "ghostnet_050_best.ckpt", {"bn1.gamma": values})


def test_the_shortest_command(tmp_path, capsys):
    run, output = write_run(tmp_path / "run"), tmp_path / "relé ase" / "1"
    values = np.array([1.0, 0.1, 3e-8, 65504.0], np.float32)
    weights_with(run, values)
    before = {file: file.read_bytes() for file in run.iterdir()}
    status, said, errors = release(run, output, capsys=capsys)
    assert (status, errors) == (0, "")
    assert said.splitlines()[-1] == f"next: mindghost validate --ckpt_path '{output}/ghostnet_050_best.ckpt'"
    assert {file: file.read_bytes() for file in run.iterdir()} == before
    assert set(FILES) < {file.name for file in output.iterdir()}
    assert not list(output.glob(".*"))
    for name in ("config.yaml", "classes.json"):
        assert (output / name).read_bytes() == (run / name).read_bytes()
    card = (output / "model_card.md").read_text()
    assert "rounded to float16" in card
    assert "| top-1 | 61.46 % |" in card
    assert "| training images | not said; see to them before you pass it on |" in card
    for name in FILES[2:4]:
        content = (output / name).read_bytes()
        assert f"`{hashlib.sha256(content).hexdigest()}`" in card
        assert f"{len(content):,}" in card
    found = ms.load_checkpoint(str(output / "ghostnet_050_best.ckpt"))["bn1.gamma"]
    assert found.dtype == ms.float16
    np.testing.assert_array_equal(found.asnumpy(), values.astype(np.float16))
    theirs = weights_file.read(output / "ghostnet_050_best.safetensors")
    np.testing.assert_array_equal(theirs["bn1.weight"], values.astype(np.float16))


def test_all_that_can_be_said(tmp_path, capsys):
    run, output = write_run(tmp_path / "run"), tmp_path / "empty"
    output.mkdir()
    terms = ["--float32", "--license", "MIT", "--data_license", "CC BY 2.0"]
    assert release(run, output, *terms, capsys=capsys)[0] == 0
    card = (output / "model_card.md").read_text()
    assert "float16" not in card
    assert "| weights | MIT |\n| training images | CC BY 2.0 |" in card
    found, before = (weights_file.read(folder / "ghostnet_050_best.ckpt") for folder in (output, run))
    assert all(np.array_equal(found[name], before[name]) and found[name].dtype == np.float32 for name in before)


@pytest.mark.fault("releases", "clean error")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run, output: (output / "mine.txt").write_text("x"), "--output: {output} is not empty; give a folder"),
        (lambda run, output: (run / "config.yaml").unlink(), "{run}/config.yaml: no such file; give the folder of a"),
        (
            lambda run, output: weights_with(run, np.array([1e5], np.float32)),
            "{run}/ghostnet_050_best.ckpt: bn1.gamma has values beyond float16's 65504; give --float32",
        ),
    ],
    ids=["taken", "no run", "too large"],
)
def test_what_cannot_be_released(tmp_path, capsys, damage, message):
    run, output = write_run(tmp_path / "run"), tmp_path / "out"
    output.mkdir()
    damage(run, output)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    status, said, errors = release(run, output, capsys=capsys)
    assert (status, said) == (2, "")
    assert errors.startswith(f"mindghost release: error: {message.format(run=run, output=output)}")
    assert errors.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
