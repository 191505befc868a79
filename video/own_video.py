"""The user's own video: its overview for the page, and its features. T segments of one second, C events."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloaders.feature_origin import read_extraction, record_extraction
from dataloaders.features import PACKED, feature_path, load_text_features, read_segment_features
from utils.errors import InputError
from video.event_models import EventModel, OwnFeatures
from video.extraction.event_texts import write_event_features
from video.extraction.extraction_inputs import num_segments_of
from video.extraction.extraction_pipeline import extract, missing_features
from video.extraction.feature_networks import NETWORKS, Source, build_networks, settings_of
from video.extraction.video_lists import Video
from video.video_decoding import Colours, Frame, decode_stretches

FRAMES_SHOWN = 90  # largest number of frames in the page's strip
FRAME_HEIGHT = 96  # pixels, nearly twice the height on the page
SOUND_RATE, PEAK_SAMPLES = 8000, 160  # hertz; samples per peak of the waveform
PEAKS_RATE = SOUND_RATE // PEAK_SAMPLES
STRETCH = 60.0  # seconds in memory at a time
BATCH_SIZE = 8  # segments per batch of a feature network


@dataclass(frozen=True)
class Overview:
    """The parts of a video that are displayed on a page."""

    duration: float  # seconds
    num_segments: int  # T
    frames: list[np.ndarray]  # at most FRAMES_SHOWN of (96, W, 3) uint8, evenly spread
    peaks: np.ndarray | None  # (P,) float32 in [0, 1], PEAKS_RATE per second; None: no audio track
    notes: tuple[str, ...]  # about tracks that end early or cannot be decoded


def overview(path: Path, segments_per_second: int = 1) -> Overview:
    """Decode a video once at a small size. Raises InputError as `decode_stretches` does."""
    rate = 2.0  # frames per second

    def small(frame: Frame) -> np.ndarray | None:
        if frame.time % max(1 / rate, frame.declared / FRAMES_SHOWN) >= 1 / rate:
            return None
        image = frame.rgb()
        width = max(1, round(image.shape[1] * FRAME_HEIGHT / image.shape[0]))
        return np.asarray(Image.fromarray(image).resize((width, FRAME_HEIGHT), Image.Resampling.BILINEAR))

    frames, peaks, rest = [], [], np.zeros(0, np.int16)
    for decoded in decode_stretches(path, rate, [SOUND_RATE], small, seconds=STRETCH):
        frames += [frame for frame in decoded.frames if frame is not None]
        rest = np.concatenate([rest, decoded.sounds.get(SOUND_RATE, rest[:0])])
        whole = len(rest) // PEAK_SAMPLES * PEAK_SAMPLES
        peaks.append(np.abs(rest[:whole].reshape(-1, PEAK_SAMPLES) / np.float32(32768)).max(1))
        rest = rest[whole:]
    num_segments = num_segments_of(decoded.duration, segments_per_second)
    missing = round(len(frames) * (decoded.duration / decoded.video_end - 1))
    return Overview(
        duration=min(decoded.duration, num_segments / segments_per_second),
        num_segments=num_segments,
        frames=frames + frames[-1:] * min(missing, FRAMES_SHOWN),
        peaks=np.concatenate(peaks) if decoded.sounds else None,
        notes=decoded.notes,
    )


@dataclass(frozen=True)
class Extraction:
    """Settings of the extraction of missing features."""

    source: Source
    device: torch.device
    precision: str = "float32"
    recipe: str | None = None  # None: centre
    colours: Colours = "bt601"


def own_features(video: Path, model: EventModel, num_segments: int, how: Extraction, folder: Path) -> OwnFeatures:
    """Return the video's features from a folder in the layout of a data set; missing ones are extracted first.

    A video without an audio track is treated as silent. Raises InputError if weights are absent, the video is not
    readable, the folder holds features of other settings or widths, or the model has text features and a modality does
    not have exactly one feature with a text encoder.
    """
    of_model = (*model.features.audio, *model.features.visual)
    every_name = list(dict.fromkeys(name.removesuffix("_frames") for name in of_model))
    if unknown := [name for name in every_name if name not in NETWORKS]:
        found, expected = f"a model with features {', '.join(unknown)}", f"features among {', '.join(NETWORKS)}"
        raise InputError("--model", found, expected, "Choose another model.")
    wanted = Video(video.stem, video, num_segments, segments_per_second=model.segments_per_second)
    missing = missing_features(wanted, folder, every_name)
    to_build = every_name if model.prompts or model.uses_networks else missing
    networks = build_networks(to_build, how.source, how.device, how.precision)
    refuse_other_settings(how, folder, [name for name in every_name if name not in to_build])
    if to_build:
        settings = (how.recipe or "centre", how.precision, None, how.colours, model.segments_per_second)
        record_extraction(folder, settings_of(to_build, how.source, *settings))
    outcome = extract([wanted], folder, networks, how.recipe or "centre", BATCH_SIZE, 1, True, how.colours)
    if outcome.failures:
        raise InputError(video, outcome.failures[0].reason, "a video with all features", "Choose another video.")

    def read_segments(names: Sequence[str]) -> Tensor:  # (T, D), the features of a modality concatenated
        paths = {name: feature_path(folder, name, video.stem) for name in names}
        rows = [read_segment_features(path, name, num_segments, pooled=False) for name, path in paths.items()]
        return torch.from_numpy(np.concatenate(rows, axis=1)).to(how.device)

    def read_texts(names: Sequence[str]) -> Tensor:  # (C, D)
        with_text = [name for name in names if PACKED[name].text_folder]
        if len(with_text) != 1:
            found, expected = " ".join(names), "exactly one feature with a text encoder"
            raise InputError("the model's features", found, expected, "Use a model that was trained on CLAP and CLIP.")
        return load_text_features(Path(own), with_text[0], model.events, model.prompts).to(how.device)

    segments = model.features.map(read_segments)
    widths = segments.map(lambda rows: rows.shape[1])
    if model.widths not in (None, widths):
        found, expected = f"features of widths {tuple(widths)}", f"{tuple(model.widths)}, as in the model's training"
        raise InputError(video, found, expected, "Use the networks with which the model's features were extracted.")
    if model.prompts is None:
        return OwnFeatures(segments, None, networks)
    with tempfile.TemporaryDirectory() as own:  # `folder` may hold the text features of a data set's classes
        write_event_features(Path(own), networks, how.source, model.events, prompts=model.prompts)
        return OwnFeatures(segments, model.features.map(read_texts), networks)


def refuse_other_settings(how: Extraction, folder: Path, features: Sequence[str]) -> None:
    """Raise InputError if existing features were made with another recipe or other weights than requested."""
    recorded = read_extraction(folder)
    for name in features:
        requested = how.source.record(name, how.precision) if how.source.drawn else {}
        made = recorded.get(name, {})
        for key, value in (requested | {"recipe": how.recipe}).items():
            if value is not None and made.get(key, value) != value:
                found, way_out = f"{name} features whose {key} is {made[key]}", "Leave out the flag, or delete them."
                raise InputError(folder, found, f"{value}, as requested", way_out)
