"""Steps of a network that compiles at once."""

import numpy as np
from mindcv.loss import create_loss
from mindspore import Tensor, nn

from mindghost.config import Config
from mindghost.train import optim
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers.weights import randomise


class Tiny(nn.Cell):
    """Convolution, batch norm and a classifier of 5 classes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, pad_mode="pad", padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.classifier = nn.Dense(4, 5)

    def construct(self, x):
        return self.classifier(self.bn(self.conv(x)).mean((2, 3)))


def tiny(seed: int = 0) -> Tiny:
    network = Tiny()
    randomise(network, seed)
    return network


def make_step(network, rates, options=None, *, opt="momentum", momentum=0.9, weight_decay=0.0) -> TrainStep:
    config = Config(model="ghostnet_050", opt=opt, momentum=momentum, weight_decay=weight_decay, eps=1e-3)
    optimizer = optim.optimizer(config, network, rates, "CPU")
    return TrainStep(network, create_loss("CE"), update_by(optimizer), options or StepOptions()).set_train(True)


def batch(size: int, seed: int = 0, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, 3, 6, 6)).astype(np.float32)
    return images, rng.integers(0, classes, size).astype(np.int32)


def run(step: TrainStep, images: np.ndarray, labels: np.ndarray) -> tuple[float, bool, float]:
    loss, finite, scale = step(Tensor(images), Tensor(labels))
    return float(loss), bool(finite), float(scale)
