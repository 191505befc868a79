"""Kaldi's log filter banks, which LAVISH uses as spectrograms, in plain torch.

L samples, K windows of one second, N frames of a window, M mel bands.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 16_000  # one second
LAST_START = 17_600  # samples between the start of the last window and the end of a clip
FRAME_SAMPLES = 400  # 25 ms
FFT_SIZE = 512
LOWEST_HZ, HIGHEST_HZ = 20.0, SAMPLE_RATE / 2
PREEMPHASIS = 0.97
SMALLEST_ENERGY = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class FilterBank:
    """Sizes and normalisation, (x - mean) / deviation, of a backbone's spectrograms."""

    num_bands: int  # M
    shift: int  # samples between frames
    num_frames: int  # N; spectrograms are cut, or padded with zeros after normalisation
    mean: float
    deviation: float


# Released settings: shifts of 10 and 5.2 ms, mean and twice the deviation of AVE's spectrograms; "small" is ours.
VIT_FILTER_BANK = FilterBank(num_bands=128, shift=160, num_frames=102, mean=-4.1426, deviation=2 * 3.2001)
SWIN_FILTER_BANK = FilterBank(192, shift=83, num_frames=192, mean=-4.984795570373535, deviation=2 * 3.7079780101776123)
SMALL_FILTER_BANK = FilterBank(num_bands=32, shift=500, num_frames=32, mean=-4.1426, deviation=2 * 3.2001)
FILTER_BANKS = {"vit": VIT_FILTER_BANK, "swin": SWIN_FILTER_BANK, "small": SMALL_FILTER_BANK}


def window_starts(num_samples: int, num_windows: int) -> np.ndarray:
    """Return the first samples of K windows, the last one 1.1 s before the end, as released: (K,) int64."""
    return np.linspace(0, max(0, num_samples - LAST_START), num_windows).astype(np.int64)


def centred_starts(num_samples: int, num_windows: int) -> np.ndarray:
    """Return the first samples of windows centred on K equal parts of a clip, shifted into the clip: (K,) int64."""
    middles = (np.arange(num_windows) + 0.5) * (num_samples / num_windows)
    return (middles - WINDOW_SAMPLES / 2).clip(0, max(0, num_samples - WINDOW_SAMPLES)).astype(np.int64)


def clip_filter_banks(samples: Tensor, starts: np.ndarray, bank: FilterBank) -> Tensor:
    """Compute normalised log filter banks of a clip's windows: samples (L,) in [-1, 1], starts (K,) -> (K, N, M).

    The mean of the clip is subtracted first; silence follows the clip.
    """
    centred = samples - samples.mean()
    centred = F.pad(centred, (0, max(0, int(starts.max()) + WINDOW_SAMPLES - len(samples))))
    windows = torch.stack([centred[start : start + WINDOW_SAMPLES] for start in starts.tolist()])  # (K, 16000)
    banks = (log_filter_banks(windows, bank.num_bands, bank.shift) - bank.mean) / bank.deviation
    return F.pad(banks, (0, 0, 0, bank.num_frames - banks.shape[1]))  # a negative padding cuts


def log_filter_banks(windows: Tensor, num_bands: int, shift: int) -> Tensor:
    """Compute Kaldi's log filter bank energies: (K, L >= 400) float32 in [-1, 1] -> (K, N = 1 + (L - 400) // shift, M).

    As in HTK: Hann window, no dither, no energy, complete frames only.
    """
    frames = windows.unfold(1, FRAME_SAMPLES, shift)  # (K, N, 400)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = (frames - PREEMPHASIS * previous) * torch.hann_window(FRAME_SAMPLES, periodic=False)
    power = torch.fft.rfft(frames, FFT_SIZE).abs().square()  # (K, N, 257)
    return (power @ _mel_triangles(num_bands)).clamp(min=SMALLEST_ENERGY).log()


@cache
def _mel_triangles(num_bands: int) -> Tensor:
    """Return the weight of each FFT bin in each band, triangular in mel as in Kaldi: (257, M)."""
    lowest, highest = (1127 * math.log(1 + hertz / 700) for hertz in (LOWEST_HZ, HIGHEST_HZ))
    edges = lowest + torch.arange(num_bands + 2) * ((highest - lowest) / (num_bands + 1))
    left, centre, right = (edges[i : i + num_bands].unsqueeze(1) for i in range(3))  # (M, 1)
    hertz = torch.arange(FFT_SIZE // 2) * (SAMPLE_RATE / FFT_SIZE)  # Kaldi leaves out the Nyquist bin
    bins = 1127 * torch.log(1 + hertz / 700)  # (256,)
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return F.pad(triangles, (0, 1)).T
