"""What `auto: True` settles from the images and the machine: keys that neither recipe nor command line gives.

One line says what was settled, and from what. From then on the numbers are like any others: they are in the run's
`config.yaml`, from where an evaluation and a resumed run have them, on another machine too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import build, tasks
from ..config import Config, proportion
from ..data import splits
from ..data.samples import Samples
from ..errors import UserError
from ..files import download, json_text
from ..models import card
from ..process import resources
from ..runtime import Runtime

log = logging.getLogger("mindghost")

# Images of which the sizes are looked at.
_LOOKED_AT = 64
# Of the network's input, in pixels a side: networks divide it by 32, and see little in two such steps.
_STRIDE, _SMALLEST = 32, 64
# How many times an image that is smaller than the network's usual input is enlarged.
_ENLARGED = 2
# Images in a batch: batch norm is poor below, and a CPU gains nothing above (as many pixels; smaller images, more).
_SMALLEST_BATCH, _LARGEST_BATCH, _LARGEST_BATCH_OF_PIXELS = 8, 128, 32 * 224 * 224
# Updates that an epoch should have at least, where there are images enough.
_UPDATES = 32
# Bytes of memory that one 224 x 224 image of the largest network here takes in training, in float32, and the share of
# the machine's memory that a run may take.
_BYTES_OF_IMAGE, _SHARE_OF_MEMORY = 250e6, 0.5
# Updates of a run, and the bounds of its epochs: from fresh weights, and from trained ones.
_RUN_UPDATES, _EPOCHS = (600, 300), ((20, 60), (10, 30))
# Of a batch of 32, by kind of optimizer: from fresh weights, and from trained ones.
_RATES = {"sgd": (0.05, 0.01), "momentum": (0.05, 0.01), "lion": (1e-4, 3e-5)}
_ADAPTIVE_RATES = (1e-3, 3e-4)
# Of the images, for validation, where nothing else is.
_FRACTION = 0.1
# How much faster a fresh classifier learns on weights that are trained.
_HEAD = (1.0, 10.0)
# Epochs without a better score after which a run ends: a share of it, and so many at least.
_PATIENT_SHARE, _PATIENT_EPOCHS = 1 / 3, 5
# Seconds without an answer after which published weights are given up.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Facts:
    """What the choices depend on, beside what is given.

    Attributes:
        images: to train on, of one rank.
        side: the median of the images' shorter sides, in pixels.
        mirrored: whether an image's mirror image has its label.
        device: "CPU", "Ascend" or "GPU".
        memory: bytes of the machine for one rank.
    """

    images: int
    side: int
    mirrored: bool
    device: str
    memory: int


def before_images(runtime: Runtime) -> Runtime:
    """The run with what is settled before the images are opened: whether a part of them is kept for validation."""
    config = runtime.config
    if "val_fraction" not in config.open:
        return runtime
    parted = runtime.ranks.main and config.val_while_train and splits.lacks_validation(config)
    return _agreed(runtime, {"val_fraction": _FRACTION if parted else 0.0})


def from_images(runtime: Runtime, samples: Samples) -> Runtime:
    """The run with everything settled; `samples` are to be trained on.

    Raises UserError where nobody means to train so (`Config.check_new_run`); logs what else there is to say.
    """
    config, ranks = runtime.config, runtime.ranks
    if not config.open:
        return runtime
    changes: dict[str, Any] = {}
    if ranks.main:
        if "pretrained" in config.open:
            changes["pretrained"] = _has_published(config)
        config = config.replace(**changes)
        facts = _facts(runtime, samples)
        changes |= chosen(config, facts)
        log.info(_line(config, changes, len(samples), facts))
    runtime = _agreed(runtime, changes)
    runtime.config.check_new_run()
    for line in runtime.config.warnings():
        log.info(line)
    return runtime


def size_of_images(runtime: Runtime, samples: Samples) -> Config:
    """The configuration with the size that a run would give its images settled, and nothing else.

    No weights are asked for; `samples` are those to train on.
    """
    config = runtime.config
    found = chosen(config, _facts(runtime, samples))
    return config.replace(**{key: found[key] for key in ("image_resize", "crop_pct") if key in found})


def chosen(config: Config, facts: Facts) -> dict[str, Any]:
    """The values of the keys that are open in a configuration; they depend on nothing else than what is passed.

    Args:
        config: with `val_fraction` and `pretrained` settled; what is given in it goes before.
        facts: see there.
    """
    known = dict(config)

    def settle(key: str, value: Any) -> Any:
        if key in config.open:
            known[key] = value
        return known[key]

    trained = bool(config.pretrained or config.ckpt_path or config.backbone_ckpt_path)
    usual = card(config.model).input_size
    enlarged = max(_SMALLEST, _STRIDE * math.ceil(_ENLARGED * facts.side / _STRIDE))
    size = settle("image_resize", min(usual, enlarged))
    height, width = size if isinstance(size, tuple) else (size, size)
    # Small images are seen whole; of photos, the middle.
    settle("crop_pct", 1.0 if max(height, width) < usual or facts.side <= _SMALLEST else Config.default("crop_pct"))
    settle("hflip", Config.default("hflip") if facts.mirrored else 0.0)
    batch = settle("batch_size", _batch_size(facts, height * width))
    settle("lr", _RATES.get(config.opt, _ADAPTIVE_RATES)[trained])
    # mindcv's nadam has one rate for all.
    settle("head_lr_factor", _HEAD[trained] if config.opt != "nadam" else 1.0)
    updates = max(1, facts.images // batch // config.gradient_accumulation_steps)
    least, most = _EPOCHS[trained]
    epochs = min(max(math.ceil(_RUN_UPDATES[trained] / updates), least), most)
    if "warmup_epochs" in config.given:
        epochs = max(epochs, config.warmup_epochs + 1)
    epochs = settle("epoch_size", epochs)
    settle("patience", max(_PATIENT_EPOCHS, round(epochs * _PATIENT_SHARE)) if config.val_while_train else None)
    if "epoch_size" in config.open:
        given = {key: known[key] for key in config.given} | {"epoch_size": epochs}
        known |= proportion.scaled(Config.defaults(), given)[0]
    return {key: known[key] for key in config.open}


def _facts(runtime: Runtime, samples: Samples) -> Facts:
    config, ranks = runtime.config, runtime.ranks
    return Facts(
        images=min(len(samples), config.num_samples or len(samples)) // ranks.size,
        side=_shorter_side(samples),
        mirrored=tasks.of(config).mirrored(samples.classes),
        device=runtime.device,
        memory=resources.memory() // len(ranks.neighbours),
    )


def _batch_size(facts: Facts, pixels: int) -> int:
    """Images in a rank's batch: a power of two, and no more than half of the images."""
    most = _LARGEST_BATCH
    if facts.device == "CPU":
        held = _SHARE_OF_MEMORY * facts.memory / (_BYTES_OF_IMAGE * pixels / 224**2)
        most = int(max(1, min(most, _LARGEST_BATCH_OF_PIXELS / pixels, held)))
    wanted = max(_SMALLEST_BATCH, facts.images // _UPDATES)
    return _power_of_two(max(1, min(wanted, most, facts.images // 2)))


def _power_of_two(number: int) -> int:
    """The largest that is not above a number from 1."""
    return 1 << (number.bit_length() - 1)


def _shorter_side(samples: Samples) -> int:
    sides = []
    for index in np.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).astype(int):
        # Of a large set, only the headers were read before: one that is damaged has its message when its turn comes.
        with contextlib.suppress(UserError):
            sides.append(min(samples.open(int(index)).shape[:2]))
    return int(np.median(sides)) if sides else 224


def _has_published(config: Config) -> bool:
    """Whether the published weights of the network are here, or came when they were asked for; says why not."""
    if config.ckpt_path or config.backbone_ckpt_path:
        return False
    trunk = build.trunk(config)
    fresh = f"{config.model} starts from fresh weights"
    if not card(trunk).weights:
        key = "ckpt_path" if trunk == config.model else "backbone_ckpt_path"
        others = f", or {card(trunk).pytorch_weights} after `mindghost convert`" if card(trunk).timm else ""
        log.info(f"{fresh}: none are published for MindSpore; {key} names weights of your own{others}")
        return False
    try:
        build.published_file(trunk, attempts=1, timeout=_PATIENCE)
    except UserError as error:
        why = error.reason if isinstance(error, download.Unavailable) else error
        place = build.published_place(trunk)
        log.info(f"{fresh}: the published ones cannot be had ({why}); saved as {place}, they are used")
        return False
    return True


def _agreed(runtime: Runtime, changes: Mapping[str, Any]) -> Runtime:
    """The run with the changes of rank 0, on all ranks."""
    content = runtime.ranks.from_main(json_text.dumps(changes).encode())
    return runtime.with_config(runtime.config.replace(**json.loads(content)))


def _line(config: Config, changes: Mapping[str, Any], images: int, facts: Facts) -> str:
    trained = config.pretrained or config.ckpt_path or config.backbone_ckpt_path
    weights = "trained weights" if trained else "fresh weights"
    # The others are worth a word where they are not what they usually are.
    always = ("image_resize", "batch_size", "epoch_size", "patience", "lr")
    found = [
        f"{key} {changes[key]:g}"
        for key in (*always, "head_lr_factor", "hflip")
        if key in changes and (key in always or changes[key] != Config.default(key))
    ]
    return (
        f"auto: {images:,} images, {facts.side} pixels on their shorter sides, {weights}: {', '.join(found)}; a flag "
        "changes any of them"
    )
