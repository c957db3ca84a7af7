"""What a run has written of its epochs."""

import json
from pathlib import Path


def records(folder: Path) -> list[dict]:
    """The records of a run's epochs, in their order."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
