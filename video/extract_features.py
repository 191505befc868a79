"""Extract the features that all other commands read: VGGish, ResNet-152, R(2+1)D-18, CLIP and CLAP.

`--features mn04 efficientnet_lite2` extracts those of two light networks instead.

Exit status: 0 if all features exist, 1 if some are missing (`failures.csv` lists the reasons), 2 for invalid input.
"""

from utils.entry_point import run_entry_point

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dataloaders.datasets import DATASETS
from dataloaders.feature_origin import record_extraction
from dataloaders.features import FEATURES, PUBLISHED
from utils.errors import InputError
from utils.settings import whole_number
from utils.training.device import select_device
from video.extraction import feature_networks
from video.extraction.event_texts import write_event_features
from video.extraction.extraction_inputs import RECIPES
from video.extraction.extraction_pipeline import default_num_decoders, extract, write_failures
from video.extraction.ray_workers import Job, extract_on_ray
from video.extraction.video_lists import SPLITS, fixed_segments, shard_of, videos_of_dataset, videos_of_paths


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    videos = parser.add_argument_group("videos (of a data set or any others)")
    videos.add_argument("--dataset", choices=tuple(DATASETS), help="data set of the videos and classes")
    videos.add_argument("--annotations_dir", type=Path, help="(default: data/<dataset>)")
    videos.add_argument("--videos_dir", type=Path, help="the data set's videos (default: data/<dataset>/raw_videos)")
    videos.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    videos.add_argument("--videos", type=Path, nargs="+", default=[], help="or files, folders, lists (.txt)")
    videos.add_argument("--num_segments", type=whole_number(1), help="(default: from the data set or the duration)")
    videos.add_argument("--segments_per_second", type=whole_number(1), help="(default: from the data set, or 1)")
    videos.add_argument("--shard", default="1/1", help="k/n: only the k-th of n parts, for several machines")
    features = parser.add_argument_group("features")
    features.add_argument("--features", nargs="+", choices=feature_networks.NETWORKS, default=list(PUBLISHED))
    features.add_argument("--output", type=Path, help="(default: data/<dataset>, or `features`)")
    features.add_argument("--recipe", choices=RECIPES, help="(default: valor for LLP and AVE, else centre)")
    features.add_argument(
        "--no_sound",
        choices=("fail", "silence"),
        default="fail",
        help="videos without an audio track: list them as failures, or treat them as silent",
    )
    features.add_argument("--text_only", action="store_true", help="only text features of events, no videos")
    features.add_argument("--events", nargs="+", help="names for text features (default: the data set's classes)")
    features.add_argument("--prompts", choices=("event_names", "valor"), default="event_names")
    feature_networks.add_network_flags(parser.add_argument_group("networks"))
    speed = parser.add_argument_group("speed")
    speed.add_argument("--batch_size", type=whole_number(1), help="segments per batch (default: 4 on CPU, 64 on GPU)")
    speed.add_argument("--ray", metavar="auto|ADDRESS", help="extract on a Ray cluster (docs/corpora.md)")
    speed.add_argument("--num_workers", type=whole_number(1), help="Ray workers (default: one per GPU)")
    speed.add_argument("--num_decoders", type=whole_number(1), default=default_num_decoders(), help="decoding threads")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if (args.videos and args.dataset) or not (args.videos or args.dataset or args.events):
        found = "both flags" if args.videos and args.dataset else "neither flag"
        raise InputError("--dataset, --videos", found, "exactly one of them, or only --events", "Choose one.")
    if args.text_only and not (args.dataset or args.events):
        raise InputError("--text_only", "no events", "--dataset or --events", "Add one of these flags.")
    device = select_device(args.device)
    output = args.output or (Path("data") / args.dataset if args.dataset else Path("features"))
    recipe = args.recipe or ("valor" if fixed_segments(args.dataset) else "centre")
    videos = None  # only text features
    if args.dataset and not args.text_only:
        data_dir = Path("data") / args.dataset
        folders = args.annotations_dir or data_dir, args.videos_dir or data_dir / "raw_videos"
        which = (tuple(args.splits), args.num_segments, args.segments_per_second)
        videos = shard_of(videos_of_dataset(args.dataset, *folders, *which), args.shard)
    elif args.videos and not args.text_only:
        named = videos_of_paths(args.videos, args.num_segments, args.segments_per_second or 1)
        videos = shard_of(named, args.shard)

    source = feature_networks.source_of(args)
    events = tuple(args.events or (DATASETS[args.dataset].classes if args.dataset else ()))
    with_text = [name for name in args.features if FEATURES[name].text_folder]
    per_second = args.segments_per_second or (DATASETS[args.dataset].segments_per_second if args.dataset else 1)
    how = (recipe, args.precision, args.num_segments, args.colours, per_second)
    settings = {} if videos is None else feature_networks.settings_of(args.features, source, *how)
    if events:
        settings |= feature_networks.text_settings_of(with_text, source, args.prompts, args.precision)
    record_extraction(output, settings)
    here = with_text if videos is None or args.ray else args.features
    networks = feature_networks.build_networks(here, source, device, args.precision)
    if events:
        write_event_features(output, networks, source, events, None if args.events else args.dataset, args.prompts)
    if videos is None:
        return
    batch_size = args.batch_size or (64 if device.type == "cuda" else 4)
    silence = args.no_sound == "silence"
    if args.ray:
        source = replace(source, weights_dir=source.weights_dir.resolve())
        videos = [replace(video, path=video.path and video.path.resolve()) for video in videos]
        how = (recipe, args.precision, batch_size, args.num_decoders, silence, args.device, args.colours)
        outcome = extract_on_ray(videos, Job(args.features, source, output.resolve(), *how), args.ray, args.num_workers)
    else:
        outcome = extract(videos, output, networks, recipe, batch_size, args.num_decoders, silence, args.colours)

    suffix = "" if args.shard == "1/1" else "_" + args.shard.replace("/", "_of_")
    failures = output / f"failures{suffix}.csv"
    write_failures(failures, outcome.failures)
    print(f"{outcome.written} videos written to {output}, {outcome.already_there} existed already")
    if outcome.failures:
        print(f"{len(outcome.failures)} failures: {failures}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_entry_point(main)
