"""Decodes one video file, once, into frames at a constant rate and mono waveforms. No ffmpeg process, no JPEGs.

docs/extraction.md says what happens to files that are not as they should be.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from utils.errors import InputError
from video.frames import FRAMES_PER_SECOND

LARGEST_SHORTER_SIDE = 720  # of a frame; larger ones, such as 4K, are scaled down to it as they are decoded
LONGEST_SIDE = 100  # times the other; what scales the shorter one up would take all memory
LOST_SECONDS = 1.0  # a file that yields less than it declares by this is damaged
GAP_SECONDS = 0.04  # between pieces of sound, that is filled with silence; packets of AAC last 0.02 to 0.06


@dataclass(frozen=True)
class DecodedVideo:
    """What was wanted of a file. N frames."""

    frames: list[Any]  # N of what `keep` makes of a frame; (H, W, 3) uint8 where nothing else is said
    times: np.ndarray  # (N,) float64, seconds from the start at which the file shows each frame
    sounds: dict[int, np.ndarray]  # by sample rate: (L,) int16, mono, from the start of the file; empty: no audio track
    duration: float  # seconds, to the end of the last frame, or of the sound where no frames were wanted


class Frame:
    """A decoded frame, converted when its pixels are asked for."""

    def __init__(self, frame: av.VideoFrame, time: float, declared: float):
        self.frame = frame
        self.time = time  # seconds from the start of the file
        self.declared = declared  # duration of the file by its header, in seconds; 0: it says nothing

    def rgb(self) -> np.ndarray:
        """Return (H, W, 3) uint8, turned as the file's rotation says, not larger than LARGEST_SHORTER_SIDE allows."""
        frame = self.frame
        scale = min(1.0, LARGEST_SHORTER_SIDE / min(frame.width, frame.height))
        size = (round(frame.width * scale), round(frame.height * scale)) if scale < 1 else ()
        image = frame.reformat(*size, format="rgb24", interpolation="AREA" if size else None).to_ndarray()
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def decode_video(
    path: Path,
    frame_rate: float | None = FRAMES_PER_SECOND,
    sample_rates: Sequence[int] = (),
    keep: Callable[[Frame], Any] = Frame.rgb,
    lost_seconds: float = LOST_SECONDS,
    longest: float = math.inf,
) -> DecodedVideo:
    """Decode a file once.

    Frames are chosen and repeated as `ffmpeg -r <frame_rate>` does, from which the published features come: the k-th
    (from 0) shows the file about one frame earlier than k / frame_rate, and a ten-second video at 8 a second has 82.

    Args:
        frame_rate: frames a second; None: sound alone.
        sample_rates: of the waveforms, each in hertz; none: frames alone.
        keep: makes of a frame what shall stay in memory. A frame that is shown twice is given to it once.
        lost_seconds: a file is damaged if it yields less than it declares by so much.
        longest: seconds that the file may last.

    Raises:
        InputError: when the file is absent, no video, lacks a video track where frames are wanted, yields no frame, is
            damaged, so that more of what it declares is missing than may be, or lasts too long.
    """
    try:
        with av.open(path) as container:
            return _decode(container, path, frame_rate, sample_rates, keep, lost_seconds, longest)
    except (av.FFmpegError, ValueError) as error:  # PyAV raises ValueError for some broken headers
        way_out = "Check the path, or download the video again."
        raise InputError(path, f"no readable video ({error})", "a video file", way_out) from error


def _decode(container, path, frame_rate, sample_rates, keep, lost_seconds, longest) -> DecodedVideo:
    video = container.streams.video[0] if container.streams.video and frame_rate is not None else None
    audio = container.streams.audio[0] if container.streams.audio and sample_rates else None
    if video is None and frame_rate is not None:
        raise InputError(path, "no video track", "a file with a video track", "Ask for features of sound alone.")
    if video is None and audio is None:
        return DecodedVideo([], np.zeros(0), {}, 0.0)
    start = (container.start_time or 0) / av.time_base
    declared = _declared_duration(container, video, audio)
    _check_length(path, declared, longest)
    if video is not None and max(video.width, video.height) > LONGEST_SIDE * max(1, min(video.width, video.height)):
        found = f"frames of {video.width} x {video.height} pixels"
        raise InputError(path, found, f"a side at most {LONGEST_SIDE} times the other", "Leave this video out.")
    picture = None if video is None else _Picture(video, frame_rate, keep, start, declared)
    sounds = {} if audio is None else {rate: _Sound(rate, start) for rate in sample_rates}
    for frame in _decoded_frames(container, [stream for stream in (video, audio) if stream is not None]):
        if isinstance(frame, av.VideoFrame):
            picture.add(frame)
            continue
        # The frame's own rate comes last: where nothing is to be converted, FFmpeg gives a frame whose channels have no
        # names the layout "mono", and another resampler would refuse it.
        for rate in sorted(sounds, key=lambda rate: rate == frame.sample_rate):
            sounds[rate].add(frame)
    sound_end = max((sound.end for sound in sounds.values()), default=0.0)
    frames, times, duration = ([], [], sound_end) if picture is None else picture.finish()
    if picture is not None and not frames:
        raise InputError(path, "no frame that can be decoded", "a video of a second or more", "Download it again.")
    reached = max(duration, sound_end)
    if reached < declared - lost_seconds:
        found = f"a damaged file: {reached:.1f} of {declared:.1f} seconds can be decoded"
        raise InputError(path, found, "a whole file", "Download the video again.")
    _check_length(path, duration, longest)
    waveforms = {rate: sound.finish() for rate, sound in sounds.items() if sound.first is not None}
    return DecodedVideo(frames, np.array(times, np.float64), waveforms, duration)


def _check_length(path: Path, seconds: float, longest: float) -> None:
    if seconds > longest:
        found, expected = f"a video of {seconds:.1f} seconds", f"a clip of at most {longest:g}"
        raise InputError(path, found, expected, "Cut the annotated clip out of the whole video.")


def _decoded_frames(container, streams: list) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """The frames of some streams in the order of the file. Packets that cannot be decoded are passed over."""
    for stream in streams:
        stream.codec_context.thread_count = 1  # many files are decoded at a time instead
    with suppress(av.FFmpegError):  # the file ends in the middle of a packet; what is missing is judged by the caller
        for packet in container.demux(*streams):
            with suppress(av.FFmpegError):
                yield from packet.decode()


def _declared_duration(container, video, audio) -> float:
    """Seconds that the file says the wanted tracks last; 0 where it says nothing."""
    tracks = [stream for stream in (video, audio) if stream is not None]
    of_tracks = [float(stream.duration * stream.time_base) for stream in tracks if stream.duration]
    # FFmpeg shortens the duration of a truncated AVI to what there is; the header's number of frames stays.
    counted = video.frames / video.average_rate if video is not None and video.average_rate else 0.0
    if len(of_tracks) == len(tracks):
        return max(*of_tracks, float(counted))
    whole = (container.duration or 0) / av.time_base if len(container.streams) == len(tracks) else 0.0
    return max(whole, float(counted))


class _Picture:
    """Turns a track of any frame rate, constant or not, into frames at a constant one."""

    def __init__(self, stream, frame_rate: float, keep: Callable[[Frame], Any], start: float, declared: float):
        self.rate, self.keep, self.start, self.declared = frame_rate, keep, start, declared
        source_rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        self.seconds_a_frame = float(1 / source_rate)
        self.frames: list[Any] = []
        self.times: list[float] = []
        self.last: Frame | None = None
        self.written: Frame | None = None  # the one that `frames` ends with
        self.end = 0.0
        self.repeated = deque([0, 0, 0], maxlen=3)  # how often the frame before had to be repeated, of the last three

    def add(self, frame: av.VideoFrame) -> None:
        time = self.end if frame.time is None else frame.time - self.start
        current = Frame(frame, max(time, 0.0), self.declared)
        seconds = float(frame.duration * frame.time_base) if frame.duration else self.seconds_a_frame
        self.end = time + seconds
        of_last, of_current = self._copies(time * self.rate, seconds)
        self.repeated.append(of_last)
        self._write(self.last or current, of_last)
        self._write(current, of_current)
        self.last = current

    def _copies(self, position: float, seconds: float) -> tuple[int, int]:
        """How often the frame before and this one are written now: the rule of `ffmpeg -r` (constant frame rate).

        Args:
            position: when this frame is shown, counted in frames of the wanted rate.
            seconds: how long.
        """
        position += np.sign(position) / 2**17  # keeps what should be equal on one side of the bounds, as ffmpeg does
        whole = round(seconds * self.rate)
        length = whole if whole > 0 else min(1.0, self.seconds_a_frame * self.rate)
        ahead = position - len(self.frames)
        until = ahead + length
        if until < -1.1:
            return 0, 0
        if until <= 1.1:
            return 0, 1
        copies = round(until)
        of_last = min(round(ahead - 0.6), copies) if ahead > 1.1 else 0
        return of_last, copies - of_last

    def _write(self, frame: Frame, copies: int) -> None:
        if copies > 0:
            kept = self.frames[-1] if frame is self.written else self.keep(frame)
            self.written = frame
            self.frames += [kept] * copies
            self.times += [frame.time] * copies

    def finish(self) -> tuple[list[Any], list[float], float]:
        """Frames, their times and the end of the last."""
        if self.last is not None:
            self._write(self.last, sorted(self.repeated)[1])
        return self.frames, self.times, self.end


class _Sound:
    """Turns a track into a mono waveform that begins with the file."""

    def __init__(self, rate: int, start: float):
        self.rate, self.start = rate, start
        self.resampler = _to_mono(rate)
        self.pieces: list[np.ndarray] = []
        self.first: float | None = None  # when the track begins, in seconds
        self.end = 0.0

    def add(self, frame: av.AudioFrame) -> None:
        time = self.end if frame.time is None else frame.time - self.start
        if self.first is None:
            self.first = time
        elif time - self.end > GAP_SECONDS:  # packets may be missing, or damaged: silence up to this one
            self._resample(None)
            missing = round((time - self.first) * self.rate) - sum(map(len, self.pieces))
            self.pieces.append(np.zeros(max(0, missing), np.int16))
            self.resampler = _to_mono(self.rate)
        self.end = time + frame.samples / frame.sample_rate
        self._resample(frame)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        """Add a frame's samples; None: those that the resampler still holds."""
        self.pieces += [piece.to_ndarray()[0] for piece in self.resampler.resample(frame)]

    def finish(self) -> np.ndarray:
        """Return the waveform: silence before a track that begins late, nothing of what is before the start."""
        self._resample(None)
        before = round(self.first * self.rate)
        return np.concatenate([np.zeros(max(0, before), np.int16), *self.pieces])[max(0, -before) :]


def _to_mono(rate: int) -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=rate)
