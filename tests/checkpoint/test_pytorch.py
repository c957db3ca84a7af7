"""PyTorch's files, hostile ones among them: what is not tensors is refused by name, and nothing in them runs."""

import argparse
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from mindghost.checkpoint import pytorch as pytorch_file
from mindghost.checkpoint import weights as weights_file
from mindghost.errors import UserError
from tests.helpers.converted import assert_golden, assert_same


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
        ("raise ImportError('No module named torch')", "pip install 'torch>=2.6'"),
        ("__version__ = '2.5.1+cpu'", "reads safely from 2.6 on, and this one is 2.5.1+cpu; pip install 'torch>=2.6'"),
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


@pytest.mark.fault("PyTorch files", "clean error")
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
            assert "refused, since it asks for " in error or "pip install 'torch>=2.6'" in error
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
    status, output, _ = run(tmp_path / "last.pth.tar", tmp_path / "raw.ckpt")
    assert status == 0
    assert "took off the prefix module._orig_mod." in output
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


@pytest.mark.fault("PyTorch files", "clean error")
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
        (
            lambda torch: archive_of(
                torch,
                {f"{start}bn1.{kind}": torch.ones(2) for start in ("", "module.") for kind in ("bias", "running_mean")},
            ),
            "twice, also as module.bn1.",
        ),
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
