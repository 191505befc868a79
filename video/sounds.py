"""Spectrograms for VGGish, CLAP and mn04. L samples of int16 mono audio, T segments of one second."""

from functools import cache

import numpy as np

VGGISH_RATE = 16_000
CLAP_RATE = 48_000
CLAP_SAMPLES = 480_000  # ten seconds, the fixed length of CLAP's input
MN_RATE = 32_000  # mn04's input is two seconds; shorter windows miss events (docs/own_video.md)

_VGGISH_WINDOW, _VGGISH_HOP, _VGGISH_FFT = 400, 160, 512
_CLAP_FFT, _CLAP_HOP = 1024, 480
_MN_FFT, _MN_WINDOW, _MN_HOP = 1024, 800, 320


def vggish_log_mel(pcm: np.ndarray, num_segments: int) -> np.ndarray:
    """Compute the log-mel spectrogram of each second: (L,) int16 at 16 kHz -> (T, 96, 64) float32.

    96 frames of 25 ms every 10 ms, log(mel magnitude + 0.01) in 64 bands; silence follows the audio.
    """
    bands = _mel_bands(_VGGISH_FFT, 125, 7500, VGGISH_RATE, triangularize_in_mel_space=True)
    needed = num_segments * VGGISH_RATE
    samples = np.zeros(needed, np.float32)
    samples[: len(pcm)] = pcm[:needed] / np.float32(32768)
    windows = np.lib.stride_tricks.sliding_window_view(samples.reshape(num_segments, VGGISH_RATE), _VGGISH_WINDOW, 1)
    frames = windows[:, ::_VGGISH_HOP][:, :96] * np.hanning(_VGGISH_WINDOW + 1)[:-1].astype(np.float32)  # (T, 96, 400)
    magnitude = np.abs(np.fft.rfft(frames, _VGGISH_FFT)).astype(np.float32)  # (T, 96, 257)
    return np.log(magnitude @ bands + np.float32(0.01))


def clap_boundaries(num_samples: int, num_segments: int) -> np.ndarray:
    """Return the first sample and the end of VALOR's T slices of L samples: (T, 2) int64."""
    starts = np.round(np.linspace(0, num_samples, num_segments + 1)).astype(np.int64)[:-1]
    return np.stack([starts, starts + num_samples // num_segments], axis=1)


def segment_boundaries(num_segments: int, rate: int = CLAP_RATE, per_second: int = 1) -> np.ndarray:
    """Return the first sample and the end of each segment: (T, 2) int64."""
    edges = np.arange(num_segments + 1) * rate // per_second
    return np.stack([edges[:-1], edges[1:]], axis=1)


def clap_mel(pcm: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Compute mel spectrograms of audio slices in decibels: (L,) int16 at 48 kHz, (K, 2) -> (K, 1001, 64) float32.

    A slice is padded with zeros beyond the end of the audio, repeated as often as it fits into ten seconds, and padded
    with zeros again.
    """
    return np.stack([_clap_mel_of_slice(pcm, start, end) for start, end in boundaries])


def centred_boundaries(
    num_samples: int, num_segments: int, rate: int = MN_RATE, seconds: int = 2, per_second: int = 1
) -> np.ndarray:
    """Return windows of some seconds centred on each segment, shifted into the video: (T, 2) int64."""
    starts = (np.arange(num_segments) + 0.5) * rate / per_second - seconds * rate / 2
    last = max(num_samples, num_segments * rate // per_second) - seconds * rate
    starts = starts.clip(0, max(0, last)).astype(np.int64)
    return np.stack([starts, starts + seconds * rate], axis=1)


def mn_mel(pcm: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Compute EfficientAT's log-mel spectrograms: (L,) int16 at 32 kHz, (K, 2) -> (K, frames, 128) float32.

    Pre-emphasis; centred Hann windows of 25 ms every 10 ms; Kaldi's mel bands to 15 kHz; (log(power + 1e-5) + 4.5) / 5.
    """
    samples = np.pad(pcm, (0, max(0, int(boundaries.max()) - len(pcm)))) / np.float32(32768)
    pieces = np.stack([samples[start:end] for start, end in boundaries])
    emphasised = pieces[:, 1:] - np.float32(0.97) * pieces[:, :-1]
    padded = np.pad(emphasised, ((0, 0), (_MN_FFT // 2, _MN_FFT // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _MN_FFT, 1)[:, ::_MN_HOP]  # (K, frames, 1024)
    margin = (_MN_FFT - _MN_WINDOW) // 2
    window = np.pad(np.hanning(_MN_WINDOW).astype(np.float32), margin)
    spectrum = np.fft.rfft(frames * window)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)  # (K, frames, 513)
    bands = _mel_bands(_MN_FFT, 0, 15_000, MN_RATE, 128, mel_scale="kaldi", triangularize_in_mel_space=True)
    return (np.log(power @ bands + np.float32(1e-5)) + np.float32(4.5)) / 5


def _clap_mel_of_slice(pcm: np.ndarray, start: int, end: int) -> np.ndarray:
    piece = np.zeros(min(end - start, CLAP_SAMPLES), np.float32)
    # laion-clap clips to [-1, 1] and truncates to 16 bits and back, which changes only the sample -32768.
    inside = np.maximum(pcm[start : start + len(piece)], -32767) / np.float32(32767)
    piece[: len(inside)] = inside
    repeated = np.tile(piece, CLAP_SAMPLES // len(piece))
    sound = np.pad(np.pad(repeated, (0, CLAP_SAMPLES - len(repeated))), _CLAP_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(sound, _CLAP_FFT)[::_CLAP_HOP]  # (1001, 1024)
    different = _different_frames(len(piece), len(frames))
    computed, where = np.unique(different, return_inverse=True)
    spectrum = np.fft.rfft(frames[computed] * np.hanning(_CLAP_FFT + 1)[:-1].astype(np.float32))  # (computed, 513)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    mel = power @ _mel_bands(_CLAP_FFT, 50, 14_000, CLAP_RATE)
    return 10 * np.log10(np.maximum(mel, np.float32(1e-10)))[where]


def _different_frames(length: int, num_frames: int) -> np.ndarray:
    """Return for each frame of a repeated slice of `length` samples the first frame equal to it: (frames,).

    If the slice is a multiple of the hop and divides ten seconds, frames repeat, except for the reflected ends.
    """
    frames = np.arange(num_frames)
    if length % _CLAP_HOP or CLAP_SAMPLES % length:
        return frames
    reached = -(-_CLAP_FFT // 2 // _CLAP_HOP)  # frames at each end
    inner = (frames >= reached) & (frames < num_frames - reached)
    return np.where(inner, reached + (frames - reached) % (length // _CLAP_HOP), frames)


@cache
def _mel_bands(
    fft_size: int, lowest: float, highest: float, rate: int, num_bands: int = 64, mel_scale: str = "htk", **how: bool
) -> np.ndarray:
    """Return the triangular filters of a mel scale over FFT bins, not normalised: (bins, bands) float32."""
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(fft_size // 2 + 1, num_bands, lowest, highest, rate, mel_scale=mel_scale, **how)
    return bands.astype(np.float32)
