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
from mindghost.data import dataset, evaluation, loader
from mindghost.data.pack import writer as pack_writer
from mindghost.errors import UserError
from mindghost.inference.network import of_cell
from mindghost.ops.library import check_bfloat16
from mindghost.parallel.ranks import ALONE
from mindghost.runtime import Runtime
from mindghost.train.step import make_step

from .job import Job, answer, time_steps
from .recipe import PIPELINE, TRAINING, WEIGHTS, images_of, labels_of, task_of, time_batches


def measure(job: Job) -> dict[str, Any]:
    """What the job asks for."""
    if job.task in ("pipeline", "evaluation pipeline"):
        return _pipeline(job)
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    native_ops = "off" if job.variant == "off" else "auto"
    config = Config(
        task=task_of(job),
        model=job.model,
        num_classes=job.num_classes,
        image_resize=job.image_size,
        native_ops=native_ops,
        **TRAINING,
    )
    if job.variant != "bfloat16":
        return time_steps(job, _run(job, config))
    keys = {"amp_level": "O2", "amp_type": "bfloat16"} if job.task == "training" else {"val_amp_level": "bfloat16"}
    config = config.replace(**keys)
    try:
        check_bfloat16(_runtime(job, config).operators)
        run = _run(job, config)
    except UserError as error:
        return {"missing": str(error)}
    return time_steps(job, run)


def _run(job: Job, config: Config) -> Callable[[], object]:
    return (_training if job.task == "training" else _inference)(job, config)


def _runtime(job: Job, config: Config) -> Runtime:
    """This process alone, with the threads of the job."""
    return Runtime(config, "CPU", ALONE, job.threads, [])


def _training(job: Job, config: Config) -> Callable[[], object]:
    runtime = _runtime(job, config)
    network = build.training_precision(build.network(config), config, runtime.operators)
    step = make_step(runtime, network, [config.lr] * (job.steps + 2)).set_train(True)
    images, labels = Tensor(images_of(job)), Tensor(labels_of(job))
    runtime.graphs.compile(step, images, labels)
    return lambda: float(step(images, labels)[0])


def _inference(job: Job, config: Config) -> Callable[[], object]:
    """As validate.py runs it."""
    runtime = _runtime(job, config)
    network = build.evaluation_network(config, runtime.operators)
    build.load_weights(network, config.replace(ckpt_path=str(Path(job.folder, WEIGHTS))), fine_tune=False)
    run, images = of_cell(network, runtime.graphs, build.for_plan(config, runtime.operators)), images_of(job)
    return lambda: run(images)


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
        return time_batches(job, lambda: (len(labels) for _, labels in evaluation.eval_batches(config, samples)))
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
