"""One video by itself: what is shown of it, and its features as a network takes them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloaders.features import FEATURES, feature_path, load_text_features, read_segment_features
from dataloaders.provenance import record_extraction
from models import HAN, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from video.extraction.event_texts import write_event_features
from video.extraction.extraction_inputs import SHORTEST_SECONDS, Recipe, num_segments_of
from video.extraction.extraction_pipeline import extract, missing_features
from video.extraction.feature_networks import Source, build_networks, settings_of
from video.extraction.video_lists import Video
from video.video_decoding import Frame, decode_video

FRAMES_SHOWN = 90  # at most, in a page's strip
FRAME_HEIGHT = 96  # pixels: sharp at twice the size in which the page shows it, nearly
SOUND_RATE = 8000  # hertz, for a waveform


@dataclass(frozen=True)
class Overview:
    """What is shown of a video."""

    duration: float  # seconds
    num_segments: int  # T
    frames: list[np.ndarray]  # (96, W, 3) uint8, evenly spread, at most FRAMES_SHOWN
    sound: np.ndarray | None  # (L,) float32 in [-1, 1] at SOUND_RATE; None: no audio track


def overview(path: Path) -> Overview:
    """Decode a video once in small.

    Raises:
        InputError: when it is absent, damaged or too short.
    """
    rate = 2.0  # frames a second that are looked at

    def small(frame: Frame) -> np.ndarray | None:
        if frame.time % max(1 / rate, frame.declared / FRAMES_SHOWN) >= 1 / rate:
            return None
        image = frame.rgb()
        width = max(1, round(image.shape[1] * FRAME_HEIGHT / image.shape[0]))
        return np.asarray(Image.fromarray(image).resize((width, FRAME_HEIGHT), Image.Resampling.BILINEAR))

    decoded = decode_video(path, rate, [SOUND_RATE], keep=small)
    if decoded.duration < SHORTEST_SECONDS:
        found = f"{decoded.duration:.2f} seconds"
        raise InputError(path, found, f"{SHORTEST_SECONDS} seconds or more", "Choose a longer video.")
    num_segments = num_segments_of(decoded.duration)
    sound = decoded.sounds.get(SOUND_RATE)
    return Overview(
        duration=min(decoded.duration, num_segments),
        num_segments=num_segments,
        frames=[frame for frame in decoded.frames if frame is not None],
        sound=None if sound is None else sound.astype(np.float32) / 32768,
    )


def own_features(
    video: Path,
    num_segments: int,
    folder: Path,
    model: HAN | TemporalTransformer,
    events: Sequence[str] | None,
    source: Source,
    recipe: Recipe,
    precision: str = "float32",
    batch_size: int = 8,
) -> tuple[AudioVisual[Tensor], AudioVisual[Tensor] | None]:
    """Read one video's features from a folder of feature files; those that are not there are extracted into it first.

    A video without audio track is taken as silent.

    Args:
        folder: in the layout of a data set.
        model: whose description names the features; they are put on its device.
        events: names to make text features of with the features' own text encoders; None: none.
        source: where the networks come from.
        batch_size: segments that a network is given at a time.

    Returns:
        features (T, D), those of a modality concatenated; and text features (C, D), where events were named

    Raises:
        InputError: when weights are absent, the video cannot be read, the folder holds features made otherwise, they
            are not of the model's widths, or a modality has not one feature with a text encoder where events are named.
    """
    device = next(model.parameters()).device
    audio_names, visual_names = model.description.audio_features, model.description.visual_features
    every_name = list(dict.fromkeys([*audio_names, *visual_names]))
    wanted = Video(video.stem, video, num_segments)
    to_build = every_name if events is not None else missing_features(wanted, folder, every_name)
    networks = build_networks(to_build, source, device, precision)
    if to_build:
        record_extraction(folder, settings_of(to_build, source, recipe, precision))
        outcome = extract([wanted], folder, networks, recipe, batch_size, 1, silence_if_no_sound=True)
        if outcome.failures:
            raise InputError(video, outcome.failures[0].reason, "a video that has all features", "Name another video.")
    audio = _read_segments(folder, audio_names, video.stem, num_segments)
    visual = _read_segments(folder, visual_names, video.stem, num_segments)
    widths = {"audio_dim": audio.shape[1], "visual_dim": visual.shape[1]}
    expected = {name: model.sizes[name] for name in widths}
    if widths != expected:
        way_out = "Use the networks whose features the model was trained on."
        raise InputError(video, f"features of widths {widths}", f"{expected}, as the model was trained", way_out)
    segments = AudioVisual(audio.to(device), visual.to(device))
    if events is None:
        return segments, None
    with tempfile.TemporaryDirectory() as own:  # `folder` may hold the text features of a data set's classes
        write_event_features(Path(own), networks, source, tuple(events))
        audio_texts = _read_texts(Path(own), audio_names, len(events)).to(device)
        visual_texts = _read_texts(Path(own), visual_names, len(events)).to(device)
    return segments, AudioVisual(audio_texts, visual_texts)


def _read_segments(folder: Path, names: Sequence[str], feature_id: str, num_segments: int) -> Tensor:
    """Read the features of one modality, concatenated: (T, D)."""
    paths = {name: feature_path(folder, name, feature_id) for name in names}
    rows = [read_segment_features(path, name, num_segments, pooled=False) for name, path in paths.items()]
    return torch.from_numpy(np.concatenate(rows, axis=1))


def _read_texts(folder: Path, names: Sequence[str], num_events: int) -> Tensor:
    """Read the text features of one modality: (C, D)."""
    with_text = [name for name in names if FEATURES[name].text_folder]
    if len(with_text) != 1:
        found, expected = " ".join(names), "exactly one feature with a text encoder"
        raise InputError("the model's features", found, expected, "Name a model that was trained on CLAP and CLIP.")
    return load_text_features(folder, with_text[0], num_events)
