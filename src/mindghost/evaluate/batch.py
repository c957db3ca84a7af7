"""How many images a network looks at at once: what suits the machine, and less where memory turns out to be short."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data import transforms
from ..errors import UserError
from ..inference.batches import in_batches
from ..inference.formats import Network
from ..process import resources

if TYPE_CHECKING:
    from ..runtime import Runtime

log = logging.getLogger("mindghost")

# Pixels of a batch beyond which a CPU gains nothing, and images of a batch of small ones.
_PIXELS, _MOST_IMAGES, _FEWEST_IMAGES = 64 * 224 * 224, 256, 8
# Bytes that one 224 x 224 image takes in the largest network here, and the share of what is free that a batch may take.
_BYTES_OF_IMAGE, _SHARE_OF_MEMORY = 60e6, 0.5


def settled(runtime: Runtime, samples: int, at_once: int | None = None) -> Runtime:
    """The run with a `batch_size` that suits the machine, where nobody gave one. Every rank has to call it.

    Whatever it is, each image counts once, and results differ by no more than float rounding.

    Args:
        runtime: of an evaluation.
        samples: how many there are; none of a batch beyond them is computed.
        at_once: images that an exported file takes at once; None where it takes any number.
    """
    config, ranks = runtime.config, runtime.ranks
    if "batch_size" in config.given or runtime.device != "CPU":
        return runtime
    height, width = transforms.input_size(config)
    free = resources.free_memory() // len(ranks.neighbours)
    # Ranks may see different amounts of free memory, but share the batches of one evaluation.
    size = min(int(found) for found in ranks.gather(np.array(fitting(height * width, free))))
    if at_once is not None:
        size = max(1, size // at_once) * at_once
    size = min(size, samples)
    log.info(f"batch_size {size} suits this machine and images of {height} x {width}; --batch_size gives another")
    return runtime.with_config(config.replace(batch_size=size))


def fitting(pixels: int, free: int) -> int:
    """Images of a batch, a power of two, for images of so many pixels and so many bytes of free memory."""
    wanted = min(max(_PIXELS // pixels, _FEWEST_IMAGES), _MOST_IMAGES)
    held = int(_SHARE_OF_MEMORY * free / (_BYTES_OF_IMAGE * pixels / 224**2))
    return 1 << int(math.log2(max(1, min(wanted, held))))


def sparing(network: Network) -> Network:
    """A network that takes images in smaller parts from the moment that memory runs out; a line says so."""
    most: int | None = None

    def run(images: NDArray[Any]) -> NDArray[Any]:
        nonlocal most
        while True:
            try:
                return network(images) if most is None else in_batches(network, most)(images)
            except (MemoryError, RuntimeError, UserError) as error:
                size = len(images) if most is None else most
                if size == 1 or not any(map(resources.is_out_of_memory, (error, error.__cause__))):
                    raise
                most = size // 2
                log.info(f"memory ran out with {size} images at once: it goes on with {most} (--batch_size {most})")

    return run
