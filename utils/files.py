"""Files and folders: atomic writing, hashes, and locks between processes."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError

NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
ELSEWHERE = "Free some space, get permission to write there, or write elsewhere."


def write_error(path: Path, error: OSError, way_out: str = ELSEWHERE) -> InputError:
    """Return the InputError for a file or folder that the system could not create or write."""
    if error.errno in NO_ROOM:
        found, expected = f"no room left while writing ({error.strerror})", "a disk with room for the whole file"
        return InputError(path, found, expected, f"{way_out} No incomplete file was left behind.")
    return InputError(error.filename or path, f"{error.strerror}", "a writable place", way_out)


@contextmanager
def atomic_write(path: Path, way_out: str = ELSEWHERE) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` only once it is complete and on the disk.

    It is written beside `path` under a hidden name and renamed at the end, so that readers see either the old or the
    new file. One writer at a time per path. If writing fails, nothing is left behind, and InputError is raised.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # left by a killed process
        file = open(temporary, "xb")  # noqa: SIM115 (closed below); "x" never follows a link
    except OSError as error:
        raise write_error(path, error, way_out) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        of_system = error  # PyTorch's writer raises another error while it handles that of a full disk
        while of_system is not None and not isinstance(of_system, OSError):
            of_system = of_system.__cause__ or of_system.__context__
        if of_system is not None and (of_system.errno in NO_ROOM or of_system is error):
            raise write_error(path, of_system, way_out) from error
        raise


def require_file(path: Path) -> None:
    """Raise OSError unless `path` is a regular file; opening a named pipe would wait for a writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "a folder, a named pipe or a device", str(path))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically as UTF-8; file names in it that are not UTF-8 keep their bytes."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts in order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@contextmanager
def exclusive(folder: Path, way_out: str = ELSEWHERE) -> Iterator[None]:
    """Let one process at a time work in a folder, created if absent; others wait. Raises InputError if not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "ab")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise write_error(folder, error, way_out) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_claimed: dict[Path, BinaryIO] = {}  # by folder, the open file that reserves it


def claim(folder: Path, way_out: str) -> None:
    """Reserve a folder until this process ends. Raises InputError if another has it, or if it is not writable."""
    if folder.resolve() in _claimed:
        return
    try:
        file = open(folder / ".claimed", "ab")  # noqa: SIM115 (held until the process ends)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise InputError(folder, "another process using it", "no other process in this folder", way_out) from None
    _claimed[folder.resolve()] = file
