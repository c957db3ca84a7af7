"""`mindghost benchmark`: its statistics by hand, PyTorch's network against ours, a quick run."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mindghost import benchmark
from mindghost.benchmark import Measured, Plan, picture, summary
from tests.helpers.launchers import run
from tests.helpers.places import ROOT

# Contenders that may be missing.
LIBRARIES = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime"}


def result(*times: float, images: int = 2, startup: float = 1.0, peak: int | None = 100) -> dict:
    return {"times": list(times), "images": images, "startup": startup, "peak_memory": peak}


def run_script(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run([sys.executable, "-m", "mindghost", "benchmark", *arguments], home, timeout=1200)


def test_numbers_by_hand():
    """8 images in 4 + 1 + 2 + 3 = 10 seconds; the 90th percentile of 1, 2, 3, 4 lies 0.7 between the last two."""
    found = summary.numbers([result(4, 1, startup=9, peak=70), result(2, 3, startup=5), result(startup=6, peak=None)])
    assert found == {
        "rounds": 3,
        "first_startup": 9,
        "startup": 5.5,
        "peak_memory": 100,
        "steps": 4,
        "images_per_second": 0.8,
        "median": 2.5,
        "p90": pytest.approx(3.7),
    }


def test_ratio_pairs_the_rounds():
    """The machine was 10 times slower in the second round, for both: ours is 2, then 4, then 3 times as fast."""
    ours = [result(1, 1, 7), result(10), result(2)]
    theirs = [result(2), result(40), result(6)]
    assert summary.ratio(ours, theirs) == 3
    assert summary.ratio(ours, ours) == 1
    assert summary.ratio([], theirs) is None
    # Per image, whatever the batch.
    assert summary.ratio([result(1, images=4)], [result(1, images=2)]) == 2


def test_bandwidth_by_hand():
    """A copy of 100 bytes takes 2 s at best; at 50 bytes a second, 200 bytes are 4 of the step's 8 seconds."""
    copy = {**result(4, 2), "bytes": 100}
    measured = [Measured("training", benchmark.OURS, [result(8, 8, 9)]), Measured("training", benchmark.COPY, [copy])]
    found = summary.bandwidth({"bytes": 200, "fused_bytes": 100}, measured)
    assert found == {"copy": 50, "layers_alone": 0.5, "layers_fused": 0.25}
    assert summary.bandwidth({}, measured[:1]) is None


def test_the_fastest_int8_file_stands_beside_the_fastest_pytorch():
    """Medians decide who: 2 s for int8 in OpenVINO, 6 s for PyTorch compiled; by rounds 8 / 2, 6 / 2, 4 / 2."""
    measured = [
        Measured("latency", "ONNX Runtime, int8", [result(3), result(3), result(3)]),
        Measured("latency", "OpenVINO, int8", [result(2), result(2), result(2)]),
        Measured("latency", "OpenVINO", [result(1), result(1), result(1)]),
        Measured("latency", "PyTorch", [result(7), result(7), result(7)]),
        Measured("latency", "PyTorch module, compiled", [result(8), result(6), result(4)]),
        Measured("latency", "ours", [result(1)]),
        Measured("inference", "OpenVINO, int8", [result(2)]),
        Measured("inference", "PyTorch", note="not installed: torch"),
    ]
    expected = {"file": "OpenVINO, int8", "pytorch": "PyTorch module, compiled", "factor": 3}
    assert summary.integers(measured) == {"latency": expected}
    assert summary.integers(measured[:3]) == {}


def test_ones_own_network_is_measured_where_it_is_named():
    plan = Plan(what=("latency",))
    assert not [one.name for one in plan.asked() if one.own]
    own = [one.name for one in Plan(torch_module="a.py:network").asked() if one.own]
    assert own == [f"PyTorch module{form}" for form in ("", ", channels-last", ", compiled", ", bfloat16",
                                                        ", bfloat16, compiled")]  # fmt: skip


MODULE = """
import torch
from beside import CLASSES

class Network(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last = torch.nn.Linear(3, classes)

    def forward(self, x):
        return self.last(x.mean((2, 3)))

def network(): return Network(CLASSES)
def others(): return Network(7)
def several(): return torch.nn.Sequential(torch.nn.Flatten(), Several())
def number(): return 3
def demanding(classes): return Network(classes)
def picky(): return torch.nn.Linear(3, CLASSES)

class Several(torch.nn.Module):
    def forward(self, x):
        return x, x
"""


def job_of(task: str, torch_module: str, **options):
    from mindghost.benchmark.contenders.job import Job

    common = {"task": task, "variant": "eager", "folder": "", "model": "mine", "image_size": 16, "batch_size": 2}
    more = {"num_classes": 5, "dense": False, "threads": 1, "steps": 3, "seconds": 5, "started": 0.0, "answer": ""}
    return Job(**{**common, **more, "torch_module": torch_module, **options})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("network", None),
        ("others", "its network gives 1 x 7 logits for an image, where 1 x 5 are measured; give --num_classes 7"),
        ("several", "its network gives 'tuple', and not a tensor of logits"),
        ("number", r"number\(\) gives 'int', and not a torch.nn.Module"),
        ("demanding", r"demanding\(\), called without arguments, fails: TypeError"),
        ("picky", "its network takes no images of 3 x 16 x 16: RuntimeError"),
        ("absent", "has no function 'absent'; it has Network, network, others"),
    ],
)
def test_ones_own_network_is_refused_for_a_reason(function, message, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from mindghost.benchmark.contenders import torch_ghostnet, torch_module

    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside.py").write_text("CLASSES = 5\n")
    file = tmp_path / "a file.py"
    file.write_text(MODULE)
    found = torch_module.measure(job_of("check", f"{file}:{function}"))
    if message is not None:
        assert re.search(message, found["refused"]), found
        assert found["refused"].startswith(str(file))
        assert "\n" not in found["refused"]
        return
    assert found == {}
    for task in ("training", "inference"):
        assert len(torch_ghostnet.measure(job_of(task, f"{file}:{function}"))["times"]) == 3


@pytest.mark.parametrize(("text", "message"), [("1 +", "SyntaxError"), ("import nothing_like_it", "No module named")])
def test_a_file_that_cannot_be_imported_is_named(text, message, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from mindghost.benchmark.contenders import torch_module

    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "bad.py"
    file.write_text(text)
    found = torch_module.measure(job_of("check", f"{file}:network"))
    assert found["refused"].startswith(f"{file}: cannot be imported: ")
    assert message in found["refused"]


def test_bfloat16_is_not_emulated(monkeypatch):
    pytest.importorskip("torch")
    from mindghost.benchmark.contenders import torch_ghostnet

    monkeypatch.setattr(torch_ghostnet, "_BFLOAT16", {})
    found = torch_ghostnet.measure(job_of("inference", "", variant="bfloat16 compile"))
    assert found == {"missing": "this processor has no instructions for bfloat16"}


def test_files_to_ship_that_cannot_be_made_have_a_reason(tmp_path, short_network, monkeypatch):
    """int8 of ONNX alone is asked for, so its source is made; a benchmark installs no converter."""
    pytest.importorskip("onnxruntime")
    from mindghost.benchmark.contenders import exported, prepare, recipe
    from mindghost.deploy import tools

    monkeypatch.setattr(tools.Tool, "installed", False)
    kinds = ("onnx int8", "litert", "litert int8")
    job = job_of("inference", "", folder=str(tmp_path), model="ghostnet_050", image_size=32, variant=";".join(kinds))
    prepare.measure(job)
    found = exported.measure(job_of("inference", "", folder=str(tmp_path), image_size=32, variant="onnx int8"))
    assert len(found["times"]) == 3
    small, source = ((tmp_path / recipe.FILES[kind]).stat().st_size for kind in ("onnx int8", "onnx"))
    assert small < 0.6 * source
    for kind in kinds[1:]:
        reason = exported.measure(job_of("inference", "", folder=str(tmp_path), image_size=32, variant=kind))["missing"]
        assert reason.startswith("not installed: ")


def test_traffic_by_hand():
    """1x1 convolution of 3 to 2 channels, batch norm, ReLU on 4 x 4 pixels: inputs of 48, 32, 32, outputs of 32."""
    from mindspore import nn

    from mindghost.benchmark.contenders import prepare

    network = nn.SequentialCell(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
    convolution = 3 * 48 + 2 * 32
    norm, relu = 5 * 32 + 3 * 32, 3 * 32 + 2 * 32
    assert prepare.traffic(network, 4) == (4 * (convolution + norm + relu), 4 * convolution)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnet_130", "ghost_unet"])
def test_pytorch_network_has_our_logits(name):
    """Of images of an odd size, too: the U-Net cuts its maps in the same way."""
    torch = pytest.importorskip("torch")
    import mindspore as ms
    from mindspore import Tensor

    from mindghost.benchmark.contenders import prepare, torch_network, torch_segmentation
    from mindghost.models import create_model
    from tests.helpers.weights import randomise

    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model(name, num_classes=5).set_train(False)
    randomise(network, gamma=(0.3, 0.6))
    table = json.loads(json.dumps(prepare.known_table(network)))
    kind = torch_segmentation.TorchGhostUnet if name == "ghost_unet" else torch_network.TorchGhostNet
    theirs = kind(table, 0.2).eval()
    torch_network.load(theirs, prepare.for_torch({p.name: p.asnumpy() for p in network.get_parameters()}))
    images = np.random.default_rng(0).standard_normal((2, 3, 70, 45)).astype(np.float32)
    expected = network(Tensor(images)).asnumpy()
    with torch.inference_mode():
        found = theirs(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_networks_that_pytorch_has_not():
    from mindghost.benchmark.contenders import prepare
    from mindghost.models import create_model

    for options in (
        {"name": "plain_unet"},
        {"name": "ghost_unet", "upsampling": "transposed"},
        {"name": "ghost_lraspp"},
    ):
        assert prepare.known_table(create_model(**options, num_classes=5)) is None
    assert prepare.known_table(create_model("ghost_unet", num_classes=5, backbone="ghostnetv2_100")) is None


def test_contenders_start_without_what_we_set(monkeypatch):
    """Stock MindCV and PyTorch must not profit, or suffer, from our environment."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    by_name = {one.name: one for one in benchmark.CONTENDERS}
    plan = Plan(threads=1)
    for name in ("ours", "mindcv", "PyTorch"):
        found = benchmark.environment(plan, by_name[name])
        assert "ONEDNN_MAX_CPU_ISA" not in found
        assert found["OMP_NUM_THREADS"] == "1"
    assert benchmark.environment(plan, by_name["mindcv, AVX2"])["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    modules = (ROOT / "src" / "mindghost" / "benchmark" / "contenders").glob("*.py")
    # Runtimes of exported files are opened by our code, which keeps that variable from the one that heeds it.
    theirs = [path for path in modules if path.stem not in ("ours", "prepare", "shipped", "exported")]
    assert len(theirs) >= 6
    assert not [
        path.name for path in theirs if re.search(r"^\s*(import|from) (mindghost|\.\.)", path.read_text(), re.M)
    ]


def test_contenders_take_turns_and_missing_ones_are_asked_once(monkeypatch, tmp_path):
    asked = []

    def measure(plan, one, task, folder):
        asked.append(one.name)
        return {
            "PyTorch": ({"missing": "not installed: torch"}, ""),
            "mindcv": ({}, "exit status 1: ValueError: no"),
        }.get(one.name, (result(1), ""))

    monkeypatch.setattr(benchmark, "_measure", measure)
    plan = Plan(rounds=2, contenders=("ours", "mindcv", "PyTorch"))
    measured = benchmark._rounds(plan, "training", str(tmp_path), lambda _: None)
    assert asked == ["ours", "mindcv", "PyTorch", "memory copy", "ours", "memory copy"]
    by_name = {one.contender: one for one in measured}
    assert len(by_name["ours"].results) == 2
    assert by_name["PyTorch"].note == "not installed: torch"
    assert not by_name["PyTorch"].failed
    assert by_name["mindcv"].failed


def test_quick_run(tmp_path):
    """Our network, MindCV's and (where they are installed) PyTorch's and ONNX Runtime, as a person runs them."""
    file = tmp_path / "found.json"
    done = run_script(
        tmp_path, "--quick", "--what", "latency,pipeline", "--threads", "1", "--json", str(file),
        "--contenders", "ours;mindcv;PyTorch;ONNX Runtime;ONNX Runtime, int8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found["tasks"]) == ["latency", "pipeline", "evaluation pipeline"]
    assert found["options"]["threads"] == 1
    assert found["network"]["bytes"] > found["network"]["fused_bytes"] > 0
    for task, entries in found["tasks"].items():
        runtimes = ["PyTorch", "ONNX Runtime", "ONNX Runtime, int8"]
        assert list(entries) == ["ours", "mindcv"] + runtimes * (task == "latency")
        for name, entry in entries.items():
            library = LIBRARIES.get(name.removesuffix(", int8"))
            if library and importlib.util.find_spec(library) is None:
                assert entry == {"note": f"not installed: {library}"}
                assert f"{name}: not installed: {library}" in done.stdout
                continue
            assert 0 < entry["median"] <= entry["p90"]
            assert 1 <= entry["steps"] == len(entry["results"][0]["times"]) <= 3
            assert entry["startup"] > 0
            assert 50e6 < entry["peak_memory"] < 4e9
            assert name in done.stdout
        assert entries["ours"]["ours_is_faster_by"] == 1
    pairs = found["int8"]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("onnxruntime"):
        assert (pairs["latency"]["file"], pairs["latency"]["pytorch"]) == ("ONNX Runtime, int8", "PyTorch")
        assert f"ONNX Runtime, int8 is {pairs['latency']['factor']:.2f} x as fast as PyTorch" in done.stdout
    else:
        assert pairs == {}
    # 16 photos, all of them each time.
    assert found["tasks"]["pipeline"]["ours"]["results"][0]["images"] == 16
    assert found["tasks"]["pipeline"]["mindcv"]["results"][0]["images"] == 16


@pytest.mark.slow
def test_quick_run_of_segmentation(tmp_path):
    """Pixels have labels, and the exported file gives logits of them; as many classes as are usual."""
    file = tmp_path / "found.json"
    done = run_script(
        tmp_path, "--model", "ghost_unet", "--batch_size", "2", "--image_size", "64", "--rounds", "1", "--steps", "3",
        "--what", "training,latency", "--contenders", "ours;ours, native_ops off;mindcv;PyTorch;ONNX Runtime",
        "--json", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["options"]["num_classes"] == 21
    assert found["tasks"]["training"]["mindcv"] == {"note": "MindCV has no ghost_unet"}
    for name, library in {"ours": None, **LIBRARIES}.items():
        if library is None or importlib.util.find_spec(library):
            assert found["tasks"]["latency"][name]["steps"] == 3


@pytest.mark.slow
def test_quick_run_of_everything(tmp_path):
    file, plot = tmp_path / "found.json", tmp_path / "family.png"
    done = run_script(tmp_path, "--quick", "--json", str(file), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert set(found["tasks"]) == {"training", "inference", "latency", "pipeline", "evaluation pipeline", "startup"}
    assert {"copy", "layers_alone", "layers_fused"} == set(found["bandwidth"])
    assert len(found["family"]) == 18
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_family_picture():
    pytest.importorskip("matplotlib")
    entries = picture.points(
        {"ghostnet_050": 0.01, "ghostnet_100": 0.02, "ghostnetv3_100": 0.03, "repghostnet_100": 0.02}
    )
    assert entries[3]["family"] == "RepGhostNet, fused"
    assert entries[2] == {
        "name": "ghostnetv3_100",
        "family": "GhostNetV3, fused",
        "latency": 0.03,
        "macs": 167_048_288,
        "top_1": 77.1,
    }
    content = picture.png(entries, "a machine")
    assert content.startswith(b"\x89PNG")
    assert content != picture.png([{**entry, "latency": 0.5 / entry["top_1"]} for entry in entries], "a machine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--what", "speed"], "--what: 'speed' is none of training, inference"),
        (["--steps", "0"], "--steps: expected an integer from 1 to 4,096, got '0'"),
        (
            ["--contenders", "tensorflow"],
            "--contenders: 'tensorflow' is none of ours; ours, native_ops off; ours, bfloat16; ours, from a pack; "
            "ours, uncompressed pack; mindcv",
        ),
        (["--threads", "4096"], "--threads: 4096, but there are"),
        (["--torch_module", "nowhere.py:network"], f"--torch_module: {Path.cwd().root}"),
        (["--torch_module", "nowhere.py"], "--torch_module: expected FILE:FUNCTION, such as ghostnet.py:ghostnet"),
        (["--contenders", "PyTorch module"], "--contenders: 'PyTorch module' is a network of yours; name it by"),
        (["--json", "nowhere/found.json"], "--json: nowhere/found.json: there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    done = run_script(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mindghost benchmark: error: {message}")
    assert len(done.stderr.splitlines()) == 1
