"""Tables in annotation files, with errors that name the line."""

import logging
from functools import cache
from pathlib import Path

from utils.errors import InputError

YOUTUBE_ID = "[A-Za-z0-9_-]{11}"  # ids become file names, so no other character is allowed
ID_FORMAT = "11 letters, digits, - or _"
GET_FILES = "Fetch all files: run `bash scripts/download.sh` with the data set's name; data/README.md lists them."


def read_text(path: Path, way_out: str = GET_FILES) -> str:
    """Read a whole annotation file. Raises InputError if it is absent, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = "no file" if isinstance(error, FileNotFoundError) else f"an unreadable file ({error})"
        raise InputError(path, found, "an annotation file in UTF-8", way_out) from error


def read_table(
    path: Path, columns: tuple[str, ...], separator: str = "\t", header: bool = True
) -> dict[int, dict[str, str]]:
    """Read the rows of a table by line number (from 1), each as text values by column; blank lines are skipped.

    With `header`, the first line names the columns, in any order and possibly with others. Raises InputError for an
    absent file, one without rows, and a line with another number of values or an empty value.
    """
    lines = {n: line.split(separator) for n, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()}
    expected = f"a value in every column: {', '.join(columns)}, separated by {separator!r}"
    names = lines.pop(1, []) if header else columns
    if header and len(names) == 1 and set(columns) <= {name.strip('" ') for name in names[0].split(",")}:
        found, way_out = f"columns separated by commas: {names[0]!r:.200}", "Save the file with tabs, without quotes."
        raise InputError(path, found, f"columns separated by {separator!r}", way_out)
    if not lines or not set(columns) <= set(names) or len(set(names)) < len(names):
        raise InputError(path, f"columns {names!r:.200} and {len(lines)} rows", expected, GET_FILES)
    for line, values in lines.items():
        if len(values) != len(names) or "" in values:
            raise line_error(path, line, f"{len(values)} values {values!r:.200}", expected)
        if any(value.startswith('"') and value.endswith('"') for value in values):
            raise line_error(path, line, f"values in quotes {values!r:.200}", "values without quotes")
    return {line: dict(zip(names, values, strict=True)) for line, values in lines.items()}


def whole_seconds(row: dict[str, str], column: str, duration: int, path: Path, line: int) -> int:
    """Return a time of a row in seconds. Raises InputError unless it is a whole number within the video."""
    if row[column] not in map(str, range(duration + 1)):
        raise line_error(path, line, f"{column} {row[column]!r}", f"a whole number of seconds from 0 to {duration}")
    return int(row[column])


def line_error(path: Path, line: int, found: str, expected: str) -> InputError:
    """Return the InputError for a line of an annotation file."""
    return InputError(f"{path}, line {line}", found, expected, "Correct the line.")


@cache
def warn_once(message: str) -> None:
    """Log a warning at most once per process, since the same file may be read several times."""
    logging.getLogger(__name__).warning(message)
