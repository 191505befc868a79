"""Parse one's own video: which events are audible, visible or both in every second, on a page and in files.

    python -m video.parse_video VIDEO --model RUN           # a trained HAN: its classes
    python -m video.parse_video VIDEO --model RUN --events "dog barking" "glass breaking"    # stage 1: any events

MODEL is a run folder of train_han.py or train_transformer.py, a folder exported with `python -m utils.trained`, or
the id of such a repository on the Hugging Face hub. docs/own_video.md says what comes out.
"""

from utils.entry_point import run_entry_point

import argparse
import tempfile
from pathlib import Path

from torch import Tensor

from dataloaders.provenance import feature_note
from models import HAN, TemporalTransformer
from models.pretrained import Description
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.windows import HAN_WINDOW, TRANSFORMER_WINDOW, SegmentProbs, han_probs, transformer_probs
from utils.run_folders import DEFAULT_RUNS_DIR
from utils.settings import whole_number
from utils.trained import newest_han, open_trained, thresholds_of
from utils.training.device import select_device
from video.extraction.extraction_inputs import RECIPES
from video.extraction.feature_networks import add_network_flags, source_of
from video.own_video import SOUND_RATE, Overview, overview, own_features
from video.pages.exports import write_exports
from video.pages.tracks import ParsedVideo, Track
from video.pages.video_page import Media, peaks_of, strip_of, video_source, write_video_page

Model = HAN | TemporalTransformer


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--model", help="run folder, exported folder, or hub id (default: the newest HAN in runs_dir)")
    parser.add_argument("--runs_dir", type=Path, default=DEFAULT_RUNS_DIR, help="where runs are looked for")
    parser.add_argument("--events", nargs="+", metavar="NAME", help="any events, for a temporal transformer")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability that an event exceeds")
    parser.add_argument(
        "--window",
        type=whole_number(1),
        help=f"segments that the model sees at a time (default: HAN {HAN_WINDOW}, transformer {TRANSFORMER_WINDOW})",
    )
    parser.add_argument(
        "--stride", type=whole_number(1), help="segments between windows (default: HAN 1, transformer half a window)"
    )
    parser.add_argument("--output_dir", type=Path, help="(default: parsed_videos/<name of the video>)")
    parser.add_argument("--embed_below", type=float, default=20, metavar="MB", help="smaller videos go into the page")
    features = parser.add_argument_group("features")
    features.add_argument("--features_dir", type=Path, help="keep feature files here, and use those that are there")
    features.add_argument("--recipe", choices=RECIPES, default="centre", help="frames and sounds for CLIP and CLAP")
    add_network_flags(features)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
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
        named = events if isinstance(model, TemporalTransformer) else None
        made_by = (source_of(args), args.recipe, args.precision)
        features, texts = own_features(args.video, shown.num_segments, folder, model, named, *made_by)
        note = feature_note(folder)
    probs = parse(model, features, texts, args.events is not None, window, stride)
    warning = f"This video has {note}." if note else ""
    if model.description.note:
        warning = f"{warning} The model was trained on {model.description.note}.".lstrip()
    print(write_results(args, Path(source).name, model.description, events, probs, shown, warning))


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
    if len(set(named)) < len(named) or not all(name.strip() for name in named):
        raise InputError("--events", ", ".join(map(repr, named)), "different names, none empty", "Correct them.")
    return tuple(named)


def windows_of(args: argparse.Namespace, model: Model) -> tuple[int, int]:
    """Segments of a window, and between windows. Raises InputError for windows that would leave segments out."""
    is_transformer = isinstance(model, TemporalTransformer)
    window = args.window or (TRANSFORMER_WINDOW if is_transformer else HAN_WINDOW)
    stride = args.stride or (max(1, window // 2) if is_transformer else 1)
    if not 1 <= stride <= window:
        raise InputError("--stride, --window", f"{stride}, {window}", "1 <= stride <= window", "Correct the flags.")
    return window, stride


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


def write_results(
    args: argparse.Namespace,
    name: str,
    description: Description,
    events: tuple[str, ...],
    result: SegmentProbs,
    shown: Overview,
    warning: str,
) -> Path:
    """Write the page, the exports and, if it is large, a copy of the video. Returns the page.

    Args:
        name: of the model.
        warning: what the page has to say on top, of features or a training that are not real.
    """
    probs = AudioVisual(result.probs.audio.cpu().numpy(), result.probs.visual.cpu().numpy())
    around = result.around and AudioVisual(result.around.audio.cpu().numpy(), result.around.visual.cpu().numpy())
    features = dict.fromkeys([*description.audio_features, *description.visual_features])
    notes = [name, f"{len(events)} events", ", ".join(features)]
    if shown.sound is None:
        notes.append("no audio track, taken as silence")
    track = Track(name, probs, around)
    parsed = ParsedVideo(args.video.name, shown.duration, events, (track,), args.threshold, tuple(notes))
    folder = args.output_dir or Path("parsed_videos") / args.video.stem
    page = folder / "page.html"
    media = Media(
        source=video_source(args.video, page, round(args.embed_below * 1e6)),
        file_name=args.video.name,
        strip=strip_of(shown.frames) if shown.frames else None,
        peaks=None if shown.sound is None else peaks_of(shown.sound, SOUND_RATE, shown.duration),
    )
    write_video_page(page, parsed, media, warning)
    write_exports(folder, parsed, args.video)
    return page


if __name__ == "__main__":
    run_entry_point(main)
