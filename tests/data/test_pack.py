"""What is in a pack is what was in the folder, and damage is named."""

import io
import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
import pytest
from PIL import Image

from mindghost.data import dataset, evaluation, loader
from mindghost.data import pack as packs
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, cut, epochs, message_of


def test_a_pack_holds_what_the_folder_holds(folder, packed):
    for split in ("train", "val"):
        theirs, ours = (dataset.open_split(config_for(root), split) for root in (folder, packed))
        assert isinstance(ours, packs.PackSamples)
        assert ours.classes == theirs.classes
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        for index in range(len(theirs)):
            np.testing.assert_array_equal(ours.read(index), theirs.read(index))
            assert ours.content(index) == Path(theirs.name(index)).read_bytes()
        assert ours.digest() == theirs.digest(), "a run could not go on with the other one"


def test_an_uncompressed_pack_holds_the_pixels(folder, uncompressed):
    theirs, ours = (dataset.open_split(config_for(root), "train") for root in (folder, uncompressed))
    for index in range(len(theirs)):
        pixels = theirs.read(index)
        np.testing.assert_array_equal(ours.read(index), pixels)
        # An image file that anything else reads, too.
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(ours.content(index)))), pixels)
    assert ours.digest() == theirs.digest()
    shards = np.bincount(ours.shards, weights=ours.lengths)
    assert len(shards) > 1
    assert max(shards) <= 1000


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_the_folder(folder, packed, uncompressed, workers):
    keys = {"num_parallel_workers": workers, "scale": (0.5, 1.0), "hflip": 0.5, "auto_augment": "randaug-m9-mstd0.5"}
    found = []
    for root in (folder, packed, uncompressed):
        config = config_for(root, **keys)
        training = epochs(loader.train_batches(config, dataset.open_split(config, "train"), 3), 2)
        found.append([*(pair for epoch in training for pair in epoch)])
        found[-1] += list(evaluation.eval_batches(config, dataset.open_split(config, "val")))
    assert {len(each) for each in found} == {2 * 5 + 2}
    for theirs, *ours in zip(*found, strict=True):
        for pair in ours:
            for expected, array in zip(theirs, pair, strict=True):
                np.testing.assert_array_equal(array, expected)


def test_mindspore_reads_the_shards(packed):
    files = sorted(str(path) for path in (packed / "train").glob("*.mindrecord"))
    rows = list(ds.MindDataset(files, shuffle=False, num_parallel_workers=1).create_dict_iterator(output_numpy=True))
    expected = dataset.open_split(config_for(packed), "train")
    assert sorted(str(row["name"]) for row in rows) == sorted(os.fsdecode(name) for name in expected.files)
    by_name = {os.fsdecode(name): index for index, name in enumerate(expected.files)}
    for row in rows:
        index = by_name[str(row["name"])]
        assert int(row["label"]) == expected.labels[index]
        assert row["image"].tobytes() == expected.content(index)


def test_an_index_that_is_a_folder_is_one_line(packed, tmp_path):
    target = copy_of(packed, tmp_path)
    (target / packs.INDEX).unlink()
    (target / packs.INDEX).mkdir()
    with pytest.raises(UserError) as caught:
        packs.open_pack(target)
    message_of(caught, target / packs.INDEX)


def copy_of(packed: Path, tmp_path: Path) -> Path:
    target = tmp_path / "pack"
    target.mkdir()
    for path in (packed / "train").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.fault("packs", "clean error")
def test_a_damaged_image_is_named(packed, tmp_path):
    target = copy_of(packed, tmp_path)
    samples = packs.open_pack(target)
    shard = target / packs.SHARD.format(int(samples.shards[5]))
    content = bytearray(shard.read_bytes())
    content[int(samples.offsets[5]) + 20] ^= 1
    shard.write_bytes(content)
    samples = packs.open_pack(target)
    with pytest.raises(UserError) as caught:
        samples.read(5)
    message_of(caught, shard, f"damaged where it holds {os.fsdecode(samples.files[5])}", "mindghost pack")
    assert samples.read(0).shape == (10, 12, 3)


@pytest.mark.fault("packs", "clean error")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda pack: (pack / packs.INDEX).unlink(), "a pack that is not complete; run `mindghost pack` again"),
        (lambda pack: (pack / packs.INDEX).write_bytes(b""), f"{packs.INDEX}: damaged ("),
        (lambda pack: cut(pack / packs.INDEX, 300), f"{packs.INDEX}: damaged ("),
        (lambda pack: (pack / "00001.mindrecord").unlink(), "00001.mindrecord: not there"),
        (lambda pack: cut(pack / "00001.mindrecord", 1), "bytes instead of"),
    ],
)
def test_a_damaged_pack_is_refused(damage, said, packed, tmp_path):
    target = copy_of(packed, tmp_path)
    damage(target)
    with pytest.raises(UserError) as caught:
        packs.open_pack(target)
    message_of(caught, said)
    with pytest.raises(UserError):
        dataset.open_split(config_for(tmp_path, train_split="pack"), "train")


@pytest.mark.fault("packs", "clean error")
def test_any_flipped_byte_of_an_index_is_refused(packed, tmp_path):
    target = copy_of(packed, tmp_path)
    good = (target / packs.INDEX).read_bytes()
    for place in range(0, len(good), 3):
        content = bytearray(good)
        content[place] ^= 0x10
        (target / packs.INDEX).write_bytes(content)
        with pytest.raises(UserError) as caught:
            packs.open_pack(target)
        message_of(caught, f"{packs.INDEX}: damaged (", "mindghost pack --overwrite")


@pytest.mark.fault("packs", "ok")
def test_an_index_of_an_older_version_is_read_and_checked(packed, tmp_path):
    """It has no digest."""
    target = copy_of(packed, tmp_path)
    arrays = dict(np.load(target / packs.INDEX))
    assert arrays.pop("sealed")
    np.savez(target / packs.INDEX, **arrays)
    expected = packs.open_pack(packed / "train")
    assert packs.open_pack(target).digest() == expected.digest()
    changes = {"labels": 9, "shards": 9, "offsets": 1 << 40, "lengths": -1}
    for name, value in changes.items():
        changed = arrays[name].copy()
        changed[0] = value
        np.savez(target / packs.INDEX, **{**arrays, name: changed})
        with pytest.raises(UserError) as caught:
            packs.open_pack(target)
        message_of(caught, f"{packs.INDEX}: damaged (a")
