"""This project's network, training step and input pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

# First: it sets what MindSpore's environment has to be.
import mindghost  # noqa: F401  isort: skip
import mindspore as ms
from mindspore import Tensor

from mindghost import build
from mindghost.config import Config
from mindghost.data import dataset, loader, pack_writer
from mindghost.graph_cache import GraphCache
from mindghost.ops import library, momentum
from mindghost.parallel.ranks import ALONE
from mindghost.train import loss, optim
from mindghost.train.step import StepOptions, TrainStep

from .job import Job, answer, time_steps
from .recipe import PIPELINE, TRAINING, WEIGHTS, images_of, labels_of, time_batches


def measure(job: Job) -> dict[str, Any]:
    """What the job asks for."""
    if job.task in ("pipeline", "evaluation pipeline"):
        return _pipeline(job)
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    native_ops = "off" if job.variant == "off" else "auto"
    config = Config(
        model=job.model, num_classes=job.num_classes, image_resize=job.image_size, native_ops=native_ops, **TRAINING
    )
    return time_steps(job, (_training if job.task == "training" else _inference)(job, config))


def _training(job: Job, config: Config) -> Callable[[], object]:
    operators = library.native_operators(config, "CPU", job.threads)
    network = build.training_precision(build.network(config), config, operators)
    optimizer = optim.optimizer(config, network, [config.lr] * (job.steps + 2), "CPU")
    fused, options = momentum.fused_update(optimizer, operators), StepOptions.from_config(config)
    step = TrainStep(network, loss.training_loss(config), optimizer, options, fused=fused).set_train(True)
    images, labels = Tensor(images_of(job)), Tensor(labels_of(job))
    GraphCache(config, "CPU", ALONE).compile(step, images, labels)
    return lambda: float(step(images, labels)[0])


def _inference(job: Job, config: Config) -> Callable[[], object]:
    """As validate.py runs it."""
    network = build.evaluation_network(config, library.native_operators(config, "CPU", job.threads)).set_train(False)
    build.load_weights(network, config.replace(ckpt_path=str(Path(job.folder, WEIGHTS))), fine_tune=False)
    images = Tensor(images_of(job))
    GraphCache(config, "CPU", ALONE).compile(network, images)
    return lambda: network(images).asnumpy()


def _pipeline(job: Job) -> dict[str, Any]:
    config = Config(
        model=job.model,
        data_dir=str(_packed(job)) if job.variant else job.folder,
        batch_size=job.batch_size,
        image_resize=job.image_size,
        num_parallel_workers=job.threads,
        drop_remainder=True,
        **PIPELINE,
    )
    training = job.task == "pipeline"
    samples = dataset.open_split(config, "train")
    if not training:
        return time_batches(job, lambda: (len(labels) for _, labels in loader.eval_batches(config, samples)))
    batches = loader.train_batches(config, samples, len(samples.classes))
    iterator = batches.create_tuple_iterator(num_epochs=job.steps + 1, output_numpy=True)
    return time_batches(job, lambda: (len(labels) for _, labels in iterator))


def _packed(job: Job) -> Path:
    """The photos as a pack of this variant, scaled down to what evaluation crops from."""
    target = Path(job.folder, job.variant)
    short_side = round(job.image_size / Config().crop_pct)
    options = pack_writer.Options(short_side=short_side, uncompressed=job.variant == "uncompressed")
    pack_writer.pack(Path(job.folder, "train"), target / "train", options)
    return target


if __name__ == "__main__":
    answer(measure)
