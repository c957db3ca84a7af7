"""The networks: `create_model(name)` and `list_models()`.

Where MindCV is installed, importing this adds the networks that it lacks to its registry.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

from . import mindcv_registry
from .network import FeatureNetwork, Network
from .registry import CARDS, USUAL, Card, Weights

__all__ = ["USUAL", "Card", "Weights", "card", "check_fused_form", "create_model", "list_models"]


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return sorted(CARDS)


def card(name: str) -> Card:
    """What is known of the network `name`. Raises ValueError, naming the nearest valid name."""
    if name in CARDS:
        return CARDS[name]
    nearest = difflib.get_close_matches(name[:60], CARDS, n=1, cutoff=0)[0]
    raise ValueError(f"model: {name[:60]!r} is not known; the nearest is {nearest!r} (all: {', '.join(list_models())})")


def check_fused_form(name: str) -> None:
    """Raise ValueError where the network `name` has no fused form."""
    if card(name).fused_parameters is None:
        fused = sorted(
            {f"{known.rpartition('_')[0]}_*" for known in CARDS if CARDS[known].fused_parameters is not None}
        )
        raise ValueError(f"deploy: {name} has no fused form, only {' and '.join(fused)} have; leave the option out")


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
) -> Network | FeatureNetwork:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: outputs; None is the number that the network was published with (1,000, or 10 for CIFAR-10's),
            0 is a network of embeddings, without a classifier.
        in_channels: channels of the image.
        drop_rate: dropout before the classifier; None is the network's own default.
        drop_path_rate: stochastic depth, which no network here has: anything but None or 0 is refused.
        deploy: the fused form of a network that is trained with branches (GhostNetV3, RepGhostNet); `reparam.fuse`
            makes its weights.
        features_only: a network that gives feature maps instead, see `FeatureNetwork`.
        out_indices: which maps, as indices into `feature_info`; None for the last one of each stride.
        init: how the weights are drawn, as MindCV does it for such a network or as PyTorch's layers start; that of
            later classifiers, too (`Network.reset_classifier`).

    Raises:
        ValueError: an unknown name, an option that the network does not have, or wrong indices.
    """
    facts = card(name)
    if drop_path_rate:
        raise ValueError(
            f"drop_path_rate: {name} has no stochastic depth, so {drop_path_rate} cannot be honoured; leave the key out"
        )
    if deploy:
        check_fused_form(name)
    options = {} if drop_rate is None else {"drop_rate": drop_rate}
    if num_classes is None:
        num_classes = facts.num_classes
    if deploy:
        options["deploy"] = True
    if out_indices is not None and not features_only:
        raise ValueError("out_indices: only for features_only=True; leave it out")
    network = facts.build(num_classes=num_classes, in_channels=in_channels, **options)
    if init != network.init:
        network.start_afresh(init)
    return FeatureNetwork(network, out_indices) if features_only else network


mindcv_registry.register(list_models(), create_model)
