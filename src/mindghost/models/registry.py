"""What is known of each network: its builder and its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from mindspore import nn

from . import (
    g_ghost_regnet,
    ghost_cifar,
    ghost_lraspp,
    ghost_resnet,
    ghost_unet,
    ghostnet,
    ghostnetv2,
    ghostnetv3,
    repghostnet,
)

CLASSIFICATION, SEGMENTATION = "classification", "segmentation"

# Names a network's usual weights, beside which there may be variants.
USUAL = ""


@dataclass(frozen=True)
class Weights:
    """A weight file that MindCV publishes.

    Attributes:
        url: of the file.
        sha256: the first digits of its digest, which its name has; nobody publishes the others.
        top_1, top_5: what MindCV measured with it, on ImageNet-1k, in percent.
    """

    url: str
    sha256: str
    top_1: float
    top_5: float


@dataclass(frozen=True)
class Card:
    """Facts about a network.

    Accuracies are top-1 in percent, as published by others: on ImageNet-1k, or on CIFAR-10 where `num_classes` is 10.
    None stands for what nobody published.

    Attributes:
        build: makes the network; takes `num_classes`, `in_channels`, where given `drop_rate`, and `deploy` where
            there is a fused form. Of a network for segmentation: takes `backbone`, a network, in the place of
            `in_channels` and `deploy`, and `width`.
        parameters: trainable parameters with `num_classes` classes, counted on the network that `build` makes.
        macs: multiply-accumulates of convolutions and dense layers for one image of 3 x `input_size` x `input_size`,
            counted likewise.
        paper_top_1: in the paper.
        paper_parameters, paper_macs: in millions, as the paper prints them, of the fused form where there is one.
        timm: name of timm's weights, with their tag; None where there are none.
        timm_top_1, timm_top_5: of these.
        weights: MindCV's, by the name of the variant; those that are usually meant have the name USUAL.
        fused_parameters, fused_macs: of the form that `deploy=True` builds; None where there is none.
        stem, classifier: the cells that depend on `in_channels` and `num_classes`.
        input_size, num_classes: pixels and classes of the data set that the network was published with.
        task: what its outputs are made for: "classification" (of images; one class or several) or "segmentation".
        backbone: name of the network that a network for segmentation has as its backbone where nobody says.
        upsamplings: ways in which its decoder can enlarge maps.
    """

    build: Callable[..., nn.Cell]
    parameters: int
    macs: int
    paper_top_1: float | None = None
    paper_parameters: float | None = None
    paper_macs: float | None = None
    timm: str | None = None
    timm_top_1: float | None = None
    timm_top_5: float | None = None
    weights: Mapping[str, Weights] = field(default_factory=dict)
    fused_parameters: int | None = None
    fused_macs: int | None = None
    stem: str = "conv_stem"
    classifier: str = "classifier"
    input_size: int = 224
    num_classes: int = 1000
    task: str = CLASSIFICATION
    backbone: str = ""
    upsamplings: tuple[str, ...] = ()

    @property
    def mindcv_top_1(self) -> float | None:
        """Of MindCV's usual weights."""
        return self.weights[USUAL].top_1 if USUAL in self.weights else None

    @property
    def pytorch_weights(self) -> str:
        """What messages call the weights that can be converted, with the place of those that are timm's."""
        return "its PyTorch weights" + (f" (https://huggingface.co/timm/{self.timm})" if self.timm else "")

    @property
    def variants(self) -> list[str]:
        """Names of the weights beside the usual ones."""
        return [name for name in self.weights if name != USUAL]


# Networks whose cells have ResNet's names; and those of them for CIFAR-10.
_resnet = partial(Card, stem="conv1", classifier="fc")
_small = partial(_resnet, input_size=32, num_classes=10)
# Networks for segmentation, counted with their usual backbone and as many classes as torchvision's, Pascal VOC's.
_segmentation = partial(Card, task=SEGMENTATION, backbone="ghostnet_100", num_classes=21)
_unet = partial(_segmentation, upsamplings=("bilinear", "transposed"))
_lraspp = partial(_segmentation, upsamplings=("bilinear",))

_MINDCV = "https://download.mindspore.cn/toolkits/mindcv/ghostnet"
_NEWER_MINDCV = "https://download-mindspore.osinfra.cn/toolkits/mindcv/ghostnet"


def _of_mindcv(name: str, top_1: float, top_5: float, place: str = _MINDCV) -> Weights:
    """Weights in a file `MODEL-DIGITS.ckpt` or `MODEL-DIGITS-VARIANT.ckpt`."""
    return Weights(f"{place}/{name}", name.removesuffix(".ckpt").split("-")[1], top_1, top_5)


CARDS: dict[str, Card] = {
    "ghostnet_050": Card(
        ghostnet.ghostnet_050,
        parameters=2_587_292,
        macs=42_328_152,
        paper_top_1=66.2,
        paper_parameters=2.6,
        paper_macs=42,
        weights={
            USUAL: _of_mindcv("ghostnet_050-85b91860.ckpt", 66.03, 86.64),
            "910v2": _of_mindcv("ghostnet_050-ae7771cb-910v2.ckpt", 65.84, 86.60, _NEWER_MINDCV),
        },
    ),
    "ghostnet_100": Card(
        ghostnet.ghostnet_100,
        parameters=5_182_508,
        macs=141_150_512,
        paper_top_1=73.9,
        paper_parameters=5.2,
        paper_macs=141,
        timm="ghostnet_100.in1k",
        timm_top_1=73.958,
        timm_top_5=91.542,
        weights={USUAL: _of_mindcv("ghostnet_100-bef8025a.ckpt", 73.78, 91.66)},
    ),
    "ghostnet_130": Card(
        ghostnet.ghostnet_130,
        parameters=7_358_820,
        macs=227_003_256,
        paper_top_1=75.7,
        paper_parameters=7.3,
        paper_macs=226,
        weights={USUAL: _of_mindcv("ghostnet_130-cf4c235c.ckpt", 75.50, 92.56)},
    ),
    "ghostnetv2_100": Card(
        ghostnetv2.ghostnetv2_100,
        parameters=6_156_908,
        macs=167_048_288,
        paper_top_1=75.3,
        paper_parameters=6.16,
        paper_macs=167,
        timm="ghostnetv2_100.in1k",
        timm_top_1=75.186,
        timm_top_5=92.334,
    ),
    "ghostnetv2_130": Card(
        ghostnetv2.ghostnetv2_130,
        parameters=8_960_404,
        macs=269_322_976,
        paper_top_1=76.9,
        paper_parameters=8.96,
        paper_macs=269,
        timm="ghostnetv2_130.in1k",
        timm_top_1=76.746,
        timm_top_5=93.364,
    ),
    "ghostnetv2_160": Card(
        ghostnetv2.ghostnetv2_160,
        parameters=12_392_698,
        macs=398_607_224,
        paper_top_1=77.8,
        paper_parameters=12.39,
        paper_macs=399,
        timm="ghostnetv2_160.in1k",
        timm_top_1=77.836,
        timm_top_5=93.948,
    ),
    # Fused, GhostNetV3 has GhostNetV2's convolutions, so 1.0x and 1.6x have GhostNetV2's multiply-accumulates (167 and
    # 399 M), where the paper says 170 and 400; at 0.5x, where it says 48, the official code has 49.6.
    "ghostnetv3_050": Card(
        ghostnetv3.ghostnetv3_050,
        parameters=3_395_384,
        macs=117_528_000,
        fused_parameters=2_853_176,
        fused_macs=49_640_656,
        paper_top_1=69.4,
        paper_parameters=2.85,
        paper_macs=48,
    ),
    "ghostnetv3_100": Card(
        ghostnetv3.ghostnetv3_100,
        parameters=8_129_028,
        macs=404_128_320,
        fused_parameters=6_147_588,
        fused_macs=167_048_288,
        paper_top_1=77.1,
        paper_parameters=6.15,
        paper_macs=170,
        timm="ghostnetv3_100.in1k",
        timm_top_1=76.936,
        timm_top_5=93.124,
    ),
    "ghostnetv3_130": Card(
        ghostnetv3.ghostnetv3_130,
        parameters=12_217_720,
        macs=654_842_824,
        fused_parameters=8_948_296,
        fused_macs=269_322_976,
        paper_top_1=79.1,
        paper_parameters=8.95,
        paper_macs=269,
    ),
    "ghostnetv3_160": Card(
        ghostnetv3.ghostnetv3_160,
        parameters=17_275_700,
        macs=971_574_612,
        fused_parameters=12_377_778,
        fused_macs=398_607_224,
        paper_top_1=80.4,
        paper_parameters=12.38,
        paper_macs=400,
    ),
    # What is fused has no convolution of its own, so that both forms have the same multiply-accumulates.
    "repghostnet_050": Card(
        repghostnet.repghostnet_050,
        parameters=2_313_968,
        macs=43_314_720,
        fused_parameters=2_306_528,
        fused_macs=43_314_720,
        paper_top_1=66.9,
        paper_parameters=2.3,
        paper_macs=43,
        timm="repghostnet_050.in1k",
        timm_top_1=66.978,
        timm_top_5=86.936,
    ),
    "repghostnet_058": Card(
        repghostnet.repghostnet_058,
        parameters=2_546_388,
        macs=59_804_016,
        fused_parameters=2_537_736,
        fused_macs=59_804_016,
        paper_top_1=68.9,
        paper_parameters=2.5,
        paper_macs=60,
        timm="repghostnet_058.in1k",
        timm_top_1=68.938,
        timm_top_5=88.386,
    ),
    "repghostnet_080": Card(
        repghostnet.repghostnet_080,
        parameters=3_278_968,
        macs=95_518_948,
        fused_parameters=3_267_112,
        fused_macs=95_518_948,
        paper_top_1=72.2,
        paper_parameters=3.3,
        paper_macs=96,
        timm="repghostnet_080.in1k",
        timm_top_1=72.24,
        timm_top_5=90.492,
    ),
    "repghostnet_100": Card(
        repghostnet.repghostnet_100,
        parameters=4_073_604,
        macs=142_394_128,
        fused_parameters=4_058_772,
        fused_macs=142_394_128,
        paper_top_1=74.2,
        paper_parameters=4.1,
        paper_macs=142,
        timm="repghostnet_100.in1k",
        timm_top_1=74.208,
        timm_top_5=91.55,
    ),
    "repghostnet_111": Card(
        repghostnet.repghostnet_111,
        parameters=4_539_984,
        macs=170_124_224,
        fused_parameters=4_523_568,
        fused_macs=170_124_224,
        paper_top_1=75.1,
        paper_parameters=4.5,
        paper_macs=170,
        timm="repghostnet_111.in1k",
        timm_top_1=75.06,
        timm_top_5=92.196,
    ),
    "repghostnet_130": Card(
        repghostnet.repghostnet_130,
        parameters=5_478_612,
        macs=231_123_652,
        fused_parameters=5_459_316,
        fused_macs=231_123_652,
        paper_top_1=76.4,
        paper_parameters=5.5,
        paper_macs=231,
        timm="repghostnet_130.in1k",
        timm_top_1=76.378,
        timm_top_5=92.898,
    ),
    "repghostnet_150": Card(
        repghostnet.repghostnet_150,
        parameters=6_575_336,
        macs=301_315_856,
        fused_parameters=6_553_064,
        fused_macs=301_315_856,
        paper_top_1=77.5,
        paper_parameters=6.6,
        paper_macs=301,
        timm="repghostnet_150.in1k",
        timm_top_1=77.474,
        timm_top_5=93.496,
    ),
    "repghostnet_200": Card(
        repghostnet.repghostnet_200,
        parameters=9_796_124,
        macs=515_869_856,
        fused_parameters=9_766_460,
        fused_macs=515_869_856,
        paper_top_1=78.8,
        paper_parameters=9.8,
        paper_macs=516,
        timm="repghostnet_200.in1k",
        timm_top_1=78.802,
        timm_top_5=94.332,
    ),
    "g_ghost_regnetx_032": _resnet(
        g_ghost_regnet.g_ghost_regnetx_032,
        parameters=10_511_000,
        macs=1_801_746_240,
        paper_top_1=77.8,
    ),
    "g_ghost_regnetx_040": _resnet(
        g_ghost_regnet.g_ghost_regnetx_040,
        parameters=15_726_268,
        macs=2_228_368_516,
        paper_top_1=78.6,
    ),
    "g_ghost_regnetx_080": _resnet(
        g_ghost_regnet.g_ghost_regnetx_080,
        parameters=24_586_928,
        macs=4_149_668_216,
        paper_top_1=79.0,
    ),
    "g_ghost_regnetx_160": _resnet(
        g_ghost_regnet.g_ghost_regnetx_160,
        parameters=32_381_704,
        macs=8_997_384_192,
        paper_top_1=79.9,
    ),
    "ghost_resnet50_s2": _resnet(
        ghost_resnet.ghost_resnet50_s2,
        parameters=13_953_512,
        macs=2_151_023_360,
        paper_top_1=75.0,
    ),
    "ghost_resnet50_s4": _resnet(
        ghost_resnet.ghost_resnet50_s4,
        parameters=8_151_752,
        macs=1_181_942_912,
        paper_top_1=74.1,
    ),
    "vgg16_cifar": _small(
        ghost_cifar.vgg16_cifar,
        parameters=14_987_722,
        macs=313_463_808,
        paper_top_1=93.6,
    ),
    "ghost_vgg16": _small(
        ghost_cifar.ghost_vgg16,
        parameters=7_652_074,
        macs=158_699_520,
        paper_top_1=93.7,
    ),
    "resnet56_cifar": _small(
        ghost_cifar.resnet56_cifar,
        parameters=853_018,
        macs=125_485_696,
        paper_top_1=93.0,
    ),
    "ghost_resnet56": _small(
        ghost_cifar.ghost_resnet56,
        parameters=438_154,
        macs=65_286_784,
        paper_top_1=92.7,
    ),
    "ghost_airbench": _small(
        ghost_cifar.ghost_airbench,
        parameters=6_023_018,
        macs=452_979_456,
    ),
    "ghost_unet": _unet(ghost_unet.ghost_unet, parameters=2_654_361, macs=257_878_704),
    "plain_unet": _unet(ghost_unet.plain_unet, parameters=2_789_289, macs=374_669_616),
    "ghost_lraspp": _lraspp(ghost_lraspp.ghost_lraspp, parameters=2_551_030, macs=132_456_048),
    "plain_lraspp": _lraspp(ghost_lraspp.plain_lraspp, parameters=2_560_694, macs=132_929_584),
}
