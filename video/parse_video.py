"""Parse your own video: detect the audible, visible and audio-visual events of every second, as a page and files.

    python -m video.parse_video VIDEO                       # the newest HAN, or light networks if there is none
    python -m video.parse_video VIDEO --model RUN           # a trained HAN with its classes
    python -m video.parse_video VIDEO --model RUN --events "dog barking" "glass breaking"    # stage 1, any events
    python -m video.parse_video VIDEO --networks clip_clap --events "dog barking" ...    # without training, any events

MODEL is a run folder of train_han.py or train_transformer.py, a folder exported with `python -m utils.trained`, or
the id of such a repository on the Hugging Face hub. docs/own_video.md describes the output.
"""

from utils.entry_point import run_entry_point

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from dataloaders.feature_origin import feature_note, read_extraction
from utils.errors import InputError
from utils.run_folders import DEFAULT_RUNS_DIR
from utils.settings import whole_number
from utils.trained import newest_han
from utils.training.device import select_device
from video.event_models import EventModel, clip_clap_model, light_model, pe_frame_model, trained_model
from video.extraction.extraction_inputs import RECIPES
from video.extraction.feature_networks import add_network_flags, fetch_light_weights, source_of
from video.own_video import PEAKS_RATE, Extraction, overview, own_features
from video.pages.parsed_video import EXPORTS, ParsedVideo, Track, spans, write_exports
from video.pages.video_page import Media, peaks_of, strip_of, video_source, write_video_page

PAGE = "page.html"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("video", type=Path, metavar="VIDEO")
    add("--model", help="run folder, exported folder, or hub id (default: the newest HAN in runs_dir)")
    add("--runs_dir", type=Path, default=DEFAULT_RUNS_DIR, help="folder searched for the newest HAN")
    of_networks = "no training: AudioSet's and ImageNet's classes (default without a HAN), CLIP and CLAP, or PE-A-Frame"
    add("--networks", choices=("light", "clip_clap", "pe_frame"), help=of_networks)
    add("--decoding", choices=("thresholds", "av2a"), default="thresholds", help="decoding of clip_clap")
    add("--segments_per_second", type=whole_number(1), help="for --networks, such as 2 for half seconds")
    add("--events", nargs="+", metavar="NAME", help="any events, for a temporal transformer, clip_clap or pe_frame")
    add("--threshold", type=float, default=0.5, help="probability above which an event is detected")
    add("--window", type=whole_number(1), help="segments per window (default: HAN 10, transformer 60)")
    add("--stride", type=whole_number(1), help="segments between windows (default: HAN 1, transformer half a window)")
    add("--output_dir", type=Path, help="(default: parsed_videos/<name of the video>)")
    add("--embed_below", type=float, default=20, metavar="MB", help="embed videos below this size in the page")
    features = parser.add_argument_group("features")
    features.add_argument("--features_dir", type=Path, help="folder in which feature files are kept and reused")
    features.add_argument("--recipe", choices=RECIPES, help="sampling of CLIP's and CLAP's input (default: centre)")
    add_network_flags(features)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.video.name in (PAGE, *EXPORTS):
        found, expected = "the name of an output file", f"a name other than {PAGE}, {', '.join(EXPORTS)}"
        raise InputError(args.video, found, expected, "Rename the video.")
    if not args.video.is_file():
        raise InputError(args.video, "no such file", "a video", "Correct the path.")
    if not 0 < args.threshold < 1:
        raise InputError("--threshold", f"{args.threshold:g}", "a probability between 0 and 1", "The default is 0.5.")
    device = select_device(args.device)
    model = model_of(args, device)
    if model.warning:
        print(f"warning: {model.warning} --networks light needs no training.", file=sys.stderr)
    shown = overview(args.video, model.segments_per_second)
    how = Extraction(source_of(args), device, args.precision, args.recipe, args.colours)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.features_dir or Path(temporary)
        found = model.score(own_features(args.video, model, shown.num_segments, how, folder))
        note, record = feature_note(folder), read_extraction(folder)

    features = [name.removesuffix("_frames") for names in model.features for name in names]
    weights = {name: record.get(name, {}).get("weights", "") for name in features}
    networks = ", ".join(f"{name} ({file})" if file else name for name, file in weights.items())
    notes = [model.name, f"{len(model.events)} events", networks, *model.notes, *shown.notes]
    if shown.peaks is None:
        notes.append("no audio track, treated as silence")
    warning = f"This video has {note}. {model.warning}".rstrip() if note else model.warning
    probs, around = (pair and pair.map(lambda x: x.cpu().numpy()) for pair in (found.probs, found.around))
    track, how = (
        Track(model.name, probs, around),
        (args.threshold, tuple(notes), warning, model.segments_per_second * model.scores_per_segment),
    )
    parsed = ParsedVideo(args.video.name, shown.duration, model.events, (track,), *how)
    folder = args.output_dir or Path("parsed_videos") / args.video.stem
    page = folder / PAGE
    media = Media(
        source=video_source(args.video, page, round(args.embed_below * 1e6)),
        file_name=args.video.name,
        strip=strip_of(shown.frames) if shown.frames else None,
        peaks=None if shown.peaks is None else peaks_of(shown.peaks, PEAKS_RATE, shown.duration),
    )
    write_video_page(page, parsed, media, write_exports(folder, parsed, args.video))
    if not spans(parsed):
        print(f"no event above {args.threshold:g}: lower the threshold on the page, or pass --threshold")
    print(page)


def model_of(args: argparse.Namespace, device: torch.device) -> EventModel:
    """Return the model of the flags, else the newest HAN or the light networks. Raises InputError for invalid flags."""
    networks, source = args.networks, args.model
    if networks and source:
        raise InputError("--networks, --model", "both flags", "one of them", "Leave one out.")
    if args.decoding == "av2a" and networks != "clip_clap":
        raise InputError("--decoding", "av2a", "thresholds without --networks clip_clap", "Leave out the flag.")
    if not networks and not source:
        try:
            source = str(newest_han(args.runs_dir))
        except InputError:
            networks = "light"
            print(f"No trained HAN in {args.runs_dir}: using light networks; --networks clip_clap detects any events.")
    if source and args.segments_per_second:
        way_out = "Leave out the flag: a trained model keeps its segment length."
        raise InputError("--segments_per_second", f"a trained model ({source})", "--networks", way_out)
    if source:
        return trained_model(source, args.events, args.window, args.stride, device)
    if networks == "light" and not args.random_weights:
        fetch_light_weights(args.weights_dir)
    makers = {"light": light_model, "clip_clap": partial(clip_clap_model, decoding=args.decoding)}
    model = (makers | {"pe_frame": pe_frame_model})[networks](args.events)
    return replace(model, segments_per_second=args.segments_per_second or 1)


if __name__ == "__main__":
    run_entry_point(main)
