"""Downloads from a server on this machine."""

import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dataloaders.provenance import record_extraction
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

    def do_GET(self):
        if self.path == "/absent":
            self.send_error(404)
            return
        content = self.archive if self.path == "/archive.zip" else CONTENT
        asked = self.headers.get("Range") if Handler.with_ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        Handler.requests.append(start)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
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
    fetch(Download(tmp_path / "file.bin", f"{server}/file"))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert Handler.requests == [123_456]


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
    with pytest.raises(InputError, match=r"archive\.zip.*no archive to unpack"):
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


def test_the_table_of_the_repository_can_be_read():
    files, by_hand = read_table(download.TABLE, ["LLP", "UnAV", "AVE", "weights"], Path("."))
    assert len(files) > 10 and by_hand
    assert all(file.address.startswith("https://") for file in files)
    with pytest.raises(InputError, match="no group 'XYZ'"):
        read_table(download.TABLE, ["XYZ"], Path("."))


def test_videos_without_a_file_are_listed_for_yt_dlp(tmp_path: Path, capsys):
    write_llp(tmp_path / "data" / "LLP")
    main(["--missing", "LLP", "--root", str(tmp_path)])
    addresses = capsys.readouterr().out.split()
    assert addresses and all(address.startswith("https://www.youtube.com/watch?v=") for address in addresses)
    videos = tmp_path / "data" / "LLP" / "raw_videos"
    (videos / f"{addresses[0].split('=')[1]}.mp4").touch()
    main(["--missing", "LLP", "--root", str(tmp_path)])
    assert capsys.readouterr().out.split() == addresses[1:]
