"""A file that people ship, in its runtime, opened as `mindghost predict` opens it.

Importing `mindghost` changes nothing for these runtimes: OpenVINO alone heeds a variable of ours, and is kept from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mindghost.inference import formats
from mindghost.inference.batches import in_batches

from .job import Job, answer, time_steps
from .recipe import FILES, REASONS, images_of


def measure(job: Job) -> dict[str, Any]:
    """Inference by the file of the job's variant; there is no other task."""
    path = Path(job.folder, FILES[job.variant])
    if not path.exists():
        reasons = json.loads(Path(job.folder, REASONS).read_text(encoding="utf-8"))
        return {"missing": reasons[job.variant]}
    form = formats.of(path)
    network = form.network(path, job.threads)
    shape = form.read(path).inputs[0].shape
    if shape and shape[0] is not None:
        network = in_batches(network, shape[0])
    images = images_of(job)
    return time_steps(job, lambda: network(images))


if __name__ == "__main__":
    answer(measure)
