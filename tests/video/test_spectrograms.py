"""Spectrograms, against those of transformers."""

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install -r requirements-video.txt")

from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from video.sounds import clap_mel, vggish_log_mel


def noise(num_samples: int) -> np.ndarray:
    """(L,) int16."""
    return np.random.default_rng(0).integers(-32_767, 32_768, num_samples).astype(np.int16)


def test_log_mels_of_vggish_are_of_each_second_apart_at_full_scale_32768():
    pcm = noise(2 * 16_000)
    bands = mel_filter_bank(257, 64, 125, 7500, 16_000, norm=None, mel_scale="htk", triangularize_in_mel_space=True)
    bands[0] = 0
    found = vggish_log_mel(pcm, 2)
    for second in range(2):
        samples = pcm[16_000 * second : 16_000 * (second + 1)] / 32_768
        magnitude = spectrogram(
            samples,
            window_function(400, "hann"),
            400,
            160,
            512,
            power=1.0,
            center=False,
            mel_filters=bands,
            mel_floor=0,
        )
        np.testing.assert_allclose(found[second], np.log(magnitude + 0.01).T[:96], atol=1e-5)


def clap_of_transformers(sound: np.ndarray) -> np.ndarray:
    """(480000,) floats -> (1001, 64)."""
    bands = mel_filter_bank(513, 64, 50, 14_000, 48_000, norm=None, mel_scale="htk")
    window = window_function(1024, "hann")
    power = spectrogram(sound, window, 1024, 480, power=2.0, mel_filters=bands, log_mel="dB", min_value=1e-10)
    return power.T


@pytest.mark.parametrize(("length", "times"), [(1_000, 480), (47_737, 10), (48_000, 10), (100_320, 4), (480_000, 1)])
def test_mels_of_clap_repeat_a_slice_at_full_scale_32767_for_ten_seconds(length: int, times: int):
    pcm = noise(length)
    whole = np.zeros(480_000)
    for n in range(times):
        whole[n * length : (n + 1) * length] = pcm / 32_767
    (found,) = clap_mel(np.concatenate([noise(7), pcm]), np.array([[7, 7 + length]]))
    difference = found - clap_of_transformers(whole)
    # The scale is seen in the mean: full scale 32768 would be 2.7e-4 dB less. Float32 moves single values.
    assert abs(difference[:400].mean()) < 5e-5 and np.abs(difference).max() < 0.05


def test_the_lowest_sample_is_clipped_to_full_scale_as_in_laion_clap():
    pcm = noise(48_000)
    pcm[::100] = -32_768
    second = np.array([[0, 48_000]])
    np.testing.assert_array_equal(clap_mel(pcm, second), clap_mel(np.maximum(pcm, -32_767), second))
