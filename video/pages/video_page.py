"""The page of one video: its events beside the video itself, a strip of frames and the waveform."""

import base64
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from utils.files import atomic_write
from video.pages.html import packed, write_page
from video.pages.parsed_video import ParsedVideo

MAX_STRIP_WIDTH = 16_000  # pixels, below the limits of browsers' canvases and of JPEG
NUM_PEAKS = 20_000  # at most, of the waveform
PEAKS_PER_SECOND = 50
# Types of videos embedded in a page; others are called MP4.
VIDEO_TYPES = {".webm": "video/webm", ".mkv": "video/x-matroska", ".mov": "video/quicktime", ".avi": "video/x-msvideo"}


@dataclass(frozen=True)
class Media:
    """The media shown beside the events; None: nothing to show."""

    source: str | None = None  # URL: a file beside the page, or a data URL
    file_name: str = ""
    strip: dict[str, object] | None = None  # the output of `strip_of`
    peaks: np.ndarray | None = None  # (P,) uint8, of the waveform


def write_video_page(
    path: Path, parsed: ParsedVideo, media: Media = Media(), exports: Mapping[str, object] | None = None
) -> None:
    """Write the page of a parsed video, and exports to download: one HTML file that works from disk."""
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
        "segments": len(parsed.tracks[0].probs.audio),
        "rate": parsed.segments_per_second,
        "threshold": parsed.threshold,
        "events": [event.replace("_", " ") for event in parsed.events],
        "tracks": tracks,
        "video": media.source,
        "video_name": media.file_name,
        "peaks": None if media.peaks is None else packed(media.peaks),
        "strip": media.strip,
        "exports": exports,
    }
    write_page(path, "video", parsed.name, data)


def strip_of(frames: Sequence[np.ndarray]) -> dict[str, object]:
    """Return frames, (H, W, 3) uint8, evenly spread over the video, side by side in one JPEG for the page's script.

    Frame i of n shows the time (i + 1/2) · duration / n; of too many, every second, third ... is used.
    """
    height, width = frames[0].shape[:2]
    count = min(len(frames), MAX_STRIP_WIDTH // width)
    middles = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
    data = io.BytesIO()
    picture = Image.fromarray(np.concatenate([frames[n] for n in middles], axis=1))
    picture.save(data, "JPEG", quality=72, optimize=True)
    jpeg = base64.b64encode(data.getvalue()).decode()
    return {"image": f"data:image/jpeg;base64,{jpeg}", "count": count, "width": width, "height": height}


def peaks_of(samples: np.ndarray, rate: int, duration: float) -> np.ndarray:
    """Return the peak amplitude of each of P even stretches of the video: (L,) in [-1, 1] -> (P,) uint8.

    `rate` is in samples a second, `duration` in seconds of video; silence follows the sound. The loudest peak is 255,
    which makes quiet recordings visible, unless it is below a twentieth of full scale.
    """
    count = int(min(max(duration * PEAKS_PER_SECOND, 1), NUM_PEAKS))
    length = max(round(duration * rate), count)
    padded = np.zeros(length, np.float32)
    padded[: len(samples)] = np.abs(samples[:length])
    peaks = np.maximum.reduceat(padded, np.linspace(0, length, count + 1).astype(int)[:-1])  # (P,)
    return np.round(255 * np.clip(peaks / max(float(peaks.max()), 0.05), 0, 1)).astype(np.uint8)


def video_source(video: Path, page: Path, embed_below: int) -> str:
    """Return the URL of a page's video: a data URL below `embed_below` bytes, else a file copied beside the page."""
    if video.stat().st_size < embed_below:
        kind = VIDEO_TYPES.get(video.suffix.lower(), "video/mp4")
        return f"data:{kind};base64,{base64.b64encode(video.read_bytes()).decode()}"
    beside = page.parent / video.name
    if not (beside.exists() and os.path.samefile(beside, video)):
        with open(video, "rb") as original, atomic_write(beside) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
    return quote(beside.name)
