"""Short videos and sounds for tests of extraction."""

from pathlib import Path

import av
import numpy as np

from video.extraction.extraction_inputs import read_inputs
from video.video_encoding import write_video

SAMPLE_RATE = 16_000


def make_video(path: Path, seconds: float = 2, seed: int = 0, sound: bool = True, rate: float = 8) -> Path:
    """A moving patch on a coloured ground, and a tone; another seed, another video."""
    rng = np.random.default_rng(seed)
    ground, patch = rng.integers(0, 255, (2, 3)).astype(np.uint8)
    frames = []
    for n in range(round(seconds * rate)):
        image = np.tile(ground, (64, 80, 1))
        left = (3 * n) % 60
        image[20:40, left : left + 20] = patch
        frames.append(image)
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = (8000 * np.sin(2 * np.pi * rng.integers(200, 4000) * times)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, rate, tone[None] if sound else None, SAMPLE_RATE)
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Mono, (L,) int16; the file does not name its channel."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def whole_inputs(*arguments, **settings) -> dict[str, np.ndarray]:
    """All that `read_inputs` yields of a video, by feature."""
    stretches = [inputs for inputs, _ in read_inputs(*arguments, **settings)]
    return {name: np.concatenate([inputs[name] for inputs in stretches]) for name in stretches[0]}
