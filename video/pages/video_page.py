"""The page of one video."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from video.pages.html import packed, write_page
from video.pages.tracks import ParsedVideo, Track


@dataclass(frozen=True)
class Media:
    """What is shown of the video beside its events; None where there is nothing to show."""

    source: str | None = None  # URL: a file beside the page, or a data URL
    file_name: str = ""
    strip: dict[str, object] | None = None  # as `strip_of` returns it
    peaks: np.ndarray | None = None  # (P,) uint8, of the waveform


def write_video_page(path: Path, parsed: ParsedVideo, media: Media = Media(), warning: str = "") -> None:
    """Write the page of a parsed video: one HTML file that works from disk.

    Args:
        warning: shown on top, for results that are not what they look like (random weights, simulated features).
    """
    data = {
        "title": parsed.name,
        "notes": list(parsed.notes),
        "warning": warning,
        "duration": parsed.duration,
        "segments": parsed.num_segments,
        "threshold": parsed.threshold,
        "events": [event.replace("_", " ") for event in parsed.events],
        "tracks": [_packed_track(track) for track in parsed.tracks],
        "video": media.source,
        "video_name": media.file_name,
        "peaks": None if media.peaks is None else packed(media.peaks),
        "strip": media.strip,
    }
    write_page(path, "video", parsed.name, data)


def _packed_track(track: Track) -> dict:
    """A track as the page's script reads it."""
    arrays = {"audio": track.probs.audio, "visual": track.probs.visual}
    if track.around is not None:
        arrays |= {"audio_around": track.around.audio, "visual_around": track.around.visual}
    return {"name": track.name} | {name: packed(array.astype(np.float32)) for name, array in arrays.items()}
