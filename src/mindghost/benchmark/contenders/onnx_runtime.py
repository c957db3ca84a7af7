"""Our exported file in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from .job import Job, answer, time_steps
from .recipe import ONNX, images_of


def measure(job: Job) -> dict[str, Any]:
    """Inference; there is no other task."""
    path = Path(job.folder, ONNX)
    if not path.exists():
        return {"missing": "not installed: onnx, which our file is exported with"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images = {session.get_inputs()[0].name: images_of(job)}
    return time_steps(job, lambda: session.run(None, images))


if __name__ == "__main__":
    answer(measure)
