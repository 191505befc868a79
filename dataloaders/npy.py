"""Reading `.npy` files from several threads at once."""

import io
import os
import stat
import threading
from pathlib import Path

import numpy as np

# numpy parses headers with `ast`, which in Python 3.11 and 3.12 fails at random (SystemError: AST constructor recursion
# depth mismatch) when two threads are in it. Files are read before, so that no thread waits for another one's disk.
_PARSER_LOCK = threading.Lock()


def read_npy(path: Path) -> np.ndarray:
    """Read the array in a `.npy` file; pickles are refused.

    Raises:
        OSError: when there is no such file, or it cannot be read.
        ValueError: when it is no whole `.npy` file of numbers.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for a writer
        raise ValueError("a folder, a named pipe or a device")
    content = io.BytesIO(path.read_bytes())
    try:
        with _PARSER_LOCK:
            values = np.load(content, allow_pickle=False)
    except Exception as error:  # numpy hands on whatever Python's tokeniser and parser raise for garbage
        raise ValueError(str(error)) from error
    if not isinstance(values, np.ndarray):
        raise ValueError("an archive of arrays")
    return values
