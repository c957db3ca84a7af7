"""Recipes in files and flags of the command line, and one clear line for what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindghost.config import Config, Said, load
from mindghost.config.yaml_file import MAX_BYTES
from mindghost.runs.files import saved_by_training
from tests.helpers.configs import cli, message_of, write

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.fault("configurations", "clean error")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["x.yaml: the file is empty"]),
        ("# a comment\n", ["x.yaml: the file is empty"]),
        ("---\n", ["x.yaml:", "expected `key: value` lines"]),
        ("- lr: 1\n", ["x.yaml:1: expected `key: value` lines, got a list"]),
        ("\nlr\n", ["x.yaml:2: expected `key: value` lines, got a single value"]),
        ("mode: 0\nlr: -1\n", ["x.yaml:2: lr: expected a number > 0, got -1"]),
        ("mode: 0\nbatch_size: -4\n", ["x.yaml:2: batch_size: expected an integer >= 1, got -4"]),
        ("mode: 0\nbatchsize: 4\n", ["x.yaml:2: batchsize: unknown key", "batch_size"]),
        ("lr: 1\nmode: 0\n\nlr: 1\n", ["x.yaml:4: lr: given twice, first on line 1"]),
        ('lr: 1\n"lr": 2\n', ["x.yaml:2: lr: given twice"]),
        ("mode: 0\n\tlr: 1\n", ["x.yaml:2: not valid YAML", "tabs"]),
        ("lr:\t0.1\n", ["x.yaml:1: not valid YAML", "use spaces"]),
        ("mode: 0\nlr: [1, 2\n", ["x.yaml:", "not valid YAML"]),
        ("lr: 1\n mode: 0\n", ["x.yaml:2: not valid YAML"]),
        ("lr: @1\n", ["x.yaml:1: not valid YAML"]),
        ("lr: !!float 1\n", ["x.yaml:1: tags", "not allowed"]),
        ("lr: !!python/object/apply:os.system ['id']\n", ["x.yaml:1: tags"]),
        ("!!map\nlr: 1\n", ["x.yaml:1: tags"]),
        ("lr: ! 1\n", ["x.yaml:1: tags"]),
        ("!!str lr: 1\n", ["x.yaml:1: tags"]),
        (BOMB, ["x.yaml:1: anchors and aliases"]),
        ("lr: *a\n", ["x.yaml:1: anchors and aliases"]),
        ("&a lr: 1\n", ["x.yaml:1: anchors and aliases"]),
        ("<<: {lr: 1}\n", ["x.yaml:1: merge keys"]),
        ("lr: {a: 1}\n", ["x.yaml:1: lr: expected a value or a list, got a mapping"]),
        ("system:\n  mode: 0\n", ["x.yaml:2: system: expected a value or a list, got a mapping"]),
        ("scale: [[0.08], 1.0]\n", ["x.yaml:1: scale: expected a flat list"]),
        ("mean: " + "[" * 5000, ["x.yaml:1: mean: expected a flat list"]),
        ("? [a]\n: 1\n", ["x.yaml:1: expected a key"]),
        ("1: 2\n", ["x.yaml:1: 1: unknown key"]),
        ("lr: 1\n---\nlr: 2\n", ["x.yaml:2: a second document"]),
        ("mode: 0\nlr: \x00\n", ["x.yaml:2: not valid YAML: U+0000"]),
        (b"mode: 0\nlr: \xff\n", ["x.yaml:2: not UTF-8"]),
        ("lr: 1\n" + "#" * MAX_BYTES, ["x.yaml: larger than"]),
        ("train_split: 2024\n", ["x.yaml:1: train_split: expected text, got 2024; put it in quotes"]),
        ("train_split: no\n", ["got False; put it in quotes"]),
        ("batch_size: 1_000\n", ["x.yaml:1: batch_size: expected an integer >= 1, got '1_000'"]),
        ("batch_size: '4'\n", ["got '4'"]),
        ("batch_size:\n", ["batch_size: expected an integer >= 1, got None"]),
        ("lr: .nan\n", ["lr: expected a number > 0, got nan"]),
        ("lr: -.inf\n", ["lr: expected a number > 0, got -inf"]),
        ("lr: " + "9" * 5000, ["lr: expected a number > 0"]),
        ("lr: 0.1\nwarmup_epochs: 95\n", ["x.yaml:2: warmup_epochs: ", "epoch_size: 90"]),
        ("lr: 0.1\nepoch_size: 2\n", ["x.yaml:2: epoch_size: ", "warmup_epochs: 3"]),
        ("".join(f"k{i}: 1\n" for i in range(2000)), ["x.yaml:1: k0: unknown key", "(and 1999 more)"]),
    ],
)
def test_bad_files(text, words, tmp_path):
    message = message_of(Config.from_file, write(tmp_path, text))
    assert message.startswith(str(tmp_path))
    assert all(word in message for word in words), message


@pytest.mark.fault("configurations", "clean error")
def test_files_that_cannot_be_read(tmp_path):
    assert "no such file" in message_of(cli, "-c", str(tmp_path / "none.yaml"))
    assert "a folder, not a file" in message_of(cli, "-c", str(tmp_path))
    assert "a device, not a file" in message_of(cli, "-c", "/dev/zero")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lr: 1e-5\n", "lr", 1e-5),
        ("lr: 4e-1\n", "lr", 0.4),
        ("ema: yes\n", "ema", True),
        ("num_samples: None\n", "num_samples", None),
        ("num_samples: ~\n", "num_samples", None),
        ("mean:\n- 1\n- 2\n- 3\n", "mean", (1.0, 2.0, 3.0)),
        ("amp_cast_list: [nn.Conv2d, nn.Dense]\n", "amp_cast_list", ("Conv2d", "Dense")),
        ("ckpt_path: 'None'\n", "ckpt_path", "None"),
        ("data_dir: |-\n  /a b\n", "data_dir", "/a b"),
        ("\ufefflr: 2\r\n", "lr", 2.0),
        ("{lr: 2}", "lr", 2.0),
        ("---\nlr: 2\n...\n", "lr", 2.0),
    ],
)
def test_good_files(text, key, value, tmp_path):
    assert getattr(Config.from_file(write(tmp_path, text)), key) == value


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        ("--batch_size 4", "batch_size", 4),
        ("--batch_size=4", "batch_size", 4),
        ("--distribute", "distribute", True),
        ("--distribute --lr 1", "distribute", True),
        ("--distribute True", "distribute", True),
        ("--shuffle false", "shuffle", False),
        ("--shuffle 0", "shuffle", False),
        ("--shuffle=no", "shuffle", False),
        ("--ema YES", "ema", True),
        ("--scale 0.5 1.0", "scale", (0.5, 1.0)),
        ("--scale 0.5,1.0", "scale", (0.5, 1.0)),
        ("--scale|[0.5, 1.0]", "scale", (0.5, 1.0)),
        ("--scale|(0.5, 1.0)", "scale", (0.5, 1.0)),
        ("--scale|0.5 1", "scale", (0.5, 1.0)),
        ("--scale=0.5,1", "scale", (0.5, 1.0)),
        ("--mean -1 -2.5 -1e-3", "mean", (-1.0, -2.5, -0.001)),
        ("--mean -1,-2,3", "mean", (-1.0, -2.0, 3.0)),
        ("--re_value -1e-3", "re_value", -0.001),
        ("--re_value random", "re_value", "random"),
        ("--re_value 1 2 3", "re_value", (1.0, 2.0, 3.0)),
        ("--color_jitter 0.1", "color_jitter", 0.1),
        ("--color_jitter None", "color_jitter", None),
        ("--color_jitter 0.1 0.2 0.3", "color_jitter", (0.1, 0.2, 0.3)),
        ("--amp_cast_list|[nn.Conv2d, nn.Dense]", "amp_cast_list", ("Conv2d", "Dense")),
        ("--amp_cast_list nn.Conv2d", "amp_cast_list", ("Conv2d",)),
        ("--multi_step_decay_milestones 5 7", "multi_step_decay_milestones", (5, 7)),
        ("--num_classes null", "num_classes", None),
        ("--auto_augment None", "auto_augment", None),
        ("--data_dir 123", "data_dir", "123"),
        ("--data_dir -1", "data_dir", "-1"),
        ("--data_dir a-5", "data_dir", "a-5"),
        ("--ckpt_path None", "ckpt_path", "None"),
        ("--ckpt_path|", "ckpt_path", ""),
        ("--device_target CPU", "device_target", "CPU"),
        ("--lr 4e-1", "lr", 0.4),
        ("--decay_epochs 2.4 --scheduler step_decay", "decay_epochs", 2.4),
    ],
)
def test_flags(argv, key, value):
    found = getattr(cli(*(argv.split("|") if "|" in argv else argv.split())), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.fault("configurations", "clean error")
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--batch_size -4", ["--batch_size: expected an integer >= 1, got -4"]),
        ("--batch_size 4.0", ["--batch_size: expected an integer >= 1, got 4.0"]),
        ("--lr -1e-3", ["--lr: expected a number > 0, got -0.001"]),
        ("--lr nan", ["--lr: expected a number > 0, got 'nan'"]),
        ("--lr", ["--lr: expected one argument"]),
        ("--scale", ["--scale: expected at least one argument"]),
        ("--batch_siz 4", ["'--batch_siz': unknown flag", "--batch_size"]),
        ("--batch_siz=4", ["'--batch_siz': unknown flag", "--batch_size"]),
        ("-lr 4", ["'-lr': unknown flag", "--lr"]),
        ("--confg x", ["'--confg': unknown flag", "--config"]),
        ("--lr 1 --lr 2", ["--lr: given twice"]),
        ("-c a --config b", ["--config: given twice"]),
        ("junk --lr 1", ["unexpected argument 'junk'"]),
        ("--lr 1 2", ["unexpected argument '2'"]),
        ("--distribute True junk", ["unexpected argument 'junk'"]),
        ("--distribute junk", ["--distribute: expected True or False, got 'junk'"]),
        ("--scale 0.08 1.0 junk", ["--scale: expected two numbers"]),
        ("--scale [0.08", ["--scale: expected two numbers"]),
        ("--mode 1 -- junk", ["unexpected argument '"]),
        ("--epoch_size 3 --warmup_epochs 3", ["--warmup_epochs: ", "epoch_size: 3"]),
        ("--overwrite maybe --lr 0", ["--overwrite: expected True or False", "(and 1 more)"]),
        ("--data_dir|", ["--data_dir: expected text that is not empty"]),
        ("--data_dir|\ud800", ["--data_dir: "]),
        ("|", ["unexpected argument ''"]),
    ],
)
def test_bad_command_lines(argv, words):
    message = message_of(cli, *(argv.split("|") if "|" in argv else argv.split()))
    assert all(word in message for word in words), message


def test_flags_override_the_file_and_errors_name_the_right_source(tmp_path):
    path = write(tmp_path, "lr: 0.2\nbatch_size: 0\n")
    config = cli("-c", str(path), "--batch_size", "8")
    assert (config.lr, config.batch_size) == (0.2, 8)
    assert message_of(cli, "-c", str(path)).startswith(f"{path}:2: batch_size: ")
    assert message_of(cli, "-c", str(path), "--batch_size", "8", "--lr", "0").startswith("--lr: ")


def test_weights_are_asked_what_they_say(tmp_path):
    path = write(tmp_path, "lr: 0.2\nckpt_path: b.onnx\nmodel: a\n")
    asked = []

    def weights(ckpt_path, with_recipe):
        asked.append((ckpt_path, with_recipe))
        fixed = {"model": "a", "mean": (1.0, 2.0, 3.0)}
        return Said({**fixed, "lr": 0.3, "batch_size": 0}, {"batch_size": "x:1: "}, fixed, Path("a.onnx"))

    found = cli("--ckpt_path", "a.onnx", "--batch_size", "8", "--mean", "1", "2", "3.0000001", weights=weights)
    assert (found.model, found.lr, found.batch_size) == ("a", 0.3, 8)
    found = cli("-c", str(path), "--batch_size", "8", "--model", "a", weights=weights)
    assert (found.model, found.lr, found.mean) == ("a", 0.2, (1, 2, 3))
    assert asked == [("a.onnx", False), ("b.onnx", True)]
    assert message_of(cli, "--ckpt_path", "a.onnx", weights=weights).startswith("x:1: batch_size: expected an integer")
    other = message_of(cli, "-c", str(path), "--batch_size", "8", "--model", "b", weights=weights)
    assert other == "--model: a.onnx has a, got b; leave the key out"
    path.write_text("\nmean: [1, 2, 4]\nckpt_path: a.onnx\n")
    other = message_of(cli, "-c", str(path), "--batch_size", "8", weights=weights)
    assert other == f"{path}:2: mean: a.onnx has [1.0, 2.0, 3.0], got [1.0, 2.0, 4.0]; leave the key out"


BESIDE = "model: ghostnet_050\nnum_classes: 3\ndata_dir: D\nimage_resize: [32, 48]\neval_mirror: true\nbatch_size: 16\n"


def beside(tmp_path, text: str) -> str:
    """Weights with this config.yaml beside them."""
    (tmp_path / "config.yaml").write_text(text)
    for name in ("x.ckpt", "classes.json"):
        (tmp_path / name).write_text("")
    return str(tmp_path / "x.ckpt")


@pytest.mark.fault("settings", "ok")
def test_of_a_config_beside_weights_only_what_they_need_is_taken(tmp_path):
    """It came with the weights: it is asked for a network and its images, and for nothing to be done."""
    more = (
        "report: /tmp/report\noverwrite: true\ndataset_download: true\npretrained: true\nnative_ops: 'on'\nmode: 1\n"
        "device_target: Ascend\nckpt_save_dir: /\ntensorboard: true\nresume: true\nteacher: x.mindir\nckpt_path: y\n"
        "num_parallel_workers: 2000000000\ncompile_cache: false\ndistribute: true\nseed: 1\nepoch_size: -5\n"
    )
    path = beside(tmp_path, BESIDE + more)
    wanted = {"model": "ghostnet_050", "num_classes": 3, "data_dir": "D", "image_resize": (32, 48)}
    wanted |= {"eval_mirror": True, "batch_size": 16}
    assert cli("--ckpt_path", path, weights=lambda path, _: saved_by_training(path)) == Config(**wanted, ckpt_path=path)


@pytest.mark.fault("settings", "clean error")
@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("num_classes: 2000000000", "num_classes: expected at most 1,000,000"),
        ("in_channels: 2000000000", "in_channels: expected at most 1,024"),
        ("image_resize: 2000000000", "image_resize: expected at most 4,096"),
        ("image_resize: [32, 5000]", "image_resize: expected at most 4,096"),
        ("batch_size: 2000000", "batch_size: expected at most 116,508"),
        ("crop_pct: 0.000001", "crop_pct: expected a share"),
        ("image_size: 32", "image_size: unknown key"),
        ("num_classes: null\nmodel: 7", "model: expected text"),
        ("batch_size: -1", "batch_size: expected an integer >= 1"),
    ],
)
def test_sizes_beside_weights_are_bounded(change, names, tmp_path):
    kept = [line for line in BESIDE.splitlines() if line.split(":")[0] not in change]
    path = beside(tmp_path, "\n".join([change, *kept]) + "\n")
    message = message_of(cli, "--ckpt_path", path, weights=lambda path, _: saved_by_training(path))
    assert message.startswith(f"{tmp_path / 'config.yaml'}:")
    assert names in message
    # Whoever means it says so.
    if "batch_size: 2" in change:
        line = ("--ckpt_path", path, "--batch_size", "2000000")
        assert cli(*line, weights=lambda path, _: saved_by_training(path)).batch_size == 2_000_000


def test_the_network_beside_weights_is_not_to_be_contradicted(tmp_path):
    line = ("--ckpt_path", beside(tmp_path, BESIDE), "--image_resize", "64")
    assert cli(*line, weights=lambda path, _: saved_by_training(path)).image_resize == 64
    message = message_of(cli, *line, "--model", "ghostnet_100", weights=lambda path, _: saved_by_training(path))
    assert message == f"--model: {tmp_path / 'config.yaml'} has ghostnet_050, got ghostnet_100; leave the key out"


def test_print_config_is_valid_input(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli("--lr", "1e-7", "--amp_cast_list", "[nn.Conv2d]", "--print_config")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    config = Config.from_file(write(tmp_path, printed))
    assert config == Config(lr=1e-7, amp_cast_list=["Conv2d"])
    assert printed == config.to_yaml()


def test_arguments_are_the_process_s_own_where_none_are_given(monkeypatch):
    monkeypatch.setattr("sys.argv", ["--lr", "--batch_size", "8"])  # the program's name comes first, whatever it is
    assert load(None, prog="train.py", description="Train.") == Config(batch_size=8)


def test_help_is_not_as_wide_as_a_wide_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        cli("--help")
    described = [line for line in capsys.readouterr().out.splitlines() if line.startswith("      ")]
    assert 100 < max(map(len, described)) <= 110


def test_help_explains_every_key(capsys):
    with pytest.raises(SystemExit) as caught:
        cli("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for key, field in Config.model_fields.items():
        assert f"--{key} " in text
        assert " ".join(field.description.split()) in text, key
    assert "[one of CE, BCE; default: CE]" in text
    assert "examples: python train.py -c finetune --data_dir D python train.py -c configs/" in text
    assert text.startswith("usage: train.py [-c RECIPE] [--key value ...] Train. ")


def test_published_weights_are_asked_for_by_a_word_or_by_a_variants_name(tmp_path):
    given = {"True": True, "False": False, "910v2": "910v2"}
    assert {text: cli("--pretrained", text).pretrained for text in given} == given
    assert cli("--pretrained").pretrained is True
    for text, value in given.items():
        assert Config.from_file(write(tmp_path, f"pretrained: {text}\n")).pretrained == value
    wanted = "x.yaml:1: pretrained: expected True, False or the name of a variant, got 910"
    assert message_of(Config.from_file, write(tmp_path, "pretrained: 910\n")).endswith(wanted)
