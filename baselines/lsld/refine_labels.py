"""LSLD, stage 1: segment labels from texts, written in the files of stage 2 (`pseudo_label_generation.py`)."""

from utils.entry_point import run_entry_point

from pathlib import Path

import torch
from pydantic import PositiveFloat
from torch import Tensor

from baselines.lsld.label_refinement import softened_labels
from baselines.lsld.language_labels import class_cosines, language_labels
from baselines.lsld.subset_texts import NAMES_FILE, load_names, load_subset_texts
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import DataSettings, features_with_text, open_split
from dataloaders.datasets import SPLITS
from dataloaders.provenance import feature_note
from dataloaders.pseudo_labels import PseudoLabels, save_pseudo_labels
from utils.audio_visual import AudioVisual
from utils.evaluation.tasks import find_task, true_events
from utils.reporting.tables import ScoreRow, Table, format_text, parsing_table, write_tables
from utils.run_folders import DEFAULT_RUNS_DIR, begin_output, create_run_dir, finish_run
from utils.settings import FromFile, parse_settings, settings_group, with_settings
from utils.training.device import DeviceSettings

DATASET = "LLP"
LARGEST_LOGIT = 1000.0  # its sigmoid is 1 exactly, and 0 exactly for the negative one


@settings_group
class Settings(FromFile):
    """What the refinement of labels can be told; its defaults are LSLD's but for the features."""

    runs_dir: Path = DEFAULT_RUNS_DIR
    """folder of the new run folder"""
    output_dir: Path | None = None
    """folder of the labels (default: LLP_Dataset in a new run folder)"""
    names_file: Path = NAMES_FILE
    """how the texts name the classes"""
    soften: bool = True
    """soften visual labels where segments with and without a label overlap"""
    kept_factor: PositiveFloat = 4.0
    """a softened label is its cosine (CLIP ViT-B/16) times this"""
    dropped_factor: PositiveFloat = 0.4
    """the same of a softened absent label"""
    data: DataSettings = DataSettings(audio_features=("clap",), visual_features=("clip",))
    device: DeviceSettings = DeviceSettings()


def pseudo_labels(annotations: SplitAnnotations, hard: AudioVisual[Tensor], visual: Tensor) -> PseudoLabels:
    """The labels in the form of stage 2: log-odds where a teacher's logits stand, finite ones.

    Args:
        hard: (N, T, C) bool.
        visual: the visual labels as probabilities, (N, T, C).
    """
    probs = AudioVisual(hard.audio.float(), visual.float())
    return PseudoLabels(
        dataset=annotations.dataset,
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        logits=probs.map(lambda p: torch.logit(p).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).flatten(0, 1)),
        labels=hard.map(lambda labels: labels.flatten(0, 1)),
        thresholds=probs.map(lambda p: torch.zeros(p.shape[-1], dtype=torch.float64)),
    )


def quality_table(scores: dict[str, dict[str, float]], note: str) -> Table:
    """F-scores of the hard labels of each split."""
    rows = [ScoreRow("LSLD labels", split, [of], note) for split, of in scores.items()]
    return parsing_table("Quality of the segment labels on LLP", rows)


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings(Settings(), __doc__, argv)
    output_dir = settings.output_dir or create_run_dir(settings.runs_dir, f"Language_{DATASET}") / f"{DATASET}_Dataset"
    settings = with_settings(settings, output_dir=output_dir)
    device, _ = settings.device.select()

    # 2 Data
    data_dir = settings.data.folder(DATASET)
    texts = features_with_text(settings.data).map(lambda feature: load_subset_texts(data_dir, feature))
    splits = {name: open_split(DATASET, name, settings.data, device) for name in SPLITS}
    classes = splits["train"].annotations.classes
    names = load_names(settings.names_file, DATASET, classes)

    # 3 Labels
    log = begin_output(output_dir, settings, (*(f"{name}.safetensors" for name in SPLITS), "pseudo_label_quality.*"))
    task, scores = find_task(DATASET), {}
    for name, split in splits.items():
        hard = language_labels(split, texts, names, settings.device.eval_batch_size)
        visual = hard.visual.float()
        if settings.soften:
            cosines = class_cosines(split, texts.visual.of(classes), settings.device.eval_batch_size)
            soft = softened_labels(
                cosines.flatten(0, 1), hard.visual.flatten(0, 1), settings.kept_factor, settings.dropped_factor
            )
            visual = soft.view(visual.shape)
        save_pseudo_labels(pseudo_labels(split.annotations, hard, visual), output_dir / f"{name}.safetensors")
        softened = 100 * (visual != hard.visual).float().mean().item()
        log.info(f"{name}: labels of {split.num_videos} videos, {softened:.1f} % of the visual ones softened")
        if name != "train":
            scores[name] = task.score(hard, true_events(split.annotations, torch.device("cpu")))

    # 4 Report
    table = quality_table(scores, feature_note(data_dir))
    write_tables(output_dir / "pseudo_label_quality", table)
    log.info("\n" + format_text(table))
    finish_run(output_dir, scores)


if __name__ == "__main__":
    run_entry_point(main)
