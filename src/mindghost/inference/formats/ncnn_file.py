"""ncnn's files: STEM.param has the layers as text, STEM.bin their weights; ncnn runs them, one image at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...files import intact, paths, scratch
from ...process import streams
from .base import End, Format, Graph, Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = "7767517"


class Ncnn(Format):
    """ncnn's files, which have no room for a description: it lies beside them."""

    name = "ncnn"
    suffix = ".param"
    infix = ".ncnn"
    others = (".bin",)
    runtime = "ncnn"

    def read(self, path: Path) -> Graph:
        """See `Format.read`. The files say no shapes, but that there is one image."""
        net = net_of(path, 1)
        inputs = tuple(End(name, "float32", None) for name in net.input_names())
        return Graph(inputs, tuple(End(name, "float32", None) for name in net.output_names()), None)

    def network(self, path: Path, threads: int = 0) -> Network:
        import ncnn
        import numpy as np

        net = net_of(path, threads)
        (taken,), (given,) = net.input_names(), net.output_names()

        def answer(image: NDArray[Any]) -> NDArray[Any]:
            with net.create_extractor() as extractor:
                extractor.input(taken, ncnn.Mat(image).clone())
                status, logits = extractor.extract(given)
                if status != 0:
                    raise self.cannot_run(path, RuntimeError(f"status {status}"))
                # The memory is the extractor's.
                return np.array(logits)

        return lambda images: np.stack([answer(np.ascontiguousarray(image)) for image in images])


NCNN = Ncnn()


def net_of(path: Path, threads: int) -> Any:
    """The files, loaded: in float32 throughout, as they were compared."""
    try:
        import ncnn
    except ImportError as error:
        raise UserError(f"{path}: ncnn runs it ({error}); pip install ncnn") from error
    layers, weights = intact.read_intact(path), path.with_suffix(".bin")
    paths.check_file(weights, f"{path.name} keeps its weights in it; restore it, or export it again")
    intact.read_intact(weights)
    net = ncnn.Net()
    net.opt.use_vulkan_compute = net.opt.use_bf16_storage = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    # Its own count is that of the machine's cores; threads that share one wait for each other, busily.
    net.opt.num_threads = threads or len(os.sched_getaffinity(0))
    text = layers.decode()
    # ncnn says on standard error what it did not like. From a file: of bytes in memory that are too few it reads on.
    with streams.libraries_silenced(), scratch.readable(weights) as file:
        if text.split("\n", 1)[0].strip() != _MAGIC or net.load_param_mem(text) != 0:
            raise NCNN.cannot_load(path, ValueError("its layers cannot be read"))
        if net.load_model(str(file)) != 0:
            raise NCNN.cannot_load(path, ValueError(f"{weights.name} does not hold its weights"))
    return net
