"""Settings that masks cannot have, and those that make little sense with them."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import Config
from ...config.keys import AUTO_KEYS
from ...data import transforms
from ...errors import UserError
from ...process.display import some
from .samples import MaskSamples

# Keys that are for other tasks, the value that turns them off, and why.
_REFUSED = (
    ("auto_augment", None, "its policies move images without their masks"),
    ("mixup", 0, "a pixel of a mask has one class"),
    ("cutmix", 0, "it mixes images without their masks"),
    ("re_prob", 0, "it erases images without their masks"),
    ("crop_padding", None, "random_scale says how images are cropped with their masks"),
    ("sampler", None, "images have pixels of several classes; class_weights: balanced has rare ones count more"),
    ("teacher", "", "a teacher gives one answer for an image"),
    ("loss", "CE", "a pixel of a mask has one class"),
)
# Of random_scale: of what is larger, a crop shows nothing, and it takes gigabytes.
_LARGEST = 8
# Of other tasks, too, but harmless: recipes have them.
_UNUSED = ("scale", "ratio", "crop_pct")


def refuse(config: Config) -> None:
    """Raise UserError for a key that a training with masks cannot have."""
    for key, off, why in _REFUSED:
        if getattr(config, key) != off:
            said = "leave it out" if off in (None, "") else f"set it to {off}"
            raise UserError(f"{key}: task segmentation has no use for it: {why}; {said}")

    if config.random_scale[1] > _LARGEST:
        raise UserError(
            f"random_scale: images would be {config.random_scale[1]:g} times as large; give at most {_LARGEST}"
        )


def doubts(config: Config, samples: MaskSamples) -> Iterator[str]:
    """A line for each setting that makes little sense; `samples` are to be trained on."""
    classes = samples.classes
    if len(classes) == 1:
        yield f"one class ({classes[0]}): every answer is right, and there is nothing to learn"
    ignored = config.ignore_index
    if ignored < len(classes):
        yield f"ignore_index {ignored} is the class {classes[ignored]}, too: its pixels do not count"
    unseen = [name for index, name in enumerate(classes) if index != ignored and not samples.labels[:, index].any()]
    if unseen:
        yield f"no training mask has {len(unseen)} of the {len(classes)} classes: {some(unseen)}"
    largest = [config.random_scale[1] * side for side in transforms.input_size(config)]
    if all(crop > side for crop, side in zip(transforms.input_size(config, training=True), largest, strict=True)):
        yield "crop_size: larger than any image is once it is scaled: each is padded at the right and below"
    # What `auto` settles, nobody has given.
    given = config.given - set(AUTO_KEYS if config.auto else ())
    unused = [key for key in _UNUSED if key in given and getattr(config, key) != Config.default(key)]
    if unused:
        yield f"{some(unused)}: not used by task segmentation; random_scale says how images are cropped"
