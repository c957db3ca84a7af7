"""The look at all images before the first epoch: what it remembers, and what becomes of bad ones."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from mindghost.data import columns, dataset, images, scan
from mindghost.data.dataset import open_split
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """Names of the images that were opened, and whether they were decoded."""
    seen, check = [], images.check_image

    def note(path: str, decode: bool) -> bool:
        seen.append((os.path.basename(path), decode))
        return check(path, decode)

    monkeypatch.setattr(images, "check_image", note)
    return seen


def tree(root, count: int = 5):
    for name in ("ant", "bee"):
        for number in range(count):
            save_image(root / "train" / name / f"{name}{number}.png", number)
    return config_for(root)


def damage(path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def test_a_second_start_opens_what_is_new_or_changed(tmp_path, looked_at):
    config = tree(tmp_path)
    open_split(config, "train")
    assert len(looked_at) == 10
    looked_at.clear()
    open_split(config, "train")
    assert looked_at == []
    save_image(tmp_path / "train" / "ant" / "new.png", 1)
    os.utime(tmp_path / "train" / "bee" / "bee3.png", ns=(1, 1))
    open_split(config, "train")
    assert sorted(looked_at) == [("bee3.png", True), ("new.png", True)]
    looked_at.clear()
    # Damage that changes the size; the time alone is put back.
    file = tmp_path / "train" / "ant" / "ant0.png"
    before = file.stat()
    damage(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError) as caught:
        open_split(config, "train")
    message_of(caught, file)
    assert looked_at == [("ant0.png", True)]


def test_a_bad_image_is_told_at_every_start(tmp_path, looked_at):
    config = tree(tmp_path)
    damage(tmp_path / "train" / "bee" / "bee2.png")
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            open_split(config, "train")
        message_of(caught, tmp_path / "train" / "bee" / "bee2.png", "not a readable image", "on_bad_image: skip")


def test_headers_that_were_read_are_no_decoded_images(tmp_path, looked_at):
    config = tree(tmp_path)
    samples = open_split(config.replace(on_bad_image="skip"), "train")
    scan.manifest(samples.root).unlink()
    looked_at.clear()
    assert scan.bad_images(samples, decode=False) == {}
    assert scan.bad_images(samples, decode=False) == {}
    assert [decoded for _, decoded in looked_at] == [False] * 10
    looked_at.clear()
    assert scan.bad_images(samples, decode=True) == {}
    assert scan.bad_images(samples, decode=False) == {}
    assert [decoded for _, decoded in looked_at] == [True] * 10


@pytest.mark.fault("image formats", "clean error")
def test_damage_in_place_is_found_where_digests_are_asked_for(tmp_path, looked_at):
    """A bit of a bitmap's last pixel: the image can still be read, and has its size and time of change."""
    file = tmp_path / "train" / "ant" / "ant.bmp"
    save_image(file, 1)
    for number in range(3):
        save_image(tmp_path / "train" / "bee" / f"bee{number}.png", number)
    config, plain = config_for(tmp_path).replace(image_digests=True), config_for(tmp_path)
    open_split(plain, "train")
    for _ in range(2):
        open_split(config, "train")
    assert len(looked_at) == 4
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(open_split(plain, "train")) == 4
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            open_split(config, "train")
        message_of(caught, file, "its sha256 differs", "on_bad_image: skip")
    samples = open_split(plain, "train")
    for _ in range(2):
        assert list(scan.bad_images(samples, decode=True, digests=True)) == [0]
    # As it is now, if it is right: a file that was written anew.
    os.utime(file)
    assert len(open_split(config, "train")) == 4


@pytest.mark.fault("image formats", "ok")
def test_of_files_with_several_frames_or_pages_the_first_is_taken_which_one_line_says(tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    config = tree(tmp_path, 1)
    frames = [Image.new("RGB", (12, 10), (value, 0, 0)) for value in (9, 90, 200)]
    for name, more in (("d.gif", frames[1:]), ("c.tif", frames[1:]), ("b.png", frames[1:]), ("one.gif", [])):
        frames[0].save(tmp_path / "train" / "ant" / name, save_all=True, append_images=more)
    frames[0].save(tmp_path / "train" / "ant" / "e.webp", save_all=True, append_images=frames[1:], lossless=True)
    # What is damaged behind the first frame is not used.
    damaged = tmp_path / "train" / "bee" / "cut.gif"
    damaged.write_bytes((tmp_path / "train" / "ant" / "d.gif").read_bytes()[:-12])
    samples = open_split(config, "train")
    where = tmp_path / "train"
    line = "5 files have several frames or pages, of which the first is taken, such as"
    assert caplog.messages == [f"{where}: {line} {where}/ant/b.png"]
    assert [samples.read(index)[0, 0, 0] for index in range(len(samples))] == [0, 9, 9, 9, 9, 9, 0, 9]
    open_split(config, "train")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY", None])
def test_a_damaged_manifest_is_none(content, tmp_path, looked_at):
    config = tree(tmp_path)
    path = scan.manifest(open_split(config, "train").root)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if content is None else content)
    looked_at.clear()
    for _ in range(2):
        assert len(open_split(config, "train")) == 10
    assert len(looked_at) == 10


@pytest.mark.fault("caches", "ok")
def test_any_flipped_byte_of_a_manifest_has_the_images_looked_at_again(tmp_path, looked_at, caplog):
    config = tree(tmp_path, 1)
    path = scan.manifest(open_split(config, "train").root)
    good = path.read_bytes()
    for place in range(len(good)):
        content = bytearray(good)
        content[place] ^= 0x20
        with pytest.raises(ValueError, match="its sha256"):
            columns.decode(bytes(content))
    looked_at.clear()
    content = bytearray(good)
    content[len(good) // 2] ^= 1
    path.write_bytes(content)
    open_split(config, "train")
    open_split(config, "train")
    assert len(looked_at) == 2
    [line] = caplog.messages
    assert line == f"{path}: damaged (its sha256 is not that of its content); the images are looked at again"


@pytest.mark.fault("caches", "ok")
def test_a_manifest_that_is_no_file_is_none(tmp_path, looked_at):
    config = tree(tmp_path, 1)
    path = scan.manifest(open_split(config, "train").root)
    path.unlink()
    os.mkfifo(path)
    open_split(config, "train")
    assert len(looked_at) == 4


@pytest.mark.fault("caches", "ok")
def test_a_manifest_is_taken_from_a_cache_that_cannot_be_written(tmp_path, looked_at, read_only):
    config = tree(tmp_path, 1)
    open_split(config, "train")
    read_only(tmp_path / ".cache")
    open_split(config, "train")
    assert len(looked_at) == 2
    save_image(tmp_path / "train" / "ant" / "new.png", 1)
    open_split(config, "train")
    assert len(looked_at) == 3


def test_a_cache_that_takes_no_files_costs_a_second_look(tmp_path, looked_at, monkeypatch):
    config = tree(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert len(open_split(config, "train")) == 10
    assert len(looked_at) == 20


@pytest.mark.parametrize("bad", range(7))
def test_every_image_is_looked_at_whichever_task_it_is_in(tmp_path, monkeypatch, bad):
    """Seven images, three a task."""
    monkeypatch.setattr(scan, "_TASK", 3)
    for index in range(7):
        save_image(tmp_path / "train" / "ant" / f"{index}.png", index)
    (tmp_path / "train" / "ant" / f"{bad}.png").write_bytes(b"x")
    with pytest.raises(UserError, match=rf"ant/{bad}\.png: "):
        open_split(config_for(tmp_path), "train")


def test_of_many_bad_images_some_are_listed(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(dataset, "_BAD_LISTED", 2)
    for index in range(5):
        save_image(tmp_path / "train" / "ant" / f"{index}.png", index)
    for index in (0, 2, 3):
        (tmp_path / "train" / "ant" / f"{index}.png").write_bytes(b"x")
    samples = dataset.open_split(config_for(tmp_path, on_bad_image="skip"), "train")
    assert [os.path.basename(samples.name(index)) for index in range(len(samples))] == ["1.png", "4.png"]
    first, second, count = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"left out: {tmp_path}/train/ant/0.png: ")
    assert second.startswith(f"left out: {tmp_path}/train/ant/2.png: ")
    assert count == f"{tmp_path}/train: 3 of 5 images left out (on_bad_image: skip)"


@pytest.mark.fault("image formats", "ok")
def test_bad_images_are_left_out_listed_and_counted(tmp_path, caplog):
    config = tree(tmp_path).replace(on_bad_image="skip")
    bad = [tmp_path / "train" / "ant" / "ant1.png", tmp_path / "train" / "bee" / "bee0.png"]
    for file in bad:
        damage(file)
    for _ in range(2):
        caplog.clear()
        samples = open_split(config, "train")
        assert [os.path.basename(samples.name(index)) for index in range(8)] == [
            *(f"ant{number}.png" for number in (0, 2, 3, 4)),
            *(f"bee{number}.png" for number in (1, 2, 3, 4)),
        ]
        assert samples.labels.tolist() == [0] * 4 + [1] * 4
        assert [samples.read(index)[0, 0, 0] for index in range(8)] == [0, 2, 3, 4, 1, 2, 3, 4]
        lines = caplog.messages
        assert all(f"left out: {file}: not a readable image" in line for file, line in zip(bad, lines, strict=False))
        assert lines[2:] == [f"{tmp_path / 'train'}: 2 of 10 images left out (on_bad_image: skip)"]


@pytest.mark.fault("image formats", "clean error")
def test_a_class_without_a_readable_image_is_refused(tmp_path):
    config = tree(tmp_path, 2).replace(on_bad_image="skip")
    for number in range(2):
        damage(tmp_path / "train" / "bee" / f"bee{number}.png")
    with pytest.raises(UserError) as caught:
        open_split(config, "train")
    message_of(caught, tmp_path / "train" / "bee", "no image in this class folder can be read")


def test_processes_share_what_they_find(tmp_path, looked_at):
    config = tree(tmp_path).replace(on_bad_image="skip")
    for name in ("ant/ant1.png", "ant/ant2.png"):
        damage(tmp_path / "train" / name)
    found = []
    for part in range(2):
        open_split(config, "train", None, scan.Part(part, 2, lambda bad: found.append(bad) or bad))
    assert sorted(index for bad in found for index in bad) == [1, 2]
    assert all(len(bad) == 1 for bad in found)
    # What two processes have looked at, one knows.
    seen = looked_at.copy()
    assert len(seen) == 10
    assert len(open_split(config, "train")) == 8
    assert sorted(looked_at[len(seen) :]) == [("ant1.png", True), ("ant2.png", True)]
    kept = [
        open_split(config, "train", None, scan.Part(part, 2, lambda bad: {**found[0], **found[1]})) for part in range(2)
    ]
    assert [len(samples) for samples in kept] == [8, 8]
    np.testing.assert_array_equal(kept[0].files, kept[1].files)
    assert kept[0].digest() == kept[1].digest()


@pytest.mark.fault("disks", "ok")
@pytest.mark.parametrize("seconds", [-(2**31), 7_258_118_400 + 2_000_000_000, 2**33], ids=["1901", "2263", "2242"])
def test_times_of_change_that_no_64_bits_hold_as_nanoseconds(seconds, looked_at, tmp_path, monkeypatch):
    """Files of machines with a wrong clock: before 1970, after 2262. They are remembered like any other."""
    config = tree(tmp_path, 2)
    file = tmp_path / "train" / "ant" / "ant0.png"
    os.utime(file, (seconds, seconds))
    if os.stat(file).st_mtime != seconds:
        pytest.skip("the file system keeps no such time")
    for expected in (4, 0):
        open_split(config, "train")
        assert len(looked_at) == expected
        looked_at.clear()
    os.utime(file, (seconds + 1, seconds + 1))
    open_split(config, "train")
    assert len(looked_at) == 1


def test_nothing_is_noted_of_images_without_masks(tmp_path):
    """It would cost every start of a large set its memory."""
    config = tree(tmp_path)
    for _ in range(2):
        notes = {}
        samples = open_split(config, "train")
        assert len(dataset.readable(config, samples, notes=notes)) == 10
        assert notes == {}
    (file,) = scan.manifest(samples.root).parent.iterdir()
    assert columns.decode(file.read_bytes())["notes"].dtype == "S1"
