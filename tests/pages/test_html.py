"""Self-contained HTML and what is embedded in it."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from video.pages.html import embedded_json, packed, write_page
from video.pages.video_page import MAX_STRIP_WIDTH, peaks_of, strip_of, video_source


def test_embedded_json_cannot_end_its_script_element():
    data = {"name": "</script><!-- {{script}} ]]>", "Grüße": "\u2028"}
    text = embedded_json(data)
    assert "<" not in text and json.loads(text) == data


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError):
        embedded_json({"p": float("nan")})


def test_the_policy_names_the_script_that_is_there(tmp_path: Path):
    for template in ("video", "timelines"):
        write_page(tmp_path / "page.html", template, "a & <b>", {"name": "{{script}}"})
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
        assert len(scripts) == 1
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in text
        assert "<title>a &amp; &lt;b&gt;</title>" in text
        assert '{"name":"{{script}}"}' in text


def test_packed_arrays_are_little_endian_row_by_row():
    values = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert np.frombuffer(base64.b64decode(packed(values)), "<f4").tolist() == [0, 3, 1, 4, 2, 5]


def picture_of(strip: dict[str, object]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(strip["image"].split(",")[1]))))


def test_a_strip_shows_frames_in_order():
    frames = [np.full((90, 160, 3), 20 * n, np.uint8) for n in range(10)]
    strip = strip_of(frames)
    assert [strip[name] for name in ("count", "width", "height")] == [10, 160, 90]
    picture = picture_of(strip)
    assert picture.shape == (90, 1600, 3)
    middles = picture[45, 80::160, 0]
    assert np.abs(middles - 20.0 * np.arange(10)).max() <= 3


def test_a_strip_of_many_frames_is_thinned_evenly():
    frames = [np.full((96, 160, 3), n // 4, np.uint8) for n in range(1000)]
    strip = strip_of(frames)
    assert strip["count"] * 160 == MAX_STRIP_WIDTH
    middles = picture_of(strip)[48, 80::160, 0].astype(float)
    assert np.abs(middles - np.linspace(0, 250, strip["count"])).max() <= 4


def test_peaks_are_where_the_sound_is():
    samples = np.zeros(16_000)
    samples[8000:9000] = 0.5
    peaks = peaks_of(samples, 8000, 4.0)  # two seconds of sound in four seconds of video
    assert len(peaks) == 200
    loud = np.flatnonzero(peaks) / 50
    assert peaks.max() == 255 and loud.min() == pytest.approx(1.0, abs=0.03) and loud.max() <= 1.15
    assert not peaks_of(np.zeros(0), 8000, 4.0).any()
    assert peaks_of(np.full(8000, 0.01), 8000, 1.0).max() < 60  # noise stays small


def test_the_waveform_of_a_long_video_has_twenty_thousand_peaks():
    samples = np.zeros(100_000)
    samples[50_002], samples[50_007] = -1.0, 0.5
    peaks = peaks_of(samples, 100, 1000.0)  # five samples a peak
    assert len(peaks) == 20_000
    assert np.flatnonzero(peaks).tolist() == [10_000, 10_001]
    assert peaks[10_000:10_002].tolist() == [255, 128]


def test_a_video_is_copied_beside_its_page_or_becomes_part_of_it(tmp_path: Path):
    video = tmp_path / "in" / "a b#1.mp4"
    video.parent.mkdir()
    video.write_bytes(b"pictures")
    page = tmp_path / "out" / "page.html"
    source = video_source(video, page, 8)
    assert (page.parent / unquote(source)).read_bytes() == b"pictures" and "#" not in source
    assert video_source(video, page, 9) == "data:video/mp4;base64," + base64.b64encode(b"pictures").decode()


def test_a_video_that_lies_beside_its_page_stays_what_it_is(tmp_path: Path):
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"pictures")
    before = video.stat()
    assert video_source(video, tmp_path / "page.html", 0) == "clip.mp4"
    assert video.stat().st_mtime_ns == before.st_mtime_ns and video.stat().st_ino == before.st_ino
