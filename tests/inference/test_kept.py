"""A second start computes what the first one did, to the last bit, without MindSpore; and refuses what it refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindghost.checkpoint import weights as weights_file
from mindghost.data import jpeg, resizing
from mindghost.deploy import probe_images
from mindghost.errors import UserError
from mindghost.files import npz
from mindghost.inference import artifact, kept
from mindghost.inference.deployment import Deployment
from mindghost.inference.embedding import open_embedding
from mindghost.inference.network import open_network
from mindghost.inference.opening import opened
from mindghost.ops import library
from mindghost.process.launch import Launch
from tests.helpers.commands import flags, run_mindghost
from tests.helpers.places import ROOT
from tests.helpers.trained import write_run

try:
    LIBRARY = library.library()
    DECODER = jpeg.Decoder(jpeg.library().build())
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")
else:
    pytestmark = pytest.mark.usefixtures("short_network", "own_cache")

RUN = """
import json, sys
from mindghost.cli.main import run
status = [run(words) for words in json.loads(sys.argv[1])]
print(json.dumps([status, "mindspore" in sys.modules]), file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def operator_by_operator() -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def run(tmp_path) -> Path:
    """The weights of a run."""
    return write_run(tmp_path / "run", model="ghostnet_050")


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, (width, height) in enumerate(((90, 60), (40, 70), (64, 64), (33, 47))):
        picture = Image.fromarray(probe_images.picture(index, height, width))
        picture.convert("L" if index == 2 else "RGB").save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    return folder


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 32, 32)).astype(np.float32)


def entries() -> list[Path]:
    shelf = Path(os.environ["MINDGHOST_HOME"]) / "plans"
    return sorted(shelf.iterdir()) if shelf.is_dir() else []


def without_mindspore(*commands: list[str]) -> str:
    """What commands print in a process of their own, which must not import MindSpore."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C"}
    line = [sys.executable, "-c", RUN, json.dumps(commands)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.stderr.splitlines()[-1] == json.dumps([[0] * len(commands), False]), done.stderr
    return done.stdout


@pytest.mark.parametrize("task", ["classification", "multi_label"])
def test_a_second_start_imports_no_mindspore(tmp_path, photos, capsys, task):
    path = write_run(tmp_path / "run", model="ghostnet_050", task=task)
    predict = ["predict", str(photos), *flags(ckpt_path=path), "--json"]
    embed = ["embed", str(photos), *flags(ckpt_path=path), "-o"]
    assert run_mindghost(*predict) == 0
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 4
    assert run_mindghost(*embed, tmp_path / "first.npz") == 0
    assert len(entries()) == 2
    assert without_mindspore(predict, [*embed, str(tmp_path / "second.npz")]).startswith(first)
    vectors = [npz.read(tmp_path / f"{name}.npz", ["vectors"], "")["vectors"] for name in ("first", "second")]
    np.testing.assert_array_equal(*vectors)
    assert len(entries()) == 2


def test_a_second_explanation_imports_no_mindspore(run, photos, capsys, tmp_path):
    """Whether the first start predicted or explained, with the same pictures."""

    def command(to: str, *more: str) -> list[str]:
        return ["predict", str(photos), *flags(ckpt_path=run), "--json", "--explain", str(tmp_path / to), *more]

    assert run_mindghost(*command("first")) == 0
    assert len(entries()) == 1
    without_mindspore(command("second"))
    entries()[0].unlink()
    assert run_mindghost(*command("first")[:-2]) == 0
    without_mindspore(command("third"), command("finer", "--explain_layer", "blocks.1", "--explain_method", "gradcam"))
    pictures = [
        [np.asarray(Image.open(path), int) for path in sorted((tmp_path / to).iterdir())]
        for to in ("first", "second", "third", "finer")
    ]
    first, second, third, finer = pictures
    assert [len(each) for each in pictures] == [4] * 4
    for index, picture in enumerate(first):
        np.testing.assert_array_equal(second[index], picture)
        np.testing.assert_array_equal(third[index], picture)
        assert np.abs(finer[index] - picture).max() > 20
    # What a program has no mark of is MindSpore's; so is the refusal.
    assert run_mindghost(*command("inside", "--explain_layer", "blocks.1.0.ghost2")) == 0
    capsys.readouterr()
    assert run_mindghost(*command("none", "--explain_layer", "block.1")) == 2
    assert "no layer is called 'block.1'; the nearest is blocks.1" in capsys.readouterr().err


@pytest.mark.parametrize("embedding", [False, True])
def test_a_kept_program_gives_the_same_bits(run, embedding):
    deployed = artifact.of_file(run)
    expected = (open_embedding if embedding else open_network)(deployed, LIBRARY)(images())
    assert len(entries()) == 1
    assert kept.find(deployed, embedding) is not None
    assert kept.find(deployed, not embedding) is None
    np.testing.assert_array_equal(opened(deployed, 1, embedding)(images()), expected)


def test_names_tell_programs_apart(run, tmp_path):
    deployed = artifact.of_file(run)

    def name(**keys) -> str:
        place = kept.place_of(replace(deployed, config=deployed.config.replace(**keys)))
        assert place is not None
        return place.name

    before = name()
    assert name(data_dir="elsewhere", report="R", num_parallel_workers=1) == before
    # The same file elsewhere is the same file.
    (tmp_path / "copy").mkdir()
    copied = shutil.copy(run, tmp_path / "copy" / "other name.ckpt")
    place = kept.place_of(replace(deployed, path=Path(copied)))
    assert place is not None
    assert place.name == before
    others = {name(num_classes=4), name(in_channels=1), name(model="ghostnet_100"), name(ema=True), name(seed=7)}
    others.add(kept.place_of(deployed, embedding=True).name)
    weights_file.write(run, {**weights_file.read(run), "classifier.bias": np.ones(3, np.float32)})
    others.add(name())
    assert len({before, *others}) == 8


def test_another_checkpoint_of_the_same_name_is_another_one(run):
    deployed = artifact.of_file(run)
    before = opened(deployed, 1)(images())
    weights = weights_file.read(run)
    weights_file.write(run, {**weights, "classifier.bias": weights["classifier.bias"] + 1})
    assert kept.find(deployed) is None
    after = opened(deployed, 1)(images())
    np.testing.assert_allclose(after, before + 1, rtol=0, atol=1e-4)
    assert len(entries()) == 2
    np.testing.assert_array_equal(opened(deployed, 1)(images()), after)


@pytest.mark.fault("caches", "ok")
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "folder"])
def test_a_damaged_one_is_made_again(run, caplog, damage):
    deployed = artifact.of_file(run)
    expected = opened(deployed, 1)(images())
    (entry,) = entries()
    whole = entry.read_bytes()
    entry.unlink()
    if damage == "folder":
        entry.mkdir()
    else:
        other = bytes([whole[1000] ^ 4])
        entry.write_bytes({"bit": whole[:1000] + other + whole[1001:], "cut": whole[:-500], "empty": b""}[damage])
    caplog.clear()
    np.testing.assert_array_equal(opened(deployed, 1)(images()), expected)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"{entry}: damaged; it is made again"]
    if damage != "folder":
        assert entry.read_bytes() == whole


@pytest.mark.fault("caches", "ok")
def test_a_cache_that_cannot_be_written_changes_nothing(run, caplog):
    caplog.set_level("INFO", "mindghost")
    shelf = Path(os.environ["MINDGHOST_HOME"]) / "plans"
    shelf.write_text("somebody's file", encoding="utf-8")
    deployed = artifact.of_file(run)
    first, second = (opened(deployed, 1)(images()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    said = [line for line in caplog.messages if "is not kept" in line]
    assert len(said) == 2
    assert said[0].startswith(f"the program of {run} is not kept: ")
    assert shelf.read_text(encoding="utf-8") == "somebody's file"


def test_an_odd_place_for_the_cache(run, tmp_path, monkeypatch):
    for name, count in (("my câche\n2", 1), ("a:b", 0)):
        home = tmp_path / name
        home.mkdir()
        (home / "native").symlink_to(Path(os.environ["MINDGHOST_HOME"]) / "native")
        with monkeypatch.context() as context:
            context.setenv("MINDGHOST_HOME", str(home))
            found = [opened(artifact.of_file(run), 1)(images()) for _ in range(2)]
            np.testing.assert_array_equal(*found)
            assert len(entries()) == count


def test_several_that_keep_at_once(run):
    deployed = artifact.of_file(run)
    expected = opened(deployed, 1)(images())
    (entry,) = entries()
    content = entry.read_bytes()
    # Processes, as such starts are.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        keep = partial(kept._SHELF.keep, entry.name)
        list(pool.map(keep, [content.rpartition(b"\nsha256:")[0]] * 40))
    assert entries() == [entry]
    np.testing.assert_array_equal(kept.find(deployed)(images()), expected)


@pytest.mark.parametrize(
    "keys",
    [
        {"native_ops": "off"},
        {"compile_cache": False},
        {"val_amp_level": "O2"},
        {"interpolation": "bicubic"},
        {"dataset": "cifar10"},
        {"model": "ghost_airbench"},
        {"model": "ghost_lraspp", "backbone": "ghost_resnet50_s4", "task": "segmentation"},
    ],
)
def test_what_has_no_program_is_left_to_mindspore(tmp_path, keys):
    deployed = artifact.of_file(write_run(tmp_path / "run", **{"model": "ghostnet_050", **keys}))
    # Of a run's file some keys are not taken: they are about the machine.
    deployed = replace(deployed, config=deployed.config.replace(**keys))
    found = [opened(deployed, 1)(images(1)) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert kept.find(deployed) is None
    assert entries() == []


def test_only_a_process_alone_on_a_cpu_takes_one(run, monkeypatch):
    deployed = artifact.of_file(run)
    opened(deployed, 1)
    assert kept.find(deployed) is not None
    with monkeypatch.context() as context:
        context.setattr(kept.glob, "glob", lambda pattern: ["/dev/davinci0"] if "davinci" in pattern else [])
        assert kept.find(deployed) is None
    with monkeypatch.context() as context:
        context.setattr(kept.launch, "detect", lambda: Launch("mpirun", 2))
        assert kept.find(deployed) is None
    with monkeypatch.context() as context:
        context.setenv("MS_COMPILER_CACHE_ENABLE", "1")
        assert kept.find(deployed) is None


@pytest.mark.fault("weights", "clean error")
def test_what_was_refused_is_refused_with_a_program_there(run, tmp_path):
    """The same line as from a start that has none."""

    def refusal(deployed: Deployment) -> str:
        with pytest.raises(UserError) as caught:
            opened(deployed, 1)
        return str(caught.value)

    deployed = artifact.of_file(run)
    config = deployed.config
    cases = [
        replace(deployed, config=config.replace(num_classes=4), classes=("a", "b", "c", "d")),
        replace(deployed, config=config.replace(in_channels=4)),
        replace(deployed, config=config.replace(model="ghostnetv2_100")),
    ]
    expected = [refusal(each) for each in cases]
    opened(deployed, 1)
    assert len(entries()) == 1
    assert [refusal(each) for each in cases] == expected
    for line, part in zip(expected, ("num_classes: 4", "in_channels: 4", "does not fit"), strict=True):
        assert part in line
    # Its sidecar says that it is another file.
    run.write_bytes(run.read_bytes()[:-1])
    assert "damaged" in refusal(deployed)
    (tmp_path / "names.txt").write_text("ant\nbee\n", encoding="utf-8")
    with pytest.raises(UserError, match="2 names, but the network has 3 outputs"):
        artifact.of_file(run, class_names=tmp_path / "names.txt")


def test_a_prefix_is_said_again(run, caplog):
    weights_file.write(run, {f"module.{name}": array for name, array in weights_file.read(run).items()})
    deployed = artifact.of_file(run)
    for _ in range(2):
        caplog.clear()
        opened(deployed, 1)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said == [f"{run}: took the prefix module. off its names"]
    assert len(entries()) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_not_kept(run):
    deployed = artifact.of_file(run)
    place = kept.place_of(deployed)
    weights_file.write(run, {**weights_file.read(run), "classifier.bias": np.ones(3, np.float32)})
    program = kept.Finished(np.zeros(3, np.int64), np.zeros(2, np.float32), 3)
    kept.keeper(place, deployed, "")(program)
    assert entries() == []
    kept.keeper(kept.place_of(deployed), deployed, "")(program)
    assert len(entries()) == 1


def test_a_mindspore_with_other_pixels_keeps_none(run, monkeypatch):
    monkeypatch.setattr(resizing, "_agreeing", {jpeg.decoder("auto"): False})
    opened(artifact.of_file(run), 1)
    assert entries() == []
