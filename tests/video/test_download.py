"""Downloads from a server on this machine."""

import errno
import hashlib
import http.server
import io
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dataloaders.feature_origin import record_extraction
from tests.tiny_data import write_llp
from utils.errors import InputError
from video.extraction import download
from video.extraction.download import Download, fetch, main, read_table

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, with ranges; the first answers may break off in the middle."""

    breaks = 0
    requests: list = []  # noqa: RUF012 - shared by all requests on purpose
    with_ranges = True
    archive = b""
    content = CONTENT
    busy: list = []  # noqa: RUF012 - statuses of the next answers
    headers_of_answer: dict = {}  # noqa: RUF012 - instead of the usual ones; None leaves one out

    def do_GET(self):
        if self.path == "/absent":
            self.send_error(404)
            return
        if Handler.busy:
            self.send_error(Handler.busy.pop())
            return
        content, tag = self.archive if self.path == "/archive.zip" else Handler.content, None
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        asked = self.headers.get("Range") if Handler.with_ranges else None
        if self.headers.get("If-Range", tag) != tag:
            asked = None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        Handler.requests.append(start)
        self.send_response(206 if asked else 200)
        headers = {"Content-Length": len(content) - start, "Content-Type": "application/octet-stream", "ETag": tag}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for name, value in (headers | Handler.headers_of_answer).items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        end = len(content)
        if Handler.breaks > 0:
            Handler.breaks -= 1
            end = start + 100_000
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.breaks, Handler.requests, Handler.with_ranges = 0, [], True
    Handler.content, Handler.busy, Handler.headers_of_answer = CONTENT, [], {}
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=instance.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{instance.server_port}"
    instance.shutdown()
    thread.join()
    instance.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


def test_a_file_is_fetched_once(server: str, tmp_path: Path):
    wanted = Download(tmp_path / "folder" / "file.bin", f"{server}/file", hashlib.sha256(CONTENT).hexdigest())
    assert fetch(wanted)
    assert wanted.path.read_bytes() == CONTENT
    assert not fetch(wanted)
    assert Handler.requests == [0]


def test_a_connection_that_breaks_off_goes_on_where_it_was(server: str, tmp_path: Path):
    Handler.breaks = 2
    wanted = Download(tmp_path / "file.bin", f"{server}/file", hashlib.sha256(CONTENT).hexdigest()[:8])
    assert fetch(wanted)
    assert wanted.path.read_bytes() == CONTENT
    assert Handler.requests == [0, 100_000, 200_000]


def test_a_download_that_was_killed_goes_on_where_it_was(server: str, tmp_path: Path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:123_456])
    fetch(Download(tmp_path / "file.bin", f"{server}/file", hashlib.sha256(CONTENT).hexdigest()))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert Handler.requests == [123_456]


def test_a_part_of_which_nobody_can_tell_what_it_is_of_is_fetched_again(server: str, tmp_path: Path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_file_that_has_changed_between_two_attempts_is_fetched_again(server: str, tmp_path: Path, monkeypatch):
    Handler.breaks, other = 1, CONTENT[::-1]
    monkeypatch.setattr(download.time, "sleep", lambda seconds: setattr(Handler, "content", other))
    assert fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    assert (tmp_path / "file.bin").read_bytes() == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.bin"]


def test_another_range_than_asked_for_is_not_taken(server: str, tmp_path: Path, monkeypatch):
    Handler.breaks, Handler.headers_of_answer = 1, {"Content-Range": "bytes 0-9/10"}
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            Handler.headers_of_answer.clear()

    monkeypatch.setattr(download.time, "sleep", wait)
    assert fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and Handler.requests == [0, 100_000, 0]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(server: str, tmp_path: Path, status: int):
    Handler.busy = [status, status]
    assert fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    Handler.busy = 5 * [status]
    with pytest.raises(InputError, match=str(status)):
        fetch(Download(tmp_path / "other.bin", f"{server}/file"))


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"}, "a web page"),
        (b"", {}, "an empty response"),
        (CONTENT, {"Content-Length": None}, "undeclared length"),
    ],
)
def test_what_cannot_be_the_file_is_refused(server: str, tmp_path: Path, content: bytes, headers: dict, message: str):
    Handler.content, Handler.headers_of_answer = content, headers
    with pytest.raises(InputError, match=message):
        fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    assert not (tmp_path / "file.bin").exists()


def test_a_disk_that_is_full_is_said_and_what_is_there_is_kept(server: str, tmp_path: Path, monkeypatch):
    def full(stream, file, size):
        file.write(stream.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    wanted = Download(tmp_path / "file.bin", f"{server}/file")
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", full)
        with pytest.raises(InputError, match="no room left"):
            fetch(wanted)
    assert Handler.requests == [0]  # not tried again
    fetch(wanted)
    assert wanted.path.read_bytes() == CONTENT and Handler.requests == [0, 1000]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_unpacking_that_was_interrupted_is_done_again(server: str, tmp_path: Path, monkeypatch, error):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("feats/a.npy", b"abc")
        archive.writestr("feats/b.npy", b"def")
    Handler.archive = buffer.getvalue()
    wanted = Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=tmp_path / "feats")

    def interrupted(content: zipfile.ZipFile, folder: Path, entries: list):
        content.extract(entries[0], folder)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", interrupted)
        with pytest.raises((KeyboardInterrupt, InputError)):
            fetch(wanted)
    assert fetch(wanted)
    assert sorted(path.name for path in (tmp_path / "feats").iterdir()) == ["a.npy", "b.npy"]
    assert not fetch(wanted)


def test_an_archive_with_a_damaged_file_is_never_taken_for_unpacked(server: str, tmp_path: Path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("feats/a.npy", b"abc" * 100)
    Handler.archive = buffer.getvalue().replace(b"abcabc", b"abcabd", 1)
    wanted = Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=tmp_path / "feats")
    for _ in range(2):
        with pytest.raises(InputError, match="no readable archive"):
            fetch(wanted)
    Handler.archive = buffer.getvalue()
    assert fetch(wanted) and (tmp_path / "feats/a.npy").read_bytes() == b"abc" * 100


def test_a_server_without_ranges_sends_all_of_it_again(server: str, tmp_path: Path):
    Handler.with_ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_hash_is_an_error_and_leaves_nothing(server: str, tmp_path: Path):
    with pytest.raises(InputError, match="SHA-256"):
        fetch(Download(tmp_path / "file.bin", f"{server}/file", "0123abcd"))
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_unpacked_without_its_top_folder(server: str, tmp_path: Path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("feats_CLIP/segment_feats/a.npy", b"abc")
    Handler.archive = buffer.getvalue()
    wanted = Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=tmp_path / "feats_CLIP")
    assert fetch(wanted)
    assert (tmp_path / "feats_CLIP/segment_feats/a.npy").read_bytes() == b"abc"
    assert not wanted.path.exists()
    assert not fetch(wanted)


def test_an_archive_that_was_saved_by_hand_is_unpacked_and_kept(server: str, tmp_path: Path):
    wanted = Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=tmp_path / "feats_CLIP")
    with zipfile.ZipFile(wanted.path, "w") as archive:
        archive.writestr("feats_CLIP/segment_feats/a.npy", b"abc")
    assert not wanted.is_there()
    assert fetch(wanted) and wanted.is_there() and wanted.path.exists()
    assert (tmp_path / "feats_CLIP/segment_feats/a.npy").read_bytes() == b"abc"
    assert not fetch(wanted) and Handler.requests == []


@pytest.mark.parametrize(
    ("entries", "unpacked"),
    [
        (["archive/a.npy", "archive/b/c.npy"], ["a.npy", "b/c.npy"]),  # called as the archive
        (["other/a.npy"], ["other/a.npy"]),
        (["feats/a.npy", "archive/b.npy"], ["feats/a.npy", "archive/b.npy"]),
        (["feats"], ["feats"]),  # a file
    ],
)
def test_only_a_single_top_folder_of_the_folder_s_or_the_archive_s_name_is_left_out(
    server: str, tmp_path: Path, entries: list[str], unpacked: list[str]
):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry in entries:
            archive.writestr(entry, entry)
    Handler.archive = buffer.getvalue()
    folder = tmp_path / "feats"
    fetch(Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=folder))
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == dict(zip(unpacked, entries, strict=True))


@pytest.mark.parametrize("name", ["../outside.npy", "archive/../../outside.npy", "/outside.npy"])
def test_an_archive_that_would_write_outside_of_its_folder_is_refused(server: str, tmp_path: Path, name: str):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/a.npy", b"abc")
        archive.writestr(name, b"abc")
    Handler.archive = buffer.getvalue()
    with pytest.raises(InputError, match=r"archive\.zip.*no readable archive"):
        fetch(Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=tmp_path / "feats"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_archive_is_refused_and_removed(server: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"file\.zip.*zip file"):
        fetch(Download(tmp_path / "file.zip", f"{server}/file", unpack=tmp_path / "feats"))
    assert list(tmp_path.iterdir()) == []


def test_published_features_do_not_go_where_own_ones_are(server: str, tmp_path: Path):
    own = tmp_path / "LLP" / "feats_CLIP" / "segment_feats" / "a.npy"
    own.parent.mkdir(parents=True)
    record_extraction(tmp_path / "LLP", {"clip": {"weights": "x", "drawn_weights": None}})
    own.touch()
    wanted = Download(tmp_path / "archive.zip", f"{server}/archive.zip", unpack=tmp_path / "LLP" / "feats_CLIP")
    with pytest.raises(InputError, match="extracted here"):
        fetch(wanted)
    assert Handler.requests == []


def test_an_absent_file_is_reported_and_the_others_are_fetched(server: str, tmp_path: Path, capsys):
    table = tmp_path / "table.yaml"
    table.write_text(
        f"group:\n  files:\n    absent.bin: {{address: '{server}/absent'}}\n"
        f"    file.bin: {{address: '{server}/file'}}\n"
        "  by_hand: [another page]\n"
    )
    assert main(["group", "--table", str(table), "--root", str(tmp_path)]) == 1
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    printed = capsys.readouterr()
    assert "404" in printed.err and "by hand  another page" in printed.out


def test_without_a_connection_only_the_first_file_is_waited_for(tmp_path: Path, capsys):
    table = tmp_path / "table.yaml"
    address = "http://absent.invalid/file"
    names = "".join(f"    {name}.bin: {{address: '{address}'}}\n" for name in "abc")
    table.write_text(f"group:\n  files:\n{names}")
    assert main(["group", "--table", str(table), "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert printed.count("a.bin: ") == len(download.WAITS) - 1 and printed.count("trying again") == printed.count(
        "a.bin: "
    )
    assert printed.count("error: ") >= 3 and "3 of 3 files" in printed


def test_the_table_of_the_repository_can_be_read():
    files, by_hand = read_table(download.TABLE, [], Path("."))
    assert len(files) > 30 and by_hand
    assert all(file.address.startswith("https://") and "unknown" not in file.needed_for for file in files)
    assert len({file.path for file in files}) == len(files)
    with pytest.raises(InputError, match="no group 'XYZ'"):
        read_table(download.TABLE, ["XYZ"], Path("."))


TABLE = """
annotations:
  licence: MIT
  for: training
  files:
    a.csv: {address: "https://x/a.csv", size: 3 kB}
    b.csv: {address: "https://x/b.csv", licence: GPL-3.0, for: tests, sha256: 0123abcdef}
  by_hand: ["features: a page"]
videos:
  files:
    videos.zip: {address: "https://x/videos.zip", unpack: videos}
"""


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a table, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.yaml").write_text(TABLE)
    return tmp_path


def test_the_list_says_of_each_file_what_the_table_says_and_whether_it_is_there(in_folder: Path, capsys):
    (in_folder / "b.csv").touch()
    (in_folder / ".videos.zip.done").touch()  # unpacked and removed
    assert main(["--list", "--table", "table.yaml"]) == 0
    assert [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()] == [
        ["group", "file", "size", "licence", "needed for", "SHA-256", "exists"],
        ["annotations", "a.csv", "3 kB", "MIT", "training", "unknown", "no"],
        ["annotations", "b.csv", "unknown", "GPL-3.0", "tests", "0123abcd", "yes"],
        ["videos", "videos.zip", "unknown", "unknown", "unknown", "unknown", "yes"],
        ["by hand", "features: a page"],
    ]


def test_the_list_is_aligned_and_can_be_of_some_groups(in_folder: Path, capsys):
    main(["--list", "videos", "--table", "table.yaml"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].index("videos.zip") == header.index("file")
    assert lines[0][header.index("exists") :] == "no"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("group:\n  files: {a.csv: {address: https://x/a.csv, licnce: MIT}}", "a.csv: no field licnce"),
        ("group:\n  licnce: MIT\n  files: {a.csv: {address: https://x/a.csv}}", "a.csv: no field licnce"),
        ("group:\n  files: {a.csv: {size: 3 kB}}", "address"),
        ("group:\n  files: {a.csv: https://x/a.csv}", "no table of addresses"),
        ("group: {}", "files"),
        ("- group", "no table of addresses"),
        ("", "no table of addresses"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, table: str, message: str):
    (tmp_path / "table.yaml").write_text(table)
    with pytest.raises(InputError, match=rf"table\.yaml.*{message}"):
        main(["--list", "--table", str(tmp_path / "table.yaml")])


def test_without_groups_nothing_is_fetched(tmp_path: Path):
    with pytest.raises(InputError, match="--list"):
        main(["--root", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_the_light_networks_weights_are_the_released_files():
    files, _ = read_table(download.TABLE, ["light"], Path("."))
    assert [file.path.name for file in files] == ["mn04_as_mAP_432.pt", "tf_efficientnet_lite2-dcccb7df.pth"]
    released = Path(__file__).parents[3] / "shared" / "real" / "weights" / files[0].path.name
    if not released.exists():
        pytest.skip("real weights are not at hand")
    download.check_sha256(released, files[0].sha256, files[0].address)
    assert files[0].size == f"{released.stat().st_size} bytes" and len(files[0].sha256) == 64


def test_videos_without_a_file_are_listed_for_yt_dlp(tmp_path: Path, capsys):
    write_llp(tmp_path / "data" / "LLP")
    main(["--missing", "LLP", "--root", str(tmp_path)])
    addresses = capsys.readouterr().out.split()
    assert addresses and all(address.startswith("https://www.youtube.com/watch?v=") for address in addresses)
    videos = tmp_path / "data" / "LLP" / "raw_videos"
    (videos / f"{addresses[0].split('=')[1]}.mp4").touch()
    main(["--missing", "LLP", "--root", str(tmp_path)])
    assert capsys.readouterr().out.split() == addresses[1:]
