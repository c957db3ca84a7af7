"""What is known of each network: its builder and its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mindspore import nn

from . import g_ghost_regnet, ghost_cifar, ghost_resnet, ghostnet


@dataclass(frozen=True)
class Card:
    """Facts about a network. Accuracies are top-1 in percent, as published by others: on ImageNet-1k, or on CIFAR-10
    where `num_classes` is 10. None stands for what nobody published.

    Attributes:
        build: makes the network; takes `num_classes`, `in_channels` and, where given, `drop_rate`.
        parameters: trainable parameters with `num_classes` classes.
        macs: multiply-accumulates of convolutions and dense layers for one image of 3 x `input_size` x `input_size`.
        paper_top_1: in the paper.
        mindcv_top_1, timm_top_1: of MindCV's and of timm's weights.
        weights_url: MindCV's weights.
        weights_sha256: the first digits of the file's sha256.
        stem, classifier: the cells that depend on `in_channels` and `num_classes`.
        input_size, num_classes: pixels and classes of the data set that the network was published with.
    """

    build: Callable[..., nn.Cell]
    parameters: int
    macs: int
    paper_top_1: float
    mindcv_top_1: float | None = None
    timm_top_1: float | None = None
    weights_url: str | None = None
    weights_sha256: str | None = None
    stem: str = "conv_stem"
    classifier: str = "classifier"
    input_size: int = 224
    num_classes: int = 1000


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
    "g_ghost_regnetx_032": Card(
        g_ghost_regnet.g_ghost_regnetx_032,
        parameters=10_511_000,
        macs=1_801_746_240,
        paper_top_1=77.8,
        stem="conv1",
        classifier="fc",
    ),
    "g_ghost_regnetx_040": Card(
        g_ghost_regnet.g_ghost_regnetx_040,
        parameters=15_726_268,
        macs=2_228_368_516,
        paper_top_1=78.6,
        stem="conv1",
        classifier="fc",
    ),
    "g_ghost_regnetx_080": Card(
        g_ghost_regnet.g_ghost_regnetx_080,
        parameters=24_586_928,
        macs=4_149_668_216,
        paper_top_1=79.0,
        stem="conv1",
        classifier="fc",
    ),
    "g_ghost_regnetx_160": Card(
        g_ghost_regnet.g_ghost_regnetx_160,
        parameters=32_381_704,
        macs=8_997_384_192,
        paper_top_1=79.9,
        stem="conv1",
        classifier="fc",
    ),
    "ghost_resnet50_s2": Card(
        ghost_resnet.ghost_resnet50_s2,
        parameters=13_953_512,
        macs=2_151_023_360,
        paper_top_1=75.0,
        stem="conv1",
        classifier="fc",
    ),
    "ghost_resnet50_s4": Card(
        ghost_resnet.ghost_resnet50_s4,
        parameters=8_151_752,
        macs=1_181_942_912,
        paper_top_1=74.1,
        stem="conv1",
        classifier="fc",
    ),
    "vgg16_cifar": Card(
        ghost_cifar.vgg16_cifar,
        parameters=14_987_722,
        macs=313_463_808,
        paper_top_1=93.6,
        stem="conv1",
        classifier="fc",
        input_size=32,
        num_classes=10,
    ),
    "ghost_vgg16": Card(
        ghost_cifar.ghost_vgg16,
        parameters=7_652_074,
        macs=158_699_520,
        paper_top_1=93.7,
        stem="conv1",
        classifier="fc",
        input_size=32,
        num_classes=10,
    ),
    "resnet56_cifar": Card(
        ghost_cifar.resnet56_cifar,
        parameters=853_018,
        macs=125_485_696,
        paper_top_1=93.0,
        stem="conv1",
        classifier="fc",
        input_size=32,
        num_classes=10,
    ),
    "ghost_resnet56": Card(
        ghost_cifar.ghost_resnet56,
        parameters=438_154,
        macs=65_286_784,
        paper_top_1=92.7,
        stem="conv1",
        classifier="fc",
        input_size=32,
        num_classes=10,
    ),
}
