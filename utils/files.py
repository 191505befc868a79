"""Files that are either whole or absent."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` only once it is complete and on the disk.

    It is written as a hidden neighbour and renamed at the end, so a reader sees the old file or the new one, whatever
    happens in between. One writer at a time per path.

    Raises:
        InputError: when the disk is full or not writable; nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise InputError(
                path,
                f"no room left while writing ({error.strerror})",
                "a disk with room for the whole file",
                "Free some space or write elsewhere; nothing half-written was left behind.",
            ) from error
        if isinstance(error, PermissionError):
            raise InputError(
                path, "a folder without write permission", "a writable folder", "Choose another folder."
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder, which is made if it is not there; the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_claimed: dict[Path, BinaryIO] = {}  # folders of this process, until it ends


def claim(folder: Path, way_out: str) -> None:
    """Keep a folder to this process until it ends.

    Raises:
        InputError: when another process has claimed it.
    """
    if folder.resolve() in _claimed:
        return
    file = open(folder / ".claimed", "wb")  # noqa: SIM115 (held until the process ends)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise InputError(folder, "another process at work", "a folder that nothing else writes", way_out) from None
    _claimed[folder.resolve()] = file
