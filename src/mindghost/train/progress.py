"""What a run says of its steps and epochs."""

from __future__ import annotations

from typing import Any


def epoch_line(record: dict[str, Any], epochs: int, best: bool, skipped: int) -> str:
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
