"""The report of images with several labels: its files agree with the metrics, the worst mistakes come first."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from mindghost.data.samples import ArraySamples
from mindghost.errors import RunError, UserError
from mindghost.tasks.multi_label import report
from mindghost.tasks.multi_label.metrics import Outcomes

NAMES = ("sea", "<b>sky", "=sum", "person")
FACTS = {"model": "ghostnet_050", "weights": "best.ckpt"}


def case(wrong: int = 5) -> tuple[Outcomes, ArraySamples]:
    """20 samples, each label of `wrong` of them answered wrongly, ever more surely; the network has an output more."""
    rng = np.random.default_rng(0)
    labels = np.pad(rng.random((20, 4)) < 0.4, ((0, 0), (0, 1)))
    logits = np.where(labels, 2.0, -2.0)
    logits[:wrong] *= -np.arange(1, wrong + 1)[:, None]
    pixels = rng.integers(0, 255, (20, 9, 12, 3), np.uint8)
    given = Outcomes(logits.astype(np.float32), labels, (0.5,) * 5)
    return given, ArraySamples(NAMES, labels.astype(np.float32), "made up", pixels)


def written(folder, outcomes, samples) -> dict[str, bytes]:
    report.prepare(folder, overwrite=False)
    report.write(folder, outcomes, samples, FACTS)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_map_is_that_of_the_likeliest_wrong_label_or_of_one_that_is_missed(tmp_path):
    labels = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    logits = np.array([[3, 2, 5, -3], [-1, -2, -3, -3], [-3, -3, -3, 3]], np.float32)
    pixels = np.zeros((3, 9, 12, 3), np.uint8)
    samples = ArraySamples(NAMES, labels.astype(np.float32), "made up", pixels)
    asked = []

    def explain(images, wanted):
        asked.extend(wanted)
        return list(images)

    report.prepare(tmp_path, overwrite=False)
    report.write(tmp_path, Outcomes(logits, labels, (0.5,) * 4), samples, FACTS, explain)
    # The first image was given sky and =sum, of which =sum is the likelier one; the second lacks sea and sky.
    assert asked == [2, 1]
    page = (tmp_path / report.PAGE).read_text(encoding="utf-8")
    assert page.count("<div class=pair>") == 2


def test_the_files_agree_with_the_metrics(tmp_path):
    outcomes, samples = case()
    files = written(tmp_path / "a", outcomes, samples)
    assert set(files) == set(report.FILES)
    rows = list(csv.DictReader(io.StringIO(files["per_class.csv"].decode())))
    assert [row["class"] for row in rows] == ["sea", "<b>sky", "'=sum", "person", "#4"]
    assert [int(row["images"]) for row in rows] == outcomes.labels.sum(axis=0).tolist()
    means = [np.mean([float(row[key]) for row in rows[:4]]) for key in ("average_precision", "f1")]
    metrics = outcomes.metrics()
    assert 100 * np.array(means) == pytest.approx([metrics.mean_average_precision, metrics.macro_f1], abs=1e-3)
    assert (rows[4]["average_precision"], rows[4]["recall"], rows[4]["threshold"]) == ("", "", "0.500000")
    page = files["report.html"].decode()
    assert f"mAP<b>{metrics.mean_average_precision:.2f} %</b>" in page
    assert "&lt;b&gt;sky" in page
    assert "<b>sky" not in page
    assert written(tmp_path / "b", outcomes, samples) == files


def test_the_worst_mistakes_come_first(tmp_path):
    outcomes, samples = case()
    assert report.worst(outcomes, 3) == [4, 3, 2]
    page = written(tmp_path, outcomes, samples)["report.html"].decode()
    places = [page.index(f"<span class=file>made up #{index}</span>") for index in (4, 3, 2, 1, 0)]
    assert places == sorted(places)
    assert page.count("<img class=mistake") == 5
    missed = [name for name, has in zip(NAMES, outcomes.labels[0], strict=False) if has]
    assert all(f"{name.replace('<b>', '&lt;b&gt;')} (11.9 %)" in page for name in missed)


def test_no_mistake_and_gray_images(tmp_path):
    outcomes, samples = case(wrong=0)
    gray = ArraySamples(NAMES, samples.labels, "gray", samples.pixels[..., :1])
    files = written(tmp_path, outcomes, gray)
    assert "Every image was given its labels, and no others." in files["report.html"].decode()
    with Image.open(io.BytesIO(files["mistakes.png"])) as picture:
        assert picture.size[0] > 150


def test_outputs_that_are_no_numbers_are_no_report(tmp_path):
    outcomes, samples = case()
    outcomes.logits[3, 1] = np.nan
    with pytest.raises(RunError, match="no finite probabilities for 1 of 20 images, such as made up #3"):
        report.write(tmp_path, outcomes, samples, FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_not_replaced_unasked(tmp_path):
    written(tmp_path, *case())
    with pytest.raises(UserError, match="already holds a report"):
        report.prepare(tmp_path, overwrite=False)
    report.prepare(tmp_path, overwrite=True)
