"""Fetches annotations, published features and weights by the table data/downloads.yaml.

    python -m video.extraction.download LLP weights
    python -m video.extraction.download --missing LLP --videos_dir data/LLP/raw_videos > missing.txt

A download that was interrupted goes on where it was; a whole file is not fetched again. docs/extraction.md says how
yt-dlp fetches what is missing, and cuts clips out of it.
"""

from utils.entry_point import run_entry_point

import argparse
import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from dataloaders.datasets import DATASETS
from dataloaders.provenance import refuse_own_features
from utils.errors import InputError

TABLE = Path(__file__).resolve().parents[2] / "data" / "downloads.yaml"
WAITS = (0, 2, 4, 8, None)  # seconds after each attempt


@dataclass(frozen=True)
class Download:
    """One file of the table."""

    path: Path
    address: str
    sha256: str = ""  # or the beginning of it; empty: not known
    unpack: Path | None = None  # the folder that the archive goes into


def read_table(path: Path, groups: list[str], root: Path) -> tuple[list[Download], list[str]]:
    """Return the files of some groups, and what has to be fetched by hand.

    Raises:
        InputError: when the table is absent, no YAML of that form, or lacks a group.
    """
    files, by_hand = [], []
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in groups:
            if group not in table:
                raise InputError(path, f"no group {group!r}", f"one of {', '.join(table)}", "Choose one of these.")
            for name, entry in table[group]["files"].items():
                unpack = root / entry["unpack"] if "unpack" in entry else None
                files.append(Download(root / name, entry["address"], str(entry.get("sha256", "")), unpack))
            by_hand += table[group].get("by_hand", [])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        expected = "groups with `files` (path: {address, sha256, unpack}) and `by_hand`"
        raise InputError(path, f"no table of addresses ({error})", expected, "Correct the file.") from error
    return files, by_hand


def fetch(download: Download) -> bool:
    """Fetch one file, unless it is there. Returns whether anything was fetched.

    Raises:
        InputError: when the address does not answer, the file's hash is another, it cannot be unpacked, or own features
            lie where it goes.
    """
    path, unpack = download.path, download.unpack
    done = path.with_name(f".{path.name}.done")  # an archive that was unpacked and removed
    if path.exists() or done.exists():
        return False
    if unpack is not None:
        refuse_own_features(unpack)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for seconds in WAITS:
        try:
            _fetch_rest(download.address, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) or seconds is None:
                way_out = "Run this again: it goes on where it was. Or correct data/downloads.yaml."
                raise InputError(download.address, f"no answer ({error})", f"the file {path.name}", way_out) from error
            time.sleep(seconds)
    try:
        check_sha256(part, download.sha256, download.address)
        if unpack is not None:
            _unpack(part, unpack, path.stem)
    except InputError:
        part.unlink()
        raise
    if unpack is None:
        os.replace(part, path)
    else:
        part.unlink()
        done.touch()
    return True


def _fetch_rest(address: str, part: Path) -> None:
    """Append what is missing to a file that an earlier call may have begun."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # there is nothing after what we have
            return
        raise
    start = have if response.status == 206 else 0  # a server without ranges sends all of it again
    whole = start + int(response.headers.get("Content-Length", 0))
    shown = tqdm.wrapattr(response, "read", total=whole or None, initial=start, desc=part.stem)
    with response, shown as stream, open(part, "ab" if start else "wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    if part.stat().st_size < whole:
        raise http.client.IncompleteRead(b"", whole - part.stat().st_size)


def check_sha256(path: Path, beginning: str, source: str) -> None:
    """Raise InputError when a file's hash does not begin as its publisher says; they name none for some files."""
    if beginning and not (digest := sha256_of(path)).startswith(beginning):
        found, expected = f"a file with SHA-256 {digest[:16]}...", f"one that begins with {beginning}"
        raise InputError(path, found, expected, f"Download it again from {source}.")


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack a zip file. A single folder at its top called as `folder` or `name` is left out.

    Raises:
        InputError: when it is no zip file, or would write outside of the folder.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            top = os.path.commonpath([entry.filename for entry in entries]).split("/")[0]
            for entry in entries:
                if top in (folder.name, name):
                    entry.filename = entry.filename.removeprefix(f"{top}/")
                if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{entry.filename} would lie outside of {folder}")
            content.extractall(folder, entries)
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(archive, f"no archive to unpack ({error})", "a zip file", "Run this again.") from error


def main(argv: list[str] | None = None) -> int:
    """Fetch what the command line names. Returns the exit status: 1 when something could not be fetched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help="groups of the table: LLP, UnAV, AVE, weights, open_clip")
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
    if not args.groups:
        raise InputError("groups", "none", "some of LLP, UnAV, AVE, weights, open_clip", "Name what to fetch.")
    files, by_hand = read_table(args.table, args.groups, args.root)
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
