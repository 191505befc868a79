"""What is shown of one's own video: frames, sound and length."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="pip install -r requirements-video.txt")
pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from video import own_video
from video.own_video import PEAKS_RATE, overview
from video.video_encoding import write_video


def test_two_frames_of_each_second_are_shown_96_pixels_high(tmp_path: Path):
    levels = [np.full((48, 64, 3), 20 + 2 * number, np.uint8) for number in range(64)]
    write_video(tmp_path / "video.mp4", levels, 8, quality=0)
    shown = overview(tmp_path / "video.mp4")
    assert shown.peaks is None and (shown.duration, shown.num_segments) == (8, 8)
    assert {frame.shape for frame in shown.frames} == {(96, 128, 3)}
    assert len(shown.frames) == 18  # two more than 2 a second, as ffmpeg makes 82 of ten seconds at 8 a second
    steps = np.diff([frame.mean() for frame in shown.frames])
    np.testing.assert_allclose(steps[2:], 8, atol=1.5)  # four frames later, two levels each


def test_of_a_long_video_ninety_frames_are_shown(tmp_path: Path):
    levels = [np.full((16, 16, 3), 20 + number, np.uint8) for number in range(180)]
    write_video(tmp_path / "video.mp4", levels, 2, quality=0)
    shown = overview(tmp_path / "video.mp4")
    assert 88 <= len(shown.frames) <= 90
    steps = np.diff([frame.mean() for frame in shown.frames])
    np.testing.assert_allclose(steps[1:-1], 2, atol=1.1)  # every second


def test_the_waveform_has_fifty_peaks_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loudness = np.repeat([0.1, 0.5, 0.25], 16_000)
    tone = 32_768 * loudness * np.sin(2 * np.pi * 200 * np.arange(48_000) / 16_000)
    frames = [np.zeros((16, 16, 3), np.uint8)] * 24
    write_video(tmp_path / "video.mp4", frames, 8, tone[None].astype(np.int16), 16_000)
    peaks = overview(tmp_path / "video.mp4").peaks
    assert PEAKS_RATE == 50 and len(peaks) == pytest.approx(150, abs=4)
    for second, expected in enumerate((0.1, 0.5, 0.25)):
        np.testing.assert_allclose(peaks[50 * second + 10 : 50 * second + 40], expected, atol=0.02)
    monkeypatch.setattr(own_video, "STRETCH", 0.7)
    np.testing.assert_array_equal(overview(tmp_path / "video.mp4").peaks, peaks)


def test_a_rest_shorter_than_a_tenth_of_a_second_is_neither_segment_nor_duration(tmp_path: Path):
    for count, duration, num_segments in ((51, 2, 2), (54, 2.16, 3)):
        frames = [np.zeros((16, 16, 3), np.uint8)] * count
        write_video(tmp_path / "video.mp4", frames, 25)
        shown = overview(tmp_path / "video.mp4")
        assert (shown.duration, shown.num_segments) == (pytest.approx(duration), num_segments)
