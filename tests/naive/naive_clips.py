"""Clips as LAVISH's released code reads them."""

import numpy as np
from torch.utils.data import Dataset

from lavish.clip_splits import ClipSource
from lavish.packing import ClipFormat, decode_clip
from video.frames import IMAGENET


class ClipFiles(Dataset):
    """A video's frames and filter banks from its file, whenever it is asked for."""

    def __init__(self, sources: tuple[ClipSource, ...], form: ClipFormat):
        self.sources, self.form = sources, form

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        frames, sound, _ = decode_clip(self.sources[n], self.form)
        unit = frames.astype(np.float32) / np.float32(255)
        normalized = (unit - np.float32(IMAGENET.mean)) / np.float32(IMAGENET.deviation)
        return np.moveaxis(normalized, -1, -3), sound.astype(np.float32)
