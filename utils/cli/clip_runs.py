"""Trained classifiers of clips: from a run folder back to its network, its data and the mark of its results."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dataloaders.clips.packing import PackedClips
from dataloaders.clips.splits import ClipData
from dataloaders.provenance import video_note
from models.image_transformers import RANDOM
from utils.cli.clips import CLIP_DATASETS, ClassifierSettings, load_weights, make_clip_network, open_clips
from utils.cli.run_folders import DEFAULT_RUNS_DIR, newest_finished_run
from utils.cli.settings import ARGS_FILE, read_settings, with_settings
from utils.errors import InputError
from utils.evaluation.clips import ClipTask
from utils.settings import setting
from utils.training.device import Precision
from utils.training.loop import BEST_CHECKPOINT

CLIP_RUN_PREFIX = "Clips_"


@dataclass(frozen=True)
class TrainedClassifier:
    """Which run, and what of its settings may be another now."""

    checkpoint_dir: Path | None = setting(None, "run of train_classifier.py (default: the newest finished one)")
    runs_dir: Path = setting(DEFAULT_RUNS_DIR, "where runs are looked for")
    logs_dir: Path = setting(Path("test_logs"), "where results go")
    data_dir: Path | None = setting(None, "(default: as the run was trained with)")
    annotations_dir: Path | None = setting(None, "(default: as the run was trained with)")
    packed_dir: Path | None = setting(None, "(default: as the run was trained with)")
    device: str = setting("auto", "cpu, cuda, cuda:N or mps; auto: the fastest there is")
    eval_batch_size: int = setting(16, "clips of a batch", least=1)

    @property
    def of_run(self) -> Mapping[str, object]:
        """Settings of the run that are others now."""
        folders = {name: getattr(self, name) for name in ("data_dir", "annotations_dir", "packed_dir")}
        given = {name: folder for name, folder in folders.items() if folder is not None}
        return {**given, "device": self.device, "eval_batch_size": self.eval_batch_size}


@dataclass(frozen=True)
class ClipRun:
    """A trained classifier."""

    folder: Path
    settings: ClassifierSettings  # as it was trained with; data folders, device and batch size as asked for now
    network: nn.Module  # with its best weights, in evaluation mode, on its device
    data: ClipData
    pack: PackedClips
    device: torch.device
    precision: Precision

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def task(self) -> ClipTask:
        return CLIP_DATASETS[self.settings.dataset].task

    @property
    def note(self) -> str:
        """What a reader has to know of its results: generated data, a random backbone."""
        random = "random backbone" if self.settings.has_random_backbone else ""
        return ", ".join(filter(None, (video_note(self.settings.data_dir), random)))


def load_clip_run(which: TrainedClassifier) -> ClipRun:
    """Network and data of the run that is named, or of the newest finished one.

    Raises:
        InputError: when there is none, the folder is no run, its weights do not fit, or its data are not there.
    """
    way_out = "Run train_classifier.py, or give --checkpoint_dir."
    folder = which.checkpoint_dir or newest_finished_run(which.runs_dir, CLIP_RUN_PREFIX, way_out)
    of_run = read_settings(folder / ARGS_FILE, ClassifierSettings)
    if "model" not in of_run or "pieces" not in of_run:
        raise InputError(folder, "no run of train_classifier.py", "one", "Name another --checkpoint_dir.")
    settings = with_settings(ClassifierSettings(), **{**of_run, **which.of_run})
    device, precision = settings.device.select()
    data, pack = open_clips(settings)
    blank = replace(settings.network, backbone_weights=RANDOM, network_weights=None)  # the checkpoint has all weights
    network = make_clip_network(replace(settings, network=blank), len(data.splits["train"].classes))
    load_weights(network, folder / BEST_CHECKPOINT)
    return ClipRun(folder, settings, network.to(device).eval(), data, pack, device, precision)
