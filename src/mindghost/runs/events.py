"""TensorBoard's view of a run: one event file with the numbers of `metrics.jsonl`, and nothing else.

Written through tensorboardX's synchronous writer: its `SummaryWriter` hands events to a thread, so that `flush` may
return before they are in the file, and a full disk goes unnoticed.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import paths
from ..files.intact import not_written
from .record import score_keys

# Key of a record -> TensorBoard's tag.
TAGS = {
    "train_loss": "train/loss",
    "lr": "train/lr",
    "images_per_second": "train/images_per_second",
    "val_loss": "val/loss",
}


_LARGEST = 1 << 30  # bytes of an event file
_NAME = re.compile(r"events\.out\.tfevents\.\d+\..+")


def check_installed() -> None:
    """Raise UserError where tensorboardX, which writes the files, is missing."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"tensorboard: True needs tensorboardX ({error}); pip install tensorboardX, or leave the key out"
        ) from error


def files(folder: Path) -> list[Path]:
    """The event files in a folder, the oldest first, whoever made them; none where there is no folder."""
    return sorted(folder.glob("events.out.tfevents.*"))


def is_given(name: str) -> bool:
    """Whether an event file of a run may have this name."""
    return _NAME.fullmatch(name) is not None


def coming_names() -> list[str]:
    """What a file that is made in the next seconds is called: its name has the second that it was made in."""
    now = int(time.time())
    return [f"events.out.tfevents.{second}.{socket.gethostname()}" for second in range(now, now + 3)]


def is_ours(file: Path) -> bool:
    """Whether an event file begins as those that are written here, and no others, do."""
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        content = paths.read(file, "", _LARGEST)
        (size,) = struct.unpack("<Q", content[:8])
        content = content[16 + size :]
        (size,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + size])
    except Exception:  # not an event file, or no end to what may be wrong with one
        return False
    return event.step == 0 and event.session_log.status == SessionLog.START


def clear(files: Iterable[Path]) -> None:
    """Take all events out of event files: they are emptied, and deleted the next time.

    A TensorBoard that is running without its data server (there is none for aarch64) sticks to a file that vanishes,
    but goes on from an empty one to a newer one.
    """
    for file in files:
        if file.is_symlink() or not file.stat().st_size:
            file.unlink()
        else:
            os.truncate(file, 0)


class EventFile:
    """A new event file: first a run's earlier records, then each that is added. On disk when a call returns.

    The global step is the record's `step`. Records hold durations, no dates: an event's time is the end of its epoch in
    a training without pauses.

    Attributes:
        name: of the file.

    Args:
        folder: takes the file; made if it is missing.
        records: lines of `metrics.jsonl`, the oldest first.

    Raises UserError where the file cannot be made, RunError where it cannot be written to.
    """

    def __init__(self, folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        # Absolute, because the library takes a name that starts with "s3:" or "gs:" for another machine's.
        self.folder = folder.resolve()
        try:
            self.folder.mkdir(exist_ok=True)
            self.writer = EventsWriter(str(self.folder / "events"))
        except OSError as error:
            raise UserError(
                f"tensorboard: {folder} takes no files ({error.strerror}); give another ckpt_save_dir"
            ) from error
        self.name = Path(self.writer._file_name).name
        self.time = time.time() - sum(record["seconds"] for record in records)
        # Makes a TensorBoard that is running forget what it read from the file that this one replaces.
        self._write(step=0, session_log=SessionLog(status=SessionLog.START))
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record's numbers; those that are None are left out. Raises RunError where it cannot be written."""
        from tensorboardX.proto.summary_pb2 import Summary

        tags = {**TAGS, **{key: f"val/{key}" for key in score_keys(record)}}
        values = [
            Summary.Value(tag=tag, simple_value=record[key]) for key, tag in tags.items() if record[key] is not None
        ]
        self.time += record["seconds"]
        self._write(step=record["step"], summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        try:
            self.writer.write_event(Event(wall_time=self.time, **content))
            self.writer.flush()
        except OSError as error:
            raise not_written(self.folder, error) from error
