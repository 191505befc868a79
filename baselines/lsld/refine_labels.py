"""LSLD, stage 1: segment labels from texts, in the files of `pseudo_label_generation.py`.

Each subset of a video's labels has a text; a segment gets the labels of its nearest text (Fan et al., NeurIPS 2023).
"""

from utils.entry_point import run_entry_point

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor
from tqdm import tqdm

from baselines.lsld import LSLDLosses, subset_texts
from baselines.lsld.subset_texts import NAMES_FILE, TextFeatures, label_subsets, subset_text
from dataloaders.batches import DataSettings, SplitBatches, features_with_text, open_split
from dataloaders.datasets import SPLITS
from dataloaders.pseudo_labels import log_odds, save_pseudo_labels
from utils.audio_visual import AudioVisual
from utils.base_runs import finish_labels
from utils.evaluation.inference import make_pseudo_labels
from utils.evaluation.tasks import find_task, true_events
from utils.provenance import LABELS, provenance_of
from utils.reporting.tables import ScoreRow, parsing_table
from utils.run_folders import DEFAULT_RUNS_DIR, begin_output, create_run_dir
from utils.settings import FromFile, parse_settings, settings_group, with_settings
from utils.training.device import DeviceSettings

DATASET = "LLP"


@settings_group
class Settings(FromFile):
    """Settings of the segment labels; the defaults are LSLD's except for the features."""

    runs_dir: Path = DEFAULT_RUNS_DIR  # parent of the new run folder
    output_dir: Path | None = None  # folder of the labels; None: LLP_Dataset in a new run folder
    names_file: Path = NAMES_FILE  # class names used in the texts
    soften: bool = True  # soften visual labels where the cosines of segments with and without a label overlap
    kept_factor: PositiveFloat = 4.0  # factor from the cosine (CLIP ViT-B/16) to a softened label
    dropped_factor: PositiveFloat = 0.4  # the same for segments without the label
    data: DataSettings = DataSettings(audio_features=("clap",), visual_features=("clip",))
    device: DeviceSettings = DeviceSettings()


def refined_labels(cosines: Tensor, subsets: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """Return the labels of each segment's nearest text, of K subsets: cosines (..., K) -> (..., C) (`refineLabel`)."""
    named = torch.zeros(len(subsets), num_classes, dtype=torch.bool)
    for row, subset in enumerate(subsets):
        named[row, list(subset)] = True
    return named.to(cosines.device)[cosines.argmax(dim=-1)]


def softened_labels(cosines: Tensor, labels: Tensor, kept_factor: float, dropped_factor: float) -> Tensor:
    """Return LSLD's soft visual labels, (R, C) in [0, 1] (`getVisualCleanLabel` of the released code).

    Cosines, (R, C), are with the class names. For each class, over all R segments, m0 is the largest cosine of segments
    without the label, and m1 the smallest of those with it. If m0 > m1, labels whose cosine < m0 become
    kept_factor·cosine, and absent labels whose cosine > m1 become dropped_factor·cosine, where that is in (0, 1).
    """
    largest_without = cosines.masked_fill(labels, -torch.inf).amax(dim=0)  # m0, (C,)
    smallest_with = cosines.masked_fill(~labels, torch.inf).amin(dim=0)  # m1, (C,)
    overlap = largest_without > smallest_with
    kept, dropped = kept_factor * cosines, dropped_factor * cosines
    soften_kept = labels & overlap & (cosines < largest_without) & (kept > 0) & (kept < 1)
    soften_dropped = ~labels & overlap & (cosines > smallest_with) & (dropped > 0) & (dropped < 1)
    return torch.where(soften_kept, kept, torch.where(soften_dropped, dropped, labels.to(cosines.dtype)))


def language_labels(
    split: SplitBatches, texts: AudioVisual[TextFeatures], names: Sequence[str], batch_size: int
) -> AudioVisual[Tensor]:
    """Return LSLD's hard labels, (N, T, C) bool, of a split on CLAP and CLIP features; `names` are used in texts."""
    video_labels = split.annotations.video_labels  # (N, C)
    num_classes = video_labels.shape[1]
    label_sets, which = video_labels.unique(dim=0, return_inverse=True)
    shape = (split.num_videos, int(split.annotations.lengths.max()), num_classes)
    found = AudioVisual(torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool))
    for number, label_set in enumerate(tqdm(label_sets, desc=f"{split.annotations.split} labels", disable=None)):
        subsets = [*label_subsets(label_set.nonzero().flatten().tolist()), ()]
        audio_texts = texts.audio.of([subset_text(subset, names, "audio") for subset in subsets])
        visual_texts = texts.visual.of([subset_text(subset, names, "visual") for subset in subsets])
        for batch in split.of_videos((which == number).nonzero().flatten(), batch_size):
            for of_split, features, rows in zip(found, batch.features, (audio_texts, visual_texts), strict=True):
                cosines = F.normalize(features, dim=-1) @ rows.to(split.device).T  # (B, T, K)
                of_split[batch.videos.cpu()] = refined_labels(cosines, subsets, num_classes).cpu()
    return found


def class_cosines(split: SplitBatches, names: Tensor, batch_size: int) -> Tensor:
    """Compute the cosines of visual segments with the class names' features (C, D): (N, T, C) on the CPU."""
    names, batches = names.to(split.device), split.in_order(batch_size)
    return torch.cat([(F.normalize(batch.features.visual, dim=-1) @ names.T).cpu() for batch in batches])


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings(Settings(), __doc__, argv)
    output_dir = settings.output_dir or create_run_dir(settings.runs_dir, f"Language_{DATASET}") / f"{DATASET}_Dataset"
    settings = with_settings(settings, output_dir=output_dir)
    device, _ = settings.device.select()
    batch_size, factors = settings.device.eval_batch_size, (settings.kept_factor, settings.dropped_factor)

    # 2 Data
    data_dir = settings.data.folder(DATASET)
    texts = features_with_text(settings.data).map(lambda feature: subset_texts.load_subset_texts(data_dir, feature))
    splits = {name: open_split(DATASET, name, settings.data, device) for name in SPLITS}
    classes = splits["train"].annotations.classes
    names = subset_texts.load_names(settings.names_file, DATASET, classes)

    # 3 Labels
    record = provenance_of(LABELS.format(LSLDLosses.command), splits)
    files = (*(f"{name}.safetensors" for name in SPLITS), "pseudo_label_quality.*")
    log = begin_output(output_dir, settings, files, record)
    task, scores = find_task(DATASET), {}
    for name, split in splits.items():
        hard = language_labels(split, texts, names, batch_size)
        visual = hard.visual.float()  # probabilities
        if settings.soften:
            cosines = class_cosines(split, texts.visual.of(classes), batch_size)
            soft = softened_labels(cosines.flatten(0, 1), hard.visual.flatten(0, 1), *factors)
            visual = soft.view(visual.shape)
        logits = AudioVisual(log_odds(hard.audio.float()), log_odds(visual))
        thresholds = torch.zeros(len(classes), dtype=torch.float64)
        pseudo = make_pseudo_labels(split, logits, hard, AudioVisual(thresholds, thresholds))
        save_pseudo_labels(pseudo, output_dir / f"{name}.safetensors")
        softened = 100 * (visual != hard.visual).float().mean().item()
        log.info(f"{name}: labels of {split.num_videos} videos, {softened:.1f} % of the visual ones softened")
        if name != "train":
            scores[name] = task.score(hard, true_events(split.annotations, torch.device("cpu")))

    # 4 Report
    rows = [ScoreRow("LSLD labels", name, [of_split], record.note) for name, of_split in scores.items()]
    table = parsing_table("Quality of the segment labels on LLP", rows)
    finish_labels(output_dir, "pseudo_label_quality", table, scores, log, record.note)


if __name__ == "__main__":
    run_entry_point(main)
