"""What a network says of each sample, in a file: a row a sample, in their order, by the columns of the task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..data.samples import Samples
from ..errors import UserError
from ..files import outputs, paths, table_file
from ..files.outputs import Output
from ..files.table_file import Block
from ..parallel.ranks import ALONE, Ranks
from ..runs.files import RunFiles
from ..tasks.task import Task

_HEADING = "path"
# Rows that are made into text, or passed from rank to rank, at once.
_BLOCK = 10_000


class Predictions:
    """Collects the rows of the samples, batch by batch.

    For a million images and 1,000 classes they are 76 MB, and twice that while they are put in order.
    """

    def __init__(self, task: Task, samples: Samples, outputs: int) -> None:
        self._task, self._samples, self._outputs = task, samples, outputs
        self.columns = task.columns(samples.classes, outputs)
        self._dtype = table_file.dtype_of(self.columns)
        self._parts: list[NDArray[Any]] = []

    def add(self, outputs: NDArray[Any], labels: Any) -> None:
        """Keep the rows of one batch: outputs (N, num_classes, ...) float32, labels as the batches have them."""
        rows = np.empty(len(labels), self._dtype)
        values = self._task.values(outputs, labels, self._samples)
        for name in self._dtype.names or ():
            rows[name] = values[name]
        self._parts.append(rows)

    def gathered(self, order: NDArray[Any], ranks: Ranks = ALONE) -> NDArray[Any]:
        """The rows of all ranks, on rank 0, in the order of the samples; none elsewhere. Every rank has to call it.

        `order` has the indices of the samples of all ranks, rank after rank, as they came.
        """
        own = np.concatenate([np.empty(0, self._dtype), *self._parts])
        self._parts.clear()
        if ranks.size > 1:
            longest = max(int(count) for count in ranks.gather(np.array(len(own))))
            parts: list[list[NDArray[Any]]] = [[] for _ in range(ranks.size)]
            # In blocks: all ranks get what one gives, and only rank 0 has use for it.
            for start in range(0, longest, _BLOCK):
                for rank, content in enumerate(ranks.gather_bytes(own[start : start + _BLOCK].tobytes())):
                    if ranks.main:
                        parts[rank].append(np.frombuffer(content, self._dtype))
            own = np.concatenate([np.empty(0, self._dtype), *(block for part in parts for block in part)])
        if not ranks.main:
            return own[:0]
        rows = np.empty_like(own)
        rows[order] = own
        return rows

    def content(self, path: Path, rows: NDArray[Any]) -> Iterator[bytes]:
        """The file, piece by piece."""
        return table_file.encode(path, _HEADING, self.columns, self._blocks(rows))

    def _blocks(self, rows: NDArray[Any]) -> Iterator[Block]:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            yield [self._samples.name(index) for index in range(start, start + len(block))], block


def prepare(config: Config) -> Output:
    """The file of the key `predictions`. Raises UserError where it cannot be written, or may not be replaced."""
    path = Path(config.predictions)
    table_file.check_ending(path, "predictions")
    if paths.exists(path) and not config.overwrite:
        raise UserError(f"predictions: {path} exists; name another file, or give --overwrite True to replace it")
    read = [config.recipe, config.ckpt_path, config.train_list, config.val_list, config.class_names]
    if config.ckpt_path:
        beside = RunFiles.beside(Path(config.ckpt_path))
        read += map(str, (beside.config, beside.classes, beside.sessions, beside.metrics))
    output = Output(path, "predictions", outputs.nothing, True, outputs.identities(file for file in read if file))
    output.check()
    return output
