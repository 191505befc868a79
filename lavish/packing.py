"""Packs of clips that were decoded once: memory-mapped uint8 frames and audio, so that training decodes nothing.

A pack is a folder of `frames.npy` (R, T, S, S, 3) uint8, `sound.npy`, `pack.json` with the names and files of the R
items, and `done.npy`, which marks packed items and those without audio. One process at a time writes it in a hidden
folder, from which a killed run resumes, and then renames that folder; a run that still reads an earlier pack keeps its
clips.
"""

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lavish.clip_splits import ClipSource, leave_out
from utils.errors import InputError
from utils.files import exclusive, write_error, write_text
from video.filter_banks import FILTER_BANKS, SAMPLE_RATE, centred_starts, clip_filter_banks, window_starts
from video.frames import lavish_frames, lavish_pixels
from video.video_decoding import decode_video

SOUNDS = (*FILTER_BANKS, "waveform")
CHOICES = ("released", "centres")
VERSION = 2  # of the file layout
PENDING, WHOLE, SILENT = range(3)  # values in done.npy
FLUSH_EVERY = 64  # items between two writes to disk
MANIFEST_FILE = "pack.json"
ANOTHER_FOLDER = "Free some space, or choose another --packed_dir."
LOST_SECONDS = 0.25  # tolerated difference from a file's declared duration; UCF-101's shortest clips last one second


@dataclass(frozen=True)
class ClipFormat:
    """Format of packed clips."""

    num_frames: int = 10  # T
    size: int = 224  # S, pixels; larger than the network's input if that is a random crop
    frame_rate: float = 8.0  # frames per second from which the T frames are sampled
    sound: str = "vit"  # a filter bank, "vit", "swin" or "small", or the "waveform"
    choice: str = "released"  # first to last frame, as LAVISH on AVE; "centres": centres of T equal parts
    waveform_seconds: float = 10.0  # length to which waveforms are cut or padded with silence

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
    def arrays(self) -> dict[str, np.dtype]:
        """Return the data type and shape of an item in each file of a pack."""
        return {
            "frames": np.dtype((np.uint8, (self.num_frames, self.size, self.size, 3))),
            "sound": np.dtype((np.int16 if self.sound == "waveform" else np.float16, self.sound_shape)),
            "done": np.dtype(np.uint8),
        }


@dataclass(frozen=True)
class PackedClips:
    """An open pack. R items, T frames of S x S pixels each."""

    format: ClipFormat
    row_of: dict[str, int]  # row of each item by its name
    frames: np.ndarray  # (R, T, S, S, 3) uint8, memory-mapped
    sound: np.ndarray  # (R, T, L, F) float16 or (R, samples) int16, memory-mapped


def decode_clip(source: ClipSource, form: ClipFormat) -> tuple[np.ndarray, np.ndarray, bool]:
    """Decode one item into frames (T, S, S, 3) uint8, audio (silence if it has none), and whether it has audio."""
    video = decode_video(source.path, form.frame_rate, (SAMPLE_RATE,), lost_seconds=LOST_SECONDS)
    images = video.frames[source.part(form.frame_rate)]
    if not images:
        found = f"{video.duration:.1f} s of video, which ends before item {source.name} starts"
        raise InputError(source.path, found, f"over {source.start:.1f} s", "Download it again, or delete survey.csv.")
    if form.choice == "released":
        chosen = lavish_frames(len(images), form.num_frames)
    else:
        chosen = ((np.arange(form.num_frames) + 0.5) * len(images) / form.num_frames).astype(np.int64)
    distinct, places = np.unique(chosen, return_inverse=True)  # resizes each frame once
    resized = [np.rint(lavish_pixels(images[n], form.size) * 255).clip(0, 255).astype(np.uint8) for n in distinct]
    frames = np.stack(resized)[places]
    samples = video.sounds.get(SAMPLE_RATE, np.zeros(0, np.int16))[source.part(SAMPLE_RATE)]
    if form.sound == "waveform":
        sound = samples[: form.sound_shape[0]]
        return frames, np.pad(sound, (0, form.sound_shape[0] - len(sound))), len(samples) > 0
    starts_of = window_starts if form.choice == "released" else centred_starts
    starts = starts_of(len(samples), form.num_frames)
    banks = clip_filter_banks(torch.from_numpy(samples).float() / 2**15, starts, FILTER_BANKS[form.sound])
    return frames, banks.numpy().astype(np.float16), len(samples) > 0


def open_pack(
    packed_dir: Path, sources: Sequence[ClipSource], form: ClipFormat, allow_missing: bool = False, silent: str = "kept"
) -> PackedClips:
    """Open the pack of these items, which is written first if it is absent or out of date.

    Items that cannot be decoded are left out if `allow_missing`, else they raise InputError once all others are packed.
    Items without audio are "kept" (as silence), "left out" or "refused" (InputError); their number is printed.
    """
    folder = packed_dir / form.folder_name
    files = [source.path.stat() for source in sources]
    items = [[s.name, s.start, s.seconds, f.st_size, f.st_ctime_ns] for s, f in zip(sources, files, strict=True)]
    manifest = {"version": VERSION, "format": asdict(form), "items": items}
    arrays = _open_arrays(folder, manifest, form)
    if arrays is None or (arrays["done"] == PENDING).any():
        with exclusive(packed_dir, ANOTHER_FOLDER):
            _pack(folder, sources, manifest, form)
            arrays = _open_arrays(folder, manifest, form)
    done = np.array(arrays["done"])
    broken, without_sound = ([sources[row].name for row in np.flatnonzero(done == mark)] for mark in (PENDING, SILENT))
    leave_out(broken, len(sources), "items that cannot be decoded", folder, allow_missing)
    if silent != "kept":
        what = "items without an audio track (--no-sound_only keeps them)"
        leave_out(without_sound, len(sources), what, folder, silent == "left out")
    elif without_sound:
        tqdm.write(f"{folder}: keeping {len(without_sound)} of {len(sources)} items without an audio track, as silence")
    kept = done > PENDING if silent == "kept" else done == WHOLE
    rows = {source.name: row for row, source in enumerate(sources) if kept[row]}
    return PackedClips(form, rows, arrays["frames"], arrays["sound"])


def _open_arrays(folder: Path, manifest: dict, form: ClipFormat, mode: str = "r") -> dict[str, np.ndarray] | None:
    """Open the memory-mapped files of a pack; None if it holds other items, or a file is absent or damaged."""
    try:
        if json.loads((folder / MANIFEST_FILE).read_text()) != manifest:
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in form.arrays}
    except (OSError, ValueError, EOFError):
        return None
    for name, kind in form.arrays.items():
        if arrays[name].dtype != kind.base or arrays[name].shape != (len(manifest["items"]), *kind.shape):
            return None
    # Reopened in this mode only now: numpy would extend truncated files that it opens for writing.
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in form.arrays}


def _new_arrays(folder: Path, manifest: dict, form: ClipFormat) -> dict[str, np.ndarray]:
    """Allocate the files of a pack. Raises InputError if the disk is full, which would be a bus error later."""
    shutil.rmtree(folder, ignore_errors=True)
    arrays = {}
    try:
        folder.mkdir()
        for name, kind in form.arrays.items():
            path, shape = folder / f"{name}.npy", (len(manifest["items"]), *kind.shape)
            arrays[name] = np.lib.format.open_memmap(path, "w+", kind.base, shape)
            with open(path, "r+b") as file:
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise write_error(folder, error, ANOTHER_FOLDER) from error
    write_text(folder / MANIFEST_FILE, json.dumps(manifest))
    return arrays


def _pack(folder: Path, sources: Sequence[ClipSource], manifest: dict, form: ClipFormat) -> None:
    """Decode items in threads and write them in order; resume a killed run, and retry items that failed before."""

    def decode(row: int) -> tuple[np.ndarray, np.ndarray, bool] | None:
        try:
            return decode_clip(sources[row], form)
        except InputError as error:
            tqdm.write(f"{error}")
            return None

    hidden = folder.with_name(f".{folder.name}")
    is_there = (arrays := _open_arrays(folder, manifest, form, "r+")) is not None
    arrays = arrays or _open_arrays(hidden, manifest, form, "r+") or _new_arrays(hidden, manifest, form)
    todo = np.flatnonzero(arrays["done"] == PENDING).tolist()
    tqdm.write(f"{folder}: packing {len(todo)} of {len(sources)} items")
    with ThreadPoolExecutor() as pool, tqdm(total=len(todo), desc="packing", unit="clip", mininterval=1) as progress:
        for first in range(0, len(todo), FLUSH_EVERY):
            rows, marks = todo[first : first + FLUSH_EVERY], arrays["done"].copy()
            for row, item in zip(rows, pool.map(decode, rows), strict=True):
                if item is not None:
                    arrays["frames"][row], arrays["sound"][row], has_sound = item
                    marks[row] = WHOLE if has_sound else SILENT
                progress.update()
            arrays["frames"].flush()
            arrays["sound"].flush()
            arrays["done"][:] = marks  # only once the items are on disk
            arrays["done"].flush()
    if not is_there:
        former = folder.with_name(f".{folder.name}.former")
        shutil.rmtree(former, ignore_errors=True)
        if folder.exists():
            folder.rename(former)
        hidden.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
