"""Fetch annotations, published features and weights listed in data/downloads.yaml.

    python -m video.extraction.download --list
    python -m video.extraction.download LLP clip
    python -m video.extraction.download --missing LLP --videos_dir data/LLP/raw_videos > missing.txt

Interrupted downloads resume; existing files are skipped. docs/extraction.md describes how to fetch missing videos with
yt-dlp and cut clips from them.
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
TRY_AGAIN = (429, 500, 502, 503, 504)  # status codes of a busy server
FIELDS = {"files", "by_hand", "address", "size", "licence", "for", "sha256", "unpack"}  # of a group or its files


@dataclass(frozen=True)
class Download:
    """One file of the table."""

    path: Path
    address: str
    sha256: str = ""  # or its beginning; empty: unknown
    unpack: Path | None = None  # folder of the archive's content
    group: str = ""
    size: str = "unknown"  # free text, as are the next two
    licence: str = "unknown"
    needed_for: str = "unknown"

    @property
    def mark(self) -> Path:
        """Return the path of the marker of an archive that was unpacked."""
        return self.path.with_name(f".{self.path.name}.done")

    def is_there(self) -> bool:
        """Return whether the file exists or, for an archive, has been unpacked."""
        return self.mark.exists() if self.unpack else self.path.exists()


def read_table(path: Path, groups: list[str], root: Path) -> tuple[list[Download], list[str]]:
    """Return the files of groups (none: all) and the pages to fetch by hand. Raises InputError for an invalid table."""
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
                texts = (str(about.get(field, "unknown")) for field in ("size", "licence", "for"))
                files.append(Download(root / name, about["address"], sha256, unpack, group, *texts))
            by_hand += table[group].get("by_hand", [])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        expected = "groups with `files` (path: {address, size, licence, for, sha256, unpack}) and `by_hand`"
        raise InputError(path, f"no table of addresses ({error})", expected, "Correct the file.") from error
    return files, by_hand


def fetch(download: Download, waits: tuple[int | None, ...] = WAITS) -> bool:
    """Fetch one file unless it exists, and return whether it was fetched.

    Raises InputError for no response, another hash, an invalid archive, and a folder of features extracted here.
    """
    path, unpack = download.path, download.unpack
    if download.is_there():
        return False
    if unpack is not None:
        refuse_own_features(unpack)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, tag_file = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.tag")
    if part.is_symlink():  # not ours, and perhaps malicious
        part.unlink()
    by_hand = path.exists()  # an archive
    archive = path if by_hand else part
    for seconds in () if by_hand else waits:
        try:
            _fetch_rest(download, part, tag_file)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise write_error(part, error, "Free some space, and run this again.") from error
            refused = isinstance(error, urllib.error.HTTPError) and error.code not in TRY_AGAIN
            if refused or seconds is None:
                way_out = f"Run this again to resume the download, or save the file as {path}"
                way_out += f"{' and run this again to unpack it' if unpack else ''}."
                raise InputError(download.address, f"an error ({error})", f"the file {path.name}", way_out) from error
            print(f"{path.name}: {error}; trying again in {seconds} s", file=sys.stderr)
            time.sleep(seconds)
    try:
        check_sha256(archive, download.sha256, download.address)
        if unpack is not None:
            _unpack(archive, unpack, path.stem)
    except InputError as error:
        if not isinstance(error.__cause__, OSError):
            part.unlink(missing_ok=True)
            tag_file.unlink(missing_ok=True)
        raise
    if unpack is None:
        os.replace(part, path)
    else:
        part.unlink(missing_ok=True)
        download.mark.touch()
    tag_file.unlink(missing_ok=True)
    return True


def _fetch_rest(download: Download, part: Path, tag_file: Path) -> None:
    """Complete a partial download, or fetch the whole file if it may have changed in the meantime.

    `tag_file` holds the server's version of the file. Raises InputError if the response cannot be the file.
    """
    tag = tag_file.read_text() if tag_file.exists() else ""
    have = part.stat().st_size if (tag or download.sha256) and part.exists() else 0
    headers = {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {}) if have else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(download.address, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the partial download is complete
            return
        raise
    with response:
        answer, way_out = response.headers, "Correct data/downloads.yaml, or fetch the file by hand."
        if response.status == 206 and not answer.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise http.client.HTTPException(f"not the requested range: {answer.get('Content-Range')}")
        if answer.get_content_type() == "text/html":
            raise InputError(download.address, "a web page", f"the file {download.path.name}", way_out)
        length, in_chunks = answer.get("Content-Length"), "chunked" in answer.get("Transfer-Encoding", "")
        if not (length or in_chunks or download.sha256):
            found = "a response of undeclared length"
            raise InputError(download.address, found, "one with a length, or a sha256 in the table", way_out)
        start = have if response.status == 206 else 0  # servers without range requests send the whole file
        whole, version = start + int(length or 0), answer.get("ETag", "")
        is_strong = version and not version.startswith("W/")
        tag_file.write_text(version if is_strong else answer.get("Last-Modified", ""))
        shown = tqdm.wrapattr(response, "read", total=whole or None, initial=start, desc=part.stem)
        with shown as stream, open(part, "ab" if start else "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    if part.stat().st_size < whole:
        raise http.client.IncompleteRead(b"", whole - part.stat().st_size)
    if not part.stat().st_size:
        raise InputError(download.address, "an empty response", f"the file {download.path.name}", way_out)


def check_sha256(path: Path, beginning: str, source: str) -> None:
    """Raise InputError if a file's hash does not start with the published `beginning`, which is empty if unknown."""
    if beginning and not (digest := hash_of_file(path)).startswith(beginning):
        found, expected = f"SHA-256 {digest[:16]}...", f"one that starts with {beginning}"
        raise InputError(path, found, expected, f"Download it again from {source}.")


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack a zip file, without a top folder named `folder` or `name`. Raises InputError if it is invalid."""
    try:
        with zipfile.ZipFile(archive) as content:
            forks = "__MACOSX/"  # resource forks
            entries = [x for x in content.infolist() if not (x.is_dir() or x.filename.startswith(forks))]
            top = os.path.commonpath([entry.filename for entry in entries]).split("/")[0]
            for entry in entries:
                if top in (folder.name, name):
                    entry.filename = entry.filename.removeprefix(f"{top}/")
                if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{entry.filename} would lie outside of {folder}")
            content.extractall(folder, entries)
    except OSError as error:
        raise write_error(folder, error, "Run this again; the archive is kept.") from error
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(
            archive, f"no readable archive ({error})", "a zip file", "Delete it if it exists, and run this again."
        ) from error


def main(argv: list[str] | None = None) -> int:
    """Fetch the groups on the command line, and return the exit status: 1 if a file could not be fetched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help="groups of files, as printed by --list")
    parser.add_argument("--list", action="store_true", help="print the files (of these groups) without fetching any")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder to which the table's paths are relative")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--missing", choices=tuple(DATASETS), help="print the addresses of missing videos")
    parser.add_argument("--videos_dir", type=Path, help="(default: data/<dataset>/raw_videos)")
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
        raise InputError("groups", "none", "groups that --list prints", "Name the groups to fetch.")
    files, by_hand = read_table(args.table, args.groups, args.root)
    by_hand = [f"by hand  {page}" for page in by_hand]
    if args.list:
        rows = [("group", "file", "size", "licence", "needed for", "SHA-256", "exists")]
        for file in files:
            texts = (file.group, str(file.path), file.size, file.licence, file.needed_for)
            rows.append((*texts, file.sha256[:8] or "unknown", "yes" if file.is_there() else "no"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print(*("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), *by_hand, sep="\n")
        return 0
    failed, waits = 0, WAITS
    for download in files:
        try:
            print(f"{'fetched' if fetch(download, waits) else 'exists'}  {download.unpack or download.path}")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            if type(error.__cause__) is urllib.error.URLError:  # no connection: do not wait for the remaining files
                waits = WAITS[-1:]
    for line in by_hand:
        print(line)
    if failed:
        print(f"{failed} of {len(files)} files could not be fetched", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    run_entry_point(main)
