"""A small UCF-101 of generated videos, and the flags of a small network for it."""

from pathlib import Path

import numpy as np

from simulation.generated_clips import draw, play, save_clip

CLASSES = ("Clap", "Drum", "Mime")  # the last is silent


def write_tiny_ucf(folder: Path, seconds: float = 1.2, clips: int = 2) -> Path:
    """Three classes, groups 1 to 4, of which the first is the test split: clips of 12 frames, 24 pixels wide."""
    rng = np.random.default_rng(0)
    lists = {"train": [], "test": []}
    for number, name in enumerate(CLASSES, start=1):
        for group in range(1, 5):
            for clip in range(1, clips + 1):
                path = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                frames = draw("disc" if name == "Clap" else "bars", 24, rng, round(10 * seconds))
                samples = None if name == "Mime" else play(300.0 * number, seconds, rng)
                save_clip(folder / "videos" / path, frames, samples)
                lists["test" if group == 1 else "train"].append(path if group == 1 else f"{path} {number}")
    (folder / "lists").mkdir()
    (folder / "lists" / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, 1)))
    for name, lines in lists.items():
        (folder / "lists" / f"{name}list01.txt").write_text("\n".join(lines) + "\n")
    return folder


def tiny_flags(folder: Path, *more: str) -> list[str]:
    """Flags of lavish/train_classifier.py for the tiny data set and a tiny network."""
    where = ["--dataset", "UCF101", "--data_dir", str(folder), "--annotations_dir", str(folder / "lists")]
    packed = ["--image_size", "16", "--packed_frames", "2", "--frame_rate", "10", "--sound", "small"]
    backbone = ["--backbone", "vit_tiny_patch16_224", "--backbone_weights", "random", "--backbone_sizes"]
    sizes = ["patch_size=8", "embed_dim=16", "depth=1", "num_heads=2", "--head_dim", "8", "--reduction", "4"]
    recipe = ["--num_epochs", "3", "--batch_size", "4", "--lr", "1e-2", "--head_lr", "1e-2", "--device", "cpu"]
    return [*where, *packed, *backbone, *sizes, *recipe, "--output_dir", str(folder / "runs"), *more]
