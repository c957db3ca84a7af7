"""Names and formats: there and back, all or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.load import fill_network
from mindghost.checkpoint.names import our_names, timm_names
from mindghost.errors import UserError
from mindghost.models import create_model, list_models, reparam
from mindghost.models.registry import CARDS
from tests.helpers.converted import NAME, assert_golden, assert_same, golden_example, loaded, write_safetensors
from tests.helpers.families import one_of_each
from tests.helpers.places import GOLDEN, ROOT
from tests.helpers.weights import golden_state


@pytest.mark.parametrize("name", one_of_each(list_models()))
def test_names_go_there_and_back(name):
    names = [parameter.name for parameter in create_model(name, num_classes=2).get_parameters()]
    theirs = timm_names(names)
    assert {t: o for o, t in theirs.items()} == our_names(list(theirs.values()))
    assert len(set(theirs.values())) == len(names)
    golden = GOLDEN / f"{name}.json"
    if golden.exists():
        original = [entry for entry, _, _ in json.loads(golden.read_text())["entries"]]
        assert sorted(our_names(original).values()) == sorted(names)


@pytest.mark.parametrize(
    ("ours", "timms", "authors"),
    [
        ("bn1.gamma", "bn1.weight", None),
        ("classifier.bias", "classifier.bias", None),
        ("blocks.9.features.0.weight", "blocks.9.0.conv.weight", None),
        ("blocks.9.features.1.moving_mean", "blocks.9.0.bn1.running_mean", None),
        (
            "blocks.8.3.ghost2.cheap_operation.0.rpr_conv.2.bn.beta",
            "blocks.8.3.ghost2.cheap_rpr_conv.2.bn1.bias",
            "blocks.8.3.ghost2.cheap_rpr_conv.2.bn.bias",
        ),
        (
            "blocks.1.0.conv_dw.rpr_scale.bn.moving_variance",
            "blocks.1.0.dw_rpr_scale.bn1.running_var",
            "blocks.1.0.dw_rpr_scale.bn.running_var",
        ),
        ("blocks.0.0.ghost1.fusion_bn.0.gamma", "blocks.0.0.ghost1.fusion_bn.0.weight", None),
        ("layer1.0.downsample.1.gamma", "layer1.0.downsample.1.weight", None),
    ],
)
def test_names_of_every_family(ours, timms, authors):
    assert timm_names([ours]) == {ours: timms}
    for theirs in filter(None, (timms, authors)):
        layer, _, kind = theirs.rpartition(".")
        # A batch norm is known by its statistics.
        statistics = [f"{layer}.running_mean"] if ours.rpartition(".")[2] != kind else []
        assert our_names([theirs, *statistics])[theirs] == ours


@pytest.mark.parametrize("name", one_of_each([name for name in list_models() if name.startswith(("ghostnet", "rep"))]))
def test_names_are_timms(name, timm):
    theirs = [entry for entry in timm.create_model(name).state_dict() if not entry.endswith("num_batches_tracked")]
    names = [parameter.name for parameter in create_model(name).get_parameters()]
    assert sorted(timm_names(names).values()) == sorted(theirs)


def test_timm_has_the_weights_that_cards_name(timm):
    named = {name: facts.timm for name, facts in CARDS.items() if facts.timm}
    assert all(theirs.partition(".")[0] == name for name, theirs in named.items())
    assert set(named.values()) <= set(timm.list_models(pretrained=True))
    assert set(named) == {name for name in CARDS if timm.is_model_pretrained(name)}


def test_timm_takes_what_is_written(ours, run, timm, tmp_path):
    """Strictly, and gives the logits of the original code."""
    import torch

    weights_file.write(tmp_path / "ours.ckpt", ours)
    assert run(tmp_path / "ours.ckpt", tmp_path / "theirs.safetensors")[0] == 0
    network = timm.create_model(NAME)
    timm.models.load_checkpoint(network, str(tmp_path / "theirs.safetensors"), strict=True)
    images, expected = golden_example()
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_from_timms_names_to_ckpt_and_back_bit_by_bit(state, ours, run, tmp_path):
    source = write_safetensors(tmp_path / "timm.safetensors", state)
    status, output, error = run(source, tmp_path / "a.ckpt", "--report", tmp_path / "report.tsv")
    assert (status, error) == (0, "")
    left_out = len(state) - 432
    assert output.endswith(f"432 parameters of {NAME} from {source}; left out {left_out} entries that are no weights\n")
    assert_same(weights_file.read(tmp_path / "a.ckpt"), ours)
    assert (tmp_path / "a.ckpt.sha256").is_file()
    assert_golden(tmp_path / "a.ckpt")

    rows = [line.split("\t") for line in (tmp_path / "report.tsv").read_text().splitlines()]
    assert len(rows) == 1 + 432 + left_out
    mapped = {row[1]: row[2] for row in rows if row[0] == "mapped"}
    assert mapped["blocks.9.0.bn1.running_var"] == "blocks.9.features.1.moving_variance"
    assert len(mapped) == 432
    assert ["mapped", "conv_stem.weight", "conv_stem.weight", "conv_stem.weight", "8x3x3x3", "float32"] in rows
    assert ["left out", "bn1.num_batches_tracked", "-", "-", "scalar", "int64"] in rows

    assert run(tmp_path / "a.ckpt", tmp_path / "b.safetensors")[0] == 0
    assert_same(weights_file.read(tmp_path / "b.safetensors"), golden_state(NAME))
    assert (tmp_path / "b.safetensors.sha256").is_file()
    assert run(tmp_path / "b.safetensors", tmp_path / "c.ckpt")[0] == 0
    assert (tmp_path / "c.ckpt").read_bytes() == (tmp_path / "a.ckpt").read_bytes()
    assert run(tmp_path / "c.ckpt", tmp_path / "d.safetensors")[0] == 0
    assert (tmp_path / "d.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_safetensors_file_stands_for_a_ckpt(state, ours, tmp_path):
    """By either names, and under any name of the file; half-precision weights are widened."""
    assert_golden(write_safetensors(tmp_path / "theirs.ckpt", state))
    halves = {name: array.astype(np.float16) for name, array in ours.items()}
    network = loaded(write_safetensors(tmp_path / "ours.safetensors", halves))
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), halves[parameter.name].astype(np.float32))
    for change, expected in (
        ({"bn1.running_var": None}, r"1 missing: bn1.moving_variance\)"),
        ({"bn1.bias": np.ones(8, np.int32)}, "bn1.beta holds int32"),
        ({"bn1.bias": np.full(8, np.inf, np.float32)}, "bn1.bias holds values that are not finite"),
        ({"bn1.beta": np.ones(8, np.float32)}, "bn1.beta and bn1.bias are one parameter here"),
        ({"classifier.bias": np.ones(9, np.float32)}, r"classifier.bias \(9,\) instead of \(1000,\)"),
    ):
        arrays = {name: array for name, array in (state | change).items() if array is not None}
        with pytest.raises(UserError, match=expected):
            loaded(write_safetensors(tmp_path / "bad.safetensors", arrays))


def test_averaged_weights_of_mindcvs_trainer(ours, run, tmp_path):
    """`--ema` takes `ema.*`; the optimizer's entries are left out in any case."""
    trained = ours | {f"ema.{name}": array + 1 for name, array in ours.items()}
    trained |= {"moments.bn1.gamma": ours["bn1.gamma"], "global_step": np.array([3], np.int32)}
    weights_file.write(tmp_path / "trained.ckpt", trained)
    assert run(tmp_path / "trained.ckpt", tmp_path / "raw.ckpt")[0] == 0
    assert_same(weights_file.read(tmp_path / "raw.ckpt"), ours)
    status, output, _ = run(tmp_path / "trained.ckpt", tmp_path / "ema.ckpt", "--ema")
    assert status == 0
    assert f"{tmp_path / 'trained.ckpt'} (ema); left out 434 entries" in output
    assert_same(weights_file.read(tmp_path / "ema.ckpt"), {name: array + 1 for name, array in ours.items()})
    status, _, error = run(tmp_path / "raw.ckpt", tmp_path / "x.ckpt", "--ema")
    assert status == 2
    assert "holds no averaged weights (ema.*); leave --ema out" in error


@pytest.mark.parametrize("model", ["ghostnetv3_050", "repghostnet_050"])
def test_a_trained_network_is_fused(model, run, tmp_path):
    """What is written loads into the fused network; its weights are those that reparam.fuse makes."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    name = ("--model", model, "--num_classes", 3)
    trained = create_model(model, num_classes=3)
    arrays = {parameter.name: parameter.asnumpy() for parameter in trained.get_parameters()}
    weights_file.write(tmp_path / "trained.ckpt", arrays)
    status, said, error = run(tmp_path / "trained.ckpt", tmp_path / "fused.ckpt", "--deploy", *name)
    assert (status, error) == (0, "")
    assert f"parameters of {model}" in said
    assert ", fused for deploy=True" in said
    deployed = create_model(model, num_classes=3, deploy=True)
    fill_network(deployed, tmp_path / "fused.ckpt", stem="conv_stem", classifier="classifier")
    expected = reparam.fuse(arrays)
    for parameter in deployed.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), expected[parameter.name])

    status, said, _ = run(tmp_path / "fused.ckpt", tmp_path / "theirs.safetensors", *name)
    assert status == 0
    assert f"{len(expected)} parameters of {model} (fused, for deploy=True) from " in said
    assert run(tmp_path / "theirs.safetensors", tmp_path / "back.ckpt", *name)[0] == 0
    assert_same(weights_file.read(tmp_path / "back.ckpt"), expected)
    again = run(tmp_path / "fused.ckpt", tmp_path / "twice.ckpt", "--deploy", *name)
    assert again[0] == 2
    assert "fused.ckpt: holds no branches to fuse; are the weights fused already? leave --deploy out" in again[2]
    other = run(tmp_path / "trained.ckpt", tmp_path / "twice.ckpt", "--deploy")
    assert other[0] == 2
    assert "--deploy: ghostnet_050 has no fused form, only ghostnetv3_* and repghostnet_* have" in other[2]
    assert not (tmp_path / "twice.ckpt").exists()


def test_every_mismatch_is_listed_from_both_sides(state, run, tmp_path):
    wrong = {name: array for name, array in state.items() if not name.startswith("blocks.3.0.")}
    wrong |= {"extra.weight": np.ones((2, 3), np.float32), "blocks.9.0.bn1.bias": np.ones(4, np.float32)}
    source = write_safetensors(tmp_path / "wrong.safetensors", wrong)
    status, output, error = run(source, tmp_path / "out.ckpt")
    assert status == 2
    assert error.count("\n") == 1
    assert error.startswith(f"mindghost convert: error: {source}: does not fit the network (")
    missing = [name for name in golden_state(NAME) if name.startswith("blocks.3.0.")]
    rows = [line.split("\t") for line in output.splitlines()[1:]]
    assert sorted(row[3] for row in rows if row[0] == "missing") == sorted(missing)
    assert f"{len(missing)} missing: " in error
    assert [row[1] for row in rows if row[0] == "surplus"] == ["extra.weight"]
    assert next(row[1:3] for row in rows if row[0] == "shape") == ["blocks.9.0.bn1.bias", "blocks.9.features.1.beta"]
    assert len(rows) == len(missing) + 2
    assert [file.name for file in tmp_path.iterdir()] == ["wrong.safetensors"]
    status, output, _ = run(source, tmp_path / "out.ckpt", "--report", tmp_path / "all.tsv")
    assert (status, output) == (2, "")
    assert "\nmissing\t" in (tmp_path / "all.tsv").read_text()
    assert not (tmp_path / "out.ckpt").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("in.safetensors", "out.pth"), "out.pth: the file to write must end in .ckpt or .safetensors"),
        (("in.safetensors", "nowhere/out.ckpt"), "nowhere/out.ckpt: there is no folder nowhere"),
        (("in.safetensors", "in.safetensors"), "in.safetensors: is what is read"),
        (("in.safetensors", "folder.ckpt"), "folder.ckpt: a folder, not a file"),
        (("nowhere.pth", "out.ckpt"), "nowhere.pth: no such file"),
        (("in.safetensors", "out.ckpt", "--model", "ghostnet_105"), "--model: 'ghostnet_105' is not known"),
        (("in.safetensors", "out.ckpt", "--model", "ghostnet_100"), "give the model that the file was made with"),
        (("in.safetensors", "out.ckpt", "--num_classes", 10), "give the --num_classes that the file was made with"),
        (("in.safetensors", "out.ckpt", "--in_channels", 1), "give the --in_channels that the file was made with"),
        (("in.safetensors", "out.ckpt", "--ema"), "holds no averaged weights"),
        (("in.safetensors", "out.ckpt", "--report", "in.safetensors"), "in.safetensors: is a weight file"),
        (("in.safetensors", "out.ckpt", "--report", "nowhere/r.tsv"), "nowhere/r.tsv: there is no folder nowhere"),
        (("cut.safetensors", "out.ckpt"), "cut.safetensors: a damaged .safetensors file"),
        (("text.pth", "out.ckpt"), "text.pth: not a MindSpore checkpoint or .safetensors file"),
        (("empty.pth", "out.ckpt"), "empty.pth: not a MindSpore checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, expected, state, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = write_safetensors(tmp_path / "in.safetensors", state).read_bytes()
    Path("cut.safetensors").write_bytes(content[: len(content) // 2])
    Path("text.pth").write_text("Not weights, but a page that says that the file was not found.")
    Path("empty.pth").touch()
    Path("folder.ckpt").mkdir()
    before = {file: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()}
    status, _, error = run(*arguments)
    assert status == 2
    assert error.count("\n") == 1
    assert expected in error
    assert {file: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_command(state, tmp_path):
    """In a process of its own, from another folder."""
    source = write_safetensors(tmp_path / "in.safetensors", state)
    command = [sys.executable, "-m", "mindghost", "convert", source, "out.ckpt", "--model", NAME]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out.ckpt: 432 parameters of ghostnet_050")
    assert (tmp_path / "out.ckpt").is_file()


# PyTorch files, with stand-ins for torch.
