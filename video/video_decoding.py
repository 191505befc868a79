"""Decode a video file once into frames at a constant rate and mono waveforms, by the rules of docs/extraction.md."""

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
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

LARGEST_SHORTER_SIDE = 720  # pixels to which larger frames, such as 4K, are downscaled while decoding
LONGEST_SIDE = 100  # largest aspect ratio; resizing the shorter side would otherwise exhaust memory
LOST_SECONDS = 1.0  # a file that lacks more of its declared duration is damaged
EARLY_END_SECONDS = 0.5  # a track that ends this long before the other one is reported
GAP_SECONDS = 0.04  # longer gaps in the audio are filled with silence; AAC packets last 0.02 to 0.06
JUMP_SECONDS, BACK_SECONDS = 10.0, 0.1  # ffmpeg's thresholds of jumps in time stamps, which are no gaps
Colours = Literal["bt601", "tagged"]
_to_mono = partial(av.AudioResampler, format="s16", layout="mono")


@dataclass(frozen=True)
class DecodedVideo:
    """Decoded frames and waveforms of a file. N frames, L samples."""

    frames: list[Any]  # N results of `keep`, by default (H, W, 3) uint8
    times: np.ndarray  # (N,) float64, time of each frame in the file, in seconds from its start
    sounds: dict[int, np.ndarray]  # by sample rate: (L,) int16, mono, from the start of the file; empty: no audio track
    duration: float  # seconds, of the longer of both tracks
    video_end: float  # seconds, end of the last frame; 0: no frames were requested
    notes: tuple[str, ...] = ()  # messages about tracks that end early or cannot be decoded


@dataclass(eq=False)
class Frame:
    """A decoded frame, converted to RGB when its pixels are requested."""

    frame: av.VideoFrame
    time: float  # seconds from the start of the file
    declared: float  # duration of the file by its header, in seconds; 0: unknown
    colours: Colours = "bt601"

    def rgb(self) -> np.ndarray:
        """Return (H, W, 3) uint8, rotated and mirrored as declared by the file, limited by LARGEST_SHORTER_SIDE.

        The matrix is BT.601's, as in the JPEG files of the published features, or the file's own if "tagged".
        """
        frame, options = self.frame, {}
        scale = min(1.0, LARGEST_SHORTER_SIDE / min(frame.width, frame.height))
        if scale < 1:
            options = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
            options["interpolation"] = "AREA"
        is_709 = self.colours == "tagged" and frame.colorspace == Colorspace.ITU709
        matrix = Colorspace.ITU709 if is_709 else Colorspace.ITU601
        image = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix, **options).to_ndarray()
        return np.ascontiguousarray(_as_displayed(image, frame))


def _as_displayed(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotate (by multiples of 90 degrees) and mirror an image (H, W, 3) by the frame's display matrix."""
    found = [data for data in frame.side_data if data.type == SideDataType.DISPLAYMATRIX]
    if not found:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(found[0], np.int32).reshape(3, 3)
    if abs(a) + abs(d) < abs(b) + abs(c):  # x and y are swapped
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def open_media(path: Path) -> av.container.InputContainer:
    """Open a file, whose tags may not be UTF-8 and whose name may contain a colon."""
    container = av.open(str(path.absolute()), metadata_errors="replace")
    # By default PyAV generates missing time stamps, which are wrong in an AVI whose codec reorders frames; ffmpeg uses
    # those of the packets instead.
    container.flags &= ~av.container.Flags.gen_pts.value
    return container


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file. Raises InputError, also from the body, if it is not a readable video."""
    try:
        with open_media(path) as container:
            yield container
    except (av.FFmpegError, ValueError) as error:  # PyAV raises ValueError for some broken headers
        found, way_out = f"no readable video ({error})", "Check the path, or download the video again."
        raise InputError(path, found, "a video file", way_out) from error


def expected_seconds(path: Path) -> float:
    """Return the approximate duration of a file by its header in seconds; infinity if it declares none."""
    with suppress(av.FFmpegError, ValueError), open_media(path) as container:
        if container.duration:
            return container.duration / av.time_base
    return math.inf


def decode_video(path: Path, *args: Any, **options: Any) -> DecodedVideo:
    """Decode a whole file at once; see `decode_stretches` for arguments and errors."""
    [whole] = decode_stretches(path, *args, **options)
    return whole


def decode_stretches(
    path: Path,
    frame_rate: float | None = FRAMES_PER_SECOND,  # frames per second; None: audio only
    sample_rates: Sequence[int] = (),  # of the waveforms, in hertz; none: frames only
    keep: Callable[[Frame], Any] = Frame.rgb,  # computes what is stored of each frame
    lost_seconds: float = LOST_SECONDS,  # a file that lacks more of its declared duration is damaged
    longest: float = math.inf,  # longest allowed duration in seconds
    colours: Colours = "bt601",  # conversion from YUV to RGB (see `Frame.rgb`)
    seconds: float = math.inf,  # approximate length of a stretch
) -> Iterator[DecodedVideo]:
    """Decode a file in stretches, each with its frames, times and samples.

    Only the last stretch has the duration, the end of the video track and the notes of the whole file. Frames are
    selected and repeated as by `ffmpeg -r <frame_rate>`, with which the published features were made: frame k (from 0)
    is about one frame earlier in the file than k / frame_rate, and ten seconds at 8 frames per second result in 82.

    Raises InputError for a file that is absent, no video, damaged or too long, and for one without a video track or a
    decodable frame if frames are requested.
    """
    with _opened(path) as container:
        videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        video, audio = (streams[0] if streams else None for streams in (videos, container.streams.audio))
        notes = []
        if audio is not None and audio.codec_context is None:
            notes.append(f"an audio track in a codec that cannot be decoded ({_codec_of(path, audio)})")
            audio = None
        if frame_rate is not None and video is None:
            raise InputError(path, "no video track", "a file with a video track", "Request audio features only.")
        if video is not None and video.codec_context is None:
            if frame_rate is not None:
                found = f"a video track in a codec that cannot be decoded ({_codec_of(path, video)})"
                raise InputError(path, found, "a codec that FFmpeg decodes", "Convert the video.")
            video = None
        if frame_rate is None and (audio is None or not sample_rates):
            yield DecodedVideo([], np.zeros(0), {}, 0.0, 0.0, tuple(notes))
            return
        start = (container.start_time or 0) / av.time_base
        may_jump = bool(container.format.flags & av.format.Flags.ts_discont.value)  # discontinuous time stamps
        streams = [stream for stream in (video, audio) if stream is not None]
        declared = 0.0 if may_jump else _declared_duration(container, streams)
        _check_length(path, declared, longest)
        if video is not None and max(video.width, video.height) > LONGEST_SIDE * max(1, min(video.width, video.height)):
            found = f"frames of {video.width} x {video.height} pixels"
            raise InputError(path, found, f"an aspect ratio of at most {LONGEST_SIDE}", "Leave this video out.")
        track = None if frame_rate is None else _VideoTrack(video, frame_rate, keep, start, declared, colours)
        sounds = {} if audio is None else {rate: _AudioTrack(rate, start) for rate in sample_rates}
        packets_end = {"video": 0.0, "audio": 0.0}  # seconds, end of each track by its packets
        for packet in _packets(container, streams, may_jump):
            kind, stamp = packet.stream.type, packet.dts if packet.pts is None else packet.pts
            if stamp is not None:
                end = float((stamp + (packet.duration or 0)) * packet.time_base) - start
                packets_end[kind] = max(packets_end[kind], end)
            if (kind == "video" and track is None) or (kind == "audio" and not sounds):
                continue
            with suppress(av.FFmpegError):  # skips damaged packets; missing seconds are checked below
                for frame in packet.decode():
                    if kind == "video":
                        track.add(frame)
                        continue
                    # The frame's own rate comes last: without conversion, FFmpeg sets the layout of frames with unnamed
                    # channels to "mono", which other resamplers reject.
                    for rate in sorted(sounds, key=lambda rate: rate == frame.sample_rate):
                        sounds[rate].add(frame)
            ahead = track.waiting if track is not None else max(sound.waiting for sound in sounds.values())
            if ahead > seconds:
                yield DecodedVideo(*_take(track, sounds), 0.0, 0.0)
        video_end = 0.0 if track is None else track.finish()
        if track is not None and not track.num_written:
            raise InputError(path, "no decodable frame", "a video of at least one second", "Download it again.")
        ends = packets_end | ({} if track is None else {"video": video_end})
        if sounds:
            ends["audio"] = max(sound.end for sound in sounds.values())
        # A file is damaged if packets are missing or cannot be decoded.
        of_tracks = ((ends[kind], packets_end[kind]) for kind in ends)
        for reached, of_file in ((max(packets_end.values()), declared), *of_tracks):
            if reached < of_file - lost_seconds:
                found = f"a damaged file: {reached:.1f} of {of_file:.1f} seconds can be decoded"
                raise InputError(path, found, "an intact file", "Download the video again.")
        duration = max(ends.values())
        _check_length(path, duration, longest)
        if track is not None and video_end < duration - EARLY_END_SECONDS:
            notes.append(f"the video track ends after {video_end:.1f} s; its last frame is repeated")
        if sounds and ends["audio"] < duration - EARLY_END_SECONDS:
            notes.append(f"the audio track ends after {ends['audio']:.1f} s; silence follows")
        for sound in sounds.values():
            sound.resample(None)
        yield DecodedVideo(*_take(track, sounds), duration, video_end, tuple(notes))


def _take(track: "_VideoTrack | None", sounds: "dict[int, _AudioTrack]") -> tuple[list, np.ndarray, dict]:
    """Return the frames, their times and the samples decoded since the last call."""
    frames, times = ([], []) if track is None else track.take()
    waveforms = {rate: sound.take() for rate, sound in sounds.items() if sound.first is not None}
    return frames, np.array(times, np.float64), waveforms


def _codec_of(path: Path, stream) -> str:
    """Return the codec of a track without a decoder, such as `none (ac-4 / 0x342D6361)`, from FFmpeg's log."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages, open_media(path):
            log = "".join(message for _, _, message in messages)
    finally:
        av.logging.set_level(level)
    found = re.search(rf"stream {stream.index} \(\w+: (.*)\): unknown codec", log)
    return found[1] if found else "unknown"


def _check_length(path: Path, seconds: float, longest: float) -> None:
    if seconds > longest:
        found, expected = f"a video of {seconds:.1f} seconds", f"a clip of at most {longest:g} seconds"
        raise InputError(path, found, expected, "Cut the annotated clip out of the whole video.")


def _packets(container, streams: list, may_jump: bool) -> Iterator[av.Packet]:
    """Yield the packets of some streams in the order of the file; the last packet of each stream is empty.

    If time stamps may jump (joined MPEG streams, interrupted recordings), jumps are removed as in ffmpeg.
    """
    for stream in streams:
        stream.codec_context.thread_count = 1  # several files are decoded in parallel instead
    ahead = 0.0  # seconds by which all further time stamps are shifted
    following: dict[int, float] = {}  # expected time of the next packet by stream
    last: dict[int, float] = {}
    with suppress(av.FFmpegError):  # the file may end within a packet
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


def _declared_duration(container, tracks: list) -> float:
    """Return the duration that the file declares for its tracks in seconds; 0 if none."""
    of_tracks = [float(stream.duration * stream.time_base) for stream in tracks if stream.duration]
    if container.format.name == "avi" and tracks[0].type == "video" and tracks[0].average_rate:
        # FFmpeg shortens the duration of a truncated AVI; the number of frames in the header is unaffected.
        of_tracks.append(float(tracks[0].frames / tracks[0].average_rate))
    if len(of_tracks) >= len(tracks):
        return max(of_tracks)
    return (container.duration or 0) / av.time_base if len(container.streams) == len(tracks) else 0.0


class _VideoTrack:
    """Converts a track of any frame rate, constant or variable, into frames at a constant rate."""

    def __init__(self, stream, frame_rate: float, keep: Callable, start: float, declared: float, colours: Colours):
        self.rate, self.keep, self.start, self.declared, self.colours = frame_rate, keep, start, declared, colours
        source_rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        self.seconds_a_frame = float(1 / source_rate)
        self.frames, self.times = [], []  # since the last `take`
        self.num_written = 0
        self.last: Frame | None = None
        self.written: tuple[Frame | None, Any] = (None, None)  # the last frame in `frames`, and the result of `keep`
        self.end = 0.0
        self.is_alone, self.skipped = len(stream.container.streams) == 1, 0
        self.repeated = deque([0, 0, 0], maxlen=3)  # the last three numbers of copies of a previous frame

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
        """Return the copies of the previous and the current frame to write now, by the rule of `ffmpeg -r`.

        The current frame lasts `seconds` from `position`, which is counted in output frames.
        """
        position += np.sign(position) / 2**17  # as in ffmpeg: breaks ties at the bounds
        whole = round(seconds * self.rate)
        length = whole if whole > 0 else min(1.0, self.seconds_a_frame * self.rate)
        if self.last is None and self.is_alone and position >= 0.5:
            position = self.skipped = round(position)  # a file of one track starts with its first frame, however late
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
        """Write the last frame and return its end in seconds."""
        if self.last is not None:
            self._write(self.last, sorted(self.repeated)[1])
        return self.end

    @property
    def waiting(self) -> float:
        """Return the seconds decoded since the last `take`."""
        return len(self.frames) / self.rate

    def take(self) -> tuple[list[Any], list[float]]:
        taken = self.frames, self.times
        self.frames, self.times = [], []
        return taken


class _AudioTrack:
    """Converts a track into a mono waveform from the start of the file; silence precedes a track that begins late."""

    def __init__(self, rate: int, start: float):
        self.rate, self.start = rate, start
        self.resampler, self.kind = _to_mono(rate=rate), None
        self.pieces: list[np.ndarray] = []  # not taken yet
        self.num_samples = self.num_taken = 0  # of the track
        self.early = 0  # samples before the start of the file, which are dropped
        self.first: float | None = None  # seconds at which the track begins
        self.end = 0.0

    def add(self, frame: av.AudioFrame) -> None:
        time = self.end if frame.time is None else frame.time - self.start
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if self.first is None:
            self.first = time
            before = round(time * self.rate)
            self.pieces, self.early = [np.zeros(max(0, before), np.int16)], max(0, -before)
        elif time - self.end > GAP_SECONDS or kind != self.kind:  # another format, as in advertisements
            self.resample(None)
            if time - self.end > GAP_SECONDS:  # packets may be missing, or damaged: silence up to this one
                missing = round((time - self.first) * self.rate) - self.num_samples
                self._append(np.zeros(max(0, missing), np.int16))
            self.resampler = _to_mono(rate=self.rate)
        self.end, self.kind = time + frame.samples / frame.sample_rate, kind
        self.resample(frame)

    def resample(self, frame: av.AudioFrame | None) -> None:
        """Append a frame's samples, or (None) those that the resampler still holds."""
        for piece in self.resampler.resample(frame):
            self._append(piece.to_ndarray()[0])

    def _append(self, samples: np.ndarray) -> None:
        self.num_samples += len(samples)
        self.pieces.append(samples[self.early :])
        self.early = max(0, self.early - len(samples))

    @property
    def waiting(self) -> float:
        """Return the seconds decoded since the last `take`."""
        return (self.num_samples - self.num_taken) / self.rate

    def take(self) -> np.ndarray:
        self.num_taken = self.num_samples
        pieces, self.pieces = self.pieces, []
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
