"""Batches of packed clips on a device, with crops, flips and SpecAugment."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.random import Generator
from pydantic import NonNegativeInt
from torch import Tensor

from lavish.clip_splits import ClipSplit
from lavish.packing import PackedClips
from utils.errors import InputError
from utils.settings import settings_group
from video.frames import IMAGENET, Normalization

NORMALIZATIONS = {"imagenet": IMAGENET, "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}


@settings_group
class Augmentation:
    """Random augmentation of training clips; evaluation uses the central crop only."""

    random_crop: bool = False  # train on a random crop of the packed frames
    flip: bool = False  # flip half of the training clips horizontally
    max_masked_bands: NonNegativeInt = 0  # SpecAugment: largest number of masked frequency bands
    max_masked_frames: NonNegativeInt = 0  # SpecAugment: largest number of masked time frames


UNCHANGED = Augmentation()


@dataclass
class ClipBatch:
    """B clips of T frames."""

    clips: Tensor  # (B,) int64, indices in the split
    frames: Tensor | None  # (B, T, 3, H, W) float32, normalised; None if the network does not use them
    sound: Tensor | None  # (B, T, L, F) filter banks, or (B, samples) in [-1, 1]; float32
    labels: Tensor  # (B,) int64 or (B, T)
    features: Tensor | None = None  # (B, T, D), cached output of a network that is frozen below its head


@dataclass
class ClipBatches:
    """Batches of the N samples of a split. Raises InputError for larger images or more frames than packed."""

    split: ClipSplit
    pack: PackedClips
    device: torch.device
    image_size: int  # side of the network's input images in pixels
    num_frames: int | None = None  # T, evenly spread over the packed frames; None: all
    normalization: Normalization = IMAGENET
    frames: bool = True  # whether frames are read
    sound: bool = True  # whether audio is read
    augmentation: Augmentation = UNCHANGED  # of shuffled batches only
    accumulate: int = 1  # number of parts into which a shuffled batch is divided
    features: Tensor | None = None  # (N, T, D) on the device; if set, batches hold these in place of frames and sound

    def __post_init__(self):
        packed_frames, packed_size = self.pack.frames.shape[1:3]
        num_frames = self.num_frames or packed_frames
        if self.image_size > packed_size or num_frames > packed_frames:
            found = f"{num_frames} frames of {self.image_size} pixels"
            expected = f"at most the {packed_frames} frames of {packed_size} pixels that were packed"
            raise InputError("--image_size, --num_frames", found, expected, "Choose fewer, or pack more.")
        self.num_videos = self.split.num_clips
        self.augmented = self.augmentation != UNCHANGED
        self._rows = np.array([self.pack.row_of[source] for source in self.split.sources])
        self._chosen = ((np.arange(num_frames) + 0.5) * packed_frames / num_frames).astype(np.int64)
        self._mean, self._deviation = (torch.tensor(x, device=self.device).view(3, 1, 1) for x in self.normalization)

    def check_features(self) -> None:
        """Do nothing (the training loop calls it): packed clips are finite by construction."""

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[list[ClipBatch]]:
        """Yield batches of all samples as lists of parts; order and augmentation depend on seed and epoch only."""
        number = seed * 1_000_003 + epoch
        order = torch.randperm(self.num_videos, generator=torch.Generator().manual_seed(number))
        groups = order.split(batch_size // self.accumulate)
        parts = self._batches(groups, self.augmentation, np.random.default_rng(number))
        while batch := list(islice(parts, self.accumulate)):
            yield batch

    def in_order(self, batch_size: int) -> Iterator[ClipBatch]:
        """Yield all samples in the order of the split, without augmentation."""
        return self._batches(torch.arange(self.num_videos).split(batch_size), UNCHANGED, np.random.default_rng(0))

    def _batches(self, groups: tuple[Tensor, ...], augmentation: Augmentation, rng: Generator) -> Iterator[ClipBatch]:
        """Yield a batch for each group of sample indices; the next one is read while the current one is used."""
        if self.features is not None:
            for group in groups:
                labels = self._to_device(self.split.labels[group])
                yield ClipBatch(group, None, None, labels, self.features[group.to(self.device)])
            return
        with ThreadPoolExecutor(1) as reader:  # one thread, so that random numbers are drawn in order
            ahead = reader.submit(self._read, groups[0], augmentation, rng)
            for following in (*groups[1:], None):
                batch = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following, augmentation, rng)
                yield self._on_device(batch)

    def _read(self, group: Tensor, augmentation: Augmentation, rng: Generator) -> ClipBatch:
        """Read frames (B, T, H, W, 3) uint8 and audio as packed, and augment them."""
        frames = sound = None
        rows = self._rows[group.numpy()]
        if self.frames:
            frames = torch.from_numpy(np.stack([self._crop(row, augmentation, rng) for row in rows]))
        if self.sound:
            packed = self.pack.sound[rows]
            if self.pack.format.sound != "waveform":
                packed = packed[:, self._chosen]
                _mask(packed, augmentation, rng)
            sound = torch.from_numpy(packed)
        return ClipBatch(group, frames, sound, self.split.labels[group])

    def _crop(self, row: int, augmentation: Augmentation, rng: Generator) -> np.ndarray:
        """Return the frames of a clip with one common crop and flip: (T, H, W, 3) uint8."""
        size, room = self.image_size, self.pack.frames.shape[2] - self.image_size
        top, left = rng.integers(0, room + 1, 2) if augmentation.random_crop else (room // 2, room // 2)
        cropped = self.pack.frames[row, :, top : top + size, left : left + size][self._chosen]
        return cropped[:, :, ::-1] if augmentation.flip and rng.random() < 0.5 else cropped

    def _on_device(self, batch: ClipBatch) -> ClipBatch:
        """Move a batch to the device, normalise its pixels and scale 16-bit samples to [-1, 1]."""
        frames, sound = batch.frames, batch.sound
        if frames is not None:
            pixels = self._to_device(frames).permute(0, 1, 4, 2, 3).float() / 255  # (B, T, 3, H, W)
            frames = (pixels - self._mean) / self._deviation
        if sound is not None:
            sound = self._to_device(sound).float() / (2**15 if sound.dtype == torch.int16 else 1)
        return ClipBatch(batch.clips, frames, sound, self._to_device(batch.labels))

    def _to_device(self, tensor: Tensor) -> Tensor:
        pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return pinned.to(self.device, non_blocking=True)


def _mask(spectrograms: np.ndarray, augmentation: Augmentation, rng: Generator) -> None:
    """Mask frequency bands and time frames of every spectrogram in place (SpecAugment): (B, T, L, F); 0 is the mean."""
    for widest, axis in ((augmentation.max_masked_bands, -1), (augmentation.max_masked_frames, -2)):
        if widest:
            length = spectrograms.shape[axis]
            widths = rng.integers(0, min(widest, length) + 1, (*spectrograms.shape[:2], 1))
            starts = rng.integers(0, length - widths + 1)
            places = np.arange(length)
            kept = (places < starts) | (places >= starts + widths)  # (B, T, length)
            spectrograms *= np.expand_dims(kept, -3 - axis)  # the other of the last two axes
