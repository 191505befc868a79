"""Recipes of stage 3: files in configs/, each for a method, whose code is in baselines/<method> unless it is UWAV."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from dataloaders.batches import DataSettings, SplitBatches
from dataloaders.datasets import DATASETS
from dataloaders.features import FEATURES
from models import HAN, HANConfig
from utils.audio_visual import MODALITIES
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput, run_han
from utils.method import uwav_objective
from utils.method.decoding import DecodingSettings
from utils.method.losses import Losses
from utils.settings import ARGS_FILE, first_flags, parse_settings, read_args, with_file, with_groups, with_settings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
Settings = TypeVar("Settings")


def make_network(settings: Any, train: SplitBatches) -> nn.Module:
    """Return a randomly initialised network of the method for a split's features and classes."""
    network = find_method(settings.method).network
    widths = train.widths.audio, train.feature_widths.visual
    return network(len(train.annotations.classes), *widths, settings.model)


def predict(network: nn.Module, split: SplitBatches, batch_size: int, precision: Any, settings: Any) -> SplitOutput:
    """Return the network's output for a split."""
    return run_han(network, split, batch_size, precision)


@dataclass(frozen=True)
class Method:
    """Definition of a method of stage 3; everything but its name defaults to UWAV's."""

    published_name: str  # in the paper's tables
    losses: type = uwav_objective.UWAVLosses  # settings of labels and losses
    make_step: Callable[..., Callable[..., Losses]] = uwav_objective.make_step  # (losses, train, run)
    network: type[nn.Module] = HAN
    config: type = HANConfig  # settings of the network
    decoding: type = DecodingSettings
    data: type = DataSettings  # with the features that it can use
    make_network: Callable[[Any, SplitBatches], nn.Module] = make_network
    predict: Callable[..., SplitOutput] = predict
    find_gates: Callable[..., Any] | None = None  # searches gates on val in stage 4 (CMPAE)
    takes_steps: bool = False  # whether the training step calls the optimiser itself, several times a batch (CoLeaF)


def find_method(name: str) -> Method:
    """Return UWAV, or a method in `baselines/<first word of its name>`, or raise InputError."""
    if name == "uwav":
        return Method("UWAV")
    if name not in method_names():
        way_out = "Choose one of these, or add a method (CONTRIBUTING.md)."
        raise InputError("--method", repr(name), f"one of {', '.join(method_names())}", way_out)
    return importlib.import_module(f"baselines.{name.partition('_')[0]}").METHODS[name]


def method_names() -> tuple[str, ...]:
    """Return the names of all methods that have a recipe and code, UWAV's first."""
    names = {path.stem.rpartition("_")[0] for path in CONFIGS.glob("*.yaml")}
    folder = CONFIGS.parent / "baselines"
    return ("uwav", *sorted(name for name in names if (folder / name.partition("_")[0]).is_dir()))


def recipe_file(method: str, dataset: str) -> Path:
    """Return the file of a method's recipe on a data set (that on LLP for user data sets), or raise InputError."""
    path = CONFIGS / f"{method}_{dataset.lower()}.yaml"
    if not path.is_file():
        if dataset in DATASETS and DATASETS[dataset].is_own:
            return recipe_file(method, "LLP")
        recipes = ", ".join(sorted(path.name for path in CONFIGS.glob("*.yaml")))
        raise InputError(path, "no such file", f"a recipe ({recipes})", "Choose one of these, or copy and edit one.")
    return path


def parse_recipe(
    kind: type[Settings], description: str, argv: Sequence[str] | None, resumable: Sequence[str]
) -> tuple[Method, Settings]:
    """Return a method and its settings: flags override the recipe, or the settings of the run to resume.

    The recipe is `--config`, or follows from `--method` and `--dataset`; `--resume` names a run. Raises InputError for
    unusable files and settings, and for flags that contradict the file.
    """
    given = first_flags(argv, "config", "resume", "method", "dataset")
    path = given["config"] if given["resume"] is None else Path(given["resume"]) / ARGS_FILE
    chosen = read_args(Path(path)) if path else {}
    for name in ("method", "dataset"):
        if name in chosen and given[name] not in (None, chosen[name]):
            expected = f"{chosen[name]} as in {path}"
            raise InputError(f"--{name}", given[name], expected, "Leave out the flag, or the file.")
    name = chosen.get("method") or given["method"] or "uwav"
    dataset = chosen.get("dataset") or given["dataset"] or "LLP"
    method = find_method(name)
    groups = {"losses": method.losses, "model": method.config, "decoding": method.decoding, "data": method.data}
    start = with_groups(kind, **groups)(method=name)
    if given["resume"] is not None:
        _check_former(chosen, method, Path(path))
    elif path is None or (CONFIGS / f"{name}_{str(dataset).lower()}.yaml").is_file():
        start = with_settings(with_file(start, recipe_file(name, dataset)), dataset=dataset)
        if dataset in DATASETS and DATASETS[dataset].is_own:  # its description names the features
            features = DATASETS[dataset].features
            of_modality = {m: [name for name in features if FEATURES[name].modality == m] for m in MODALITIES}
            start = with_settings(start, **{f"{m}_features": names for m, names in of_modality.items()})
    return method, parse_settings(start, description, argv, resumable)


def _check_former(values: dict[str, Any], method: Method, path: Path) -> None:
    """Raise InputError for a run of an earlier version that mixed the losses of methods, which cannot be continued."""
    ours = method.losses()
    mixed = [name for name in ("contrastive_weight", "mutual_weight", "similarity_weight") if values.get(name)]
    mixed += ["audio_guided_weight"] if values.get("guided_labels", "none") != "none" else []
    if foreign := [name for name in mixed if not hasattr(ours, name)]:
        found, way_out = f"{', '.join(foreign)} of another method", "Continue it with the version that started it."
        raise InputError(path, found, "the losses of one method", way_out)
