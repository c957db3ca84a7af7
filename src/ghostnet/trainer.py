"""Training: the run, from its configuration to its last epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import mindspore as ms
import numpy as np
from mindspore import nn

from . import amp, build, checkpoint, loss, optim, runtime, schedule, weights_file
from .config import Config
from .data import dataset, loader
from .epochs import Epochs, Evaluator
from .errors import RunError, Stopped, UserError
from .models import card
from .models.complexity import trainable_parameters
from .models.layers import freeze_batch_norm
from .run_folder import Position, RunFolder, Saved, changed_keys
from .step import StepOptions, TrainStep

log = logging.getLogger("ghostnet")


def train(config: Config) -> None:
    """Train as `config` says. Files appear in `ckpt_save_dir` (see `run_folder.RunFolder`).

    Raises:
        UserError: a key, file or image that has to be changed; nothing was written unless training had begun.
        RunError: a loss or gradient that is not finite, or a file that cannot be written.
        Stopped: SIGTERM or Ctrl-C came; the run's state is saved.
    """
    run_log = runtime.RunLog()
    try:
        with _worker_errors(), RunFolder(config) as folder:
            _train(runtime.init(config), folder, run_log)
    except (UserError, RunError, Stopped) as error:
        run_log.end(str(error))
        raise
    finally:
        run_log.close()


@contextmanager
def _worker_errors() -> Iterator[None]:
    """Turn a RuntimeError of MindSpore's pipeline back into the UserError that a worker raised."""
    try:
        yield
    except RuntimeError as error:
        user_error = loader.user_error_from(error)
        if user_error is None:
            raise
        raise user_error from error


def _train(run: runtime.Runtime, folder: RunFolder, run_log: runtime.RunLog) -> None:
    for line in [*run.notes, *run.config.warnings()]:
        log.info(line)
    saved = folder.read_state(run.config.resume) if run.config.resume else None
    if saved is None:
        folder.check(run.config.overwrite, run.config.ckpt_path)
        if run.config.ckpt_path:
            weights_file.check_exists(run.config.ckpt_path)
    # Images, and with them the number of classes.
    samples = dataset.open_split(run.config, "train")
    config = build.with_classes(run.config, samples.classes)
    val_samples = dataset.open_split(config, "val", samples.classes) if config.val_while_train else None
    data = samples.digest()
    if saved:
        _check_unchanged(saved, config, data, ranks=1)
        steps = loader.EpochOrder(config, len(samples), rank=0, ranks=1).steps
        saved = _fitted(saved, steps, config.gradient_accumulation_steps)
    position = saved.position if saved else Position()
    batches = loader.train_batches(
        config, samples, config.num_classes, start_epoch=position.epoch, start_step=position.step
    )

    # Network: from scratch, from weights, or (below, with all else) from a saved state.
    network = build.network(config)
    if saved is None:
        loaded = build.load_weights(network, config, fine_tune=True)
        log.info(f"{config.model}: {loaded or 'starts from fresh weights'}")
    if config.freeze_backbone:
        _freeze_backbone(network, card(config.model).classifier)
    amp.apply(network, config.amp_level, config.amp_cast_list)

    # The step, and the network that its weights are evaluated in.
    rates = schedule.learning_rates(config, batches.get_dataset_size() // config.gradient_accumulation_steps)
    optimizer = optim.optimizer(config, network, rates, run.device)
    if config.resume_opt and saved is None:
        log.info(f"loaded {checkpoint.load_optimizer(optimizer, config.ckpt_path)} entries of optimizer state")
    step = TrainStep(network, loss.training_loss(config), optimizer, StepOptions.from_config(config))
    evaluator = Evaluator(config, val_samples) if val_samples else None
    if saved:
        _load_state(step, saved)

    # From here on files are written.
    if saved:
        folder.go_on(saved)
    else:
        folder.start(config.overwrite)
    run_log.to_file(folder.log)
    weights_file.write_atomically(folder.config, config.to_yaml().encode())
    weights_file.write_atomically(folder.classes, json.dumps(list(samples.classes), indent=1).encode())
    _log_run(config, run.device, network, len(samples), val_samples, batches.get_dataset_size())

    steps = batches.get_dataset_size()
    images = min(steps * config.batch_size, len(samples), config.num_samples or len(samples))
    epochs = Epochs(config, step, rates, evaluator, folder, steps, images, data, position)
    if position.epoch < config.epoch_size:
        ms.Model(step).train(
            config.epoch_size,
            batches,
            callbacks=[epochs],
            dataset_sink_mode=config.dataset_sink_mode,
            initial_epoch=position.epoch,
        )
    if epochs.best_top_1 is not None:
        log.info(f"best top-1 {epochs.best_top_1:.2f} %: {folder.best}")
    log.info(f"last weights: {folder.last}")


def _check_unchanged(saved: Saved, config: Config, data: str, ranks: int) -> None:
    """Raise UserError where a resumed run would not end as the saved one, unless `resume_force` is set."""
    changes = changed_keys(saved.config, config)
    if saved.ranks != ranks:
        changes.append(f"ranks: {saved.ranks} -> {ranks}")
    if saved.data != data:
        changes.append("the training images")
    if not changes:
        return
    if not config.resume_force:
        raise UserError(
            f"resume: changed since {saved.file} was saved: {'; '.join(changes)}; "
            "change it back, or give --resume_force True"
        )
    log.info(f"resuming although changed: {'; '.join(changes)}")


def _fitted(saved: Saved, steps: int, accumulation: int) -> Saved:
    """A saved state for epochs of `steps` steps, `accumulation` of them an update.

    Where the saved run's were others, a step's number has no meaning any more: the run goes on at the beginning of the
    epoch that it stood in, without gradients of a partial update, and the schedule stands where that epoch begins.
    """
    if (steps, accumulation) == (saved.steps, saved.config.gradient_accumulation_steps):
        return saved
    epoch = saved.position.epoch
    arrays = dict(saved.arrays)
    for name, array in saved.arrays.items():
        if name == "global_step":
            arrays[name] = np.full_like(array, epoch * (steps // accumulation))
        elif name == "micro_step" or name.startswith("accumulated."):
            arrays[name] = np.zeros_like(array)
    log.info(f"epochs are {steps // accumulation} updates of {accumulation} steps now: epoch {epoch + 1} starts afresh")
    return replace(saved, arrays=arrays, position=Position(epoch=epoch, best_top_1=saved.position.best_top_1))


def _load_state(step: TrainStep, saved: Saved) -> None:
    """Take up a saved state, and say where it stands."""
    try:
        step.load_state(saved.arrays)
    except (KeyError, ValueError) as error:
        raise UserError(f"resume: {saved.file} is the state of another network or optimizer ({error})") from error
    position = saved.position
    log.info(f"resuming from {saved.file}: {position.epoch} epochs and {position.step} steps are done")


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
