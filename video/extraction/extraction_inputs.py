"""What the feature networks are given of one video: decoded once for all of them. T segments of one second."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from utils.errors import InputError
from video.frames import (
    FRAMES_PER_SECOND,
    centre_frames,
    clip_pixels,
    r2plus1d_pixels,
    resnet152_pixels,
    spread_frames,
)
from video.sounds import (
    CLAP_RATE,
    VGGISH_RATE,
    clap_boundaries,
    clap_mel,
    second_boundaries,
    vggish_log_mel,
)
from video.video_decoding import DecodedVideo, decode_video

Recipe = Literal["valor", "centre"]
RECIPES: tuple[Recipe, ...] = ("valor", "centre")
SAMPLE_RATES = {"vggish": VGGISH_RATE, "clap": CLAP_RATE}
PIXELS = {"res152": resnet152_pixels, "r2plus1d_18": r2plus1d_pixels, "clip": clip_pixels}
NEGLIGIBLE_SECONDS = 0.1  # a rest of a video so short is no segment: 10.04 s are ten segments
SHORTEST_SECONDS = 0.5  # of a video that features are made of
EARLY_END_SECONDS = 0.5  # sound that ends earlier before the last segment does is followed by silence


@dataclass(frozen=True)
class VideoInputs:
    """What each network is given of one video.

    vggish (T, 96, 64) and clap (T, 1001, 64) float32; res152 (8 T, 224, 224, 3) and r2plus1d_18 (T, 8, 112, 112, 3)
    uint8; clip (T, 224, 224, 3) float32 in [0, 1]. Pixels are not normalised yet.
    """

    arrays: dict[str, np.ndarray]  # by feature
    without: dict[str, str]  # features that cannot be had of this video, and why


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
) -> VideoInputs:
    """Decode a video and prepare what the networks of `features` are given.

    Args:
        num_segments: T; None: as the video's duration says.
        recipe: "valor": T frames for CLIP from the first to the last, and T equal slices of the sound for CLAP, as
            VALOR made LLP's features; "centre": the frame in the middle of each second, and slices of one second.
        silence_if_no_sound: take silence where a video has no audio track; otherwise it has no audio features.
        longest: seconds that the video may last.

    Raises:
        InputError: as `decode_video` does, and when the video is too short.
    """
    rates = [SAMPLE_RATES[name] for name in features if name in SAMPLE_RATES]
    makers = {name: PIXELS[name] for name in features if name in PIXELS}
    frame_rate = FRAMES_PER_SECOND if makers else None
    keeper = _Keeper(makers, recipe == "centre")
    decoded = decode_video(path, frame_rate, rates, keeper.keep, keeper.wanted, longest=longest)
    if "clip" in makers and _lacks_a_centre(decoded, num_segments or num_segments_of(decoded.duration), recipe):
        keeper = _Keeper(makers, False)
        decoded = decode_video(path, frame_rate, rates, keeper.keep, keeper.wanted, longest=longest)
    if (makers or decoded.sounds) and decoded.duration < SHORTEST_SECONDS:
        found = f"{decoded.duration:.2f} seconds"
        raise InputError(path, found, f"{SHORTEST_SECONDS} seconds or more", "Leave this video out.")
    num_segments = num_segments or num_segments_of(decoded.duration)
    arrays = {name: _pixels(decoded, name, num_segments, recipe) for name in makers}
    without = {}
    for name in features:
        if name not in SAMPLE_RATES:
            continue
        sound = decoded.sounds.get(SAMPLE_RATES[name])
        if sound is None and not silence_if_no_sound:
            without[name] = "no audio track"
            continue
        sound = np.zeros(0, np.int16) if sound is None else sound
        if name == "vggish":
            arrays[name] = vggish_log_mel(sound, num_segments)
        else:
            arrays[name] = _clap_mel(sound, num_segments, recipe)
    return VideoInputs(arrays, without)


class _Keeper:
    """Keeps of each frame what the networks may need: little images, and for CLIP the frame itself, until it is chosen.

    Args:
        makers: what makes a network's pixels, by feature.
        near_centres: keep frames for CLIP only around the middle of each second, and at the end of the video.
    """

    def __init__(self, makers: dict[str, Callable[[np.ndarray], np.ndarray]], near_centres: bool):
        self.makers = {name: make for name, make in makers.items() if name != "clip"}
        self.clip, self.near_centres = "clip" in makers, near_centres
        self.for_clip = False

    def wanted(self, time: float, duration: float) -> bool:
        """`decode_video` asks about a frame right before it gives it to `keep`."""
        at_end = time > duration - 0.75  # the last frame stands for the middle of a second that it does not reach
        near = abs(time % 1 - 0.5) <= 1 / FRAMES_PER_SECOND
        self.for_clip = self.clip and (near or at_end or not self.near_centres)
        return self.for_clip or bool(self.makers)

    def keep(self, image: np.ndarray) -> dict[str, np.ndarray]:
        kept = {name: make(image) for name, make in self.makers.items()}
        return kept | {"clip": image} if self.for_clip else kept


def _clip_frames(decoded: DecodedVideo, num_segments: int, recipe: Recipe) -> np.ndarray:
    """CLIP's frames: (T,) int64."""
    if recipe == "valor":
        return spread_frames(len(decoded.frames), num_segments)
    return centre_frames(decoded.times, num_segments)


def _lacks_a_centre(decoded: DecodedVideo, num_segments: int, recipe: Recipe) -> bool:
    """Whether a frame that CLIP takes was not kept: where frames are rare, the nearest to a middle is far from it."""
    chosen = _clip_frames(decoded, num_segments, recipe)
    return any(decoded.frames[n] is None or "clip" not in decoded.frames[n] for n in chosen)


def _pixels(decoded: DecodedVideo, name: str, num_segments: int, recipe: Recipe) -> np.ndarray:
    """The pixels of the frames that a feature takes."""
    if name == "clip":
        return np.stack([clip_pixels(decoded.frames[n]["clip"]) for n in _clip_frames(decoded, num_segments, recipe)])
    chosen = spread_frames(len(decoded.frames), FRAMES_PER_SECOND * num_segments)
    pixels = np.stack([decoded.frames[n][name] for n in chosen])
    return pixels.reshape(num_segments, FRAMES_PER_SECOND, *pixels.shape[1:]) if name == "r2plus1d_18" else pixels


def _clap_mel(sound: np.ndarray, num_segments: int, recipe: Recipe) -> np.ndarray:
    """(T, 1001, 64) float32."""
    if recipe == "centre":
        return clap_mel(sound, second_boundaries(num_segments))
    whole = num_segments * CLAP_RATE
    sound = sound[:whole]
    if len(sound) < whole - EARLY_END_SECONDS * CLAP_RATE:
        sound = np.pad(sound, (0, whole - len(sound)))
    return clap_mel(sound, clap_boundaries(len(sound), num_segments))
