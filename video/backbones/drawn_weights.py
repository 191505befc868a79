"""Randomly initialised weights from a fixed seed, and small stand-ins for the feature networks, for demonstrations.

A weight depends only on its name, its shape and the seed, and so is the same on every machine. Stand-ins have the
inputs of the networks that they replace. B rows.
"""

import math
import zlib
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from video.backbones.clip_clap import CLAP, CLIP, HTSAT_TINY_FUSION, VIT_L_14, tower
from video.backbones.pe_audio import PEAudio


def draw(name: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """Return a random float32 weight.

    From x, normal and seeded with the CRC-32 of the name plus `seed`: variances are 1 + 0.1 |x|, other scalars and
    vectors 1 + 0.1 x if called `weight`, else 0.1 x; matrices and kernels are x / sqrt(inputs of an output).
    """
    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed))
    if name.endswith("running_var"):
        return 1 + 0.1 * x.abs()
    if len(shape) <= 1:
        return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    return x / math.sqrt(x[0].numel())


@torch.no_grad()
def draw_weights_of(network: nn.Module, seed: int = 0) -> None:
    """Initialise a network's parameters and running statistics randomly; other buffers remain as they are."""
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    for name, values in network.state_dict().items():
        if name in parameters or name.endswith(("running_mean", "running_var")):
            values.copy_(draw(name, values.shape, seed))


def convolution_stack(channels: int, widths: tuple[int, ...], places: tuple[int, ...]) -> nn.Sequential:
    """Return strided convolutions, pooled into a grid of size `places` and normalised: (B, channels, ...) -> (B, D)."""
    convolution, pool = {2: (nn.Conv2d, nn.AdaptiveAvgPool2d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[len(places)]
    layers: list[nn.Module] = []
    for width in widths:
        # without biases, so that features of different inputs differ even with random weights
        layers += [convolution(channels, width, 3, stride=2, padding=1, bias=False), nn.ReLU()]
        channels = width
    norm = nn.LayerNorm(channels * math.prod(places), elementwise_affine=False)
    return nn.Sequential(*layers, pool(places), nn.Flatten(), norm)


def small_vggish() -> nn.Module:
    """Return a stand-in for VGGish: (B, 96, 64) -> (B, 128)."""
    stack = convolution_stack(1, (8, 16), (1, 8))
    return nn.Sequential(OrderedDict(channel=nn.Unflatten(1, (1, 96)), stack=stack))


def small_image_network() -> nn.Module:
    """Return a stand-in for ResNet-152: (B, 3, 224, 224) -> (B, 256)."""
    return nn.Sequential(nn.AvgPool2d(2), convolution_stack(3, (8, 16, 64), (2, 2)))


def small_clip_network() -> nn.Module:
    """Return a stand-in for R(2+1)D-18: (B, 3, 8, 112, 112) -> (B, 256)."""
    return convolution_stack(3, (8, 16, 64), (1, 2, 2))


def small_clip() -> CLIP:
    """Return a stand-in for CLIP: images (B, 3, 224, 224) and texts -> (B, 256)."""
    sizes = tower(192, 384, 3, 3)
    vision, text = sizes | {"patch_size": 32}, VIT_L_14["text_config"] | sizes
    return CLIP(config={"projection_dim": 256, "vision_config": vision, "text_config": text})


def small_clap() -> CLAP:
    """Return a stand-in for CLAP: mel spectrograms (B, 1001, 64) and texts -> (B, 256)."""
    patches = {"patch_size": 8, "patch_stride": [8, 8], "patch_embeds_hidden_size": 32}
    layers = {"hidden_size": 128, "num_hidden_layers": 3, "depths": [1, 1, 1], "num_attention_heads": [1, 2, 4]}
    audio = HTSAT_TINY_FUSION["audio_config"] | patches | layers
    text = HTSAT_TINY_FUSION["text_config"] | tower(192, 384, 2, 3)
    return CLAP(config={"projection_dim": 256, "audio_config": audio, "text_config": text})


def small_pe_audio() -> PEAudio:
    """Return a stand-in for PE-A-Frame: waves (B, samples) and texts -> (B, F, 256) and (B, 256)."""
    codec = {"encoder_hidden_size": 4, "hidden_size": 64, "codebook_dim": 16, "decoder_hidden_size": 64}
    audio = tower(128, 256, 2, 2) | {"head_dim": 64, "dac_config": codec}
    return PEAudio(config={"audio_config": audio, "text_config": {"model_type": "modernbert"} | tower(256, 384, 3, 4)})
