"""What the annotation readers share: class names, and files of text and tables whose errors name the line."""

import csv
import io
import logging
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from utils.errors import InputError

CLASSES_FILE = Path(__file__).resolve().parent.parent / "data" / "classes.yaml"
YOUTUBE_ID = "[A-Za-z0-9_-]{11}"  # file names are made of ids, so nothing else may stand in one
ID_FORMAT = "11 letters, digits, - or _"
GET_FILES = "data/README.md says where to get the annotation files."


def class_names(dataset: str) -> tuple[str, ...]:
    """Return a data set's classes in the order of their indices, (C,)."""
    return tuple(yaml.safe_load(CLASSES_FILE.read_text(encoding="utf-8"))[dataset])


def read_text(path: Path) -> str:
    """Read a whole annotation file. Raises InputError if it is absent, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = "no file" if isinstance(error, FileNotFoundError) else f"an unreadable file ({error})"
        raise InputError(path, found, "an annotation file in UTF-8", GET_FILES) from error


def read_table(path: Path, columns: tuple[str, ...], separator: str = "\t", header: bool = True) -> pd.DataFrame:
    """Read a table as text, indexed by line number (the first line is 1), without its blank lines.

    Args:
        header: whether the first line names the columns, in any order and among others; else they are as given.

    Raises:
        InputError: if the file is absent, cannot be parsed, lacks a value, or has no rows.
    """
    text = read_text(path)
    names = {} if header else {"header": None, "names": columns}
    expected = f"columns {', '.join(columns)}, separated by {separator!r}"
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            index_col=False,
            skip_blank_lines=False,
            **names,
        )
    except ValueError as error:  # pandas' parser errors are such
        raise InputError(path, f"a malformed table ({error})", expected, GET_FILES) from error
    table.index += 2 if header else 1
    table = table.reindex(columns=columns, fill_value="").fillna("")
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(path, "no rows", expected, GET_FILES)
    for name, values in table.items():
        check_rows(values != "", path, name, values, f"a value in every column: {expected}")
    return table


def whole_seconds(times: pd.Series, path: Path, duration: int) -> pd.Series:
    """Return a column of times as integers. Raises InputError for what is none, or lies outside the video."""
    seconds = pd.to_numeric(times, errors="coerce")
    expected = f"a whole number of seconds from 0 to {duration}"
    check_rows(seconds.isin(range(duration + 1)), path, times.name, times, expected)
    return seconds.astype("int64")


def check_rows(right: pd.Series, path: Path, what: str, values: pd.Series, expected: str) -> None:
    """Raise InputError for the first row that is not right.

    Args:
        right: whether each row is, indexed by line number.
        what: what the values are, for the message.
    """
    if not right.all():
        place = int((~right).to_numpy().argmax())
        where, found = f"{path}, line {right.index[place]}", f"{what} {values.iloc[place]!r}"
        raise InputError(where, found, expected, "Correct the line.")


@cache
def warn_once(message: str) -> None:
    """Log a warning, at most once per process: a file's peculiarity is news only the first time it is read."""
    logging.getLogger(__name__).warning(message)
