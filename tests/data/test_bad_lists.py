"""What is wrong with a list of images is one line that names it, its line and the remedy."""

from __future__ import annotations

import os

import pytest

from mindghost.data.dataset import open_split
from tests.helpers.data_folders import config_for, cut
from tests.helpers.lists import assert_refused, listed, names

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.fault("lists", "clean error")
def test_a_split_without_rows_is_named_beside_those_that_there_are(tmp_path):
    content = "path,split,label\na.png,train,x\nb.png,test,x\nc.png,test,x\n"
    config = listed(tmp_path, content, "all.csv")
    assert_refused(config, "train_list: ", "no row of the split 'val'", "test (2)", "val_split", split="val")
    config = listed(tmp_path, content.replace(",test,", ",,"), "all.csv")
    assert_refused(config, "all.csv:3: an empty split")


@pytest.mark.fault("lists", "clean error")
@pytest.mark.parametrize(
    ("content", "keys", "parts"),
    [
        ("a.png 0\nb.png -1\n", {}, ("train.txt:2: label -1: numbers count the classes from 0",)),
        ("a.png 1\nb.png 2\nc.png 3\n", {"num_classes": 3}, (":3: label 3, where there are 3 classes", "subtract 1")),
        ("a.png 0\nb.png 5\nc.png 3\n", {"num_classes": 3}, (":2: label 5, where there are 3 classes",)),
        ("a.png 0\nb.png 1000000\n", {}, (":2: label 1000000: no network",)),
        ("a.png 0.5\nb.png 1\n", {}, (":1: label 0.5: expected the name of a class, or a whole number",)),
    ],
)
def test_numbers_that_are_of_no_class(tmp_path, content, keys, parts):
    assert_refused(listed(tmp_path, content, **keys), *parts)


@pytest.mark.fault("lists", "clean error")
def test_an_unknown_label_is_named_with_its_line(tmp_path):
    config = listed(tmp_path, "a.png cat\nb.png frog\nc.png frog\n")
    assert_refused(config, "train.txt:2: label 'frog' is none of the 2 classes (cat, dog)", classes=("cat", "dog"))
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert_refused(config.replace(class_names=str(tmp_path / "names.txt")), "train.txt:2: label 'frog'")
    config = listed(tmp_path, "a.png caf\u0065\u0301\n")
    assert_refused(
        config, "train.txt:1: ", "looks like the known caf\xe9, but is written in other", classes=("caf\xe9",)
    )


@pytest.mark.fault("lists", "clean error")
@pytest.mark.parametrize(
    ("name", "content", "line", "shown"),
    [
        ("l.csv", "path,label\na.png,cat\nb.png,cat;dog\n", 3, "cat;dog"),
        ("l.csv", "path,label\na.png,cat|dog\n", 2, "cat|dog"),
        ("l.csv", 'path,label\na.png,cat\nb.png,"cat,dog"\nc.png,dog\n', 3, "cat,dog"),
        ("l.txt", "a.png\t0,1,0\nb.png\t1,1,0\n", 1, "0,1,0"),
        ("l.txt", "a.png 3\nb.png 3 4\n", 2, "3 4"),
        ("l.jsonl", '{"path": "a.png", "label": ["cat"]}\n{"path": "b.png", "label": ["cat", "dog"]}\n', 2, "cat, dog"),
        ("l.jsonl", '{"path": "a.png", "label": []}\n', 1, "none"),
    ],
)
def test_several_labels_where_one_is_expected(tmp_path, name, content, line, shown):
    assert_refused(
        listed(tmp_path, content, name), f"{name}:{line}: expected one label, got {shown}", "task: multi_label"
    )


@pytest.mark.fault("lists", "clean error")
def test_vectors_of_another_length_than_the_classes(tmp_path):
    config = listed(tmp_path, "a.png\t1,1,0\n")
    assert_refused(
        config, "train.txt:1: 3 numbers 0 or 1, one for each class; expected 2", classes=("x", "y"), several=True
    )


@pytest.mark.fault("lists", "clean error")
@pytest.mark.parametrize("weight", ["nan", "-1", "0", "inf", "", "heavy", "1e-50"])
def test_weights_that_are_none(tmp_path, weight):
    content = f"path,label,weight\na.png,x,1\nb.png,x,{weight}\n"
    assert_refused(listed(tmp_path, content, "l.csv"), "l.csv:3: weight: expected a number over 0")
    value = {"nan": "NaN", "inf": "Infinity", "": "null", "heavy": "true"}.get(weight, weight)
    line = f'{{"path": "a.png", "label": 0, "weight": {value}}}'
    assert_refused(listed(tmp_path, line, "l.jsonl"), "l.jsonl:1: weight: expected a number over 0")


@pytest.mark.fault("lists", "clean error")
@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("l.txt", "a.png x\n\nb.png x\n", (":2: an empty line",)),
        ("l.txt", "a.png x\nb.png\n", (":2: no label in 'b.png'",)),
        ("l.txt", "a.png x\n\tx\n", (":2: no path", "path label")),
        ("l.txt", "", ("train_list: ", "no image in it")),
        ("l.txt", "\n\n", ("train_list: ", "no image in it")),
        ("l.csv", "", (":1: an empty first line",)),
        ("l.csv", "path,label\n", ("train_list: ", "no image in it")),
        ("l.csv", "path,label\na.png,x\n,\nb.png,x\n", (":3: an empty line",)),
        ("l.csv", "path,label\n,x\n", (":2: an empty path",)),
        ("l.csv", "path,label\na.png, \n", (":2: an empty label",)),
        (
            "l.csv",
            'path,label\na.png,x\n"b.png,x\nc.png,x\n',
            (":3: quotes that are not as in CSV", "close the quotes"),
        ),
        ("l.csv", 'path,label\n"a.png"x,x\n', (":2: quotes",)),
        ("l.csv", "path,label\na.png,x,y\n", (":2: 3 cells, where the first line has 2", "double quotes")),
        ("l.csv", "path,label\na.png\n", (":2: 1 cells",)),
        ("l.csv", "a.png,x\nb.png,x\n", (":1: the first line names no columns", "`path,label`")),
        ("l.csv", "path,colour\na.png,x\n", (":1: no column for the label", "path, colour")),
        ("l.csv", "label,size\nx,3\n", (":1: no column for the path",)),
        ("l.csv", "filename,file,label\na,a,x\n", (":1: two columns for one thing, filename and file",)),
        ("l.jsonl", '{"path": "a.png", "label": "x"}\n{"path": "b.png"}\n', (":2: no column for the label",)),
        ("l.jsonl", '{"path": "a.png", "label": "x"}\n{"path": 3, "label": "x"}\n', (":2: expected a path, got 3",)),
        ("l.jsonl", '{"path": "a.png", "label": null}\n', (":1: expected a label",)),
        ("l.jsonl", '{"path": "a.png", "label": "x"\n', ("l.jsonl:1: not JSON",)),
        ("l.jsonl", '{"path": "a.png", "path": "b.png", "label": "x"}\n', ("l.jsonl:1: not JSON", "twice")),
        ("l.jsonl", '["a.png", "x"]\n', (":1: a JSON list", "jq")),
        ("l.jsonl", '{"path": "a.png", "label": 0}\n3\n', (":2: expected an object",)),
        (
            "l.jsonl",
            '{"path": "a.png", "label": 0}\n{"path": "b.png", "label": 0, "weight": 1}\n',
            (":2: a weight is",),
        ),
        ("l.txt", "a.png x\nb.png caf\xe9\n".encode("latin-1"), (":2: not UTF-8 text", "Latin-1")),
        ("l.txt", "a.png x\ncaf\xe9.png x\n".encode("latin-1"), (":2: not UTF-8 text", "Latin-1")),
        ("l.txt", "a.png x\n".encode("utf-16"), (":1: UTF-16 text",)),
        ("l.txt", "a.png x\n".encode("utf-16-le"), (":1: no text", "UTF-16")),
        ("l.txt", b"\x89PNG\r\n\x1a\n\0\0", (":3: no text",)),
        ("l.txt", "a.png x\n" + 300_000 * "y", (":2: a line of over 262,144 bytes",)),
        ("l.txt", f"a.png x\n{5000 * 'y'}.png x\n", (":2: ", "a path of 5,004 letters")),
        ("l.txt", f"a.png {2000 * 'y'}\n", (":1: a label of 2,000 letters",)),
        ("l.txt", "a.png x\nb.png y\n./a.png y\n", (":3: a.png has the label y here, and x in line 1",)),
        ("l.csv", "path,label,weight\na.png,x,1\na.png,x,2\n", (":3: a.png has the weight 2 here, and 1 in line 2",)),
    ],
)
def test_a_bad_list_is_one_line(tmp_path, name, content, parts):
    message = assert_refused(listed(tmp_path, content, name), *parts)
    assert len(message) < 700


@pytest.mark.fault("lists", "clean error")
def test_images_that_are_missing_are_counted_and_the_first_are_named(tmp_path):
    content = "a.png x\nno/1.png x\nb.png x\nno/2.png x\nfolder x\n"
    (tmp_path / "folder").mkdir()
    config = listed(tmp_path, content)
    message = assert_refused(
        config, f"train.txt:2: {tmp_path}/no/1.png: no such file", "2 more, in lines 4, 5", "on_bad_image: skip"
    )
    assert "data_dir" not in message
    assert_refused(
        config.replace(data_dir="/nowhere"), f"train.txt:2: {tmp_path}/no/1.png", "nor in data_dir (/nowhere)"
    )
    assert_refused(listed(tmp_path, "folder x\n"), f"train.txt:1: {tmp_path}/folder: a folder, not a file")
    os.mkfifo(tmp_path / "pipe.png")
    assert_refused(listed(tmp_path, "pipe.png x\n"), "train.txt:1: ", "a FIFO, not a file")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert_refused(listed(tmp_path, "gone.png x\n"), "train.txt:1: ", "a link that leads nowhere")


@pytest.mark.fault("lists", "ok")
def test_missing_and_damaged_images_are_left_out_and_counted(tmp_path, caplog):
    config = listed(tmp_path, "a.png x\nno.png x\nb.png y\nc.png y\n").replace(on_bad_image="skip")
    cut(tmp_path / "c.png", 40)
    samples = open_split(config, "train")
    assert names(samples) == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    source = tmp_path / "train.txt"
    assert caplog.messages[:2] == [
        f"left out: {source}:2: {tmp_path}/no.png: no such file",
        f"{source}: 1 images that are not there left out (on_bad_image: skip)",
    ]
    assert caplog.messages[2].startswith(f"left out: {source}:4: {tmp_path}/c.png: not a readable image")
    assert caplog.messages[3] == f"{source}: 1 of 3 images left out (on_bad_image: skip)"


@pytest.mark.fault("lists", "clean error")
def test_a_class_none_of_whose_images_is_there_or_can_be_read(tmp_path):
    config = listed(tmp_path, "a.png x\nno.png y\n").replace(on_bad_image="skip")
    assert_refused(config, "train.txt:1: no image of the class y is there")
    config = listed(tmp_path, "no.png x\nneither.png x\n").replace(on_bad_image="skip")
    assert_refused(config, "train_list: ", f"none of its images is there; {tmp_path}/no.png: no such file")
    config = listed(tmp_path, "a.png x\nc.png y\n").replace(on_bad_image="skip")
    cut(tmp_path / "c.png", 40)
    assert_refused(config, "train.txt: no image of the class y can be read")


@pytest.mark.fault("lists", "clean error")
def test_a_damaged_image_is_named_with_its_line(tmp_path):
    config = listed(tmp_path, "a.png x\nb.png y\nc.png y\n")
    cut(tmp_path / "c.png", 40)
    assert_refused(config, f"train.txt:3: {tmp_path}/c.png: not a readable image", "on_bad_image: skip")


@pytest.mark.fault("lists", "clean error")
def test_what_is_no_list(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("pipe", "a FIFO, not a file"), ("", "a folder, not a file"), ("no.txt", "no such file")):
        assert_refused(config_for(tmp_path, train_list=str(tmp_path / name)), "train_list: ", why)
    assert_refused(config_for(tmp_path, val_list=str(tmp_path / "no.txt")), "val_list: ", split="val")


def test_a_list_without_validation_images_says_what_to_set(tmp_path):
    config = listed(tmp_path, "a.png x\n")
    assert_refused(config, "set val_list or val_fraction", split="val")
