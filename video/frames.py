"""Sampling of a video's frames, and preprocessing of their pixels for each network.

The sources are the authors' extraction scripts; docs/extraction.md describes all recipes. N frames at 8 per second, T
segments of one second, images (H, W, 3) uint8 RGB.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

FRAMES_PER_SECOND = 8


def spread_frames(num_frames: int, count: int) -> np.ndarray:
    """Return the indices of `count` evenly spread frames of N, rounded, as for LLP's and VALOR's features: int64."""
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def lavish_frames(num_frames: int, count: int) -> np.ndarray:
    """Return the indices of `count` evenly spread frames of N, rounded down as in LAVISH: int64."""
    return np.linspace(0, num_frames - 1, count).astype(np.int64)


def centre_frames(times: np.ndarray, num_segments: int) -> np.ndarray:
    """Return the index of the frame closest to each segment's centre (UWAV's paper): N times in seconds -> (T,)."""
    middles = np.arange(num_segments) + 0.5  # (T,)
    return np.abs(times[None, :] - middles[:, None]).argmin(1)


class Normalization(NamedTuple):
    """Mean and standard deviation by which a network's RGB values in [0, 1] are normalised."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = Normalization((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
LITE2 = Normalization((127 / 255,) * 3, (128 / 255,) * 3)
NORMALIZATIONS = {"res152": IMAGENET, "r2plus1d_18": KINETICS, "clip": CLIP, "efficientnet_lite2": LITE2}


def resnet152_pixels(image: np.ndarray) -> np.ndarray:
    """Resize the shorter side to 256, bilinear with antialiasing, and crop the centre: (224, 224, 3) uint8."""
    return _central_square(image, 256, 224, Image.Resampling.BILINEAR)


def lite2_pixels(image: np.ndarray) -> np.ndarray:
    """Resize the shorter side to 297 (260 / 0.875), bicubic, and crop the centre: (260, 260, 3) uint8."""
    return _central_square(image, 297, 260, Image.Resampling.BICUBIC)


def _central_square(image: np.ndarray, shorter_side: int, side: int, resampling: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    size = tuple(int(shorter_side * length / min(height, width)) for length in (width, height))
    left, top = (round((whole - side) / 2) for whole in size)
    return np.asarray(Image.fromarray(image).resize(size, resampling).crop((left, top, left + side, top + side)))


def r2plus1d_pixels(image: np.ndarray) -> np.ndarray:
    """Squash an image to (112, 112, 3) uint8, bilinear with antialiasing."""
    return np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BILINEAR))


def clip_pixels(image: np.ndarray) -> np.ndarray:
    """Squash an image to (224, 224, 3) float32 in [0, 1], bilinear without antialiasing (VALOR; CLIP itself crops)."""
    return _resample(image, 224, "bilinear")


def lavish_pixels(image: np.ndarray, size: int) -> np.ndarray:
    """Squash an image to (size, size, 3) float32, bicubic without antialiasing: 224 for the ViT, 192 for the SwinV2."""
    return _resample(image, size, "bicubic")


def _resample(image: np.ndarray, size: int, kernel: str) -> np.ndarray:
    """Resize (H, W, 3) uint8 to (size, size, 3) float32 in [0, 1], like torch's `interpolate` without antialiasing."""
    rows, row_weights = _taps(image.shape[0], size, kernel)  # (size, K)
    columns, column_weights = _taps(image.shape[1], size, kernel)  # (size, K)
    resized = np.zeros((size, size, 3), np.float32)
    for row, row_weight in zip(rows.T, row_weights.T, strict=True):
        lines = image[row]  # (size, W, 3)
        across = np.zeros_like(resized)
        for column, column_weight in zip(columns.T, column_weights.T, strict=True):
            across += lines[:, column] * column_weight[:, None]
        resized += across * row_weight[:, None, None]
    return resized / np.float32(255)


def _taps(old: int, new: int, kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the K source pixels of each new pixel of a row, and their weights: (new, K) int64 and float32."""
    position = (np.arange(new) + 0.5) * (old / new) - 0.5
    if kernel == "bilinear":
        position = position.clip(min=0)  # as in torch: no extrapolation before the first pixel's centre
    first = np.floor(position).astype(np.int64)
    t = (position - first)[:, None]
    if kernel == "bilinear":
        offsets, weights = np.arange(2), np.concatenate([1 - t, t], axis=1)
    else:
        offsets = np.arange(-1, 3)
        distance = np.abs(t - offsets)
        a = -0.75  # the coefficient of torch's bicubic kernel
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, far)
    return (first[:, None] + offsets).clip(0, old - 1), weights.astype(np.float32)
