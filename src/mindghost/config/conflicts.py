"""Values that do not go together: no configuration is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .problems import Problem

if TYPE_CHECKING:
    from . import Config

# Keys that give parts of a network rates of their own -> the value that gives none.
RATE_FACTORS = {"layer_decay": None, "head_lr_factor": 1, "backbone_lr_factor": 1}


def conflicts(config: Config) -> Iterator[Problem]:
    """Values that are fine alone but cannot work together, or that no network of this project can honour."""
    yield from _schedule_conflicts(config)
    yield from _data_conflicts(config)
    yield from _model_conflicts(config)
    yield from _precision_conflicts(config)


def _schedule_conflicts(config: Config) -> Iterator[Problem]:
    if config.warmup_epochs >= config.epoch_size:
        yield Problem(
            ("warmup_epochs", "epoch_size"),
            f"the warm-up (warmup_epochs: {config.warmup_epochs}) must be shorter than the run (epoch_size: "
            f"{config.epoch_size}); lower warmup_epochs",
        )
    if config.scheduler in ("one_cycle", "cyclic"):
        if config.warmup_epochs > 0:
            yield Problem(
                ("warmup_epochs", "scheduler"),
                f"scheduler {config.scheduler} has a warm-up of its own; set warmup_epochs to 0",
            )
        if config.lr_epoch_stair:
            yield Problem(
                ("lr_epoch_stair", "scheduler"),
                f"scheduler {config.scheduler} changes the rate every step; set lr_epoch_stair to False",
            )
    if config.scheduler == "one_cycle" and config.min_lr == 0:
        yield Problem(("min_lr", "scheduler"), "scheduler one_cycle divides by min_lr; set it above 0")
    if config.scheduler != "step_decay" and not isinstance(config.decay_epochs, int):
        yield Problem(
            ("decay_epochs", "scheduler"),
            f"expected an integer for scheduler {config.scheduler}, got {config.decay_epochs}; only "
            "step_decay takes a fraction",
        )
    if config.use_nesterov and config.opt in ("sgd", "momentum") and config.momentum == 0:
        yield Problem(("use_nesterov", "momentum"), "Nesterov momentum needs a momentum above 0")


def _data_conflicts(config: Config) -> Iterator[Problem]:
    for key in ("train_list", "val_list", "val_fraction"):
        if config.dataset != "imagenet" and getattr(config, key):
            yield Problem(
                (key, "dataset"),
                f"{config.dataset} is read from its binary files, which have splits of their own; leave {key} out, or "
                "set dataset to imagenet",
            )
    if config.exclude_list and config.task == "segmentation":
        yield Problem(
            ("exclude_list", "task"),
            "images with masks cannot be left out by exclude_list; leave their lines out of train_list, or move them",
        )
    if config.aug_repeats > 0 and config.num_samples is not None:
        yield Problem(
            ("num_samples", "aug_repeats"),
            "num_samples and aug_repeats cannot be combined; set num_samples to None or aug_repeats to 0",
        )
    if config.sampler == "balanced" and not config.shuffle:
        yield Problem(
            ("sampler", "shuffle"), "a balanced draw has a random order; set shuffle to True or sampler to None"
        )
    if config.sampler == "balanced" and config.task == "multi_label":
        yield Problem(
            ("sampler", "task"),
            "images with several labels cannot be drawn so that all labels are equally frequent; set sampler to None, "
            "and class_weights to balanced if rare labels are to count more",
        )
    if config.aug_splits != 0:
        yield Problem(
            ("aug_splits",),
            f"expected 0, got {config.aug_splits}; training on augmentation splits (JSD loss) is not part "
            "of the GhostNet recipes",
        )
    if len(config.mean) != len(config.std):
        yield Problem(
            ("std", "mean"),
            f"mean has {len(config.mean)} and std {len(config.std)} numbers; give both as many",
        )


def _model_conflicts(config: Config) -> Iterator[Problem]:
    if config.resume_opt and not config.ckpt_path:
        yield Problem(("resume_opt",), "there is no optimizer state to resume; name the checkpoint with ckpt_path")
    if config.ckpt_save_policy == "top_k" and not config.val_while_train:
        yield Problem(
            ("ckpt_save_policy", "val_while_train"),
            "top_k ranks checkpoints by accuracy; set val_while_train to True or the policy to latest_k",
        )
    if config.teacher_ckpt_path and not config.teacher:
        yield Problem(("teacher_ckpt_path", "teacher"), "there is no teacher to give weights to; name it with teacher")
    if config.teacher_ckpt_path and config.teacher.lower().endswith(".mindir"):
        yield Problem(("teacher_ckpt_path", "teacher"), "a MindIR file holds its weights; drop teacher_ckpt_path")
    if config.teacher and config.task == "multi_label":
        yield Problem(
            ("teacher", "task"),
            "what is learnt from a teacher are its softmax probabilities, which task multi_label has none of; drop it",
        )
    if config.teacher.lower().endswith(".mindir") and not config.drop_remainder:
        yield Problem(
            ("drop_remainder", "teacher"), "a MindIR teacher takes batches of one size; set drop_remainder to True"
        )
    if config.patience is not None and not config.val_while_train:
        yield Problem(
            ("patience", "val_while_train"), "scores are those of evaluations; set val_while_train to True, or drop it"
        )
    several = [key for key, same in RATE_FACTORS.items() if getattr(config, key) != same]
    if several and config.opt == "nadam":
        yield Problem(
            (several[0], "opt"), "mindcv's nadam has one rate for all weights; take another opt, such as adam"
        )


def _bfloat16_conflicts(config: Config) -> Iterator[Problem]:
    if config.amp_level != "O2":
        yield Problem(
            ("amp_level", "amp_type"),
            f"bfloat16 is for amp_level: O2, not for {config.amp_level}; set amp_level to O2, or leave amp_type out",
        )
    if config.val_amp_level not in ("O0", "bfloat16"):
        yield Problem(
            ("val_amp_level", "amp_type"),
            f"with bfloat16 evaluation is in float32 or bfloat16, not in {config.val_amp_level}; set val_amp_level to "
            "O0",
        )
    if config.native_ops == "off":
        yield Problem(
            ("native_ops", "amp_type"), "bfloat16 takes our operators; set native_ops to auto, or leave amp_type out"
        )
    if config.amp_cast_list is not None:
        yield Problem(
            ("amp_cast_list", "amp_type"), "bfloat16 is for convolutions, whatever is listed; leave one of them out"
        )


def _precision_conflicts(config: Config) -> Iterator[Problem]:
    if config.aux_factor > 0:
        yield Problem(
            ("aux_factor",),
            f"expected 0, got {config.aux_factor:g}; no network here has auxiliary logits",
        )
    if config.loss_scale_type == "dynamic" and not config.drop_overflow_update:
        yield Problem(
            ("drop_overflow_update", "loss_scale_type"),
            "dynamic loss scaling always drops updates that overflow; set drop_overflow_update to True",
        )
    for key in ("amp_level", "val_amp_level"):
        if config.quantize_aware is not None and getattr(config, key) != "O0":
            yield Problem(
                (key, "quantize_aware"),
                f"maps are rounded in float32, not in {key}: {getattr(config, key)}; set {key} to O0, or "
                "quantize_aware to None",
            )
    if config.val_amp_level == "bfloat16" and config.native_ops == "off":
        yield Problem(
            ("native_ops", "val_amp_level"),
            "evaluation in bfloat16 takes our operators; set native_ops to auto, or val_amp_level to O0",
        )
    if config.amp_type == "bfloat16":
        yield from _bfloat16_conflicts(config)
    elif config.native_ops == "on" and config.amp_level != "O0":
        yield Problem(
            ("native_ops", "amp_level"),
            f"our operators are for float32, not for amp_level: {config.amp_level}; set amp_level to O0 or native_ops "
            "to auto",
        )
