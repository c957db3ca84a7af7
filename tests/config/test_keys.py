"""Keys, defaults and recipes: MindCV's and ours, each described and read by something."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import yaml

from mindghost.config import Config
from tests.helpers.configs import cli, message_of, write
from tests.helpers.places import ROOT

RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))

# MindCV's keys with the defaults it declares, in its order (its 87th argument is --config itself).
# device_target differs: MindCV's "Ascend" does not apply when the key is absent. So does model: its default there,
# mobilenet_v2_035_224, is no Ghost network, and the shortest command has to train.
MINDCV_DEFAULTS = yaml.safe_load("""
{mode: 0, distribute: false, val_while_train: false, val_interval: 1, log_interval: 100, seed: 42,
device_target: null, dataset: imagenet, data_dir: ./, train_split: train, val_split: val,
dataset_download: false, num_parallel_workers: 8, shuffle: true, num_samples: null, batch_size: 128,
drop_remainder: true,
image_resize: 224, scale: [0.08, 1.0], ratio: [0.75, 1.333], hflip: 0.5, vflip: 0.0, color_jitter: 0.4,
interpolation: bilinear, auto_augment: null, aug_splits: 0, re_prob: 0.0, re_scale: [0.02, 0.33],
re_ratio: [0.3, 3.3], re_value: 0, re_max_attempts: 10, mean: [123.675, 116.28, 103.53],
std: [58.395, 57.120000000000005, 57.375], crop_pct: 0.875, mixup: 0.0, cutmix: 0.0, cutmix_prob: 1.0,
aug_repeats: 0, model: ghostnet_100, num_classes: null, in_channels: 3, drop_rate: null,
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
    "auto": False,
    "task": "classification",
    "sampler": None,
    "ignore_index": 255,
    "random_scale": [0.5, 2.0],
    "crop_size": None,
    "channels": [],
    "quantize_aware": None,
    "amp_type": "float16",
    "dice_weight": 0.0,
    "ohem": None,
    "class_weights": None,
    "tensorboard": False,
    "native_ops": "auto",
    "compile_cache": True,
    "on_bad_image": "error",
    "train_list": "",
    "val_list": "",
    "exclude_list": "",
    "val_fraction": 0.0,
    "class_names": "",
    "eval_mirror": False,
    "crop_padding": None,
    "image_digests": False,
    "lr_reference_batch": None,
    "init": "mindcv",
    "backbone": "",
    "decoder_width": 1.0,
    "upsampling": "bilinear",
    "backbone_ckpt_path": "",
    "freeze_backbone": False,
    "freeze_stages": 0,
    "unfreeze_epoch": None,
    "head_lr_factor": 1.0,
    "backbone_lr_factor": 1.0,
    "patience": None,
    "sync_bn": False,
    "overwrite": False,
    "report": "",
    "predictions": "",
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
    code = "import sys; import mindghost.config; sys.exit('mindspore' in sys.modules or 'mindcv' in sys.modules)"
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
    config = Config.from_file(path)
    if not config.open:
        header = path.read_text().split("\n\n")[0]
        assert "arxiv.org" in header
        assert f"configs/{path.parent.name}/{path.name}" in header
        assert "Published" in header
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
        ({"decay_epochs": 88}, ["warmup_epochs 3 + decay_epochs 88 reach past the end of the run (epoch_size 90)"]),
        ({"scheduler": "step_decay"}, ["warmup_epochs 3 + decay_epochs 100"]),
        ({"decay_epochs": 29, "num_cycles": 3}, []),
        ({"decay_epochs": 30, "num_cycles": 3}, ["warmup_epochs 3 + 3 x decay_epochs 30"]),
        ({"scheduler": "step_decay", "decay_epochs": 30, "num_cycles": 3}, []),
        ({"scheduler": "multi_step_decay"}, ["[90] lie past the end of the run, epoch_size 90"]),
        ({"scheduler": "multi_step_decay", "multi_step_decay_milestones": [5, 86]}, []),
        # Milestones are counted from the end of the warm-up: the last of 90 epochs is number 86 after three.
        ({"scheduler": "multi_step_decay", "multi_step_decay_milestones": [86, 87]}, ["[87] lie past the end"]),
        ({"multi_step_decay_milestones": [500], "decay_epochs": 87}, []),
        ({"decay_epochs": 87, "lr_epoch_stair": True}, ["the learning rate is 0"]),
        ({"decay_epochs": 87, "lr_epoch_stair": True, "warmup_factor": 0.1}, []),
        ({"decay_epochs": 90, "lr_epoch_stair": True, "warmup_epochs": 0}, []),
    ],
)
def test_warnings(keys, words):
    found = Config(**keys).warnings()
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)


def test_all_warnings_that_apply_are_given():
    assert len(Config(lr_epoch_stair=True).warnings()) == 2


# Only one value of these is allowed, and Config itself sees to it.
CHECKED_IN_CONFIG = {"aug_splits", "aux_factor"}


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
    package = [p for p in (ROOT / "src" / "mindghost").rglob("*.py") if p.parent.name != "config"]
    sources = [*package, *ROOT.glob("*.py")]
    read = set().union(*(_keys_read(ast.parse(path.read_text(), str(path))) for path in sources))
    assert sorted(set(Config.model_fields) - CHECKED_IN_CONFIG - read) == []
    assert sorted(CHECKED_IN_CONFIG & read) == []
