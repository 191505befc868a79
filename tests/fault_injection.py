"""Kills a stage at every moment at which it touches the disk, goes on, and compares what there is in the end.

    python -m tests.fault_injection STAGE FOLDER

A process that has computed nothing forks one for each trial, and that one ends itself without any clean-up. Prints, as
JSON, at how many moments it was killed and what differed.
"""

import importlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open

from tests.tiny_data import write_llp, write_unav
from tests.tiny_runs import assert_same_weights, evaluate, label, newest, pretrain, train
from utils.training import loop

KILLED = 137
EPOCHS = ("--num_epochs", "2", "--checkpoint_every", "1")
# What the stages and PyTorch import late, seconds of it: once here, not again in each fork.
LATE = ("pandas", "tyro", "tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer")
LATE += ("torch._dynamo", "matplotlib.backends.backend_agg", "utils.reporting.figures")
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
    for module, name in ((os, "replace"), (os, "unlink"), (os, "mkdir"), (torch, "save")):
        setattr(module, name, counted(getattr(module, name)))


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


class Stage:
    """One stage of the pipeline in a folder of its own, on data and earlier stages that are shared."""

    def __init__(self, name: str, shared: Path):
        self.name = name
        self.shared = shared

    def run(self, folder: Path) -> None:
        """Run the stage, or go on where it was killed."""
        packed = ("--packed_dir", folder / "packed")
        llp, unav, runs = self.shared / "LLP", self.shared / "UnAV", self.shared / "runs"
        resumed = self._resumed(folder)
        if self.name == "train_transformer":
            pretrain(unav, folder, *EPOCHS, *packed, *resumed)
        elif self.name == "pseudo_label_generation":
            label(llp, newest(runs, "TemporalTransformer_"), *packed, "--output_dir", folder / "labels")
        elif self.name == "train_han":
            labels = ("--pseudo_label_dir", newest(runs, "TemporalTransformer_") / "LLP_Dataset")
            train(llp, folder, *EPOCHS, *labels, *packed, *resumed)
        else:
            evaluate(newest(runs, "HAN_"), folder / "logs", *packed, "--splits", "test")

    def _resumed(self, folder: Path) -> tuple[object, ...]:
        begun = [path.parent for path in folder.glob("*/args.yaml")]
        return ("--resume", max(begun)) if begun and self.name.startswith("train") else ()

    def result(self, folder: Path) -> Path:
        """The folder that the stage has finished."""
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
            kinds = ("*.safetensors", "*.npz", "*.npy", "*.csv", "*.json", "*.md", "*.html", "*.png")
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


def main(name: str, folder: Path) -> None:
    for module in LATE:
        importlib.import_module(module)
    shared = folder / "shared"
    write_llp(shared / "LLP")
    write_unav(shared / "UnAV")
    before = {
        "train_transformer": (),
        "pseudo_label_generation": (pretrain,),
        "train_han": (pretrain, label),
        "test_han": (train,),
    }[name]

    def earlier() -> None:
        for stage in before:
            if stage is label:
                label(shared / "LLP", newest(shared / "runs", "TemporalTransformer_"))
            elif stage is train:
                train(shared / "LLP", shared / "runs", "--segment_labels", "none")
            else:
                pretrain(shared / "UnAV", shared / "runs")

    assert statuses([in_a_process(earlier)]) == [0]
    assert Path(TRAINED[0]) == loop.LAST_STATE
    print(json.dumps(trials(Stage(name, shared), folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
