"""Inputs of all feature networks from one video, which is decoded once for all of them. T segments of one second."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from utils.errors import InputError
from video import frames, sounds
from video.video_decoding import Colours, DecodedVideo, Frame, decode_stretches, expected_seconds

Recipe = Literal["valor", "centre"]
RECIPES: tuple[Recipe, ...] = ("valor", "centre")
SAMPLE_RATES = {
    "vggish": sounds.VGGISH_RATE,
    "clap": sounds.CLAP_RATE,
    "mn04": sounds.MN_RATE,
    "pe_audio": sounds.CLAP_RATE,
}
PIXELS = {
    "res152": frames.resnet152_pixels,
    "r2plus1d_18": frames.r2plus1d_pixels,
    "clip": frames.clip_pixels,
    "efficientnet_lite2": frames.lite2_pixels,
}
ONE_FRAME = ("clip", "efficientnet_lite2")  # networks with one frame per segment; others have eight
NEGLIGIBLE_SECONDS = 0.1  # remainder that is no segment: 10.04 s are ten segments
SHORTEST_SECONDS = 0.5  # shortest accepted video
EARLY_END_SECONDS = 0.5  # audio that ends this long before the last segment is padded with silence
PE_SECONDS = 10  # length of PE-A-Frame's input
STRETCH = 60  # segments of a long video in memory at a time


def num_segments_of(duration: float, segments_per_second: int = 1) -> int:
    """Return the number of segments in a duration in seconds, rounded up."""
    return max(1, math.ceil((duration - NEGLIGIBLE_SECONDS) * segments_per_second))


def read_inputs(
    path: Path,
    features: list[str],
    num_segments: int | None,
    recipe: Recipe,
    silence_if_no_sound: bool = False,  # treat a missing audio track as silence; else there are no audio features
    longest: float = math.inf,  # longest allowed duration in seconds
    colours: Colours = "bt601",
    segments_per_second: int = 1,
    is_asked: bool = False,  # whether the user requests `num_segments`, so that a shorter video is an error
) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Decode a video and yield the inputs of its feature networks, by feature, and whether they are the last.

    For S segments: vggish (S, 96, 64), clap (S, 1001, 64), mn04 (S, 201, 128) and pe_audio (clips of ten seconds,
    480,000 samples, NaN after the last segment) float32; res152 (8 S, 224, 224, 3), r2plus1d_18 (S, 8, 112, 112, 3) and
    efficientnet_lite2 (S, 260, 260, 3) uint8; clip (S, 224, 224, 3) float32 in [0, 1]. Pixels are not normalised yet.
    VGGish and mn04 use one and two seconds around the centre of a segment. With the recipe "valor", that of LLP's
    features, CLIP and EfficientNet use T evenly spread frames and CLAP T equal slices of the audio; with "centre" they
    use the centre frame and the audio of each segment.

    A video of at most STRETCH seconds is decoded once. A longer one is decoded twice, since the choice of frames
    depends on their number, and is yielded in parts of STRETCH segments. Without `num_segments` the video lasts as long
    as the longer of its tracks, whichever features are requested; the last frame, or silence, extends the shorter one.

    Raises InputError as `decode_stretches` does, and if the video is too short.
    """
    per_second = segments_per_second
    visual = [name for name in features if name in PIXELS]
    rates = {name: SAMPLE_RATES[name] for name in features if name in SAMPLE_RATES}
    streams = (frames.FRAMES_PER_SECOND * per_second if visual else None, list(rates.values()))
    limits = {"longest": longest, "colours": colours}

    # 1 Count frames and samples; a short video is kept
    is_long = expected_seconds(path) > STRETCH
    keep = (lambda frame: None) if is_long else partial(_keep, visual, partial(_may_be_chosen, recipe, per_second))
    every_time, num_samples = [], Counter()
    for piece in decode_stretches(path, *streams, keep, seconds=STRETCH if is_long else math.inf, **limits):
        every_time.append(piece.times)
        num_samples.update({rate: len(samples) for rate, samples in piece.sounds.items()})
    pieces = [piece]
    if (visual or num_samples) and piece.duration < SHORTEST_SECONDS:
        found = f"{piece.duration:.2f} seconds"
        raise InputError(path, found, f"at least {SHORTEST_SECONDS} seconds", "Leave this video out.")
    for note in piece.notes:
        tqdm.write(f"{path}: {note}")

    # 2 Choose the frames and samples of each segment
    times, num_frames = np.concatenate(every_time), sum(map(len, every_time))
    lasts = num_segments_of(piece.duration, per_second)
    if "pe_audio" in features and per_second > 1:
        found, way_out = f"{per_second} for pe_audio", "Leave out the flag: PE-A-Frame has frames of 40 ms anyway."
        raise InputError("--segments_per_second", found, "1", way_out)
    if is_asked and num_segments > lasts + per_second:
        found, way_out = f"{piece.duration:.1f} seconds", "Request fewer, or shorter ones with --segments_per_second."
        raise InputError(path, found, f"{num_segments} segments, {per_second} per second", way_out)
    if num_segments is None:
        num_segments = lasts
        if num_segments_of(piece.video_end, per_second) < num_segments:
            num_frames = frames.FRAMES_PER_SECOND * num_segments
    chosen = {name: _frames_of(name, times * per_second, num_frames, num_segments, recipe) for name in visual}
    slices = {
        name: _slices_of(name, num_samples[rate], num_segments, recipe, per_second)
        for name, rate in rates.items()
        if rate in num_samples or silence_if_no_sound
    }

    # 3 Yield the segments; a long video is decoded again, as is one with few frames far from the centres
    if is_long or not all(name in piece.frames[n] for name in visual for n in chosen[name].flat):
        wanted = {name: set(times[chosen[name]].flat) for name in visual}
        keep = partial(_keep, visual, lambda name, frame: frame.time in wanted[name])
        pieces = decode_stretches(path, *streams, keep, seconds=STRETCH, **limits)
    ends = {name: num_samples[rates[name]] if name in slices else len(times) for name in chosen | slices}
    yield from _segments(pieces, chosen | slices, ends, num_segments)


def _may_be_chosen(recipe: Recipe, per_second: int, name: str, frame: Frame) -> bool:
    """Return whether a network may use a frame: one near the centre of a segment, or at the end of the video."""
    # The last frame may replace a later segment centre.
    near = abs(frame.time * per_second % 1 - 0.5) <= 1 / frames.FRAMES_PER_SECOND or frame.time > frame.declared - 0.75
    return near or recipe != "centre" or name not in ONE_FRAME


def _keep(visual: list[str], is_needed: Callable[[str, Frame], bool], frame: Frame) -> dict[str, np.ndarray]:
    """Return a frame's pixels for the networks that need it; for CLIP the whole frame until it is chosen."""
    kept = [name for name in visual if is_needed(name, frame)]
    image = frame.rgb() if kept else None
    return {name: image if name == "clip" else PIXELS[name](image) for name in kept}


def _frames_of(name: str, times: np.ndarray, num_frames: int, num_segments: int, recipe: Recipe) -> np.ndarray:
    """Return the indices of a network's frames by segment: (T, 1 or 8) int64. The unit of `times` is segments."""
    if name in ONE_FRAME and recipe == "centre":
        return frames.centre_frames(times, num_segments)[:, None]
    per_segment = 1 if name in ONE_FRAME else frames.FRAMES_PER_SECOND
    spread = frames.spread_frames(num_frames, per_segment * num_segments).clip(max=len(times) - 1)
    return spread.reshape(num_segments, per_segment)


def _slices_of(name: str, num_samples: int, num_segments: int, recipe: Recipe, per_second: int) -> np.ndarray:
    """Return the first sample and the end of a network's audio by segment: (T, 2) int64."""
    if name == "mn04":
        return sounds.centred_boundaries(num_samples, num_segments, sounds.MN_RATE, 2, per_second)
    if name == "vggish" and per_second > 1:
        return sounds.centred_boundaries(num_samples, num_segments, sounds.VGGISH_RATE, 1, per_second)
    if name != "clap" or recipe == "centre":  # also pe_audio
        return sounds.segment_boundaries(num_segments, SAMPLE_RATES[name], per_second)
    whole = num_segments * sounds.CLAP_RATE // per_second
    is_cut = num_samples < whole - EARLY_END_SECONDS * sounds.CLAP_RATE  # and silence follows
    return sounds.clap_boundaries(whole if is_cut else min(num_samples, whole), num_segments)


def _segments(
    pieces: Iterable[DecodedVideo], places: dict[str, np.ndarray], ends: dict[str, int], num_segments: int
) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Yield the inputs of each stretch of segments once it is decoded, and whether it is the last.

    `places` are by feature the frames of each segment, (T, 1 or 8), or its first sample and end, (T, 2); `ends` are the
    total numbers of frames or samples.
    """
    starts, items, first = dict.fromkeys(places, 0), {}, 0  # items in memory, and the position of the first one
    for piece in pieces:
        for name in places:
            part = _part_of(piece, name)
            items[name] = np.concatenate([items[name], part]) if name in items else part
        while first < num_segments:
            end = min(first + STRETCH, num_segments)
            needed = {name: min(rows[end - 1, -1] + (name in PIXELS), ends[name]) for name, rows in places.items()}
            if any(needed[name] > starts[name] + len(items[name]) for name in places):
                break
            made = {name: _input_of(name, items[name], rows[first:end] - starts[name]) for name, rows in places.items()}
            yield made, end == num_segments
            first = end
            for name, rows in places.items():
                done = min(max(0, rows[min(first, num_segments - 1), 0] - starts[name]), len(items[name]))
                items[name], starts[name] = items[name][done:], starts[name] + done


def _part_of(piece: DecodedVideo, name: str) -> np.ndarray:
    """Return the samples for a network, or its pixels of each frame (None for unused frames)."""
    if name in SAMPLE_RATES:
        return piece.sounds.get(SAMPLE_RATES[name], np.zeros(0, np.int16))
    pixels = np.empty(len(piece.frames), object)
    pixels[:] = [frame.get(name) for frame in piece.frames]
    return pixels


def _input_of(name: str, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return a network's input of S segments: spectrograms (S, frames, bands), or pixels (S or 8 S, ...)."""
    if name in PIXELS:
        pixels = np.stack([frames.clip_pixels(items[n]) if name == "clip" else items[n] for n in rows.flat])
        return pixels.reshape(*rows.shape, *pixels.shape[1:]) if name == "r2plus1d_18" else pixels
    if name == "vggish":
        pieces = [items[start:end] for start, end in rows]
        seconds = [np.pad(samples, (0, sounds.VGGISH_RATE - len(samples))) for samples in pieces]
        return sounds.vggish_log_mel(np.concatenate(seconds), len(rows))
    if name == "pe_audio":
        return pe_clips(items, rows)
    return (sounds.mn_mel if name == "mn04" else sounds.clap_mel)(items, rows)


def pe_clips(samples: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return clips of ten seconds for PE-A-Frame, (clips, 480,000) float32, padded with silence, then NaN."""
    clips = []
    for first in range(0, len(rows), PE_SECONDS):
        start, end = rows[first, 0], rows[min(first + PE_SECONDS, len(rows)) - 1, 1]
        clip = samples[start:end].astype(np.float32) / 32768
        clip = np.pad(clip, (0, end - start - len(clip)))
        rest = PE_SECONDS * sounds.CLAP_RATE - len(clip)
        clips.append(np.pad(clip, (0, rest), constant_values=np.nan))
    return np.stack(clips)
