"""What a network gets of images and masks: augmented together, by draws that depend on seed, epoch and sample alone."""

import numpy as np
import pytest
from PIL import Image

from mindghost import tasks
from mindghost.config import Config
from mindghost.data.evaluation import eval_batches
from mindghost.data.loader import train_batches
from mindghost.data.transforms import as_rgb
from mindghost.errors import UserError
from mindghost.tasks.segmentation import geometry
from tests.helpers.data_folders import epochs
from tests.helpers.masks import save, write_scenes

pytestmark = pytest.mark.usefixtures("own_cache")
TASK = tasks.of(Config(task="segmentation"))


def config_for(root, **keys) -> Config:
    plain = {"hflip": 0.0, "color_jitter": None, "random_scale": (1.0, 1.0), "image_resize": (40, 56)}
    as_read = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    read = {"data_dir": str(root), "batch_size": 4, "num_parallel_workers": 1, "shuffle": False}
    return Config(**{"task": "segmentation", **plain, **as_read, **read, **keys})


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Images whose red channel says the row, green the column, of one size; masks are 1 where green is 20 or more."""
    root = tmp_path_factory.mktemp("maps")
    rows, columns = np.indices((40, 56))
    for split, count in (("train", 6), ("val", 3)):
        for index in range(count):
            pixels = np.stack([rows, columns, np.full_like(rows, index)], 2)
            save(root / split / "images" / f"{index}.png", np.uint8(pixels))
            save(root / split / "masks" / f"{index}.png", np.uint8(columns >= 20))
    return root


def batch_of(config, epoch=0, count=1):
    samples = TASK.open_split(config, "train")
    found = epochs(train_batches(config, samples, 2), epoch + count)
    return found[epoch][0]


def test_nothing_is_changed_where_nothing_is_drawn(maps):
    images, labels = batch_of(config_for(maps))
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert (images.shape, labels.shape) == ((4, 3, 40, 56), (4, 40, 56))
    np.testing.assert_array_equal(images[2], np.asarray(Image.open(maps / "train/images/2.png")).transpose(2, 0, 1))
    np.testing.assert_array_equal(labels[2], np.asarray(Image.open(maps / "train/masks/2.png")))


@pytest.mark.parametrize("keys", [{}, {"hflip": 1.0}, {"vflip": 1.0}, {"hflip": 0.5, "vflip": 0.5}])
@pytest.mark.parametrize("factors", [(0.5, 0.5), (2.0, 2.0), (0.5, 2.0)])
def test_a_mask_goes_with_its_image(maps, keys, factors):
    """Wherever a pixel went, its green value says which class it has, but for the edge that is interpolated."""
    images, labels = batch_of(config_for(maps, random_scale=factors, seed=3, **keys))
    for image, label in zip(images, labels, strict=True):
        padded = label == 255
        assert (image[:, padded] == 0).all()
        green = image[1]
        sure = ~padded & (np.abs(green - 19.5) > 1.5)
        assert sure.sum() > 0.2 * label.size
        np.testing.assert_array_equal(label[sure], green[sure] >= 20)
        # Padding is at the right and below, as large as what lacks.
        height, width = (int((~padded).any(axis=axis).sum()) for axis in (1, 0))
        assert padded.sum() == label.size - height * width
        assert (~padded[:height, :width]).all()
    if factors[1] == 0.5:
        assert (height, width) == (20, 28)
    if factors[0] == 2:
        assert not (labels == 255).any()


def test_colours_change_the_image_alone(maps):
    plain, changed = (batch_of(config_for(maps, color_jitter=jitter)) for jitter in (None, 0.8))
    np.testing.assert_array_equal(plain[1], changed[1])
    assert (plain[0] != changed[0]).any()


@pytest.mark.parametrize("crop", [(24, 32), 24, (64, 96)])
def test_training_sees_boxes_and_evaluation_whole_images(maps, crop):
    config = config_for(maps, crop_size=crop, seed=3)
    height, width = crop if isinstance(crop, tuple) else (crop, crop)
    images, labels = batch_of(config)
    assert images.shape[2:] == labels.shape[1:] == (height, width)
    seen = images[:, :, :40, :56]
    # As it stands in the file, from a place of its own: neighbours' numbers differ by one.
    np.testing.assert_array_equal(np.diff(seen[:, 0], axis=1), 1)
    np.testing.assert_array_equal(np.diff(seen[:, 1], axis=2), 1)
    if height < 40:
        assert len({image[0, 0, 0] for image in images}) > 1
    assert (labels[:, 40:] == 255).all()
    assert (labels[:, :, 56:] == 255).all()
    validation = TASK.open_split(config, "val")
    for image, _ in eval_batches(config, validation, 1):
        assert image.shape[2:] == (40, 56)


def test_draws_depend_on_seed_epoch_and_sample(maps):
    keys = {"random_scale": (0.5, 2.0), "hflip": 0.5, "color_jitter": 0.4}
    config = config_for(maps, **keys)
    first, later = batch_of(config), batch_of(config, epoch=1)
    for one, other in zip(first, batch_of(config.replace(num_parallel_workers=2)), strict=True):
        np.testing.assert_array_equal(one, other)
    for other in (later, batch_of(config.replace(seed=1))):
        assert any((one != two).any() for one, two in zip(first, other, strict=True))
    # On two ranks sample 2 is the second of rank 0, and looks the same.
    samples = TASK.open_split(config, "train")
    (shared,) = epochs(train_batches(config.replace(batch_size=2), samples, 2, 0, 2))
    for one, other in zip(first, shared[0], strict=True):
        np.testing.assert_array_equal(one[2], other[1])
    # A run goes on in the middle of an epoch.
    config = config.replace(batch_size=2)
    whole = epochs(train_batches(config, samples, 2), 2)
    resumed = epochs(train_batches(config, samples, 2, start_epoch=1, start_step=1))
    for one, other in zip(whole[1][1], resumed[0][0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_factors_are_spread_over_their_range(maps):
    config = config_for(maps, random_scale=(0.5, 1.0), batch_size=6)
    samples = TASK.open_split(config, "train")
    heights = [
        (label != 255).any(axis=1).sum()
        for [(_, labels)] in epochs(train_batches(config, samples, 2), 20)
        for label in labels
    ]
    assert (min(heights), max(heights)) == (20, 40)
    assert len(set(heights)) > 15


def test_evaluation_fits_images_of_any_size(tmp_path):
    config = config_for(write_scenes(tmp_path), image_resize=(32, 64))
    samples = TASK.open_split(config, "val", ("0", "1", "2"))
    [(images, masks)] = list(eval_batches(config, samples))
    assert images.shape == (3, 3, 32, 64)
    assert [mask.shape for mask in masks] == [(50, 45), (40, 56), (40, 56)]
    transform = TASK.eval_transform(config)
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(transform(samples.read(index)), images[index])
        height, width = geometry.fitted(mask.shape, (32, 64))
        assert (images[index][:, :height, :width] > 0).any(axis=0).all()
        assert (images[index][:, :, width:] == 0).all()
        stored = np.asarray(Image.open(samples.mask_name(index)))
        np.testing.assert_array_equal(mask, np.where(stored == 255, -1, stored.astype(int)))


@pytest.mark.parametrize(
    ("size", "within", "expected"),
    [
        ((360, 480), (360, 480), (360, 480)),
        ((100, 50), (32, 64), (32, 16)),
        ((3, 1000), (32, 32), (1, 32)),
        ((1, 1), (7, 9), (7, 7)),
        ((375, 500), (512, 512), (384, 512)),
        ((333, 500), (480, 480), (320, 480)),
    ],
)
def test_fitted_sizes(size, within, expected):
    assert geometry.fitted(size, within) == expected
    half = geometry.fitted(size, within, 0.5)
    assert all(abs(side - max(1, own / 2)) <= 0.5 for side, own in zip(half, expected, strict=True))


def bilinear_by_hand(values, size):
    """Each pixel on its own, in float64."""
    channels, height, width = values.shape
    found = np.empty((channels, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (
                (place + 0.5) * own / new - 0.5
                for place, own, new in ((row, height, size[0]), (column, width, size[1]))
            )
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = (
                values[:, top, left] * (left + 1 - x) + values[:, top, right] * (x - left),
                values[:, bottom, left] * (left + 1 - x) + values[:, bottom, right] * (x - left),
            )
            found[:, row, column] = a * (top + 1 - y) + b * (y - top)
    return found


@pytest.mark.parametrize("size", [(7, 5), (14, 10), (3, 2), (1, 1), (9, 4), (20, 21)])
def test_outputs_at_another_size(size):
    values = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    before = values.copy()
    np.testing.assert_allclose(geometry.bilinear(values, size), bilinear_by_hand(values, size), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(values, before)


def test_outputs_at_another_size_are_pytorchs():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(3, 30, 41)).astype(np.float32)
    for size in ((60, 82), (17, 90), (30, 41)):
        wanted = torch.nn.functional.interpolate(torch.from_numpy(values)[None], size, mode="bilinear")[0].numpy()
        np.testing.assert_allclose(geometry.bilinear(values, size), wanted, rtol=1e-5, atol=1e-5)


def test_what_the_network_says_of_padding_is_cut_off():
    outputs = np.full((2, 32, 64), np.nan, np.float32)
    outputs[:, :32, :16] = np.arange(2 * 32 * 16).reshape(2, 32, 16)
    assert np.isfinite(geometry.brought_back(outputs, (100, 50))).all()


@pytest.mark.fault("masks", "clean error")
def test_a_mask_that_changes_during_training(tmp_path):
    config = config_for(write_scenes(tmp_path), batch_size=2)
    samples = TASK.open_split(config, "train")
    save(tmp_path / "train" / "masks" / "0.png", np.zeros((4, 4), np.uint8))
    examples = samples.examples(config, training=True)
    labels = examples.labels(np.arange(1))
    with pytest.raises(UserError, match="4 x 4 pixels, but its image"):
        examples.fill(0, np.empty(examples.shape, np.float32), labels, 0, np.random.default_rng(0))
    save(tmp_path / "train" / "masks" / "0.png", np.full((50, 45), 9, np.uint8))
    with pytest.raises(UserError, match="2,250 pixels of 9, but there are 3 classes"):
        examples.fill(0, np.empty(examples.shape, np.float32), labels, 0, np.random.default_rng(0))


@pytest.mark.parametrize("keys", [{}, {"in_channels": 1}])
def test_prediction_gives_a_network_what_validation_does(tmp_path, keys):
    config = config_for(write_scenes(tmp_path, 1, 3), image_resize=(33, 64), mean=(9.0, 8.0, 7.0), **keys)
    samples = TASK.open_split(config, "val")
    (inputs, _), *_ = eval_batches(config, samples, 0, 1)
    transform, pixels_of = TASK.eval_transform(config), TASK.eval_pixels(config)
    for index, wanted in enumerate(inputs):
        image = as_rgb(samples.read(index), config.in_channels)
        np.testing.assert_array_equal(transform(image), wanted)
        pixels = pixels_of(image)
        height, width = geometry.fitted(image.shape[:2], (33, 64))
        assert (pixels.shape, pixels.dtype) == ((height, width, config.in_channels), np.uint8)
        mean = (9, 8, 7) if config.in_channels == 3 else (0.299 * 9 + 0.587 * 8 + 0.114 * 7,)
        seen = wanted[:, :height, :width] + np.array(mean)[:, np.newaxis, np.newaxis]
        np.testing.assert_allclose(seen, pixels.transpose(2, 0, 1), atol=1e-4)
