"""Training: the run, from its configuration to its last epoch."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from .. import build, runtime
from ..checkpoint import weights as weights_file
from ..checkpoint.load import fill_optimizer
from ..config import Config
from ..data import dataset, loader
from ..errors import RunError, Stopped, UserError
from ..evaluate.evaluator import WeightsEvaluator
from ..files import intact, json_text
from ..graph_cache import GraphCache
from ..models import card
from ..models.complexity import trainable_parameters
from ..models.layers import freeze_batch_norm, reseed_dropout
from ..models.surgery import synchronise_batch_norm
from ..ops import allreduce, library, momentum
from ..parallel import replicas
from ..parallel.ranks import Ranks
from ..process import streams
from ..process.log import RunLog
from ..process.signals import StopSignals
from ..runs import provenance
from ..runs.folder import RunFolder
from ..runs.state import Position, Saved, changed_keys
from ..tasks.classification import names as class_names
from . import checks, distill, loss, optim, schedule
from .distill import TaughtStep
from .loop import Epochs
from .step import StepOptions, TrainStep

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
        with StopSignals() as signals, _worker_errors(signals), RunFolder(config) as folder:
            _train(runtime.init(config), folder, run_log, signals)
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


def _train(run: runtime.Runtime, folder: RunFolder, run_log: RunLog, signals: StopSignals) -> None:
    for line in [*run.notes, *run.config.warnings()]:
        log.info(line)
    ranks = run.ranks
    if run.config.sync_bn and ranks.size > 1 and run.device != "Ascend":
        raise UserError(
            f"sync_bn: MindSpore has no synchronised batch norm for {run.device}; leave it out (statistics are "
            "averaged over ranks for evaluation and weight files), or train on Ascend"
        )
    # Before the images are looked at, which takes its time.
    build.facts(run.config.model)
    saved = _saved_state(run.config, folder, ranks)
    # Images, and with them the number of classes: what this function reads from here on is settled.
    run, samples, val_samples = _open_images(run)
    config = checks.settled(run.config, samples, ranks.size)
    run = replace(run, config=config)
    data = _digest(config, samples)
    if saved:
        _check_unchanged(saved, config, data, ranks.size)
        steps = loader.EpochOrder(config, len(samples), ranks.rank, ranks.size).steps
        saved = _fitted(saved, steps, config.gradient_accumulation_steps)
    position = saved.position if saved else Position()

    # The step, and the network that its weights are evaluated in.
    operators = library.native_operators(config, run.device, run.threads)
    network = _network(run, operators, starts=saved is None)
    rank_sum = allreduce.rank_sum(network, operators, ranks)
    # After what takes shared memory, of which its workers get the rest.
    batches = loader.train_batches(
        config, samples, config.num_classes, ranks.rank, ranks.size, position.epoch, position.step
    )
    updates = batches.get_dataset_size() // config.gradient_accumulation_steps
    rates = schedule.learning_rates(config, updates, ranks.size)
    optimizer = optim.optimizer(config, network, rates, run.device)
    if config.resume_opt and saved is None:
        log.info(f"loaded {fill_optimizer(optimizer, config.ckpt_path)} entries of optimizer state")
    options = StepOptions.from_config(config)
    fused = momentum.fused_update(optimizer, operators)
    step = TrainStep(network, loss.training_loss(config), optimizer, options, ranks.size, rank_sum, fused)
    batch = min(config.batch_size, len(samples))
    taught = TaughtStep(step, distill.load(config.replace(batch_size=batch))) if config.teacher else step
    graphs = GraphCache(config, run.device, ranks)
    evaluator = WeightsEvaluator(config, val_samples, ranks, operators, graphs) if val_samples else None
    if saved:
        _load_state(step, saved, ranks)
    replicas.check_equal(ranks, {**step.shared_state(), "images": np.array(data)}, "before the first step")

    # From here on files are written.
    if ranks.main:
        images = {"train": len(samples), "val": len(val_samples) if val_samples else None}
        start = {"epoch": position.epoch, "step": position.step, "images": images}
        session = {**provenance.session(run.device), **start}
        _open_files(folder, saved, config, samples, session, run_log)
    steps = batches.get_dataset_size()
    _log_run(run, network, len(samples), val_samples, steps)
    images = min(steps * config.batch_size * ranks.size, len(samples), config.num_samples or len(samples))
    epochs = Epochs(config, step, rates, evaluator, graphs, folder, steps, images, data, position, ranks, signals)
    if position.epoch < config.epoch_size:
        signals.spare_this_thread()
        ms.Model(taught).train(
            config.epoch_size,
            batches,
            callbacks=[epochs],
            dataset_sink_mode=config.dataset_sink_mode,
            initial_epoch=position.epoch,
        )
    if epochs.best_top_1 is not None:
        log.info(f"best top-1 {epochs.best_top_1:.2f} %: {folder.best}")
    log.info(f"last weights: {folder.last}")


def _saved_state(config: Config, folder: RunFolder, ranks: Ranks) -> Saved | None:
    """The state to go on from, which rank 0 reads for all; None for a new run, whose folder is checked then."""
    saved = None
    if ranks.main:
        if config.resume:
            saved = folder.read_state(config.resume)
        else:
            folder.check(config.overwrite, config.ckpt_path)
    if not config.resume and config.ckpt_path:
        weights_file.check_exists(config.ckpt_path)
    content = ranks.from_main(saved.to_bytes() if saved and ranks.size > 1 else b"")
    return Saved.from_bytes(content) if content and not ranks.main else saved


def _open_images(run: runtime.Runtime) -> tuple[runtime.Runtime, dataset.Samples, dataset.Samples | None]:
    """The run with its number of classes, and the splits; ranks on one machine share the work of checking them."""
    ranks = run.ranks
    here = ranks.neighbours
    part, parts = here.index(ranks.rank), len(here)

    def share(bad: dict[int, str]) -> dict[int, str]:
        found = [json.loads(content) for content in ranks.gather_bytes(json_text.dumps(bad).encode())]
        return {int(index): why for problems in found for index, why in problems.items()}

    samples = dataset.open_split(run.config, "train", None, part, parts, share)
    if class_names.in_other_order(samples.classes):
        class_names.say_order(samples.classes, "the class folders are numbers")
    run = run.with_classes(samples.classes)
    val_samples = None
    if run.config.val_while_train:
        val_samples = dataset.open_split(run.config, "val", samples.classes, part, parts, share)
    return run, samples, val_samples


def _digest(config: Config, samples: dataset.Samples) -> str:
    """Digest of what the network learns from: the training images, and the teacher's weights where there is one."""
    if not config.teacher:
        return samples.digest()
    return hashlib.sha256(f"{samples.digest()} {distill.digest(config)}".encode()).hexdigest()


def _network(run: runtime.Runtime, operators: Path | None, starts: bool) -> nn.Cell:
    """The network as it is trained; where it `starts`, from scratch or weights. A saved state fills it later."""
    config, ranks = run.config, run.ranks
    network = build.network(config)
    reseed_dropout(network, ranks.rank)
    if starts:
        loaded = build.load_weights(network, config, fine_tune=True)
        log.info(f"{config.model}: {loaded or 'starts from fresh weights'}")
    if config.freeze_backbone:
        _freeze_backbone(network, card(config.model).classifier)
    if config.sync_bn and ranks.size > 1:
        synchronise_batch_norm(network)
    return build.training_precision(network, config, operators)


def _open_files(
    folder: RunFolder,
    saved: Saved | None,
    config: Config,
    samples: dataset.Samples,
    session: Mapping[str, object],
    run_log: RunLog,
) -> None:
    """Make the folder, or take up the one that is there."""
    if saved:
        folder.go_on(saved)
    else:
        folder.start(config.overwrite)
    folder.add_session(session, saved.file.parent if saved else None)
    run_log.to_file(folder.log)
    # Who takes a run's configuration up again has not asked for anything to be deleted.
    intact.write_atomically(folder.config, config.replace(overwrite=False).to_yaml().encode())
    intact.write_atomically(folder.classes, json_text.dumps(list(samples.classes), indent=1).encode())


def _check_unchanged(saved: Saved, config: Config, data: str, ranks: int) -> None:
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
        elif name == "micro_step" or name.rpartition("/")[2].startswith("accumulated."):
            arrays[name] = np.zeros_like(array)
    log.info(f"epochs are {steps // accumulation} updates of {accumulation} steps now: epoch {epoch + 1} starts afresh")
    return replace(saved, arrays=arrays, position=Position(epoch=epoch, best_top_1=saved.position.best_top_1))


def _load_state(step: TrainStep, saved: Saved, ranks: Ranks) -> None:
    """Take up a saved state, and say where it stands."""
    try:
        step.load_state(replicas.own_state(ranks, saved.arrays))
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
    run: runtime.Runtime, network: nn.Cell, samples: int, val_samples: dataset.Samples | None, steps: int
) -> None:
    """Say what is about to happen, in a few lines."""
    config, ranks = run.config, run.ranks
    batch = config.batch_size * config.gradient_accumulation_steps * ranks.size
    log.info(
        f"{config.model} on {run.device}: {trainable_parameters(network):,} trainable parameters, "
        f"{config.num_classes} classes, {config.amp_level}"
    )
    if ranks.size > 1:
        cores = f", {ranks.cores} core(s) each" if ranks.cores else ""
        log.info(f"{ranks}; one {run.device} device each{cores}; global batch {batch}")
    validation = f"{len(val_samples):,} for validation" if val_samples else "no validation"
    log.info(
        f"{samples:,} training images, {validation}; {config.epoch_size} epochs of {steps} steps of {config.batch_size}"
    )
    rate = schedule.base_rate(config, ranks.size)
    scaled = ""
    if config.lr_reference_batch is not None:
        scaled = f" ({config.lr:g} x global batch {batch} / reference batch {config.lr_reference_batch:g})"
    log.info(f"learning rate {rate:g}{scaled}, {config.scheduler}, {config.opt}, weight decay {config.weight_decay:g}")
