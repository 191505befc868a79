"""Which networks make features, what reaches them, and what the record of a folder says of them."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from video.extraction.feature_networks import (
    FeatureNetwork,
    Source,
    add_network_flags,
    build_network,
    package_versions,
    settings_of,
    source_of,
    text_settings_of,
)

# Means and deviations of red, green and blue that the published weights were trained with.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
OPENAI = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


def test_flags_say_where_networks_come_from():
    parser = argparse.ArgumentParser()
    add_network_flags(parser)
    assert source_of(parser.parse_args([])) == Source(Path("weights"), None, 0, "transformers", "transformers")
    assert source_of(parser.parse_args(["--random_weights"])).drawn == "real"
    flags = "--weights_dir w --random_weights small --seed 3 --clip_backend open_clip --clap_backend laion_clap"
    assert source_of(parser.parse_args(flags.split())) == Source(Path("w"), "small", 3, "open_clip", "laion_clap")


def test_the_record_says_how_each_feature_is_made():
    published = {"sha256": None, "drawn_weights": None, "precision": "bf16", "num_segments": 20}  # no file is there
    published["versions"] = package_versions()
    assert published["versions"].keys() >= {"python", "torch", "av", "ffmpeg"}
    of_clip = {"colours": "tagged", "recipe": "centre", "backend": "transformers"}
    assert settings_of(["vggish", "clip"], Source(Path("w")), "centre", "bf16", 20, "tagged") == {
        "vggish": {"weights": "vggish-10086976.pth", **published},
        "clip": {"weights": "clip-vit-large-patch14", **published, **of_clip},
    }
    drawn = {"weights": "drawn from seed 7", "sha256": None, "drawn_weights": "real", "precision": "float32"}
    drawn["versions"] = package_versions()
    assert text_settings_of(["clap"], Source(Path("w"), "real", 7), "valor", "float32") == {
        "clap valor_prompt_feats.npy": {**drawn, "backend": "transformers"},
    }


def test_random_weights_follow_the_seed():
    one, again, other = (build_network("vggish", Source(Path("w"), "small", seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "shape", "trained_with"),
    [
        ("res152", (2, 4, 5, 3), IMAGENET),
        ("r2plus1d_18", (2, 8, 4, 5, 3), KINETICS),
        ("clip", (2, 4, 5, 3), OPENAI),
    ],
)
def test_a_network_is_given_normalised_pixels_with_the_colours_first(
    name: str, shape: tuple[int, ...], trained_with: tuple[list[float], list[float]]
):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    rows = pixels / np.float32(255) if name == "clip" else pixels
    given = FeatureNetwork(name, nn.Flatten(), torch.device("cpu"))(rows).view(2, 3, *shape[1:-1])
    for colour, (mean, deviation) in enumerate(zip(*trained_with, strict=True)):
        expected = (pixels[..., colour] / 255 - mean) / deviation
        np.testing.assert_allclose(given[:, colour], expected, atol=1e-5)


def test_spectrograms_reach_a_network_as_they_are():
    rows = np.random.default_rng(0).normal(-40, 20, (2, 6, 4)).astype(np.float32)
    for name in ("vggish", "clap"):
        given = FeatureNetwork(name, nn.Flatten(), torch.device("cpu"))(rows)
        np.testing.assert_array_equal(given, rows.reshape(2, 24))
