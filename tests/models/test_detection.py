"""Our networks of feature maps in the place of MindCV's in its SSD example (examples/det/ssd), built here once more."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost.models import create_model
from tests.helpers.networks import images
from tests.helpers.weights import randomise

CLASSES = 81


@pytest.fixture(scope="module")
def classifier() -> nn.Cell:
    network = create_model("ghostnetv2_100", num_classes=5).set_train(False)
    randomise(network, gamma=(0.2, 0.4))
    return network


@pytest.fixture(scope="module")
def backbone(classifier, tmp_path_factory) -> nn.Cell:
    """As the example's train.py makes it, from the file of the classifier."""
    path = tmp_path_factory.mktemp("weights") / "classifier.ckpt"
    ms.save_checkpoint(classifier, str(path))
    return mindcv.create_model(
        "ghostnetv2_100", checkpoint_path=str(path), auto_mapping=False, features_only=True, out_indices=[3, 4]
    ).set_train(False)


def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, group: int = 1) -> nn.Cell:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, pad_mode="same", group=group)
    return nn.SequentialCell(layer, nn.BatchNorm2d(out_channels), nn.ReLU6())


def halved(in_channels: int, hidden: int, out_channels: int) -> nn.Cell:
    """An inverted residual of stride 2."""
    last = nn.SequentialCell(nn.Conv2d(hidden, out_channels, 1), nn.BatchNorm2d(out_channels), nn.ReLU6())
    return nn.SequentialCell(conv_bn(in_channels, hidden, 1), conv_bn(hidden, hidden, 3, 2, group=hidden), last)


def predictor(in_channels: int, outputs: int) -> nn.Cell:
    return nn.SequentialCell(
        conv_bn(in_channels, in_channels, group=in_channels), nn.Conv2d(in_channels, outputs, 1, has_bias=True)
    )


def boxes(maps: list[Tensor], values: int) -> Tensor:
    """(N, boxes, values) of predictions of every map."""
    rows = [ops.reshape(ops.transpose(each, (0, 2, 3, 1)), (each.shape[0], -1)) for each in maps]
    return ops.reshape(ops.concat(rows, 1), (maps[0].shape[0], -1, values))


class Ssd(nn.Cell):
    """Two maps of a backbone, four smaller ones, and what is predicted of each: the example's form for MobileNetV2."""

    # Of the four smaller maps, channels inside and after.
    extras = ((32, 512), (128, 256), (128, 256), (64, 128))
    defaults = (3, 6, 6, 6, 6, 6)

    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.backbone = network
        first, second = network.out_channels
        self.expand = conv_bn(first, 6 * first, 1)
        channels = [second]
        cells = []
        for hidden, out_channels in self.extras:
            cells.append(halved(channels[-1], hidden, out_channels))
            channels.append(out_channels)
        self.smaller = nn.CellList(cells)
        of_maps = list(zip((6 * first, *channels), self.defaults, strict=True))
        self.places = nn.CellList([predictor(channels, 4 * count) for channels, count in of_maps])
        self.kinds = nn.CellList([predictor(channels, CLASSES * count) for channels, count in of_maps])

    def maps(self, x: Tensor) -> list[Tensor]:
        first, x = self.backbone(x)
        found = [self.expand(first), x]
        for cell in self.smaller:
            found.append(cell(found[-1]))
        return found

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(x)
        places = [cell(each) for cell, each in zip(self.places, maps, strict=True)]
        kinds = [cell(each) for cell, each in zip(self.kinds, maps, strict=True)]
        return boxes(places, 4), boxes(kinds, CLASSES)


def test_the_backbone_is_filled_from_a_whole_classifier(classifier, backbone):
    """By MindCV's own loader; its maps are those of the classifier."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert (backbone.out_channels, backbone.feature_info.reduction()) == ([112, 160], [16, 32])
    x = Tensor(images(1, 3, 64, 64))
    steps = classifier.act1(classifier.bn1(classifier.conv_stem(x)))
    expected = []
    for index, stage in enumerate(classifier.blocks):
        steps = stage(steps)
        if index in (6, 8):
            expected.append(steps.asnumpy())
    for found, wanted in zip(backbone(x), expected, strict=True):
        np.testing.assert_array_equal(found.asnumpy(), wanted)


def test_ssds_neck_and_heads(backbone):
    """At 300 x 300: maps of 19, 10, 5, 3, 2 and 1 pixels, and the 1,917 boxes of the example's configuration."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = Ssd(backbone).set_train(False)
    x = Tensor(images(1, 3, 300, 300))
    assert [each.shape[1:] for each in network.maps(x)] == [
        *((672, 19, 19), (160, 10, 10), (512, 5, 5)),
        *((256, 3, 3), (256, 2, 2), (128, 1, 1)),
    ]
    places, kinds = network(x)
    assert (places.shape, kinds.shape) == ((1, 1917, 4), (1, 1917, CLASSES))


def test_a_pyramid_on_three_maps():
    """As its ResNet-50 with a feature pyramid at 640 x 640: 80, 40, 20, and 10 and 5 pixels, 51,150 boxes."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = mindcv.create_model("ghostnetv2_100", features_only=True, out_indices=[2, 3, 4]).set_train(False)
    assert network.out_channels == [40, 112, 160]
    sides = [each.shape[2] for each in network(Tensor(images(1, 3, 640, 640)))]
    # Two maps more, of stride 2 each.
    sides += [-(-sides[-1] // 2), -(-sides[-1] // 4)]
    assert sides == [80, 40, 20, 10, 5]
    assert 6 * sum(side**2 for side in sides) == 51_150
