"""Recipes of stage 3: a file in configs/ names a method, whose code lies in a room of baselines/ unless it is UWAV."""

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
    """Return the network of a method for a split's features and classes, randomly initialised."""
    network = find_method(settings.method).network
    widths = train.widths.audio, train.feature_widths.visual
    return network(len(train.annotations.classes), *widths, settings.model)


def predict(network: nn.Module, split: SplitBatches, batch_size: int, precision: Any, settings: Any) -> SplitOutput:
    """Parse a split."""
    return run_han(network, split, batch_size, precision)


@dataclass(frozen=True)
class Method:
    """What defines a method of stage 3; all but its name is UWAV's by default."""

    published_name: str  # what the paper's tables call it
    losses: type = uwav_objective.UWAVLosses  # settings of what it learns from
    make_step: Callable[..., Callable[..., Losses]] = uwav_objective.make_step  # (losses, train, run)
    network: type[nn.Module] = HAN
    config: type = HANConfig  # settings of the network
    decoding: type = DecodingSettings
    data: type = DataSettings  # which features it can have
    make_network: Callable[[Any, SplitBatches], nn.Module] = make_network
    predict: Callable[..., SplitOutput] = predict
    find_gates: Callable[..., Any] | None = None  # searched on val in stage 4 (CMPAE)
    takes_steps: bool = False  # whether its step takes the optimiser's steps itself, several on one batch (CoLeaF)


def find_method(name: str) -> Method:
    """Return UWAV, or a method of the room `baselines/<first word of its name>`, or raise InputError."""
    if name == "uwav":
        return Method("UWAV")
    if name not in method_names():
        way_out = "Choose one of these, or add a room and a recipe (README)."
        raise InputError("--method", repr(name), f"one of {', '.join(method_names())}", way_out)
    return importlib.import_module(f"baselines.{name.partition('_')[0]}").METHODS[name]


def method_names() -> tuple[str, ...]:
    """Return the names of all methods that have a recipe and a room, UWAV's first."""
    names = {path.stem.rpartition("_")[0] for path in CONFIGS.glob("*.yaml")}
    rooms = CONFIGS.parent / "baselines"
    return ("uwav", *sorted(name for name in names if (rooms / name.partition("_")[0]).is_dir()))


def recipe_file(method: str, dataset: str) -> Path:
    """Return the file of a method's recipe on a data set, LLP's for one's own. Raises InputError when there is none."""
    path = CONFIGS / f"{method}_{dataset.lower()}.yaml"
    if not path.is_file():
        if dataset in DATASETS and DATASETS[dataset].is_own:
            return recipe_file(method, "LLP")
        recipes = ", ".join(sorted(path.name for path in CONFIGS.glob("*.yaml")))
        raise InputError(path, "no such file", f"a recipe ({recipes})", "Choose one of these, or copy and change one.")
    return path


def parse_recipe(
    kind: type[Settings], description: str, argv: Sequence[str] | None, resumable: Sequence[str]
) -> tuple[Method, Settings]:
    """Return a method, and settings from flags over its recipe or over the run that is continued.

    `--config` names the recipe, `--method` and `--dataset` are a short form of it, `--resume` names a run. Raises
    InputError for unusable files and settings, and flags that contradict the file.
    """
    given = first_flags(argv, "config", "resume", "method", "dataset")
    path = given["config"] if given["resume"] is None else Path(given["resume"]) / ARGS_FILE
    chosen = read_args(Path(path)) if path else {}
    for name in ("method", "dataset"):
        if name in chosen and given[name] not in (None, chosen[name]):
            expected = f"{chosen[name]} as in {path}, which depends on it"
            raise InputError(f"--{name}", given[name], expected, "Leave out the flag, or the file.")
    name, dataset = (
        chosen.get(key) or given[key] or default for key, default in (("method", "uwav"), ("dataset", "LLP"))
    )
    method = find_method(name)
    groups = {"losses": method.losses, "model": method.config, "decoding": method.decoding, "data": method.data}
    start = with_groups(kind, **groups)(method=name)
    if given["resume"] is not None:
        _check_former(chosen, method, Path(path))
    elif path is None or (CONFIGS / f"{name}_{str(dataset).lower()}.yaml").is_file():
        start = with_settings(with_file(start, recipe_file(name, dataset)), dataset=dataset)
        if dataset in DATASETS and DATASETS[dataset].is_own:  # names its features
            features = DATASETS[dataset].features
            of_modality = {m: [name for name in features if FEATURES[name].modality == m] for m in MODALITIES}
            start = with_settings(start, **{f"{m}_features": names for m, names in of_modality.items()})
    return method, parse_settings(start, description, argv, resumable)


def _check_former(values: dict[str, Any], method: Method, path: Path) -> None:
    """Raise InputError for a run of an earlier version that mixed the losses of methods: it cannot be continued."""
    ours = method.losses()
    mixed = [name for name in ("contrastive_weight", "mutual_weight", "similarity_weight") if values.get(name)]
    mixed += ["audio_guided_weight"] if values.get("guided_labels", "none") != "none" else []
    if foreign := [name for name in mixed if not hasattr(ours, name)]:
        found, way_out = f"{', '.join(foreign)} of another method", "Continue it with the version that began it."
        raise InputError(path, found, "the losses of one method", way_out)
