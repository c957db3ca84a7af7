"""Mean and deviation of the pixels that evaluation sees: exact, in any order, over any number of threads."""

import numpy as np
import pytest
from PIL import Image

from mindghost.config import Config
from mindghost.data import dataset, statistics, transforms
from mindghost.data.samples import ArraySamples
from mindghost.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """70 noisy images of many sizes: more than a task, 50 of one class."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for name, count in (("a", 50), ("b", 20)):
        (root / "train" / name).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(30, 80, 2)
            pixels = rng.integers(0, 256, (height, width, 3)) * rng.random(3)
            Image.fromarray(np.uint8(pixels)).save(root / "train" / name / f"{index}.png")
    return root


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 32), (3, (24, 40))])
def test_the_numbers_are_numpys_on_the_pixels_of_the_evaluation(folder, channels, size):
    config = Config(data_dir=str(folder), image_resize=size, in_channels=channels)
    samples = dataset.open_split(config, "train")
    found = statistics.of_samples(config, samples)
    # The evaluation's own transform, whose normalisation changes nothing.
    transform = transforms.eval_transform(config.replace(mean=(0.0,), std=(1.0,)) if channels == 1 else bare(config))
    images = [transform(transforms.as_rgb(samples.read(index), channels)) for index in range(70)]
    pixels = np.stack(images).astype(np.float64)
    assert pixels.shape[1:] == (channels, *transforms.input_size(config))
    np.testing.assert_allclose(found.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(found.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)
    assert (found.images, found.counts) == (70, (50, 20))
    heights = [samples.read(index).shape[0] for index in range(70)]
    assert found.heights == statistics.Sizes(min(heights), np.median(heights), max(heights))


def bare(config: Config) -> Config:
    return config.replace(mean=(0.0,) * 3, std=(1.0,) * 3)


def test_order_and_threads_do_not_matter(folder):
    config = Config(data_dir=str(folder), image_resize=32)
    samples, steps = dataset.open_split(config, "train"), []
    straight = statistics.of_samples(config, samples, seen=steps.append)
    assert sum(steps) == 70
    backwards = statistics.of_samples(config.replace(num_parallel_workers=1), samples.take(np.arange(70)[::-1]))
    assert backwards == straight


def test_levels_by_hand():
    pixels = np.zeros((4, 32, 32, 1), np.uint8)
    pixels[3] = 200
    samples = ArraySamples(("a", "b", "c"), np.array([0, 0, 1, 1], np.int32), "drawn", pixels)
    found = statistics.of_samples(Config(dataset="mnist", image_resize=32, in_channels=1), samples)
    assert (found.mean, found.std) == ((50.0,), (np.sqrt(7500.0),))
    assert found.counts == (2, 2, 0)


def test_images_with_several_labels_count_for_each():
    labels = np.array([[1, 1], [0, 1]], np.float32)
    samples = ArraySamples(("a", "b"), labels, "drawn", np.zeros((2, 32, 32, 1), np.uint8))
    found = statistics.of_samples(Config(dataset="mnist", image_resize=32, in_channels=1), samples)
    assert (found.counts, found.std) == ((1, 2), (0.0,))


@pytest.mark.fault("pictures", "clean error")
def test_an_image_that_has_become_unreadable_is_named(folder, tmp_path):
    copy = tmp_path / "train" / "a"
    copy.mkdir(parents=True)
    for file in (folder / "train" / "a").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = Config(data_dir=str(tmp_path), image_resize=32)
    samples = dataset.open_split(config, "train")
    (copy / "7.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="a/7.png"):
        statistics.of_samples(config, samples)
