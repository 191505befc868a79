"""Where windows of sound start, and filter banks of known sounds. Parity: tests/lavish/test_lavish_cases.py."""

import numpy as np
import pytest
import torch

from video.filter_banks import (
    FILTER_BANKS,
    VIT_FILTER_BANK,
    FilterBank,
    centred_starts,
    clip_filter_banks,
    window_starts,
)

SILENCE = (np.log(2.0**-23) + 4.1426) / (2 * 3.2001)  # Kaldi's smallest energy, normalised for the ViT


@pytest.mark.parametrize(
    ("num_samples", "num_windows", "starts"),
    [
        (160_000, 10, [0, 16_000, 32_000, 48_000, 64_000, 80_000, 96_000, 112_000, 128_000, 144_000]),
        (32_000, 4, [0, 4_000, 12_000, 16_000]),  # middles of 4,000 and 28,000 are too near to the ends
        (48_000, 1, [16_000]),
        (50_001, 2, [4_500, 29_500]),  # middles 12,500.25 and 37,500.75
        (16_000, 3, [0, 0, 0]),
        (8_000, 2, [0, 0]),
        (0, 2, [0, 0]),
    ],
)
def test_centred_windows_lie_around_the_middles_of_equal_parts(num_samples: int, num_windows: int, starts: list[int]):
    assert centred_starts(num_samples, num_windows).tolist() == starts


@pytest.mark.parametrize(
    ("num_samples", "num_windows", "starts"),
    [
        (160_000, 5, [0, 35_600, 71_200, 106_800, 142_400]),  # to 17,600 before the end
        (17_604, 4, [0, 1, 2, 4]),
        (160_000, 1, [0]),
        (17_000, 3, [0, 0, 0]),
    ],
)
def test_released_windows_are_spread_from_the_first_to_the_last_start(
    num_samples: int, num_windows: int, starts: list[int]
):
    assert window_starts(num_samples, num_windows).tolist() == starts


def tone(hertz: float, seconds: float, amplitude: float = 0.5) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * 16_000)) / 16_000)


@pytest.mark.parametrize(
    ("name", "num_bands", "num_frames", "computed"),
    [("vit", 128, 102, 98), ("swin", 192, 192, 188), ("small", 32, 32, 32)],
)
def test_frames_that_a_second_does_not_fill_are_zeros_after_normalisation(
    name: str, num_bands: int, num_frames: int, computed: int
):
    banks = clip_filter_banks(torch.zeros(16_000), np.array([0, 5_000]), FILTER_BANKS[name])
    assert banks.shape == (2, num_frames, num_bands)
    assert (banks[:, :computed] < -1).all() and not banks[:, computed:].any()


@pytest.mark.parametrize(("name", "first"), [("vit", 73), ("swin", 140), ("small", 24)])
def test_frames_of_400_samples_come_every_10_5_2_and_31_ms(name: str, first: int):
    samples = torch.cat([torch.zeros(12_000), tone(1000, 0.25)])
    (banks,) = clip_filter_banks(samples, np.array([0]), FILTER_BANKS[name])
    silence = banks[0].max()
    loud = (banks.amax(dim=-1) > silence + 0.5).nonzero()[0].item()
    assert loud == first  # the first i for which i * shift + 400 is above 12,000


def test_more_frames_than_are_wanted_are_cut_off():
    few = FilterBank(num_bands=128, shift=160, num_frames=5, mean=-4.1426, deviation=2 * 3.2001)
    start, whole = (clip_filter_banks(tone(440, 1.0), np.array([0]), bank) for bank in (few, VIT_FILTER_BANK))
    assert torch.equal(start, whole[:, :5])


def test_each_window_is_of_its_own_start():
    samples = torch.cat([tone(500, 1.0), tone(4000, 1.0)])
    banks = clip_filter_banks(samples, np.array([16_000, 0]), VIT_FILTER_BANK)
    low, high = banks[1, 49].argmax(), banks[0, 49].argmax()
    assert high > low + 20


def test_the_mean_of_the_whole_clip_is_removed_and_what_follows_it_is_silent():
    constant = clip_filter_banks(torch.full((8_000,), 0.3), np.array([0]), VIT_FILTER_BANK)
    np.testing.assert_allclose(constant[:, :98], SILENCE, atol=1e-6)  # no step where the clip ends


def test_a_clip_without_samples_is_silent():
    banks = clip_filter_banks(torch.zeros(0), np.array([0]), VIT_FILTER_BANK)
    np.testing.assert_allclose(banks[:, :98], SILENCE, atol=1e-6)


def test_twice_the_amplitude_adds_the_logarithm_of_four():
    quiet, loud = (clip_filter_banks(tone(1000, 1.0, a), np.array([0]), VIT_FILTER_BANK) for a in (0.25, 0.5))
    band = quiet[0, 49].argmax()
    difference = (loud - quiet)[0, :98, band] * 2 * 3.2001
    np.testing.assert_allclose(difference, np.log(4), atol=1e-3)
