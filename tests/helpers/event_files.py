"""TensorBoard's event files, read back frame by frame."""

import struct
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event

from tests.helpers.run_records import records

TAGS = {
    "train/loss": "train_loss",
    "train/lr": "lr",
    "train/images_per_second": "images_per_second",
    "val/loss": "val_loss",
    "val/top_1": "top_1",
    "val/top_5": "top_5",
}


def events(folder: Path) -> list[Event]:
    """All events in a run's folder: TFRecord frames of length, its CRC, an event, its CRC."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        content = file.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def assert_equals_metrics(folder: Path) -> None:
    """Every number of every record is there once, at its step, as a float32, and nothing else is."""
    expected = {
        (tag, record["step"]): np.float32(record[key])
        for record in records(folder)
        for tag, key in TAGS.items()
        if record[key] is not None
    }
    found = [((value.tag, e.step), value.simple_value) for e in events(folder) for value in e.summary.value]
    assert dict(found) == expected
    assert len(found) == len(expected) > 0
