"""JSON that every reader takes: what is not finite is null in it."""

import json
import re

import numpy as np
import pytest

from mindghost.config import Config
from mindghost.files import json_text
from mindghost.runs.folder import RunFolder
from tests.helpers.places import ROOT

NAN, INFINITY = float("nan"), float("inf")
# Digests of facts, and what the processes of one program tell each other: nobody else reads those.
AMONG_OURSELVES = {
    "files/json_text.py",
    "data/samples.py",
    "pack/writer.py",
    "tar/index.py",
    "parallel/ranks.py",
    "checkpoint/pytorch.py",
    "parallel/mpi_bridge.py",
    "contenders/job.py",
    "contenders/prepare.py",
    "contenders/shipped.py",
}


def strictly(text: str) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("indent", [None, 1])
def test_what_is_not_finite_is_null_at_any_depth(indent):
    value = {
        "loss": NAN,
        "rows": [(INFINITY, 1.5), {"x": -INFINITY}],
        "n": 3,
        "t": True,
        "s": "NaN",
        "np": np.float64(NAN),
    }
    expected = {"loss": None, "rows": [[None, 1.5], {"x": None}], "n": 3, "t": True, "s": "NaN", "np": None}
    assert strictly(json_text.dumps(value, indent)) == expected
    finite = {"a": [1, 0.1, None, "é\udc80"]}
    assert json_text.dumps(finite, indent) == json.dumps(finite, indent=indent)


@pytest.mark.fault("settings", "ok")
def test_a_runs_records_and_sessions_are_json(tmp_path):
    with RunFolder(Config(model="ghostnet_050", ckpt_save_dir=str(tmp_path / "run"))) as folder:
        folder.start()
        folder.add_record({"epoch": 1, "top_1": None, "val_loss": NAN, "images_per_second": INFINITY})
        folder.add_session({"epoch": 0, "rate": NAN}, None)
    assert strictly(folder.metrics.read_text())["val_loss"] is None
    (session,) = strictly(folder.sessions.read_text())
    assert (session["epoch"], session["rate"]) == (0, None)


def test_no_other_writer_of_json():
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").glob("*.py"), *ROOT.glob("*.py")]
    writers = {"/".join(path.parts[-2:]) for path in files if re.search(r"\bjson\.dumps?\(", path.read_text())}
    assert writers <= AMONG_OURSELVES
