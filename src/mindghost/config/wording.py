"""Words of messages: the name that somebody meant, and text that is not too long."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that looks most like `name`."""
    return difflib.get_close_matches(name.lower().strip("-")[:100], list(names), n=1, cutoff=0.0)[0]


# What other tools and MindCV's guide to fine-tuning call what a key here does.
_KNOWN_AS = {
    "linear_probe": "freeze_backbone",
    "freeze_feature_network": "freeze_backbone",
    "freeze": "freeze_stages",
    "freeze_layer": "freeze_stages",
    "freeze_layers": "freeze_stages",
    "frozen_stages": "freeze_stages",
    "unfreeze": "unfreeze_epoch",
    "unfreeze_epochs": "unfreeze_epoch",
    "early_stop": "patience",
    "early_stopping": "patience",
    "classifier_lr": "head_lr_factor",
    "classifier_lr_factor": "head_lr_factor",
    "head_lr": "head_lr_factor",
    "backbone_lr": "backbone_lr_factor",
    "layerwise_lr_decay": "layer_decay",
    "encoder": "backbone",
    "encoder_name": "backbone",
    "encoder_weights": "backbone_ckpt_path",
    "backbone_ckpt": "backbone_ckpt_path",
    "backbone_checkpoint": "backbone_ckpt_path",
    "backbone_pretrained": "backbone_ckpt_path",
    "backbone_weights": "backbone_ckpt_path",
    "weights_backbone": "backbone_ckpt_path",
    "decoder_channels": "decoder_width",
}


def nearest_key(name: str, keys: Iterable[str]) -> str:
    """The key that does what others call `name`, else the one that looks most like it."""
    return _KNOWN_AS.get(name.lower().strip("-").replace("-", "_")) or nearest(name, keys)


def short(text: str) -> str:
    """A text of at most 60 letters."""
    return text if len(text) <= 60 else f"{text[:57]}..."
