"""Export of trained networks to folders: safetensors, and a JSON file of sizes, classes and features."""

import importlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from utils.errors import InputError
from utils.files import require_file
from utils.settings import ARGS_FILE

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError:  # training does not need it; saving and loading raise InputError without it
    hf_hub_download = None

    class PyTorchModelHubMixin:  # type: ignore[no-redef]
        def __init_subclass__(cls, **card: object) -> None:
            super().__init_subclass__()


CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
Name = Annotated[str, Field(min_length=1, max_length=200)]


@pydantic.dataclasses.dataclass(frozen=True)
class Description:
    """Description of a trained network. Raises ValueError for repeated classes and a wrong number of thresholds."""

    network: Literal["HAN", "TemporalTransformer"]
    dataset: str = ""  # of its training
    classes: tuple[Name, ...] = ()  # (C,) of its outputs; for the temporal transformer, those of its training
    audio_features: tuple[str, ...] = ()
    visual_features: tuple[str, ...] = ()  # concatenated in this order
    decoding: Literal["video", "modality", "audio_by_video"] = "video"  # as in `DecodingSettings`
    audio_thresholds: tuple[float | None, ...] | None = None  # (C,) on logits; None for -inf: always exceeded
    visual_thresholds: tuple[float | None, ...] | None = None  # (C,)
    note: str = ""  # shown with every result, such as "simulated features"
    method: str = "uwav"  # of its training
    segments_per_second: Annotated[int, Field(ge=1)] = 1  # of its training data

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class more than once")
        for thresholds in (self.audio_thresholds, self.visual_thresholds):
            if thresholds is not None and self.classes and len(thresholds) != len(self.classes):
                raise ValueError(f"{len(thresholds)} thresholds for {len(self.classes)} classes")


class Pretrained(PyTorchModelHubMixin, library_name="uwav", paper_url="https://arxiv.org/abs/2505.09615"):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for a network, by huggingface_hub's mixin.

    `arguments` are those of the constructor, which the mixin itself would lose if one is a dataclass called `config`.
    All methods raise InputError if huggingface_hub is not installed.
    """

    config_class: ClassVar[type]  # of the argument `config`
    description: Description | None = None

    @property
    def arguments(self) -> dict[str, object]:
        """Return the arguments of the constructor."""
        own = {name: self.sizes[name] for name in ("num_classes", "audio_dim")}
        return own | {"visual_dims": list(self.visual_dims), "config": self.config}

    def save_pretrained(self, save_directory: Path | str, description: Description | None = None, **kwargs):
        """Write `model.safetensors`, `config.json` and a model card to a folder, as huggingface_hub's mixin does."""
        _require_hub()
        self.description = description or self.description
        config = {name: asdict(value) if is_dataclass(value) else value for name, value in self.arguments.items()}
        if self.description is not None:
            config["description"] = asdict(self.description)
        return super().save_pretrained(save_directory, **{**kwargs, "config": config})  # push_to_hub passes one, too

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **kwargs):
        """Load a network from an exported folder, a run or a repository on the Hugging Face hub, in evaluation mode.

        `kwargs` are those of `DOWNLOAD`, and `map_location`, the device. Raises InputError if there is no such network.
        """
        source, device = pretrained_model_name_or_path, kwargs.get("map_location", "cpu")
        if (Path(source) / ARGS_FILE).is_file():  # imported by name, since `models` is independent of runs
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
            classes = description.classes if description else ()
            if classes and network.sizes.get("num_classes", len(classes)) != len(classes):
                raise ValueError(f"{len(classes)} classes for {network.sizes['num_classes']} outputs")
            network.load_state_dict(load_file(weights, device=str(device)))
        except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError, InputError) as error:
            raise _unusable(source, f"no {cls.__name__}", error) from error
        network.description = description
        return network.to(device).eval()

    @classmethod
    def _build(cls, content: dict[str, Any]) -> "Pretrained":
        """Build the network of a `config.json`, randomly initialised."""
        arguments = {name: value for name, value in content.items() if name != "description"}
        return cls(**arguments | {"config": cls.config_class(**arguments["config"])})

    @classmethod
    def _check_shapes(cls, content: dict[str, Any], weights: Path) -> None:
        """Raise ValueError unless the network of a `config.json` has the file's tensors; it is built on "meta"."""
        with torch.device("meta"):
            state = cls._build(content).state_dict()
        require_file(weights)
        with safe_open(weights, framework="pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        wanted = {name: list(tensor.shape) for name, tensor in state.items()}
        if differing := [name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name)]:
            name = differing[0]
            raise ValueError(f"{name}: {shapes.get(name)} in {weights.name}, {wanted.get(name)} by {CONFIG_FILE}")


DOWNLOAD = {"revision", "local_files_only", "token", "cache_dir", "force_download"}  # arguments of downloads


def read_config(source: Path | str, **download: object) -> dict[str, Any]:
    """Read `config.json` of a folder, or of a repository on the hub, or raise InputError."""
    _require_hub()
    try:
        content = json.loads(_file_of(source, CONFIG_FILE, **download).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except (OSError, ValueError) as error:  # the package's own errors are of these kinds
        raise _unusable(source, f"no readable {CONFIG_FILE}", error) from error


def _file_of(source: Path | str, name: str, **download: object) -> Path:
    """Return a file of a folder, or of a repository on the hub, downloaded if it is not in the cache."""
    folder = Path(source)
    return folder / name if folder.is_dir() else Path(hf_hub_download(str(source), name, **download))


def description_in(content: dict[str, Any]) -> Description | None:
    """Return the description in a `config.json`, ignoring unknown names. Raises ValueError for an invalid one."""
    return TypeAdapter(Description).validate_python(content["description"]) if "description" in content else None


def _require_hub() -> None:
    if hf_hub_download is None:
        found, expected = "no such package", "huggingface_hub, which saves and loads such folders"
        raise InputError("huggingface_hub", found, expected, "Run pip install huggingface_hub.")


def _unusable(source: Path | str, found: str, error: Exception) -> InputError:
    """Return the InputError for a source without a network, with the beginning of the original message."""
    reason = " ".join((str(error) or type(error).__name__).split())[:300]
    expected = "a folder written by save_pretrained, or the id of such a repository on the hub"
    way_out = "Check the name; offline, only folders can be read."
    return InputError(source, f"{found} ({reason})", expected, way_out)
