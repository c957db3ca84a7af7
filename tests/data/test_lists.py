"""Images that a list names are those of the class folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindghost.data import dataset, evaluation, lists, loader, scan
from mindghost.data.dataset import open_split
from mindghost.data.imagenet import names as imagenet_names
from mindghost.data.lists import lines as list_lines
from mindghost.data.lists import rows as list_rows
from tests.helpers.commands import run_mindghost
from tests.helpers.data_folders import config_for, epochs
from tests.helpers.lists import FORMS, assert_refused, listed, names, numbers, pairs, table, text
from tests.helpers.pictures import save_image

pytestmark = pytest.mark.usefixtures("own_cache")


# --- The same images


@pytest.mark.fault("lists", "ok")
@pytest.mark.parametrize("form", FORMS)
def test_a_list_gives_the_samples_of_the_class_folders_whatever_the_order_of_its_lines(folder, tmp_path, form):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    # A folder below a class, and one whose name sorts between a file's and its own with a separator.
    for name in ("deep/1.png", "deep-er/1.png", "deep.png", "Å.png", "z.PNG"):
        save_image(data / "train" / "bee" / name, 99)
    ending, write = FORMS[form]
    config = config_for(data, train_list=f"{data}/train.{ending}", val_list=f"{data}/val.{ending}")
    for split in ("train", "val"):
        (data / f"{split}.{ending}").write_bytes(write(pairs(data / split, data)))
        ours, theirs = open_split(config, split), open_split(config_for(data), split)
        assert ours.classes == theirs.classes
        assert ours.labels.dtype == np.int32
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert names(ours) == names(theirs)
        assert ours.weights is None
    batches = {}
    for key, made in (("list", config), ("folders", config_for(data))):
        made = made.replace(hflip=0.5, color_jitter=0.4, scale=(0.2, 1.0), batch_size=7)
        batches[key] = epochs(loader.train_batches(made, open_split(made, "train"), 3), 2)
        found = evaluation.eval_batches(made, open_split(made, "val"))
        batches[key].append([(images.copy(), labels.copy()) for images, labels in found])
    for ours, theirs in zip(*batches.values(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_a_list_in_the_folder_of_a_split_has_the_digest_of_the_folder(folder, tmp_path):
    """A run can go on with either; and the digest is of the paths as they are written, wherever the list lies."""
    (tmp_path / "one").mkdir()
    for root in (tmp_path / "one", tmp_path / "two"):
        shutil.copytree(folder / "train", root, dirs_exist_ok=True)
        (root / "list.txt").write_bytes(text(pairs(folder / "train")))
    configs = [config_for("x", train_list=f"{tmp_path}/{name}/list.txt") for name in ("one", "two")]
    digests = {open_split(config, "train").digest() for config in configs}
    assert digests == {open_split(config_for(folder), "train").digest()}


def test_a_list_of_images_below_a_folder_has_the_digest_of_that_folder(folder, tmp_path):
    (tmp_path / "list.txt").write_bytes(text(pairs(folder / "train", folder.parent)))
    config = config_for(folder.parent, train_list=str(tmp_path / "list.txt"))
    assert open_split(config, "train").digest() == open_split(config_for(folder), "train").digest()
    # Of one image, or of one in another folder, too.
    save_image(tmp_path / "one" / "a.png", 1)
    digests = set()
    for paths in (("one/a.png",), ("a.png", "one/a.png")):
        (tmp_path / "list.txt").write_bytes(text([(path, "x") for path in paths]))
        save_image(tmp_path / "a.png", 1)
        digests.add(open_split(config, "train").digest())
    assert len(digests) == 2


def test_paths_begin_in_the_lists_folder_or_else_in_data_dir_or_are_absolute(tmp_path):
    for place, value in (("here", 1), ("there", 2), ("far", 3)):
        for name in ("both.png", f"only-{place}.png"):
            save_image(tmp_path / place / "x" / name, value)
    lines = ["x/both.png a", "x/only-here.png a", "x/only-there.png a", f"{tmp_path}/far/x/both.png a"]
    lines += ["../far/x/only-far.png a", f"{tmp_path}/there/x/both.png a"]
    (tmp_path / "here" / "list.txt").write_text("\n".join(lines))
    samples = open_split(config_for(tmp_path / "there", train_list=str(tmp_path / "here" / "list.txt")), "train")
    found = {name: int(samples.read(index)[0, 0, 0]) for index, name in enumerate(names(samples))}
    assert found == {
        f"{tmp_path}/here/x/both.png": 1,
        f"{tmp_path}/here/x/only-here.png": 1,
        f"{tmp_path}/there/x/only-there.png": 2,
        f"{tmp_path}/far/x/both.png": 3,
        f"{tmp_path}/here/../far/x/only-far.png": 3,
        f"{tmp_path}/there/x/both.png": 2,
    }
    # Those below data_dir are called as if they were written so.
    assert b"x/both.png" in samples.files


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a.jpg 3", "a.jpg", "3"),
        ("my cat.jpg tabby cat", "my cat.jpg", "tabby cat"),
        ("my.jpg cat.JPEG 3", "my.jpg cat.JPEG", "3"),
        ("a b\tc.jpg\thot dog", "a b\tc.jpg", "hot dog"),
        ("a.jpg\t0,1,0", "a.jpg", "0,1,0"),
        ("0056978 Boeing 717", "0056978", "Boeing 717"),
        ("0056978 F/A-18", "0056978", "F_A-18"),
        ("x/F.png F/A-18", "x/F.png", "F/A-18"),
        ("  a.jpg   3  ", "a.jpg", "3"),
        ("a.heic cat", "a.heic", "cat"),
        ("two words.jpg", "two words.jpg", ""),
        ("one", "one", ""),
    ],
)
def test_where_a_path_ends_in_a_line_of_text(line, path, label):
    found = list_rows.parted(line)
    assert (found[0], found[1].strip()) == (path, label)


def test_mindcvs_annotation_files_leave_the_ending_out(tmp_path):
    """FGVC-Aircraft, as in its guide: data_dir is the folder of the images."""
    for number in range(3):
        save_image(tmp_path / "images" / f"000{number}.jpg", number)
    (tmp_path / "variant.txt").write_text("0001 Boeing 717\n0000 F/A-18\n0002 Boeing 717\n")
    samples = open_split(config_for(tmp_path / "images", train_list=str(tmp_path / "variant.txt")), "train")
    assert samples.classes == ("Boeing 717", "F_A-18")
    assert names(samples) == [f"{tmp_path}/images/000{number}.jpg" for number in (1, 2, 0)]


@pytest.mark.fault("lists", "ok")
def test_paths_of_windows_spaces_around_them_and_bytes_that_are_no_text(tmp_path):
    odd = os.fsencode(tmp_path / "d") + b"/\xff.png"
    save_image(tmp_path / "d" / "a.png", 1)
    shutil.copy(tmp_path / "d" / "a.png", odd)
    save_image(tmp_path / "d" / 'say "hi", b.png', 1)
    content = b'path,label\n d\\a.png ,x\n"d/say ""hi"", b.png",x\nd/\xff.png,x\n'
    samples = open_split(listed(tmp_path, content, "l.csv"), "train")
    assert names(samples) == [f"{tmp_path}/d/a.png", f'{tmp_path}/d/say "hi", b.png', os.fsdecode(odd)]


# --- Splits


def test_a_column_says_which_split_an_image_is_in(tmp_path):
    content = "path,split,label\na.png,train,x\nb.png,Training,y\nc.png,validation,y\nd.png,test,x\ne.png,extra,x\n"
    config = listed(tmp_path, content, "all.csv", images=("a.png", "b.png", "c.png", "d.png", "e.png"))
    train = open_split(config, "train")
    assert (names(train), train.classes) == ([f"{tmp_path}/a.png", f"{tmp_path}/b.png"], ("x", "y"))
    for both in (config, config.replace(val_list=config.train_list)):
        val = open_split(both, "val", train.classes)
        assert (names(val), val.labels.tolist()) == ([f"{tmp_path}/c.png"], [1])
    test = open_split(config.replace(val_split="test"), "val", train.classes)
    assert (names(test), test.labels.tolist()) == ([f"{tmp_path}/d.png"], [0])
    assert len(open_split(config.replace(val_split="extra"), "val", train.classes)) == 1
    rows = [json.dumps({"path": f"{name}.png", "label": 0, "split": split}) for name, split in ("at", "bv")]
    rows = [line.replace('"t"', '"train"').replace('"v"', '"val"') for line in rows]
    config = listed(tmp_path, "\n".join(rows), "all.jsonl")
    assert [len(open_split(config, split)) for split in ("train", "val")] == [1, 1]


def test_of_a_list_and_a_folder_each_split_can_have_one(folder):
    (folder / "some.txt").write_bytes(text(pairs(folder / "val", folder)))
    config = config_for(folder, train_list=str(folder / "some.txt"))
    assert [len(open_split(config, split)) for split in ("train", "val")] == [7, 7]
    config = config_for(folder, val_list=str(folder / "some.txt"), val_split="nowhere")
    assert [len(open_split(config, split)) for split in ("train", "val")] == [23, 7]


# --- Labels


def test_numbers_are_places_of_classes_whose_names_a_file_may_have(folder, tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    (tmp_path / "train.txt").write_bytes(numbers(pairs(folder / "train")))
    config = config_for(folder / "train", train_list=str(tmp_path / "train.txt"))
    samples = open_split(config, "train")
    assert samples.classes == ("0", "1", "2")
    assert caplog.messages == [f"{tmp_path}/train.txt: labels are numbers, which count the network's outputs: 0, 1, 2"]
    theirs = open_split(config_for(folder), "train")
    for content in (
        "ant\nbee\ncat\n",
        "0 ant\n1 bee\n2 cat\n",
        '["ant", "bee", "cat"]',
        '{"0": "ant", "1": "bee", "2": "cat"}',
    ):
        (tmp_path / "names").write_text(content)
        named = open_split(config.replace(class_names=str(tmp_path / "names")), "train")
        assert named.classes == theirs.classes
        assert named.digest() == theirs.digest()
    # By name they have the order of training, whatever the file's is.
    named = open_split(config.replace(class_names=str(tmp_path / "names")), "train", classes=("cat", "bee", "ant"))
    assert named.labels.tolist() == (2 - samples.labels).tolist()


def test_class_names_order_the_names_of_folders_and_lists_too(folder, tmp_path):
    (tmp_path / "names.txt").write_text("dog\ncat\nbee\nant\n")
    (tmp_path / "train.txt").write_bytes(text(pairs(folder / "train")))
    for config in (config_for(folder), config_for(folder / "train", train_list=str(tmp_path / "train.txt"))):
        samples = open_split(config.replace(class_names=str(tmp_path / "names.txt")), "train")
        assert samples.classes == ("dog", "cat", "bee", "ant")
        assert sorted(set(samples.labels.tolist())) == [1, 2, 3]
    (tmp_path / "names.txt").write_text("dog\ncat\nbee\n")
    config = config_for(folder, class_names=str(tmp_path / "names.txt"))
    assert_refused(config, f"by class_names: {tmp_path}/names.txt: 1 class(es) that the 3 known ones lack: ant")


def test_numbers_of_a_validation_list_are_places_or_names_of_the_trained_classes(tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    config = listed(tmp_path, "a.png 10\nb.png 2\nc.png 1\n")

    def opened(*classes: str) -> dict[str, str]:
        samples = open_split(config, "train", classes)
        return {
            Path(name).stem: samples.classes[label] for name, label in zip(names(samples), samples.labels, strict=True)
        }

    # Class folders 0, 1, 10, 2: sorted as text.
    assert opened("0", "1", "10", "2") == {"a": "10", "b": "2", "c": "1"}
    assert "labels are numbers, which are taken as names of the known classes: 0, 1, 2 10, 3 2" in caplog.text
    (tmp_path / "names.txt").write_text("\n".join("abcdefghijk"))
    named = config.replace(class_names=str(tmp_path / "names.txt"))
    assert open_split(named, "train", ("0", "1", "10", "2")).labels.tolist() == [1, 2, 3]
    assert opened(*"abcdefghijk") == {"a": "k", "b": "c", "c": "b"}
    assert "labels are numbers, which count the known classes: 0 a, 1 b, 2 c, 3 d, 4 e, 5 f and 5 more" in caplog.text
    assert_refused(config, "train.txt:1: label 10, where there are 10 classes", classes=list("abcdefghij"))


@pytest.mark.fault("lists", "ok")
def test_numbers_with_gaps_are_classes_without_images(tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    samples = open_split(listed(tmp_path, "a.png 1\nb.png 4.0\nc.png 1\n"), "train")
    assert (samples.classes, samples.labels.tolist()) == (tuple("01234"), [1, 1, 4])
    assert caplog.messages[-1] == f"{tmp_path}/train.txt: no image of 3 of the 5 classes: 0, 2, 3"
    samples = open_split(listed(tmp_path, "a.png 1\n", num_classes=7), "train")
    assert len(samples.classes) == 7
    # As class folders of these names, since one of them is no number as programs write it.
    samples = open_split(listed(tmp_path, "a.png 01\nb.png 1\nc.png 2\n"), "train")
    assert samples.classes == ("01", "1", "2")


def test_labels_in_imagenets_words_are_its_classes(tmp_path):
    samples = open_split(listed(tmp_path, "a.png tench\nb.png n01443537\n"), "train", imagenet_names.synsets())
    assert samples.labels.tolist() == [0, 1]
    assert samples.classes == imagenet_names.synsets()


# --- Several labels, weights


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "path,labels\na.png,cat;dog\nb.png,\nc.png,elk\n"),
        ("l.csv", 'path,labels\na.png,"dog, cat"\nb.png,""\nc.png,elk\n'),
        ("l.csv", "path,tags\na.png,cat|dog\nb.png,\nc.png,elk|\n"),
        (
            "l.jsonl",
            '{"path":"a.png","label":["dog","cat"]}\n{"path":"b.png","label":[]}\n{"path":"c.png","label":"elk"}',
        ),
        ("l.txt", "a.png\t1,1,0\nb.png\t0,0,0\nc.png\t0,0,1\n"),
        ("l.txt", "a.png 1 1 0\nb.png 0 0 0\nc.png 0 0 1\n"),
        ("l.csv", "image,elk,cat,dog\na.png,0,1,1\nb.png,0,0,0\nc.png,1.0,0.0,0.0\n"),
        ("l.jsonl", '{"path":"a.png","label":[1,0]}\n{"path":"b.png","label":[]}\n{"path":"c.png","label":[2]}'),
    ],
)
def test_several_labels_are_rows_of_the_classes(tmp_path, name, content):
    config = listed(tmp_path, content, name)
    samples = open_split(config, "train", several=True)
    assert samples.classes in (("cat", "dog", "elk"), ("0", "1", "2"))
    assert samples.labels.dtype == np.float32
    found = dict(zip(names(samples), samples.labels.tolist(), strict=True))
    assert found == {f"{tmp_path}/a.png": [1, 1, 0], f"{tmp_path}/b.png": [0, 0, 0], f"{tmp_path}/c.png": [0, 0, 1]}
    known = ("elk", "fox", "dog", "cat") if samples.classes[0] == "cat" else None
    if known:
        assert open_split(config, "train", known, several=True).labels[0].tolist() == [1, 0, 0, 0]


def test_an_image_on_several_lines_has_the_labels_of_all(tmp_path, caplog):
    config = listed(tmp_path, "path,label\nb.png,dog\na.png,dog\nc.png,elk\na.png,cat\n", "l.csv")
    samples = open_split(config, "train", several=True)
    assert [Path(name).stem for name in names(samples)] == ["a", "b", "c"]
    assert samples.labels.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert "their labels are put together; such as a.png, in lines 3 and 5" in caplog.text


def test_one_label_each_makes_the_rows_of_class_folders(folder, tmp_path):
    (tmp_path / "l.txt").write_bytes(text(pairs(folder / "train")))
    config = config_for(folder / "train", train_list=str(tmp_path / "l.txt"))
    ours, theirs = open_split(config, "train", several=True), open_split(config_for(folder), "train", several=True)
    assert ours.digest() == theirs.digest()


def test_columns_of_classes_are_one_label_where_each_row_has_one(tmp_path):
    """As ISIC's ground truth has them."""
    content = "image,MEL,NV,split\na,1.0,0.0,train\nb,0.0,1.0,val\nc,0.0,1.0,train\n"
    config = listed(tmp_path, content, "l.csv")
    samples = open_split(config, "train")
    assert (samples.classes, samples.labels.tolist()) == (("MEL", "NV"), [0, 1])
    assert_refused(
        listed(tmp_path, content.replace("c,0.0", "c,1.0"), "l.csv"), "l.csv:4: expected one label, got MEL, NV"
    )
    assert_refused(listed(tmp_path, content.replace("c,0.0", "c,0.5"), "l.csv"), "l.csv:4: column MEL: expected 0 or 1")


def test_a_name_with_commas_is_one_label(tmp_path):
    content = 'path,label\na.png,"tench, Tinca tinca"\nb.png,"hen, chicken"\nc.png,cock\n'
    assert open_split(listed(tmp_path, content, "l.csv"), "train").classes == (
        "cock",
        "hen, chicken",
        "tench, Tinca tinca",
    )


def test_weights_follow_their_images(tmp_path):
    content = "weight,path,label\n2,b.png,y\n0.5,a.png,y\n1e2,c.png,x\n"
    samples = open_split(listed(tmp_path, content, "l.csv"), "train")
    assert [Path(name).stem for name in names(samples)] == ["c", "a", "b"]
    assert samples.weights.dtype == np.float32
    assert samples.weights.tolist() == [100, 0.5, 2]
    lines = [{"path": "b.png", "label": 1, "weight": 3}, {"path": "a.png", "label": 0, "weight": 0.25}]
    samples = open_split(listed(tmp_path, "\n".join(map(json.dumps, lines)), "l.jsonl"), "train")
    assert samples.weights.tolist() == [0.25, 3]


@pytest.mark.fault("lists", "ok")
def test_blank_lines_at_the_end_and_lines_that_come_twice(tmp_path, caplog):
    samples = open_split(listed(tmp_path, "b.png x\na.png x\n.//a.png x\nb.png x\n \n\n\n"), "train")
    assert names(samples) == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    assert caplog.messages == [
        f"{tmp_path}/train.txt: 2 line(s) name an image that another line names, too: each image is taken once; such "
        "as a.png, in lines 2 and 3"
    ]


@pytest.mark.fault("lists", "ok")
def test_lines_end_as_on_any_system(tmp_path):
    for end in ("\n", "\r\n", "\r"):
        for name, header in (("l.txt", ()), ("l.csv", ("path\tlabel",))):
            content = end.join([*header, "a.png\tx", "b.png\ty", ""])
            assert len(open_split(listed(tmp_path, content, name), "train")) == 2


def test_the_pack_of_a_list_holds_its_samples(folder, tmp_path, capsys):
    rows = [f"{split}/{path},{name},{split}" for split in ("train", "val") for path, name in pairs(folder / split)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label,split", *rows]))
    words = ["pack", "--data_dir", folder, "--out", tmp_path / "packed", "--train_list", tmp_path / "l.csv"]
    assert run_mindghost(*words) == 0
    config = config_for(folder, train_list=str(tmp_path / "l.csv"))
    for split in ("train", "val"):
        packed, ours = (open_split(made, split) for made in (config_for(tmp_path / "packed"), config))
        assert (packed.classes, packed.labels.tolist()) == (ours.classes, ours.labels.tolist())
        assert packed.files.tolist() == ours.files.tolist()
        assert [packed.read(index)[0, 0, 0] for index in range(len(ours))] == list(range(len(ours)))
    (tmp_path / "l.csv").write_text("path,label,weight\ntrain/ant/000.png,ant,2\n")
    assert run_mindghost(*words, "--overwrite") == 2
    text_of = capsys.readouterr().err
    assert f"--train_list: {tmp_path}/l.csv: a pack keeps no weights" in text_of


# --- Length


def test_rows_are_read_in_chunks_and_blocks_whatever_their_size(folder, tmp_path, monkeypatch):
    expected = {}
    for form in ("excel", "json lines", "text", "csv"):
        ending, write = FORMS[form]
        (tmp_path / f"l.{ending}").write_bytes(write(pairs(folder / "train")))
        config = config_for(folder / "train", train_list=f"{tmp_path}/l.{ending}")
        expected[form] = open_split(config, "train").digest()
        for block, chunk in ((1, 2), (7, 3), (64, 1)):
            monkeypatch.setattr(list_lines, "_BLOCK", block)
            monkeypatch.setattr(lists, "_CHUNK", chunk)
            assert open_split(config, "train").digest() == expected[form]
            monkeypatch.undo()
    assert len(set(expected.values())) == 1


def test_a_list_is_remembered_apart_from_others_of_its_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "home"))
    seen, look = [], scan._look

    def note(samples, indices, *rest):
        seen.append(len(indices))
        return look(samples, indices, *rest)

    monkeypatch.setattr(scan, "_look", note)
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_bytes(text(pairs(folder / split, folder)))
    config = config_for(folder, train_list=str(tmp_path / "train.txt"), val_list=str(tmp_path / "val.txt"))
    for _ in range(2):
        for split in ("train", "val"):
            open_split(config, split)
    assert seen == [23, 7, 0, 0]


def test_some_images_of_a_list_are_spread_over_it(folder, tmp_path):
    (tmp_path / "val.csv").write_bytes(table(pairs(folder / "val", folder)))
    config = config_for(folder, val_list=str(tmp_path / "val.csv"))
    assert [int(image[0, 0, 0]) for image in dataset.some_images(config, "val", 3)] == [0, 3, 6]
    assert dataset.some_images(config.replace(val_list=str(tmp_path / "no.csv")), "val", 3) == []
