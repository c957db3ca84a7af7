"""What belongs to a run is what it recorded: nothing else is replaced or deleted, however it is called."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config, load
from mindghost.errors import RunError, UserError
from mindghost.files import intact
from mindghost.runs import files as run_files
from mindghost.runs import folder as run_folder
from mindghost.runs.folder import RunFolder
from tests.helpers.launchers import run as run_process
from tests.helpers.places import ROOT
from tests.helpers.run_folders import WEIGHTS, config, save

RECIPE = "model: ghostnet_050\nepoch_size: 4\n"


def whole_run(path: Path, accuracies=(1.0, 2.0, 3.0), **keys) -> RunFolder:
    """The files of a run that has ended, as train.py makes them, in its order."""
    settings = config(path, keep_checkpoint_max=2, **keys)
    with RunFolder(settings) as folder:
        folder.start(settings.overwrite)
        folder.add_session({"command": "python train.py", "started": "2026-01-01T00:00:00+00:00"}, None)
        folder.log.write_text("2026-01-01 00:00:00 ghostnet_050 on CPU\n")
        folder.config.write_text(settings.to_yaml())
        folder.classes.write_text('["ant", "bee"]')
        for epoch, top_1 in enumerate(accuracies, 1):
            folder.save_weights(WEIGHTS, epoch, 7, best=True, keep=True)
            folder.add_record({"epoch": epoch, "top_1": top_1})
            save(folder, epoch)
    return folder


def forget(folder: RunFolder) -> None:
    """As a run of an older version leaves its folder: without a record."""
    entries = json.loads(folder.sessions.read_text())
    assert entries[-1].pop("files")
    folder.sessions.write_text(json.dumps(entries))


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def add_others(folder: Path) -> dict[str, bytes]:
    """What a user keeps in a run's folder."""
    weights_file.write(folder / "ghostnet_100_best.ckpt", WEIGHTS)
    (folder / "mine-3_7.ckpt").write_text("mine")
    (folder / "ghostnet_050-99_7.ckpt").write_text("mine")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "config.yaml.bak").write_text(RECIPE)
    (folder / "notes.txt").write_text("mine")
    (folder / ".notes.1.0.tmp").write_text("mine")
    (folder / "tensorboard").mkdir(exist_ok=True)
    (folder / "tensorboard" / "events.out.tfevents.1.elsewhere").write_bytes(b"mine")
    names = ("ghostnet_100_best.ckpt", "ghostnet_100_best.ckpt.sha256", "mine-3_7.ckpt", "ghostnet_050-99_7.ckpt")
    names += ("recipe.yaml", "config.yaml.bak", "notes.txt", ".notes.1.0.tmp")
    names += ("tensorboard/events.out.tfevents.1.elsewhere",)
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.fault("overwriting", "ok")
@pytest.mark.parametrize("older", [False, True], ids=["recorded", "of an older version"])
def test_overwriting_deletes_what_the_run_made_and_nothing_else(older, tmp_path):
    folder = whole_run(tmp_path / "run", tensorboard=False)
    others = add_others(folder.path)
    if older:
        forget(folder)
    with RunFolder(config(folder.path, epoch_size=4)) as again:
        with pytest.raises(UserError, match="already holds a run .*--overwrite True to delete it"):
            again.check(overwrite=False)
        again.start(overwrite=True)
    assert contents(folder.path) == others


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", RECIPE),
        ("config.yaml", Config(model="ghostnet_050").to_yaml()),
        ("classes.json", '["ant"]'),
        ("train.log", "my notes\n"),
        ("metrics.jsonl", "{}"),
        ("run.json", '{"files": ["config.yaml"]}'),
        ("ghostnet_050_best.ckpt", "mine"),
        ("ghostnet_050_last.ckpt.sha256", "mine"),
        ("ghostnet_050-3_20.ckpt", "mine"),
        ("run_state.ckpt", "mine"),
    ],
)
def test_a_file_that_no_run_made_is_neither_replaced_nor_offered_for_deletion(name, content, overwrite, tmp_path):
    (tmp_path / name).write_text(content)
    with RunFolder(config(tmp_path)) as folder:
        for call in (folder.check, folder.start):
            with pytest.raises(UserError) as caught:
                call(overwrite=overwrite)
            assert str(caught.value) == (
                f"ckpt_save_dir: {tmp_path} holds {name}, which no run has made there, and this run would replace; "
                "move it away, or give another folder"
            )
    assert contents(tmp_path) == {name: content.encode()}


@pytest.mark.fault("overwriting", "clean error")
def test_a_folder_that_merely_looks_like_a_run_is_not_emptied(tmp_path):
    """Every name that a run gives, by hand: a complete configuration, weights, a log, records."""
    (tmp_path / "config.yaml").write_text(Config(model="ghostnet_050").to_yaml())
    (tmp_path / "classes.json").write_text('["ant"]')
    (tmp_path / "train.log").write_text("notes of mine\n")
    (tmp_path / "ghostnet_050_best.ckpt").write_text("mine")
    (tmp_path / "run.json").write_text("[]")
    before = contents(tmp_path)
    with RunFolder(config(tmp_path)) as folder, pytest.raises(UserError, match="which no run has made there"):
        folder.start(overwrite=True)
    assert contents(tmp_path) == before
    # Another network's weights are in nobody's way.
    for name in ("config.yaml", "classes.json", "train.log", "run.json"):
        (tmp_path / name).unlink()
    with RunFolder(config(tmp_path).replace(model="ghostnet_100")) as folder:
        folder.start()
    assert contents(tmp_path) == {"ghostnet_050_best.ckpt": b"mine"}


@pytest.mark.fault("overwriting", "clean error")
def test_weights_of_another_run_in_an_older_runs_folder_are_kept(tmp_path):
    """Without a digest beside them, or of an epoch that the run has not come to, they are not its own."""
    folder = whole_run(tmp_path / "run")
    forget(folder)
    weights_file.write(folder.path / "ghostnet_050-9_7.ckpt", WEIGHTS)
    with RunFolder(config(folder.path, epoch_size=4)) as again:
        again.start(overwrite=True)
    assert sorted(contents(folder.path)) == ["ghostnet_050-9_7.ckpt", "ghostnet_050-9_7.ckpt.sha256"]
    folder = whole_run(tmp_path / "second")
    forget(folder)
    intact.sidecar(folder.best).unlink()
    before = contents(folder.path)
    with RunFolder(config(folder.path)) as again, pytest.raises(UserError, match="holds ghostnet_050_best.ckpt, which"):
        again.start(overwrite=True)
    assert contents(folder.path) == before


@pytest.mark.fault("overwriting", "clean error")
def test_the_recipe_that_a_run_is_given_is_not_deleted(tmp_path):
    folder = whole_run(tmp_path / "run")
    before = contents(folder.path)
    line = ["-c", str(folder.config), "--overwrite", "True", "--ckpt_save_dir", str(folder.path)]
    given = load(line, prog="train.py", description="")
    refused = pytest.raises(UserError, match="--overwrite True would delete .*config.yaml, which -c names")
    with RunFolder(given.replace(num_classes=3)) as again, refused:
        again.check(overwrite=True)
    teacher = config(folder.path, teacher="ghostnet_100", teacher_ckpt_path=str(folder.best))
    with RunFolder(teacher) as again, pytest.raises(UserError, match="best.ckpt, which teacher_ckpt_path names"):
        again.check(overwrite=True)
    assert contents(folder.path) == before
    assert given == Config.from_file(folder.config).replace(overwrite=True, ckpt_save_dir=str(folder.path))


@pytest.mark.fault("overwriting", "clean error")
def test_a_recipe_kept_in_the_run_folder_by_the_command_itself(tmp_path):
    """train.py from its command line to its one line."""
    (tmp_path / "run").mkdir()
    recipe = tmp_path / "run" / "config.yaml"
    recipe.write_text(RECIPE)
    command = [sys.executable, str(ROOT / "train.py"), "-c", str(recipe), "--data_dir", "D"]
    done = run_process([*command, "--ckpt_save_dir", str(recipe.parent), "--overwrite", "True"], tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds config.yaml, which no run has made there" in done.stderr
    assert "--overwrite" not in done.stderr
    assert contents(recipe.parent) == {"config.yaml": RECIPE.encode()}


@pytest.mark.fault("overwriting", "ok")
@pytest.mark.parametrize("policy", ["latest_k", "top_k"])
def test_the_files_of_epochs_that_are_too_many_are_deleted_and_no_others(policy, tmp_path):
    folder = RunFolder(config(tmp_path, keep_checkpoint_max=2, ckpt_save_policy=policy, epoch_size=5))
    (tmp_path / "ghostnet_050-0_7.ckpt.txt").write_text("mine")
    (tmp_path / "ghostnet_050-6_7.ckpt").write_text("mine")
    folder.start()
    for epoch in range(1, 6):
        folder.save_weights(WEIGHTS, epoch, 7, best=False, keep=True)
        folder.add_record({"epoch": epoch, "top_1": float(epoch)})
    names = sorted(file.name for file in tmp_path.glob("*-*") if not file.name.endswith(".sha256"))
    kept = ["ghostnet_050-4_7.ckpt", "ghostnet_050-5_7.ckpt"]
    assert names == ["ghostnet_050-0_7.ckpt.txt", *kept, "ghostnet_050-6_7.ckpt"]
    assert set(kept) < run_files.recorded(tmp_path)


@pytest.mark.fault("overwriting", "clean error")
def test_weights_that_appear_under_a_coming_name_are_not_replaced(tmp_path):
    with RunFolder(config(tmp_path)) as folder:
        folder.start()
        for name in ("ghostnet_050_best.ckpt", "ghostnet_050-1_7.ckpt"):
            (tmp_path / name).write_text("mine")
            with pytest.raises(RunError, match=f"{name}: is not the run's, which would replace it; move it away"):
                folder.save_weights(WEIGHTS, 1, 7, best="best" in name, keep=True)
            assert (tmp_path / name).read_text() == "mine"
            (tmp_path / name).unlink()


@pytest.mark.fault("overwriting", "ok")
def test_a_run_that_is_killed_at_any_moment_has_recorded_what_it_made(tmp_path, monkeypatch):
    """Each rename of a file is the last one, once: whatever is there then is the run's, and goes with it."""
    real, moments = os.replace, 0
    while True:
        left = [moments]

        def replace(source, target, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        try:
            whole_run(tmp_path / "run", (1.0,))
        except KeyboardInterrupt:
            ended = False
        else:
            ended = True
        monkeypatch.setattr(os, "replace", real)
        with RunFolder(config(tmp_path / "run")) as again:
            again.start(overwrite=True)
        assert contents(tmp_path / "run") == {}
        if ended:
            break
        moments += 1
    assert moments > 10


@pytest.mark.fault("overwriting", "ok")
@pytest.mark.parametrize("older", [False, True], ids=["recorded", "of an older version"])
def test_a_deletion_that_is_cut_short_is_taken_up_again(older, tmp_path, monkeypatch):
    real, most = Path.unlink, 0
    while True:
        folder = whole_run(tmp_path / str(most), (1.0,))
        if older:
            forget(folder)
        left = [most]

        def unlink(file, missing_ok=False, left=left):
            if left[0] == 0 and run_files.is_given(file.name):
                raise KeyboardInterrupt
            left[0] -= run_files.is_given(file.name)
            real(file, missing_ok)

        with RunFolder(config(folder.path)) as again:
            monkeypatch.setattr(Path, "unlink", unlink)
            try:
                again.start(overwrite=True)
            except KeyboardInterrupt:
                ended = False
            else:
                ended = True
            monkeypatch.setattr(Path, "unlink", real)
            again.start(overwrite=True)
        assert contents(folder.path) == {}
        if ended:
            break
        most += 1
    assert most > 8


@pytest.mark.fault("overwriting", "ok")
@pytest.mark.parametrize("older", [False, True], ids=["recorded", "of an older version"])
def test_a_run_goes_on_in_its_folder_and_records_what_it_makes(older, tmp_path):
    folder = whole_run(tmp_path / "run")
    others = add_others(folder.path)
    if older:
        forget(folder)
    with RunFolder(config(folder.path, epoch_size=5, keep_checkpoint_max=2)) as again:
        again.go_on(again.read_state(True))
        again.add_session({"command": "second"}, folder.path)
        again.save_weights(WEIGHTS, 4, 7, best=True, keep=True)
        again.add_record({"epoch": 4, "top_1": 4.0})
    assert [entry["command"] for entry in json.loads(folder.sessions.read_text())] == ["python train.py", "second"]
    kept = {file.name for file in folder.path.glob("ghostnet_050-?_7.ckpt")}
    assert kept == {"ghostnet_050-4_7.ckpt", "ghostnet_050-3_7.ckpt"} < run_files.recorded(folder.path)
    assert others.items() <= contents(folder.path).items()
    with RunFolder(config(folder.path)) as again:
        again.start(overwrite=True)
    assert contents(folder.path) == others


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize("name", ["train.log", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["a link", "no file"])
def test_a_run_does_not_go_on_through_a_link(kind, name, tmp_path):
    folder = whole_run(tmp_path / "run")
    content = (folder.path / name).read_bytes()
    (tmp_path / "mine").write_bytes(content + b"more")
    (folder.path / name).unlink()
    (folder.path / name).symlink_to(tmp_path / "mine") if kind == "a link" else (folder.path / name).mkdir()
    refused = pytest.raises(UserError, match=f"resume: .*{name}: {kind}, which a run does not write to")
    with RunFolder(config(folder.path)) as again, refused:
        again.go_on(again.read_state(True))
    assert (tmp_path / "mine").read_bytes() == content + b"more"


@pytest.mark.fault("overwriting", "ok")
def test_a_copy_of_a_run_by_links_keeps_its_records(tmp_path):
    folder = whole_run(tmp_path / "run")
    with open(folder.log, "a") as log:
        log.write("later\n")
    (tmp_path / "copy").mkdir()
    for file in (folder.log, folder.metrics):
        os.link(file, tmp_path / "copy" / file.name)
    before = contents(tmp_path / "copy")
    with RunFolder(config(folder.path)) as again:
        again.go_on(again.read_state(True))
        again.add_record({"epoch": 4, "top_1": 4.0})
    assert "later" not in folder.log.read_text()
    assert contents(tmp_path / "copy") == before


@pytest.mark.fault("overwriting", "ok")
def test_event_files_of_others_are_left_alone(tmp_path):
    record = {"epoch": 1, "step": 7, "seconds": 1.0, "lr": 0.1, "train_loss": 1.0, "val_loss": None, "top_1": None}
    record |= {"top_5": None, "images_per_second": 9.0}
    for older in (False, True):
        path = tmp_path / str(older)
        with RunFolder(config(path, tensorboard=True)) as folder:
            folder.start()
            folder.add_session({"command": "train", "started": "now"}, None)
            folder.config.write_text(config(path, tensorboard=True).to_yaml())
            folder.add_record(record)
            save(folder, 1)
        [made] = (path / "tensorboard").iterdir()
        assert f"tensorboard/{made.name}" in run_files.recorded(path)
        mine = path / "tensorboard" / "events.out.tfevents.1.elsewhere"
        mine.write_bytes(b"mine")
        if older:
            forget(folder)
        with RunFolder(config(path)) as again:
            again.go_on(again.read_state(True))
        assert (mine.read_bytes(), made.stat().st_size) == (b"mine", 0)
        with RunFolder(config(path)) as again:
            again.start(overwrite=True)
        assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "content", ["[", "[[", '[{"files": 7}]', '[{"files": ["../mine", "/etc/mine", "tensorboard/../mine", "mine"]}]']
)
def test_a_record_that_is_none_names_nothing(content, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "mine").write_text("mine")
    (folder / "mine").write_text("mine")
    (folder / "run.json").write_text(content)
    assert [file for file in run_files.belonging(folder) if file.name != "run.json"] == []
    np.testing.assert_equal(run_files.recorded(folder) or set(), set())


@pytest.mark.parametrize(("name", "replaced"), [("ghostnet_050-2_7.ckpt", True), ("ghostnet_050-3_7.ckpt", False)])
def test_an_epoch_file_is_in_the_way_of_a_run_that_comes_to_its_epoch(tmp_path, name, replaced):
    (tmp_path / name).write_text("mine")
    with RunFolder(config(tmp_path, epoch_size=2, warmup_epochs=0)) as folder:
        if replaced:
            with pytest.raises(UserError, match=f"holds {name}, which no run has made there"):
                folder.check(overwrite=True)
        else:
            folder.start()
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "ghostnet_050_last.ckpt", "run_state.ckpt.sha256"])
def test_a_folder_in_place_of_a_file_is_named(tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    with RunFolder(config(tmp_path / "run")) as folder, pytest.raises(UserError) as caught:
        folder.check(overwrite=True)
    assert str(caught.value).startswith(f"ckpt_save_dir: {tmp_path / 'run' / name}: a folder, not a file; a run writes")


def test_a_state_that_is_not_there_is_named(tmp_path):
    with RunFolder(config(tmp_path)) as folder, pytest.raises(UserError) as caught:
        folder.read_state(True)
    assert str(caught.value).startswith(
        f"resume: {tmp_path / 'run_state.ckpt'}: no such file; there is no run to go on"
    )


def test_a_new_run_makes_its_folder_and_those_above(tmp_path):
    with RunFolder(config(tmp_path / "a" / "b" / "c")) as folder:
        folder.start()
    assert folder.path.is_dir()


@pytest.mark.parametrize(
    ("keys", "log", "metrics", "belongs"),
    [
        (1.0, "2026-01-01 00:00:00 x\n", "", True),
        (1.0, "", '{"epoch": 1}\n', True),
        (1.0, "", '{"epoch": 0}\n', False),
        (1.0, "", "", False),
        (1.0, "notes\n", "", False),
        (0.5, "2026-01-01 00:00:00 x\n", '{"epoch": 1}\n', False),  # a recipe of half of the keys
        (0.85, "2026-01-01 00:00:00 x\n", '{"epoch": 1}\n', True),  # a version that had fewer keys
    ],
)
def test_a_run_of_an_older_version_is_told_by_what_only_a_run_has(tmp_path, keys, log, metrics, belongs):
    lines = [line for line in Config().to_yaml().splitlines() if line and not line.startswith("#")]
    (tmp_path / "config.yaml").write_text("\n".join(lines[: int(keys * len(lines))]))
    (tmp_path / "train.log").write_text(log)
    (tmp_path / "metrics.jsonl").write_text(metrics)
    found = run_files.by_content(tmp_path)
    assert ("config.yaml" in found) is belongs
    assert bool(found) is belongs


def test_an_event_file_of_somebody_else_under_a_coming_name_is_waited_for(tmp_path, monkeypatch):
    """The names hold the second: the next one has another name. What was claimed and not made is given back."""
    pytest.importorskip("tensorboardX")
    events = tmp_path / "run" / "tensorboard"
    taken, waited = ["events.a", "events.b"], []
    real = run_folder.event_files.coming_names
    monkeypatch.setattr(run_folder.event_files, "coming_names", lambda: list(taken) if not waited else real())
    monkeypatch.setattr(run_folder.time, "sleep", waited.append)
    events.mkdir(parents=True)
    (events / "events.b").write_text("mine")
    with RunFolder(config(tmp_path / "run", tensorboard=True)) as folder:
        folder.start()
        made = Path(folder.event_file.name).name
        folder.add_session({"command": "train"}, None)
    assert waited == [1]
    assert (events / "events.b").read_text() == "mine"
    kept = run_files.recorded(folder.path)
    assert {name for name in kept if name.startswith("tensorboard/")} == {f"tensorboard/{made}"}


@pytest.mark.parametrize("first", ["[1]", '{"step": 1}', "no JSON"])
def test_metrics_of_something_else_are_no_runs(tmp_path, first):
    (tmp_path / "config.yaml").write_text(Config().to_yaml())
    (tmp_path / "train.log").write_text("2026-01-01 00:00:00 x\n")
    (tmp_path / "metrics.jsonl").write_text(f'{first}\n{{"epoch": 1}}\n')
    assert "metrics.jsonl" not in run_files.by_content(tmp_path)
    # The last line may be one that a killed run did not finish.
    (tmp_path / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{first}\n')
    assert "metrics.jsonl" in run_files.by_content(tmp_path)


def test_an_event_file_is_recorded_before_it_is_made(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    real, recorded = run_folder.event_files.EventFile, []

    def making(folder, records):
        recorded.append(run_files.recorded(folder.parent))
        return real(folder, records)

    monkeypatch.setattr(run_folder.event_files, "EventFile", making)
    with RunFolder(config(tmp_path / "run", tensorboard=True)) as folder:
        folder.start()
        assert f"tensorboard/{Path(folder.event_file.name).name}" in recorded[0]


def test_what_training_saved_is_asked_of_a_weight_file(tmp_path):
    with pytest.raises(UserError, match="--ckpt_path must name a weight file"):
        run_files.saved_by_training("")
    weights = tmp_path / "w.ckpt"
    weights.write_bytes(b"x")
    with pytest.raises(UserError, match=rf"{tmp_path}/config.yaml does not exist, so the network is not known"):
        run_files.saved_by_training(str(weights))
    (tmp_path / "config.yaml").write_text("model: ghostnet_050\nnum_classes: 3\n")
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    assert run_files.saved_by_training(str(weights)).values["num_classes"] == 3
