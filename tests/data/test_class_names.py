"""Class names: every form that people have is read in label order, or refused in one line; none is taken for names."""

import codecs
import json

import pytest

from mindghost.data import class_names
from mindghost.errors import UserError
from mindghost.files import json_text

NAMES = ["tench", "goldfish", "great white shark"]
SYNSETS = ["n01440764", "n01443537", "n01484850"]
MAP = {str(label): name for label, name in enumerate(NAMES)}
LABELS = {name: label for label, name in enumerate(NAMES)}


def written(tmp_path, content, ending=".json"):
    path = tmp_path / f"names{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.fault("class names", "ok")
@pytest.mark.parametrize(
    "value",
    [
        NAMES,
        dict(reversed(MAP.items())),
        dict(reversed(LABELS.items())),
        {name: str(label) for name, label in LABELS.items()},
        {str(label): [SYNSETS[label], name] for label, name in enumerate(NAMES)},
        [[synset, name] for synset, name in zip(SYNSETS, NAMES, strict=True)],
        {"architectures": ["ViT"], "id2label": MAP, "label2id": LABELS, "image_size": 224},
        {"model_type": "vit", "label2id": LABELS},
        {"categories": NAMES, "num_params": 5_000_000},
        {"meta": {"categories": NAMES}, "url": "https://example.org"},
        {"class_to_idx": LABELS},
        {"architecture": "ghostnet_100", "num_classes": 3, "label_names": NAMES},
        {"model": "ghostnet_050", "classes": NAMES, "input": {"name": "image"}},
    ],
    ids=[
        "list",
        "label to name",
        "name to label",
        "labels as text",
        "Keras",
        "Keras's list",
        "Hugging Face",
        "label2id alone",
        "torchvision",
        "torchvision's meta",
        "ImageFolder",
        "timm",
        "ours",
    ],
)
def test_json_of_several_libraries(value, tmp_path):
    assert class_names.read(written(tmp_path, json.dumps(value))) == NAMES
    # What a file is called does not matter.
    assert class_names.read(written(tmp_path, json.dumps(value, indent=1), ".txt")) == NAMES


@pytest.mark.fault("class names", "ok")
@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"tench\r\ngoldfish\r\ngreat white shark\r\n\r\n\r\n", NAMES),
        (codecs.BOM_UTF8 + b"tench\ngoldfish\ngreat white shark", NAMES),
        (codecs.BOM_UTF8 + json.dumps(NAMES).encode(), NAMES),
        ("\n".join(NAMES).encode("utf-16"), NAMES),
        (codecs.BOM_UTF16_BE + "\n".join(NAMES).encode("utf-16-be"), NAMES),
        (json.dumps(MAP).encode("utf-32"), NAMES),
        (b"[unknown]\ncat\ndog\n", ["[unknown]", "cat", "dog"]),
        (b"[unknown]\n", ["[unknown]"]),
        (b"0\n1\n10\n2\n", ["0", "1", "10", "2"]),
        (b"7\n", ["7"]),
        (b"null\ntrue\nNaN\n", ["null", "true", "NaN"]),
        (b"null\n", ["null"]),
        (b"type 0\ntype 1\n", ["type 0", "type 1"]),
        (b"3 cats\n4 dogs\n", ["3 cats", "4 dogs"]),
        (b"10\n11\n12\n", ["10", "11", "12"]),
        ("Mütze\nčaj\n猫\n".encode(), ["Mütze", "čaj", "猫"]),
        (b"tench, Tinca tinca\ncrane\x85x\n", None),
        ("a\u2028b\nc\n".encode(), ["a\u2028b", "c"]),
        (b'{"1": 0, "0": 1}', ["1", "0"]),
        (b'{"1": "0", "0": "1"}', ["1", "0"]),
        (b'["line\\nbreak", "\\udcff", " "]', ["line\nbreak", "\udcff", " "]),
        (b'{"0": ["n01", "cat"], "1": ["n02", "dog"]}', ["cat", "dog"]),
        (b'{"0": ["n02012849", "crane"], "1": ["n03126707", "crane"]}', ["crane (n02012849)", "crane (n03126707)"]),
    ],
)
def test_text_in_every_encoding_and_names_that_look_like_something_else(content, names, tmp_path):
    if names is None:
        with pytest.raises(UserError, match="line 2: no UTF-8 text"):
            class_names.read(written(tmp_path, content, ".txt"))
    else:
        assert class_names.read(written(tmp_path, content, ".txt")) == names


@pytest.mark.fault("class names", "clean error")
@pytest.mark.parametrize(
    ("content", "ending", "why"),
    [
        (b"tench\n\ngoldfish\n", ".txt", "line 2 is blank"),
        (b"\ntench\ngoldfish\n", ".txt", "line 1 is blank"),
        (b"tench\n \t\ngoldfish\n", ".txt", "line 2 is blank"),
        (b"tench\ngoldfish\ntench\n", ".txt", "labels 0 and 2 have one name, 'tench'"),
        (b"", ".txt", "empty"),
        (b"\n\n", ".txt", "empty"),
        (b"0 tench\n1 goldfish\n", ".txt", "numbered"),
        (b"id,name\n0,tench\n1,goldfish\n", ".csv", "numbered"),
        (b"1: tench\n2: goldfish\n", ".txt", "numbered"),
        (b"name,label\ntench,0\ngoldfish,1\n", ".csv", "numbered"),
        (b"tench\t1\ngoldfish\t2\n", ".tsv", "numbered"),
        (b"- tench\n- goldfish\n", ".txt", "YAML"),
        (b"names: [tench]\n", ".yaml", "neither plain text nor JSON"),
        (b"<!DOCTYPE html>\n<html></html>\n", ".txt", "neither plain text nor JSON"),
        (b"t\0e\0n\0c\0h\0", ".txt", "UTF-16"),
        (b"\xff\xd8\xff\xe0", ".txt", "no UTF-8 text"),
        (b'["tench", "goldfish",]', ".txt", "not JSON"),
        (b"[\ntench,\ngoldfish\n]", ".txt", "not JSON"),
        (b"[tench, goldfish]", ".txt", "not JSON"),
        (b"{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", ".txt", "not JSON"),
        (b'{"name": "tench"}\n{"name": "goldfish"}\n', ".txt", "not JSON"),
        (b"tench\ngoldfish\n", ".json", "not JSON"),
        (b'"tench"', ".json", "expected a list or a map"),
        (b"[]", ".json", "expected a list"),
        (b"{}", ".json", "expected a list or a map"),
        (b"[1, 2]", ".json", "label 0: expected a class name, got a number"),
        (b'["tench", null]', ".json", "label 1: expected a class name, got null"),
        (b'["tench", true]', ".json", "got true or false"),
        (b'["tench", ""]', ".json", "label 1: its name is empty"),
        (b'[["tench", "goldfish"], ["shark"]]', ".json", "got a list"),
        (b'[["tench", 0], ["goldfish", 1]]', ".json", "got a list"),
        (b'{"1": "tench", "2": "goldfish"}', ".json", "none for label 0"),
        (b'{"0": "tench", "2": "goldfish"}', ".json", "none for label 1"),
        (b'{"0": "tench", "00": "goldfish"}', ".json", "expected a list or a map"),
        (b'{"tench": 0, "goldfish": 0}', ".json", "'tench' and 'goldfish' have one label, 0"),
        (b'{"tench": 0, "goldfish": 5}', ".json", "none for label 1"),
        (b'{"tench": -1, "goldfish": 0}', ".json", "none for label 1"),
        (b'{"tench": 0.0, "goldfish": 1}', ".json", "expected a list or a map"),
        (b'{"0": "tench", "0": "goldfish"}', ".json", "'0' is there twice"),
        (b'{"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}', ".json", "do not agree"),
        (b'{"model": "ghostnet_050", "epochs": 3}', ".json", "expected a list or a map"),
        (b"[" * 100_000, ".json", "nested too deep"),
        (b'{"classes":' * 900 + b"1" + b"}" * 900, ".json", "nested too deep"),
        (b'["' + b"x" * 5_000 + b'"]', ".json", "a name of 5,000 letters"),
        (b'{"tench": ' + b"9" * 5_000 + b"}", ".json", "a number of 5000 digits"),
    ],
)
def test_what_is_no_list_of_names_is_one_line(content, ending, why, tmp_path):
    path = written(tmp_path, content, ending)
    with pytest.raises(UserError) as caught:
        class_names.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert why in message
    assert "\n" not in message
    assert len(message) < 600


def test_numbers_that_are_none_never_come_out():
    text = '{"a": NaN, "b": [1e999, -Infinity], "d": -12, "e": 0.5}'
    assert json_text.parse(text, "x", "y") == {"a": None, "b": [None, None], "d": -12, "e": 0.5}
    assert json_text.dumps({"loss": float("nan"), "x": (1, float("inf"))}) == '{"loss": null, "x": [1, null]}'


def test_a_file_that_cannot_be_read_names_itself(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            class_names.read(path)
        with pytest.raises(UserError, match=str(path)):
            json_text.read(path, "give another")
