"""TensorBoard events of a run."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.files import write_error

EVENTS_FILE = f"events.out.tfevents.{time.time_ns()}"  # of this process


def write_scalars(folder: Path, scalars: Mapping[str, float], step: int | None = None) -> None:
    """Write scalars for TensorBoard by name, synchronously, so that a full disk raises InputError here.

    In a resumed run, they replace the scalars of earlier processes from the same step on.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    _write(folder, [Summary(value=values)], step)


def write_hparams(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a run's settings for TensorBoard's HParams. Raises InputError if the disk is full or not writable."""
    from torch.utils.tensorboard.summary import hparams

    def shown(value: object) -> float | str:  # JSON has no infinity
        return value if isinstance(value, (int, float)) and math.isfinite(value) else str(value)

    # TensorBoard uses the first `Experiment` that it finds for all runs; without one, it reads every run.
    _, start, end = hparams({name: shown(value) for name, value in settings.items()}, {})
    _write(folder, [start, end])


def _write(folder: Path, summaries: Sequence[Any], step: int | None = None) -> None:
    """Append summaries to the events of this process."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / EVENTS_FILE
    events = [Event(wall_time=time.time(), step=step, summary=summary) for summary in summaries]
    if not path.exists():
        begin = Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
        events = [Event(wall_time=time.time(), file_version="brain.Event:2"), begin, *events]
    try:
        with open(path, "ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())
    except OSError as error:
        raise write_error(path, error) from error
