"""What is known of each network: its builder and its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mindspore import nn

from . import ghostnet


@dataclass(frozen=True)
class Card:
    """Facts about a network. Accuracies are ImageNet-1k top-1 in percent, as published by others.

    Attributes:
        build: makes the network; takes `num_classes`, `in_channels` and, where given, `drop_rate`.
        parameters: trainable parameters with 1,000 classes.
        macs: multiply-accumulates of convolutions and dense layers for one 3x224x224 image.
        paper_top_1: in the paper.
        mindcv_top_1: of MindCV's weights.
        weights_url: MindCV's weights.
        weights_sha256: the first digits of the file's sha256.
        stem, classifier: the cells that depend on `in_channels` and `num_classes`.
    """

    build: Callable[..., nn.Cell]
    parameters: int
    macs: int
    paper_top_1: float
    mindcv_top_1: float
    weights_url: str
    weights_sha256: str
    stem: str = "conv_stem"
    classifier: str = "classifier"


_MINDCV = "https://download.mindspore.cn/toolkits/mindcv/ghostnet"

CARDS: dict[str, Card] = {
    "ghostnet_050": Card(
        ghostnet.ghostnet_050,
        parameters=2_587_292,
        macs=42_328_152,
        paper_top_1=66.2,
        mindcv_top_1=66.03,
        weights_url=f"{_MINDCV}/ghostnet_050-85b91860.ckpt",
        weights_sha256="85b91860",
    ),
    "ghostnet_100": Card(
        ghostnet.ghostnet_100,
        parameters=5_182_508,
        macs=141_150_512,
        paper_top_1=73.9,
        mindcv_top_1=73.78,
        weights_url=f"{_MINDCV}/ghostnet_100-bef8025a.ckpt",
        weights_sha256="bef8025a",
    ),
    "ghostnet_130": Card(
        ghostnet.ghostnet_130,
        parameters=7_358_820,
        macs=227_003_256,
        paper_top_1=75.7,
        mindcv_top_1=75.50,
        weights_url=f"{_MINDCV}/ghostnet_130-cf4c235c.ckpt",
        weights_sha256="cf4c235c",
    ),
}
