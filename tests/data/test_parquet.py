"""Images in parquet files are those of the class folders; foreign and damaged files are one line."""

from __future__ import annotations

import builtins
import os
import random
import re

import pytest

from mindghost.data import pack as packs
from mindghost.data import parquet, places
from mindghost.data.dataset import open_split
from mindghost.data.pack import writer as pack_writer
from mindghost.data.parquet import ParquetSamples, row_groups
from mindghost.errors import UserError
from tests.helpers import shards
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.shards import (
    assert_batches_of_folders,
    assert_samples_of_folders,
    huggingface,
    image_files,
    png,
    shuffled,
)

pytest.importorskip("pyarrow")


pytestmark = pytest.mark.usefixtures("own_cache")


def as_hugging_face(folder, root):
    for split, name in (("train", "train"), ("val", "validation")):
        files = shuffled(image_files(folder / split))
        for number in range(2):
            huggingface(root / "data" / f"{name}-{number:05}-of-00002.parquet", folder / split, files[number::2])


def as_it_was_packed(folder, root):
    for split in ("train", "val"):
        files = shuffled(image_files(folder / split))
        huggingface(root / f"{split}.parquet", folder / split, files, compression="zstd", use_dictionary=True)


def as_names(folder, root):
    """Whole paths, labels as text, in a folder for each split."""
    for split in ("train", "val"):
        files = shuffled(image_files(folder / split))
        columns = {
            "width": [12] * len(files),
            "img": [{"bytes": content, "path": f"/home/somebody/set/{split}/{name}"} for name, content in files],
            "class": [name.split("/")[0] for name, _ in files],
        }
        shards.parquet(root / split / "0.parquet", columns)


def as_bytes(folder, root):
    """Plain bytes, with the paths in a column beside them."""
    for split in ("train", "val"):
        files = shuffled(image_files(folder / split))
        columns = {
            "picture": [content for _, content in files],
            "file_name": [name for name, _ in files],
            "fine_label": [("ant", "bee", "cat").index(name.split("/")[0]) for name, _ in files],
        }
        features = {"fine_label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}
        shards.parquet(root / f"{split}.parquet", columns, features)


@pytest.mark.fault("shards", "ok")
@pytest.mark.parametrize("write", [as_hugging_face, as_it_was_packed, as_names, as_bytes])
def test_samples_are_those_of_the_folders(folder, tmp_path, write):
    write(folder, tmp_path / "files")
    assert_samples_of_folders(tmp_path / "files", folder, ParquetSamples)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_the_folder(folder, tmp_path, workers, monkeypatch):
    """With a row group in the cache, the fewest that it holds, and images that are read before workers start."""
    monkeypatch.setattr(row_groups, "_KEPT_BYTES", 1)
    as_hugging_face(folder, tmp_path / "files")
    assert_batches_of_folders(tmp_path / "files", folder, workers)


def test_rows_without_a_path_stay_in_their_order(tmp_path):
    images = [png(tmp_path, value) for value in range(6)]
    for number in range(2):
        columns = {"image": images[number * 3 : number * 3 + 3], "label": [1, 0, 1]}
        shards.parquet(tmp_path / "data" / f"train-{number}.parquet", columns, group=2)
    samples = open_split(config_for(tmp_path / "data"), "train")
    assert samples.classes == ("0", "1")
    assert [samples.read(index)[0, 0, 0] for index in range(6)] == [1, 4, 0, 2, 3, 5]
    assert samples.name(5) == f"{tmp_path}/data/train/train-1.parquet/000000002 (row 2 of train-1.parquet)"


@pytest.fixture
def reads(monkeypatch):
    """The row groups that pyarrow reads, with but one of them kept."""
    monkeypatch.setattr(row_groups, "_KEPT_BYTES", 1)
    found, original = [], row_groups.RowGroups._read
    monkeypatch.setattr(row_groups.RowGroups, "_read", lambda self, *at: found.append(at) or original(self, *at))
    return found


def test_images_are_looked_at_row_group_by_row_group(folder, tmp_path, reads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    huggingface(tmp_path / "files" / "train.parquet", folder / "train", image_files(folder / "train"), **PACKED)
    samples = open_split(config_for(tmp_path / "files", image_digests=True), "train")
    assert reads == 2 * [(0, group) for group in range(6)]
    open_split(config_for(tmp_path / "files"), "train")
    assert len(reads) == 12, "what was good before is looked at again"
    for index in (0, 22, 0):
        samples.content(index)
    assert len(reads) == 15


PACKED = {"compression": "snappy", "use_dictionary": True}


@pytest.mark.parametrize("pages", [{}, {"data_page_size": 64, "write_batch_size": 1}, {"data_page_version": "2.0"}])
def test_a_row_group_of_images_as_they_are_is_read_once(folder, tmp_path, reads, pages):
    files = image_files(folder / "train")
    images = [{"bytes": content if number % 7 else None, "path": name} for number, (name, content) in enumerate(files)]
    columns = {"image": [*images, {"bytes": b"", "path": "empty"}], "label": [0] * 24}
    path = shards.parquet(
        tmp_path / "train.parquet", columns, None, 9, compression="none", use_dictionary=False, **pages
    )
    samples = parquet.open_parquet(places.shards(tmp_path, "train"))
    for index in random.Random(0).choices(range(24), k=99):
        number = samples.numbers[index]
        assert samples.reader.image(0, samples.groups[index], samples.rows[index]) == columns["image"][number]["bytes"]
    assert sorted(reads) == [(0, 0), (0, 1), (0, 2)]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        samples.content(len(samples) - 2)
    message_of(caught, path, "cut off since it was looked at")


def test_a_pack_of_them_is_that_of_the_folder(folder, tmp_path):
    as_hugging_face(folder, tmp_path / "files")
    for root, target in ((folder, "theirs"), (tmp_path / "files", "ours")):
        pack_writer.pack(root / "val", tmp_path / target, pack_writer.Options())
    expected, found = (packs.open_pack(tmp_path / target) for target in ("theirs", "ours"))
    assert found.digest() == expected.digest()
    assert [found.content(index) for index in range(7)] == [expected.content(index) for index in range(7)]
    with pytest.raises(UserError, match="a pack already"):
        pack_writer.pack(tmp_path / "ours", tmp_path / "again", pack_writer.Options())


@pytest.mark.fault("shards", "ok")
def test_bad_images_are_looked_for_as_in_folders(tmp_path, caplog):
    good = png(tmp_path)
    images = [{"bytes": content, "path": path} for content, path in ((good, "a"), (good[:40], "b"), (None, "c"))]
    shards.parquet(tmp_path / "data" / "train.parquet", {"image": images, "label": ["ant"] * 3})
    config = config_for(tmp_path / "data")
    with pytest.raises(UserError) as caught:
        open_split(config, "train")
    message_of(caught, f"{tmp_path}/data/train/ant/b (row 1 of train.parquet): not a readable image")
    assert len(open_split(config.replace(on_bad_image="skip"), "train")) == 1
    assert "ant/c (row 2 of train.parquet): no bytes of an image" in caplog.messages[1]
    assert caplog.messages[-1].endswith("2 of 3 images left out (on_bad_image: skip)")


ONE = {"image": [b"x"], "label": [0]}


@pytest.mark.fault("shards", "clean error")
@pytest.mark.parametrize(
    ("columns", "features", "message"),
    [
        ({"text": ["a"], "label": [0]}, None, "expected one column of images, .* got 0; its columns are text, label"),
        ({"left": [b"x"], "right": [b"x"], "label": [0]}, None, "expected one column of images, .* got 2"),
        ({"image": [b"x"]}, None, "expected a column of labels, such as label; its columns are image"),
        ({"image": [b"x"], "label": [[1, 2]]}, None, "label holds list<.*; expected one class of each image"),
        ({"image": [b"x"], "label": [None]}, None, "label holds null; expected"),
        ({"image": [b"x", b"x"], "label": [1, None]}, None, "row 1: no label in label"),
        ({"image": [b"x"], "label": [-1]}, None, "row 0: no label in label"),
        ({"image": [b"x"], "label": [-2]}, None, "row 0: label is -2; labels count from 0"),
        ({"image": [b"x"], "label": [2]}, {"label": {"names": ["a", "b"]}}, "label 2, but there are 2 class names"),
        (ONE, {"label": {"names": ["a", "a"]}}, "names of label: labels 0 and 1 have one name"),
        (ONE, {"label": {"names": "ab"}}, "names of label: expected a list of class names"),
    ],
)
def test_foreign_files_are_one_line(tmp_path, columns, features, message):
    path = shards.parquet(tmp_path / "data" / "train.parquet", columns, features)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    assert str(tmp_path / "data" / "train") in message_of(caught)
    assert re.search(message, str(caught.value)), caught.value
    assert path.exists()


@pytest.mark.fault("shards", "clean error")
@pytest.mark.parametrize("change", ["empty", "text", "cut", "body"])
def test_damaged_files_are_one_line(folder, tmp_path, change):
    path = huggingface(tmp_path / "data" / "train.parquet", folder / "train", image_files(folder / "train"))
    content = path.read_bytes()
    changed = {
        "empty": b"",
        "text": b"path,label\n" * 100,
        "cut": content[: len(content) // 2],
        "body": content[:4] + bytes(200) + content[204:],
    }[change]
    path.write_bytes(changed)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, path, "cannot be read as parquet", "download it again")


@pytest.mark.fault("shards", "clean error")
def test_files_with_paths_in_the_place_of_images(folder, tmp_path):
    images = [{"bytes": None, "path": str(folder / "train" / "ant" / "000.png")}] * 3
    path = tmp_path / "data" / "train.parquet"
    # As pyarrow writes a column that has no bytes at all, if it is told its type.
    import pyarrow

    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    shards.parquet(path, {"image": pyarrow.array(images, kind), "label": [0] * 3})
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, path, "image.bytes has no bytes of images, paths alone", "push_to_hub")


@pytest.mark.fault("shards", "clean error")
def test_files_of_two_sets_of_classes(folder, tmp_path):
    huggingface(tmp_path / "data" / "train-0.parquet", folder / "train", image_files(folder / "train"))
    shards.parquet(tmp_path / "data" / "train-1.parquet", ONE, {"label": {"names": ["ant"], "_type": "ClassLabel"}})
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, "train-1.parquet: other class names than", "train-0.parquet has")


@pytest.mark.fault("shards", "clean error")
def test_tar_files_beside_parquet_files(folder, tmp_path):
    huggingface(tmp_path / "data" / "train-0.parquet", folder / "train", image_files(folder / "train"))
    shards.tar(tmp_path / "data" / "train-1.tar", image_files(folder / "train"))
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, "tar files as well as parquet files")


@pytest.mark.fault("shards", "clean error")
def test_pyarrow_is_missing(folder, tmp_path, monkeypatch):
    path = huggingface(tmp_path / "data" / "train.parquet", folder / "train", image_files(folder / "train"))
    found = builtins.__import__

    def missing(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(f"No module named {name!r}")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, path, "pyarrow reads it", "pip install 'mindghost[parquet]'")
