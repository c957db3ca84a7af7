"""The report of masks: its files agree with scikit-learn's numbers, the worst images come first, on any ranks."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mindghost import tasks
from mindghost.config import Config
from mindghost.errors import RunError, UserError
from mindghost.parallel.ranks import ALONE
from mindghost.tasks.segmentation import masks, report, worst
from mindghost.tasks.segmentation.metrics import Counts
from tests.helpers.masks import save, scene
from tests.helpers.two_ranks import both

pytestmark = pytest.mark.usefixtures("own_cache")
NAMES = ["sea", "<b>sky", "=sum", "boat"]
FACTS = {"model": "ghost_unet", "weights": "best.ckpt"}
IMAGES = 16


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Images of several sizes, with masks of the first three classes; one is gray, one has no pixel that counts."""
    root = tmp_path_factory.mktemp("scenes")
    for index in range(IMAGES):
        pixels, mask = scene(index, (300, 200) if index == 5 else (40, 48 + index))
        mask[:3] = 255
        if index == 7:
            pixels = pixels[..., 0]
        save(root / "val" / "images" / f"{index:02}.png", pixels)
        save(root / "val" / "masks" / f"{index:02}.png", np.full_like(mask, 255) if index == 3 else mask)
    (root / "names.txt").write_text("\n".join(NAMES))
    config = Config(task="segmentation", data_dir=str(root), class_names=str(root / "names.txt"))
    return tasks.of(config).open_split(config, "val")


def truth(samples, index) -> np.ndarray:
    mask = samples.mask(index)
    return np.where(mask == 255, masks.IGNORED, mask).astype(np.int16)


def logits(samples, index, wrong=True) -> np.ndarray:
    """Of the image's own size: all rows are right, but for `index` of them."""
    said = np.maximum(truth(samples, index), 0)
    if wrong:
        said[3 : 3 + index] = (said[3 : 3 + index] + 1) % 3
    return np.float32(5 * (np.arange(len(NAMES))[:, np.newaxis, np.newaxis] == said))


def counted(samples, indices, ranks=ALONE, wrong=True):
    counts = Counts(samples.classes)
    for index in indices:
        counts.add([logits(samples, index, wrong)], [truth(samples, index)])
    return counts.outcomes(ranks)


def written(folder: Path, outcomes, samples) -> dict[str, bytes]:
    report.prepare(folder, overwrite=False)
    report.write(folder, outcomes, samples, FACTS)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def files(samples, tmp_path_factory):
    return written(tmp_path_factory.mktemp("report"), counted(samples, range(IMAGES)), samples)


def table(files, name) -> list[dict]:
    return list(csv.DictReader(io.StringIO(files[name].decode())))


def test_the_files_agree_with_scikit_learn(samples, files):
    assert set(files) == set(report.FILES)
    true = np.concatenate([truth(samples, index).ravel() for index in range(IMAGES)])
    said = np.concatenate([logits(samples, index).argmax(axis=0).ravel() for index in range(IMAGES)])
    true, said = true[true >= 0], said[true >= 0]
    matrix = confusion_matrix(true, said, labels=range(4))
    rows = table(files, "confusion.csv")
    assert [list(row.values())[1:] for row in rows] == [[str(count) for count in row] for row in matrix]
    assert list(rows[0]) == ["true \\ predicted", "sea", "<b>sky", "'=sum", "boat"]
    classes = table(files, "per_class.csv")
    assert [row["class"] for row in classes] == ["sea", "<b>sky", "'=sum", "boat"]
    shares = precision_recall_fscore_support(true, said, labels=range(3))[:3]
    for key, values in zip(("precision", "recall", "dice"), shares, strict=True):
        np.testing.assert_allclose([float(row[key]) for row in classes[:3]], values, atol=1e-6)
    assert [classes[3][key] for key in ("pixels", "iou", "precision", "recall", "dice")] == ["0", "", "", "", ""]
    page = files["report.html"].decode()
    metrics = counted(samples, range(IMAGES)).metrics()
    assert f"mIoU<b>{metrics.miou:.2f} %</b>" in page
    assert f"<b>{100 * np.mean([float(row['iou']) for row in classes[:3]]):.2f} %</b>" in page
    assert f"mean class accuracy<b>{100 * shares[1].mean():.2f} %</b>" in page
    assert "<b>sky" not in page
    assert "&lt;b&gt;sky taken for =sum" in page


def test_the_worst_images_come_first(samples, files):
    wrong = {index: (logits(samples, index).argmax(0) != truth(samples, index))[3:].mean() for index in range(IMAGES)}
    # None is shown that has no pixel that counts, or no wrong one.
    expected = sorted((index for index in wrong if index not in (0, 3)), key=lambda index: -wrong[index])[: worst.KEPT]
    page = files["report.html"].decode()
    places = [page.index(f"<span class=file>{samples.name(index)}</span>") for index in expected]
    assert places == sorted(places)
    assert page.count("<figure") == worst.KEPT
    assert f"{100 * (1 - wrong[15]):.1f} % of the pixels are right" in page


def test_panels_show_image_truth_prediction_and_errors(samples):
    from mindghost.tasks.segmentation.report.pictures import STRIPES, WRONG, Panels

    colors = [(0, 0, 0), (10, 20, 30), (200, 0, 0), (0, 0, 9)]
    kept = {found.place: found for found in counted(samples, range(IMAGES)).kept}
    image, true, said, errors = Panels.of(kept[9], samples, colors).pictures
    mask = truth(samples, 9)
    np.testing.assert_array_equal(image, samples.read(9))
    counts = mask >= 0
    np.testing.assert_array_equal(true[counts], np.array(colors)[mask[counts]])
    np.testing.assert_array_equal(said, np.array(colors)[logits(samples, 9).argmax(0)])
    assert set(true[~counts].ravel().tolist()) == set(STRIPES)
    np.testing.assert_array_equal((errors == WRONG).all(axis=-1), counts & (logits(samples, 9).argmax(0) != mask))
    # A large image is made smaller, all panels alike.
    [large] = counted(samples, [5]).kept
    assert {panel.shape for panel in Panels.of(large._replace(place=5), samples, colors).pictures} == {(256, 171, 3)}


def test_a_class_that_is_ignored_has_no_part_in_an_images_mean():
    logits = np.float32(9 * (np.arange(3)[:, np.newaxis, np.newaxis] == [[0, 1, 2, 2]]))
    truth = np.int16([[masks.IGNORED, 1, 1, 2]])
    for ignored, expected in ((None, (1 / 2 + 1 / 2) / 2), (2, 1 / 2)):
        counts = Counts(("a", "b", "c"), ignored)
        counts.add([logits], [truth])
        assert counts.outcomes().kept[0].miou == pytest.approx(expected)


def test_ranks_and_order_change_no_byte(samples, files, tmp_path):
    def half(ranks):
        own = range(ranks.rank, IMAGES, 2)
        return counted(samples, own, ranks).take(np.argsort([*range(0, IMAGES, 2), *range(1, IMAGES, 2)]))

    for number, outcomes in enumerate(both(half)):
        assert written(tmp_path / str(number), outcomes, samples) == files


def test_no_mistake(samples, tmp_path):
    files = written(tmp_path / "report", counted(samples, range(IMAGES), wrong=False), samples)
    assert "Every pixel was given its class." in files["report.html"].decode()
    with Image.open(io.BytesIO(files["worst.png"])) as picture:
        assert picture.size[0] > 150


def test_outputs_that_are_no_numbers_are_no_report(samples, tmp_path):
    outcomes = counted(samples, range(IMAGES))
    outcomes.losses[4] = np.nan
    (folder := tmp_path / "report").mkdir()
    with pytest.raises(RunError, match=r"no finite probabilities for 1 of 16 images, such as .*04\.png"):
        report.write(folder, outcomes, samples, FACTS)
    assert list(folder.iterdir()) == []


def test_a_report_is_not_replaced_unasked(samples, files, tmp_path):
    (tmp_path / "worst.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds a file that is no report's \(worst\.png\)"):
        report.prepare(tmp_path, overwrite=False)
    (tmp_path / "report.html").write_bytes(files["report.html"])
    with pytest.raises(UserError, match="already holds a report"):
        report.prepare(tmp_path, overwrite=False)
    report.prepare(tmp_path, overwrite=True)


@pytest.mark.parametrize("classes", [1, 150])
def test_any_number_of_classes(tmp_path, classes):
    root = tmp_path / "data"
    for index in range(2):
        pixels, mask = scene(index)
        save(root / "val" / "images" / f"{index}.png", pixels)
        save(root / "val" / "masks" / f"{index}.png", np.uint8(mask * 74) % classes)
    config = Config(task="segmentation", data_dir=str(root), num_classes=classes)
    samples = tasks.of(config).open_split(config, "val")
    counts = Counts(samples.classes)
    rng = np.random.default_rng(0)
    for index in range(2):
        counts.add([rng.normal(size=(classes, 20, 28)).astype(np.float32)], [samples.mask(index).astype(np.int16)])
    files = written(tmp_path / "report", counts.outcomes(), samples)
    assert len(table(files, "per_class.csv")) == classes
    assert files["report.html"].decode().count("class=swatch ") == classes
