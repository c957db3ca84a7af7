"""The configuration: defaults, recipes, command line, and one clear line for everything that is wrong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ghostnet.config import Config, load
from ghostnet.config.yaml_file import MAX_BYTES, scalar
from ghostnet.errors import UserError

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))

# MindCV's keys with the defaults it declares, in its order (its 87th argument is --config itself).
# device_target differs: MindCV's "Ascend" does not apply when the key is absent.
MINDCV_DEFAULTS = yaml.safe_load("""
{mode: 0, distribute: false, val_while_train: false, val_interval: 1, log_interval: 100, seed: 42,
device_target: null, dataset: imagenet, data_dir: ./, train_split: train, val_split: val,
dataset_download: false, num_parallel_workers: 8, shuffle: true, num_samples: null, batch_size: 128,
drop_remainder: true,
image_resize: 224, scale: [0.08, 1.0], ratio: [0.75, 1.333], hflip: 0.5, vflip: 0.0, color_jitter: 0.4,
interpolation: bilinear, auto_augment: null, aug_splits: 0, re_prob: 0.0, re_scale: [0.02, 0.33],
re_ratio: [0.3, 3.3], re_value: 0, re_max_attempts: 10, mean: [123.675, 116.28, 103.53],
std: [58.395, 57.120000000000005, 57.375], crop_pct: 0.875, mixup: 0.0, cutmix: 0.0, cutmix_prob: 1.0,
aug_repeats: 0, model: mobilenet_v2_035_224, num_classes: null, in_channels: 3, drop_rate: null,
drop_path_rate: null, pretrained: false, ckpt_path: '', resume_opt: false, keep_checkpoint_max: 10,
ckpt_save_dir: ./ckpt, ckpt_save_interval: 1, ckpt_save_policy: latest_k, epoch_size: 90,
dataset_sink_mode: true, ema: false, ema_decay: 0.9999, clip_grad: false, clip_value: 15.0, layer_decay: null,
gradient_accumulation_steps: 1, opt: adam, momentum: 0.9, weight_decay: 1.0e-6, use_nesterov: false,
weight_decay_filter: disable, eps: 1.0e-10, scheduler: cosine_decay, lr: 0.001, min_lr: 1.0e-6,
warmup_epochs: 3, warmup_factor: 0.0, decay_epochs: 100, decay_rate: 0.9,
multi_step_decay_milestones: [30, 60, 90], lr_epoch_stair: false, num_cycles: 1, cycle_decay: 1.0, loss: CE,
label_smoothing: 0.0, aux_factor: 0.0, reduction: mean, amp_level: O0, val_amp_level: O0, amp_cast_list: null,
loss_scale_type: fixed, loss_scale: 1.0, drop_overflow_update: false, eval_shuffle: false}
""")
OUR_DEFAULTS = {
    "tensorboard": False,
    "lr_reference_batch": None,
    "freeze_backbone": False,
    "sync_bn": False,
    "overwrite": False,
    "report": "",
    "resume": False,
    "resume_force": False,
    "ckpt_save_interval_steps": None,
    "teacher": "",
    "teacher_ckpt_path": "",
    "distill_alpha": 0.5,
    "distill_temperature": 1.0,
}

MINDCV_RECIPE = """\
# system
mode: 0
distribute: True
num_parallel_workers: 8
val_while_train: True

# dataset
dataset: "imagenet"
data_dir: "/path/to/imagenet"
shuffle: True
dataset_download: False
batch_size: 128
drop_remainder: True

# augmentation
image_resize: 224
scale: [0.08, 1.0]
ratio: [0.75, 1.333]
hflip: 0.5
interpolation: "bilinear"
crop_pct: 0.875
re_prob: 0.25
auto_augment: "randaug-m9-mstd0.5"

# model
model: "ghostnet_100"
num_classes: 1000
pretrained: False
ckpt_path: ""
keep_checkpoint_max: 30
ckpt_save_dir: "./ckpt"
epoch_size: 600
dataset_sink_mode: True
amp_level: "O3"

# loss
loss: "CE"
label_smoothing: 0.1

# lr scheduler
scheduler: "cosine_decay"
min_lr: 0.0000001
lr: 0.4
warmup_epochs: 20
decay_epochs: 580

# optimizer
opt: "momentum"
momentum: 0.9
weight_decay: 0.00002
loss_scale_type: "dynamic"
drop_overflow_update: True
loss_scale: 16777216
use_nesterov: False
"""
CPU_DEPARTURES = {
    "distribute": False,
    "dataset_sink_mode": False,
    "amp_level": "O0",
    "loss_scale_type": "fixed",
    "drop_overflow_update": False,
    "loss_scale": 1.0,
    "num_parallel_workers": 2,
}


def cli(*argv: str, **options) -> Config:
    return load(argv, prog="train.py", description="Train.", **options)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message_of(call, *args, **keys) -> str:
    """The message of the UserError that the call raises, which must be one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **keys)
    message = str(caught.value)
    assert message
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture(autouse=True)
def graph_mode() -> None:
    """Replaces conftest's: nothing here runs MindSpore, and collecting garbage would take a minute."""


# --- Keys and recipes ---------------------------------------------------------------------------------------


def test_keys_and_defaults_are_mindcvs_and_ours():
    assert len(MINDCV_DEFAULTS) == 86
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in Config()}
    assert values == {**MINDCV_DEFAULTS, **OUR_DEFAULTS}


def test_every_key_is_described():
    for key, field in Config.model_fields.items():
        assert field.description, key
        assert field.description.rstrip().endswith("."), key


def test_config_is_frozen_and_comparable():
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0
    assert config == Config()
    assert hash(config) == hash(Config())


def test_importing_it_does_not_import_mindspore():
    code = "import sys, ghostnet.config; sys.exit('mindspore' in sys.modules or 'mindcv' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode == 0


def test_mindcv_recipe_loads_unchanged(tmp_path):
    config = cli("--config", str(write(tmp_path, MINDCV_RECIPE)))
    assert config.min_lr == 1e-7
    assert config.loss_scale == 16777216.0
    assert isinstance(config.loss_scale, float)
    for key, value in yaml.safe_load(MINDCV_RECIPE).items():
        assert getattr(config, key) == (tuple(value) if isinstance(value, list) else value), key


@pytest.mark.parametrize("width", ["050", "100", "130"])
def test_shipped_recipes_are_mindcvs(width, tmp_path):
    theirs = Config.from_file(write(tmp_path, MINDCV_RECIPE)).replace(
        model=f"ghostnet_{width}", lr_reference_batch=1024, aug_repeats=3 if width == "130" else 0
    )
    folder = ROOT / "configs" / "ghostnet"
    assert Config.from_file(folder / f"ghostnet_{width}_ascend.yaml") == theirs
    assert Config.from_file(folder / f"ghostnet_{width}_cpu.yaml") == theirs.replace(**CPU_DEPARTURES)


def test_there_are_six_ghostnet_recipes():
    assert len(list((ROOT / "configs" / "ghostnet").glob("ghostnet_[01]*.yaml"))) == 6


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem.endswith("_cpu")], ids=lambda path: path.stem)
def test_a_cpus_recipe_is_the_ascends_where_a_cpu_can_take_it(path):
    theirs = Config.from_file(path.with_name(path.name.replace("_cpu", "_ascend"))).replace(**CPU_DEPARTURES)
    if theirs.opt == "lamb":
        theirs = theirs.replace(opt="adamw", lr=0.002)
    assert Config.from_file(path) == theirs


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe_header_and_round_trip(path, tmp_path):
    header = path.read_text().split("\n\n")[0]
    assert "arxiv.org" in header
    assert f"configs/{path.parent.name}/{path.name}" in header
    assert "Published" in header
    config = Config.from_file(path)
    assert config.warnings() == []
    assert Config.from_file(write(tmp_path, config.to_yaml())) == config


def test_yaml_round_trip_keeps_awkward_values(tmp_path):
    config = Config(
        data_dir="a: b # c\n\t'\"\x85é\U0001f600",
        ckpt_path="1e5",
        train_split="None",
        val_split="",
        lr=1e-7,
        eps=5e-324,
        weight_decay=1e22,
        amp_cast_list="[nn.Conv2d, nn.Dense]",
        re_value="random",
        color_jitter=(0.1, 0.2, 0.3, 0.4),
        multi_step_decay_milestones=[],
        scheduler="step_decay",
        decay_epochs=2.4,
        device_target="CPU",
    )
    text = config.to_yaml()
    assert Config.from_file(write(tmp_path, text)) == config
    assert text.startswith("# System\nmode: 0\n")
    # MindCV reads YAML 1.1, where a float needs its dot.
    assert yaml.safe_load(text)["lr"] == 1e-7


def test_replace_is_checked_and_leaves_the_original():
    config = Config()
    assert config.replace(batch_size=2, scale=[0.5, 1]).scale == (0.5, 1.0)
    assert config.batch_size == 128
    assert "batch_size: expected an integer >= 1, got 0" in message_of(config.replace, batch_size=0)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, ["warmup_epochs 3 + decay_epochs 100", "epoch_size 90"]),
        ({"decay_epochs": 87}, []),
        ({"scheduler": "constant"}, []),
        ({"decay_epochs": 87, "lr_epoch_stair": True}, ["the learning rate is 0"]),
    ],
)
def test_warnings(keys, words):
    found = Config(**keys).warnings()
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)


# --- Values that are taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("lr", 1, 1.0),
        ("scale", [1, 1], (1.0, 1.0)),
        ("mean", [0.5], (0.5,)),
        ("multi_step_decay_milestones", [1, 2], (1, 2)),
        ("decay_epochs", 2.0, 2),
        ("opt", "AdamW", "adamw"),
        ("loss_scale_type", "Fixed", "fixed"),
        ("interpolation", "BICUBIC", "bicubic"),
        ("color_jitter", None, None),
        ("color_jitter", [0.1, 0.2, 0.3], (0.1, 0.2, 0.3)),
        ("re_value", 3, 3),
        ("re_value", "random", "random"),
        ("re_value", [1, 2.5, 3], (1.0, 2.5, 3.0)),
        ("amp_cast_list", "[nn.Conv2d, nn.Dense]", ("Conv2d", "Dense")),
        ("amp_cast_list", "nn.Conv2d", ("Conv2d",)),
        ("amp_cast_list", ["nn.Conv2d", "Dense"], ("Conv2d", "Dense")),
        ("seed", 2**32 - 1, 2**32 - 1),
    ],
)
def test_accepted_values(key, given, value):
    extra = {"mean": {"std": [1.0]}}.get(key, {})
    found = getattr(Config(**{key: given}, **extra), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "policy",
    [
        "randaug",
        "randaug-m9-mstd0.5",
        "randaug-m10-n2-w0-mstd0.5-mmax10-inc0",
        "randaug-mstd101",
        "autoaug",
        "autoaug-mstd0.5",
        "autoaugr",
        "autoaugr-mstd1",
        "3a",
        "3a-mstd0.5",
        "augmix",
        "augmix-m5-w4-d2",
        "augmix-a0.5",
        "augmix-a2.",
        "randaug-w0-n13",
        "trivialaugwide",
        "trivialaugwide-m20",
    ],
)
def test_auto_augment_accepts_mindcvs_strings(policy):
    assert Config(auto_augment=policy).auto_augment == policy


@pytest.mark.parametrize(
    "policy",
    [
        "RandAugment",
        "rand-m9",
        "randaug-x3",
        "randaug-m",
        "randaug-m9.5",
        "randaug-m-1",
        "randaug-w1",
        "randaug--m9",
        "randaug-",
        "randaug_m9",
        "randaug-mstd",
        "randaug-mstdx",
        "autoaug-m9",
        "autoaugx",
        "3a-n2",
        "augmix-w0",
        "augmix-a0",
        "augmix-a0.0",
        "augmix-d-1",
        "trivialaugwide-m0",
        "trivialaugwide-n2",
        "",
        "randaug-m9\n",
        "randaug-m9-mmax11",
        "randaug-w0-n14",
        "randaug-m1..5",
        "randaug-m٣",
        "randaug m9",
    ],
)
def test_auto_augment_refuses_what_mindcv_refuses_ignores_or_dies_of(policy):
    message = message_of(Config, auto_augment=policy)
    assert message.startswith("auto_augment: ")
    assert "policy" in message or "section" in message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("4e-1", 0.4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("010", 10),
        ("+3", 3),
        ("", None),
        ("~", None),
        ("null", None),
        ("None", None),
        ("Yes", True),
        ("OFF", False),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("-", "-"),
        ("٣", "٣"),
    ],
)
def test_scalars(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


# --- Values and combinations that are refused ---------------------------------------------------------------

INTEGERS = [
    "val_interval",
    "batch_size",
    "epoch_size",
    "num_classes",
    "num_samples",
    "image_resize",
    "in_channels",
]
NUMBERS = ["lr", "clip_value", "loss_scale", "eps", "decay_rate", "cycle_decay", "lr_reference_batch"]
SHARES = [
    "hflip",
    "vflip",
    "re_prob",
    "cutmix_prob",
    "crop_pct",
    "drop_rate",
    "drop_path_rate",
    "label_smoothing",
    "ema_decay",
]


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize("value", [-4, 0, 1.0, 1.5, True, "2", [2], 2**31, 10**40, float("nan"), {}])
def test_bad_integers(key, value):
    message = message_of(Config, **{key: value})
    assert message.startswith(f"{key}: expected a")
    assert "2147483647" in message if isinstance(value, int) and value > 0 and value is not True else "integer"


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [-4, 0, True, "2", [2.0], float("nan"), float("inf"), 10**400])
def test_bad_numbers(key, value):
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected a number >")


@pytest.mark.parametrize("key", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", float("nan")])
def test_bad_shares(key, value):
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected a number >")


# resume takes a path as well.
@pytest.mark.parametrize("key", [key for key, value in Config() if isinstance(value, bool) and key != "resume"])
@pytest.mark.parametrize("value", [0, 1, "True", None, 1.0])
def test_bad_booleans(key, value):
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected True or False, got {value!r}")


@pytest.mark.parametrize("value", [0, 1, None, 1.0, ""])
def test_resume_takes_a_path_as_well(value):
    assert Config(resume="runs/a").resume == "runs/a"
    assert message_of(Config, resume=value).startswith("resume: expected True or False or text that is not empty")


@pytest.mark.parametrize("key", [key for key, value in Config() if isinstance(value, str)])
@pytest.mark.parametrize("value", [1, True, None, ["a"], "\0"])
def test_bad_texts(key, value):
    message = message_of(Config, **{key: value})
    assert message.startswith(f"{key}: expected ")
    assert ", got " in message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mode": 2}, "mode: expected an integer >= 0 and <= 1, got 2"),
        ({"mode": False}, "mode: expected an integer"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
        ({"seed": 2**32}, "<= 4294967295"),
        ({"device_target": "TPU"}, "expected one of Ascend, CPU, GPU, or None, got 'TPU'"),
        ({"data_dir": 5}, "got 5; put it in quotes"),
        ({"dataset": "imagenet21k"}, "expected one of imagenet, cifar10, cifar100, mnist"),
        ({"data_dir": ""}, "data_dir: expected text that is not empty, got ''"),
        ({"scale": [1.0, 0.5]}, "scale: expected two numbers > 0 and <= 1, the lower first, got [1.0, 0.5]"),
        ({"scale": [0.5]}, "scale: expected two numbers"),
        ({"scale": 0.5}, "scale: expected two numbers"),
        ({"scale": (0.08, True)}, "scale: expected two numbers"),
        ({"ratio": [0.75, "1.3"]}, "ratio: expected two numbers > 0"),
        ({"ratio": [0, 1]}, "ratio: expected two numbers > 0"),
        ({"re_scale": [0.02, 1.5]}, "re_scale: expected two numbers > 0 and <= 1"),
        ({"re_ratio": [3.3, 0.3]}, "re_ratio: "),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "mean: expected one number or three"),
        ({"mean": [1.0]}, "std: mean has 1 and std 3 numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "std: expected one number > 0 or three"),
        ({"color_jitter": [0.4, 0.4]}, "color_jitter: expected one number >= 0, three"),
        ({"color_jitter": [0.4, 0.4, 0.4, 0.6]}, "the last <= 0.5"),
        ({"color_jitter": -0.1}, "color_jitter: "),
        ({"re_value": "const"}, "re_value: expected a number, three numbers or random, got 'const'"),
        ({"re_value": True}, "re_value: "),
        ({"re_value": [1, 2]}, "re_value: "),
        ({"interpolation": "lanczos"}, "expected one of bilinear, nearest, bicubic, area"),
        ({"mixup": -0.1}, "mixup: expected a number >= 0"),
        ({"ckpt_save_policy": "best"}, "expected one of latest_k, top_k"),
        ({"opt": "adan"}, "expected one of sgd, momentum"),
        ({"scheduler": "cosine"}, "expected one of constant, cosine_decay"),
        ({"loss": "ce"}, "expected one of CE, BCE"),
        ({"reduction": "none"}, "expected one of mean, sum"),
        ({"amp_level": "O4"}, "expected one of O0, O1, O2, O3"),
        ({"amp_cast_list": "__import__('os').system('id')"}, "amp_cast_list: expected names of cells"),
        ({"amp_cast_list": "[nn.Conv2d, eval('1')]"}, "amp_cast_list: "),
        ({"amp_cast_list": ["os.system"]}, "amp_cast_list: "),
        ({"amp_cast_list": ["Conv2d\n"]}, "amp_cast_list: "),
        ({"amp_cast_list": []}, "amp_cast_list: "),
        ({"amp_cast_list": [1]}, "amp_cast_list: "),
        ({"amp_cast_list": "[[nn.Conv2d]]"}, "amp_cast_list: "),
        ({"multi_step_decay_milestones": [30, 0]}, "expected a list of integers >= 1, got [30, 0]"),
        ({"multi_step_decay_milestones": [2.5]}, "expected a list of integers >= 1"),
        ({"decay_epochs": 0}, "decay_epochs: expected a number > 0, got 0"),
        ({"decay_epochs": True}, "decay_epochs: expected a number > 0, got True"),
        ({"decay_epochs": float("nan")}, "decay_epochs: expected a number > 0"),
        ({"decay_epochs": 2.4}, "only step_decay takes a fraction"),
        ({"loss_scale": 0.5}, "loss_scale: expected a number >= 1, got 0.5"),
        ({"batchsize": 4}, "batchsize: unknown key; the nearest valid key is batch_size"),
        ({"Batch_Size": 4}, "nearest valid key is batch_size"),
        ({"zzz\n": 4}, r"'zzz\n': unknown key"),
        ({"lr": -1, "batch_size": 0, "mode": 7}, "lr: expected a number > 0, got -1 (and 2 more)"),
    ],
)
def test_bad_values(keys, words):
    assert words in message_of(Config, **keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"warmup_epochs": 90}, ["warmup_epochs: ", "epoch_size: 90", "lower warmup_epochs"]),
        ({"scheduler": "one_cycle"}, ["one_cycle", "set warmup_epochs to 0"]),
        ({"scheduler": "cyclic"}, ["cyclic", "set warmup_epochs to 0"]),
        (
            {"scheduler": "cyclic", "warmup_epochs": 0, "lr_epoch_stair": True},
            ["set lr_epoch_stair to False"],
        ),
        ({"scheduler": "one_cycle", "warmup_epochs": 0, "min_lr": 0}, ["min_lr", "above 0"]),
        ({"use_nesterov": True, "opt": "sgd", "momentum": 0}, ["use_nesterov", "momentum above 0"]),
        ({"loss_scale_type": "dynamic"}, ["drop_overflow_update: ", "dynamic", "to True"]),
        ({"aux_factor": 0.4}, ["aux_factor: expected 0", "no network here has auxiliary logits"]),
        ({"ckpt_save_policy": "top_k"}, ["ckpt_save_policy: ", "set val_while_train to True"]),
        ({"num_samples": 10, "aug_repeats": 3}, ["num_samples", "aug_repeats to 0"]),
        ({"aug_splits": 3}, ["aug_splits: expected 0", "JSD"]),
        ({"layer_decay": 0.7}, ["layer_decay: ", "needs a network that numbers its layers"]),
        ({"resume_opt": True}, ["resume_opt: ", "ckpt_path"]),
        ({"aug_splits": 3, "aux_factor": 1.0, "resume_opt": True}, ["aug_splits", "(and 2 more)"]),
    ],
)
def test_bad_combinations(keys, words):
    message = message_of(Config, **keys)
    assert all(word in message for word in words), message


# --- Files --------------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


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


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in message_of(cli, "-c", str(tmp_path / "none.yaml"))
    assert "not a regular file" in message_of(cli, "-c", str(tmp_path))
    assert "not a regular file" in message_of(cli, "-c", "/dev/zero")


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


# --- Command line -------------------------------------------------------------------------------------------


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
        ("--epoch_size 3", ["--epoch_size: ", "warmup_epochs: 3"]),
        ("--overwrite maybe --lr 0", ["--overwrite: expected True or False", "(and 1 more)"]),
        ("--data_dir|", ["--data_dir: expected text that is not empty"]),
        ("--data_dir|\udc80", ["--data_dir: "]),
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


def test_default_config_is_asked_only_without_c(tmp_path):
    path = write(tmp_path, "lr: 0.2\n")
    asked = []

    def beside_the_checkpoint(values):
        asked.append(dict(values))
        return path

    assert cli("--ckpt_path", "a.ckpt", default_config=beside_the_checkpoint).lr == 0.2
    assert asked == [{"ckpt_path": "a.ckpt"}]
    cli("-c", str(path), default_config=beside_the_checkpoint)
    assert len(asked) == 1


def test_print_config_is_valid_input(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli("--lr", "1e-7", "--amp_cast_list", "[nn.Conv2d]", "--print_config")
    assert caught.value.code == 0
    config = Config.from_file(write(tmp_path, capsys.readouterr().out))
    assert config == Config(lr=1e-7, amp_cast_list=["Conv2d"])


def test_help_explains_every_key(capsys):
    with pytest.raises(SystemExit) as caught:
        cli("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for key, field in Config.model_fields.items():
        assert f"--{key} " in text
        assert " ".join(field.description.split()) in text, key
    assert "[one of CE, BCE; default: CE]" in text
    assert "examples:" in text


# --- Readers ------------------------------------------------------------------------------------------------

# Only one value of these is allowed, and Config itself sees to it.
CHECKED_IN_CONFIG = {"aug_splits", "aux_factor", "layer_decay"}


def _keys_read(tree: ast.AST) -> set[str]:
    """Attributes that are read of something called config, such as ``config.lr`` or ``self.config.lr``."""
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name in ("config", "_config"):
                read.add(node.attr)
    return read


def test_every_key_has_a_reader():
    package = [p for p in (ROOT / "src" / "ghostnet").rglob("*.py") if p.parent.name != "config"]
    sources = [*package, *ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    read = set().union(*(_keys_read(ast.parse(path.read_text(), str(path))) for path in sources))
    assert sorted(set(Config.model_fields) - CHECKED_IN_CONFIG - read) == []
    assert sorted(CHECKED_IN_CONFIG & read) == []
