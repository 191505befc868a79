"""TensorBoard events of a run."""

import time
from collections.abc import Mapping
from pathlib import Path

from utils.files import write_error

EVENTS_FILE = f"events.out.tfevents.{time.time_ns()}"  # of this process


def write_scalars(folder: Path, scalars: Mapping[str, float], step: int | None = None) -> None:
    """Write scalars for TensorBoard, by name; they are on the disk when this returns.

    They are written without a thread, so that a full disk is noticed here. The first ones of a process replace those of
    earlier ones from their step on: a run that goes on is shown once.

    Raises:
        InputError: when the disk is full or not writable.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / EVENTS_FILE
    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    events = [Event(wall_time=time.time(), step=step, summary=Summary(value=values))]
    if not path.exists():
        begin = Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
        events = [Event(wall_time=time.time(), file_version="brain.Event:2"), begin, *events]
    try:
        with open(path, "ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())
    except OSError as error:
        raise write_error(path, error) from error
