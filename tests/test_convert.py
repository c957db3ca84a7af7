"""Weights from elsewhere: names, formats, hostile files, all or nothing."""

import argparse
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ghostnet import checkpoint, convert, pytorch_file, safetensors_file, weights_file
from ghostnet.cli import run_command
from ghostnet.errors import UserError
from ghostnet.models import create_model, list_models, reparam
from scripts import convert_weights
from tests.conftest import GOLDEN, golden_state

ROOT = Path(__file__).parent.parent
NAME = "ghostnet_050"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """The golden weights by PyTorch names, with the counters of PyTorch's batch norms and of thop."""
    arrays = golden_state(NAME)
    layers = [name.removesuffix(".running_var") for name in arrays if name.endswith(".running_var")]
    counters = {f"{layer}.num_batches_tracked": np.array(7) for layer in layers}
    return arrays | counters | {"total_ops": np.zeros(1), "blocks.0.0.total_params": np.zeros(1)}


@pytest.fixture(scope="module")
def ours(state) -> dict[str, np.ndarray]:
    """The same by our names, in the network's order."""
    return convert.from_pytorch(state)


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit status, standard output and standard error of scripts/convert_weights.py with these arguments."""

    def command(*arguments: object) -> tuple[int, str, str]:
        model = () if "--model" in arguments else ("--model", NAME)
        monkeypatch.setattr(sys, "argv", ["convert_weights.py", *map(str, arguments), *model])
        status = run_command("convert_weights.py", convert_weights.main)
        return status, *capsys.readouterr()

    return command


def write_safetensors(path: Path, arrays) -> Path:
    path.write_bytes(safetensors_file.encode(arrays))
    return path


def loaded(path: Path) -> ms.nn.Cell:
    network = create_model(NAME)
    checkpoint.load_weights(network, path, stem="conv_stem", classifier="classifier")
    return network


def golden_example() -> tuple[np.ndarray, np.ndarray]:
    """Images and the original code's logits for them, of one size."""
    golden = np.load(GOLDEN / f"{NAME}.npz")
    key = golden.files[0]
    images = np.random.default_rng(20200613).standard_normal((2, 3, *map(int, re.findall(r"\d+", key))))
    return images.astype(np.float32), golden[key]


def assert_golden(path: Path) -> None:
    """The weights give the logits of the original code."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = loaded(path).set_train(False)
    images, expected = golden_example()
    np.testing.assert_allclose(network(Tensor(images)).asnumpy(), expected, rtol=0, atol=1e-4)


def assert_same(found, expected) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("name", list_models())
def test_names_go_there_and_back(name):
    names = [parameter.name for parameter in create_model(name, num_classes=2).get_parameters()]
    theirs = convert.timm_names(names)
    assert {t: o for o, t in theirs.items()} == convert.our_names(list(theirs.values()))
    assert len(set(theirs.values())) == len(names)
    golden = GOLDEN / f"{name}.json"
    if golden.exists():
        original = [entry for entry, _, _ in json.loads(golden.read_text())["entries"]]
        assert sorted(convert.our_names(original).values()) == sorted(names)


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
        ("layer1.0.downsample.1.gamma", "layer1.0.downsample.1.weight", None),
    ],
)
def test_names_of_every_family(ours, timms, authors):
    assert convert.timm_names([ours]) == {ours: timms}
    for theirs in filter(None, (timms, authors)):
        layer, _, kind = theirs.rpartition(".")
        # A batch norm is known by its statistics.
        statistics = [f"{layer}.running_mean"] if ours.rpartition(".")[2] != kind else []
        assert convert.our_names([theirs, *statistics])[theirs] == ours


@pytest.mark.parametrize("name", list_models())
def test_names_are_timms(name):
    timm = pytest.importorskip("timm")
    if name not in timm.list_models():
        pytest.skip("timm has no such network")
    theirs = [entry for entry in timm.create_model(name).state_dict() if not entry.endswith("num_batches_tracked")]
    names = [parameter.name for parameter in create_model(name).get_parameters()]
    assert sorted(convert.timm_names(names).values()) == sorted(theirs)


def test_timm_takes_what_is_written(ours, run, tmp_path):
    """Strictly, and gives the logits of the original code."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
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


def test_a_trained_ghostnetv3_is_fused(run, tmp_path):
    """What is written loads into the fused network; the file's logits are those of reparam.fuse's weights."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    name = ("--model", "ghostnetv3_050", "--num_classes", 3)
    trained = create_model("ghostnetv3_050", num_classes=3)
    arrays = {parameter.name: parameter.asnumpy() for parameter in trained.get_parameters()}
    weights_file.write(tmp_path / "trained.ckpt", arrays)
    status, said, error = run(tmp_path / "trained.ckpt", tmp_path / "fused.ckpt", "--deploy", *name)
    assert (status, error) == (0, "")
    assert "parameters of ghostnetv3_050" in said
    assert ", fused for deploy=True" in said
    deployed = create_model("ghostnetv3_050", num_classes=3, deploy=True)
    checkpoint.load_weights(deployed, tmp_path / "fused.ckpt", stem="conv_stem", classifier="classifier")
    expected = reparam.fuse(arrays)
    for parameter in deployed.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), expected[parameter.name])

    again = run(tmp_path / "fused.ckpt", tmp_path / "twice.ckpt", "--deploy", *name)
    assert again[0] == 2
    assert "fused.ckpt: holds no branches to fuse; are the weights fused already? leave --deploy out" in again[2]
    other = run(tmp_path / "trained.ckpt", tmp_path / "twice.ckpt", "--deploy")
    assert other[0] == 2
    assert "--deploy: ghostnet_050 has no fused form" in other[2]
    assert not (tmp_path / "twice.ckpt").exists()


def test_every_mismatch_is_listed_from_both_sides(state, run, tmp_path):
    wrong = {name: array for name, array in state.items() if not name.startswith("blocks.3.0.")}
    wrong |= {"extra.weight": np.ones((2, 3), np.float32), "blocks.9.0.bn1.bias": np.ones(4, np.float32)}
    source = write_safetensors(tmp_path / "wrong.safetensors", wrong)
    status, output, error = run(source, tmp_path / "out.ckpt")
    assert status == 2
    assert error.count("\n") == 1
    assert error.startswith(f"convert_weights.py: error: {source}: does not fit the network (")
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
        (("in.safetensors", "nowhere/out.ckpt"), "nowhere/out.ckpt: there is no such folder"),
        (("in.safetensors", "in.safetensors"), "in.safetensors: is what is read"),
        (("in.safetensors", "folder.ckpt"), "folder.ckpt: no file"),
        (("nowhere.pth", "out.ckpt"), "nowhere.pth: no such file"),
        (("in.safetensors", "out.ckpt", "--model", "ghostnet_105"), "--model: 'ghostnet_105' is not known"),
        (("in.safetensors", "out.ckpt", "--model", "ghostnet_100"), "give the model that the file was made with"),
        (("in.safetensors", "out.ckpt", "--num_classes", 10), "give the --num_classes that the file was made with"),
        (("in.safetensors", "out.ckpt", "--in_channels", 1), "give the --in_channels that the file was made with"),
        (("in.safetensors", "out.ckpt", "--ema"), "holds no averaged weights"),
        (("in.safetensors", "out.ckpt", "--report", "in.safetensors"), "in.safetensors: is a weight file"),
        (("in.safetensors", "out.ckpt", "--report", "nowhere/r.tsv"), "nowhere/r.tsv: cannot be written"),
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
    command = [sys.executable, ROOT / "scripts" / "convert_weights.py", source, "out.ckpt", "--model", NAME]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out.ckpt: 432 parameters of ghostnet_050")
    assert (tmp_path / "out.ckpt").is_file()


# PyTorch files, with stand-ins for torch.


@pytest.fixture
def stub_torch(tmp_path, monkeypatch):
    """Have the process that reads PyTorch files import this source as torch."""

    def install(source: str) -> None:
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "torch.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))

    return install


# In the process that reads, our module is the main one.
SPINNING = """
import contextlib, sys
sys.modules["__main__"]._CPU_SECONDS = 0
__version__ = "2.6.0"
class serialization:
    safe_globals = contextlib.nullcontext
def load(*given, **options):
    while True:
        pass
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ImportError('No module named torch')", "pip install -e .[torch]"),
        ("__version__ = '2.5.1+cpu'", "reads safely from 2.6 on, and this one is 2.5.1+cpu; pip install -e .[torch]"),
        ("__version__ = '1.13.0a0'", "reads safely from 2.6 on"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died (status -11)"),
        ("import os; os._exit(0)", "died (status 0)"),
        ("import time; time.sleep(99)", "torch did not read it in 1 seconds"),
        (SPINNING, "takes torch far longer to read than weights do"),
    ],
)
def test_without_a_torch_that_can_be_trusted(source, expected, run, stub_torch, tmp_path, monkeypatch):
    stub_torch(source)
    if "sleep" in source:
        monkeypatch.setattr(pytorch_file, "_SECONDS", 1)
    (tmp_path / "w.pth").write_bytes(pickle.dumps({}, protocol=2))
    status, output, error = run(tmp_path / "w.pth", tmp_path / "out.ckpt")
    assert (status, output) == (2, "")
    assert error.count("\n") == 1
    assert expected in error
    assert str(tmp_path / "w.pth") in error
    assert not (tmp_path / "out.ckpt").exists()


class Payload:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(pickled: bytes) -> bytes:
    """A pickle as torch.save's zip format holds it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [bytes, zipped])
@pytest.mark.parametrize("suffix", ["pth", "pth.tar", "ckpt", "safetensors"])
def test_a_pickle_that_would_run_code_does_not(wrap, protocol, suffix, run, stub_torch, tmp_path, monkeypatch):
    """With whatever torch there is, or none. Without the slow import of it for each: two of the files suffice."""
    created = tmp_path / "created"
    for payload in (Payload(open, str(created), "w"), Payload(os.system, f"touch {created}")):
        pickled = pickle.dumps({"state_dict": payload}, protocol=protocol)
        pickle.loads(pickled)
        assert created.exists()  # it would have
        created.unlink()
        source = tmp_path / f"hostile.{suffix}"
        source.write_bytes(wrap(pickled))
        with pytest.raises(UserError, match="hostile"):
            weights_file.read(source)
        if (suffix, protocol) == ("pth", 2):
            monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
            status, output, error = run(source, tmp_path / "out.ckpt")
            assert (status, output) == (2, "")
            assert error.count("\n") == 1
            assert "refused, since it asks for " in error or "pip install -e .[torch]" in error
        assert not created.exists()
        assert not (tmp_path / "out.ckpt").exists()


# PyTorch files, with torch.


def torch_state(torch, state):
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_state_dict_of_torch(zip_format, state, ours, run, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch_state(torch, state), tmp_path / "w.pth", _use_new_zipfile_serialization=zip_format)
    status, output, error = run(tmp_path / "w.pth", tmp_path / "w.ckpt")
    assert (status, error) == (0, "")
    assert "432 parameters" in output
    assert_same(weights_file.read(tmp_path / "w.ckpt"), ours)
    assert_golden(tmp_path / "w.ckpt")


def test_a_training_state_of_torch(state, ours, run, tmp_path):
    """As timm's trainer writes it: wrapped names, averages, optimizer, command line."""
    torch = pytest.importorskip("torch")
    raw, averaged = torch_state(torch, state), {name: array + 1 for name, array in torch_state(torch, state).items()}
    training = {
        "epoch": 3,
        "arch": "ghostnet_050",
        "args": argparse.Namespace(lr=0.1, model="ghostnet_050"),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in raw.items()},
        "state_dict_ema": {name: tensor.bfloat16() for name, tensor in averaged.items()},
    }
    torch.save(training, tmp_path / "last.pth.tar")
    assert run(tmp_path / "last.pth.tar", tmp_path / "raw.ckpt")[0] == 0
    assert_same(weights_file.read(tmp_path / "raw.ckpt"), ours)
    status, output, _ = run(tmp_path / "last.pth.tar", tmp_path / "ema.ckpt", "--ema")
    assert status == 0
    assert "last.pth.tar (state_dict_ema)" in output
    found = weights_file.read(tmp_path / "ema.ckpt")
    widened = {name: torch.from_numpy(array + 1).bfloat16().float().numpy() for name, array in ours.items()}
    assert_same(found, widened)


def archive_of(torch, content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def flipped(torch) -> bytes:
    """A bit of a value is another one; torch itself reads that without a word."""
    content = archive_of(torch, {"w": torch.arange(1000.0)})
    at = content.index(np.arange(500, 510, dtype=np.float32).tobytes())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def bomb(torch) -> bytes:
    """A gigabyte of zeros in a megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as member:
        for _ in range(1024):
            member.write(bytes(1 << 20))
    return file.getvalue()


def shared(torch) -> bytes:
    """4 MB that are in the file once, under 400 names."""
    tensor = torch.ones(1 << 20)
    return archive_of(torch, {f"layer{n}.weight": tensor for n in range(400)})


def claims_a_terabyte(torch) -> bytes:
    """torch's old format, with a storage of 2^40 bytes that are not there."""
    file = io.BytesIO()
    torch.save({"w": torch.ones(77)}, file, _use_new_zipfile_serialization=False)
    # The first 77 of the pickle is the storage's size, as a byte.
    return file.getvalue().replace(b"K\x4d", b"\x8a\x05" + (1 << 38).to_bytes(5, "little"), 1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda torch: archive_of(torch, {"w": torch.ones(9)})[:-40], "damaged, or no file of torch.save"),
        (lambda torch: archive_of(torch, {"w": torch.ones(9)})[:50], "damaged, or no file of torch.save"),
        (lambda torch: b"\x80\x02", "damaged, or no file of torch.save"),
        (flipped, "a wrong CRC of 'archive/data/0'"),
        (bomb, "compressed members"),
        (shared, "the process that read it with torch died (status "),
        (claims_a_terabyte, "damaged, or no file of torch.save"),
        (lambda torch: archive_of(torch, torch.nn.Linear(2, 2)), "asks for torch.nn.modules.linear.Linear"),
        (lambda torch: archive_of(torch, [torch.ones(2)]), "holds a list; expected a state dict"),
        (lambda torch: archive_of(torch, {"epoch": 3}), "'epoch' holds a int, not a tensor"),
        (lambda torch: archive_of(torch, {3: torch.ones(2)}), "3 holds a Tensor, not a tensor"),
        (lambda torch: archive_of(torch, {"state_dict_ema": {"w": torch.ones(2)}, "epoch": 3}), "give --ema"),
        (lambda torch: archive_of(torch, {"w": torch.ones(2), "module.w": torch.ones(2)}), "holds w twice"),
        (lambda torch: archive_of(torch, {"w": torch.ones(1).expand(1 << 40)}), "fewer values than its shape claims"),
        (lambda torch: archive_of(torch, {"w": torch.ones(3).to_sparse()}), "'w' is no plain tensor"),
        (lambda torch: archive_of(torch, {"w": torch.ones(3, device="meta")}), "'w' is no plain tensor"),
        (lambda torch: archive_of(torch, {"w": torch.ones(3, dtype=torch.cfloat)}), "C64"),
        (lambda torch: archive_of(torch, {"w\n\x1b[2J": torch.ones(3)}), "is no name of a parameter"),
        (lambda torch: archive_of(torch, {"w.w": torch.tensor([np.nan])}), "w.w holds values that are not finite"),
        (lambda torch: archive_of(torch, {"w.w": torch.ones(3)}), "432 missing: "),
    ],
)
def test_what_torch_holds_is_not_trusted(make, expected, run, tmp_path):
    torch = pytest.importorskip("torch")
    source = tmp_path / "w.pth"
    source.write_bytes(make(torch))
    status, _, error = run(source, tmp_path / "out.ckpt")
    assert status == 2
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "out.ckpt").exists()
