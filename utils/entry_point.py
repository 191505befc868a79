"""Run commands, which bad input, Ctrl-C and TERM end with one line each, even during imports.

Entry points import this module before anything else (enforced by pyproject.toml).
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

from utils.errors import InputError
from utils.files import NO_ROOM, write_error

WRONG_INPUT, INTERRUPTED, TERMINATED = 2, 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit statuses


def run_entry_point(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with the status that it returns, or that of the error or signal that ended it."""
    _handle(signal.default_int_handler, _end_in_order)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may not be valid text
    if (spec := _main.__spec__) is not None:  # a module: named in help and provenance as it was called
        sys.argv[0] = f"python -m {spec.name.removesuffix('.__main__')}"
    try:
        try:
            sys.exit(main())
        except SystemExit:
            sys.stdout.flush()  # here, where a closed pipe can be handled
            raise
    except InputError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except BrokenPipeError:  # such as `... --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"\nerror: {write_error(Path(error.filename or '.'), error)}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _end_in_order(number: int, frame: FrameType | None) -> None:
    """Exit by raising an exception, so that files are closed and the processes of several seeds are ended."""
    print("\nterminated", file=sys.stderr)
    sys.exit(TERMINATED)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Exit immediately: an exception during imports would print a traceback, and nothing has been written yet."""
    os.write(2, b"\ninterrupted\n" if number == signal.SIGINT else b"\nterminated\n")
    os._exit(128 + number)


def _missing_package(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Name the file of requirements where a package is not installed; print the traceback of any other exception."""
    if not isinstance(error, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, traceback)
    expected = "those of requirements.txt and, for video and LAVISH, requirements-video.txt"
    way_out = "Activate the environment (source .venv/bin/activate), or install that file with pip install -r."
    print(f"\nerror: {InputError(sys.executable, f'no package {error.name}', expected, way_out)}", file=sys.stderr)


def _handle(interrupt: object, terminate: object) -> None:
    """Set both handlers, except for signals that the caller ignores (nohup, background jobs)."""
    for number, handler in ((signal.SIGINT, interrupt), (signal.SIGTERM, terminate)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


_main = sys.modules["__main__"]
_file = Path(getattr(_main, "__file__", None) or "/").resolve()
if _main.__name__ == "__main__" and _file.is_relative_to(Path(__file__).resolve().parents[1]):  # a command of ours
    sys.excepthook = _missing_package
    _handle(_end_at_once, _end_at_once)
