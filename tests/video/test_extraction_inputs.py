"""What networks are given of a video, against frames and sounds whose places can be counted."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="pip install -r requirements-video.txt")
pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from transformers.audio_utils import mel_filter_bank

from tests.video.made_videos import whole_inputs, write_wav
from utils.errors import InputError
from video.extraction.extraction_inputs import num_segments_of, read_inputs
from video.sounds import clap_mel
from video.video_decoding import decode_video
from video.video_encoding import write_video


def write(path: Path, seconds: float, sound: np.ndarray | None = None) -> Path:
    """Eight frames a second, each two levels brighter than the one before; sound (L,) at 16 kHz."""
    levels = [np.full((32, 32, 3), 20 + 2 * number, np.uint8) for number in range(round(8 * seconds))]
    write_video(path, levels, 8, None if sound is None else sound[None].astype(np.int16), 16_000, quality=0)
    return path


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).integers(-8000, 8000, round(16_000 * seconds))


@pytest.mark.parametrize(
    ("duration", "num_segments"),
    [(0.05, 1), (0.5, 1), (1.0, 1), (1.2, 2), (9.9, 10), (10.0, 10), (10.09, 10), (10.11, 11)],
)
def test_a_video_has_a_segment_for_each_second_that_it_begins_by_a_tenth(duration: float, num_segments: int):
    assert num_segments_of(duration) == num_segments


@pytest.mark.parametrize("recipe", ["valor", "centre"])
def test_eight_frames_stand_for_each_second_in_order(tmp_path: Path, recipe: str):
    path = write(tmp_path / "video.mp4", 3)
    levels = [frame.mean() for frame in decode_video(path, 8).frames]
    last = len(levels) - 1
    expected = [levels[round(number * last / 23)] for number in range(24)]
    arrays = whole_inputs(path, ["res152", "r2plus1d_18"], 3, recipe)
    np.testing.assert_allclose(arrays["res152"].mean((1, 2, 3)), expected, atol=1)
    np.testing.assert_allclose(arrays["r2plus1d_18"].mean((2, 3, 4)).reshape(-1), expected, atol=1)
    assert arrays["res152"].shape == (24, 224, 224, 3) and arrays["r2plus1d_18"].shape == (3, 8, 112, 112, 3)


@pytest.mark.parametrize("seconds", [3.2, 2.8, 2.2])
def test_valors_slices_of_the_sound_are_even_and_begin_at_rounded_places(tmp_path: Path, seconds: float):
    """Of three segments: 3.2 s are cut to 3, of 2.8 s each slice is a third, 2.2 s are filled up with silence."""
    path = write(tmp_path / "video.mp4", 3, noise(seconds))
    sound = decode_video(path, None, [48_000]).sounds[48_000][:144_000]
    if seconds == 2.2:
        sound = np.concatenate([sound, np.zeros(144_000 - len(sound), np.int16)])
    assert (len(sound) == 144_000) == (seconds != 2.8)
    length = len(sound)
    slices = np.array([[round(n * length / 3), round(n * length / 3) + length // 3] for n in range(3)])
    np.testing.assert_array_equal(whole_inputs(path, ["clap"], 3, "valor")["clap"], clap_mel(sound, slices))


def test_slices_in_the_centre_recipe_last_a_second(tmp_path: Path):
    path = write(tmp_path / "video.mp4", 3, noise(2.8))
    sound = decode_video(path, None, [48_000]).sounds[48_000]
    expected = clap_mel(sound, np.array([[0, 48_000], [48_000, 96_000], [96_000, 144_000]]))
    np.testing.assert_array_equal(whole_inputs(path, ["clap"], 3, "centre")["clap"], expected)


def test_vggish_hears_16_and_clap_48_kilohertz(tmp_path: Path):
    tone = 8000 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)
    arrays = whole_inputs(write(tmp_path / "video.mp4", 2, tone), ["vggish", "clap"], 2, "centre")
    of_vggish = mel_filter_bank(257, 64, 125, 7500, 16_000, mel_scale="htk", triangularize_in_mel_space=True)
    of_clap = mel_filter_bank(513, 64, 50, 14_000, 48_000, mel_scale="htk")
    assert arrays["vggish"][1].mean(0).argmax() == of_vggish[32].argmax()  # bins of 31.25 Hz
    assert arrays["clap"][1].mean(0).argmax() == of_clap[21].argmax()  # bins of 46.875 Hz


def test_a_video_without_sound_is_silent_where_that_is_wanted_and_lacks_the_features_elsewhere(tmp_path: Path):
    path = write(tmp_path / "video.mp4", 2)
    for recipe in ("valor", "centre"):
        arrays = whole_inputs(path, ["vggish", "clap"], 2, recipe, silence_if_no_sound=True)
        np.testing.assert_allclose(arrays["vggish"], np.full((2, 96, 64), np.log(0.01)), rtol=1e-6)
        np.testing.assert_allclose(arrays["clap"], np.full((2, 1001, 64), -100.0), rtol=1e-6)
    assert whole_inputs(path, ["vggish", "clap", "res152"], 2, "centre").keys() == {"res152"}


def test_sound_alone_is_enough_for_features_of_sound_if_it_lasts_half_a_second(tmp_path: Path):
    write_wav(tmp_path / "sound.wav", noise(2).astype(np.int16), 16_000)
    arrays = whole_inputs(tmp_path / "sound.wav", ["vggish", "clap"], None, "centre")
    assert arrays["vggish"].shape == (2, 96, 64) and arrays["clap"].shape == (2, 1001, 64)
    write_wav(tmp_path / "short.wav", noise(0.4).astype(np.int16), 16_000)
    with pytest.raises(InputError, match=r"0\.40 seconds"):
        whole_inputs(tmp_path / "short.wav", ["vggish", "clap"], None, "centre")


def test_half_a_second_is_the_shortest_video(tmp_path: Path):
    assert whole_inputs(write(tmp_path / "long.mp4", 0.5), ["clip"], None, "centre")["clip"].shape[0] == 1
    with pytest.raises(InputError, match=r"0\.38 seconds"):
        whole_inputs(write(tmp_path / "short.mp4", 0.375), ["clip"], None, "centre")


def test_half_seconds_have_frames_and_sounds_of_their_own(tmp_path: Path):
    levels = [np.full((32, 32, 3), 10 + 3 * n, np.uint8) for n in range(64)]  # four seconds, each frame brighter
    rate, times = 48_000, np.arange(4 * 48_000) / 48_000
    hertz = 500 * (1 + np.floor(times * 2))  # another tone each half second
    tone = (8000 * np.sin(2 * np.pi * np.cumsum(hertz) / rate)).astype(np.int16)
    write_video(tmp_path / "video.mp4", levels, 16, tone[None], rate, quality=0)
    names = ["vggish", "clap", "mn04", "clip", "res152", "r2plus1d_18", "efficientnet_lite2"]
    whole = whole_inputs(tmp_path / "video.mp4", names, None, "centre", segments_per_second=2)
    assert {name: len(rows) for name, rows in whole.items()} == {name: 64 if name == "res152" else 8 for name in names}
    shown = 255 * whole["clip"].mean((1, 2, 3))
    np.testing.assert_allclose(shown, 10 + 3 * (4 + 8 * np.arange(8)), atol=5)  # the middle of each half second
    loudest = whole["clap"][:, 100:900].mean(1).argmax(-1)
    assert (np.diff(loudest) > 0).all()  # each its own tone
    second = whole_inputs(tmp_path / "video.mp4", names, None, "centre")
    assert len(second["clip"]) == 4 and second["res152"].shape[0] == 32


def test_more_segments_than_a_video_lasts_are_refused_with_the_way_to_shorter_ones(tmp_path: Path):
    write_video(tmp_path / "video.mp4", [np.zeros((32, 32, 3), np.uint8)] * 32, 8)
    with pytest.raises(InputError, match=r"found 4\.\d seconds; expected 20 segments.*--segments_per_second"):
        list(read_inputs(tmp_path / "video.mp4", ["clip"], 20, "centre", is_asked=True))
    assert len(whole_inputs(tmp_path / "video.mp4", ["clip"], 20, "centre")["clip"]) == 20  # as a data set says
