"""The report of validate.py: its numbers against counts by hand and scikit-learn's, its page in a real browser."""

import base64
import csv
import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import validate
from mindghost.checkpoint import weights as weights_file
from mindghost.cli.command import run_command
from mindghost.config import Config
from mindghost.data.dataset import ArraySamples
from mindghost.errors import RunError, UserError
from mindghost.models import create_model, ghostnet
from mindghost.tasks.classification import report
from mindghost.tasks.classification.metrics import Counts
from mindghost.tasks.classification.report import tables
from mindghost.tasks.report import words
from tests.helpers import short
from tests.helpers.browser import BROWSER, OFFLINE, OPTIONS
from tests.helpers.launchers import mpirun_command, run
from tests.helpers.pictures import CLASSES, write_images
from tests.helpers.places import RECIPE
from tests.helpers.training import SHORT
from tests.helpers.weights import randomise

NAMES = ("ant", "<b>&cat", "dog, brown", "猫", "elk\n")


def outcomes_of(logits, labels):
    counts = Counts()
    counts.add(np.asarray(logits, np.float32), np.asarray(labels))
    return counts.outcomes()


def samples_of(labels, names=NAMES, channels=3) -> ArraySamples:
    rng = np.random.default_rng(0)
    return ArraySamples(
        names, np.asarray(labels, np.int32), "made up", rng.integers(0, 255, (len(labels), 9, 7, channels), np.uint8)
    )


def random_case(size=400, classes=5):
    """Logits that are often right; class 3 has no images, class 4 is never predicted."""
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 2, 4], size)
    logits = rng.normal(size=(size, classes)) * 2
    logits[np.arange(size), labels] += 2
    logits[:, 4] -= 100
    return outcomes_of(logits, labels), labels, logits.astype(np.float32).astype(np.float64)


def written(folder, *arguments) -> dict[str, bytes]:
    report.prepare(folder, overwrite=False)
    report.write(folder, *arguments)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


FACTS = {"model": "ghostnet_<050>", "weights": "w.ckpt"}


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


# --- Numbers


def test_scores_by_hand():
    """Three classes: 0 right twice and taken for 1 once, 1 right once, 2 never seen and predicted once."""
    logits = [[3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 3, 0], [0, 0, 3]]
    outcomes = outcomes_of(logits, [0, 0, 0, 1, 1])
    matrix = tables.confusion(outcomes)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    scores = tables.scores(matrix)
    np.testing.assert_allclose(scores.precision, [1, 1 / 2, 0])
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.f1, [4 / 5, 1 / 2, 0])
    assert (scores.mean(scores.precision), scores.mean(scores.recall)) == (0.75, pytest.approx(7 / 12))
    assert words.confused_pairs(matrix, 5) == [(0, 1, 1), (1, 2, 1)]
    assert words.confused_pairs(matrix, 1) == [(0, 1, 1)]
    assert sorted(tables.worst_mistakes(outcomes, 5)) == [2, 4]
    text = tables.scores_csv(scores, "abc").decode().splitlines()
    assert text[0] == "label,class,images,predicted,correct,precision,recall,f1"
    assert text[3] == "2,c,0,1,0,0.000000,,0.000000"


def test_scores_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    outcomes, labels, logits = random_case()
    predicted = logits.argmax(axis=1)
    np.testing.assert_array_equal(outcomes.predicted, predicted)
    matrix = tables.confusion(outcomes)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(5)))
    scores = tables.scores(matrix)
    every = {"labels": range(5), "zero_division": np.nan}
    found = [scores.precision, scores.recall, scores.f1, scores.support]
    expected = metrics.precision_recall_fscore_support(labels, predicted, **every)
    np.testing.assert_allclose(np.stack(found)[:2], np.stack(expected)[:2], rtol=1e-12)
    # scikit-learn calls the F1 of a class without images 0 or undefined from one release to the next.
    present = scores.support > 0
    np.testing.assert_allclose(scores.f1[present], expected[2][present], rtol=1e-12)
    seen = {"labels": np.flatnonzero(present), "zero_division": 0, "average": "macro"}
    means = metrics.precision_recall_fscore_support(labels, predicted, **seen)[:3]
    np.testing.assert_allclose(
        [scores.mean(score) for score in (scores.precision, scores.recall, scores.f1)], means, rtol=1e-12
    )
    assert np.isnan(scores.precision[4])
    assert np.isnan(scores.recall[3])


def test_each_mistake_stands_beside_where_the_network_saw_it(tmp_path):
    """The map is asked for by the predicted class, for the image of the mistake, and shown beside it."""
    labels = [0, 1, 2, 2]
    logits = np.pad([[3, 0, 0], [4, 0, 1], [0, 0, 9], [0, 9, 0]], ((0, 0), (0, len(NAMES) - 3)), constant_values=-9)
    outcomes, samples = outcomes_of(logits, labels), samples_of(labels)
    asked = []

    def explain(images, wanted):
        asked.extend((image.copy(), label) for image, label in zip(images, wanted, strict=True))
        return [np.full_like(image, 10 * label) for image, label in zip(images, wanted, strict=True)]

    files = written(tmp_path / "with", outcomes, samples, FACTS, explain)
    assert [label for _, label in asked] == [1, 0]
    for (image, _), index in zip(asked, (3, 1), strict=True):
        np.testing.assert_array_equal(image, samples.read(index))
    page = files["report.html"].decode()
    pairs = re.findall(r"<div class=pair><img class=mistake [^>]*><img class=map [^>]*base64,([^\"]*)\"></div>", page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).mean() for content in pairs]
    assert shown == pytest.approx([10, 0], abs=1)
    assert "spoke for the predicted class" in page
    plain = written(tmp_path / "without", outcomes, samples, FACTS)
    assert "class=pair" not in plain["report.html"].decode()
    assert {name for name in files if files[name] != plain[name]} == {"report.html", "mistakes.png"}


def test_calibration_equals_the_definition():
    """Bin by bin, in plain Python."""
    outcomes, labels, logits = random_case()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outcomes.confidences, shares.max(axis=1), rtol=1e-12)
    error = 0.0
    found = outcomes.calibration()
    for number in range(15):
        inside = [i for i, row in enumerate(shares) if number <= min(row.max() * 15, 14.999999) < number + 1]
        assert found.counts[number] == len(inside)
        if inside:
            right = sum(int(shares[i].argmax() == labels[i]) for i in inside)
            error += abs(right - sum(shares[i].max() for i in inside)) / len(labels)
            assert found.accuracy[number] == pytest.approx(right / len(inside))
    assert found.error == pytest.approx(error)
    certain = outcomes_of([[99, 0], [0, 99]], [0, 1]).calibration()
    assert (certain.counts[-1], certain.error) == (2, 0)


def test_the_worst_mistakes_are_those_with_the_least_of_the_truth():
    outcomes, labels, logits = random_case()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = [i for i in range(len(labels)) if logits[i].argmax() != labels[i]]
    expected = sorted(wrong, key=lambda i: shares[i, labels[i]])[:7]
    assert tables.worst_mistakes(outcomes, 7) == expected
    mistake = tables.Mistake.of(outcomes, expected[0], NAMES, samples_of(labels))
    assert mistake.true_probability == pytest.approx(shares[expected[0], labels[expected[0]]])
    assert mistake.predicted_probability == pytest.approx(shares[expected[0]].max())
    assert mistake.name == f"made up #{expected[0]}"


# --- Files


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of the random case: its folder and files."""
    outcomes, labels, _ = random_case()
    folder = tmp_path_factory.mktemp("made") / "new" / "report"
    return folder, written(folder, outcomes, samples_of(labels), FACTS)


def test_the_files_agree_with_the_metrics(made):
    files = made[1]
    outcomes = random_case()[0]
    assert set(files) == set(report.FILES)
    metrics = outcomes.metrics()
    scores = rows_of(files["per_class.csv"])
    assert [row[1] for row in scores[1:]] == ["ant", "<b>&cat", "dog, brown", "猫", r"elk\n"]
    columns = list(zip(*scores[1:], strict=True))
    assert sum(map(int, columns[2])) == sum(map(int, columns[3])) == metrics.num_samples
    assert 100 * sum(map(int, columns[4])) / metrics.num_samples == metrics.top_1
    matrix = rows_of(files["confusion.csv"])
    assert [row[0] for row in matrix[1:]] == [row[1] for row in scores[1:]] == matrix[0][1:]
    np.testing.assert_array_equal(np.array([row[1:] for row in matrix[1:]], int), tables.confusion(outcomes))


def test_equal_evaluations_give_equal_files(made, tmp_path):
    outcomes, labels, _ = random_case()
    assert written(tmp_path, outcomes, samples_of(labels), FACTS) == made[1]


@pytest.mark.parametrize("classes", [2, 30, 1000])
def test_the_matrix_is_a_picture_of_any_number_of_classes(classes):
    """A cell has the colour of what it counts: blue on the diagonal, red off it, white where nothing is."""
    from mindghost.tasks.report import confusion

    matrix = 8 * np.eye(classes, dtype=int)
    matrix[-1, 0] = 8
    names = [f"class {number} with a name that is far too long for an axis" for number in range(classes)]
    picture = np.asarray(Image.open(io.BytesIO(confusion.confusion(matrix, names))).convert("RGB")).astype(int)
    height, width, _ = picture.shape
    assert 250 < width < 2400
    assert 250 < height < 2400
    # Without the bars that explain the colours.
    red, _, blue = picture[140:].transpose(2, 0, 1)
    rows, columns = np.nonzero(blue > red + 60)
    assert np.corrcoef(rows, columns)[0, 1] > 0.5
    places = np.nonzero(red > blue + 60)
    # In the lower left corner, large enough to be seen.
    assert len(places[0]) >= 9
    assert places[0].mean() > rows.mean()
    assert places[1].mean() < columns.mean()


@pytest.mark.parametrize("classes", [2, 4, 5, 6, 30])
def test_the_titles_of_the_bars_do_not_overlap(classes):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from mindghost.tasks.report import confusion

    figure = confusion.confusion.__wrapped__(np.ones((classes, classes), int), list("abcdef" * 5)[:classes])
    _, *bars = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [bar.title.get_window_extent(renderer) for bar in bars]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])


@pytest.mark.parametrize(("mistakes", "channels"), [(0, 3), (1, 1), (40, 3)])
def test_any_number_of_mistakes_and_gray_images(mistakes, channels, tmp_path):
    labels = np.arange(50) % 5
    logits = 9.0 * np.eye(5)[(labels + (np.arange(50) < mistakes)) % 5]
    files = written(tmp_path / "r", outcomes_of(logits, labels), samples_of(labels, channels=channels), FACTS)
    page = files["report.html"].decode()
    assert page.count("<img class=mistake") == min(mistakes, report.MISTAKES)
    assert ("No image was taken" in page) == (mistakes == 0)
    assert Image.open(io.BytesIO(files["mistakes.png"])).size[0] > 150


def test_more_outputs_than_class_names(tmp_path):
    outcomes = outcomes_of(np.eye(4), [0, 1, 0, 1])
    files = written(tmp_path, outcomes, samples_of([0, 1, 0, 1], names=("x", "y")), FACTS)
    assert rows_of(files["confusion.csv"])[0] == ["true \\ predicted", "x", "y", "#2", "#3"]


def test_long_names_are_cut_in_the_middle():
    from mindghost.tasks.report.pictures import fit

    assert fit("short", 9) == "short"
    assert fit("hippopotamus", 9) == "hipp…amus"
    assert len(fit("猫" * 20, 9)) <= 5


def test_probabilities_that_are_no_numbers_are_no_report(tmp_path):
    outcomes = outcomes_of([[1, 0], [np.nan, 0], [0, 1]], [0, 0, 1])
    with pytest.raises(RunError, match="no finite probabilities for 1 of 3 images, such as made up #1"):
        written(tmp_path, outcomes, samples_of([0, 0, 1], names=("x", "y")), FACTS)
    assert list(tmp_path.iterdir()) == []


# --- The folder


def test_what_is_there_is_never_replaced_unasked(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    report.prepare(tmp_path, overwrite=False)
    (tmp_path / "confusion.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"holds a file that is no report's \(confusion.png\); give another folder$"):
        report.prepare(tmp_path, overwrite=False)
    report.prepare(tmp_path, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["confusion.png", "notes.txt"]


def test_a_full_disk_leaves_the_report_that_was_there(full_disk):
    """All files are on the disk before the first one takes its place."""
    folder, reason = full_disk
    (folder / "report.html").write_text("old")
    pixels = np.random.default_rng(0).integers(0, 255, (24, 160, 160, 3), np.uint8)
    samples = ArraySamples(("x", "y"), np.zeros(24, np.int32), "noise", pixels)
    with pytest.raises(RunError, match=f"cannot be written .{reason}"):
        report.write(folder, outcomes_of([[0, 1]] * 24, [0] * 24), samples, FACTS)
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    assert (folder / "report.html").read_text() == "old"


# --- The page


def test_the_page_needs_nothing_but_itself(made):
    page = made[1]["report.html"].decode()
    sources = re.findall(r"(?:src|href)\s*=\s*(\S{12})", page)
    assert set(sources) == {'"data:image/'}
    assert not any(word in page for word in ("url(", "@import", "<script", "<link", "http://", "https://"))
    assert "default-src 'none'" in page
    assert "&lt;b&gt;&amp;cat" in page
    assert "<b>&cat" not in page
    for media, data in re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page):
        assert Image.open(io.BytesIO(base64.b64decode(data, validate=True))).format.lower() == media
    assert len(page) < 1_000_000


def browse(*arguments: str) -> str:
    """What headless Chromium prints, without a network."""
    command = [BROWSER, *OPTIONS, *OFFLINE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (Debian: apt-get install chromium)")
def test_the_page_in_a_browser(made, tmp_path):
    """From disk and offline: every figure is decoded and drawn, and nothing sticks out to the side."""
    page = made[1]["report.html"].decode()
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    asking = """<script>addEventListener("load", () => {
        const seen = [...document.images].map(i => [i.className, i.complete, i.naturalWidth, i.width]);
        const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
        document.body.innerHTML = ""; document.title = JSON.stringify({seen, wide});
    })</script>"""
    copy = tmp_path / "asking.html"
    copy.write_text(page.replace("default-src 'none'", "script-src 'unsafe-inline'").replace("</body>", asking))
    title = re.search(r"<title>(.*?)</title>", browse(profile, "--dump-dom", copy.as_uri()), re.DOTALL)
    found = json.loads(html.unescape(title[1]))
    assert [kind for kind, *_ in found["seen"]] == ["confusion", *["mistake"] * report.MISTAKES, "reliability"]
    assert all(complete and natural > 100 and shown > 100 for _, complete, natural, shown in found["seen"])
    assert found["wide"] == 0
    picture = tmp_path / "page.png"
    browse(profile, "--window-size=1100,2600", f"--screenshot={picture}", (made[0] / "report.html").as_uri())
    red, _, blue = np.asarray(Image.open(picture).convert("RGB")).astype(int).transpose(2, 0, 1)
    # The strong colours of the confusion matrix: the page itself, with its policy, shows its pictures too.
    assert ((blue > red + 90) & (blue > 120)).sum() > 5000
    assert ((red > blue + 90) & (red > 180)).sum() > 1000


# --- validate.py


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple:
    """What training leaves, without the time that it takes: four bottlenecks with random weights, and images."""
    folder = tmp_path_factory.mktemp("trained")
    images = write_images(folder / "images", val_images=4)
    patch = pytest.MonkeyPatch()
    patch.setattr(ghostnet, "STAGES", short.stages())
    network = create_model("ghostnet_050", num_classes=6)
    patch.undo()
    randomise(network)
    weights = folder / "w.ckpt"
    weights_file.write(weights, {p.name: p.asnumpy() for p in network.get_parameters()})
    keys = {**SHORT, "num_classes": 6, "data_dir": str(images), "val_while_train": True, "mode": 1}
    (folder / "config.yaml").write_text(Config.from_file(RECIPE).replace(**keys).to_yaml())
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return weights, folder


def command(*arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["validate.py", *map(str, arguments)])
    status = run_command("validate.py", validate.main)
    return status, *capsys.readouterr()


def shown_mistakes(files) -> list[tuple[str, str]]:
    """True class and file of each mistake on the page of a report."""
    return re.findall(r"true: (\w+) .*?class=file>(.*?)<", files["report.html"].decode())


def test_validate_writes_a_report_of_the_numbers_that_it_prints(trained, tmp_path, monkeypatch, capsys):
    """Shuffled evaluation, too: the mistakes are those of the images that they are shown with."""
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    weights, _ = trained
    pages = []
    for name, more in (("a", []), ("b", ["--eval_shuffle", "True"]), ("c", ["--batch_size", 7])):
        arguments = ["--ckpt_path", weights, "--report", tmp_path / name, *more]
        status, said, error = command(*arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert (status, error) == (0, "")
        printed = json.loads(said.splitlines()[-1])
        assert f"report: {tmp_path / name / 'report.html'}" in said
        scores = rows_of((tmp_path / name / "per_class.csv").read_bytes())[1:]
        assert [row[1] for row in scores] == list(CLASSES)
        assert [row[2] for row in scores] == ["4"] * 6
        assert printed["top_1"] == 100 * sum(int(row[4]) for row in scores) / printed["num_samples"]
        page = (tmp_path / name / "report.html").read_text()
        assert f"<b>{printed['top_1']:.2f} %</b>" in page
        assert f"<b>{printed['loss']:.4f}</b>" in page
        assert "each image once" in page
        pages.append(shown_mistakes({"report.html": page.encode()}))
    assert pages[0] == pages[1] == pages[2]
    assert all(f"/val/{true}/" in file for true, file in pages[0])
    status, _, error = command(
        "--ckpt_path", weights, "--report", tmp_path / "a", monkeypatch=monkeypatch, capsys=capsys
    )
    assert (status, error.count("\n")) == (2, 1)
    assert "already holds a report" in error


def test_mirrored_evaluation_does_not_tell_left_from_right(trained, tmp_path, monkeypatch, capsys):
    """With `eval_mirror`, images and their mirror images have one loss; without it, they have not."""
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    noise = np.random.default_rng(3).integers(0, 256, (len(CLASSES), 32, 32, 3), np.uint8)
    for side, pixels in (("left", noise), ("right", noise[:, :, ::-1])):
        for name, image in zip(CLASSES, pixels, strict=True):
            (tmp_path / side / "val" / name).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / side / "val" / name / "0.png")
    losses = {}
    for side in ("left", "right"):
        for mirror in (False, True):
            # A side of 32 pixels is neither resized nor cropped.
            arguments = ["--crop_pct", 1.0, "--data_dir", tmp_path / side, "--eval_mirror", mirror]
            status, said, error = command("--ckpt_path", trained[0], *arguments, monkeypatch=monkeypatch, capsys=capsys)
            assert (status, error) == (0, "")
            losses[side, mirror] = json.loads(said.splitlines()[-1])["loss"]
    assert losses["left", True] == losses["right", True]
    assert abs(losses["left", False] - losses["right", False]) > 1e-4
    assert losses["left", True] not in (losses["left", False], losses["right", False])


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("/proc/report", "report: /proc/report cannot be written"), ("{file}", "report: {file}: a file, not a folder")],
)
def test_a_folder_that_takes_no_report_is_refused_before_the_work(
    folder, expected, trained, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    # An evaluation would end with another error: the folder has no images.
    arguments = ["--ckpt_path", trained[0], "--data_dir", tmp_path, "--report", folder.format(file=tmp_path / "file")]
    status, said, error = command(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert expected.format(file=tmp_path / "file") in error


def test_without_matplotlib(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, error = command(
        "--ckpt_path", trained[0], "--report", tmp_path / "r", monkeypatch=monkeypatch, capsys=capsys
    )
    assert (status, error.count("\n")) == (2, 1)
    assert "pip install matplotlib" in error
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_ranks_write_the_report_of_one_process(trained, tmp_path, monkeypatch, capsys):
    """Two ranks, and batches that do not come out even: the same counts and mistakes, and one report."""
    arguments = ["--ckpt_path", trained[0], "--batch_size", 5, "--report"]
    ranks = mpirun_command(2, "tests/helpers/short.py", "validate.py", *arguments, tmp_path / "two")
    result = run(ranks, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    status, said, _ = command(*arguments, tmp_path / "one", monkeypatch=monkeypatch, capsys=capsys)
    assert status == 0
    printed = [json.loads(text.splitlines()[-1]) for text in (said, result.stdout)]
    # With another number of threads, convolutions round differently.
    assert printed[0] == {**printed[1], "loss": pytest.approx(printed[1]["loss"], rel=1e-6)}
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert set(one) == set(two) == set(report.FILES)
    assert [one[name] == two[name] for name in ("per_class.csv", "confusion.csv")] == [True, True]
    assert shown_mistakes(one) == shown_mistakes(two) != []
