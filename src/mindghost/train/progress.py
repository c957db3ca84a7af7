"""What a run says of its steps and epochs."""

from __future__ import annotations

from typing import Any

from ..tasks.task import Task


def epoch_line(task: Task, record: dict[str, Any], epochs: int, best: bool, skipped: int) -> str:
    """A record for people."""
    parts = [
        f"epoch {record['epoch']}/{epochs}",
        f"loss {record['train_loss']:.4f}",
        f"lr {record['lr']:.3g}",
    ]
    parts += task.line(record)
    parts += [f"{record['images_per_second']:.1f} images/s", f"{record['seconds']:.1f} s"]
    if skipped:
        parts.append(f"{skipped} updates skipped (overflow)")
    return "  ".join(parts) + ("  (best)" if best else "")
