"""Parse one's own video: which events are audible, visible or both in every second, on a page and in files.

    python -m video.parse_video VIDEO --model RUN           # a trained HAN: its classes
    python -m video.parse_video VIDEO --model RUN --events "dog barking" "glass breaking"    # stage 1: any events

MODEL is a run folder of train_han.py or train_transformer.py, a folder exported with `python -m utils.trained`, or
the id of such a repository on the Hugging Face hub. docs/own_video.md says what comes out.
"""

from utils.entry_point import run_entry_point

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloaders.feature_origin import feature_note, read_extraction, record_extraction
from dataloaders.features import FEATURES, feature_path, load_text_features, read_segment_features
from models import HAN, TemporalTransformer
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.windows import HAN_WINDOW, TRANSFORMER_WINDOW, SegmentProbs, han_probs, transformer_probs
from utils.run_folders import DEFAULT_RUNS_DIR
from utils.settings import whole_number
from utils.trained import newest_han, open_trained, thresholds_of
from utils.training.device import select_device
from video.extraction.event_texts import write_event_features
from video.extraction.extraction_inputs import RECIPES, num_segments_of
from video.extraction.extraction_pipeline import extract, missing_features
from video.extraction.feature_networks import (
    NETWORKS,
    Source,
    add_network_flags,
    build_networks,
    settings_of,
    source_of,
)
from video.extraction.video_lists import Video
from video.pages.parsed_video import EXPORTS, ParsedVideo, Track, write_exports
from video.pages.video_page import Media, peaks_of, strip_of, video_source, write_video_page
from video.video_decoding import Frame, decode_video

FRAMES_SHOWN = 90  # at most, in a page's strip
FRAME_HEIGHT = 96  # pixels: sharp at twice the size in which the page shows it, nearly
SOUND_RATE = 8000  # hertz, for a waveform
PAGE = "page.html"
BATCH_SIZE = 8  # segments that a feature network is given at a time

Model = HAN | TemporalTransformer


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--model", help="run folder, exported folder, or hub id (default: the newest HAN in runs_dir)")
    parser.add_argument("--runs_dir", type=Path, default=DEFAULT_RUNS_DIR, help="where runs are looked for")
    parser.add_argument("--events", nargs="+", metavar="NAME", help="any events, for a temporal transformer")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability that an event exceeds")
    of_window = f"segments that the model sees at a time (default: HAN {HAN_WINDOW}, transformer {TRANSFORMER_WINDOW})"
    parser.add_argument("--window", type=whole_number(1), help=of_window)
    of_stride = "segments between windows (default: HAN 1, transformer half a window)"
    parser.add_argument("--stride", type=whole_number(1), help=of_stride)
    parser.add_argument("--output_dir", type=Path, help="(default: parsed_videos/<name of the video>)")
    parser.add_argument("--embed_below", type=float, default=20, metavar="MB", help="smaller videos go into the page")
    features = parser.add_argument_group("features")
    features.add_argument("--features_dir", type=Path, help="keep feature files here, and use those that are there")
    features.add_argument("--recipe", choices=RECIPES, help="frames and sounds for CLIP and CLAP (default: centre)")
    add_network_flags(features)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.video.name in (PAGE, *EXPORTS):
        found, expected = "the name of a file that this command writes", f"none of {PAGE}, {', '.join(EXPORTS)}"
        raise InputError(args.video, found, expected, "Rename the video.")
    if not 0 < args.threshold < 1:
        raise InputError("--threshold", f"{args.threshold:g}", "a probability between 0 and 1", "0.5 is usual.")
    device = select_device(args.device)
    source = args.model or str(newest_han(args.runs_dir))
    model = open_trained(source).to(device)
    events = events_of(model, args.events)
    window, stride = windows_of(args, model)
    shown = overview(args.video)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.features_dir or Path(temporary)
        features, texts = own_features(args, model, events, shown.num_segments, folder)
        note = feature_note(folder)
    result = parse(model, features, texts, args.events is not None, window, stride)

    name, description = Path(source).name, model.description
    every_feature = dict.fromkeys([*description.audio_features, *description.visual_features])
    notes = [name, f"{len(events)} events", ", ".join(every_feature)]
    notes += shown.notes
    if shown.sound is None:
        notes.append("no audio track, taken as silence")
    warning = f"This video has {note}." if note else ""
    if description.note:
        warning = f"{warning} The model was trained on {description.note}.".lstrip()
    probs = AudioVisual(result.probs.audio.cpu().numpy(), result.probs.visual.cpu().numpy())
    around = result.around and AudioVisual(result.around.audio.cpu().numpy(), result.around.visual.cpu().numpy())
    track = Track(name, probs, around)
    parsed = ParsedVideo(args.video.name, shown.duration, events, (track,), args.threshold, tuple(notes), warning)
    folder = args.output_dir or Path("parsed_videos") / args.video.stem
    page = folder / PAGE
    media = Media(
        source=video_source(args.video, page, round(args.embed_below * 1e6)),
        file_name=args.video.name,
        strip=strip_of(shown.frames) if shown.frames else None,
        peaks=None if shown.sound is None else peaks_of(shown.sound, SOUND_RATE, shown.duration),
    )
    write_video_page(page, parsed, media)
    write_exports(folder, parsed, args.video)
    print(page)


def events_of(model: Model, named: list[str] | None) -> tuple[str, ...]:
    """The events to look for: those that are named, else the model's own.

    Raises:
        InputError: when events are named for a HAN, twice, or a model has none.
    """
    description = model.description
    if named is None:
        if not description.classes:
            raise InputError("--model", "a model that names no classes", "one that does", "Name --events.")
        return description.classes
    if not isinstance(model, TemporalTransformer):
        way_out = "Name a run of train_transformer.py, or leave out --events."
        raise InputError("--events", "a HAN, which knows its classes only", "a temporal transformer", way_out)
    if len(set(named)) < len(named) or not all(name.strip() and name.isprintable() for name in named):
        expected = "different names of printable characters, none empty"
        raise InputError("--events", ", ".join(map(ascii, named)), expected, "Correct them.")
    return tuple(named)


def windows_of(args: argparse.Namespace, model: Model) -> tuple[int, int]:
    """Segments of a window, and between windows. Raises InputError for windows that would leave segments out."""
    is_transformer = isinstance(model, TemporalTransformer)
    window = args.window or (TRANSFORMER_WINDOW if is_transformer else HAN_WINDOW)
    stride = args.stride or (max(1, window // 2) if is_transformer else 1)
    if not 1 <= stride <= window:
        raise InputError("--stride, --window", f"{stride}, {window}", "1 <= stride <= window", "Correct the flags.")
    return window, stride


@dataclass(frozen=True)
class Overview:
    """What is shown of a video."""

    duration: float  # seconds
    num_segments: int  # T
    frames: list[np.ndarray]  # (96, W, 3) uint8, evenly spread, at most FRAMES_SHOWN
    sound: np.ndarray | None  # (L,) float32 in [-1, 1] at SOUND_RATE; None: no audio track
    notes: tuple[str, ...]  # on tracks that end early or cannot be decoded


def overview(path: Path) -> Overview:
    """Decode a video once in small. Raises InputError as `decode_video` does."""
    rate = 2.0  # frames a second that are looked at

    def small(frame: Frame) -> np.ndarray | None:
        if frame.time % max(1 / rate, frame.declared / FRAMES_SHOWN) >= 1 / rate:
            return None
        image = frame.rgb()
        width = max(1, round(image.shape[1] * FRAME_HEIGHT / image.shape[0]))
        return np.asarray(Image.fromarray(image).resize((width, FRAME_HEIGHT), Image.Resampling.BILINEAR))

    decoded = decode_video(path, rate, [SOUND_RATE], keep=small)
    num_segments = num_segments_of(decoded.duration)
    sound = decoded.sounds.get(SOUND_RATE)
    frames = [frame for frame in decoded.frames if frame is not None]
    missing = round(len(frames) * (decoded.duration / decoded.pictures_end - 1))
    return Overview(
        duration=min(decoded.duration, num_segments),
        num_segments=num_segments,
        frames=frames + frames[-1:] * min(missing, FRAMES_SHOWN),
        sound=None if sound is None else sound.astype(np.float32) / 32768,
        notes=decoded.notes,
    )


def own_features(
    args: argparse.Namespace, model: Model, events: tuple[str, ...], num_segments: int, folder: Path
) -> tuple[AudioVisual[Tensor], AudioVisual[Tensor] | None]:
    """Read the video's features from a folder of feature files; those that are not there are extracted into it first.

    A video without audio track is taken as silent.

    Args:
        model: whose description names the features; they are put on its device.
        folder: in the layout of a data set.

    Returns:
        features (T, D), those of a modality concatenated; and for a temporal transformer text features (C, D) of the
        events, by the features' own text encoders

    Raises:
        InputError: when weights are absent, the video cannot be read, the folder holds features made otherwise, they
            are not of the model's widths, or a modality has not one feature with a text encoder where it needs one.
    """
    video, source, with_texts = args.video, source_of(args), isinstance(model, TemporalTransformer)
    device = next(model.parameters()).device
    audio_names, visual_names = model.description.audio_features, model.description.visual_features
    every_name = list(dict.fromkeys([*audio_names, *visual_names]))
    if unknown := [name for name in every_name if name not in NETWORKS]:
        found, expected = f"a model of the features {', '.join(unknown)}", f"some of {', '.join(NETWORKS)}"
        raise InputError("--model", found, expected, "Name another one.")
    wanted = Video(video.stem, video, num_segments)
    to_build = every_name if with_texts else missing_features(wanted, folder, every_name)
    networks = build_networks(to_build, source, device, args.precision)
    refuse_other_settings(args, source, folder, [name for name in every_name if name not in to_build])
    recipe = args.recipe or "centre"
    if to_build:
        record_extraction(folder, settings_of(to_build, source, recipe, args.precision, None, args.colours))
    outcome = extract([wanted], folder, networks, recipe, BATCH_SIZE, 1, True, args.colours)
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
    if not with_texts:
        return segments, None
    with tempfile.TemporaryDirectory() as own:  # `folder` may hold the text features of a data set's classes
        write_event_features(Path(own), networks, source, events)
        audio_texts = _read_texts(Path(own), audio_names, events).to(device)
        visual_texts = _read_texts(Path(own), visual_names, events).to(device)
    return segments, AudioVisual(audio_texts, visual_texts)


def refuse_other_settings(args: argparse.Namespace, source: Source, folder: Path, features: Sequence[str]) -> None:
    """Raise InputError when features that are there were made with another recipe or other weights than flags name."""
    recorded = read_extraction(folder)
    for name in features:
        asked = source.record(name, args.precision) if source.drawn else {}
        made = recorded.get(name, {})
        for key, value in (asked | {"recipe": args.recipe}).items():
            if value is not None and made.get(key, value) != value:
                found, way_out = f"{name} features whose {key} is {made[key]}", "Leave out the flag, or delete them."
                raise InputError(folder, found, f"{value}, as the flags say", way_out)


def _read_segments(folder: Path, names: Sequence[str], feature_id: str, num_segments: int) -> Tensor:
    """Read the features of one modality, concatenated: (T, D)."""
    paths = {name: feature_path(folder, name, feature_id) for name in names}
    rows = [read_segment_features(path, name, num_segments, pooled=False) for name, path in paths.items()]
    return torch.from_numpy(np.concatenate(rows, axis=1))


def _read_texts(folder: Path, names: Sequence[str], events: Sequence[str]) -> Tensor:
    """Read the text features of one modality: (C, D)."""
    with_text = [name for name in names if FEATURES[name].text_folder]
    if len(with_text) != 1:
        found, expected = " ".join(names), "exactly one feature with a text encoder"
        raise InputError("the model's features", found, expected, "Name a model that was trained on CLAP and CLIP.")
    return load_text_features(folder, with_text[0], events)


def parse(
    model: Model,
    features: AudioVisual[Tensor],
    texts: AudioVisual[Tensor] | None,
    any_events: bool,
    window: int,
    stride: int,
) -> SegmentProbs:
    """The model's probabilities; of any events without thresholds, which were searched for its own classes."""
    if isinstance(model, HAN):
        return han_probs(model, features, window, stride, model.description.decoding)
    thresholds = None if any_events else thresholds_of(model.description)
    return transformer_probs(model, features, texts, thresholds, window, stride)


if __name__ == "__main__":
    run_entry_point(main)
