"""What the annotation loaders share: reading text and tables with errors that name the file and the line."""

import csv
import logging
import re
from functools import cache
from pathlib import Path

import pandas as pd

from utils.errors import InputError

YOUTUBE_ID = "[A-Za-z0-9_-]{11}"  # file names are made of ids, so nothing else may stand in one
_GET_FILES = "data/README.md says where to get the annotation files."


def split_file(annotations_dir: Path, files: dict[str, str], split: str) -> Path:
    """The file of a split. Raises InputError for a split that the data set lacks."""
    if split not in files:
        raise InputError(annotations_dir, f"no split {split!r}", f"one of {', '.join(files)}", "Choose one of these.")
    return Path(annotations_dir) / files[split]


def read_text(path: Path) -> str:
    """A whole annotation file. Raises InputError if it is absent, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, "no file", "an annotation file", _GET_FILES) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"an unreadable file ({error})", "UTF-8 text", _GET_FILES) from error


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A tab-separated table as text, indexed by line number (the header is line 1), without its blank lines.

    Raises InputError if the file is absent, cannot be parsed, lacks a column or a value, or has no rows.
    """
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            index_col=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        )
    except FileNotFoundError:
        raise InputError(path, "no file", "an annotation file", _GET_FILES) from None
    except pd.errors.EmptyDataError:
        raise InputError(path, "an empty file", f"the columns {', '.join(columns)}", _GET_FILES) from None
    except (OSError, ValueError) as error:  # ValueError: also pandas' parser errors and bytes that are not UTF-8
        raise InputError(path, f"an unreadable file ({error})", "a tab-separated table", _GET_FILES) from error
    table.index += 2
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = f"no column {', '.join(missing)} among {', '.join(table.columns)}"
        raise InputError(f"{path}, line 1", found, f"the tab-separated columns {', '.join(columns)}", _GET_FILES)
    table = table[list(columns)].fillna("")
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(path, "no rows", "one row per sample or event", _GET_FILES)
    incomplete = (table == "").any(axis=1)
    if incomplete.any():
        line = incomplete.idxmax()
        column = (table.loc[line] == "").idxmax()
        raise InputError(f"{path}, line {line}", f"no value for {column}", "a value in every column", "Fill it in.")
    return table


def check_youtube_id(video_id: str, where: str) -> None:
    """Raise InputError for a video id that is not one of YouTube: it could lead a path out of its folder."""
    if not re.fullmatch(YOUTUBE_ID, video_id):
        raise InputError(where, f"video id {video_id!r}", "11 letters, digits, - or _", "Correct the id.")


@cache
def warn_once(message: str) -> None:
    """Log a warning, at most once per process: a file's peculiarity is news only the first time it is read."""
    logging.getLogger(__name__).warning(message)
