"""The networks: `create_model(name)` and `list_models()`.

Where MindCV is installed, importing this adds the classifiers that it lacks to its registry.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal

from . import mindcv_registry, pruned
from .network import FeatureNetwork, RegistryNetwork
from .registry import CARDS, CLASSIFICATION, SEGMENTATION, USUAL, Card, Weights

__all__ = [
    "CLASSIFICATION",
    "SEGMENTATION",
    "USUAL",
    "Card",
    "Weights",
    "backbone_name",
    "card",
    "check_fused_form",
    "create_model",
    "list_models",
]


def list_models(task: str | None = None) -> list[str]:
    """Names that `create_model` takes; with a `task`, CLASSIFICATION or SEGMENTATION, those of its networks."""
    return sorted(name for name, facts in CARDS.items() if task in (None, facts.task))


def card(name: str) -> Card:
    """What is known of the network `name`. Raises ValueError, naming the nearest valid name."""
    if name in CARDS:
        return CARDS[name]
    raise _unknown("model", name, list_models())


def _unknown(key: str, name: str, names: Sequence[str]) -> ValueError:
    nearest = difflib.get_close_matches(name[:60], names, n=1, cutoff=0)[0]
    return ValueError(f"{key}: {name[:60]!r} is not known; the nearest is {nearest!r} (all: {', '.join(names)})")


def backbone_name(name: str, backbone: str = "") -> str:
    """The classifier whose feature maps the network `name` is made of: the one given, else its usual one; else itself.

    Raises ValueError for an unknown name, a backbone that does not fit, and one that is given to a classifier.
    """
    facts = card(name)
    if facts.task != SEGMENTATION:
        if backbone:
            raise ValueError(f"backbone: {name} is a classifier, which has none; leave the key out")
        return name
    backbone, classifiers = backbone or facts.backbone, list_models(CLASSIFICATION)
    if backbone in CARDS and backbone not in classifiers:
        raise ValueError(f"backbone: {backbone} is no classifier; give one such as {facts.backbone}")
    if backbone not in classifiers:
        raise _unknown("backbone", backbone, classifiers)
    if card(backbone).input_size != facts.input_size:
        size = card(backbone).input_size
        raise ValueError(
            f"backbone: {backbone} is made for images of {size} x {size} pixels and lacks coarse maps; give another "
            f"classifier, such as {facts.backbone}"
        )
    return backbone


def check_fused_form(name: str, backbone: str = "") -> None:
    """Raise ValueError where the network `name`, or its backbone, has no fused form."""
    trunk = backbone_name(name, backbone)
    if card(trunk).fused_parameters is None:
        fused = sorted(
            {f"{known.rpartition('_')[0]}_*" for known in CARDS if CARDS[known].fused_parameters is not None}
        )
        raise ValueError(f"deploy: {trunk} has no fused form, only {' and '.join(fused)} have; leave the option out")


def create_model(
    name: str,
    num_classes: int | None = None,
    in_channels: int = 3,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    deploy: bool = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    init: Literal["mindcv", "pytorch"] = "mindcv",
    backbone: str = "",
    decoder_width: float = 1.0,
    upsampling: Literal["bilinear", "transposed"] = "bilinear",
    channels: Sequence[str] = (),
) -> RegistryNetwork | FeatureNetwork:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: outputs; None is the number that the network was published with (1,000, or 10 for CIFAR-10's; 21
            for segmentation), 0 is a network of embeddings, without a classifier.
        in_channels: channels of the image.
        drop_rate: dropout before the classifier; None is the network's own default.
        drop_path_rate: stochastic depth, which no network here has: anything but None or 0 is refused.
        deploy: the fused form of a network that is trained with branches (GhostNetV3, RepGhostNet), also as a
            backbone; `reparam.fuse` makes its weights.
        features_only: a network that gives feature maps instead, see `FeatureNetwork`.
        out_indices: which maps, as indices into `feature_info`; None for the last one of each stride.
        init: how the weights are drawn, as MindCV does it for such a network or as PyTorch's layers start; that of
            later classifiers, too (`RegistryNetwork.reset_classifier`).
        backbone: the classifier that a network for segmentation is made of; empty for its usual one.
        decoder_width: factor on the channels of such a network's decoder.
        upsampling: how such a decoder enlarges maps.
        channels: of layers that have fewer than the network gives them (`pruned.parsed`).

    Raises:
        ValueError: an unknown name, an option that the network does not have, or wrong indices.
    """
    facts, trunk = card(name), backbone_name(name, backbone)
    if drop_path_rate:
        raise ValueError(
            f"drop_path_rate: {name} has no stochastic depth, so {drop_path_rate} cannot be honoured; leave the key out"
        )
    if deploy:
        check_fused_form(name, backbone)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices: only for features_only=True; leave it out")
    options: dict[str, Any] = {} if drop_rate is None else {"drop_rate": drop_rate}
    options["num_classes"] = facts.num_classes if num_classes is None else num_classes
    of_trunk = {"in_channels": in_channels, **({"deploy": True} if deploy else {})}
    if facts.task == SEGMENTATION:
        if features_only:
            raise ValueError(f"features_only: {name} gives logits of pixels; ask its backbone, {trunk}, for maps")
        options |= _decoder(name, facts, decoder_width, upsampling)
        options["backbone"] = card(trunk).build(num_classes=0, **of_trunk)
    else:
        if (decoder_width, upsampling) != (1.0, "bilinear"):
            key = "upsampling" if decoder_width == 1 else "decoder_width"
            raise ValueError(f"{key}: {name} is a classifier, which has no decoder; leave the key out")
        options |= of_trunk
    network = facts.build(**options)
    if channels:
        if features_only:
            raise ValueError("channels: not with features_only, whose maps have the channels that they are known for")
        try:
            pruned.narrow(network, pruned.parsed(channels))
        except ValueError as error:
            raise ValueError(f"channels: {error}") from error
    if channels or init != RegistryNetwork.init:
        network.start_afresh(init)
    return FeatureNetwork(network, out_indices) if features_only else network


def _decoder(name: str, facts: Card, width: float, upsampling: str) -> dict[str, Any]:
    """What the decoder of a network for segmentation is made with."""
    if upsampling not in facts.upsamplings:
        raise ValueError(f"upsampling: {name} takes {' or '.join(facts.upsamplings)}, not {upsampling!r}")
    if not width > 0:
        raise ValueError(f"decoder_width: expected a number above 0, got {width}")
    return {"width": width, **({"upsampling": upsampling} if len(facts.upsamplings) > 1 else {})}


mindcv_registry.register(list_models(CLASSIFICATION), create_model)
