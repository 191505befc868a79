"""TensorBoard events of a run."""

import threading
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from utils.files import write_error


class EventLog:
    """Writes scalars for TensorBoard.

    Args:
        folder: takes the file of events.
        first_step: events of an earlier run from here on are no longer shown.

    Raises:
        InputError: by every method, when the disk is full or not writable.
    """

    def __init__(self, folder: Path, first_step: int | None = None):
        self._folder = folder
        threading.excepthook = _leave_to_the_main_thread
        try:
            self._writer = SummaryWriter(str(folder), purge_step=first_step)
        except OSError as error:
            raise write_error(folder, error) from error

    def write(self, scalars: Mapping[str, float], step: int | None = None) -> None:
        """Scalars by name, on the disk when this returns."""
        try:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
        except OSError as error:
            raise write_error(self._folder, error) from error

    def close(self) -> None:
        try:
            self._writer.close()
        except OSError as error:
            raise write_error(self._folder, error) from error


def _leave_to_the_main_thread(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands what the system says on to the next call, which reports it."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
