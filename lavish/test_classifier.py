"""Evaluate a trained clip classifier on the validation and test splits."""

from utils.entry_point import run_entry_point

from dataclasses import replace
from typing import Literal

from lavish.clip_networks import TrainedClassifier, load_clip_run
from lavish.clip_tasks import score_table
from utils.method.metrics import label_confusion
from utils.reporting.figures import confusion_matrix_figure
from utils.reporting.tables import confusion_table, format_text, per_class_accuracy, write_table, write_tables
from utils.run_folders import begin_output, finish_run
from utils.settings import FromFile, parse_settings, settings_group
from utils.training.checkpoints import save_checkpoint

FILES = ("scores.*", "per_class_*.csv", "confusion_*", "probabilities_*.pt")  # results that an evaluation replaces


@settings_group
class Settings(FromFile):
    """Settings of the evaluation."""

    splits: tuple[Literal["val", "test"], ...] = ("val", "test")  # splits to evaluate
    which: TrainedClassifier = TrainedClassifier()


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings(Settings(), __doc__, argv)

    # 2 Data and model
    run = load_clip_run(settings.which)
    folder = settings.which.logs_dir / run.name
    log = begin_output(folder, settings, FILES, replace(run.record, kind="an evaluation by lavish.test_classifier"))

    # 3 Evaluation
    scores = {}
    splits = [split for split in settings.splits if split in run.data.splits] or settings.splits
    if left_out := set(settings.splits) - set(splits):
        log.info(f"{', '.join(left_out)}: not evaluated because the run was trained on it")
    for split in splits:
        predictions = run.predict(split)
        clips = run.data.splits[split]
        scores[split] = run.task.score(predictions)
        matrix = label_confusion(predictions.logits.argmax(dim=-1), predictions.labels, len(clips.classes))
        about, unit = (matrix, clips.classes, run.title(split)), run.task.unit
        write_table(folder / f"per_class_{split}.csv", per_class_accuracy(*about, run.note, unit))
        write_table(folder / f"confusion_{split}.csv", confusion_table(*about, run.note))
        confusion_matrix_figure(folder / f"confusion_{split}.png", *about, unit)
        probs = {"samples": clips.sample_ids, "probs": predictions.logits.softmax(-1)}
        save_checkpoint(probs, folder / f"probabilities_{split}.pt")

    # 4 Report
    table = score_table(run.settings.dataset, run.name, scores, run.parameters, run.note)
    write_tables(folder / "scores", table)
    finish_run(folder, scores)
    log.info("\n" + format_text(table))
    log.info(f"tables, per-class scores and confusion matrices are in {folder}")


if __name__ == "__main__":
    run_entry_point(main)
