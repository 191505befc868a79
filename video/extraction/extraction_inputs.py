"""What the feature networks are given of one video: decoded once for all of them. T segments of one second."""

import math
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from utils.errors import InputError
from video import frames, sounds
from video.video_decoding import Colours, Frame, decode_video

Recipe = Literal["valor", "centre"]
RECIPES: tuple[Recipe, ...] = ("valor", "centre")
SAMPLE_RATES = {"vggish": sounds.VGGISH_RATE, "clap": sounds.CLAP_RATE}
PIXELS = {"res152": frames.resnet152_pixels, "r2plus1d_18": frames.r2plus1d_pixels, "clip": frames.clip_pixels}
NEGLIGIBLE_SECONDS = 0.1  # a rest of a video so short is no segment: 10.04 s are ten segments
SHORTEST_SECONDS = 0.5  # of a video that features are made of
EARLY_END_SECONDS = 0.5  # sound that ends earlier before the last segment does is followed by silence


def num_segments_of(duration: float) -> int:
    """Segments of a video whose number no data set gives: its duration in seconds, rounded up."""
    return max(1, math.ceil(duration - NEGLIGIBLE_SECONDS))


def read_inputs(
    path: Path,
    features: list[str],
    num_segments: int | None,
    recipe: Recipe,
    silence_if_no_sound: bool = False,
    longest: float = math.inf,
    colours: Colours = "bt601",
) -> dict[str, np.ndarray]:
    """Decode a video and prepare what the networks of `features` are given; pixels are not normalised yet.

    Where no number of segments is given, a video lasts as long as the longer of its tracks, whichever features are
    asked for: after the shorter one the last picture stays, or there is silence.

    Args:
        num_segments: T; None: as the video's duration says.
        recipe: "valor": T frames for CLIP from the first to the last, and T equal slices of the sound for CLAP, as
            VALOR made LLP's features; "centre": the frame in the middle of each second, and slices of one second.
        silence_if_no_sound: take silence where a video has no audio track; otherwise it has no audio features.
        longest: seconds that the video may last.
        colours: as of `decode_video`.

    Returns:
        by feature: vggish (T, 96, 64) and clap (T, 1001, 64) float32; res152 (8 T, 224, 224, 3) and r2plus1d_18
        (T, 8, 112, 112, 3) uint8; clip (T, 224, 224, 3) float32 in [0, 1]

    Raises:
        InputError: as `decode_video` does, and when the video is too short.
    """
    visual = [name for name in features if name in PIXELS]
    sample_rates = [SAMPLE_RATES[name] for name in features if name not in PIXELS]
    wanted = (path, frames.FRAMES_PER_SECOND if visual else None, sample_rates)
    limits = {"longest": longest, "colours": colours}
    decoded = decode_video(*wanted, keep=partial(_keep, visual, recipe == "centre"), **limits)
    if (visual or decoded.sounds) and decoded.duration < SHORTEST_SECONDS:
        found = f"{decoded.duration:.2f} seconds"
        raise InputError(path, found, f"{SHORTEST_SECONDS} seconds or more", "Leave this video out.")
    for note in decoded.notes:
        tqdm.write(f"{path}: {note}")
    num_frames = len(decoded.frames)
    if num_segments is None:
        num_segments = num_segments_of(decoded.duration)
        if num_segments_of(decoded.pictures_end) < num_segments:
            num_frames = frames.FRAMES_PER_SECOND * num_segments

    inputs = {}
    for name in features:
        if name == "clip":
            chosen = frames.spread_frames(num_frames, num_segments).clip(max=len(decoded.frames) - 1)
            if recipe == "centre":
                chosen = frames.centre_frames(decoded.times, num_segments)
            if not all(name in decoded.frames[n] for n in chosen):  # frames are rare, and the nearest far from a middle
                decoded = decode_video(*wanted, keep=partial(_keep, visual, False), **limits)
            inputs[name] = np.stack([frames.clip_pixels(decoded.frames[n][name]) for n in chosen])
        elif name in PIXELS:
            chosen = frames.spread_frames(num_frames, frames.FRAMES_PER_SECOND * num_segments)
            chosen = chosen.clip(max=len(decoded.frames) - 1)
            pixels = np.stack([decoded.frames[n][name] for n in chosen])
            clips = pixels.reshape(num_segments, frames.FRAMES_PER_SECOND, *pixels.shape[1:])
            inputs[name] = clips if name == "r2plus1d_18" else pixels
        elif decoded.sounds or silence_if_no_sound:
            sound = decoded.sounds.get(SAMPLE_RATES[name], np.zeros(0, np.int16))
            if name == "vggish":
                inputs[name] = sounds.vggish_log_mel(sound, num_segments)
            else:
                inputs[name] = _clap_mel(sound, num_segments, recipe)
    return inputs


def _keep(visual: list[str], near_centres: bool, frame: Frame) -> dict[str, np.ndarray]:
    """Keep of a frame the pixels that each network may need; for CLIP the frame itself, until it is chosen.

    Args:
        near_centres: keep frames for CLIP only around the middle of each second, and at the end of the video, where
            the last frame stands for the middle of a second that it does not reach.
    """
    near = abs(frame.time % 1 - 0.5) <= 1 / frames.FRAMES_PER_SECOND or frame.time > frame.declared - 0.75
    kept = [name for name in visual if name != "clip" or near or not near_centres]
    if not kept:
        return {}
    image = frame.rgb()
    return {name: image if name == "clip" else PIXELS[name](image) for name in kept}


def _clap_mel(sound: np.ndarray, num_segments: int, recipe: Recipe) -> np.ndarray:
    """(T, 1001, 64) float32."""
    if recipe == "centre":
        return sounds.clap_mel(sound, sounds.second_boundaries(num_segments))
    whole = num_segments * sounds.CLAP_RATE
    sound = sound[:whole]
    if len(sound) < whole - EARLY_END_SECONDS * sounds.CLAP_RATE:
        sound = np.pad(sound, (0, whole - len(sound)))
    return sounds.clap_mel(sound, sounds.clap_boundaries(len(sound), num_segments))
