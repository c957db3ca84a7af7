"""What all contenders are given: images, labels, the keys of training, and the keys of the input pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .job import Job

# In the job's folder.
WEIGHTS = "weights.ckpt"
TORCH_WEIGHTS = "weights.npz"
TABLE = "table.json"
# What people ship, by format and precision, and why there is no file of some.
FILES = {
    "onnx": "weights.onnx",
    "onnx int8": "weights_int8.onnx",
    "openvino": "weights.xml",
    "openvino int8": "weights_int8.xml",
    "litert": "weights.tflite",
    "litert int8": "weights_int8.tflite",
    "ncnn": "weights.ncnn.param",
    "ncnn int8": "weights_int8.ncnn.param",
}
REASONS = "reasons.json"

# Keys of our configuration, which are MindCV's.
TRAINING: dict[str, Any] = {
    "drop_rate": 0.2,
    "opt": "momentum",
    "momentum": 0.9,
    "weight_decay": 2e-5,
    "lr": 0.01,
    "label_smoothing": 0.1,
}
# The whole recipe of GhostNet.
PIPELINE = {
    "scale": (0.08, 1.0),
    "ratio": (0.75, 1.333),
    "hflip": 0.5,
    "auto_augment": "randaug-m9-mstd0.5",
    "re_prob": 0.25,
    "interpolation": "bilinear",
}


def task_of(job: Job) -> str:
    """What our key `task` says of the network."""
    return "segmentation" if job.dense else "classification"


def images_of(job: Job) -> NDArray[Any]:
    """Images (N, 3, H, W) float32, the same for all contenders."""
    shape = (job.batch_size, 3, job.image_size, job.image_size)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def labels_of(job: Job) -> NDArray[Any]:
    """Labels int32: (N,), or (N, H, W) of pixels."""
    shape = (job.batch_size, *([job.image_size] * 2 if job.dense else ()))
    return np.random.default_rng(1).integers(0, job.num_classes, shape).astype(np.int32)


def time_batches(job: Job, epoch: Callable[[], Iterable[int]]) -> dict[str, Any]:
    """Read an epoch to warm up, then up to `job.steps` more, of which the times are taken.

    Args:
        job: of the pipeline.
        epoch: called for each epoch, gives the number of images of each batch, when it is there.
    """
    images = sum(epoch())
    startup = time.time() - job.started
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < job.steps and (not times or time.perf_counter() - begun < job.seconds):
        before = time.perf_counter()
        images = sum(epoch())
        times.append(time.perf_counter() - before)
    return {"startup": startup, "times": times, "images": images}
