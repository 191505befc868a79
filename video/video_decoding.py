"""Decodes one video file, once, into frames at a constant rate and mono waveforms. No ffmpeg process, no JPEGs.

docs/extraction.md says what happens to files that are not as they should be.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.logging
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import Colorspace

from utils.errors import InputError
from video.frames import FRAMES_PER_SECOND

LARGEST_SHORTER_SIDE = 720  # of a frame; larger ones, such as 4K, are scaled down to it as they are decoded
LONGEST_SIDE = 100  # times the other; what scales the shorter one up would take all memory
LOST_SECONDS = 1.0  # a file that yields less than it declares by this is damaged
EARLY_END_SECONDS = 0.5  # before the other track, that is said
GAP_SECONDS = 0.04  # between pieces of sound, that is filled with silence; packets of AAC last 0.02 to 0.06
JUMP_SECONDS, BACK_SECONDS = 10.0, 0.1  # of time stamps ahead or back, which are no gap (ffmpeg's thresholds)
Colours = Literal["bt601", "tagged"]


@dataclass(frozen=True)
class DecodedVideo:
    """What was wanted of a file. N frames."""

    frames: list[Any]  # N of what `keep` makes of a frame; (H, W, 3) uint8 where nothing else is said
    times: np.ndarray  # (N,) float64, seconds from the start at which the file shows each frame
    sounds: dict[int, np.ndarray]  # by sample rate: (L,) int16, mono, from the start of the file; empty: no audio track
    duration: float  # seconds, of the longer of both tracks
    pictures_end: float  # seconds, of the last frame; 0: no frames were wanted
    notes: tuple[str, ...] = ()  # what a reader has to know: a track that ends early, or cannot be decoded


class Frame:
    """A decoded frame, converted when its pixels are asked for."""

    def __init__(self, frame: av.VideoFrame, time: float, declared: float, colours: Colours = "bt601"):
        self.frame = frame
        self.time = time  # seconds from the start of the file
        self.declared = declared  # duration of the file by its header, in seconds; 0: it says nothing
        self.colours = colours

    def rgb(self) -> np.ndarray:
        """Return (H, W, 3) uint8, turned and mirrored as the file says, no larger than LARGEST_SHORTER_SIDE allows.

        The matrix is BT.601's, whatever the file says of itself: the published features come from JPEG files, which
        have no other. "tagged" takes the file's own.
        """
        frame, options = self.frame, {}
        scale = min(1.0, LARGEST_SHORTER_SIDE / min(frame.width, frame.height))
        if scale < 1:
            options = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
            options["interpolation"] = "AREA"
        own = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU709 else Colorspace.ITU601
        matrix = own if self.colours == "tagged" else Colorspace.ITU601
        image = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix, **options).to_ndarray()
        return np.ascontiguousarray(_as_displayed(image, frame))


def _as_displayed(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror an image (H, W, 3) by the frame's display matrix, whose turns are of quarters."""
    found = [data for data in frame.side_data if data.type == SideDataType.DISPLAYMATRIX]
    if not found:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(found[0], np.int32).reshape(3, 3)
    if abs(a) + abs(d) < abs(b) + abs(c):  # x becomes y
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def open_media(path: Path) -> av.container.InputContainer:
    """Open a file whose tags need not be UTF-8, and whose name may hold a colon."""
    container = av.open(str(path.absolute()), metadata_errors="replace")
    # PyAV asks for time stamps to be made up where there are none, and in an AVI they are wrong when the codec has
    # reordered the frames; ffmpeg takes those of the packets instead.
    container.flags &= ~av.container.Flags.gen_pts.value
    return container


def decode_video(
    path: Path,
    frame_rate: float | None = FRAMES_PER_SECOND,
    sample_rates: Sequence[int] = (),
    keep: Callable[[Frame], Any] = Frame.rgb,
    lost_seconds: float = LOST_SECONDS,
    longest: float = math.inf,
    colours: Colours = "bt601",
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
        colours: the matrix from YUV to RGB, as of `Frame.rgb`.

    Raises:
        InputError: when the file is absent, no video, lacks a video track where frames are wanted, yields no frame, is
            damaged, so that more of what it declares is missing than may be, or lasts too long.
    """
    [whole] = decode_stretches(path, math.inf, frame_rate, sample_rates, keep, lost_seconds, longest, colours)
    return whole


def decode_stretches(
    path: Path,
    seconds: float,
    frame_rate: float | None = FRAMES_PER_SECOND,
    sample_rates: Sequence[int] = (),
    keep: Callable[[Frame], Any] = Frame.rgb,
    lost_seconds: float = LOST_SECONDS,
    longest: float = math.inf,
    colours: Colours = "bt601",
) -> Iterator[DecodedVideo]:
    """Decode a file as `decode_video` does, which has the other arguments, without ever having all of it in memory.

    Args:
        seconds: about how long the stretches are that are yielded, each with its frames, times and samples. The last
            alone has the duration, the end of the pictures and the notes of the whole file; before it these are empty.
    """
    try:
        with open_media(path) as container:
            wanted = (seconds, frame_rate, sample_rates, keep, lost_seconds, longest, colours)
            yield from _decode(container, path, *wanted)
    except (av.FFmpegError, ValueError) as error:  # PyAV raises ValueError for some broken headers
        way_out = "Check the path, or get the video anew."
        raise InputError(path, f"no readable video ({error})", "a video file", way_out) from error


def expected_seconds(path: Path) -> float:
    """Return about how long a file lasts by its header; infinity where it does not say so."""
    with suppress(av.FFmpegError, ValueError), open_media(path) as container:
        if container.duration:
            return container.duration / av.time_base
    return math.inf


def _decode(
    container, path, seconds, frame_rate, sample_rates, keep, lost_seconds, longest, colours
) -> Iterator[DecodedVideo]:
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    video, audio = (streams[0] if streams else None for streams in (pictures, container.streams.audio))
    if video is None and frame_rate is not None:
        raise InputError(path, "no video track", "a file with a video track", "Ask for features of sound alone.")
    notes = []
    if audio is not None and audio.codec_context is None:
        notes.append(f"a sound track of a codec that cannot be decoded ({_codec_of(path, audio)})")
        audio = None
    if video is not None and video.codec_context is None:
        if frame_rate is not None:
            found = f"a video track of a codec that cannot be decoded ({_codec_of(path, video)})"
            raise InputError(path, found, "a codec that FFmpeg decodes", "Convert the video.")
        video = None
    if frame_rate is None and (audio is None or not sample_rates):
        yield DecodedVideo([], np.zeros(0), {}, 0.0, 0.0, tuple(notes))
        return
    start = (container.start_time or 0) / av.time_base
    declared = _declared_duration(container, video, audio)
    _check_length(path, declared, longest)
    if video is not None and max(video.width, video.height) > LONGEST_SIDE * max(1, min(video.width, video.height)):
        found = f"frames of {video.width} x {video.height} pixels"
        raise InputError(path, found, f"a side at most {LONGEST_SIDE} times the other", "Leave this video out.")
    picture = None if frame_rate is None else _Picture(video, frame_rate, keep, start, declared, colours)
    sounds = {} if audio is None else {rate: _Sound(rate, start) for rate in sample_rates}
    told = {"video": 0.0, "audio": 0.0}  # seconds, where each track ends by its packets
    for packet in _packets(container, [stream for stream in (video, audio) if stream is not None]):
        kind, stamp = packet.stream.type, packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            told[kind] = max(told[kind], float((stamp + (packet.duration or 0)) * packet.time_base) - start)
        if (kind == "video" and picture is None) or (kind == "audio" and not sounds):
            continue
        with suppress(av.FFmpegError):  # what cannot be decoded is passed over; what is missing is judged below
            for frame in packet.decode():
                if kind == "video":
                    picture.add(frame)
                    continue
                # The frame's own rate comes last: where nothing is to be converted, FFmpeg gives a frame whose channels
                # have no names the layout "mono", and another resampler would refuse it.
                for rate in sorted(sounds, key=lambda rate: rate == frame.sample_rate):
                    sounds[rate].add(frame)
        ahead = picture.waiting if picture is not None else max(sound.waiting for sound in sounds.values())
        if ahead > seconds:
            yield DecodedVideo(*_take(picture, sounds), 0.0, 0.0)
    pictures_end = 0.0 if picture is None else picture.finish()
    if picture is not None and not picture.num_written:
        raise InputError(path, "no frame that can be decoded", "a video of a second or more", "Get it anew.")
    ends = told | ({} if picture is None else {"video": pictures_end})
    if sounds:
        ends["audio"] = max(sound.end for sound in sounds.values())
    # A file is damaged where packets are missing, or packets are there that cannot be decoded.
    for reached, of_file in ((max(told.values()), declared), *((ends[kind], told[kind]) for kind in told)):
        if reached < of_file - lost_seconds:
            found = f"a damaged file: {reached:.1f} of {of_file:.1f} seconds can be decoded"
            raise InputError(path, found, "a whole file", "Get the video anew.")
    duration = max(ends.values())
    _check_length(path, duration, longest)
    if picture is not None and pictures_end < duration - EARLY_END_SECONDS:
        notes.append(f"the pictures end after {pictures_end:.1f} s; the last one stands for the rest")
    if sounds and ends["audio"] < duration - EARLY_END_SECONDS:
        notes.append(f"the sound ends after {ends['audio']:.1f} s; silence stands for the rest")
    for sound in sounds.values():
        sound.finish()
    yield DecodedVideo(*_take(picture, sounds), duration, pictures_end, tuple(notes))


def _take(picture: "_Picture | None", sounds: "dict[int, _Sound]") -> tuple[list, np.ndarray, dict[int, np.ndarray]]:
    """Take the frames, their times and the samples that have been decoded since the last time."""
    frames, times = ([], []) if picture is None else picture.take()
    waveforms = {rate: sound.take() for rate, sound in sounds.items() if sound.first is not None}
    return frames, np.array(times, np.float64), waveforms


def _codec_of(path: Path, stream) -> str:
    """Return what FFmpeg says, in its log alone, of a track that it has no decoder for: `none (ac-4 / 0x342D6361)`."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages, open_media(path):
            said = "".join(message for _, _, message in messages)
    finally:
        av.logging.set_level(level)
    found = re.search(rf"stream {stream.index} \(\w+: (.*)\): unknown codec", said)
    return found[1] if found else "unknown"


def _check_length(path: Path, seconds: float, longest: float) -> None:
    if seconds > longest:
        found, expected = f"a video of {seconds:.1f} seconds", f"a clip of at most {longest:g}"
        raise InputError(path, found, expected, "Cut the annotated clip out of the whole video.")


def _packets(container, streams: list) -> Iterator[av.Packet]:
    """Yield the packets of some streams in the order of the file, the last of each without data.

    In MPEG streams time stamps may begin anew (joined parts, recordings with a break). Jumps are closed as ffmpeg does:
    what follows comes at once.
    """
    for stream in streams:
        stream.codec_context.thread_count = 1  # many files are decoded at a time instead
    may_jump = _may_jump(container)
    ahead = 0.0  # seconds that all further time stamps are moved by
    following: dict[int, float] = {}  # by stream, when its next packet should come
    last: dict[int, float] = {}
    with suppress(av.FFmpegError):  # the file ends in the middle of a packet
        for packet in container.demux(*streams):
            if may_jump and packet.dts is not None:
                number, time = packet.stream.index, float(packet.dts * packet.time_base) + ahead
                if number in last:
                    jump = time - following[number]
                    if abs(jump) > JUMP_SECONDS or time + BACK_SECONDS < last[number]:
                        ahead, time = ahead - jump, following[number]
                last[number], following[number] = time, time + float((packet.duration or 0) * packet.time_base)
                moved = round(ahead / packet.time_base)
                packet.dts += moved
                packet.pts = None if packet.pts is None else packet.pts + moved
            yield packet


def _may_jump(container) -> bool:
    """Whether time stamps may begin anew within a file of this format."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)


def _declared_duration(container, video, audio) -> float:
    """Seconds that the file says its tracks last; 0 where it says nothing, or its time stamps may jump."""
    if _may_jump(container):
        return 0.0
    tracks = [stream for stream in (video, audio) if stream is not None]
    of_tracks = [float(stream.duration * stream.time_base) for stream in tracks if stream.duration]
    if container.format.name == "avi" and video is not None and video.average_rate:
        # FFmpeg shortens the duration of a truncated AVI to what there is; the header's number of frames stays.
        of_tracks.append(float(video.frames / video.average_rate))
    if len(of_tracks) >= len(tracks):
        return max(of_tracks)
    return (container.duration or 0) / av.time_base if len(container.streams) == len(tracks) else 0.0


class _Picture:
    """Turns a track of any frame rate, constant or not, into frames at a constant one."""

    def __init__(
        self, stream, frame_rate, keep: Callable[[Frame], Any], start: float, declared: float, colours: Colours
    ):
        self.rate, self.keep, self.start, self.declared, self.colours = frame_rate, keep, start, declared, colours
        source_rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        self.seconds_a_frame = float(1 / source_rate)
        self.frames: list[Any] = []  # those that have not been taken yet
        self.times: list[float] = []
        self.num_written = 0
        self.last: Frame | None = None
        self.written: tuple[Frame | None, Any] = (None, None)  # the last one in `frames`, and what was kept of it
        self.end = 0.0
        self.is_alone, self.skipped = len(stream.container.streams) == 1, 0
        self.repeated = deque([0, 0, 0], maxlen=3)  # how often the frame before had to be repeated, of the last three

    def add(self, frame: av.VideoFrame) -> None:
        stamp = frame.dts if frame.pts is None else frame.pts
        time = self.end if stamp is None else float(stamp * frame.time_base) - self.start
        current = Frame(frame, max(time, 0.0), self.declared, self.colours)
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
        if self.last is None and self.is_alone and position >= 0.5:
            self.skipped = round(position)  # a file of one track begins with its first frame, however late that is
            position = self.skipped
        ahead = position - self.skipped - self.num_written
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
            if frame is not self.written[0]:
                self.written = frame, self.keep(frame)
            self.frames += [self.written[1]] * copies
            self.times += [frame.time] * copies
            self.num_written += copies

    def finish(self) -> float:
        """Write the last frame; return when it ends."""
        if self.last is not None:
            self._write(self.last, sorted(self.repeated)[1])
        return self.end

    @property
    def waiting(self) -> float:
        """Return how many seconds have not been taken yet."""
        return len(self.frames) / self.rate

    def take(self) -> tuple[list[Any], list[float]]:
        taken = self.frames, self.times
        self.frames, self.times = [], []
        return taken


class _Sound:
    """Turns a track into a mono waveform that begins with the file: silence before a track that begins late."""

    def __init__(self, rate: int, start: float):
        self.rate, self.start = rate, start
        self.resampler, self.kind = _to_mono(rate), None
        self.pieces: list[np.ndarray] = []  # those that have not been taken yet
        self.num_samples = self.num_taken = 0  # of the track
        self.early = 0  # samples before the start of the file, which are left out
        self.first: float | None = None  # when the track begins, in seconds
        self.end = 0.0

    def add(self, frame: av.AudioFrame) -> None:
        time = self.end if frame.time is None else frame.time - self.start
        if self.first is None:
            self.first = time
            before = round(time * self.rate)
            self.pieces, self.early = [np.zeros(max(0, before), np.int16)], max(0, -before)
        elif time - self.end > GAP_SECONDS:  # packets may be missing, or damaged: silence up to this one
            self._resample(None)
            missing = round((time - self.first) * self.rate) - self.num_samples
            self._append(np.zeros(max(0, missing), np.int16))
            self.resampler = _to_mono(self.rate)
        self.end = time + frame.samples / frame.sample_rate
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if self.kind not in (None, kind):  # a recording with an advertisement, say
            self._resample(None)
            self.resampler = _to_mono(self.rate)
        self.kind = kind
        self._resample(frame)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        """Add a frame's samples; None: those that the resampler still holds."""
        for piece in self.resampler.resample(frame):
            self._append(piece.to_ndarray()[0])

    def _append(self, samples: np.ndarray) -> None:
        self.num_samples += len(samples)
        self.pieces.append(samples[self.early :])
        self.early = max(0, self.early - len(samples))

    def finish(self) -> None:
        self._resample(None)

    @property
    def waiting(self) -> float:
        """Return how many seconds have not been taken yet."""
        return (self.num_samples - self.num_taken) / self.rate

    def take(self) -> np.ndarray:
        self.num_taken = self.num_samples
        pieces, self.pieces = self.pieces, []
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def _to_mono(rate: int) -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=rate)
