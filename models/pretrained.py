"""Trained networks as folders that anyone can load: safetensors beside a JSON of sizes, classes and features."""

import importlib
import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from utils.errors import InputError
from utils.files import require_file
from utils.settings import ARGS_FILE

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError:  # training does without the package; saving and loading say that it is missing
    hf_hub_download = None

    class PyTorchModelHubMixin:  # type: ignore[no-redef]
        """Stands where the package's class would."""

        def __init_subclass__(cls, **card: object) -> None:
            super().__init_subclass__()


CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
Name = Annotated[str, Field(min_length=1, max_length=200)]


@pydantic.dataclasses.dataclass(frozen=True)
class Description:
    """What a trained network is for, which its weights do not tell."""

    network: Literal["HAN", "TemporalTransformer"]
    dataset: str = ""  # that it was trained on
    classes: tuple[Name, ...] = ()  # (C,) of its outputs; of the temporal transformer those that it was trained on
    audio_features: tuple[str, ...] = ()
    visual_features: tuple[str, ...] = ()  # concatenated in this order
    decoding: Literal["video", "modality"] = "video"  # whose probability an event also needs
    audio_thresholds: tuple[float | None, ...] | None = None  # (C,) on logits; None for -inf: always exceeded
    visual_thresholds: tuple[float | None, ...] | None = None  # (C,)
    note: str = ""  # what every result has to say, such as "simulated features"
    method: str = "uwav"  # whose network it is
    segments_per_second: Annotated[int, Field(ge=1)] = 1  # that it was trained on

    def __post_init__(self) -> None:
        """Raise ValueError for classes that are not all different, and thresholds that are not one a class."""
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class more than once")
        for thresholds in (self.audio_thresholds, self.visual_thresholds):
            if thresholds is not None and self.classes and len(thresholds) != len(self.classes):
                raise ValueError(f"{len(thresholds)} thresholds for {len(self.classes)} classes")


class Pretrained(PyTorchModelHubMixin, library_name="uwav", paper_url="https://arxiv.org/abs/2505.09615"):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for a network, by huggingface_hub's mixin.

    The network has a property `arguments`: what its constructor is called with. The mixin would collect them by itself,
    but forgets the others where one is a dataclass called `config`.
    """

    config_class: ClassVar[type]  # of the argument `config`
    description: Description | None = None

    def save_pretrained(self, save_directory: Path | str, description: Description | None = None, **kwargs):
        """Write `model.safetensors`, `config.json` and a model card into a folder.

        Args:
            description: what the network is for, from now on; None: as it was loaded or saved before.
            kwargs: of huggingface_hub's mixin, for instance `push_to_hub=True, repo_id=...`.

        Raises:
            InputError: when huggingface_hub is not installed.
        """
        _require_hub()
        self.description = description or self.description
        config = {name: asdict(value) if is_dataclass(value) else value for name, value in self.arguments.items()}
        if self.description is not None:
            config["description"] = asdict(self.description)
        return super().save_pretrained(save_directory, **{**kwargs, "config": config})  # push_to_hub gives one, too

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **kwargs):
        """Return the network in a folder, in a training's run, or in a repository of the Hugging Face hub.

        Args:
            kwargs: those of `DOWNLOAD`, and `map_location`, the device.

        Raises:
            InputError: when there is no such network, or huggingface_hub is not installed.
        """
        source, device = pretrained_model_name_or_path, kwargs.get("map_location", "cpu")
        if (Path(source) / ARGS_FILE).is_file():  # found by name, since packages of networks know nothing of runs
            network = importlib.import_module("utils.trained").open_run(Path(source))
            if not isinstance(network, cls):
                raise _unusable(source, f"no {cls.__name__}", ValueError(f"a {type(network).__name__}"))
            return network.to(device)
        download = {key: kwargs[key] for key in DOWNLOAD & kwargs.keys()}
        content = read_config(source, **download)
        try:
            description = description_in(content)
            weights = _file_of(source, WEIGHTS_FILE, **download)
            cls._check_shapes(content, weights)
            network = cls._build(content)
            network.load_state_dict(load_file(weights, device=str(device)))
        except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError, InputError) as error:
            raise _unusable(source, f"no {cls.__name__}", error) from error
        classes = description.classes if description else ()
        if classes and network.sizes.get("num_classes", len(classes)) != len(classes):
            error = ValueError(f"{len(classes)} classes for {network.sizes['num_classes']} outputs")
            raise _unusable(source, f"no {cls.__name__}", error)
        network.description = description
        return network.to(device).eval()

    @classmethod
    def _build(cls, content: dict[str, Any]) -> "Pretrained":
        """Return the network of a `config.json`, with random weights."""
        arguments = {name: value for name, value in content.items() if name != "description"}
        return cls(**arguments | {"config": cls.config_class(**arguments["config"])})

    @classmethod
    def _check_shapes(cls, content: dict[str, Any], weights: Path) -> None:
        """Raise ValueError unless the network of a `config.json` has the file's tensors; it is built without memory."""
        with torch.device("meta"):
            state = cls._build(content).state_dict()
        require_file(weights)
        with safe_open(weights, framework="pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        wanted = {name: list(tensor.shape) for name, tensor in state.items()}
        if differing := [name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name)]:
            name = differing[0]
            raise ValueError(f"{name}: {shapes.get(name)} in {weights.name}, {wanted.get(name)} by {CONFIG_FILE}")


DOWNLOAD = {"revision", "local_files_only", "token", "cache_dir", "force_download"}  # arguments that say what to fetch


def read_config(source: Path | str, **download: object) -> dict[str, Any]:
    """Return `config.json` of a folder or of a repository on the hub.

    Args:
        download: arguments of `hf_hub_download`.

    Raises:
        InputError: when there is none, it is no JSON object, or huggingface_hub is not installed.
    """
    _require_hub()
    try:
        content = json.loads(_file_of(source, CONFIG_FILE, **download).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except (OSError, ValueError) as error:  # the package's own errors are of these kinds
        raise _unusable(source, f"no readable {CONFIG_FILE}", error) from error


def _file_of(source: Path | str, name: str, **download: object) -> Path:
    """Return a file of a folder, or of a repository on the hub, fetched where it is not in the cache."""
    folder = Path(source)
    return folder / name if folder.is_dir() else Path(hf_hub_download(str(source), name, **download))


def description_in(content: dict[str, Any]) -> Description | None:
    """Return the description in a `config.json`; names that this version does not know are passed over.

    Raises:
        ValueError: when it is none.
    """
    if "description" not in content:
        return None
    if not isinstance(content["description"], dict):
        raise ValueError("a description that is no object")
    known = {field.name for field in fields(Description)}
    return Description(**{name: value for name, value in content["description"].items() if name in known})


def _require_hub() -> None:
    if hf_hub_download is None:
        found, expected = "it is not installed", "the package that saves and loads such folders"
        raise InputError("huggingface_hub", found, expected, "pip install huggingface_hub")


def _unusable(source: Path | str, found: str, error: Exception) -> InputError:
    """Return the error of a source that holds no network, with the first words of what the package says."""
    said = " ".join((str(error) or type(error).__name__).split())[:300]
    expected = "a folder that save_pretrained has written, or the id of such a repository on the hub"
    way_out = "Check the name; without a network only folders can be read."
    return InputError(source, f"{found} ({said})", expected, way_out)
