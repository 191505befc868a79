"""The page of one video: its events, and the file, a strip of frames and the waveform to show them beside."""

import base64
import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from utils.files import atomic_write
from video.pages.html import packed, write_page
from video.pages.parsed_video import ParsedVideo

MAX_STRIP_WIDTH = 16_000  # pixels, less than what browsers' canvases and JPEG allow
NUM_PEAKS = 20_000  # at most, of the waveform
PEAKS_PER_SECOND = 50
# What a page may call a video that is part of it, whatever its name.
VIDEO_TYPES = {".webm": "video/webm", ".mkv": "video/x-matroska", ".mov": "video/quicktime", ".avi": "video/x-msvideo"}


@dataclass(frozen=True)
class Media:
    """What is shown of the video beside its events; None where there is nothing to show."""

    source: str | None = None  # URL: a file beside the page, or a data URL
    file_name: str = ""
    strip: dict[str, object] | None = None  # as `strip_of` returns it
    peaks: np.ndarray | None = None  # (P,) uint8, of the waveform


def write_video_page(path: Path, parsed: ParsedVideo, media: Media = Media()) -> None:
    """Write the page of a parsed video: one HTML file that works from disk."""
    tracks = []
    for track in parsed.tracks:
        arrays = {"audio": track.probs.audio, "visual": track.probs.visual}
        if track.around is not None:
            arrays |= {"audio_around": track.around.audio, "visual_around": track.around.visual}
        tracks.append({"name": track.name} | {name: packed(array.astype(np.float32)) for name, array in arrays.items()})
    data = {
        "title": parsed.name,
        "notes": list(parsed.notes),
        "warning": parsed.warning,
        "duration": parsed.duration,
        "segments": parsed.num_segments,
        "rate": parsed.segments_per_second,
        "threshold": parsed.threshold,
        "events": [event.replace("_", " ") for event in parsed.events],
        "tracks": tracks,
        "video": media.source,
        "video_name": media.file_name,
        "peaks": None if media.peaks is None else packed(media.peaks),
        "strip": media.strip,
    }
    write_page(path, "video", parsed.name, data)


def strip_of(frames: Sequence[np.ndarray], quality: int = 72) -> dict[str, object]:
    """Return frames at even distances side by side in one picture, as the page's script reads it.

    Frame i of n shows the time (i + 1/2) · duration / n; of too many, every second, third ... is taken.

    Args:
        frames: (H, W, 3) uint8 each, at least one, evenly spread over the video.
    """
    height, width = frames[0].shape[:2]
    count = min(len(frames), MAX_STRIP_WIDTH // width)
    middles = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
    data = io.BytesIO()
    picture = Image.fromarray(np.concatenate([frames[n] for n in middles], axis=1))
    picture.save(data, "JPEG", quality=quality, optimize=True)
    jpeg = base64.b64encode(data.getvalue()).decode()
    return {"image": f"data:image/jpeg;base64,{jpeg}", "count": count, "width": width, "height": height}


def peaks_of(samples: np.ndarray, rate: int, duration: float) -> np.ndarray:
    """The waveform's largest amplitude in each of P even stretches of the video, (L,) in [-1, 1] -> (P,) uint8.

    The loudest is 255, so that a quiet recording can be seen, but nothing below a twentieth of full scale is scaled up
    to it. Where the sound ends before the video does, the rest is silence.

    Args:
        rate: samples a second.
        duration: of the video in seconds.
    """
    count = int(min(max(duration * PEAKS_PER_SECOND, 1), NUM_PEAKS))
    length = max(round(duration * rate), count)
    padded = np.zeros(length, np.float32)
    padded[: len(samples)] = np.abs(samples[:length])
    peaks = np.maximum.reduceat(padded, np.linspace(0, length, count + 1).astype(int)[:-1])  # (P,)
    return np.round(255 * np.clip(peaks / max(float(peaks.max()), 0.05), 0, 1)).astype(np.uint8)


def video_source(video: Path, page: Path, embed_below: int) -> str:
    """How a page names its video: the video itself as a data URL, or a file beside the page, copied there if need be.

    Args:
        page: the HTML file.
        embed_below: bytes; smaller videos become part of the page.

    Raises:
        InputError: when there is no room for the copy.
    """
    if video.stat().st_size < embed_below:
        kind = VIDEO_TYPES.get(video.suffix.lower(), "video/mp4")
        return f"data:{kind};base64,{base64.b64encode(video.read_bytes()).decode()}"
    beside = page.parent / video.name
    if not (beside.exists() and os.path.samefile(beside, video)):
        with open(video, "rb") as original, atomic_write(beside) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
    return quote(beside.name)
