"""Decoded clips, packed once: frames as uint8 and sound beside them, memory-mapped, so that no epoch decodes.

A packed folder holds `frames.npy` (R, T, S, S, 3) uint8, `sound.npy` and `pack.json`, which names the R items and the
files that they are from. While it is being written, `packing.json` stands in place of `pack.json` and `done.npy` says
which items are whole: a killed run goes on from there. One process at a time writes.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataloaders.clips.splits import ClipSource
from dataloaders.video.decoding import decode_video
from dataloaders.video.filter_banks import (
    FILTER_BANKS,
    SAMPLE_RATE,
    centred_starts,
    clip_filter_banks,
    window_starts,
)
from dataloaders.video.frames import lavish_frames, lavish_pixels
from utils.errors import InputError
from utils.files import exclusive, write_text

SOUNDS = (*FILTER_BANKS, "waveform")
CHOICES = ("released", "centres")
FLUSH_EVERY = 64  # items
LOST_SECONDS = 0.25  # that a whole clip may lack of what its file declares; UCF-101's shortest last a second


@dataclass(frozen=True)
class ClipFormat:
    """What of a clip is packed.

    The "released" choice takes frames and sound as LAVISH does for AVE: the first and the last frame and those between
    them. "centres" takes the middles of T equal parts.
    """

    num_frames: int = 10  # T
    size: int = 224  # S, pixels; larger than the network's images where these are random crops
    frame_rate: float = 8.0  # frames a second that T are chosen from
    sound: str = "vit"  # filter banks of the "vit", the "swin", "small" ones, or the "waveform"
    choice: str = "released"
    waveform_seconds: float = 10.0  # of a waveform; cut, or silence after it

    @property
    def folder_name(self) -> str:
        length = f"_{self.waveform_seconds:g}s" if self.sound == "waveform" else ""
        return f"{self.choice}_{self.num_frames}x{self.size}_at{self.frame_rate:g}_{self.sound}{length}"

    @property
    def sound_shape(self) -> tuple[int, ...]:
        if self.sound == "waveform":
            return (round(self.waveform_seconds * SAMPLE_RATE),)
        bank = FILTER_BANKS[self.sound]
        return (self.num_frames, bank.num_frames, bank.num_bands)

    @property
    def sound_type(self) -> type:
        return np.int16 if self.sound == "waveform" else np.float16


@dataclass(frozen=True)
class PackedClips:
    """An open pack. R items, T frames of S x S pixels each."""

    format: ClipFormat
    row_of: dict[str, int]  # by the item's name
    frames: np.ndarray  # (R, T, S, S, 3) uint8, memory-mapped
    sound: np.ndarray  # (R, T, L, F) float16 or (R, samples) int16, memory-mapped


def decode_clip(source: ClipSource, form: ClipFormat) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, S, S, 3) uint8 and sound of one item; without an audio track it is silent.

    Raises:
        InputError: when the file cannot be decoded, or ends before the item starts.
    """
    end = None if source.seconds is None else source.start + source.seconds
    video = decode_video(source.path, form.frame_rate, (SAMPLE_RATE,), lost_seconds=LOST_SECONDS)
    first, last = (round(t * form.frame_rate) if t else None for t in (source.start, end))
    images = video.frames[first:last]
    if not images:
        found = f"{video.duration:.1f} s, which end before the item {source.name} starts"
        raise InputError(source.path, found, f"more than {source.start:.1f} s", "Download it again, or survey anew.")
    if form.choice == "released":
        chosen = lavish_frames(len(images), form.num_frames)
    else:
        chosen = ((np.arange(form.num_frames) + 0.5) * len(images) / form.num_frames).astype(np.int64)
    pixels = {index: _as_bytes(lavish_pixels(images[index], form.size)) for index in sorted({*chosen.tolist()})}
    frames = np.stack([pixels[index] for index in chosen.tolist()])
    samples = video.sounds.get(SAMPLE_RATE, np.zeros(round(video.duration * SAMPLE_RATE), np.int16))
    first, last = (round(t * SAMPLE_RATE) if t else None for t in (source.start, end))
    return frames, _packed_sound(samples[first:last], form)


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255).clip(0, 255).astype(np.uint8)


def _packed_sound(samples: np.ndarray, form: ClipFormat) -> np.ndarray:
    """int16 samples -> what is packed of them."""
    if form.sound == "waveform":
        samples = samples[: form.sound_shape[0]]
        return np.pad(samples, (0, form.sound_shape[0] - len(samples)))
    starts_of = window_starts if form.choice == "released" else centred_starts
    starts = starts_of(len(samples), form.num_frames)
    banks = clip_filter_banks(torch.from_numpy(samples).float() / 2**15, starts, FILTER_BANKS[form.sound])
    return banks.numpy().astype(np.float16)


def open_pack(
    packed_dir: Path, sources: tuple[ClipSource, ...], form: ClipFormat, allow_missing: bool = False
) -> PackedClips:
    """Open the pack of these items, making it first where it is absent, unfinished or out of date.

    Args:
        packed_dir: takes one folder a format.
        allow_missing: leave out items whose files cannot be decoded, and say which, instead of raising.

    Raises:
        InputError: when files cannot be decoded (all others are packed first, and all that failed are named), or the
            disk is full.
    """
    folder = packed_dir / form.folder_name
    manifest = _manifest(sources, form)
    if _read_json(folder / "pack.json") != manifest:
        with exclusive(folder, "Free some space, or name another --packed_dir."):
            if _read_json(folder / "pack.json") != manifest:  # another process may have packed it meanwhile
                _pack(folder, sources, form, manifest, allow_missing)
    done = np.load(folder / "done.npy")
    if broken := [source.name for source, whole in zip(sources, done, strict=True) if not whole]:
        if not allow_missing:
            found = f"{len(broken)} items that could not be decoded when they were packed: {', '.join(broken[:10])}"
            raise InputError(folder, found, "every item", "Replace their files, or use --allow_missing.")
        tqdm.write(f"{folder}: leaving out {len(broken)} items that could not be decoded: {', '.join(broken[:10])}")
    return PackedClips(
        form,
        {source.name: row for row, source in enumerate(sources) if done[row]},
        np.load(folder / "frames.npy", mmap_mode="r"),
        np.load(folder / "sound.npy", mmap_mode="r"),
    )


def _manifest(sources: tuple[ClipSource, ...], form: ClipFormat) -> dict:
    stats = [source.path.stat() for source in sources]
    items = [
        [source.name, source.start, source.seconds, stat.st_size, stat.st_mtime_ns]
        for source, stat in zip(sources, stats, strict=True)
    ]
    return {"format": asdict(form), "items": items}


def _read_json(path: Path) -> dict | None:
    """None when there is no such file, or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _pack(folder: Path, sources: tuple[ClipSource, ...], form: ClipFormat, manifest: dict, allow_missing: bool) -> None:
    """Decode in many threads, write in one. What a killed run has finished is kept."""
    shapes = {
        "frames": ((len(sources), form.num_frames, form.size, form.size, 3), np.uint8),
        "sound": ((len(sources), *form.sound_shape), form.sound_type),
        "done": ((len(sources),), np.uint8),
    }
    if _read_json(folder / "packing.json") == manifest:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
    else:
        for name in ("pack.json", "packing.json"):
            (folder / name).unlink(missing_ok=True)
        _need_room(folder, sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes.values()))
        arrays = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
            for name, (shape, kind) in shapes.items()
        }
        write_text(folder / "packing.json", json.dumps(manifest))
    todo = np.flatnonzero(arrays["done"] == 0).tolist()
    tqdm.write(f"{folder}: packing {len(todo)} of {len(sources)} items")
    broken: list[InputError] = []

    def decode(row: int) -> tuple[np.ndarray, np.ndarray] | InputError:
        try:
            return decode_clip(sources[row], form)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool, tqdm(total=len(todo), desc="packing", unit="clip", mininterval=1) as progress:
        for first in range(0, len(todo), FLUSH_EVERY):
            rows = todo[first : first + FLUSH_EVERY]
            whole = []
            for row, decoded in zip(rows, pool.map(decode, rows), strict=True):
                if isinstance(decoded, InputError):
                    broken.append(decoded)
                else:
                    arrays["frames"][row], arrays["sound"][row] = decoded
                    whole.append(row)
                progress.update()
            for name in ("frames", "sound"):
                arrays[name].flush()
            arrays["done"][whole] = 1  # once they are on the disk
            arrays["done"].flush()
    if broken and (not allow_missing or len(broken) == len(sources)):
        listed = "\n  ".join(str(error) for error in broken[:10])
        found = f"{len(broken)} items that cannot be decoded:\n  {listed}\n"
        way_out = "Replace the files, or go on without them with --allow_missing; the others are packed."
        raise InputError(folder, found, "whole videos", way_out)
    (folder / "packing.json").rename(folder / "pack.json")


def _need_room(folder: Path, num_bytes: int) -> None:
    """Raise InputError when a disk has no room for a pack: writing to a memory map would end in a bus error."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        found = f"{free / 1e9:.1f} GB free"
        raise InputError(folder, found, f"{num_bytes / 1e9:.1f} GB for the pack", "Name another --packed_dir.")
