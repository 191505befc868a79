"""Score every checkpoint of a stage-3 run on the test split, to measure the gain from selecting the epoch there.

python -m experiments.epochs --checkpoint_dir temp_train_logs/HAN_... --output_dir test_logs/epochs
"""

from utils.entry_point import run_entry_point

from pathlib import Path

from dataloaders.batches import open_split
from test_han import find_settings, parse_split
from utils.errors import InputError
from utils.evaluation.tasks import find_task, true_events
from utils.files import hash_of_file
from utils.provenance import provenance_of, read_provenance
from utils.run_folders import begin_output, finish_run
from utils.settings import parse_settings, settings_group


@settings_group
class Settings:
    """Settings of the evaluation of all epochs."""

    checkpoint_dir: Path = Path()  # run folder of train_han.py --checkpoint_every 1
    output_dir: Path = Path("test_logs/epochs")  # folder of the scores
    device: str = "auto"  # cpu, cuda, cuda:N or mps; auto selects the fastest available


def main(argv: list[str] | None = None) -> None:
    args = parse_settings(Settings(), __doc__.partition("\n")[0], argv)
    settings = find_settings(["--checkpoint_dir", str(args.checkpoint_dir), "--device", args.device])
    checkpoints = sorted(args.checkpoint_dir.glob("checkpoints/checkpoint_epoch_*.pt"))
    if not checkpoints:
        way_out = "Train with --checkpoint_every 1."
        raise InputError(args.checkpoint_dir, "no per-epoch checkpoints", "one per epoch", way_out)
    device, precision = settings.device.select()
    split = open_split(settings.dataset, "test", settings.data, device, subset=settings.subset)
    task, truth, scores = find_task(settings.dataset), true_events(split.annotations, device), {}
    for checkpoint in checkpoints:
        output = parse_split(settings, checkpoint, split, precision)
        found = task.score(task.decode(output, settings.decoding), truth)
        scores[str(int(checkpoint.stem.rpartition("_")[2]))] = found[task.best_metric]
    sources = {path.stem: hash_of_file(path) for path in checkpoints}
    record = provenance_of("scores of epochs", {"test": split}, sources)
    record = record.inherit(read_provenance(args.checkpoint_dir), "training")
    log = begin_output(args.output_dir, settings, ("summary.json",), record)
    finish_run(args.output_dir, {"test": scores})
    log.info(f"test {task.best_metric} of {len(scores)} epochs: {args.output_dir}")


if __name__ == "__main__":
    run_entry_point(main)
