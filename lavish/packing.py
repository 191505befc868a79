"""Decoded clips, packed once: frames as uint8 and sound beside them, memory-mapped, so that no epoch decodes.

A packed folder holds `frames.npy` (R, T, S, S, 3) uint8, `sound.npy` and `pack.json`, which names the R items and the
files that they are from. `done.npy` says which items are whole, and which of them have no sound. While they are being
written, `packing.json` stands in place of `pack.json`: a killed run goes on from there. One process at a time writes.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lavish.clip_splits import ClipSource
from utils.errors import InputError
from utils.files import exclusive, write_text
from video.filter_banks import (
    FILTER_BANKS,
    SAMPLE_RATE,
    centred_starts,
    clip_filter_banks,
    window_starts,
)
from video.frames import lavish_frames, lavish_pixels
from video.video_decoding import decode_video

SOUNDS = (*FILTER_BANKS, "waveform")
CHOICES = ("released", "centres")
VERSION = 2  # of the files' layout
PENDING, WHOLE, SILENT = range(3)  # in done.npy
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


def decode_clip(source: ClipSource, form: ClipFormat) -> tuple[np.ndarray, np.ndarray, bool]:
    """Frames (T, S, S, 3) uint8 and sound of one item, and whether there is any; if not, the sound is silence.

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
    first, last = (round(t * SAMPLE_RATE) if t else None for t in (source.start, end))
    samples = video.sounds.get(SAMPLE_RATE, np.zeros(0, np.int16))[first:last]
    return frames, _packed_sound(samples, form), len(samples) > 0


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
    packed_dir: Path,
    sources: tuple[ClipSource, ...],
    form: ClipFormat,
    allow_missing: bool = False,
    silent: str = "kept",
) -> PackedClips:
    """Open the pack of these items, making it first where it is absent, unfinished or out of date.

    Args:
        packed_dir: takes one folder a format.
        allow_missing: leave out items whose files cannot be decoded, and say which, instead of raising.
        silent: what happens to items without sound: "kept" (as silence), "left out" or "refused". How many there are,
            and the first of them, is said in any case.

    Raises:
        InputError: when files cannot be decoded (all others are packed first, and all that failed are named), when
            items are refused, nothing is left, or the disk is full.
    """
    folder = packed_dir / form.folder_name
    manifest = _manifest(sources, form)
    shapes = _shapes(len(sources), form)
    arrays = _open_whole(folder, manifest, shapes)
    if arrays is None:
        with exclusive(folder, "Free some space, or name another --packed_dir."):
            arrays = _open_whole(folder, manifest, shapes)  # another process may have packed it meanwhile
            if arrays is None:
                _pack(folder, sources, form, manifest, shapes, allow_missing)
                arrays = _open_arrays(folder, shapes, "r")
    done = np.array(arrays["done"])
    _report(folder, sources, done == PENDING, "that could not be decoded", "left out" if allow_missing else "refused")
    _report(folder, sources, done == SILENT, "without sound", silent)
    kept = done > PENDING if silent == "kept" else done == WHOLE
    if not kept.any():
        raise InputError(folder, "no item that can be used", "one or more", "Look at the files named above.")
    rows = {source.name: row for row, source in enumerate(sources) if kept[row]}
    return PackedClips(form, rows, arrays["frames"], arrays["sound"])


def _report(folder: Path, sources: tuple[ClipSource, ...], chosen: np.ndarray, kind: str, fate: str) -> None:
    """Say how many items are of a kind, which, and what happens to them. Raises InputError when they are refused."""
    names = [source.name for source, one in zip(sources, chosen, strict=True) if one]
    if not names:
        return
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    found = f"{len(names)} of {len(sources)} items {kind}: {shown}"
    if fate == "refused":
        way_out = "Replace their files, or leave them out with --allow_missing."
        way_out += " --no-sound_only keeps them as silence." if kind == "without sound" else ""
        raise InputError(folder, found, "none", way_out)
    tqdm.write(f"{folder}: {fate}{', as silence' if fate == 'kept' else ''}: {found}")


_Shapes = dict[str, tuple[tuple[int, ...], type]]


def _shapes(num_items: int, form: ClipFormat) -> _Shapes:
    """Shape and type of each file of a pack."""
    return {
        "frames": ((num_items, form.num_frames, form.size, form.size, 3), np.uint8),
        "sound": ((num_items, *form.sound_shape), form.sound_type),
        "done": ((num_items,), np.uint8),
    }


def _open_whole(folder: Path, manifest: dict, shapes: _Shapes) -> dict[str, np.ndarray] | None:
    """The arrays of a finished pack of these items; None where there is none, or it is damaged."""
    return _open_arrays(folder, shapes, "r") if _read_json(folder / "pack.json") == manifest else None


def _open_arrays(folder: Path, shapes: _Shapes, mode: str) -> dict[str, np.ndarray] | None:
    """The memory-mapped files of a pack; None where one is absent, damaged or of another shape."""
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in shapes}
    except (OSError, ValueError, EOFError):
        return None
    fits = all(
        isinstance(array, np.memmap) and (array.shape, array.dtype) == (shapes[name][0], np.dtype(shapes[name][1]))
        for name, array in arrays.items()
    )
    return arrays if fits else None


def _manifest(sources: tuple[ClipSource, ...], form: ClipFormat) -> dict:
    stats = [source.path.stat() for source in sources]
    items = [
        [source.name, source.start, source.seconds, stat.st_size, stat.st_mtime_ns]
        for source, stat in zip(sources, stats, strict=True)
    ]
    return {"version": VERSION, "format": asdict(form), "items": items}


def _read_json(path: Path) -> dict | None:
    """None when there is no such file, or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _pack(
    folder: Path,
    sources: tuple[ClipSource, ...],
    form: ClipFormat,
    manifest: dict,
    shapes: _Shapes,
    allow_missing: bool,
) -> None:
    """Decode in many threads, write in one. What a killed run has finished is kept."""
    arrays = _open_arrays(folder, shapes, "r+") if _read_json(folder / "packing.json") == manifest else None
    if arrays is None:
        for name in ("pack.json", "packing.json"):
            (folder / name).unlink(missing_ok=True)
        _need_room(folder, sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes.values()))
        arrays = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
            for name, (shape, kind) in shapes.items()
        }
        write_text(folder / "packing.json", json.dumps(manifest))
    todo = np.flatnonzero(arrays["done"] == PENDING).tolist()
    tqdm.write(f"{folder}: packing {len(todo)} of {len(sources)} items")
    broken: list[InputError] = []

    def decode(row: int) -> tuple[np.ndarray, np.ndarray, bool] | InputError:
        try:
            return decode_clip(sources[row], form)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool, tqdm(total=len(todo), desc="packing", unit="clip", mininterval=1) as progress:
        for first in range(0, len(todo), FLUSH_EVERY):
            rows = todo[first : first + FLUSH_EVERY]
            decoded_rows: dict[int, int] = {}
            for row, decoded in zip(rows, pool.map(decode, rows), strict=True):
                if isinstance(decoded, InputError):
                    broken.append(decoded)
                else:
                    arrays["frames"][row], arrays["sound"][row], has_sound = decoded
                    decoded_rows[row] = WHOLE if has_sound else SILENT
                progress.update()
            for name in ("frames", "sound"):
                arrays[name].flush()
            arrays["done"][list(decoded_rows)] = list(decoded_rows.values())  # once they are on the disk
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
