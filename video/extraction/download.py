"""Fetches annotations, published features and weights by the table data/downloads.yaml.

    python -m video.extraction.download --list
    python -m video.extraction.download LLP weights
    python -m video.extraction.download --missing LLP --videos_dir data/LLP/raw_videos > missing.txt

A download that was interrupted goes on where it was; a whole file is not fetched again. docs/extraction.md says how
yt-dlp fetches what is missing, and cuts clips out of it.
"""

from utils.entry_point import run_entry_point

import argparse
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from dataloaders.datasets import DATASETS
from dataloaders.feature_origin import refuse_own_features
from utils.errors import InputError
from utils.files import NO_ROOM, hash_of_file, write_error

TABLE = Path(__file__).resolve().parents[2] / "data" / "downloads.yaml"
WAITS = (0, 2, 4, 8, None)  # seconds after each attempt
TRY_AGAIN = (429, 500, 502, 503, 504)  # answers of a server that has too much to do
FIELDS = {"files", "by_hand", "address", "size", "licence", "for", "sha256", "unpack"}  # of a group or of its files


@dataclass(frozen=True)
class Download:
    """One file of the table."""

    path: Path
    address: str
    sha256: str = ""  # or the beginning of it; empty: not known
    unpack: Path | None = None  # the folder that the archive goes into
    group: str = ""
    size: str = "unknown"  # in words, as the licence and what needs the file
    licence: str = "unknown"
    needed_for: str = "unknown"

    @property
    def mark(self) -> Path:
        """Return the path of the file that stands for an archive which was unpacked and removed."""
        return self.path.with_name(f".{self.path.name}.done")

    def is_there(self) -> bool:
        """Return whether the file is there, or has been unpacked."""
        return self.path.exists() or self.mark.exists()


def read_table(path: Path, groups: list[str], root: Path) -> tuple[list[Download], list[str]]:
    """Return the files of some groups (none: of all), and what has to be fetched by hand.

    Raises:
        InputError: when the table is absent, no YAML of that form, or lacks a group.
    """
    files, by_hand = [], []
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in groups or table:
            if group not in table:
                raise InputError(path, f"no group {group!r}", f"one of {', '.join(table)}", "Choose one of these.")
            for name, entry in table[group]["files"].items():
                about = table[group] | entry
                if unknown := about.keys() - FIELDS:
                    raise KeyError(f"{name}: no field {', '.join(sorted(unknown))}")
                unpack, sha256 = root / about["unpack"] if "unpack" in about else None, str(about.get("sha256", ""))
                said = (str(about.get(field, "unknown")) for field in ("size", "licence", "for"))
                files.append(Download(root / name, about["address"], sha256, unpack, group, *said))
            by_hand += table[group].get("by_hand", [])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        expected = "groups with `files` (path: {address, size, licence, for, sha256, unpack}) and `by_hand`"
        raise InputError(path, f"no table of addresses ({error})", expected, "Correct the file.") from error
    return files, by_hand


def format_list(files: list[Download], by_hand: list[str]) -> str:
    """Format what the table says of files, and whether each is there already, as aligned lines."""
    rows = [("group", "file", "size", "licence", "needed for", "SHA-256", "there")]
    for file in files:
        there, known = "yes" if file.is_there() else "no", file.sha256[:8] or "unknown"
        rows.append((file.group, str(file.path), file.size, file.licence, file.needed_for, known, there))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"by hand  {line}" for line in by_hand)])


def fetch(download: Download) -> bool:
    """Fetch one file, unless it is there. Returns whether anything was fetched.

    Raises:
        InputError: when the address does not answer, the file's hash is another, it cannot be unpacked, or own features
            lie where it goes.
    """
    path, unpack = download.path, download.unpack
    if download.is_there():
        return False
    if unpack is not None:
        refuse_own_features(unpack)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if part.is_symlink():  # planted: nothing of ours
        part.unlink()
    for seconds in WAITS:
        try:
            _fetch_rest(download, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise write_error(part, error, "Free some space, and run this again.") from error
            refused = isinstance(error, urllib.error.HTTPError) and error.code not in TRY_AGAIN
            if refused or seconds is None:
                way_out = "Run this again: it goes on where it was. Or correct data/downloads.yaml."
                raise InputError(download.address, f"no answer ({error})", f"the file {path.name}", way_out) from error
            time.sleep(seconds)
    try:
        check_sha256(part, download.sha256, download.address)
        if unpack is not None:
            _unpack(part, unpack, path.stem)
    except InputError as error:
        if not isinstance(error.__cause__, OSError):
            part.unlink()
            _tag_of(part).unlink(missing_ok=True)
        raise
    if unpack is None:
        os.replace(part, path)
    else:
        part.unlink()
        download.mark.touch()
    _tag_of(part).unlink(missing_ok=True)
    return True


def _tag_of(part: Path) -> Path:
    """Return the file that says which version of a file its first part is of, as the server names it."""
    return part.with_name(f"{part.name}.tag")


def _fetch_rest(download: Download, part: Path) -> None:
    """Append what is missing to a file that an earlier call may have begun; all of it where it may have changed since.

    Raises:
        InputError: when what comes cannot be the file.
    """
    tag = _tag_of(part).read_text() if _tag_of(part).exists() else ""
    known = bool(tag or download.sha256)
    have = part.stat().st_size if known and part.exists() else 0
    headers = {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {}) if have else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(download.address, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # there is nothing after what we have
            return
        raise
    with response:
        answer, way_out = response.headers, "Correct data/downloads.yaml, or fetch it by hand."
        if response.status == 206 and not answer.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise http.client.HTTPException(f"another range than asked for: {answer.get('Content-Range')}")
        if answer.get_content_type() == "text/html":
            raise InputError(download.address, "a page", f"the file {download.path.name}", way_out)
        length, in_chunks = answer.get("Content-Length"), "chunked" in answer.get("Transfer-Encoding", "")
        if not (length or in_chunks or download.sha256):
            found = "an answer that does not say how long it is"
            raise InputError(download.address, found, "one with a length, or a sha256 in the table", way_out)
        start = have if response.status == 206 else 0  # a server without ranges sends all of it again
        whole, version = start + int(length or 0), answer.get("ETag", "")
        _tag_of(part).write_text(
            answer.get("Last-Modified", "") if version.startswith("W/") or not version else version
        )
        shown = tqdm.wrapattr(response, "read", total=whole or None, initial=start, desc=part.stem)
        with shown as stream, open(part, "ab" if start else "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    if part.stat().st_size < whole:
        raise http.client.IncompleteRead(b"", whole - part.stat().st_size)
    if not part.stat().st_size:
        raise InputError(download.address, "nothing", f"the file {download.path.name}", way_out)


def check_sha256(path: Path, beginning: str, source: str) -> None:
    """Raise InputError when a file's hash does not begin as its publisher says; they name none for some files."""
    if beginning and not (digest := hash_of_file(path)).startswith(beginning):
        found, expected = f"a file with SHA-256 {digest[:16]}...", f"one that begins with {beginning}"
        raise InputError(path, found, expected, f"Download it again from {source}.")


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack a zip file. A single folder at its top called as `folder` or `name` is left out.

    Raises:
        InputError: when it is no zip file, or would write outside of the folder.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            entries = [entry for entry in entries if not entry.filename.startswith("__MACOSX/")]  # resource forks
            top = os.path.commonpath([entry.filename for entry in entries]).split("/")[0]
            for entry in entries:
                if top in (folder.name, name):
                    entry.filename = entry.filename.removeprefix(f"{top}/")
                if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{entry.filename} would lie outside of {folder}")
            content.extractall(folder, entries)
    except OSError as error:
        raise write_error(folder, error, "Run this again: the archive is kept.") from error
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(archive, f"no archive to unpack ({error})", "a zip file", "Run this again.") from error


def main(argv: list[str] | None = None) -> int:
    """Fetch what the command line names. Returns the exit status: 1 when something could not be fetched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help="groups of the table, which --list prints")
    parser.add_argument("--list", action="store_true", help="print what there is (of these groups), and fetch nothing")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder that the table's paths are below")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--missing", choices=tuple(DATASETS), help="print the addresses of videos that have no file")
    parser.add_argument("--videos_dir", type=Path, help="default: data/<dataset>/raw_videos")
    args = parser.parse_args(argv)
    if args.missing:
        from video.extraction.video_lists import videos_of_dataset

        data_dir = args.root / "data" / args.missing
        videos_dir = args.videos_dir or data_dir / "raw_videos"
        videos_dir.mkdir(parents=True, exist_ok=True)
        for video in videos_of_dataset(args.missing, data_dir, videos_dir):
            if video.path is None:
                print(f"https://www.youtube.com/watch?v={video.feature_id}")
        return 0
    if not (args.groups or args.list):
        raise InputError("groups", "none", "some of those that --list prints", "Name what to fetch.")
    files, by_hand = read_table(args.table, args.groups, args.root)
    if args.list:
        print(format_list(files, by_hand))
        return 0
    failed = 0
    for download in files:
        try:
            print(f"{'fetched' if fetch(download) else 'there'}  {download.unpack or download.path}")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    for line in by_hand:
        print(f"by hand  {line}")
    if failed:
        print(f"{failed} of {len(files)} files could not be fetched", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    run_entry_point(main)
