"""What a page shows of the video itself: the file, a strip of frames, the waveform."""

import base64
import io
import mimetypes
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from utils.files import atomic_write

MAX_STRIP_WIDTH = 16_000  # pixels, less than what browsers' canvases and JPEG allow
NUM_PEAKS = 20_000  # at most, of the waveform
PEAKS_PER_SECOND = 50


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
        kind = mimetypes.guess_type(video.name)[0] or "video/mp4"
        return f"data:{kind};base64,{base64.b64encode(video.read_bytes()).decode()}"
    beside = page.parent / video.name
    if not (beside.exists() and os.path.samefile(beside, video)):
        with open(video, "rb") as original, atomic_write(beside) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
    return quote(beside.name)
