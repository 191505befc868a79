"""Small stand-ins for the feature networks, for demonstrations with drawn weights. No published features are theirs.

Inputs are those of the networks that they stand for.
"""

import math

from torch import Tensor, nn

from video.backbones.clap import CLAP, HTSAT_TINY_FUSION
from video.backbones.clip import CLIP, VIT_L_14


class ConvolutionStack(nn.Sequential):
    """Strided convolutions, averaged into a few places, normalised: (B, channels, ...) -> (B, D).

    Without biases and with a normalised output, so that drawn weights keep what tells inputs apart.

    Args:
        dimensions: 2 for images, 3 for clips.
        widths: of the convolutions, each of which halves every side.
        places: sides of the grid that the last maps are averaged into.
    """

    def __init__(self, dimensions: int, channels: int, widths: tuple[int, ...], places: tuple[int, ...]):
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        layers: list[nn.Module] = []
        for width in widths:
            layers += [convolution(channels, width, 3, stride=2, padding=1, bias=False), nn.ReLU()]
            channels = width
        pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dimensions](places)
        num_features = channels * math.prod(places)
        super().__init__(*layers, pool, nn.Flatten(), nn.LayerNorm(num_features, elementwise_affine=False))


class SmallVGGish(nn.Module):
    """For VGGish: (B, 96, 64) -> (B, 128)."""

    def __init__(self):
        super().__init__()
        self.stack = ConvolutionStack(2, 1, (8, 16), (1, 8))

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.stack(log_mel[:, None])


def small_image_network() -> nn.Module:
    """For ResNet-152: (B, 3, 224, 224) -> (B, 256)."""
    return nn.Sequential(nn.AvgPool2d(2), ConvolutionStack(2, 3, (8, 16, 64), (2, 2)))


def small_clip_network() -> nn.Module:
    """For R(2+1)D-18: (B, 3, 8, 112, 112) -> (B, 256)."""
    return ConvolutionStack(3, 3, (8, 16, 64), (1, 2, 2))


def small_clip() -> CLIP:
    """Images (B, 3, 224, 224) and texts -> (B, 256)."""
    tower = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 3}
    text = VIT_L_14["text_config"] | tower
    return CLIP(config={"projection_dim": 256, "vision_config": tower | {"patch_size": 32}, "text_config": text})


def small_clap() -> CLAP:
    """Mel spectrograms (B, 1001, 64) and texts -> (B, 256)."""
    audio = HTSAT_TINY_FUSION["audio_config"] | {
        "patch_size": 8,
        "patch_stride": [8, 8],
        "patch_embeds_hidden_size": 32,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "depths": [1, 1, 1],
        "num_attention_heads": [1, 2, 4],
    }
    tower = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = HTSAT_TINY_FUSION["text_config"] | tower
    return CLAP(config={"projection_dim": 256, "audio_config": audio, "text_config": text})
