"""What happens around the training steps: checks, progress, evaluation, records, files, signals."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from .. import tasks
from ..config import Config
from ..errors import RunError, Stopped
from ..evaluate.evaluator import WeightsEvaluator, draws
from ..graph_cache import GraphCache
from ..models.layers import is_statistic
from ..parallel import replicas
from ..process.log import TO_FILE, TO_SCREEN
from ..process.signals import StopSignals, stop_reason
from ..runs.folder import RunFolder
from ..runs.state import Position, RunState
from ..runtime import Runtime
from ..tasks.task import Metrics
from . import schedule
from .progress import epoch_line
from .step import TrainStep
from .training_data import TrainingData

log = logging.getLogger("mindghost")


def compile_step(step: TrainStep, batch: tuple[Tensor, ...], config: Config, graphs: GraphCache) -> None:
    """Have a step compiled, if it is not, for batches like this one, with a word about it in the log."""
    if config.teacher:
        assert config.num_classes is not None  # the data has settled it
        batch = (*batch, Tensor(np.zeros((len(batch[0]), config.num_classes)), ms.float32))
    graphs.compile(step, *batch, what="the training step, which takes some tens of seconds")


def _where(epoch: int, step: int) -> str:
    """Where a run stands whose state is saved, and what to do."""
    return f"after epoch {epoch}, step {step}; go on with --resume"


class Epochs(ms.Callback):
    """Checks and progress after each step; evaluation, record and files after each epoch.

    Args:
        runtime: the run's settings, ranks and compiler. Rank 0 writes the files and draws.
        step: whose weights are evaluated and saved.
        data: what the step learns from.
        rates: learning rate of each update.
        evaluator: None where the run is not validated.
        folder: takes the files.
        position: where the run stands when this process takes it up.
        signals: one that any rank got stops them all.

    Attributes:
        best_score: highest score of an evaluation so far; None before the first one.
    """

    def __init__(
        self,
        runtime: Runtime,
        step: TrainStep,
        data: TrainingData,
        rates: list[float],
        evaluator: WeightsEvaluator | None,
        folder: RunFolder,
        position: Position,
        signals: StopSignals,
    ) -> None:
        super().__init__()
        # Settings.
        self.config, self.ranks, self.graphs = runtime.config, runtime.ranks, runtime.graphs
        self.task = tasks.of(self.config)
        # Parts.
        self.step, self.data, self.rates = step, data, rates
        self.evaluator, self.folder, self.signals = evaluator, folder, signals
        # State.
        self.best_score, self.waited = position.best_score, position.waited
        self.losses, self.skipped = list(position.losses), position.skipped
        # Images of all ranks in a step.
        self.batch = self.config.batch_size * self.ranks.size
        # Steps that the run had done before this process, of which some in the epoch it starts in.
        self.steps_before = position.epoch * data.steps + position.step
        self.resumed_at = position.step
        # Held while a step is computed. In between, the state may be saved by another thread.
        self.computing = threading.Lock()
        # Its epoch, and its number in it; None where the next state to be saved is that of an epoch's end.
        self.last_step: tuple[int, int] | None = None
        signals.save = self._save_without_data

    @property
    def stopped_early(self) -> bool:
        """Whether there were `patience` evaluations without a better score."""
        return self.config.patience is not None and self.waited >= self.config.patience

    def on_train_epoch_begin(self, run_context: ms.RunContext) -> None:
        """Start the clock and the progress bar of an epoch."""
        epoch = run_context.original_args().cur_epoch_num
        self.started = self.timed_from = time.perf_counter()
        self.untimed_steps = self.resumed_at
        self.bar = tqdm(
            total=self.data.images,
            initial=self.resumed_at * self.batch,
            desc=f"epoch {epoch}/{self.config.epoch_size}",
            unit="image",
            leave=False,
            disable=not draws(self.ranks),
        )
        self.signals.waits_since = time.monotonic()

    def on_train_step_begin(self, run_context: ms.RunContext) -> None:
        """Have the step compiled for the batch that comes, if it is not, with a word about it in the log."""
        self.computing.acquire()
        # A sunk epoch takes its data while it computes.
        self.signals.waits_since = time.monotonic() if self.config.dataset_sink_mode else None
        if not self.config.dataset_sink_mode:
            compile_step(self.step, run_context.original_args().train_dataset_element, self.config, self.graphs)

    def on_train_step_end(self, run_context: ms.RunContext) -> None:
        """Look at the loss, and save, log or stop where that is due."""
        self._after_step(run_context.original_args())
        self.signals.waits_since = time.monotonic()
        self.computing.release()

    def _after_step(self, position: Any) -> None:
        # Training has begun, and there is something to save.
        self.signals.defer()
        loss, finite, scale = (float(output.asnumpy()) for output in position.net_outputs)
        loss, stop = self._over_ranks(loss)
        step = (self.steps_before + position.cur_step_num - 1) % self.data.steps + 1
        self._check_finite(loss, bool(finite), scale, position.cur_epoch_num, step)
        self.losses.append(loss)
        self.last_step = position.cur_epoch_num, step
        if position.cur_step_num == 1 and step < self.data.steps:
            # The first step compiles the graph; throughput is that of the steps that follow.
            self.untimed_steps += 1
            self.timed_from = time.perf_counter()
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(self.batch)
        if not sys.stderr.isatty() and step % self.config.log_interval == 0 and step < self.data.steps:
            self._log_step(position.cur_epoch_num, step)
        interval = self.config.ckpt_save_interval_steps
        if interval is not None and step % interval == 0 and step < self.data.steps:
            self._save_state(position.cur_epoch_num - 1, step)
        if stop and step < self.data.steps:
            self._save_state(position.cur_epoch_num - 1, step)
            self._stop(stop, position.cur_epoch_num, step)

    def on_train_epoch_end(self, run_context: ms.RunContext) -> None:
        """Evaluate, write the epoch's record, save weights and state."""
        self.signals.waits_since = self.last_step = None
        position = run_context.original_args()
        epoch, done = position.cur_epoch_num, self.steps_before + position.cur_step_num
        self.bar.close()
        images_per_second = self._rate(self.data.images)
        replicas.check_equal(self.ranks, self.step.shared_state(), f"epoch {epoch}")
        weights = self.step.evaluation_weights()
        weights = replicas.averaged(self.ranks, weights, [name for name in weights if is_statistic(name)])
        last = epoch == self.config.epoch_size
        metrics = None
        if self.evaluator and (epoch % self.config.val_interval == 0 or last):
            metrics = self.evaluator(weights)
            if not math.isfinite(metrics.loss):
                raise RunError(f"epoch {epoch}: the validation loss is {metrics.loss}; {self._kept(epoch)}")
        record = self._record(epoch, done, metrics, images_per_second)
        best = metrics is not None and (self.best_score is None or metrics.score > self.best_score)
        if metrics is not None:
            self._note(metrics.score, best, epoch)
        ends = last or self.stopped_early
        if self.ranks.main:
            keep = epoch % self.config.ckpt_save_interval == 0 or ends
            thresholds = None if metrics is None else self.task.thresholds(metrics)
            self.folder.save_weights(weights, epoch, self.data.steps, best, keep, thresholds)
            self.folder.add_record(record)
        line = epoch_line(self.task, record, self.config.epoch_size, best, self.skipped)
        self.losses, self.skipped, self.resumed_at = [], 0, 0
        # The state knows how long the log was: what it does not know of, a resumed run cuts off.
        log.info(line, extra=TO_FILE)
        self._save_state(epoch, 0)
        self.last_step = epoch, self.data.steps
        log.info(line, extra=TO_SCREEN)
        _, stop = self._over_ranks(0.0)
        if stop and not ends:
            self._stop(stop, epoch, self.data.steps)
        if self.stopped_early and not last:
            log.info(self.why_early(epoch))
            run_context.request_stop()

    def _note(self, score: float, best: bool, epoch: int) -> None:
        """Keep the best score, and count the evaluations since then: of epochs that train all that is to be trained."""
        if best:
            self.best_score, self.waited = score, 0
        elif self.config.unfreeze_epoch is None or epoch >= self.config.unfreeze_epoch:
            self.waited += 1

    def why_early(self, epoch: int) -> str:
        """Why the run ends after this epoch, in a line."""
        title, unit = self.task.score_title, self.task.score_unit
        evaluations = f"{self.waited} evaluation{'s' if self.waited > 1 else ''}"
        return (
            f"early stopping after epoch {epoch}: no better {title} than {self.best_score:.2f}{unit} in {evaluations}"
        )

    def _over_ranks(self, loss: float) -> tuple[float, int]:
        """The loss of the global batch, from those of the ranks, and the signal that one of them got; 0 for none."""
        losses, signals = zip(*self.ranks.gather(np.array([loss, self.signals.received or 0], np.float64)), strict=True)
        total = math.fsum(losses) if all(map(math.isfinite, losses)) else float(sum(losses))
        return total if self.config.reduction == "sum" else total / self.ranks.size, int(max(signals))

    def _stop(self, number: int, epoch: int, step: int) -> None:
        """End the run, now that its state is saved."""
        self.bar.close()
        # No rank leaves before rank 0 has written: the launcher ends all when one has left.
        self.ranks.barrier()
        message = f"{stop_reason(number)} {_where(epoch, step)}"
        raise RunError(message) if number == signal.SIGCHLD else Stopped(number, message)

    def _save_without_data(self) -> str | None:
        """Save the state, and say where the run stands, if it waits for its next step's data; see `StopSignals.save`.

        Ranks can only save together: where there are several, what they saved last is what is kept.
        """
        if self.last_step is None or self.ranks.size > 1 or not self.computing.acquire(blocking=False):
            return None
        epoch, step = self.last_step
        # The end of an epoch has saved its own.
        if step < self.data.steps:
            self._save_state(epoch - 1, step)
        return _where(epoch, step)

    def state(self, epoch: int, step: int) -> RunState:
        """What the next step depends on: `epoch` epochs and `step` steps are done. Every rank has to ask for it."""
        position = Position(epoch, step, tuple(self.losses), self.skipped, self.best_score, self.waited)
        arrays = replicas.gathered_state(self.ranks, self.step.state(), self.step.own_entries())
        data, file = self.data, self.folder.state
        return RunState(file, arrays, position, self.config, data.digest, self.ranks.size, data.steps)

    def _save_state(self, epoch: int, step: int) -> None:
        state = self.state(epoch, step)
        if self.ranks.main:
            self.folder.save_state(state)

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

    def _rate(self, images: int) -> float:
        """Images a second of training, when `images` of the epoch are done."""
        seconds = time.perf_counter() - self.timed_from
        return (images - self.untimed_steps * self.batch) / seconds

    def _kept(self, epoch: int) -> str:
        """What a run that stops in this epoch leaves."""
        return f"{self.folder.last} is kept" if epoch > 1 else "no epoch was finished, so there is no weight file"

    def _log_step(self, epoch: int, step: int) -> None:
        steps = self.data.steps
        parts = [f"epoch {epoch}/{self.config.epoch_size}", f"step {step}/{steps}", f"loss {self.losses[-1]:.4f}"]
        if step > self.untimed_steps:
            rate = self._rate(step * self.batch)
            left = (steps - step) * self.batch / rate
            parts += [f"{rate:.1f} images/s", f"{left:.0f} s left in the epoch"]
        log.info("  ".join(parts))

    def _record(self, epoch: int, done: int, metrics: Metrics | None, images_per_second: float) -> dict[str, Any]:
        """The epoch's line of `metrics.jsonl`."""
        updates = int(self.step.optimizer.global_step.asnumpy().item())
        return {
            "epoch": epoch,
            "step": done,
            "lr": self.rates[max(updates - 1, 0)],
            "base_lr": schedule.base_rate(self.config, self.ranks.size),
            "train_loss": sum(self.losses) / len(self.losses),
            **self.task.record(metrics),
            "images_per_second": round(images_per_second, 2),
            "seconds": round(time.perf_counter() - self.started, 3),
        }
