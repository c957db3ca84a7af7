"""How the loss of training images depends on a network's weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from ... import tasks
from ...config import Config
from ...data import loader
from ...runtime import in_mode


def of_batches(network: nn.Cell, config: Config, count: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The gradients of the loss of some training batches, by the names of the weights.

    Args:
        network: with its weights; batch norms take their running statistics, and nothing is dropped.
        config: of the run: its images, batches, augmentation and loss.
        count: batches, at most those of an epoch.

    Raises UserError where the images cannot be read.
    """
    task = tasks.of(config)
    samples = task.open_split(config, "train")
    config = task.settled(config, samples)
    assert config.num_classes is not None  # a `Deployment` has it settled
    loss, weights = task.loss(config), network.trainable_params()
    network.set_train(False)

    def forward(images: Tensor, *labels: Tensor) -> Tensor:
        return loss(network(images), *labels)

    gradient = ms.grad(forward, None, weights)
    batches = loader.train_batches(config, samples, config.num_classes)
    with in_mode(ms.PYNATIVE_MODE):
        for batch in itertools.islice(batches.create_tuple_iterator(num_epochs=1), count):
            found = gradient(*batch)
            yield {weight.name: part.asnumpy() for weight, part in zip(weights, found, strict=True)}
