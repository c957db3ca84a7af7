"""examples/evidence/runner.py: runs one after the other, what they learnt, and how they go on."""

import json
import shlex
import sys
from pathlib import Path

import pytest

import report
import runner
from mindghost.errors import RunError, UserError

# A training that writes what ours writes: an epoch at a time, and stops in the second one unless it is resumed.
TRAINER = """
import json, sys
from pathlib import Path
folder, score, fails = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "fails"
folder.mkdir(parents=True, exist_ok=True)
resumed = "--resume" in sys.argv
with open(folder / "metrics.jsonl", "a") as file:
    for epoch in [2] if resumed else [1, 2]:
        if epoch == 2 and fails and not resumed:
            (folder / "run_state.ckpt").touch()
            sys.exit("no room")
        record = {"epoch": epoch, "train_loss": 2.0 - epoch, "val_loss": 1.0, "lr": 0.1, "top_1": score + 3 - epoch}
        print(json.dumps(record), file=file)
"""


def run_of(variant: str, seed: int, score: float = 70.0, how: str = "fine") -> runner.Run:
    def words(run, folder):
        return [sys.executable, "-c", TRAINER, str(folder), str(score), how]

    return runner.MindghostRun(variant, seed, words)


def results_in(folder: Path) -> runner.Results:
    return runner.Results(folder, "test.py")


def test_runs_are_done_once_and_their_numbers_are_kept(tmp_path, capsys):
    runs = [run_of("wide, ours", seed, score) for seed, score in ((1, 70.0), (2, 72.0))]
    runner.do_all(results_in(tmp_path / "out"), runs)
    assert "wide, ours, seed 2: 73.00 % top-1 (best 74.00 %)" in capsys.readouterr().out
    entries = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert [entry["last"] for entry in entries.values()] == [71.0, 73.0]
    assert entries["wide, ours, seed 1"]["best"] == 72.0
    assert entries["wide, ours, seed 1"]["sessions"] == 1
    assert entries["wide, ours, seed 1"]["command"].startswith(shlex.quote(sys.executable))
    before = (tmp_path / "out" / "runs" / "wide-ours-seed-1" / "metrics.jsonl").stat().st_mtime_ns
    again = results_in(tmp_path / "out")
    runner.do_all(again, runs)
    assert (tmp_path / "out" / "runs" / "wide-ours-seed-1" / "metrics.jsonl").stat().st_mtime_ns == before
    row = next(line for line in report.table(again, ["wide, ours"]).split("\n") if line.startswith("| wide"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["1 2", f"72.00 ± {2**0.5:.2f}", f"73.00 ± {2**0.5:.2f}"]


@pytest.mark.fault("examples", "clean error")
def test_what_was_trained_otherwise_is_not_taken_for_it(tmp_path):
    runner.do_all(results_in(tmp_path / "out"), [run_of("narrow", 1, 70.0)])
    with pytest.raises(UserError, match=r"narrow, seed 1 was trained with other arguments \(now 71\.5\); give another"):
        runner.do_all(results_in(tmp_path / "out"), [run_of("narrow", 1, 71.5)])


def test_a_run_that_failed_says_why_and_goes_on_when_it_is_asked_again(tmp_path):
    results, run = results_in(tmp_path / "out"), run_of("narrow", 1, how="fails")
    with pytest.raises(RunError, match=r"narrow, seed 1: ended with status 1 \(.*narrow-seed-1\.log\): no room"):
        results.do(run)
    first = results.entries[run.name]
    assert (first["done"], first["sessions"]) == (False, 1)
    again = results_in(tmp_path / "out")
    again.do(run)
    entry = again.entries[run.name]
    assert (entry["done"], entry["sessions"], entry["last"]) == (True, 2, 71.0)
    assert [record["epoch"] for record in entry["epochs"]] == [1, 2]
    assert entry["cost"]["wall_seconds"] > first["cost"]["wall_seconds"]
    assert entry["command"].endswith(" 70.0 fails")


def test_a_run_whose_measurement_was_killed_is_marked_in_the_table(tmp_path):
    results, run = results_in(tmp_path / "out"), run_of("narrow", 1, how="fails")
    with pytest.raises(RunError):
        results.do(run)
    results.entries[run.name]["running"] = True  # as it is in the file while a training runs
    results.do(run)
    assert "†: without the time of a session" in report.table(results, ["narrow"])


def test_variants_that_would_share_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="a, b, a b: names of variants have to differ by letters or digits"):
        runner.do_all(results_in(tmp_path / "out"), [run_of("a, b", 1), run_of("a b", 1)])


def test_pictures_are_kept_beside_the_results_and_not_in_the_place_of_others(tmp_path):
    pytest.importorskip("matplotlib")
    results = results_in(tmp_path / "out")
    results.do(run_of("narrow", 1))
    report.write_curves(results, ["narrow", "wide"])
    file = tmp_path / "out" / "curves.png"
    assert file.read_bytes().startswith(b"\x89PNG")
    report.write_curves(results, ["narrow"])
    file.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"curves\.png: exists, and is not what this command has written"):
        report.write_curves(results, ["narrow"])


def test_one_seed_has_no_spread():
    assert report.spread([71.234]) == "71.23"
    assert report.spread([1, 2, 4]) == "2.33 ± 1.53"


def test_later_flags_take_the_place_of_earlier_ones():
    words = ["-c", "finetune", "--scale", "0.35", "1.0", "--ema", "False", "--lr=1"]
    more = ["--scale", "0.5", "1.0", "--lr", "-1"]
    assert runner.merged(words, more) == ["-c", "finetune", "--ema", "False", *more]
    assert runner.merged(words, []) == words


def test_only_names_variants():
    runs = [run_of("a, ours", 1), run_of("a, timm", 1), run_of("b, ours", 1)]
    assert [run.variant for run in runner.chosen(runs, ["ours"])] == ["a, ours", "b, ours"]
    assert runner.chosen(runs, []) == runs
    with pytest.raises(UserError, match="--only: c: in no variant; there are a, ours, a, timm, b, ours"):
        runner.chosen(runs, ["c"])


@pytest.mark.fault("examples", "clean error")
@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("letter", "Dear", "holds files, and no results.json of test.py"),
        ("results.json", '{"made_by": "other.py", "runs": {}}', "was not made by test.py"),
        ("results.json", '{"made_by": "test.py", "runs": {"a, seed 1": {"done": true}}}', "or was changed since"),
        ("results.json", "[", "not JSON"),
    ],
)
def test_a_folder_of_somebody_else_is_refused(tmp_path, name, content, part):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        results_in(tmp_path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / name).read_text() == content
