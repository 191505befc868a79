"""What the feature networks are given of one video: decoded once for all of them. T segments of one second."""

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
SAMPLE_RATES = {"vggish": sounds.VGGISH_RATE, "clap": sounds.CLAP_RATE, "mn04": sounds.MN_RATE}
PIXELS = {
    "res152": frames.resnet152_pixels,
    "r2plus1d_18": frames.r2plus1d_pixels,
    "clip": frames.clip_pixels,
    "efficientnet_lite2": frames.lite2_pixels,
}
ONE_FRAME = ("clip", "efficientnet_lite2")  # what is given one frame of a segment, others eight
NEGLIGIBLE_SECONDS = 0.1  # a rest of a video so short is no segment: 10.04 s are ten segments
SHORTEST_SECONDS = 0.5  # of a video that features are made of
EARLY_END_SECONDS = 0.5  # sound that ends earlier before the last segment does is followed by silence
STRETCH = 60  # segments of a long video that are in memory at a time


def num_segments_of(duration: float, segments_per_second: int = 1) -> int:
    """Segments of a video whose number no data set gives: its duration in seconds, rounded up."""
    return max(1, math.ceil((duration - NEGLIGIBLE_SECONDS) * segments_per_second))


def read_inputs(
    path: Path,
    features: list[str],
    num_segments: int | None,
    recipe: Recipe,
    silence_if_no_sound: bool = False,
    longest: float = math.inf,
    colours: Colours = "bt601",
    segments_per_second: int = 1,
    is_asked: bool = False,
) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Decode a video and prepare what the networks of `features` are given; pixels are not normalised yet.

    A video of up to STRETCH seconds is decoded once. A longer one is decoded twice, since which frames are chosen
    depends on how many there are, and comes in stretches of STRETCH segments.

    Where no number of segments is given, a video lasts as long as the longer of its tracks, whichever features are
    asked for: after the shorter one the last picture stays, or there is silence.

    Args:
        num_segments: T; None: as the video's duration says.
        recipe: "valor": T frames for CLIP and EfficientNet from the first to the last, and T equal slices of the sound
            for CLAP, as VALOR made LLP's features; "centre": the frame in the middle of each second, and slices of one
            second.
        silence_if_no_sound: take silence where a video has no audio track; otherwise it has no audio features.
        longest: seconds that the video may last.
        colours: as of `decode_video`.
        segments_per_second: of which each has eight frames and a part of the sound as long as it lasts; VGGish and mn04
            hear one and two seconds around its middle.
        is_asked: whether a person has asked for so many segments, which the video then has to last for.

    Yields:
        by feature, of S segments: vggish (S, 96, 64) and clap (S, 1001, 64) float32; res152 (8 S, 224, 224, 3) and
        r2plus1d_18 (S, 8, 112, 112, 3) uint8; clip (S, 224, 224, 3) float32 in [0, 1]; mn04 (S, 201, 128) float32;
        efficientnet_lite2 (S, 260, 260, 3) uint8; and whether they are the last

    Raises:
        InputError: as `decode_video` does, and when the video is too short.
    """
    per_second = segments_per_second
    visual = [name for name in features if name in PIXELS]
    rates = {name: SAMPLE_RATES[name] for name in features if name in SAMPLE_RATES}
    streams = (frames.FRAMES_PER_SECOND * per_second if visual else None, list(rates.values()))
    limits = {"longest": longest, "colours": colours}

    # 1 How much there is of the video, and all of a short one
    is_long = expected_seconds(path) > STRETCH
    keep = (lambda frame: None) if is_long else partial(_keep, visual, partial(_may_be_chosen, recipe, per_second))
    every_time, num_samples = [], Counter()
    for piece in decode_stretches(path, STRETCH if is_long else math.inf, *streams, keep, **limits):
        every_time.append(piece.times)
        num_samples.update({rate: len(samples) for rate, samples in piece.sounds.items()})
    pieces = [piece]
    if (visual or num_samples) and piece.duration < SHORTEST_SECONDS:
        found = f"{piece.duration:.2f} seconds"
        raise InputError(path, found, f"{SHORTEST_SECONDS} seconds or more", "Leave this video out.")
    for note in piece.notes:
        tqdm.write(f"{path}: {note}")

    # 2 What each segment is made of
    times, num_frames = np.concatenate(every_time), sum(map(len, every_time))
    lasts = num_segments_of(piece.duration, per_second)
    if is_asked and num_segments > lasts + per_second:
        found, way_out = f"{piece.duration:.1f} seconds", "Ask for fewer; --segments_per_second makes shorter ones."
        raise InputError(path, found, f"{num_segments} segments, {per_second} a second", way_out)
    if num_segments is None:
        num_segments = lasts
        if num_segments_of(piece.pictures_end, per_second) < num_segments:
            num_frames = frames.FRAMES_PER_SECOND * num_segments
    chosen = {name: _frames_of(name, times * per_second, num_frames, num_segments, recipe) for name in visual}
    slices = {
        name: _slices_of(name, num_samples[rate], num_segments, recipe, per_second)
        for name, rate in rates.items()
        if rate in num_samples or silence_if_no_sound
    }

    # 3 The segments. A long video is decoded again; so is one of rare frames, the nearest of them far from the middle
    if is_long or not all(name in piece.frames[n] for name in visual for n in chosen[name].flat):
        wanted = {name: set(times[chosen[name]].flat) for name in visual}
        keep = partial(_keep, visual, lambda name, frame: frame.time in wanted[name])
        pieces = decode_stretches(path, STRETCH, *streams, keep, **limits)
    ends = {name: len(times) for name in chosen} | {name: num_samples[rates[name]] for name in slices}
    yield from _segments(pieces, chosen, slices, ends, num_segments)


def _may_be_chosen(recipe: Recipe, per_second: int, name: str, frame: Frame) -> bool:
    """Whether a network may be given a frame: around the middle of each segment, or at the end of the video.

    There the last frame stands for the middle of a segment that it does not reach.
    """
    near = abs(frame.time * per_second % 1 - 0.5) <= 1 / frames.FRAMES_PER_SECOND or frame.time > frame.declared - 0.75
    return near or recipe != "centre" or name not in ONE_FRAME


def _keep(visual: list[str], is_needed: Callable[[str, Frame], bool], frame: Frame) -> dict[str, np.ndarray]:
    """Keep of a frame the pixels of the networks that need it; for CLIP the frame itself, until it is chosen."""
    kept = [name for name in visual if is_needed(name, frame)]
    image = frame.rgb() if kept else None
    return {name: image if name == "clip" else PIXELS[name](image) for name in kept}


def _frames_of(name: str, times: np.ndarray, num_frames: int, num_segments: int, recipe: Recipe) -> np.ndarray:
    """Return the frames of each segment that a network is given, in order: (T, 1 or 8) int64.

    Args:
        times: of all frames, in segments.
    """
    if name in ONE_FRAME and recipe == "centre":
        return frames.centre_frames(times, num_segments)[:, None]
    per_segment = 1 if name in ONE_FRAME else frames.FRAMES_PER_SECOND
    spread = frames.spread_frames(num_frames, per_segment * num_segments).clip(max=len(times) - 1)
    return spread.reshape(num_segments, per_segment)


def _slices_of(name: str, num_samples: int, num_segments: int, recipe: Recipe, per_second: int) -> np.ndarray:
    """Return the first sample and the end of each segment's sound: (T, 2) int64."""
    if name == "mn04":
        return sounds.centred_boundaries(num_samples, num_segments, sounds.MN_RATE, 2, per_second)
    if name == "vggish" and per_second > 1:
        return sounds.centred_boundaries(num_samples, num_segments, sounds.VGGISH_RATE, 1, per_second)
    if name != "clap" or recipe == "centre":
        return sounds.segment_boundaries(num_segments, SAMPLE_RATES[name], per_second)
    whole = num_segments * sounds.CLAP_RATE // per_second
    is_cut = num_samples < whole - EARLY_END_SECONDS * sounds.CLAP_RATE  # and is followed by silence
    return sounds.clap_boundaries(whole if is_cut else min(num_samples, whole), num_segments)


class _Stream:
    """What is in memory of the frames or samples for one network."""

    def __init__(self):
        self.start, self.items = 0, None  # the first one's place in the video; (N,)

    def add(self, items: np.ndarray) -> None:
        self.items = items if self.items is None else np.concatenate([self.items, items])

    def forget(self, before: int) -> None:
        num_forgotten = min(max(0, before - self.start), len(self.items))
        self.items, self.start = self.items[num_forgotten:], self.start + num_forgotten


def _segments(
    pieces: Iterable[DecodedVideo],
    chosen: dict[str, np.ndarray],
    slices: dict[str, np.ndarray],
    ends: dict[str, int],
    num_segments: int,
) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Make each stretch of segments as soon as it is decoded.

    Args:
        chosen: frames of each segment, (T, 1 or 8), by feature.
        slices: first sample of each segment, and the end: (T, 2).
        ends: how many frames or samples there are.
    """
    streams = {name: _Stream() for name in ends}
    first = 0
    for piece in pieces:
        for name, stream in streams.items():
            stream.add(_part_of(piece, name))
        while first < num_segments:
            end = min(first + STRETCH, num_segments)
            needed = {name: rows[end - 1, -1] + 1 for name, rows in chosen.items()}
            needed |= {name: rows[end - 1, 1] for name, rows in slices.items()}
            if any(min(needed[name], ends[name]) > s.start + len(s.items) for name, s in streams.items()):
                break
            made = {name: _pixels(name, streams[name], rows[first:end]) for name, rows in chosen.items()}
            made |= {name: _spectrograms(name, streams[name], rows[first:end]) for name, rows in slices.items()}
            yield made, end == num_segments
            first = end
            for name, rows in (chosen | slices).items():
                streams[name].forget(rows[min(first, num_segments - 1), 0])


def _part_of(piece: DecodedVideo, name: str) -> np.ndarray:
    """Return the samples for one network, or its pixels of each frame (None where it is not given the frame)."""
    if name in SAMPLE_RATES:
        return piece.sounds.get(SAMPLE_RATES[name], np.zeros(0, np.int16))
    pixels = np.empty(len(piece.frames), object)
    pixels[:] = [frame.get(name) for frame in piece.frames]
    return pixels


def _pixels(name: str, stream: _Stream, rows: np.ndarray) -> np.ndarray:
    """Return what a network is given of S segments: (S, ...), or each segment's frames one by one for ResNet-152."""
    found = [stream.items[n - stream.start] for n in rows.flat]
    pixels = np.stack([frames.clip_pixels(image) for image in found] if name == "clip" else found)
    return pixels.reshape(*rows.shape, *pixels.shape[1:]) if name == "r2plus1d_18" else pixels


def _spectrograms(name: str, stream: _Stream, rows: np.ndarray) -> np.ndarray:
    """Return what a network is given of S segments: (S, frames, bands)."""
    rows = rows - stream.start
    if name == "vggish":
        heard = [stream.items[start:end] for start, end in rows]
        seconds = [np.pad(samples, (0, sounds.VGGISH_RATE - len(samples))) for samples in heard]
        return sounds.vggish_log_mel(np.concatenate(seconds), len(rows))
    return (sounds.mn_mel if name == "mn04" else sounds.clap_mel)(stream.items, rows)
