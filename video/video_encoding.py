"""Writes video files: generated videos, and those that tests need."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np

from utils.files import atomic_write

_TICKS = 90_000  # of the clock that frame times are counted in, a second


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    frame_rate: float,
    sound: np.ndarray | None = None,
    sample_rate: int = 44_100,
    times: Sequence[float] | None = None,
    sound_start: float = 0.0,
    quality: int = 23,
) -> None:
    """Write H.264 and AAC into an MP4 file, atomically.

    Args:
        frames: (H, W, 3) uint8 RGB, with even H and W.
        sound: (channels, L) int16; None: no audio track.
        times: seconds at which the frames are shown; None: at a constant rate.
        sound_start: seconds from the start at which the sound begins.
        quality: of libx264, 0 (lossless) to 51.
    """
    with atomic_write(Path(path)) as file, av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1001))
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "veryfast", "crf": str(quality)}
        video.codec_context.time_base = Fraction(1, _TICKS)
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=sample_rate, layout="mono" if len(sound) == 1 else "stereo")
        for number, image in zip(count(), frames, strict=False):
            if number == 0:
                video.height, video.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            time = number / frame_rate if times is None else times[number]
            frame.pts, frame.time_base = round(time * _TICKS), Fraction(1, _TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            interleaved = np.ascontiguousarray(sound.T.reshape(1, -1))  # packed s16: channels alternate
            samples = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=audio.layout.name)
            samples.sample_rate, samples.time_base = sample_rate, Fraction(1, sample_rate)
            samples.pts = round(sound_start * sample_rate)
            container.mux(audio.encode(samples))
            container.mux(audio.encode())
