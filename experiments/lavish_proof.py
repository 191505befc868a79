"""Test whether LAVISH uses both modalities, on generated videos whose classes require audio, visual input or both.

    python -m experiments.lavish_proof --output_dir temp_lavish_proof

Every model is trained with several seeds on two small frozen backbones: one with random weights, one trained from
scratch on the frames of the training clips. Finished runs are not repeated.
"""

from utils.entry_point import run_entry_point

import argparse
import io
import json
from contextlib import redirect_stdout
from dataclasses import asdict
from itertools import product
from pathlib import Path

from tqdm import tqdm

from dataloaders.feature_origin import VIDEOS_MARKER
from lavish import test_classifier, train_classifier
from lavish.clip_networks import CLIP_RUN_PREFIX, read_summary
from lavish.clip_tasks import classifier_table
from simulation.generated_clips import ClipVideos, write_data
from utils.errors import InputError
from utils.reporting.tables import Table, format_text, write_tables
from utils.run_folders import SUMMARY_FILE, newest_finished_run
from utils.settings import read_args, whole_number
from utils.training.loop import BEST_CHECKPOINT

FLAGS = (
    "--dataset UCF101 --backbone vit_tiny_patch16_224 --backbone_sizes patch_size=8 embed_dim=96 depth=3 num_heads=3 "
    "--image_size 32 --packed_size 36 --packed_frames 2 --num_frames 1 --frame_rate 10 --sound small --head_dim 64 "
    "--lr 3e-3 --head_lr 3e-3 --schedule cosine --num_epochs 25 --batch_size 32 --eval_batch_size 64 --device cpu"
)
MODELS = {
    "visual only": "--model vit_visual",
    "audio only": "--model vit_audio",
    "late fusion": "--model late_fusion",
    "late fusion, all trained": "--model late_fusion --train_backbone --lr 5e-4",
    "plain adapters": "--model lavish --no-cross_modal",
    "LAVISH": "--model lavish",
}
FROM_SCRATCH = "--model vit_visual --train_backbone --lr 5e-4"


def train(folder: Path, data_dir: Path, flags: str, weights: str, seed: int = 0) -> Path:
    """Train a run unless it is finished, and return its folder."""
    if not any(folder.glob(f"{CLIP_RUN_PREFIX}*/{SUMMARY_FILE}")):
        where = ["--data_dir", data_dir, "--annotations_dir", data_dir / "lists", "--output_dir", folder]
        argv = [*FLAGS.split(), *flags.split(), *where, "--backbone_weights", weights, "--seed", seed]
        with redirect_stdout(io.StringIO()):  # log.txt has the output
            train_classifier.main([str(argument) for argument in argv])
    return newest_finished_run(folder, CLIP_RUN_PREFIX, "The training did not finish.")


def test_scores(run: Path, logs_dir: Path) -> dict[str, float]:
    """Return scores on the test split by name, in percent, after evaluating the run if necessary."""
    summary = logs_dir / run.name / SUMMARY_FILE
    if not summary.is_file():
        with redirect_stdout(io.StringIO()):
            test_classifier.main(["--checkpoint_dir", str(run), "--logs_dir", str(logs_dir), "--device", "cpu"])
    return json.loads(summary.read_text())["test"]


def compare(folder: Path, data_dir: Path, num_seeds: int) -> Table:
    """Train and evaluate every model on both backbones with all seeds, and return the table of scores."""
    scratch = train(folder / "backbone", data_dir, FROM_SCRATCH, "random") / BEST_CHECKPOINT
    backbones, rows = {"random": "random", "trained on frames": str(scratch)}, []
    for (backbone, weights), (model, flags) in tqdm([*product(backbones.items(), MODELS.items())], unit="model"):
        scores = []
        for seed in range(num_seeds):
            place = folder / f"{backbone} {model} {seed}".replace(",", "").replace(" ", "_")
            run = train(place, data_dir, flags, weights, seed)
            scores.append(test_scores(run, place / "test_logs"))
        parameters, _ = read_summary(run)
        rows.append((f"{model}, backbone {backbone}", "test", scores, parameters, "generated videos"))
    return classifier_table("Classes that need audio, visual input or both (generated videos)", {"top1": "top-1"}, rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("temp_lavish_proof"))
    parser.add_argument("--num_seeds", type=whole_number(1), default=3)
    parser.add_argument("--clips_per_group", type=int, default=4, help="clips in each of a class's 25 groups")
    args = parser.parse_args(argv)
    data_dir = args.output_dir / "videos"
    settings, marker = ClipVideos(clips_per_group=args.clips_per_group), data_dir / VIDEOS_MARKER
    if not marker.is_file():
        write_data(data_dir, settings)
    wanted, there = asdict(settings), read_args(marker)
    if others := {name: there.get(name) for name, value in wanted.items() if there.get(name) != value}:
        way_out = "Choose another --output_dir, or the settings of these videos."
        raise InputError(marker, f"videos with {others}", str({name: wanted[name] for name in others}), way_out)
    table = compare(args.output_dir, data_dir, args.num_seeds)
    write_tables(args.output_dir / "proof", table)
    print(format_text(table))


if __name__ == "__main__":
    run_entry_point(main)
