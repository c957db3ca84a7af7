"""docs/walkthrough-masks.md: every command of it, as it is written, with a network of five bottlenecks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.launchers import environment
from tests.helpers.places import ROOT

DOCUMENT = ROOT / "docs" / "walkthrough-masks.md"
PROGRAM = """#!{python}
import sys
sys.path[:0] = ["{root}/src", "{root}"]
from mindghost.process.signals import importing
with importing():
    from mindghost.models import ghostnet
    from tests.helpers import short
ghostnet.STAGES = short.all_strides()
from mindghost.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder that the page's commands were run in, and what each block printed."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "examples").symlink_to(ROOT / "examples")
    program = folder / "bin" / "mindghost"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, root=ROOT))
    program.chmod(0o755)
    blocks = re.findall(r"^```bash\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    mark = "= end of block ="
    script = "set -e\n" + "".join(f"{block}echo '{mark}'\n" for block in blocks)
    paths = environment(folder)
    paths["PATH"] = f"{program.parent}:{paths['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=paths, capture_output=True, text=True, timeout=1200
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "runs", done.stdout.split(mark)[:-1]


def record(printed: str) -> dict:
    """The JSON line of `mindghost validate`."""
    (line,) = (line for line in printed.splitlines() if line.startswith('{"model"'))
    return json.loads(line)


@pytest.mark.slow
def test_each_step_leaves_what_the_page_says(walked):
    runs, printed = walked
    assert len(printed) == 6
    assert "<html" in (runs / "masks" / "report" / "report.html").read_text()
    assert {path.name for path in (runs / "shipped").iterdir()} >= {
        f"ghost_unet_best{end}" for end in (".onnx", ".json", "_int8.onnx", "_int8.json")
    }
    facts = json.loads((runs / "shipped" / "ghost_unet_best_int8.json").read_text())
    assert facts["input"]["shape"] == [None, 3, None, None]
    assert facts["classes"] == ["ground", "zero", "one", "four"]
    assert facts["colors"][1] == [230, 25, 75]


@pytest.mark.slow
def test_it_learns_and_int8_keeps_that(walked):
    _, printed = walked
    trained, quantised = record(printed[2]), record(printed[4])
    # All ground would be 20 %.
    assert trained["miou"] > 35
    assert quantised["miou"] >= trained["miou"] - 2
    assert set(quantised["iou"]) == {"ground", "zero", "one", "four"}


@pytest.mark.slow
def test_plain_onnx_runtime_writes_the_masks(walked):
    """Those of the float checkpoint, but for what int8 changes; shares are those of the mask."""
    runs, printed = walked
    equal = []
    lines = [line.split("\t") for line in printed[5].strip().splitlines()]
    assert len(lines) == 20
    for path, first, *_ in lines:
        name = Path(path).stem
        plain, ours = (
            np.asarray(Image.open(file))
            for file in (runs / "shipped" / f"{name}.mask.png", runs / "masks" / "found" / f"{name}.png")
        )
        assert plain.shape == ours.shape == (64, 96)
        assert first == f"ground {(plain == 0).mean():.1%}"
        equal.append((plain == ours).mean())
    assert np.mean(equal) > 0.95
