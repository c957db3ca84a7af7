"""MindCV's network, trained and run as MindCV does it, and its input pipeline. Nothing of ours is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.loss import create_loss
from mindcv.models import create_model, is_model
from mindcv.optim import create_optimizer
from mindspore import Tensor, nn

from .job import Job, answer, time_steps
from .recipe import PIPELINE, TRAINING, images_of, labels_of, time_batches


def measure(job: Job) -> dict[str, Any]:
    """What the job asks for."""
    if job.task in ("pipeline", "evaluation pipeline"):
        return _pipeline(job)
    if not is_model(job.model):
        return {"missing": f"MindCV has no {job.model}"}
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    network = create_model(job.model, num_classes=job.num_classes, drop_rate=TRAINING["drop_rate"])
    return time_steps(job, (_training if job.task == "training" else _inference)(job, network))


def _training(job: Job, network: nn.Cell) -> Callable[[], object]:
    loss = create_loss("CE", label_smoothing=TRAINING["label_smoothing"])
    keys = {key: TRAINING[key] for key in ("lr", "weight_decay", "momentum")}
    optimizer = create_optimizer(network.trainable_params(), TRAINING["opt"], **keys)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, loss), optimizer).set_train(True)
    images, labels = Tensor(images_of(job)), Tensor(labels_of(job))
    return lambda: float(step(images, labels))


def _inference(job: Job, network: nn.Cell) -> Callable[[], object]:
    network.set_train(False)
    images = Tensor(images_of(job))
    return lambda: network(images).asnumpy()


def _pipeline(job: Job) -> dict[str, Any]:
    training = job.task == "pipeline"
    images = create_dataset("imagenet", str(Path(job.folder)), "train", training, num_parallel_workers=job.threads)
    keys = PIPELINE if training else {"interpolation": PIPELINE["interpolation"]}
    transform = create_transforms("imagenet", job.image_size, is_training=training, **keys)
    batches = create_loader(
        images,
        job.batch_size,
        drop_remainder=training,
        is_training=training,
        transform=transform,
        num_parallel_workers=job.threads,
    )
    iterator = batches.create_tuple_iterator(num_epochs=job.steps + 1, output_numpy=True)
    return time_batches(job, lambda: (len(labels) for _, labels in iterator))


if __name__ == "__main__":
    answer(measure)
