"""Stage 2: write segment-level pseudo-labels with the pre-trained temporal transformer (paper section 4.1).

`--teacher framewise` uses CLIP and CLAP on single segments instead, as in the baseline VALOR.
"""

from utils.entry_point import run_entry_point

from logging import Logger
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from pydantic import PositiveInt
from torch import Tensor

from baselines.pe_frame import PEFrameSettings, fixed_thresholds, pe_settings, pe_teacher
from baselines.valor.framewise import FramewiseSettings, framewise_settings, framewise_teacher, valor_thresholds
from dataloaders.batches import DataSettings, SplitBatches, open_split, open_texts
from dataloaders.datasets import PARSED_DATASETS
from dataloaders.pseudo_labels import NPY_FILES, export_npy, npy_stems, save_pseudo_labels
from models import TemporalTransformer, TemporalTransformerConfig
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import Teacher, hard_events, make_pseudo_labels, temporal_transformer_logits
from utils.evaluation.tasks import RunScores, find_task, true_events
from utils.evaluation.trained_han import config_of_run
from utils.files import hash_of_file
from utils.provenance import LABELS, STAGE_2, hash_of_tensors, provenance_of, read_provenance
from utils.reporting.tables import format_text, write_tables
from utils.run_folders import DEFAULT_RUNS_DIR, begin_output, create_run_dir, finish_run, newest_finished_run
from utils.settings import ARGS_FILE, FromFile, parse_settings, settings_group, with_file, with_settings
from utils.training.checkpoints import load_network
from utils.training.device import DeviceSettings, Precision
from utils.training.loop import BEST_CHECKPOINT

SPLITS_IN_ORDER = ("val", "test", "train")  # thresholds are searched on the first
FILES = (*(f"{split}.safetensors" for split in SPLITS_IN_ORDER), "pseudo_label_quality.*", *NPY_FILES)
METHOD_OF_TEACHER = {"temporal_transformer": "UWAV", "framewise": "VALOR", "pe_frame": "PE-A-Frame and CLIP"}
FRAMEWISE = {"framewise": ("Framewise", framewise_settings), "pe_frame": ("PEFrame", pe_settings)}


@settings_group
class Settings(FromFile):
    """Settings of stage 2."""

    dataset: Literal[PARSED_DATASETS] = "LLP"  # data set
    teacher: Literal[tuple(METHOD_OF_TEACHER)] = "temporal_transformer"
    """network that scores the segments; framewise: CLIP and CLAP; pe_frame: CLIP and PE-A-Frame"""
    transformer_dir: Path | None = None  # stage-1 run; None: the newest finished one in runs_dir
    runs_dir: Path = DEFAULT_RUNS_DIR  # folder searched for the newest run
    checkpoint: Path | None = None  # weights; None: checkpoints/checkpoint_best.pt of the run
    num_heads: PositiveInt | None = None
    """attention heads, needed for a checkpoint without a run; None: the stage-1 run's"""
    thresholds: Literal["search", "fixed"] | None = None
    """search: on val; fixed: VALOR's for LLP; None: fixed for the framewise teacher on LLP, else search"""
    threshold_type: Literal["class_wise", "class_agnostic"] = "class_wise"  # one threshold per class, or one for all
    grid_search: Literal["joint", "apart"] = "joint"
    """AVE: search the thresholds of both modalities jointly, or separately"""
    output_dir: Path | None = None  # folder of the pseudo-labels; None: <dataset>_Dataset in the run folder
    export_npy: Annotated[bool, tyro.conf.arg(aliases=("--export",))] = False
    """also write UWAV's released layout, one .npy per video, and VALOR's with the framewise teacher"""
    framewise: FramewiseSettings = FramewiseSettings()
    pe_frame: PEFrameSettings = PEFrameSettings()
    data: DataSettings = DataSettings(audio_features=("clap",), visual_features=("clip",))
    device: DeviceSettings = DeviceSettings()


def find_settings(settings: Settings) -> Settings:
    """Complete the settings with the teacher's run, thresholds and prompts, and the output folder."""
    if settings.teacher == "temporal_transformer":
        settings, run_dir = settings_of_transformer(settings)
    else:
        prefix, complete = FRAMEWISE[settings.teacher]
        settings = complete(settings)
        run_dir = settings.output_dir or create_run_dir(settings.runs_dir, f"{prefix}_{settings.dataset}")
    return with_settings(settings, output_dir=settings.output_dir or run_dir / f"{settings.dataset}_Dataset")


def settings_of_transformer(settings: Settings) -> tuple[Settings, Path]:
    """Return the settings with the temporal transformer's weights and number of heads, and its run folder."""
    # args.yaml of an earlier run records these prompts, so they are not a contradiction.
    allowed = FramewiseSettings(), FramewiseSettings(prompts="event_names")
    if settings.thresholds == "fixed" or settings.framewise not in allowed:
        found = "temporal_transformer with VALOR's thresholds, prompts or scales"
        expected = "searched thresholds, and the event names as prompts"
        raise InputError("--teacher", found, expected, "Leave out these flags, or choose --teacher framewise.")
    run_dir = settings.transformer_dir
    if run_dir is not None and not run_dir.is_dir():
        raise InputError(run_dir, "no such folder", "a run of train_transformer.py", "Correct --transformer_dir.")
    if run_dir is None and settings.checkpoint is None:
        way_out = "Run stage 1 first (train_transformer.py or its script), or pass --transformer_dir."
        run_dir = newest_finished_run(settings.runs_dir, "TemporalTransformer_", way_out)
    run_dir = run_dir or settings.checkpoint.parent
    num_heads = settings.num_heads
    if num_heads is None and (run_dir / ARGS_FILE).exists():
        num_heads = with_file(settings, run_dir / ARGS_FILE, others=True).num_heads
    if num_heads is None:
        found = f"no number of attention heads (no num_heads in {run_dir / ARGS_FILE})"
        expected = "the number used in training, which the weights do not determine"
        way_out = "Pass --num_heads; the released recipe has 16."
        raise InputError(settings.checkpoint or run_dir, found, expected, way_out)
    completed = with_settings(
        settings,
        transformer_dir=run_dir if settings.transformer_dir or not settings.checkpoint else None,
        checkpoint=settings.checkpoint or run_dir / BEST_CHECKPOINT,
        num_heads=num_heads,
        thresholds="search",
        prompts="event_names",
    )
    return completed, run_dir


def make_teacher(
    settings: Settings, val: SplitBatches, texts: AudioVisual[Tensor], precision: Precision, log: Logger
) -> Teacher:
    """Return the teacher that the settings choose."""
    batch_size = settings.device.eval_batch_size
    if settings.teacher == "framewise":
        log.info(f"teacher: CLIP and CLAP on single segments; prompts: {settings.framewise.prompts}")
        return framewise_teacher(settings.framewise, val, texts, batch_size)
    if settings.teacher == "pe_frame":
        data_dir = settings.data.folder(settings.dataset)
        return pe_teacher(settings.pe_frame, settings.framewise, data_dir, texts, batch_size)
    expected = {f"{modality}_dim": width for modality, width in val.widths._asdict().items()}
    expected |= {f"{modality}_text_dim": rows.shape[1] for modality, rows in texts._asdict().items()}
    run_dir, num_heads = settings.transformer_dir, settings.num_heads
    config = run_dir and config_of_run(run_dir, TemporalTransformerConfig, num_heads=num_heads)
    model = load_network(TemporalTransformer, settings.checkpoint, expected, config, num_heads=num_heads)
    model = model.to(val.device)
    return lambda split: temporal_transformer_logits(model, split, texts, batch_size, precision, progress=True)


def find_thresholds(
    settings: Settings, logits: AudioVisual[Tensor], val: SplitBatches, simulated: bool, log: Logger
) -> AudioVisual[Tensor]:
    """Return each modality's thresholds, (C,) float64, from the validation split's logits (N, T, C) or from VALOR."""
    if settings.thresholds == "search":
        class_wise, jointly = settings.threshold_type == "class_wise", settings.grid_search == "joint"
        return find_task(settings.dataset).search_thresholds(logits, val.annotations, class_wise, jointly, log)
    if simulated:
        advice = "simulated ones need --thresholds search (in scripts: THRESHOLDS=search)"
        log.warning(f"VALOR's thresholds are for real CLIP and CLAP features; {advice}")
    return (fixed_thresholds if settings.teacher == "pe_frame" else valor_thresholds)(settings.dataset)


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = find_settings(parse_settings(Settings(), __doc__.partition("\n")[0], argv))
    device, precision = settings.device.select()
    output_dir, task = settings.output_dir, find_task(settings.dataset)

    # 2 Data
    splits = {name: open_split(settings.dataset, name, settings.data, device) for name in SPLITS_IN_ORDER}
    texts = open_texts(settings.dataset, settings.data, device, settings.framewise.prompts)
    sources = {"texts": hash_of_tensors(*texts)}
    if settings.teacher == "temporal_transformer":
        sources["weights"] = hash_of_file(settings.checkpoint)
    record = provenance_of(LABELS.format(STAGE_2.format(settings.teacher)), splits, sources)
    if settings.transformer_dir is not None:
        record = record.inherit(read_provenance(settings.transformer_dir), "stage 1")

    # 3 Model
    log = begin_output(output_dir, settings, FILES, record)
    teacher = make_teacher(settings, splits["val"], texts, precision, log)

    # 4 Pseudo-labels
    thresholds, scores = None, RunScores()
    for name, split in splits.items():
        logits = teacher(split).map(Tensor.cpu)
        if thresholds is None:
            thresholds = find_thresholds(settings, logits, split, bool(record.marks), log)
        events = hard_events(logits, thresholds, split.annotations.video_labels)
        pseudo = make_pseudo_labels(split, logits, events, thresholds)
        save_pseudo_labels(pseudo, output_dir / f"{name}.safetensors")
        if settings.export_npy:
            stems = npy_stems(of.annotations for of in splits.values())
            export_npy(pseudo, output_dir, stems, valor=settings.teacher == "framewise")
        log.info(f"{name}: pseudo-labels of {split.num_videos} videos in {output_dir}")
        if name != "train":
            scores[name] = task.score(events, true_events(split.annotations, torch.device("cpu")))

    # 5 Report
    per_second = settings.data.segments_per_second or 1
    table = task.quality_table(METHOD_OF_TEACHER[settings.teacher], scores, record.note, per_second)
    write_tables(output_dir / "pseudo_label_quality", table)
    log.info("\n" + format_text(table))
    finish_run(output_dir, scores)


if __name__ == "__main__":
    run_entry_point(main)
