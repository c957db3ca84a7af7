"""Training: the run, from its configuration to its last epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from mindspore import nn

from .. import build, tasks
from ..checkpoint import weights as weights_file
from ..config import Config
from ..data import loader
from ..data.order import EpochOrder
from ..errors import RunError, Stopped, UserError
from ..evaluate.evaluator import WeightsEvaluator
from ..files import intact, json_text
from ..models.complexity import trainable_parameters
from ..process import display, streams
from ..process.log import RunLog
from ..process.signals import StopSignals
from ..runs import provenance
from ..runs.folder import RunFolder
from ..runs.state import Position, RunState, changed_keys, taken_up
from ..runtime import Runtime
from . import schedule
from .parts import Training
from .training_data import TrainingData, digest, open_images

log = logging.getLogger("mindghost")


def train(config: Config) -> None:
    """Train as `config` says. Files appear in `ckpt_save_dir` (see `runs.folder.RunFolder`); rank 0 alone writes them.

    Raises:
        UserError: a key, file or image that has to be changed; nothing was written unless training had begun.
        RunError: a loss or gradient that is not finite, ranks that drift apart, or a file that cannot be written.
        Stopped: a signal came; the run's state is saved.
    """
    if not config.resume:
        config.check_new_run()
    streams.survive()
    run_log = RunLog()
    try:
        with StopSignals() as signals, _worker_errors(signals), RunFolder(config, tasks.of(config).score) as folder:
            _train(Runtime.start(config), folder, run_log, signals)
    except (UserError, RunError, Stopped) as error:
        run_log.end(str(error))
        raise
    finally:
        run_log.close()


@contextmanager
def _worker_errors(signals: StopSignals) -> Iterator[None]:
    """Turn a RuntimeError of MindSpore's pipeline back into a worker's own error, or end for a worker that died."""
    try:
        yield
    except RuntimeError as error:
        own = loader.error_from(error)
        if own is None:
            signals.end_without_worker()
            raise
        raise own from error


def _train(runtime: Runtime, folder: RunFolder, run_log: RunLog, signals: StopSignals) -> None:
    saved = _saved_state(runtime, folder)
    if saved:
        runtime = runtime.with_config(taken_up(saved.config, runtime.config))
    news = [] if saved else runtime.config.notes
    # Of what is not settled yet, there is nothing to say.
    doubts = [] if runtime.config.open else runtime.config.warnings()
    for line in [*runtime.notes, *news, *doubts]:
        log.info(line)
    _check_batch_norm(runtime)
    # Before the images are looked at, which takes its time.
    build.check(runtime.config)
    # Images, and with them the number of outputs: what this function reads from here on is settled.
    runtime, samples, val_samples = open_images(runtime)
    config, ranks = runtime.config, runtime.ranks
    learnt_from = digest(config, samples)
    steps = EpochOrder(config, len(samples), ranks.rank, ranks.size).steps
    if saved:
        _check_unchanged(saved, config, learnt_from, ranks.size)
        saved = _fitted(saved, steps, config.gradient_accumulation_steps)

    images = min(steps * config.batch_size * ranks.size, len(samples), config.num_samples or len(samples))
    data = TrainingData(samples, val_samples, learnt_from, steps, images)
    evaluator = WeightsEvaluator(runtime, val_samples) if val_samples else None

    training = Training(runtime, data, evaluator, folder, signals, saved)
    if saved:
        log.info(f"resuming from {saved.file}: {saved.position.epoch} epochs and {saved.position.step} steps are done")
    # From here on files are written.
    if ranks.main:
        _open_files(folder, saved, runtime, data, run_log)
    _log_run(runtime, training.part.step.network, data)
    signals.spare_this_thread()
    del saved
    training.run()
    _log_end(config, folder, training.part.epochs.best_score)


def _log_end(config: Config, folder: RunFolder, best_score: float | None) -> None:
    """Say what there is now, and what to type next."""
    weights = folder.last
    if best_score is not None:
        task = tasks.of(config)
        weights = folder.best
        log.info(f"best {task.score_title} {best_score:.2f}{task.score_unit}: {weights}")
    log.info(f"last weights: {folder.last}")
    option = f"--ckpt_path {display.shell(str(weights))}"
    log.info(f"next: mindghost validate {option}, or mindghost predict IMAGE {option}")


def _check_batch_norm(runtime: Runtime) -> None:
    """Raise UserError where batch norms are to be synchronised on a device that cannot."""
    if runtime.config.sync_bn and runtime.ranks.size > 1 and runtime.device != "Ascend":
        raise UserError(
            f"sync_bn: MindSpore has no synchronised batch norm for {runtime.device}; leave it out (statistics are "
            "averaged over ranks for evaluation and weight files), or train on Ascend"
        )


def _saved_state(runtime: Runtime, folder: RunFolder) -> RunState | None:
    """The state to go on from, which rank 0 reads for all; None for a new run, whose folder is checked then."""
    config, ranks = runtime.config, runtime.ranks
    saved = None
    if ranks.main:
        if config.resume:
            saved = folder.read_state(config.resume)
        else:
            folder.check(config.overwrite, config.ckpt_path)
    if not config.resume and config.ckpt_path:
        weights_file.check_exists(config.ckpt_path)
    content = ranks.from_main(saved.to_bytes() if saved and ranks.size > 1 else b"")
    return RunState.from_bytes(content) if content and not ranks.main else saved


def _open_files(
    folder: RunFolder, saved: RunState | None, runtime: Runtime, data: TrainingData, run_log: RunLog
) -> None:
    """Make the folder, or take up the one that is there."""
    config, position = runtime.config, saved.position if saved else Position()
    if saved:
        folder.go_on(saved)
    else:
        folder.start(config.overwrite)
    start = {"epoch": position.epoch, "step": position.step, "images": data.counts}
    folder.add_session({**provenance.session(runtime.device), **start}, saved.file.parent if saved else None)
    run_log.to_file(folder.log)
    # Who takes a run's configuration up again has not asked for anything to be deleted.
    intact.write_atomically(folder.config, config.replace(overwrite=False).to_yaml().encode())
    intact.write_atomically(folder.classes, json_text.dumps(list(data.classes), indent=1).encode())
    if colors := tasks.of(config).colors(data.samples):
        folder.keep_colors(colors)


def _check_unchanged(saved: RunState, config: Config, data: str, ranks: int) -> None:
    """Raise UserError where a resumed run would not end as the saved one, unless `resume_force` is set."""
    changes = changed_keys(saved.config, config)
    if saved.ranks != ranks:
        changes.append(f"ranks: {saved.ranks} -> {ranks}")
    if saved.data != data:
        changes.append("the training images" + (" or the teacher's weights" if config.teacher else ""))
    if not changes:
        return
    if not config.resume_force:
        raise UserError(
            f"resume: changed since {saved.file} was saved: {'; '.join(changes)}; "
            "change it back, or give --resume_force True"
        )
    log.info(f"resuming although changed: {'; '.join(changes)}")


def _fitted(saved: RunState, steps: int, accumulation: int) -> RunState:
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
        elif name == "micro_step" or name.rpartition("/")[2].startswith("accumulated."):
            arrays[name] = np.zeros_like(array)
    log.info(f"epochs are {steps // accumulation} updates of {accumulation} steps now: epoch {epoch + 1} starts afresh")
    before = saved.position
    position = Position(epoch=epoch, best_score=before.best_score, waited=before.waited)
    return replace(saved, arrays=arrays, position=position)


def _log_run(runtime: Runtime, network: nn.Cell, data: TrainingData) -> None:
    """Say what is about to happen, in a few lines."""
    config, ranks, device = runtime.config, runtime.ranks, runtime.device
    batch = config.batch_size * config.gradient_accumulation_steps * ranks.size
    log.info(
        f"{config.model} on {device}: {trainable_parameters(network):,} trainable parameters, "
        f"{config.num_classes} classes, {config.amp_level}{' in bfloat16' if config.amp_type == 'bfloat16' else ''}"
    )
    if ranks.size > 1:
        cores = f", {ranks.cores} core(s) each" if ranks.cores else ""
        log.info(f"{ranks}; one {device} device each{cores}; global batch {batch}")
    validation = f"{len(data.val_samples):,} for validation" if data.val_samples else "no validation"
    log.info(
        f"{len(data.samples):,} training images, {validation}; "
        f"{config.epoch_size} epochs of {data.steps} steps of {config.batch_size}"
    )
    rate = schedule.base_rate(config, ranks.size)
    scaled = ""
    if config.lr_reference_batch is not None:
        scaled = f" ({config.lr:g} x global batch {batch} / reference batch {config.lr_reference_batch:g})"
    log.info(f"learning rate {rate:g}{scaled}, {config.scheduler}, {config.opt}, weight decay {config.weight_decay:g}")
