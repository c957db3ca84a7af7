"""Training: epochs of steps, each evaluated, recorded and saved."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from tqdm import tqdm

from . import amp, build, checkpoint, evaluate, loss, optim, runtime, schedule, weights_file
from .config import Config
from .data import dataset, loader
from .errors import RunError
from .models import card
from .models.complexity import trainable_parameters
from .models.layers import freeze_batch_norm
from .step import StepOptions, TrainStep

log = logging.getLogger("ghostnet")


def train(config: Config) -> None:
    """Train as `config` says. Files appear in `ckpt_save_dir` (see `checkpoint.RunFolder`).

    Raises:
        UserError: a key, file or image that has to be changed; nothing was written unless training had begun.
        RunError: a loss or gradient that is not finite, or a file that cannot be written.
    """
    run_log = runtime.RunLog()
    try:
        _train(runtime.init(config), run_log)
    except RuntimeError as error:
        # MindSpore wraps what a data worker raises.
        user_error = loader.user_error_from(error)
        if user_error is None:
            raise
        raise user_error from error
    finally:
        run_log.close()


def _train(run: runtime.Runtime, run_log: runtime.RunLog) -> None:
    for line in [*run.notes, *run.config.warnings()]:
        log.info(line)
    folder = checkpoint.RunFolder(
        run.config.ckpt_save_dir, run.config.model, run.config.keep_checkpoint_max, run.config.ckpt_save_policy
    )
    folder.check(run.config.overwrite)
    if run.config.ckpt_path:
        weights_file.check_exists(run.config.ckpt_path)
    # Images, and with them the number of classes.
    samples = dataset.open_split(run.config, "train")
    config = build.with_classes(run.config, samples.classes)
    val_samples = dataset.open_split(config, "val", samples.classes) if config.val_while_train else None
    batches = loader.train_batches(config, samples, config.num_classes)

    # Network, from scratch or from weights.
    network = build.network(config)
    loaded = build.load_weights(network, config, fine_tune=True)
    log.info(f"{config.model}: {loaded or 'starts from fresh weights'}")
    if config.freeze_backbone:
        _freeze_backbone(network, card(config.model).classifier)
    amp.apply(network, config.amp_level, config.amp_cast_list)

    # The step, and the network that its weights are evaluated in.
    rates = schedule.learning_rates(config, batches.get_dataset_size() // config.gradient_accumulation_steps)
    optimizer = optim.optimizer(config, network, rates, run.device)
    if config.resume_opt:
        log.info(f"loaded {checkpoint.load_optimizer(optimizer, config.ckpt_path)} entries of optimizer state")
    step = TrainStep(network, loss.training_loss(config), optimizer, StepOptions.from_config(config))
    evaluator = _Evaluator(config, val_samples) if val_samples else None

    # From here on files are written.
    folder.start()
    run_log.to_file(folder.log)
    weights_file.write_atomically(folder.config, config.to_yaml().encode())
    weights_file.write_atomically(folder.classes, json.dumps(list(samples.classes), indent=1).encode())
    _log_run(config, run.device, network, len(samples), val_samples, batches.get_dataset_size())

    steps = batches.get_dataset_size()
    images = min(steps * config.batch_size, len(samples), config.num_samples or len(samples))
    epochs = _Epochs(config, step, rates, evaluator, folder, steps, images)
    ms.Model(step).train(config.epoch_size, batches, callbacks=[epochs], dataset_sink_mode=config.dataset_sink_mode)
    if folder.best_top_1 is not None:
        log.info(f"best top-1 {folder.best_top_1:.2f} %: {folder.best}")
    log.info(f"last weights: {folder.last}")


def _freeze_backbone(network: nn.Cell, classifier: str) -> None:
    """Leave the classifier alone trainable, and batch-norm statistics as they are."""
    for parameter in network.get_parameters():
        parameter.requires_grad = parameter.name.startswith(f"{classifier}.")
    freeze_batch_norm(network)


def _log_run(
    config: Config,
    device: str,
    network: nn.Cell,
    samples: int,
    val_samples: dataset.Samples | None,
    steps: int,
) -> None:
    """Say what is about to happen, in a few lines."""
    accumulation = config.gradient_accumulation_steps
    batch = config.batch_size * accumulation
    log.info(
        f"{config.model} on {device}: {trainable_parameters(network):,} trainable parameters, "
        f"{config.num_classes} classes, {config.amp_level}"
    )
    validation = f"{len(val_samples):,} for validation" if val_samples else "no validation"
    log.info(
        f"{samples:,} training images, {validation}; {config.epoch_size} epochs of {steps} steps of {config.batch_size}"
    )
    rate = schedule.base_rate(config)
    scaled = ""
    if config.lr_reference_batch is not None:
        scaled = f" ({config.lr:g} x global batch {batch} / reference batch {config.lr_reference_batch:g})"
    log.info(f"learning rate {rate:g}{scaled}, {config.scheduler}, {config.opt}, weight decay {config.weight_decay:g}")
    if config.mode == 0:
        log.info("the first step compiles the graph, which takes some tens of seconds")


class _Evaluator:
    """Evaluates weights in a network of their own, over the validation images."""

    def __init__(self, config: Config, samples: dataset.Samples) -> None:
        self.network = build.evaluation_network(config)
        self.batches = loader.eval_batches(config, samples)
        self.batch_size = config.batch_size

    def __call__(self, weights: dict[str, np.ndarray]) -> evaluate.Metrics:
        for parameter in self.network.get_parameters():
            parameter.set_data(ms.Tensor(weights[parameter.name]))
        return evaluate.evaluate(self.network, progress(self.batches, "validation"), self.batch_size)


def progress(batches: Iterable, description: str) -> Iterable:
    """Batches under a progress bar on a terminal, as they are otherwise."""
    return tqdm(batches, description, unit="batch", leave=False, disable=not sys.stderr.isatty())


class _Epochs(ms.Callback):
    """What happens around the steps: checks, progress, and after each epoch evaluation, record and files."""

    def __init__(
        self,
        config: Config,
        step: TrainStep,
        rates: list[float],
        evaluator: _Evaluator | None,
        folder: checkpoint.RunFolder,
        steps: int,
        images: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.step = step
        self.rates = rates
        self.evaluator = evaluator
        self.folder = folder
        self.steps = steps
        self.images = images
        self.skipped = 0

    def on_train_epoch_begin(self, run_context: ms.RunContext) -> None:
        epoch = run_context.original_args().cur_epoch_num
        self.losses: list[float] = []
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=self.images,
            desc=f"epoch {epoch}/{self.config.epoch_size}",
            unit="image",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def on_train_step_end(self, run_context: ms.RunContext) -> None:
        position = run_context.original_args()
        loss, finite, scale = (float(output.asnumpy()) for output in position.net_outputs)
        step = (position.cur_step_num - 1) % self.steps + 1
        self._check_finite(loss, bool(finite), scale, position.cur_epoch_num, step)
        self.losses.append(loss)
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(self.config.batch_size)
        if self.bar.disable and step % self.config.log_interval == 0 and step < self.steps:
            self._log_step(position.cur_epoch_num, step)

    def on_train_epoch_end(self, run_context: ms.RunContext) -> None:
        position = run_context.original_args()
        epoch, done = position.cur_epoch_num, position.cur_step_num
        training_seconds = time.perf_counter() - self.started
        self.bar.close()
        weights = self.step.evaluation_weights()
        last = epoch == self.config.epoch_size
        metrics = None
        if self.evaluator and (epoch % self.config.val_interval == 0 or last):
            metrics = self.evaluator(weights)
            if not math.isfinite(metrics.loss):
                raise RunError(f"epoch {epoch}: the validation loss is {metrics.loss}; {self._kept(epoch)}")
        record = self._record(epoch, done, metrics, training_seconds)
        epoch_file = epoch % self.config.ckpt_save_interval == 0 or last
        best = self.folder.save_weights(weights, epoch, self.steps, record["top_1"], epoch_file)
        self.folder.save_state(self.step.state(), epoch, done)
        with open(self.folder.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        log.info(_epoch_line(record, self.config.epoch_size, best, self.skipped))
        self.skipped = 0

    def _check_finite(self, loss: float, finite: bool, scale: float, epoch: int, step: int) -> None:
        """Stop the run where it has diverged; count the updates that a loss scale is expected to lose."""
        where = f"epoch {epoch}, step {step}"
        kept = self._kept(epoch)
        advice = "lower lr, or set clip_grad"
        if not math.isfinite(loss):
            raise RunError(f"{where}: the loss is {loss}; {kept}; {advice}")
        if finite:
            return
        self.skipped += 1
        options = self.step.options
        scaled_down = options.dynamic_scale and scale > 1
        if not (scaled_down or (self.config.drop_overflow_update and not options.dynamic_scale)):
            raise RunError(f"{where}: a gradient is not finite; {kept}; {advice}")

    def _kept(self, epoch: int) -> str:
        """What a run that stops in this epoch leaves."""
        return f"{self.folder.last} is kept" if epoch > 1 else "no epoch was finished, so there is no weight file"

    def _log_step(self, epoch: int, step: int) -> None:
        seconds = time.perf_counter() - self.started
        images = step * self.config.batch_size
        left = seconds / step * (self.steps - step)
        log.info(
            f"epoch {epoch}/{self.config.epoch_size}  step {step}/{self.steps}  loss {self.losses[-1]:.4f}  "
            f"{images / seconds:.1f} images/s  {left:.0f} s left in the epoch"
        )

    def _record(
        self, epoch: int, done: int, metrics: evaluate.Metrics | None, training_seconds: float
    ) -> dict[str, Any]:
        """The epoch's line of `metrics.jsonl`."""
        update = done // self.config.gradient_accumulation_steps
        return {
            "epoch": epoch,
            "step": done,
            "lr": self.rates[update - 1],
            "base_lr": schedule.base_rate(self.config),
            "train_loss": sum(self.losses) / len(self.losses),
            "val_loss": metrics.loss if metrics else None,
            "top_1": metrics.top_1 if metrics else None,
            "top_5": metrics.top_5 if metrics else None,
            "images_per_second": round(self.images / training_seconds, 2),
            "seconds": round(time.perf_counter() - self.started, 3),
        }


def _epoch_line(record: dict[str, Any], epochs: int, best: bool, skipped: int) -> str:
    """A record for people."""
    parts = [
        f"epoch {record['epoch']}/{epochs}",
        f"loss {record['train_loss']:.4f}",
        f"lr {record['lr']:.3g}",
    ]
    if record["top_1"] is not None:
        parts += [f"val loss {record['val_loss']:.4f}", f"top-1 {record['top_1']:.2f} %"]
    if record["top_5"] is not None:
        parts.append(f"top-5 {record['top_5']:.2f} %")
    parts += [f"{record['images_per_second']:.1f} images/s", f"{record['seconds']:.1f} s"]
    if skipped:
        parts.append(f"{skipped} updates skipped (overflow)")
    return "  ".join(parts) + ("  (best)" if best else "")
