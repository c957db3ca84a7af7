"""Which samples an epoch has, in which order: functions of seed and epoch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

if TYPE_CHECKING:
    from ..config import Config

# What a generator is for, as the first number of its seed after the run's: the streams never meet.
ORDER, SAMPLE, MIX, CLASS = range(4)


class EpochOrder:
    """Which samples one rank sees in each epoch: a function of seed and epoch only.

    Of the epoch's order, rank r takes positions r, r + ranks, ...: as many on every rank, so that all take equal steps;
    the fewer than `ranks` left over, other ones each epoch, count as remainder. `num_samples` takes that many over
    all ranks: other ones each epoch, or without shuffle the first. With repeated augmentation each sample stands
    `aug_repeats` times in a row before the ranks take turns, and each rank stops after ceil(samples / ranks), as in
    mindcv.

    With `sampler: balanced` the epoch's samples are a `BalancedDraw` of as many.

    Args:
        config: of the run.
        size: samples of the split.
        rank: the rank it is the order of.
        ranks: that share the samples.
        labels: of the samples, integers (size,), which a balanced draw needs; without them `epoch` raises ValueError.

    Attributes:
        rank: the rank it is the order of.
        steps: batches in an epoch.
    """

    def __init__(self, config: Config, size: int, rank: int, ranks: int, labels: NDArray[Any] | None = None) -> None:
        self.rank = rank
        self._size, self._ranks, self._repeats = size, ranks, max(1, config.aug_repeats)
        self._seed, self._shuffle, self._num_samples = config.seed, config.shuffle, config.num_samples
        chosen = min(size, config.num_samples or size)
        count = chosen // ranks if self._repeats == 1 else -(-size // ranks)
        self.steps = _steps(config, count, chosen, ranks)
        self._count = min(count, self.steps * config.batch_size)
        self._balanced = config.sampler == "balanced"
        self._labels = labels

    def __len__(self) -> int:
        """The number of samples of this rank in an epoch."""
        return self._count

    def epoch(self, epoch: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Indices of an epoch's samples on this rank, and which copy of it each one is: integers, (len(self),)."""
        positions = np.arange(self._count) * self._ranks + self.rank
        copies = positions % self._repeats
        if self._balanced:
            order, places = self._drawn(epoch), positions // self._repeats
            # A sample that is drawn again is augmented anew.
            return order[places], copies + self._repeats * _times_before(order)[places]
        order = self._shuffled(epoch)
        # Modulo: where there are more ranks than copies of all samples, the first ones come again.
        return order[positions // self._repeats % len(order)], copies

    def _shuffled(self, epoch: int) -> NDArray[Any]:
        """The samples that an epoch takes, each once."""
        order = np.arange(self._size)
        if self._shuffle:
            order = np.random.default_rng((self._seed, ORDER, epoch)).permutation(self._size)
        return order[: self._num_samples]

    def _drawn(self, epoch: int) -> NDArray[Any]:
        """The samples of an epoch of equally frequent classes: as many as the ranks take, so that none is left over."""
        if self._labels is None:
            raise ValueError("a balanced draw needs labels")
        taken = -(-self._count * self._ranks // self._repeats)
        return balanced_draw(self._labels, taken, self._seed, epoch)


def _steps(config: Config, count: int, chosen: int, ranks: int) -> int:
    """Batches in an epoch, whole updates only: of `count` samples on each rank."""
    held = f"{chosen} training samples" + (f" on {ranks} ranks" if ranks > 1 else "")
    accumulation = config.gradient_accumulation_steps
    # A short batch would weigh as much as a full one in the mean of an update.
    whole = config.drop_remainder or accumulation > 1
    batches = count // config.batch_size if whole else -(-count // config.batch_size)
    if batches == 0:
        raise UserError(f"batch_size: {config.batch_size}, but there are {held}: not one batch; lower batch_size")
    if batches < accumulation:
        raise UserError(
            f"gradient_accumulation_steps: {accumulation} batches of batch_size: {config.batch_size} make an "
            f"update, but there are {held}: {batches} batch(es); lower one of the two"
        )
    return batches - batches % accumulation


def balanced_draw(labels: NDArray[Any], count: int, seed: int, epoch: int) -> NDArray[Any]:
    """`count` indices of samples, in random order, each class equally often up to one: integers, (count,).

    Which classes have the one more goes round with the epochs. A class gives its samples in random order until all
    were taken, over epochs too, then all of them again in another order.

    Args:
        labels: of the samples, integers (n,); classes without samples have no part.
        count: how many to draw.
        seed: of the run.
        epoch: counted from 0.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    least, more = divmod(count, len(classes))
    drawn = []
    for place, (label, own) in enumerate(zip(classes.tolist(), members, strict=True)):
        # Of its endless row of samples, where those of this epoch begin and end. Turns for the one more go round the
        # classes, `more` of them an epoch.
        start, end = (
            turn * least + (turn * more + len(classes) - 1 - place) // len(classes) for turn in (epoch, epoch + 1)
        )
        rounds = range(start // len(own), -(-end // len(own)))
        row = [np.random.default_rng((seed, CLASS, label, number)).permutation(own) for number in rounds]
        skipped = start - rounds.start * len(own)
        drawn.append(np.concatenate([own[:0], *row])[skipped : skipped + end - start])
    return np.random.default_rng((seed, ORDER, epoch)).permutation(np.concatenate(drawn))


def _times_before(order: NDArray[Any]) -> NDArray[Any]:
    """How often each entry has stood further ahead: integers, (n,)."""
    by_value = np.argsort(order, kind="stable")
    _, starts, sizes = np.unique(order[by_value], return_index=True, return_counts=True)
    times = np.empty(len(order), np.int64)
    times[by_value] = np.arange(len(order)) - np.repeat(starts, sizes)
    return times
