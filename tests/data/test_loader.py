"""Batches: every sample once, and content that only seed and epoch decide."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mindcv.data.distributed_sampler import RepeatAugSampler
from PIL import Image

from mindghost.data.dataset import open_split
from mindghost.data.evaluation import eval_batches
from mindghost.data.loader import train_batches
from mindghost.data.order import EpochOrder
from mindghost.data.samples import FolderSamples
from mindghost.errors import UserError
from tests.helpers.data_folders import CLASSES, config_for, epochs, indices, message_of
from tests.helpers.pictures import save_image


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_once_an_epoch_over_all_ranks(folder, ranks, shuffle):
    config = config_for(folder, batch_size=2, drop_remainder=False, shuffle=shuffle)
    orders = [EpochOrder(config, 23, rank, ranks) for rank in range(ranks)]
    assert len({order.steps for order in orders}) == 1
    for epoch in range(3):
        found = np.concatenate([order.epoch(epoch)[0] for order in orders])
        assert len(set(found)) == len(found) == 23 - 23 % ranks
    if shuffle:
        assert (orders[0].epoch(0)[0] != orders[0].epoch(1)[0]).any()
    else:
        assert orders[0].epoch(0)[0].tolist() == list(range(0, 23 - 23 % ranks, ranks))


def test_the_order_over_ranks_is_that_of_one_rank(folder):
    config = config_for(folder, batch_size=1)
    one = EpochOrder(config, 23, 0, 1).epoch(4)[0]
    two = [EpochOrder(config, 23, rank, 2).epoch(4)[0] for rank in range(2)]
    np.testing.assert_array_equal(np.stack(two, axis=1).ravel(), one[:22])
    assert (one != EpochOrder(config.replace(seed=1), 23, 0, 1).epoch(4)[0]).any()


@pytest.mark.parametrize(("ranks", "repeats"), [(1, 3), (2, 3), (3, 2), (4, 3)])
def test_repeated_augmentation_selects_as_mindcv(folder, ranks, repeats):
    config = config_for(folder, batch_size=1, aug_repeats=repeats, shuffle=False)
    for rank in range(ranks):
        order = EpochOrder(config, 23, rank, ranks)
        theirs = RepeatAugSampler(23, ranks, rank, shuffle=False, num_repeats=repeats, selected_round=0)
        assert order.epoch(0)[0].tolist() == list(theirs)
        assert len(order) == len(theirs)
    shuffled = config.replace(shuffle=True)
    epochs = [EpochOrder(shuffled, 23, rank, ranks).epoch(5) for rank in range(ranks)]
    seen = [pair for found in epochs for pair in zip(*(column.tolist() for column in found), strict=True)]
    assert len(set(seen)) == len(seen), "no copy may be augmented like another"
    assert max(Counter(index for index, _ in seen).values()) <= repeats


def test_num_samples_takes_a_subset(folder):
    config = config_for(folder, batch_size=2, num_samples=10)
    order = EpochOrder(config, 23, 0, 1)
    assert len(order) == 10
    subsets = [set(order.epoch(epoch)[0]) for epoch in range(3)]
    assert subsets[0] != subsets[1]
    assert all(len(subset) == 10 for subset in subsets)
    first = EpochOrder(config.replace(shuffle=False), 23, 0, 1)
    assert first.epoch(1)[0].tolist() == list(range(10))
    assert len(EpochOrder(config.replace(num_samples=99), 23, 0, 1)) == 22


@pytest.mark.parametrize(
    ("keys", "steps", "count"),
    [
        ({}, 5, 20),
        ({"drop_remainder": False}, 6, 23),
        ({"gradient_accumulation_steps": 2}, 4, 16),
        ({"gradient_accumulation_steps": 3, "drop_remainder": False}, 3, 12),
    ],
)
def test_steps_are_whole_updates(folder, keys, steps, count):
    order = EpochOrder(config_for(folder, **keys), 23, 0, 1)
    assert (order.steps, len(order)) == (steps, count)


def test_too_few_samples_are_refused(folder):
    samples = open_split(config_for(folder), "train")
    with pytest.raises(UserError) as caught:
        train_batches(config_for(folder, batch_size=24), samples, 3)
    message_of(caught, "batch_size: 24", "23 training samples")
    with pytest.raises(UserError) as caught:
        train_batches(config_for(folder, gradient_accumulation_steps=6), samples, 3)
    message_of(caught, "gradient_accumulation_steps: 6", "23 training samples")


AUGMENTED = {
    "scale": (0.2, 1.0),
    "ratio": (0.75, 1.333),
    "hflip": 0.5,
    "auto_augment": "randaug-m9-mstd0.5",
    "re_prob": 0.5,
    "re_value": "random",
    "mixup": 0.3,
    "cutmix": 1.0,
    "drop_remainder": False,
}


def test_batches_have_the_promised_form(folder):
    config = config_for(folder, drop_remainder=False)
    batches = train_batches(config, open_split(config, "train"), 3)
    assert batches.get_dataset_size() == 6
    assert batches.get_col_names() == ["image", "label"]
    (epoch,) = epochs(batches)
    assert [len(label) for _, label in epoch] == [4, 4, 4, 4, 4, 3]
    image, label = epoch[0]
    assert (image.dtype, image.shape) == (np.float32, (4, 3, 8, 8))
    assert (label.dtype, label.shape) == (np.int32, (4,))
    assert sorted(index for image, _ in epoch for index in indices(image)) == list(range(23))
    for image, label in epoch:
        assert label.tolist() == [index * 3 // 23 for index in indices(image)]


@pytest.mark.parametrize("keys", [{}, {"mixup": 0.5}])
def test_weights_are_a_third_column(folder, keys):
    """As multiples of their mean; the rest of the batches is what it is without them."""
    config = config_for(folder, drop_remainder=False, **keys)
    samples = open_split(config, "train")
    given = np.linspace(1, 9, len(samples)).astype(np.float32)
    weighted = replace(samples, weights=given)
    assert weighted.digest() != samples.digest()
    batches = train_batches(config, weighted, 3)
    assert batches.get_col_names() == ["image", "label", "weight"]
    (plain,) = epochs(train_batches(config, samples, 3))
    found = list(batches.create_tuple_iterator(num_epochs=1, output_numpy=True))
    assert len(found) == len(plain)
    total = 0.0
    for (image, label), (same, weighted_label, weights) in zip(plain, found, strict=True):
        np.testing.assert_array_equal(image, same)
        assert (weights.dtype, weights.shape) == (np.float32, (len(label),))
        total += float(weights.sum())
        if not keys:
            np.testing.assert_array_equal(label, weighted_label)
            np.testing.assert_allclose(weights, given[indices(image)] / given.mean(), rtol=1e-6)
    assert total == pytest.approx(len(samples), rel=1e-5)


def test_mixed_batches_have_soft_labels(folder):
    config = config_for(folder, mixup=0.5, drop_remainder=False, batch_size=5)
    (epoch,) = epochs(train_batches(config, open_split(config, "train"), 7))
    assert [label.shape for _, label in epoch] == [(5, 7)] * 4 + [(3, 7)]
    assert all(label.dtype == np.float32 for _, label in epoch)
    np.testing.assert_allclose(np.concatenate([label for _, label in epoch]).sum(axis=1), 1, atol=1e-6)


def test_single_samples_are_never_mixed(folder):
    config = config_for(folder, mixup=0.5, batch_size=1)
    (epoch,) = epochs(train_batches(config, open_split(config, "train"), 7))
    assert epoch[0][1].shape == (1,)


def assert_equal_epochs(found, wanted) -> None:
    assert [len(epoch) for epoch in found] == [len(epoch) for epoch in wanted]
    for found_epoch, wanted_epoch in zip(found, wanted, strict=True):
        for found_batch, wanted_batch in zip(found_epoch, wanted_epoch, strict=True):
            np.testing.assert_array_equal(found_batch[0], wanted_batch[0])
            np.testing.assert_array_equal(found_batch[1], wanted_batch[1])


@pytest.mark.parametrize("keys", [{}, {"aug_repeats": 3}])
def test_batches_depend_on_seed_and_epoch_alone(folder, keys):
    config = config_for(folder, **AUGMENTED, **keys)
    samples = open_split(config, "train")
    wanted = epochs(train_batches(config, samples, 3), 3)
    two_workers = train_batches(config.replace(num_parallel_workers=2), samples, 3)
    assert_equal_epochs(epochs(two_workers, 3), wanted)
    for workers in (1, 2):
        resumed = train_batches(config.replace(num_parallel_workers=workers), samples, 3, start_epoch=1, start_step=3)
        assert resumed.get_dataset_size() == len(wanted[1])
        assert_equal_epochs(epochs(resumed, 2), [wanted[1][3:], wanted[2]])
    assert (wanted[0][0][0] != wanted[1][0][0]).any()
    other = epochs(train_batches(config.replace(seed=7), samples, 3))
    assert (wanted[0][0][0] != other[0][0][0]).any()


def noise(images: np.ndarray) -> list[tuple[float, ...]]:
    """What each image was filled with, where every image itself is black."""
    return [tuple(sorted(image[image != 0].tolist())) for image in images]


def test_no_two_samples_of_a_run_are_drawn_alike(tmp_path):
    """Four equal images, twice each an epoch, two epochs, two seeds: the noise that is put into each is its own."""
    for index in range(4):
        save_image(tmp_path / "train" / CLASSES[index % 2] / f"{index}.png", 0)
    plain = {"std": (1.0, 1.0, 1.0), "mean": (0.0, 0.0, 7.0), "aug_repeats": 2, "shuffle": False, "batch_size": 2}
    config = config_for(tmp_path, **plain, re_prob=1.0, re_value="random")
    seen = []
    for each, rank in ((config, 0), (config, 1), (config.replace(seed=7), 0)):
        batches = epochs(train_batches(each, open_split(each, "train"), 2, rank, 2), 2)
        seen += [pixels for epoch in batches for images, _ in epoch for pixels in noise(images)]
    assert len(seen) == 3 * 2 * 2
    assert len(set(seen)) == len(seen)
    one = epochs(train_batches(config, open_split(config, "train"), 2, 0, 1))[0]
    first, second = noise(one[0][0])  # both copies of the first image
    assert first != second


def test_no_two_batches_of_a_run_are_mixed_alike(tmp_path):
    """Each rank has an image of both classes in every batch; the larger share of a mixed label says how they mix."""
    for index in range(8):
        save_image(tmp_path / "train" / CLASSES[index // 4] / f"{index}.png", index)
    config = config_for(tmp_path, batch_size=2, mixup=1.0, aug_repeats=2)
    # Copies stand one after the other: with two ranks, each has all of the images, in their order.
    samples = open_split(config, "train")
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    samples = FolderSamples(samples.classes, samples.labels[order], samples.root, samples.files[order])
    shares = []
    for each, rank in ((config, 0), (config, 1), (config.replace(seed=7), 0)):
        found = epochs(train_batches(each.replace(shuffle=False), samples, 2, rank, 2), 2)
        shares += [float(labels.max()) for epoch in found for _, labels in epoch]
    assert len(shares) == 3 * 2 * 2
    assert len(set(shares)) == len(shares)


def test_a_sample_looks_the_same_whoever_makes_it(folder):
    """Its pixels depend on seed, epoch, index and copy alone: not on the rank, the batch or the order."""
    config = config_for(folder, re_prob=1.0, re_value="random", batch_size=1, drop_remainder=False)
    samples = open_split(config, "train")

    def by_index(found):
        return {int(np.median(image[0, 0])): image for epoch in found for image, _ in epoch}

    alone = by_index(epochs(train_batches(config, samples, 3)))
    shared = by_index([epochs(train_batches(config, samples, 3, rank, 2))[0] for rank in range(2)])
    large = epochs(train_batches(config.replace(batch_size=23), samples, 3))[0][0][0]
    for index, image in shared.items():
        np.testing.assert_array_equal(image, alone[index])
    for image in large:
        np.testing.assert_array_equal(image, alone[int(np.median(image[0]))][0])


def test_resuming_reads_nothing_that_it_skips(folder):
    config = config_for(folder)
    samples = open_split(config, "train")
    read: list[int] = []

    class Recording(type(samples)):
        def open(self, index: int) -> np.ndarray:
            read.append(index)
            return super().open(index)

    recording = Recording(samples.classes, samples.labels, samples.root, samples.files)
    (epoch,) = epochs(train_batches(config, recording, 3, start_epoch=400, start_step=3))
    assert len(epoch) == 2
    assert sorted(read) == sorted(indices(epoch[0][0]) + indices(epoch[1][0]))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_evaluation_sees_every_sample_once(folder, ranks, shuffle):
    config = config_for(folder, eval_shuffle=shuffle)
    samples = open_split(config, "train")
    seen = []
    for rank in range(ranks):
        batches = eval_batches(config, samples, rank, ranks)
        found = list(batches)
        assert len(batches) == len(found)
        assert all(len(labels) == 4 for _, labels in found[:-1])
        for image, label in found:
            assert (image.dtype, image.shape[1:], label.dtype) == (np.float32, (3, 8, 8), np.int32)
            assert label.tolist() == [index * 3 // 23 for index in indices(image)]
            seen += indices(image)
    assert sorted(seen) == list(range(23))
    if ranks == 1:
        assert (seen == sorted(seen)) is not shuffle
    assert batches.order_over_ranks.tolist() == seen


def test_evaluation_is_shuffled_by_the_seed(folder):
    config = config_for(folder, eval_shuffle=True)
    samples = open_split(config, "train")
    orders = [eval_batches(config.replace(seed=seed), samples).order_over_ranks.tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_evaluation_is_repeatable_and_ends_its_threads(folder):
    config = config_for(folder, num_parallel_workers=2)
    batches = eval_batches(config, open_split(config, "val"))
    before = threading.active_count()
    first, second = list(batches), list(batches)
    assert_equal_epochs([second], [first])
    for image, _ in batches:  # left in the middle
        assert len(image) == 4
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_an_image_damaged_before_evaluation_is_named(tmp_path):
    save_image(tmp_path / "val" / "ant" / "0.png", 1)
    config = config_for(tmp_path)
    samples = open_split(config, "val")
    (tmp_path / "val" / "ant" / "0.png").unlink()
    with pytest.raises(UserError) as caught:
        list(eval_batches(config, samples))
    message_of(caught, tmp_path / "val" / "ant" / "0.png")


def test_a_link_to_the_split_itself_brings_no_wrong_labels(folder):
    before = open_split(config_for(folder), "train")
    links = {folder / "train" / "ant" / "up": "..", folder / "train" / "bee" / "top": folder}
    for link, target in links.items():
        link.symlink_to(target)
    after = open_split(config_for(folder), "train")
    for link in links:
        link.unlink()
    assert [after.name(i) for i in range(len(after))] == [before.name(i) for i in range(len(before))]


def test_pixels_without_an_8_bit_meaning_are_found_before_the_first_epoch(folder):
    path = folder / "train" / "ant" / "float.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(UserError, match="floating-point pixels") as caught:
        open_split(config_for(folder), "train")
    path.unlink()
    assert str(path) in str(caught.value)


def test_accumulation_takes_full_batches_only(folder):
    count = len(open_split(config_for(folder), "train"))
    options = {"batch_size": count - 1, "drop_remainder": False}
    assert EpochOrder(config_for(folder, **options), count, 0, 1).steps == 2
    with pytest.raises(UserError, match="gradient_accumulation_steps"):
        EpochOrder(config_for(folder, **options, gradient_accumulation_steps=2), count, 0, 1)
