"""Networks without the batch norms that a layer before them can take up."""

import mindspore as ms
from mindspore import nn

from mindghost.models.folded import batch_norms


def test_only_the_norm_right_behind_a_convolution_is_folded():
    """A batch norm that reads what no convolution made stays out."""

    ms.set_context(mode=ms.PYNATIVE_MODE)

    class Network(nn.Cell):
        def __init__(self):
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def construct(self, x):
            return self.second(self.first(self.conv(x)))

    assert batch_norms(Network()) == {"conv": "first"}
