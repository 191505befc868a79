"""Write video files, for generated videos and tests."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np

from utils.files import atomic_write

CONTAINERS = {".mp4": "mp4", ".avi": "avi", ".mkv": "matroska"}


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
    """Write a video file atomically: H.264 and AAC in MP4, MPEG-4 and uncompressed audio in AVI and Matroska.

    Frames are (H, W, 3) uint8 RGB with even H and W, `sound` is (channels, L) int16. `times` of the frames (default: a
    constant rate) and `sound_start` are in seconds. `quality` is libx264's crf, 0 (lossless) to 51.
    """
    codecs, options, ticks = ("libx264", "aac"), {"preset": "veryfast", "crf": str(quality)}, 90_000
    if path.suffix != ".mp4":
        codecs, options, ticks = ("mpeg4", "pcm_s16le"), {"qscale": "3"}, frame_rate
    with atomic_write(path) as file, av.open(file, "w", format=CONTAINERS[path.suffix]) as container:
        video = container.add_stream(codecs[0], rate=Fraction(frame_rate).limit_denominator(1001))
        video.pix_fmt = "yuv420p"
        video.options = options
        video.codec_context.time_base = Fraction(1, ticks)  # unit of the frames' time stamps
        audio = None
        if sound is not None:
            audio = container.add_stream(codecs[1], rate=sample_rate, layout="mono" if len(sound) == 1 else "stereo")
        for number, image in zip(count(), frames, strict=False):
            if number == 0:
                video.height, video.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            time = number / frame_rate if times is None else times[number]
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            size = round(sample_rate / frame_rate)  # samples per video frame
            for start in range(0, sound.shape[1], size):
                piece = np.ascontiguousarray(sound[:, start : start + size].T.reshape(1, -1))  # s16 is interleaved
                samples = av.AudioFrame.from_ndarray(piece, format="s16", layout=audio.layout.name)
                samples.sample_rate, samples.time_base = sample_rate, Fraction(1, sample_rate)
                samples.pts = round(sound_start * sample_rate) + start
                container.mux(audio.encode(samples))
            container.mux(audio.encode())
