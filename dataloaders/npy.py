"""Reading `.npy` files from several threads at once."""

import math
import os
import stat
import threading
from pathlib import Path

import numpy as np

# numpy parses headers with `ast`, which in Python 3.11 and 3.12 fails at random (SystemError: AST constructor recursion
# depth mismatch) when two threads are in it.
_HEADER_LOCK = threading.Lock()
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(path: Path) -> np.ndarray:
    """Read the array in a `.npy` file; pickles are refused.

    Raises:
        OSError: when there is no such file, or it cannot be read.
        ValueError: when it is no whole `.npy` file of numbers.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for a writer
        raise ValueError("a folder, a named pipe or a device")
    with open(path, "rb") as file:
        file.peek()  # reads the header into the buffer, so that no thread waits for another one's disk
        try:
            with _HEADER_LOCK:
                version = np.lib.format.read_magic(file)
                shape, fortran_order, dtype = _READ_HEADER[version](file)
        except Exception as error:  # numpy hands on whatever Python's tokeniser and parser raise for garbage
            raise ValueError(f"a broken header, or one of a later version ({error})") from error
        if dtype.hasobject:
            raise ValueError("a pickle of Python objects")
        count = math.prod(shape)  # in Python's integers, which do not overflow
        held = (status.st_size - file.tell()) // max(dtype.itemsize, 1)
        if min(shape, default=0) < 0 or count > held:
            raise ValueError(f"{held} of {count} values")
        values = np.fromfile(file, dtype, count)
    if values.size != count:
        raise ValueError(f"{values.size} of {count} values")
    return values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)
