"""Settings that work, but that nobody means (a new run is refused), or hardly anybody does (one line says so).

What cannot work at all is in `conflicts`. A run that is resumed, or evaluated, keeps what it was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .beside_weights import MAX_COVERED, MAX_SIDE
from .problems import Problem

if TYPE_CHECKING:
    from . import Config

# A random crop of less than this share of an image shows nothing of it.
_SMALLEST_CROP = 0.01
# Below these, most of the image is cut away.
_SMALL_CROP, _SMALL_CENTRE = 0.2, 0.5
# What the networks here divide an image's sides by.
_STRIDE = 32
# Tries of random erasing, which take as long as all else of an image.
_MOST_ATTEMPTS = 10_000
_ADAPTIVE = ("adam", "adamw", "lion", "nadam", "lamb", "adagrad", "rmsprop")
_WITH_MOMENTUM = ("sgd", "momentum", "rmsprop", "rmsproptf")


def refused(config: Config) -> Iterator[Problem]:
    """What no new training is started with."""
    yield from too_large(config)
    if scale := _wrong_scale(config):
        key, _, rest = scale.partition(" ")
        yield Problem((key,), rest)
    frozen = [key for key in ("freeze_backbone", "freeze_stages", "unfreeze_epoch") if getattr(config, key)]
    if frozen and not (config.ckpt_path or config.backbone_ckpt_path or config.pretrained):
        yield Problem(
            (frozen[0],),
            "the features would stay the random ones that the network starts with; name its weights with ckpt_path, or "
            "those of its backbone with backbone_ckpt_path, or set pretrained to True",
        )
    if config.unfreeze_epoch is not None and config.unfreeze_epoch > config.epoch_size:
        yield Problem(
            ("unfreeze_epoch", "epoch_size"),
            f"the run ends with epoch {config.epoch_size}, before everything is trained; give an epoch up to it",
        )
    if _crops_by_area(config) and config.scale[1] < _SMALLEST_CROP:
        yield Problem(
            ("scale",),
            f"crops of at most {100 * config.scale[1]:g} % of an image show nothing of it; scale is the share of the "
            "area, such as [0.08, 1]",
        )
    padding = config.crop_padding if config.dataset == "imagenet" else None
    if padding is not None and padding >= _shorter_side(config):
        yield Problem(
            ("crop_padding", "image_resize"),
            f"{padding} pixels of padding leave crops without any image in them; give fewer than "
            f"image_resize: {_shorter_side(config)}",
        )
    if config.re_prob > 0 and config.re_max_attempts > _MOST_ATTEMPTS:
        yield Problem(
            ("re_max_attempts",),
            f"an image could take {config.re_max_attempts:,} tries; give at most {_MOST_ATTEMPTS:,}, such as 10",
        )
    if config.momentum == 1 and config.opt in _WITH_MOMENTUM:
        yield Problem(("momentum", "opt"), "with 1, no gradient is ever forgotten; give a number below 1, such as 0.9")


def too_large(config: Config) -> Iterator[Problem]:
    """Sizes of images that no machine here has room for, in training and in evaluation."""
    side = max(_sides(config.image_resize))
    if side > MAX_SIDE:
        yield _too_many_pixels("image_resize", side)
    elif config.dataset == "imagenet" and side / config.crop_pct > MAX_COVERED:
        yield Problem(
            ("crop_pct", "image_resize"),
            f"each image would be resized to {side / config.crop_pct:,.0f} pixels for the {side} that are kept; give "
            "more than a few per cent, such as 0.875",
        )
    if config.crop_size is not None and (side := max(_sides(config.crop_size))) > MAX_SIDE:
        yield _too_many_pixels("crop_size", side)


def _too_many_pixels(key: str, side: int) -> Problem:
    return Problem((key,), f"expected at most {MAX_SIDE:,} pixels a side, got {side:,}")


def warnings(config: Config) -> list[str]:
    """One line for each doubt about a training."""
    return [*_of_schedule(config), *_of_optimizer(config), *_of_images(config), *of_evaluation(config)]


def of_evaluation(config: Config) -> list[str]:
    """One line for each doubt about how images are evaluated."""
    found = []
    if scale := _wrong_scale(config):
        found.append(scale)
    if config.dataset == "imagenet" and config.crop_pct < _SMALL_CENTRE:
        found.append(
            f"crop_pct {config.crop_pct:g}: evaluation sees the middle {100 * config.crop_pct**2:.2g} % of an image"
        )
    if _shorter_side(config) < _STRIDE:
        found.append(
            f"image_resize {_shorter_side(config)}: most networks here divide both sides by {_STRIDE}, and see little "
            "in images that are smaller"
        )
    return found


def _of_schedule(config: Config) -> Iterator[str]:
    decays = config.scheduler in ("cosine_decay", "step_decay")
    cycles = config.num_cycles if config.scheduler == "cosine_decay" else 1
    if decays and config.warmup_epochs + cycles * config.decay_epochs > config.epoch_size:
        times = f"{cycles} x " if cycles > 1 else ""
        yield (
            f"warmup_epochs {config.warmup_epochs} + {times}decay_epochs {config.decay_epochs} reach past the end "
            f"of the run (epoch_size {config.epoch_size}): the decay of the learning rate is cut short"
        )
    late = [epoch for epoch in config.multi_step_decay_milestones if epoch >= config.epoch_size - config.warmup_epochs]
    if config.scheduler == "multi_step_decay" and late:
        yield f"multi_step_decay_milestones: {late} lie past the end of the run, epoch_size {config.epoch_size}"
    if config.lr_epoch_stair and config.warmup_epochs > 0 and config.warmup_factor == 0:
        yield "warmup_factor is 0 and lr_epoch_stair is True: the learning rate is 0 for the whole first epoch"
    if config.warmup_factor > 1 and config.warmup_epochs > 0:
        yield f"warmup_factor {config.warmup_factor:g}: the warm-up falls to lr from above"
    if config.decay_rate > 1 and config.scheduler in ("exponential_decay", "step_decay", "multi_step_decay"):
        yield f"decay_rate {config.decay_rate:g} is above 1: the learning rate grows"
    if config.scheduler in ("cosine_decay", "cyclic", "one_cycle") and config.lr < config.min_lr:
        yield f"lr {config.lr:g} is below min_lr {config.min_lr:g}: the learning rate rises where it should fall"


def _of_optimizer(config: Config) -> Iterator[str]:
    highest = 0.1 if config.opt in _ADAPTIVE else 10
    if config.lr > highest:
        yield f"lr {config.lr:g} is far more than {config.opt} goes with (over {highest:g})"
    if config.weight_decay > 0.5:
        yield f"weight_decay {config.weight_decay:g} pulls the weights to zero (0.0001 and less are usual)"
    if config.sampler == "balanced" and config.class_weights == "balanced":
        yield (
            "sampler and class_weights are both balanced: rare classes are drawn more often and count more, which "
            "balances twice; set one of them to None"
        )
    if config.label_smoothing > 0.5:
        yield f"label_smoothing {config.label_smoothing:g}: most of each label goes to the other classes"
    for key in ("drop_rate", "drop_path_rate"):
        if (getattr(config, key) or 0) > 0.9:
            yield f"{key} {getattr(config, key):g} leaves hardly anything of the network"
    if config.teacher and config.distill_alpha == 0:
        yield "distill_alpha is 0: nothing is learnt from the teacher, which takes its time all the same"


def _of_images(config: Config) -> Iterator[str]:
    if _crops_by_area(config) and _SMALLEST_CROP <= config.scale[1] < _SMALL_CROP:
        yield f"scale {list(config.scale)}: no crop shows more than {100 * config.scale[1]:g} % of an image"
    strengths = config.color_jitter if isinstance(config.color_jitter, tuple) else (config.color_jitter or 0,)
    if _jitters(config) and max(strengths) > 1:
        yield f"color_jitter {max(strengths):g}: 1 already takes all colour and light away, or doubles it"
    if config.mixup + config.cutmix > 0 and config.batch_size == 1:
        yield "mixup and cutmix mix the images of a batch: with batch_size 1 they do nothing"
    if config.mixup + config.cutmix > 0 and config.cutmix_prob == 0:
        yield "cutmix_prob is 0: mixup and cutmix do nothing"
    listed = config.train_list or config.val_list or config.val_fraction
    if config.val_while_train and config.val_split == config.train_split and not listed:
        yield f"val_split and train_split are both {config.val_split!r}: the accuracy is that on the training images"


def _wrong_scale(config: Config) -> str:
    """One line where mean or std are on the scale 0 to 1; those of CIFAR and MNIST are not used."""
    mean, std = config.mean, config.std
    # Mean 0 leaves the images where they are, std 1 as wide as they are.
    small_mean = any(mean) and all(abs(value) <= 1 for value in mean)
    small_std = any(value != 1 for value in std) and all(value <= 1 for value in std)
    if config.dataset != "imagenet" or not (small_mean or small_std):
        return ""
    given = " and ".join(
        f"{key} {list(values)}" for key, values, small in (("mean", mean, small_mean), ("std", std, small_std)) if small
    )
    return (
        f"{given} would be on the scale 0 to 1, but pixels are on the scale 0 to 255; give mean "
        f"{_on_255(mean, small_mean)} and std {_on_255(std, small_std)}"
    )


def _on_255(values: Sequence[float], small: bool) -> str:
    return f"[{', '.join(f'{255 * value if small else value:.6g}' for value in values)}]"


def _crops_by_area(config: Config) -> bool:
    return config.dataset == "imagenet" and config.crop_padding is None


def _jitters(config: Config) -> bool:
    return config.dataset == "imagenet" and config.auto_augment is None


def _shorter_side(config: Config) -> int:
    return min(_sides(config.image_resize))


def _sides(size: int | tuple[int, int]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else size
