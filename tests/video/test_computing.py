"""Feature networks on a device: the pixels that reach them."""

import numpy as np
import pytest
import torch
from torch import nn

from video.extraction.computing import FeatureNetwork

# Means and deviations of red, green and blue that the published weights were trained with.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
OPENAI = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


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
