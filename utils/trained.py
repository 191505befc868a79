"""Trained networks from a run folder, an exported folder or the Hugging Face hub.

    python -m utils.trained RUN FOLDER [--pseudo_label_dir DIR]

exports a run's best checkpoint to a folder for `HAN.from_pretrained` or `TemporalTransformer.from_pretrained`.
"""

from utils.entry_point import run_entry_point

import argparse
import errno
import math
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dataloaders.datasets import DATASETS
from models import TemporalTransformer, TemporalTransformerConfig
from models.pretrained import CONFIG_FILE, Description, Pretrained, description_in, read_config
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.trained_han import config_of_run
from utils.files import hash_of_file, require_file, write_error
from utils.provenance import LABELS, STAGE_2, read_provenance
from utils.recipes import find_method
from utils.run_folders import SUMMARY_FILE
from utils.settings import ARGS_FILE, read_args
from utils.training.checkpoints import load_checkpoint, load_network
from utils.training.loop import BEST_CHECKPOINT


def open_trained(source: str) -> Pretrained:
    """Open the network of a run, an exported folder or a hub id with its description, or raise InputError."""
    folder = Path(source)
    if (folder / ARGS_FILE).is_file():
        return open_run(folder)
    if folder.is_dir() and not (folder / CONFIG_FILE).is_file():
        expected = f"a run folder with {ARGS_FILE}, or an exported one with {CONFIG_FILE}"
        raise InputError(folder, "neither file", expected, "With several seeds, pass the folder run_<seed> of one.")
    try:
        description, found = description_in(read_config(source)), f"a {CONFIG_FILE} without a description"
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        description, found = None, f"a {CONFIG_FILE} with an unusable description ({reason})"
    if description is None:
        raise InputError(source, found, "one of HAN or the transformer", "Export it with `python -m utils.trained`.")
    is_han = description.network == "HAN"
    network = find_method(description.method).network if is_han else TemporalTransformer
    return network.from_pretrained(source)


def newest_han(runs_dir: Path) -> Path:
    """Return the newest finished run of stage 3 (or of a seed) that `open_run` can open, or raise InputError."""
    finished = [*runs_dir.glob(f"HAN_*/{SUMMARY_FILE}"), *runs_dir.glob(f"HAN_*/run_*/{SUMMARY_FILE}")]
    for path in sorted(finished, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        run = path.parent
        if all((run / name).is_file() for name in (BEST_CHECKPOINT, ARGS_FILE)) and trains_han(run):
            return run
    found = f"no finished run HAN_* of an exportable network among {len(finished)}"
    raise InputError(runs_dir, found, "at least one with its checkpoint", "Train a HAN first, or pass --model.")


def trains_han(run_dir: Path) -> bool:
    """Return whether a run trained a network that can be exported: HAN or MM-CSE, or stage 1's transformer."""
    return issubclass(find_method(read_args(run_dir / ARGS_FILE).get("method", "uwav")).network, Pretrained)


def open_run(run_dir: Path) -> Pretrained:
    """Open the best checkpoint of a run with its description. Raises InputError for methods with other networks."""
    settings = {"cross_attention": True, **read_args(run_dir / ARGS_FILE)}  # earlier versions did not record it
    if not trains_han(run_dir):
        found = f"a run of {settings['method']}, which has its own network"
        raise InputError(run_dir, found, "a run of HAN or of the temporal transformer", "Choose another run.")
    checkpoint, method = run_dir / BEST_CHECKPOINT, find_method(settings.get("method", "uwav"))
    is_han = any(name.startswith("fc_prob.") for name in load_checkpoint(checkpoint))
    try:
        kind, config, dataset = TemporalTransformer, TemporalTransformerConfig, "UnAV"
        if is_han:
            kind, config, dataset = method.network, method.config, settings["dataset"]
        names = [field.name for field in fields(config)]
        own = ("num_heads", "pre_norm", "encoder_order", "cross_attention")
        chosen = {name: settings[name] for name in own if name in names}
        network = load_network(kind, checkpoint, {}, config_of_run(run_dir, config), **chosen)
        network.description = Description(
            network="HAN" if is_han else "TemporalTransformer",
            method=settings.get("method", "uwav"),
            dataset=dataset,
            classes=DATASETS[dataset].classes[: settings.get("num_classes")],
            audio_features=tuple(settings["audio_features"]),
            visual_features=tuple(settings["visual_features"]),
            decoding=settings.get("decoding", "video"),
            segments_per_second=settings.get("segments_per_second") or DATASETS[dataset].segments_per_second,
            note=read_provenance(run_dir).note,
        )
    except KeyError as error:
        found, expected = f"no setting {error}", "the settings of a run of train_han.py or train_transformer.py"
        raise InputError(run_dir / ARGS_FILE, found, expected, "Choose such a run.") from error
    return network.eval()


def with_thresholds(description: Description, pseudo_label_dir: Path, checkpoint: Path) -> Description:
    """Add the classes and thresholds of stage 2's output to a description. Raises InputError for other weights."""
    kind, way_out = LABELS.format(STAGE_2.format("temporal_transformer")), "Pass the output of stage 2 for this run."
    weights = {"weights": hash_of_file(checkpoint)}
    read_provenance(pseudo_label_dir).check(pseudo_label_dir, way_out, kind=kind, sources=weights)
    files = sorted(pseudo_label_dir.glob("*.safetensors"))
    if not files:
        raise InputError(pseudo_label_dir, "no pseudo-labels", "those of stage 2", "Run stage 2, or name its output.")
    try:
        require_file(files[0])
        with safe_open(files[0], framework="pt") as file:
            metadata, found = file.metadata() or {}, {}
            for name in ("audio_thresholds", "visual_thresholds"):  # JSON has no -inf: None
                found[name] = tuple(None if math.isinf(x) else x for x in file.get_tensor(name).tolist())
            classes = tuple(metadata["classes"].split("\n"))
            return replace(description, dataset=metadata["dataset"], classes=classes, **found)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        way_out = "Run pseudo_label_generation.py again."
        raise InputError(files[0], f"a damaged file ({error})", "the output of stage 2", way_out) from error


def thresholds_of(description: Description) -> AudioVisual[Tensor] | None:
    """Return a description's thresholds on the logits, (C,) float32, or None if it has none."""
    thresholds = AudioVisual(description.audio_thresholds, description.visual_thresholds)
    if None in thresholds:
        return None
    return thresholds.map(lambda values: torch.tensor([-math.inf if x is None else x for x in values]))


def export(network: Pretrained, folder: Path) -> None:
    """Write a network with its description to a new folder, which appears once it is complete, or raise InputError."""
    if folder.exists():
        raise InputError(folder, "a folder or file that already exists", "a new folder", "Choose another name.")
    hidden = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        network.save_pretrained(hidden)
        os.replace(hidden, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(hidden, ignore_errors=True)
        of_system = error if isinstance(error, OSError) else OSError(errno.ENOSPC, str(error))
        raise write_error(folder, of_system, "Choose another folder.") from error


def main(argv: list[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of train_han.py or train_transformer.py")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new folder")
    of_stage_2 = "output of stage 2, whose thresholds are exported with a temporal transformer"
    parser.add_argument("--pseudo_label_dir", type=Path, help=of_stage_2)
    args = parser.parse_args(argv)
    network = open_run(args.run)
    if args.pseudo_label_dir is not None:
        if not isinstance(network, TemporalTransformer):
            raise InputError("--pseudo_label_dir", "a HAN", "a temporal transformer", "Leave out the flag.")
        network.description = with_thresholds(network.description, args.pseudo_label_dir, args.run / BEST_CHECKPOINT)
    export(network, args.folder)
    print(args.folder)


if __name__ == "__main__":
    run_entry_point(main)
