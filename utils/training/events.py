"""TensorBoard events of a run."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from utils.files import write_error


class EventLog:
    """Writes scalars for TensorBoard, at once and without a thread of its own, so that a full disk is noticed.

    Args:
        folder: takes the file of events.
        first_step: events of an earlier run from here on are no longer shown.

    Raises:
        InputError: by both methods, when the disk is full or not writable.
    """

    def __init__(self, folder: Path, first_step: int | None = None):
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._write(Event(file_version="brain.Event:2"))
        if first_step is not None:
            self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, scalars: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars by name; they are on the disk when this returns."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            with open(self._path, "ab") as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            raise write_error(self._path, error) from error
