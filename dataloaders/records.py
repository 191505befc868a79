"""Records: safetensors files with tensors over a data set's classes and samples, written by one stage for another."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from utils.errors import InputError
from utils.files import atomic_write, require_file


@dataclass(frozen=True)
class Record:
    """Content of a file: C classes, N samples, named tensors."""

    path: Path
    way_out: str  # of errors
    classes: tuple[str, ...]  # (C,)
    sample_ids: tuple[str, ...]  # (N,); meaningless if the tensors have no dimension of samples
    tensors: dict[str, Tensor]

    def get(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """Return a tensor of the record. Raises InputError unless it exists with this type and shape."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
            found = "no such tensor" if tensor is None else f"type {tensor.dtype} and shape {tuple(tensor.shape)}"
            raise self.error(f"{name}: {found}", f"type {dtype} and shape {shape}")
        return tensor

    def find(self, annotations: SplitAnnotations) -> Tensor:
        """Return the indices of the annotated videos, (N',) int64. Raises InputError if any is absent or repeated."""
        places = {sample_id: n for n, sample_id in enumerate(self.sample_ids)}
        absent = [sample_id for sample_id in annotations.sample_ids if sample_id not in places]
        repeated = [sample_id for n, sample_id in enumerate(self.sample_ids) if places[sample_id] != n]
        if wrong := absent + repeated:
            found = f"{len(absent)} absent and {len(repeated)} repeated videos, for instance {wrong[0]}"
            raise self.error(found, f"each of {annotations.num_videos} {annotations.split} videos once")
        return torch.tensor([places[sample_id] for sample_id in annotations.sample_ids], dtype=torch.int64)

    def error(self, found: str, expected: str) -> InputError:
        """Return the InputError for a record that does not fit."""
        return InputError(self.path, found, expected, self.way_out)


def save_record(
    path: Path, tensors: dict[str, Tensor], dataset: str, classes: tuple[str, ...], sample_ids: tuple[str, ...] = ()
) -> None:
    """Write a record atomically."""
    metadata = {"dataset": dataset, "classes": "\n".join(classes)}
    metadata |= {"sample_ids": "\n".join(sample_ids)} if sample_ids else {}
    copies = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(copies, metadata))


def load_record(path: Path, dataset: str, classes: tuple[str, ...], way_out: str) -> Record:
    """Read a record of a data set whose first classes are these. Raises InputError for others, and if damaged."""
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
            metadata = file.metadata() or {}
        names = {name: tuple(metadata.get(name, "").split("\n")) for name in ("dataset", "classes", "sample_ids")}
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise InputError(path, f"no readable record ({error})", "an intact safetensors file", way_out) from error
    found = names["classes"]
    if names["dataset"] != (dataset,) or found[: len(classes)] != classes:
        found = f"a record of {metadata.get('dataset')} with {len(found)} classes"
        raise InputError(path, found, f"one of {dataset} with its {len(classes)} classes in order", way_out)
    return Record(path, way_out, found, names["sample_ids"], tensors)
