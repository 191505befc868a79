"""Reading `.npy` files from several threads at once."""

import threading
from pathlib import Path

import numpy as np

# numpy parses headers with `ast`, which in Python 3.11 and 3.12 fails at random (SystemError: AST constructor recursion
# depth mismatch) when two threads are in it.
_HEADER_LOCK = threading.Lock()


def read_npy(path: Path) -> np.ndarray:
    """The array in a `.npy` file; pickles are refused.

    Raises:
        OSError: when there is no such file, or it cannot be read.
        ValueError: when it is no whole `.npy` file of numbers.
    """
    with open(path, "rb") as file:
        with _HEADER_LOCK:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise ValueError(f"format version {version}")
            shape, fortran_order, dtype = read_header[version](file)
        if dtype.hasobject:
            raise ValueError("a pickle of Python objects")
        count = int(np.prod(shape, dtype=np.int64))
        values = np.fromfile(file, dtype, count)
    if values.size != count:
        raise ValueError(f"{values.size} of {count} values")
    return values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)
