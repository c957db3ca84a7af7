"""Images in tar files are those of the class folders, and what is damaged or has to be guessed is one line."""

from __future__ import annotations

import gzip
import json
import os
import tarfile

import pytest

from mindghost.data import pack as packs
from mindghost.data.dataset import open_split
from mindghost.data.pack import writer as pack_writer
from mindghost.data.tar import TarSamples
from mindghost.data.tar import headers as tar_headers
from mindghost.data.tar import index as tar_index
from mindghost.data.tar import members as tar_members
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image
from tests.helpers.shards import (
    assert_batches_of_folders,
    assert_samples_of_folders,
    image_files,
    png,
    shuffled,
    tar,
    webdataset,
)

pytestmark = pytest.mark.usefixtures("own_cache")


def as_folders(folder, root):
    for split in ("train", "val"):
        tar(root / f"{split}.tar", shuffled(image_files(folder / split)))


def as_folders_below_a_folder(folder, root):
    for split in ("train", "val"):
        files = shuffled(image_files(folder / split))
        for number in range(2):
            members = [(f"./set/{split}/{name}", content) for name, content in files[number::2]]
            tar(root / split / f"{number}.tar", members, (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)[number])


def as_names(folder, root):
    for split in ("train", "val"):
        files = shuffled(image_files(folder / split))
        for number in range(3):
            name = f"{split}-{number:06}.tar" if split == "train" else f"animals3-{split}idation-{number:02}.tar"
            webdataset(root / name, folder / split, files[number::3], numbers=False)


def as_numbers(folder, root):
    (root / "val").mkdir(parents=True)
    (root / "classnames.txt").write_text("ant\nbee\ncat\n")
    (root / "val" / "info.json").write_text(json.dumps({"name": "any", "size": "7"}))
    (root / "val" / "_info.json").write_text(json.dumps({"splits": {}, "class_names": ["ant", "bee", "cat"]}))
    for split in ("train", "val"):
        files = shuffled(image_files(folder / split))
        for number in range(3):
            webdataset(root / split / f"shard-{number}.tar", folder / split, files[number::3])


def as_json(folder, root):
    for split, name in (("train", "train"), ("val", "validation")):
        members = []
        for file, content in shuffled(image_files(folder / split)):
            label = {"label": file.split("/")[0], "width": 12}
            members += [(f"{file[:-4]}.json", json.dumps(label)), (file, content)]
        tar(root / f"{name}-0.tar", members)


def as_tar_files_in_a_tar_file(folder, root):
    for split in ("train", "val"):
        inner = []
        for name in shuffled(["ant", "bee", "cat"]):
            files = [(f.partition("/")[2], content) for f, content in image_files(folder / split) if f.startswith(name)]
            inner.append((f"{name}.tar", tar(root / "parts" / f"{name}.tar", files).read_bytes()))
        tar(root / f"{split}.tar", inner)


@pytest.mark.fault("shards", "ok")
@pytest.mark.parametrize(
    "write", [as_folders, as_folders_below_a_folder, as_names, as_numbers, as_json, as_tar_files_in_a_tar_file]
)
def test_samples_are_those_of_the_folders(folder, tmp_path, write):
    write(folder, tmp_path / "tars")
    assert_samples_of_folders(tmp_path / "tars", folder, TarSamples)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_the_folder(folder, tmp_path, workers):
    as_names(folder, tmp_path / "tars")
    assert_batches_of_folders(tmp_path / "tars", folder, workers)


def test_a_second_start_reads_no_headers_but_of_changed_files(folder, tmp_path, monkeypatch):
    as_names(folder, tmp_path / "tars")
    looked_at, images = [], tar_members.images
    monkeypatch.setattr(tar_members, "images", lambda *found: looked_at.append(found[1]) or images(*found))
    config = config_for(tmp_path / "tars")
    first = open_split(config, "train").digest()
    assert looked_at == [0, 1, 2]
    assert open_split(config, "train").digest() == first
    assert looked_at == [0, 1, 2]
    os.utime(tmp_path / "tars" / "train-000001.tar", ns=(1, 1))
    assert open_split(config, "train").digest() == first
    assert looked_at == [0, 1, 2, 1]
    # Damage to what is remembered costs a look, and is said.
    path = tar_index.index_file(str(tmp_path / "tars" / "train"))
    path.write_bytes(path.read_bytes()[:-9])
    assert open_split(config, "train").digest() == first
    assert looked_at == [0, 1, 2, 1, 0, 1, 2]


def test_keys_may_count_anew_in_each_file(tmp_path):
    for number in range(2):
        members = [("0.png", png(tmp_path, number)), ("0.cls", str(number))]
        tar(tmp_path / "data" / f"train-{number}.tar", members)
    samples = open_split(config_for(tmp_path / "data"), "train")
    assert samples.classes == ("0", "1")
    assert samples.files.tolist() == [b"train-0.tar/0.png", b"train-1.tar/0.png"]
    assert [samples.read(index)[0, 0, 0] for index in range(2)] == [0, 1]


def test_numbers_are_labels_with_gaps_too(tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    members = [(f"{n}.{end}", png(tmp_path, n) if end == "png" else str(n)) for n in (12, 2) for end in ("png", "cls")]
    tar(tmp_path / "data" / "train.tar", members)
    samples = open_split(config_for(tmp_path / "data"), "train")
    assert samples.labels.tolist() == [2, 12]
    assert samples.classes == tuple(map(str, range(13)))
    assert any("no image of 11 of the 13 classes: 0, 1, 3, 4 and 7 more" in line for line in caplog.messages)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_python_finds(tmp_path, form):
    names = ["a.png", "ant/b.png", f"{'long/' * 18}{'c' * 90}.png", "ü/日本.png", "ant/\udcff.png", f"ant/{'d' * 99}"]
    if form != tarfile.USTAR_FORMAT:
        names.append("e" * 300)
    path = tar(tmp_path / "any.tar", [(name, bytes(size)) for size, name in enumerate(names, 510)], form)
    content = path.read_bytes()
    found = list(tar_headers.members(lambda at, count: content[at : at + count], 0, len(content), "any"))
    with tarfile.open(path) as archive:
        assert [(each.path, each.offset, each.size) for each in found] == [
            (info.name, info.offset_data, info.size) for info in archive
        ]
    assert {each.kind for each in found} == {tar_headers.FILE}


def test_any_flipped_byte_of_a_header_is_an_error_or_another_path(tmp_path):
    """No damage ends the archive early, runs for ever, or is anything but one line."""
    path = tar(tmp_path / "any.tar", [(f"ant/{'a' * 120}.png", b"1"), ("bee/b.png", b"2")])
    content = path.read_bytes()
    size = len(content)
    for at in range(0, 4096):
        damaged = content[:at] + bytes([content[at] ^ 0x11]) + content[at + 1 :]
        try:
            found = list(tar_headers.members(lambda at, count, it=damaged: it[at : at + count], 0, size, "any"))
        except UserError as error:
            found = [str(error)[:5], "error"]
        assert len(found) == 2
        assert found[0] == "any: " or isinstance(found[0], tar_headers.Member)


@pytest.mark.fault("shards", "ok")
def test_a_range_of_files_can_be_asked_for(folder, tmp_path):
    as_names(folder, tmp_path / "tars")
    (tmp_path / "tars" / "train-000002.tar").unlink()
    config = config_for(tmp_path / "tars", train_split="train-{000000..000001}.tar")
    assert len(open_split(config, "train")) == 16
    with pytest.raises(UserError) as caught:
        open_split(config.replace(train_split="train-{000000..000002}.tar"), "train")
    message_of(caught, tmp_path / "tars" / "train-000002.tar", "no such file")


@pytest.mark.fault("shards", "clean error")
def test_a_missing_part_is_named(folder, tmp_path, caplog):
    as_names(folder, tmp_path / "tars")
    (tmp_path / "tars" / "train-000001.tar").rename(tmp_path / "tars" / "val-00000-of-00003.tar")
    open_split(config_for(tmp_path / "tars"), "train")
    assert "train-0 to 2: 1 of these shards are missing; the others are read" in caplog.messages
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "tars"), "val")
    message_of(caught, tmp_path / "tars", "val has 3 files, of which 2 are missing: 00001, 00002; download them")


@pytest.mark.fault("shards", "ok")
def test_what_is_left_out_is_said(tmp_path, caplog):
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo()
    device.type = tarfile.CHRTYPE
    members = [
        ("ant/a.png", png(tmp_path)),
        ("ant/link.png", link),
        ("ant/null.png", device),
        ("ant/notes.txt", "text"),
        ("ant/.hidden.png", b"x"),
        ("ant/._a.png", b"x"),
        ("bee/b.png", png(tmp_path)),
    ]
    tar(tmp_path / "data" / "train.tar", members)
    for _ in range(2):
        caplog.clear()
        assert len(open_split(config_for(tmp_path / "data"), "train")) == 2
        assert caplog.messages == [
            f"{tmp_path}/data/train: 1 file is no image by its ending and is left out (.txt 1)",
            "2 entries that are no regular files are ignored, such as "
            f"{tmp_path}/data/train.tar: ant/link.png (a link)",
        ]


def damaged(content: bytes) -> bytes:
    """With a bit of the second header flipped, which Python's `tarfile` takes for the end."""
    at = content.index(b"b.png")
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.fault("shards", "clean error")
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda content: b"", ["empty"]),
        (lambda content: b"no tar" * 200, ["not a tar file"]),
        (lambda content: content[:100], ["not a tar file"]),
        (gzip.compress, ["compressed by gzip", "gunzip"]),
        (lambda content: content[:540], ["truncated in ant/a.png"]),
        (lambda content: content[: content.index(b"bee/b.png")], ["truncated at byte", "after ant/a.png"]),
        (damaged, ["damaged at byte", "after ant/a.png"]),
        (lambda content: content + content, ["more behind the end of the archive"]),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, change, parts):
    path = tar(tmp_path / "data" / "train.tar", [("ant/a.png", png(tmp_path)), ("bee/b.png", png(tmp_path))])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    assert message_of(caught, *parts).startswith(f"{path}: ")


SPARSE = tarfile.TarInfo()
SPARSE.type = tarfile.GNUTYPE_SPARSE


@pytest.mark.fault("shards", "clean error")
@pytest.mark.parametrize(
    ("members", "parts"),
    [
        (["../a.png"], ["../a.png leads out"]),
        (["/a.png"], ["/a.png leads out"]),
        (["ant/a.png", "ant/a.png"], ["ant/a.png is in it twice"]),
        ([("ant/a.png", SPARSE)], ["ant/a.png is a sparse file"]),
        (["a.png", ("a.cls", "1"), "b.png"], ["b.png has no b.cls"]),
        (["a.png", "a.jpg", ("a.cls", "1")], ["key a has two images, a.png and a.jpg"]),
        (["a.png", ("a.cls", "")], ["a.cls: ''; expected the number or name"]),
        (["a.png", ("a.cls", "1\n2")], ["a.cls: '1\\n2'; expected"]),
        (["a.png", ("a.cls", b"\xff\xfe")], ["a.cls: no UTF-8 text"]),
        (["a.png", ("a.cls", b"7" * 5000)], ["a.cls: 5,000 bytes; expected the number"]),
        (["a.png", ("a.cls", "99999999999")], ["label 99999999999: labels count classes"]),
        (["a.png", ("a.json", "{")], ["a.json: not JSON"]),
        (["a.png", ("a.json", '{"label": [1]}')], ["a.json: expected the number or name of one class, got [1]"]),
        (["a.png", "b.png"], ["images without a class, such as a.png"]),
        ([("notes.txt", "x")], ["no image in train.tar"]),
        (["ant/" + 300 * "long" + ".png"], ["is a path of over 1,000 bytes"]),
    ],
)
def test_what_would_have_to_be_guessed_is_one_line(tmp_path, members, parts):
    image = png(tmp_path)
    path = tmp_path / "data" / "train.tar"
    tar(path, [member if isinstance(member, tuple) else (member, image) for member in members])
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, tmp_path / "data" / "train", *parts)


@pytest.mark.fault("shards", "clean error")
def test_a_file_without_labels_among_others(tmp_path):
    tar(tmp_path / "data" / "train-0.tar", [("a.png", png(tmp_path)), ("a.cls", "0")])
    tar(tmp_path / "data" / "train-1.tar", [("ant/b.png", png(tmp_path))])
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, "train-1.tar: its images have no .cls", "train-0.tar have")


@pytest.mark.fault("shards", "clean error")
def test_numbers_beyond_the_names_beside_the_files(tmp_path):
    tar(tmp_path / "data" / "train-0.tar", [("a.png", png(tmp_path)), ("a.cls", "2")])
    (tmp_path / "data" / "classes.json").write_text('["ant", "bee"]')
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data"), "train")
    message_of(caught, "label 2, but there are 2 class names")


@pytest.mark.fault("shards", "ok")
def test_bad_images_are_looked_for_as_in_folders(tmp_path, caplog):
    good = png(tmp_path)
    members = [("ant/a.png", good), ("ant/bad.png", good[:40]), ("bee/b.png", good)]
    tar(tmp_path / "data" / "train.tar", members)
    config = config_for(tmp_path / "data")
    with pytest.raises(UserError) as caught:
        open_split(config, "train")
    message_of(caught, f"{tmp_path}/data/train/ant/bad.png (in train.tar): not a readable image", "on_bad_image: skip")
    samples = open_split(config.replace(on_bad_image="skip"), "train")
    assert samples.files.tolist() == [b"ant/a.png", b"bee/b.png"]
    assert samples.shards.tolist() == [0, 0]
    assert samples.read(1).shape == (10, 12, 3)
    assert caplog.messages[-1] == f"{tmp_path}/data/train: 1 of 3 images left out (on_bad_image: skip)"


@pytest.mark.fault("shards", "clean error")
def test_damage_in_place_is_found_where_digests_are_asked_for(tmp_path):
    save_image(tmp_path / "one.bmp", 1)
    path = tar(tmp_path / "data" / "train.tar", [("ant/a.bmp", (tmp_path / "one.bmp").read_bytes())])
    config = config_for(tmp_path / "data", image_digests=True)
    open_split(config, "train")
    before, content = path.stat(), bytearray(path.read_bytes())
    content[512 + 60] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError) as caught:
        open_split(config, "train")
    message_of(caught, "ant/a.bmp (in train.tar)", "its sha256 differs")


def test_a_pack_of_them_is_that_of_the_folder(folder, tmp_path):
    as_names(folder, tmp_path / "tars")
    expected = packs.open_pack(pack_of(folder / "train", tmp_path / "theirs"))
    found = packs.open_pack(pack_of(tmp_path / "tars" / "train", tmp_path / "ours"))
    assert found.digest() == expected.digest()
    assert [found.content(index) for index in range(23)] == [expected.content(index) for index in range(23)]
    smaller = packs.open_pack(pack_of(tmp_path / "tars" / "val", tmp_path / "pixels", short_side=5, uncompressed=True))
    assert smaller.read(0).shape == (5, 6, 3)


def pack_of(source, target, **options):
    pack_writer.pack(source, target, pack_writer.Options(**options))
    return target


def test_headers_alone_are_read_of_large_sets(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mindghost.data.dataset.FULL_CHECK_LIMIT", 3)
    monkeypatch.setattr(TarSamples, "content", None)
    as_folders(folder, tmp_path / "tars")
    assert len(open_split(config_for(tmp_path / "tars"), "train")) == 23


def test_more_files_than_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("mindghost.data.regions._MOST_OPEN", 2)
    for number in range(5):
        tar(tmp_path / "data" / f"train-{number}.tar", [(f"ant/{number}.png", png(tmp_path, number))])
    samples = open_split(config_for(tmp_path / "data"), "train")
    for index in (4, 0, 3, 1, 2, 4):
        assert samples.read(index)[0, 0, 0] == index
    assert len(samples.regions._open) == 2
