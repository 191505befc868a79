"""Trained classifiers of clips: from a run folder back to its network, its data and the mark of its results."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import PositiveInt
from torch import nn

from lavish.clip_networks import HUB, RANDOM, load_strictly, make_clip_network, read_weights
from lavish.clip_settings import ClassifierSettings, clip_batches, clip_record, learned_from, open_clips
from lavish.clip_splits import ClipData
from lavish.clip_tasks import TASKS, ClipPredictions, ClipTask, predict_clips
from lavish.packing import PackedClips
from utils.errors import InputError
from utils.provenance import Provenance, read_provenance
from utils.run_folders import DEFAULT_RUNS_DIR, SUMMARY_FILE, newest_finished_run
from utils.settings import ARGS_FILE, flat, read_args, settings_group, with_file, with_settings
from utils.training.loop import BEST_CHECKPOINT

CLIP_RUN_PREFIX = "Clips_"


@settings_group
class TrainedClassifier:
    """Which run to load, and the settings that may differ from the run's."""

    checkpoint_dir: Path | None = None
    """run of lavish.train_classifier (default: the newest finished one)"""
    runs_dir: Path = DEFAULT_RUNS_DIR
    """folder in which the newest run is looked for"""
    logs_dir: Path = Path("test_logs")
    """folder of the folders of results"""
    data_dir: Path | None = None
    """folder that holds videos/ (default: that of the training)"""
    annotations_dir: Path | None = None
    """folder of annotations or lists (default: that of the training)"""
    packed_dir: Path | None = None
    """folder of the packed clips (default: that of the training)"""
    device: str = "auto"
    """cpu, cuda, cuda:N or mps; auto: the fastest there is"""
    eval_batch_size: PositiveInt = 16
    """clips of a batch"""


@dataclass(frozen=True)
class ClipRun:
    """A trained classifier."""

    folder: Path
    settings: ClassifierSettings  # as it was trained with; data folders, device and batch size as asked for now
    network: nn.Module  # with its best weights, in evaluation mode, on its device
    data: ClipData  # without a validation split where the run has trained on it
    pack: PackedClips
    parameters: tuple[int, int]  # trained ones, and all
    random_backbone: bool  # whether the frozen part has never learned anything
    record: Provenance  # of what is made with it now

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def task(self) -> ClipTask:
        return TASKS[self.settings.dataset]

    @property
    def note(self) -> str:
        """What a reader has to know of its results: generated data, a random backbone, a choice on the test split."""
        facts = {"random backbone": self.random_backbone}
        facts["best epoch chosen on test"] = self.settings.select_on == "test"
        return ", ".join([*self.record.marks, *(fact for fact, holds in facts.items() if holds)])

    def title(self, split: str) -> str:
        """Name a table or figure of one split, with the note."""
        return f"{self.name}, {split}" + (f" ({self.note})" if self.note else "")

    def predict(self, split: str, without: str | None = None) -> ClipPredictions:
        """Run the network over a split, with both modalities or without one, see `predict_clips`."""
        _, precision = self.settings.device.select()
        batches = clip_batches(self.settings, self.data, self.pack, split, self.network)
        return predict_clips(self.network, batches, self.settings.device.eval_batch_size, precision, without)


def has_random_backbone(settings: ClassifierSettings) -> bool:
    """Say whether the frozen part of a network has never learned anything, which every report has to mention.

    A checkpoint in a run's folder, `<run>/checkpoints/<file>`, is what that run says of itself.
    """
    network = settings.network
    if network.train_backbone:
        return False
    if network.network_weights is None and network.backbone_weights in (RANDOM, HUB):
        return network.backbone_weights == RANDOM
    folder = Path(network.network_weights or network.backbone_weights).resolve().parent
    run_dir = folder.parent
    if folder.name != BEST_CHECKPOINT.parent.name or not (run_dir / ARGS_FILE).is_file():
        return False
    if (run_dir / SUMMARY_FILE).is_file():
        return read_summary(run_dir)[1]
    return has_random_backbone(with_file(ClassifierSettings(), run_dir / ARGS_FILE, others=True))


def read_summary(run_dir: Path) -> tuple[tuple[int, int], bool]:
    """Return a run's trained and all parameters, and whether its backbone is random, from its summary."""
    path = run_dir / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text())
        return (int(summary["trained_parameters"]), int(summary["parameters"])), bool(summary["random_backbone"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        found, way_out = f"no summary ({error})", "Finish the run: python -m lavish.train_classifier --resume RUN."
        raise InputError(path, found, "what training writes last", way_out) from error


def load_clip_run(which: TrainedClassifier) -> ClipRun:
    """Load network and data of the run that is named, or of the newest finished one."""
    way_out = "Run python -m lavish.train_classifier, or give --checkpoint_dir."
    folder = which.checkpoint_dir or newest_finished_run(which.runs_dir, CLIP_RUN_PREFIX, way_out)
    if not {"model", "pieces"} <= read_args(folder / ARGS_FILE).keys():
        raise InputError(folder, "no run of lavish.train_classifier", "one", "Name another --checkpoint_dir.")
    of_run = with_file(ClassifierSettings(), folder / ARGS_FILE, others=True)
    known = flat(of_run).keys()
    now = {name: value for name, value in flat(which).items() if name in known and value is not None}
    settings = with_settings(of_run, **now)

    parameters, is_random = read_summary(folder)  # with the weights, before anything takes time
    state = read_weights(folder / BEST_CHECKPOINT)
    device, _ = settings.device.select()
    data, pack = open_clips(settings)
    data = learned_from(settings, data)
    record, way_out = read_provenance(folder), "Give back the lists that it was trained with."
    now = clip_record("", settings, data)
    record.check(folder, way_out, dataset=now.dataset, classes=now.classes, videos={"train": now.videos["train"]})
    blank = replace(settings.network, backbone_weights=RANDOM, network_weights=None)  # the checkpoint has all weights
    network = make_clip_network(replace(settings, network=blank), len(data.splits["train"].classes))
    load_strictly(network, state, folder / BEST_CHECKPOINT)
    network = network.to(device).eval()
    return ClipRun(folder, settings, network, data, pack, parameters, is_random, now.inherit(record, "training"))
