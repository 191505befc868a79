"""Generate videos in the layout of UCF-101, with classes that need audio, visual, or both modalities.

    python -m simulation.generated_clips --output_dir data/generated_clips

There are two classes of each kind. Visual classes differ in their shape, audio classes in their tone; the two that need
both modalities combine the same two shapes with the same two tones, in different pairs. Position, size, colour,
loudness, exact pitch and noise are random.
"""

from utils.entry_point import run_entry_point

import argparse
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import Field
from tqdm import tqdm

from dataloaders.feature_origin import VIDEOS_MARKER
from utils.files import write_text
from utils.settings import settings_group
from video.video_encoding import write_video

NUM_GROUPS = 25  # as in UCF-101, whose lists contain whole groups
TEST_GROUPS = 7
FRAME_RATE, SAMPLE_RATE = 10, 16_000
# The modality that distinguishes a class from its counterpart, and the shapes and tones (hertz) of its clips.
CLASSES = {
    "AudioLow": ("audio", (("disc", 300.0),)),
    "AudioHigh": ("audio", (("disc", 1500.0),)),
    "VisualBars": ("visual", (("bars", 700.0),)),
    "VisualRing": ("visual", (("ring", 700.0),)),
    "PairSame": ("both", (("square", 450.0), ("cross", 2500.0))),
    "PairOther": ("both", (("square", 2500.0), ("cross", 450.0))),
    "Silent": ("visual", (("dots", None),)),  # without an audio track, like half of UCF-101's classes
}


def draw(shape: str, size: int, rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Draw a shape that drifts over a noisy background: (N, size, size, 3) uint8."""
    colour = rng.uniform(130, 255, 3)
    background = rng.uniform(0, 90, 3)
    radius = rng.uniform(0.22, 0.32) * size
    centre = rng.uniform(0.38, 0.62, 2) * size
    drift = rng.uniform(-0.05, 0.05, 2) * size
    frames = []
    for i in range(num_frames):
        y, x = np.mgrid[:size, :size] - (centre + drift * i / num_frames)[:, None, None]
        distance = np.hypot(x, y)
        inside = np.maximum(abs(x), abs(y)) < radius
        mask = {
            "disc": distance < radius,
            "ring": abs(distance - radius) < 0.25 * radius,
            "square": inside,
            "bars": inside & ((x + radius) // (radius / 2.5) % 2 == 0),
            "cross": inside & (np.minimum(abs(x), abs(y)) < 0.3 * radius),
            "dots": inside & ((x // 4 + y // 4) % 2 == 0),
        }[shape]
        image = np.where(mask[..., None], colour, background) + rng.normal(0, 12, (size, size, 3))
        frames.append(image.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def play(frequency: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return a noisy tone with one overtone: (L,) int16."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = frequency * rng.uniform(0.92, 1.08)
    tone = np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6)) + 0.4 * np.sin(4 * np.pi * pitch * time)
    sound = rng.uniform(0.08, 0.3) * tone + rng.normal(0, 0.02, len(time))
    return (sound * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)


def save_clip(path: Path, frames: np.ndarray, samples: np.ndarray | None, rate: int = FRAME_RATE) -> None:
    """Write frames (N, H, W, 3) uint8 and, if there is audio, samples (L,) int16 at 16 kHz."""
    write_video(path, frames, rate, None if samples is None else samples[None], SAMPLE_RATE)


@settings_group
class ClipVideos:
    """Number, length and size of the generated videos."""

    clips_per_group: Annotated[int, Field(ge=1, le=99)] = 4  # file names have two digits
    seconds: Annotated[float, Field(ge=1 / FRAME_RATE, le=3600)] = 2.0
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] = 64  # pixels
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


def write_data(folder: Path, settings: ClipVideos) -> None:
    """Write videos, lists and `generated_videos.yaml`, by which reports mark the data as generated."""
    rng, per_group = np.random.default_rng(settings.seed), settings.clips_per_group
    lists: dict[str, list[str]] = {"testlist01": [], "trainlist01": []}
    clips = list(product(enumerate(CLASSES, start=1), range(1, NUM_GROUPS + 1), range(1, per_group + 1)))
    for (number, kind), group, clip in tqdm(clips, desc="writing videos", unit="clip", mininterval=1):
        _, looks = CLASSES[kind]
        shape, frequency = looks[(group * per_group + clip) % len(looks)]
        name = f"{kind}/v_{kind}_g{group:02d}_c{clip:02d}.avi"
        frames = draw(shape, settings.size, rng, round(settings.seconds * FRAME_RATE))
        samples = None if frequency is None else play(frequency, settings.seconds, rng)
        save_clip(folder / "videos" / name, frames, samples)
        if group <= TEST_GROUPS:
            lists["testlist01"].append(f"{name}\n")
        else:
            lists["trainlist01"].append(f"{name} {number}\n")
    lists["classInd"] = [f"{number} {kind}\n" for number, kind in enumerate(CLASSES, start=1)]
    for name, lines in lists.items():
        write_text(folder / "lists" / f"{name}.txt", "".join(lines))
    needs = {kind: needed for kind, (needed, _) in CLASSES.items()}
    write_text(folder / VIDEOS_MARKER, yaml.safe_dump(asdict(settings) | {"needs": needs}, sort_keys=False))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--clips_per_group", type=int, default=4, help="clips in each of a class's 25 groups")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    parser.add_argument("--seed", type=int, default=0)
    settings = vars(parser.parse_args(argv))
    write_data(settings.pop("output_dir"), ClipVideos(**settings))


if __name__ == "__main__":
    run_entry_point(main)
