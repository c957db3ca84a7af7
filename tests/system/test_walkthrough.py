"""docs/walkthrough.md: every command of it, as it is written."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.launchers import environment
from tests.helpers.places import ROOT

DOCUMENT = ROOT / "docs" / "walkthrough.md"


def commands() -> list[str]:
    """The document's shell blocks."""
    return re.findall(r"^```bash\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder that the document's commands were run in, and what each block printed."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "examples").symlink_to(ROOT / "examples")
    # One shell, as a reader's: variables and the folder stay.
    mark = "= end of block ="
    script = "set -e\n" + "".join(f"{block}echo '{mark}'\n" for block in commands())
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder, done.stdout.split(mark)[:-1]


def top_1(printed: str) -> float:
    """The accuracy in the JSON line of `mindghost validate`."""
    (line,) = (line for line in printed.splitlines() if line.startswith('{"model"'))
    return json.loads(line)["top_1"]


@pytest.mark.slow
def test_each_step_leaves_what_the_document_says(walked):
    folder, printed = walked
    assert len(printed) == len(commands()) == 9
    runs = folder / "runs"
    counts = {name: len(list((runs / "holes" / "train" / name).iterdir())) for name in ("none", "one", "two")}
    assert counts == {"none": 5 * 15, "one": 4 * 15, "two": 15}
    assert "<html" in (runs / "tuned" / "report" / "report.html").read_text()
    assert (runs / "tuned" / "model_card.md").read_text().startswith("---\n")
    names = {path.name for path in (runs / "deploy").iterdir()}
    assert {f"ghostnet_100_best{end}" for end in (".mindir", ".onnx", ".json", "_int8.onnx", "_int8.json")} <= names


@pytest.mark.slow
def test_fine_tuning_is_worth_it_and_int8_keeps_it(walked):
    _, printed = walked
    tuned, quantised = top_1(printed[4]), top_1(printed[6])
    # Half of the images have no hole.
    assert tuned > 80
    assert quantised >= tuned - 1


@pytest.mark.slow
def test_plain_onnx_runtime_answers_as_predict_does(walked):
    folder, printed = walked
    answers = dict(line.split("\t")[:2] for line in printed[8].splitlines() if line.startswith("../holes"))
    assert len(answers) == len(list((folder / "runs" / "holes" / "val" / "two").iterdir())) == 15
    for path, answer in answers.items():
        (row,) = (line for line in printed[7].splitlines() if path.removeprefix("../") in line)
        _, percent, name = row.split()
        # Pixels that are resized in two ways may differ by a rounding: an answer at even odds may be the other one.
        assert answer == name or float(percent) < 60
