"""The picture of runs: what is drawn equals the records, what cannot be drawn is one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mindghost import tasks
from mindghost.cli import main
from mindghost.runs import curves
from mindghost.runs.metrics import read_records
from tests.helpers.places import ROOT

CURVES = {
    "loss": {"training": "train_loss", "validation": "val_loss"},
    "validation accuracy (%)": {"top-1": "top_1", "top-5": "top_5"},
    "learning rate": {"learning rate": "lr"},
}


def write_run(folder: Path, epochs: int, validated_every: int | None = 1, top_5: bool = True) -> list[dict]:
    """A run's metrics.jsonl, with numbers that differ everywhere; returns the records."""
    records = []
    for epoch in range(1, epochs + 1):
        record = {"epoch": epoch, "step": 10 * epoch, "lr": 0.4 / epoch, "train_loss": 7 / epoch}
        validated = validated_every and epoch % validated_every == 0
        for key, value in (("val_loss", 6 / epoch), ("top_1", 70 - 60 / epoch), ("top_5", 90 - 60 / epoch)):
            record[key] = value if validated and (top_5 or key != "top_5") else None
        records.append(record)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def run(*arguments: object, capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    status = main.run(["plot", *map(str, arguments)])
    return status, *capsys.readouterr()


def drawn(figure) -> dict[tuple[str, str, str], list[tuple]]:
    """Points of each line, by its panel, its name and its colour."""
    return {
        (panel.get_ylabel(), line.get_label(), str(line.get_color())): list(zip(*line.get_data(), strict=True))
        for panel in figure.axes
        for line in panel.lines
    }


@pytest.mark.parametrize("epochs", [1, 3, 600])
@pytest.mark.parametrize(("validated_every", "top_5"), [(1, True), (1, False), (3, True), (None, True)])
def test_lines_equal_the_records(epochs, validated_every, top_5, tmp_path):
    runs = [(name, write_run(tmp_path / name, n, validated_every, top_5)) for name, n in (("a", epochs), ("b", 2))]
    expected = [
        (panel, name, [(record["epoch"], record[key]) for record in records if record[key] is not None])
        for panel, curves in CURVES.items()
        for _, records in runs
        for name, key in curves.items()
    ]
    figure = curves.draw(runs, tasks.score_titles())
    found = [(panel, name, points) for (panel, name, _), points in drawn(figure).items()]
    assert found == [line for line in expected if line[2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_scores_of_any_task(tmp_path):
    """A run of several labels beside one of classes."""
    records = write_run(tmp_path / "a", 3)
    several = [{key: value for key, value in r.items() if not key.startswith("top")} for r in records]
    several = [{**record, "mean_average_precision": 10.0 * record["epoch"]} for record in several]
    panel = curves.draw([("a", records), ("b", several)], tasks.score_titles()).axes[1]
    assert panel.get_ylabel() == "validation score (%)"
    lines = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
    assert list(lines) == ["top-1", "top-5", "mAP"]
    assert lines["mAP"] == [10, 20, 30]


def test_a_score_that_is_always_100_says_nothing(tmp_path):
    """Unless it is the only one."""
    records = write_run(tmp_path / "a", 3)
    of_few_classes = [{**record, "top_5": 100.0} for record in records]
    perfect = [{**record, "top_1": 100.0} for record in of_few_classes]
    for runs, expected in (
        ([of_few_classes], ["top-1"]),
        ([of_few_classes, records], ["top-1", "top-1", "top-5", "top-5"]),
        ([perfect], ["top-1", "top-5"]),
    ):
        panel = curves.draw([(str(index), run) for index, run in enumerate(runs)], tasks.score_titles()).axes[1]
        assert sorted(line.get_label() for line in panel.lines) == expected


def test_a_run_has_one_colour_and_its_curves_are_told_apart(tmp_path):
    runs = [(name, write_run(tmp_path / name, 5)) for name in "abc"]
    panel = curves.draw(runs, tasks.score_titles()).axes[0]
    looks = [(line.get_color(), line.get_linestyle()) for line in panel.lines]
    assert len(set(looks)) == 6
    assert len({color for color, _ in looks}) == 3
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["training", "validation"]


@pytest.mark.parametrize(("epochs", "marked"), [(1, True), (40, True), (41, False)])
def test_few_points_are_marked(epochs, marked, tmp_path):
    lines = curves.draw([("a", write_run(tmp_path / "a", epochs))], tasks.score_titles()).axes[0].lines
    assert all((line.get_marker() != "None") == marked for line in lines)


def test_a_last_line_that_is_being_written_is_left_out(tmp_path):
    records = write_run(tmp_path / "a", 3)
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "step"')
    assert read_records(tmp_path / "a" / "metrics.jsonl") == records


def test_the_picture_of_one_run_lies_in_its_folder(tmp_path, capsys):
    write_run(tmp_path / "a", 3)
    status, said, error = run(tmp_path / "a", capsys=capsys)
    assert (status, said, error) == (0, f"wrote {tmp_path / 'a' / 'metrics.png'}\n", "")
    with Image.open(tmp_path / "a" / "metrics.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1080, 1200))
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_names_that_matplotlib_would_change_and_several_runs(tmp_path, monkeypatch, capsys):
    """A formula, a label that legends leave out, one name twice."""
    folders = [tmp_path / "x" / "_$a$", tmp_path / "x" / "$\\frac$", tmp_path / "y" / "_$a$", tmp_path / ("n" * 200)]
    for folder in folders:
        write_run(folder, 2)
    monkeypatch.chdir(tmp_path)
    files = [folders[0], folders[1] / "metrics.jsonl", *folders[2:]]
    status, said, error = run(*files, capsys=capsys)
    assert (status, said, error) == (0, "wrote metrics.png\n", "")
    assert Image.open("metrics.png").size == (1080, 1200)
    assert curves.names([folder / "metrics.jsonl" for folder in folders]) == list(map(str, folders))
    assert curves.names([folder / "metrics.jsonl" for folder in folders[:2]]) == ["_$a$", "$\\frac$"]


LINE = '{"epoch": 1, "lr": 0.1, "train_loss": 2.0, "val_loss": null, "top_1": null, "top_5": null}\n'


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (None, ["{run}"], "{run}/metrics.jsonl: no such file"),
        (LINE, ["{run}/nowhere"], "{run}/nowhere: no such file"),
        ("", ["{run}"], "metrics.jsonl: no epoch is finished yet"),
        ('{"epo', ["{run}"], "metrics.jsonl: no epoch is finished yet, the first is being written"),
        (LINE + "what\n", ["{run}"], "metrics.jsonl:2: expected a JSON object"),
        ("[1]\n", ["{run}"], "metrics.jsonl:1: expected a JSON object"),
        ("\x00\xff\n", ["{run}"], "metrics.jsonl:1: expected a JSON object"),
        (LINE.replace('"lr": 0.1, ', ""), ["{run}"], "metrics.jsonl:1: lr: expected a number, got nothing"),
        (LINE.replace("2.0", '"2"'), ["{run}"], "metrics.jsonl:1: train_loss: expected a number, got '2'"),
        (LINE.replace("2.0", "null"), ["{run}"], "metrics.jsonl:1: train_loss: expected a number, got None"),
        (LINE, ["{run}", "--output", "/proc/x.png"], "/proc/x.png: cannot be written"),
        (LINE, ["{run}", "--output", "x.pdf"], "--output: x.pdf does not end with .png"),
        (LINE, ["{run}", "--outptu", "x.png"], "unrecognized arguments: --outptu"),
        (LINE, [], "the following arguments are required: RUN"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(content, arguments, expected, tmp_path, capsys):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    arguments = [argument.format(run=tmp_path) for argument in arguments]
    status, said, error = run(*arguments, capsys=capsys)
    assert (status, said) == (2, "")
    assert error.startswith("mindghost plot: error: ")
    assert expected.format(run=tmp_path) in error
    assert error.count("\n") == 1


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "a", 1)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, error = run(tmp_path / "a", capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "pip install matplotlib" in error


def test_help_as_a_user_types_it():
    command = [sys.executable, "-m", "mindghost", "plot", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(word in result.stdout for word in ("RUN", "--output PNG", "metrics.jsonl", "learning rate"))
