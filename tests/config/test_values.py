"""What a value may be, and one clear line for what it may not."""

from __future__ import annotations

import re

import pytest

from mindghost.config import Config, beside_weights
from mindghost.config.yaml_file import dump, scalar
from mindghost.errors import UserError
from tests.helpers.configs import message_of

BFLOAT16 = {"amp_level": "O2", "amp_type": "bfloat16"}


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
        ("color_jitter", [0.9, 0.9, 0.9], (0.9, 0.9, 0.9)),  # hue alone, the fourth, is bounded
        ("color_jitter", [0.9, 0.9, 0.9, 0.5], (0.9, 0.9, 0.9, 0.5)),
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


@pytest.mark.parametrize("name", ["", "imagenet", "ImageNet"])
def test_an_empty_dataset_means_image_folders_as_in_mindcvs_guide(name):
    assert Config(dataset=name).dataset == "imagenet"


@pytest.mark.fault("configurations", "clean error")
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


# The lowest and highest number that each key takes, and whether that number itself is taken; None: no end.
NO_END = (None, True)
RANGES = {
    ("val_interval", "log_interval", "num_parallel_workers", "num_samples", "batch_size", "image_resize", "num_classes",
     "re_max_attempts", "in_channels", "keep_checkpoint_max", "ckpt_save_interval", "ckpt_save_interval_steps",
     "epoch_size", "gradient_accumulation_steps", "num_cycles", "decay_epochs",
     "patience"): ((1, True), (2**31 - 1, True)),
    ("unfreeze_epoch",): ((2, True), (2**31 - 1, True)),
    ("aug_repeats", "warmup_epochs", "freeze_stages"): ((0, True), (2**31 - 1, True)),
    ("mode",): ((0, True), (1, True)),
    ("seed",): ((0, True), (2**32 - 1, True)),
    ("ignore_index",): ((0, True), (65_535, True)),
    ("crop_padding",): ((0, True), NO_END),
    ("hflip", "vflip", "re_prob", "cutmix_prob", "momentum", "distill_alpha"): ((0.0, True), (1.0, True)),
    ("drop_rate", "drop_path_rate", "ema_decay", "label_smoothing",
     "val_fraction"): ((0.0, True), (1.0, False)),
    ("crop_pct", "layer_decay", "ohem"): ((0.0, False), (1.0, True)),
    ("clip_value", "eps", "lr", "lr_reference_batch", "decay_rate", "cycle_decay", "distill_temperature",
     "head_lr_factor", "backbone_lr_factor"): ((0.0, False), NO_END),
    ("color_jitter", "mixup", "cutmix", "weight_decay", "min_lr", "warmup_factor",
     "dice_weight"): ((0.0, True), NO_END),
    ("loss_scale",): ((1.0, True), NO_END),
    ("decoder_width",): ((0.1, True), (8.0, True)),
}  # fmt: skip
KEY_RANGES = [(key, *ends) for keys, ends in RANGES.items() for key in keys]


def accepts(key: str, value: float) -> bool:
    """Whether a key takes a value, apart from what other keys have to say about it."""
    others = {
        "epoch_size": {"warmup_epochs": 0},
        "warmup_epochs": {"epoch_size": 2**31 - 1},
        "patience": {"val_while_train": True},
    }.get(key, {})
    if key == "warmup_epochs" and value == 2**31 - 1:
        others = {}  # no run is longer
    try:
        return getattr(Config(**{key: value}, **others), key) == value
    except UserError as error:
        return "must be shorter than the run" in str(error)


@pytest.mark.parametrize(("key", "lowest", "highest"), KEY_RANGES, ids=[key for key, *_ in KEY_RANGES])
def test_ranges_end_where_they_should(key, lowest, highest):
    for (end, taken), outwards in ((lowest, -1), (highest, 1)):
        if end is None:
            assert accepts(key, 10**9)
            continue
        step = 1 if isinstance(end, int) else 1e-9
        assert accepts(key, end) == taken
        assert not accepts(key, end + outwards * step)
        assert accepts(key, end - outwards * step)


def test_every_number_has_a_range_here():
    """But for those that only take one value, and lists."""
    single = {"aug_splits", "aux_factor"}
    kinds = {key: field.annotation for key, field in Config.model_fields.items()}
    numbers = {key for key, kind in kinds.items() if {"int", "float"} & set(re.findall(r"\w+", str(kind)))}
    numbers = {key for key in numbers if "tuple" not in str(kinds[key])}
    assert numbers - single <= {key for key, *_ in KEY_RANGES}


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


@pytest.mark.fault("configurations", "clean error", once=True)
@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize("value", [-4, 0, 1.0, 1.5, True, "2", [2], 2**31, 10**40, float("nan"), {}])
def test_bad_integers(key, value):
    message = message_of(Config, **{key: value})
    assert message.startswith(f"{key}: expected a")
    assert "2147483647" in message if isinstance(value, int) and value > 0 and value is not True else "integer"


@pytest.mark.fault("configurations", "clean error", once=True)
@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [-4, 0, True, "2", [2.0], float("nan"), float("inf"), 10**400])
def test_bad_numbers(key, value):
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected a number >")


@pytest.mark.fault("configurations", "clean error", once=True)
@pytest.mark.parametrize("key", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", float("nan")])
def test_bad_shares(key, value):
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected a number >")


# Keys that take a word in place of True and False, and what they say that they take.
WORDS = {
    "resume": "True or False or text that is not empty",
    "pretrained": "True, False or the name of a variant",
}


@pytest.mark.fault("configurations", "clean error", once=True)
@pytest.mark.parametrize("key", [key for key, value in Config() if isinstance(value, bool) and key not in WORDS])
@pytest.mark.parametrize("value", [0, 1, "True", None, 1.0])
def test_bad_booleans(key, value):
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected True or False, got {value!r}")


@pytest.mark.parametrize(("key", "expected"), WORDS.items())
@pytest.mark.parametrize("value", [0, 1, None, 1.0, ""])
def test_keys_of_a_boolean_that_take_a_word_as_well(key, expected, value):
    assert getattr(Config(**{key: "runs/a"}), key) == "runs/a"
    assert message_of(Config, **{key: value}).startswith(f"{key}: expected {expected}, got ")


@pytest.mark.fault("configurations", "clean error", once=True)
@pytest.mark.parametrize("key", [key for key, value in Config() if isinstance(value, str)])
@pytest.mark.parametrize("value", [1, True, None, ["a"], "\0"])
def test_bad_texts(key, value):
    message = message_of(Config, **{key: value})
    assert message.startswith(f"{key}: expected ")
    assert ", got " in message


@pytest.mark.fault("configurations", "clean error")
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


@pytest.mark.fault("configurations", "clean error")
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
        ({"dataset": "cifar10", "train_list": "a.csv"}, ["train_list: cifar10", "leave train_list out"]),
        ({"dataset": "mnist", "val_fraction": 0.1}, ["val_fraction: mnist", "splits of their own"]),
        ({"opt": "nadam", "layer_decay": 0.7}, ["layer_decay: ", "one rate", "another opt"]),
        ({"opt": "nadam", "head_lr_factor": 10}, ["head_lr_factor: ", "one rate"]),
        ({"patience": 5}, ["patience: ", "set val_while_train to True"]),
        ({"resume_opt": True}, ["resume_opt: ", "ckpt_path"]),
        ({"teacher_ckpt_path": "a.ckpt"}, ["teacher_ckpt_path: there is no teacher", "name it with teacher"]),
        (
            {"teacher": "a.MindIR", "teacher_ckpt_path": "a.ckpt"},
            ["teacher_ckpt_path: a MindIR file holds its weights", "drop teacher_ckpt_path"],
        ),
        (
            {"teacher": "a.mindir", "drop_remainder": False},
            ["drop_remainder: a MindIR teacher takes batches of one size", "set drop_remainder to True"],
        ),
        ({"native_ops": "on", "amp_level": "O2"}, ["native_ops: ", "float32", "set amp_level to O0"]),
        ({"amp_type": "bfloat16"}, ["amp_level: bfloat16 is for amp_level: O2, not for O0; set amp_level to O2"]),
        (
            BFLOAT16 | {"val_amp_level": "O2"},
            ["val_amp_level: with bfloat16 evaluation is in float32 or bfloat16, not in O2"],
        ),
        (
            {"val_amp_level": "bfloat16", "native_ops": "off"},
            ["native_ops: evaluation in bfloat16 takes our operators; set native_ops to auto, or val_amp_level to O0"],
        ),
        (BFLOAT16 | {"native_ops": "off"}, ["native_ops: bfloat16 takes our operators; set native_ops to auto"]),
        (BFLOAT16 | {"amp_cast_list": ["Dense"]}, ["amp_cast_list: bfloat16 is for convolutions"]),
        (BFLOAT16 | {"quantize_aware": "int8"}, ["amp_level: maps are rounded in float32"]),
        ({"aug_splits": 3, "aux_factor": 1.0, "resume_opt": True}, ["aug_splits", "(and 2 more)"]),
    ],
)
def test_bad_combinations(keys, words):
    message = message_of(Config, **keys)
    assert message.partition(": ")[0] in Config.model_fields
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "keys",
    [
        {"warmup_epochs": 89},
        {"scheduler": "one_cycle", "warmup_epochs": 0},
        {"scheduler": "cyclic", "warmup_epochs": 0, "min_lr": 0},
        {"scheduler": "cosine_decay", "min_lr": 0, "lr_epoch_stair": True},
        {"scheduler": "step_decay", "decay_epochs": 2.4},
        {"use_nesterov": True, "opt": "adam", "momentum": 0},
        {"use_nesterov": True, "opt": "momentum"},
        {"loss_scale_type": "dynamic", "drop_overflow_update": True},
        {"loss_scale_type": "auto"},
        {"ckpt_save_policy": "top_k", "val_while_train": True},
        {"num_samples": 10},
        {"aug_repeats": 3},
        {"resume_opt": True, "ckpt_path": "a.ckpt"},
        {"teacher": "a.mindir"},
        {"teacher": "ghostnet_100", "teacher_ckpt_path": "a.ckpt"},
        {"teacher": "ghostnet_100", "drop_remainder": False},
        {"native_ops": "on"},
        {"native_ops": "auto", "amp_level": "O2"},
        BFLOAT16,
        BFLOAT16 | {"native_ops": "on", "loss_scale_type": "auto"},
    ],
    ids=str,
)
def test_good_combinations(keys):
    config = Config(**keys)
    assert {key: getattr(config, key) for key in keys} == keys


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "True"),
        (-3, "-3"),
        (1e-07, "1.0e-07"),
        (-2.5e-09, "-2.5e-09"),
        (0.1, "0.1"),
        ((0.5, 1.0), "[0.5, 1.0]"),
        ("./ckpt", "./ckpt"),
        ("no", '"no"'),
        ("1e5", '"1e5"'),
        ("Käfer müßig", '"Käfer müßig"'),
        ("a " * 100, f'"{"a " * 100}"'),
    ],
    ids=str,
)
def test_values_are_written_as_one_would_write_them(value, text):
    assert dump(value) == text


def test_long_values_and_names_are_cut_in_messages():
    """60 characters, quotes among them, are shown whole; of more, the first 57."""
    assert message_of(Config, opt="x" * 58).endswith(f", got '{'x' * 58}'")
    assert message_of(Config, opt="x" * 59).endswith(f", got '{'x' * 56}...")
    assert message_of(Config, **{"y" * 61: 1}).startswith(f"{'y' * 57}...: unknown key")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"image_resize": 4096, "batch_size": 8}, None),
        ({"image_resize": (4097, 32)}, "image_resize: expected at most 4,096 pixels, got 4097"),
        ({"image_resize": (32, 4097)}, "image_resize: expected at most 4,096 pixels, got 4097"),
        ({"image_resize": (32, 4096), "crop_pct": 0.25}, None),
        (
            {"image_resize": (4096, 32), "crop_pct": 0.2499},
            "crop_pct: expected a share that images of 16,384 pixels are large enough for, got 0.2499",
        ),
        ({"image_resize": 1024, "in_channels": 1, "batch_size": 512}, None),
        (
            {"image_resize": (512, 1024), "in_channels": 2, "batch_size": 513},
            "batch_size: expected at most 512 for these images, got 513",
        ),
        ({"in_channels": 1024, "batch_size": 1}, None),
        ({"in_channels": 1025, "batch_size": 1}, "in_channels: expected at most 1,024, got 1025"),
        ({"num_classes": 1_000_000}, None),
        ({"num_classes": 1_000_001}, "num_classes: expected at most 1,000,000, got 1000001"),
    ],
)
def test_sizes_that_a_stranger_may_ask_for(keys, message):
    found = [f"{problem.keys[0]}: {problem.message}" for problem in beside_weights.oversized(Config(**keys))]
    assert found == ([message] if message else [])
