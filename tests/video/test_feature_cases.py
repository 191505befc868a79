"""Parity of feature extraction with the authors' code, on every case `features_*.npz`.

The cases are found as those of the method are; see tests/test_reference_cases.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from tests.test_reference_cases import Case, every_case_of, opened
from video import frames, sounds
from video.backbones.clip_clap import CLAP, load_laion_state
from video.backbones.convolutional import VGGish
from video.backbones.drawn_weights import draw
from video.extraction.feature_networks import FeatureNetwork


def assert_near(actual: np.ndarray, expected: np.ndarray, name: str, tolerance: float = 1e-4) -> None:
    """Equal but for `tolerance` of the largest expected magnitude."""
    bound = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=name)


def in_rows(boundaries: np.ndarray) -> np.ndarray:
    """(T, 2), first sample and end of each slice, from (T, 2), from (2, T) with all starts first, or from such flat."""
    if boundaries.ndim == 2 and boundaries.shape[1] == 2 and (boundaries[:, 0] < boundaries[:, 1]).all():
        return boundaries
    return boundaries.reshape(2, -1).T


@pytest.mark.parametrize("num_segments", [2, 10])
def test_boundaries_are_read_in_rows_and_in_columns(num_segments: int):
    rows = sounds.clap_boundaries(48_000 * num_segments, num_segments)
    for given in (rows, rows.T, rows.T.reshape(-1)):
        np.testing.assert_array_equal(in_rows(given), rows)


def weights_of(case: Case) -> dict[str, torch.Tensor]:
    """The weights that a case was computed with: anyone can draw them from their names."""
    keys = json.loads(str(case.array("state_keys")))
    assert {dtype for _, dtype in keys.values()} == {"float32"}
    return {name: draw(name, shape) for name, (shape, _) in keys.items()}


@every_case_of("features_frames")
def test_the_same_frames_are_chosen(path: Path):
    with opened(path) as case:
        choices = {"of_80": frames.spread_frames, "of_10": frames.spread_frames, "lavish_of_10": frames.lavish_frames}
        counts = case.array("num_frames")
        for name, choose in choices.items():
            expected = case.array(name)
            for num_frames, of_these in zip(counts, expected, strict=True):
                chosen = choose(int(num_frames), expected.shape[1])
                np.testing.assert_array_equal(chosen, of_these, err_msg=f"{name} of {num_frames}")


def given_to(name: str, pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) -> what reaches the network of this name, (3, h, w)."""
    network = FeatureNetwork(name, nn.Flatten(), torch.device("cpu"))
    return network(pixels[None].copy()).view(3, *pixels.shape[:2]).numpy()


@every_case_of("features_pixels")
def test_every_network_is_given_the_same_pixels(path: Path):
    with opened(path) as case:
        image = case.array("image")
        ours = {
            "resnet152": given_to("res152", frames.resnet152_pixels(image)),
            "r2plus1d_18": given_to("r2plus1d_18", frames.r2plus1d_pixels(image)),
            "clip_valor": given_to("clip", frames.clip_pixels(image)),
        }
        for name in ("lavish_vit", "lavish_swin"):
            pixels = frames.lavish_pixels(image, case.array(name).shape[-1])
            ours[name] = ((pixels - frames.IMAGENET.mean) / frames.IMAGENET.deviation).transpose(2, 0, 1)
        for name, pixels in ours.items():
            assert_near(pixels, case.array(name), name)


@every_case_of("features_vggish")
def test_vggish_features_are_the_same(path: Path):
    with opened(path) as case:
        expected = case.array("log_mel")
        log_mel = sounds.vggish_log_mel(case.array("pcm"), len(expected))
        assert_near(log_mel, expected, "log_mel", 1e-3)
        network = VGGish().eval()
        network.load_state_dict(weights_of(case))
        with torch.inference_mode():
            assert_near(network(torch.from_numpy(log_mel)).numpy(), case.array("embedding"), "embedding")


@every_case_of("features_clap")
def test_clap_features_are_the_same_with_converted_weights(path: Path):
    with opened(path) as case:
        pcm = case.array("pcm48")[: int(case.array("used"))]
        expected = in_rows(case.array("boundaries"))
        boundaries = sounds.clap_boundaries(len(pcm), len(expected))
        np.testing.assert_array_equal(boundaries, expected)
        assert case.array("all_four_equal"), "one copy of the spectrogram is enough only where all four are equal"
        mel = sounds.clap_mel(pcm, boundaries[: len(case.array("mel_fusion"))])
        assert_near(mel, case.array("mel_fusion"), "mel_fusion", 1e-3)
        clap = CLAP().eval()
        load_laion_state(clap.network, weights_of(case))
        with torch.inference_mode():
            audio = clap(torch.from_numpy(mel)).numpy()
            text = clap.text(case["token_ids"], case["attention_mask"]).numpy()
        assert_near(audio, case.array("audio_embedding"), "audio_embedding")
        assert_near(text, case.array("text_embedding"), "text_embedding")
