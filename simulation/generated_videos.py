"""Generate MP4 files with known events, and annotations in the layout of a data set (`python -m simulation --videos`).

Visible events are moving coloured shapes; audible events are tones, chirps, noise or pulses. Classes of the same name
have the same shape and sound in all data sets (`Cello` and `playing cello`, but not `Dog` and `dog barking`), so that
stage 1 on UnAV transfers to LLP. Some events are faint, small or quiet; grey shapes and low hums of no class are
distractors. `generated_videos.yaml` marks the folder as generated.
"""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from dataloaders.annotations import SplitAnnotations
from dataloaders.ave import AVE_CLASSES
from dataloaders.datasets import SPLITS
from dataloaders.feature_origin import VIDEOS_MARKER
from dataloaders.llp import LLP_CLASSES
from dataloaders.unav import UNAV_CLASSES
from simulation.generated_annotations import SIMULATED, annotation_files, choose_videos, video_truth
from simulation.simulate import check_folder
from simulation.simulated_features import PARAMETERS, Truth, generator, name_words
from utils.errors import InputError
from utils.files import write_text
from video.video_encoding import write_video

VIDEOS_FOLDER = "raw_videos"
VERSION = 1  # of the videos' content; files of different versions are never mixed
SHAPES = ("disc", "square", "triangle", "ring", "cross", "bars")
SOUNDS = ("tone", "chirp", "noise", "pulses", "warble", "chord")
MODEL = SimpleNamespace(**PARAMETERS["videos"])


def concept_of(name: str) -> tuple[str, ...]:
    """Return the specific words of a class name, which identify the class in all data sets."""
    words = name_words(name)
    return tuple(sorted(word for word, weight in words.items() if weight == max(words.values())))


CONCEPTS = tuple(sorted({concept_of(name) for name in (*LLP_CLASSES, *UNAV_CLASSES, *AVE_CLASSES)}))
UNAV_CONCEPTS = {concept_of(name) for name in UNAV_CLASSES}
SHARED_CONCEPTS = tuple(concept for concept in map(concept_of, LLP_CLASSES) if concept in UNAV_CONCEPTS)


def generate_videos(
    dataset: str,
    output: Path,
    annotations: Path | None = None,  # as in `simulate`
    sizes: dict[str, int | None] | None = None,  # as in `simulate`
    seed: int = 0,
    num_events: int | None = None,  # allow only the first of the events shared by LLP and UnAV, in LLP's order
    longest: int | None = None,  # leave out videos with more segments than this
) -> Path:
    """Generate missing videos and annotations of a data set in `output/<dataset>`, and return that folder."""
    data_dir = Path(output) / dataset
    with annotation_files(dataset, annotations, seed) as (source, whole):
        truth = video_truth(whole, seed)
        kept = {}
        for split in SPLITS:
            suitable = _suitable(whole[split], truth, num_events, longest)
            chosen = choose_videos(whole[split].subset(suitable), (sizes or {}).get(split), seed)
            kept[split] = suitable[chosen].numpy()
            if not len(chosen):
                found, way_out = f"no {split} video with these events only", "Allow more events or longer videos."
                raise InputError("--num_events, --longest", found, "at least one", way_out)
        marker = {"generated": True, "version": VERSION, "dataset": dataset, "seed": seed, "num_events": num_events}
        marker["model"] = PARAMETERS["videos"]
        check_folder(data_dir, VIDEOS_MARKER, marker)
        write_text(data_dir / VIDEOS_MARKER, yaml.safe_dump(marker, sort_keys=False))
        SIMULATED[dataset].copy(source, data_dir, whole, kept)
    videos = dict.fromkeys(whole[split].feature_ids[n] for split in SPLITS for n in kept[split])
    paths = {video: data_dir / VIDEOS_FOLDER / f"{video}.mp4" for video in videos}

    def write(video: str) -> None:
        frames, sound = render_video(truth[video], whole["train"].classes, generator(seed, dataset, video, "video"))
        write_video(paths[video], frames, MODEL.frame_rate, sound[None], MODEL.sample_rate)

    missing = [video for video, path in paths.items() if not path.exists()]
    progress = {"desc": f"generating videos of {dataset}", "unit": "video", "mininterval": 1}
    thread_map(write, missing, max_workers=os.cpu_count(), **progress)
    return data_dir


def _suitable(
    annotations: SplitAnnotations, truth: dict[str, Truth], num_events: int | None, longest: int | None
) -> Tensor:
    """Return the indices of the videos with allowed events only and at most `longest` segments: (K,) int64."""
    allowed = set(SHARED_CONCEPTS[:num_events])
    ok = np.array([num_events is None or concept_of(name) in allowed for name in annotations.classes])
    keep = annotations.lengths <= (longest or annotations.lengths.max())
    for n, video in enumerate(annotations.feature_ids):
        events = truth[video].labels | truth[video].audio.any(0) | truth[video].visual.any(0)
        keep[n] &= bool((ok | ~events).all())
    return keep.nonzero().squeeze(1)


def render_video(truth: Truth, classes: tuple[str, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Render a video with the given events: frames (8 T, H, W, 3) uint8 and audio (L,) int16."""
    concepts = [CONCEPTS.index(concept_of(name)) for name in classes]
    return _render_frames(truth.visual, concepts, rng), _render_sound(truth.audio, concepts, rng)


def _render_frames(visible: np.ndarray, concepts: list[int], rng: np.random.Generator) -> np.ndarray:
    """Render the frames of a video: (8 T, H, W, 3) uint8."""
    height, width, rate, num_segments = MODEL.height, MODEL.width, MODEL.frame_rate, len(visible)
    ground = 60 + 60 * rng.random((2, 1, 3))  # background colour at the top and at the bottom
    frames = np.empty((num_segments * rate, height, width, 3), np.float32)
    frames[:] = np.linspace(ground[0], ground[1], height)
    actors = [(c, *look_of(concepts[c])) for c in np.flatnonzero(visible.any(0))]
    grey = rng.poisson(MODEL.distractors)
    actors += [(None, SHAPES[rng.integers(len(SHAPES))], np.full(3, 60 + 120 * rng.random())) for _ in range(grey)]
    for c, shape, colour in actors:
        faint = rng.random(num_segments) < MODEL.hidden
        size = rng.uniform(16, 26)
        start, speed = rng.random(2), rng.uniform(-0.4, 0.4, 2)
        for n in range(len(frames)):
            if c is not None and not visible[n // rate, c]:
                continue
            weak = c is not None and faint[n // rate]
            place = np.abs((start + speed * n / rate + 1) % 2 - 1)  # reflected at the edges
            _draw(frames[n], shape, colour, place, size / 2 if weak else size, 0.5 if weak else 1.0)
    grain = MODEL.picture_noise * rng.standard_normal((height, width, 3), dtype=np.float32)
    for n, (down, right) in enumerate(rng.integers(0, (height, width), (len(frames), 2))):
        frames[n] += np.roll(grain, (down, right), (0, 1))
    return frames.clip(0, 255).astype(np.uint8)


def look_of(concept: int) -> tuple[str, np.ndarray]:
    """Return the shape and the colour (3,) of a concept; adjacent concepts differ in both."""
    angles = 2 * np.pi * (concept * 0.618034 % 1 + np.array([0, 1 / 3, 2 / 3]))
    return SHAPES[concept % len(SHAPES)], 128 + 127 * np.cos(angles)


def _draw(frame: np.ndarray, shape: str, colour: np.ndarray, place: np.ndarray, size: float, opacity: float) -> None:
    """Draw a shape of half-width `size` pixels at a position in [0, 1]^2 into a frame (H, W, 3) float32."""
    height, width = frame.shape[:2]
    y, x = size + place[0] * (height - 2 * size), size + place[1] * (width - 2 * size)
    top, left = max(0, int(y - size)), max(0, int(x - size))
    part = frame[top : int(y + size) + 1, left : int(x + size) + 1]
    v = (np.arange(top, top + part.shape[0])[:, None] - y) / size  # -1 to 1
    u = (np.arange(left, left + part.shape[1])[None, :] - x) / size
    radius = np.hypot(u, v)
    inside = {
        "disc": radius < 1,
        "square": np.maximum(abs(u), abs(v)) < 0.9,
        "triangle": (v < 0.9) & (abs(u) < (v + 1) / 2),
        "ring": (radius < 1) & (radius > 0.55),
        "cross": (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1),
        "bars": (np.maximum(abs(u), abs(v)) < 1) & (np.floor(3 * (u + 1)) % 2 == 0),
    }[shape]
    part[inside] += opacity * (colour - part[inside])


def _render_sound(audible: np.ndarray, concepts: list[int], rng: np.random.Generator) -> np.ndarray:
    """Render the audio of a video: (L,) int16."""
    rate, num_segments = MODEL.sample_rate, len(audible)
    sound = MODEL.sound_noise * rng.standard_normal(num_segments * rate)
    for _ in range(rng.poisson(MODEL.distractors)):
        times = np.arange(len(sound)) / rate
        sound += 0.03 * np.sin(2 * np.pi * rng.uniform(60, 110) * times)
    for c in np.flatnonzero(audible.any(0)):
        wave = sound_of(concepts[c], rate)  # one second
        loudness = rng.uniform(0.15, 0.3)
        quiet = rng.random(num_segments) < MODEL.quiet
        for t in np.flatnonzero(audible[:, c]):
            sound[t * rate : (t + 1) * rate] += loudness * (0.25 if quiet[t] else 1.0) * wave
    return (32767 * sound.clip(-1, 1)).astype(np.int16)


def sound_of(concept: int, rate: int) -> np.ndarray:
    """Return one second of a concept's sound: (rate,) in [-1, 1]."""
    times = np.arange(rate) / rate
    pitch = 200 * 2 ** (5 * (concept * 0.618034 % 1))  # 200 to 6400 Hz
    kind = SOUNDS[concept % len(SOUNDS)]
    if kind == "chirp":
        pitch = pitch * (1 + 0.5 * (times * 2 % 1))
    elif kind == "warble":
        pitch = pitch * (1 + 0.1 * np.sin(2 * np.pi * 6 * times))
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch, times.shape)) / rate
    wave = np.sin(phase)
    if kind == "pulses":
        wave = wave * (times * 8 % 1 < 0.4)
    elif kind == "chord":
        wave = (wave + np.sin(1.26 * phase) + np.sin(1.5 * phase)) / 3
    elif kind == "noise":
        spectrum = np.fft.rfft(np.random.default_rng(concept).standard_normal(rate))
        hertz = np.fft.rfftfreq(rate, 1 / rate)
        spectrum[np.abs(np.log2(np.maximum(hertz, 1) / pitch)) > 0.25] = 0  # half an octave
        wave = np.fft.irfft(spectrum, rate)
        wave = 0.7 * wave / (math.sqrt(2) * wave.std())
    edge = np.minimum(1, np.minimum(times, times[::-1]) / 0.02)  # fades in and out, to avoid clicks
    return wave * edge
