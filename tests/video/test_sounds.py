"""Spectrograms of silence and of tones, and slices of sounds, by hand. Parity: tests/video/test_feature_cases.py."""

import numpy as np
import pytest

from video.sounds import clap_boundaries, clap_mel, segment_boundaries, vggish_log_mel


def tone(hertz: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * 32767 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def test_valors_slices_begin_where_equal_parts_begin_and_are_as_long_as_the_shortest():
    assert clap_boundaries(10, 3).tolist() == [[0, 3], [3, 6], [7, 10]]  # 3.33 and 6.67, rounded
    assert clap_boundaries(480_000, 10)[[0, 9]].tolist() == [[0, 48_000], [432_000, 480_000]]


def test_slices_of_a_second_are_counted_in_samples_of_clap():
    assert segment_boundaries(3).tolist() == [[0, 48_000], [48_000, 96_000], [96_000, 144_000]]


def test_seconds_that_a_sound_does_not_reach_are_silent_for_vggish():
    mel = vggish_log_mel(tone(1000, 1.5, 16_000), 3)
    assert mel.shape == (3, 96, 64) and mel.dtype == np.float32
    np.testing.assert_allclose(mel[1, 51:], np.log(0.01), atol=1e-3)
    np.testing.assert_allclose(mel[2], np.log(0.01), atol=1e-6)
    assert mel[:1].max() > 1 and mel[1, :47].max() > 1


def test_each_second_of_vggish_is_its_own_and_what_is_beyond_the_last_is_cut():
    hertz = (500, 1000, 4000)
    mel = vggish_log_mel(np.concatenate([tone(one, 1, 16_000) for one in (*hertz, 200)]), 3)
    centres = np.linspace(*(2595 * np.log10(1 + np.array([125, 7500]) / 700)), 66)[1:-1]
    expected = np.abs(2595 * np.log10(1 + np.array(hertz) / 700)[:, None] - centres).argmin(axis=-1)
    assert np.abs(mel[:, 48].argmax(axis=-1) - expected).max() <= 1


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_what_a_slice_of_clap_lacks_at_its_end_is_zeros_before_it_is_repeated(seconds: float):
    pcm = tone(1000, seconds, 48_000)
    filled = np.concatenate([pcm, np.zeros(48_000 - len(pcm), np.int16)])
    mel = clap_mel(pcm, np.array([[0, 48_000]]))
    np.testing.assert_array_equal(mel, clap_mel(filled, np.array([[0, 48_000]])))
    assert mel.shape == (1, 1001, 64)
    heard = mel[0, 10:990].max(axis=-1) > 0  # a second has 100 frames
    assert heard.mean() == pytest.approx(seconds, abs=0.03)


def test_silence_is_at_minus_a_hundred_decibels_for_clap_and_twice_the_amplitude_six_higher():
    silence = clap_mel(np.zeros(48_000, np.int16), np.array([[0, 48_000]]))
    np.testing.assert_allclose(silence, -100, atol=1e-4)
    quiet, loud = (clap_mel(tone(1000, 1, 48_000, a), np.array([[0, 48_000]])) for a in (0.25, 0.5))
    band = loud[0, 50].argmax()
    assert (loud - quiet)[0, 50, band] == pytest.approx(20 * np.log10(2), abs=0.02)


def test_each_slice_of_clap_is_of_its_own_samples():
    pcm = np.concatenate([tone(500, 1, 48_000), tone(4000, 1, 48_000)])
    low, high, both = clap_mel(pcm, np.array([[0, 48_000], [48_000, 96_000], [0, 96_000]]))
    assert low[50].argmax() + 10 < high[50].argmax()
    assert (both[50].argmax(), both[150].argmax()) == (low[50].argmax(), high[50].argmax())
