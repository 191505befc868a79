"""Kills a command at every moment at which it touches the disk, goes on, and compares what there is in the end.

    python -m tests.fault_injection COMMAND FOLDER

A process that has computed nothing forks one for each trial, and that one ends itself without any clean-up. Prints, as
JSON, at how many moments it was killed and what differed.
"""

import importlib
import json
import os
import shutil
import sys
import traceback
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from safetensors import safe_open

import pseudo_label_generation
from baselines.jomold import find_noise_ratios
from baselines.lsld import refine_labels
from baselines.ma import find_exchange
from lavish.clip_splits import ClipSource
from lavish.packing import ClipFormat, open_pack
from tests.tiny_data import write_llp, write_unav
from tests.tiny_runs import assert_same_weights, evaluate, label, newest, pretrain, train
from tests.video.made_videos import make_video
from utils import trained
from utils.training import loop
from video import extract_features
from video.extraction import download
from video.extraction.download import Download

KILLED = 137
EPOCHS = ("--num_epochs", "2", "--checkpoint_every", "1")
# What the stages and PyTorch import late, seconds of it: once here, not again in each fork.
LATE = ("pandas", "tyro", "tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer")
LATE += ("torch._dynamo", "matplotlib.backends.backend_agg", "utils.reporting.figures", "sklearn.metrics")
LATE += ("rich.console",)
STAGE_3 = {
    "train_han": (),
    "train_mmcse_on_combinations": (
        *("--method", "mmcse", "--num_layers", "1", "--event_dim", "8", "--num_classes", "4", "--cmrc", "1"),
    ),
}
# The stages before these are killed while they pack.
PACKED_BEFORE = ("train_mmcse_on_combinations", "test_han", "find_noise_ratios", "find_exchange", "refine_labels")
TRAINED = ("checkpoints/last.pt", "checkpoints/checkpoint_best.pt", "checkpoints/checkpoint_epoch_001.pt")


def hook(kill_at: int | None, count_file: Path | None) -> None:
    """Count each call that changes the disk, and end this process before the one numbered `kill_at`."""
    calls = 0

    def counted(function: Callable) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os._exit(KILLED)
            if count_file is not None:
                count_file.write_text(str(calls))
            return function(*arguments, **named)

        return call

    # Not os.fsync: what a killed process has written stays, so the disk is as before the rename that follows.
    for name in ("replace", "rename", "unlink", "mkdir", "posix_fallocate"):
        setattr(os, name, counted(getattr(os, name)))
    torch.save = counted(torch.save)


def in_a_process(run: Callable[[], object], kill_at: int | None = None, count_file: Path | None = None) -> int:
    """Fork and run; the number of the process."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
        hook(kill_at, count_file)
        run()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def statuses(children: list[int]) -> list[int]:
    """Wait for processes: their exit statuses."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def extract(shared: Path, folder: Path) -> None:
    flags = ("--features", "vggish", "--random_weights", "small", "--num_decoders", "1", "--device", "cpu")
    extract_features.main(["--videos", str(shared / "videos"), "--output", str(folder / "features"), *flags])


def pack_clips(shared: Path, folder: Path) -> None:
    sources = tuple(ClipSource(path.stem, path) for path in sorted((shared / "videos").iterdir()))
    open_pack(folder / "packed", sources, ClipFormat(num_frames=2, size=16, frame_rate=8, sound="small"))


def make_labels(command: ModuleType, shared: Path, folder: Path) -> None:
    base = ("--checkpoint_dir", str(newest(shared / "runs", "HAN_")))
    command.main([*base, "--device", "cpu", "--output_dir", str(folder / "labels")])


def refine(shared: Path, folder: Path) -> None:
    refine_labels.main(["--data_dir", str(shared / "LLP"), "--device", "cpu", "--output_dir", str(folder / "labels")])


def export(shared: Path, folder: Path) -> None:
    if not (folder / "exported").exists():
        folder.mkdir(exist_ok=True)
        trained.main([str(newest(shared / "runs", "HAN_")), str(folder / "exported")])


def fetch(shared: Path, folder: Path) -> None:
    archive = (shared / "archive.zip").as_uri()
    download.fetch(Download(folder / "archive.zip", archive, unpack=folder / "features"))
    download.fetch(Download(folder / "archive.bin", archive))


OTHERS = {
    "extract_features": extract,
    "prepare_clips": pack_clips,
    "find_noise_ratios": partial(make_labels, find_noise_ratios),
    "find_exchange": partial(make_labels, find_exchange),
    "refine_labels": refine,
    "export": export,
    "download": fetch,
}


class Stage:
    """One command in a folder of its own, on data and earlier stages that are shared."""

    def __init__(self, name: str, shared: Path):
        self.name = name
        self.shared = shared

    def run(self, folder: Path) -> None:
        """Run the stage, or go on where it was killed."""
        packed = () if self.name in PACKED_BEFORE else ("--packed_dir", folder / "packed")
        llp, unav, runs = self.shared / "LLP", self.shared / "UnAV", self.shared / "runs"
        resumed = self._resumed(folder)
        if self.name == "train_transformer":
            pretrain(unav, folder, *EPOCHS, *packed, *resumed)
        elif self.name == "pseudo_label_generation":
            label(llp, newest(runs, "TemporalTransformer_"), *packed, "--output_dir", folder / "labels")
        elif self.name in STAGE_3:
            (labels,) = runs.glob("*/LLP_Dataset")
            train(llp, folder, *STAGE_3[self.name], *EPOCHS, "--pseudo_label_dir", labels, *packed, *resumed)
        elif self.name == "test_han":
            evaluate(newest(runs, "HAN_"), folder / "logs", *packed, "--splits", "test")
        else:
            OTHERS[self.name](self.shared, folder)

    def _resumed(self, folder: Path) -> tuple[object, ...]:
        begun = [path.parent for path in folder.glob("*/args.yaml")]
        return ("--resume", max(begun)) if begun and self.name.startswith("train") else ()

    def result(self, folder: Path) -> Path:
        """The folder that the stage has finished."""
        if self.name in OTHERS:
            return folder
        (summary,) = (path for path in folder.rglob("summary.json"))
        return summary.parent

    def differences(self, folder: Path, whole: Path) -> str:
        """What is not as in an undisturbed run, in words; empty: nothing."""
        ours, theirs = self.result(folder), self.result(whole)
        left = [path.name for place in (ours, folder / "packed") for path in place.rglob("*.tmp")]
        if left:
            return f"left behind: {left}"
        if self.name.startswith("train"):
            for file in TRAINED:
                try:
                    assert_same_weights(ours, theirs, file)
                except AssertionError as error:
                    return f"{file}: {error}"
            same = ("summary.json",)
        else:
            kinds = (
                "*.safetensors",
                "*.npz",
                "*.npy",
                "*.csv",
                "*.json",
                "*.md",
                "*.html",
                "*.png",
                "*.done",
            )
            same = tuple(str(path.relative_to(theirs)) for kind in kinds for path in theirs.rglob(kind))
        unequal = [name for name in same if not _same(ours / name, theirs / name)]
        return f"not equal: {unequal}" if unequal else ""


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".safetensors":  # the library writes metadata in any order
        return one.is_file() and _tensors(one) == _tensors(other)
    return one.is_file() and one.read_bytes() == other.read_bytes()


def _tensors(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    with safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def trials(stage: Stage, folder: Path) -> dict[str, object]:
    """Kill the stage at each moment, and go on. Returns the number of moments, and what went wrong, by moment."""
    whole, count_file = folder / "whole", folder / "count"
    if stage.name in PACKED_BEFORE:
        assert statuses([in_a_process(partial(stage.run, folder / "packing"))]) == [0]
    assert statuses([in_a_process(partial(stage.run, whole), count_file=count_file)]) == [0]
    wrong = {}
    num_moments, at_once = int(count_file.read_text()), os.cpu_count() or 1
    for first in range(1, num_moments + 1, at_once):
        moments = range(first, min(first + at_once, num_moments + 1))
        places = [folder / f"trial_{moment}" for moment in moments]
        runs = [partial(stage.run, place) for place in places]
        killed = statuses([in_a_process(run, moment) for run, moment in zip(runs, moments, strict=True)])
        ended = statuses([in_a_process(run) for run in runs])
        for moment, place, *of_both in zip(moments, places, killed, ended, strict=True):
            if of_both != [KILLED, 0]:
                wrong[moment] = f"exit statuses {of_both}"
            elif found := stage.differences(place, whole):
                wrong[moment] = found
            shutil.rmtree(place)
    return {"moments": num_moments, "wrong": wrong}


def base_run(method: str, shared: Path) -> None:
    train(shared / "LLP", shared / "runs", "--method", method, "--num_epochs", "1")


def label_framewise(shared: Path) -> None:
    flags = ("--teacher", "framewise", "--thresholds", "search", "--device", "cpu")
    where = ("--data_dir", str(shared / "LLP"), "--runs_dir", str(shared / "runs"))
    pseudo_label_generation.main([*where, *flags])


def main(name: str, folder: Path) -> None:
    for module in LATE:
        importlib.import_module(module)
    shared = folder / "shared"
    write_llp(shared / "LLP")
    write_unav(shared / "UnAV")
    if name in ("extract_features", "prepare_clips"):
        (shared / "videos").mkdir()
        for seed in range(2):
            make_video(shared / "videos" / f"video{seed}.mp4", 2, seed=seed)
    if name == "download":
        with zipfile.ZipFile(shared / "archive.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"features/{number}.npy", bytes(1000))
    before = {
        "train_transformer": (),
        "pseudo_label_generation": (pretrain,),
        "train_han": (pretrain, label),
        "train_mmcse_on_combinations": (label_framewise,),
        "test_han": (train,),
        "export": (train,),
        "find_noise_ratios": (partial(base_run, "jomold_base"),),
        "find_exchange": (partial(base_run, "ma_base"),),
    }.get(name, ())

    def earlier() -> None:
        for stage in before:
            if stage is label:
                label(shared / "LLP", newest(shared / "runs", "TemporalTransformer_"))
            elif stage is train:
                train(shared / "LLP", shared / "runs", "--segment_labels", "none")
            elif stage is pretrain:
                pretrain(shared / "UnAV", shared / "runs")
            else:
                stage(shared)

    assert statuses([in_a_process(earlier)]) == [0]
    assert Path(TRAINED[0]) == loop.LAST_STATE
    print(json.dumps(trials(Stage(name, shared), folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
