"""The packed feature store: one memory-mapped file per feature and split instead of thousands of `.npy` files.

A packed file holds the features of a split's videos one after the other, one row a second, and a manifest of the source
files (name, size, time of change, segments). A source that was changed, added or removed since is noticed, and the file
is packed again.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS
from dataloaders.features import FEATURES, feature_error, feature_path, read_segment_features
from utils.errors import InputError
from utils.files import atomic_write, exclusive

PACK_FORMAT = "1"
READER_THREADS = 8
ANOTHER_FOLDER = "Free some space, or name another --packed_dir."
VIDEOS_IN_FLIGHT = 256  # bounds the memory of packing: 256 ResNet files are 168 MB


@dataclass(frozen=True)
class PackedFeature:
    """One feature of one split, opened. R rows (segments of all packed videos), D wide, N annotated videos."""

    path: Path
    feature: str
    values: Tensor  # (R, D) float32, memory-mapped
    first_rows: Tensor  # (N,) int64, the first row of each annotated video

    @property
    def width(self) -> int:
        return self.values.shape[1]


@dataclass(frozen=True)
class _Sources:
    """Source files of one feature: the manifest that a packed file is held against. F files."""

    ids: list[str]  # (F,)
    lengths: np.ndarray  # (F,) int64, segments
    sizes: np.ndarray  # (F,) int64, bytes
    mtimes: np.ndarray  # (F,) int64, nanoseconds


def open_features(
    annotations: SplitAnnotations,
    features: list[str],
    data_dir: Path,
    packed_dir: Path | None = None,
    allow_missing: bool = False,
) -> tuple[SplitAnnotations, dict[str, PackedFeature]]:
    """Open a split's features, packing first whatever is not packed yet or out of date.

    Args:
        features: names in `FEATURES`.
        data_dir: the data set's folder.
        packed_dir: where packed files lie; None: `data_dir/packed`.
        allow_missing: leave out videos without a feature file, and say how many, instead of raising.

    Returns:
        the annotations of the videos that have every feature, and the features by name

    Raises:
        InputError: for missing or unusable feature files, and when the disk fills up.
    """
    packed_dir = packed_dir or data_dir / "packed"
    packs: dict[str, Path] = {f: packed_dir / f"{f}_{annotations.split}.safetensors" for f in features}
    segments = dict(zip(annotations.feature_ids, annotations.lengths.tolist(), strict=True))
    sources = {f: _find_sources(f, data_dir, packs[f], segments) for f in features}

    absent = {f: segments.keys() - set(sources[f].ids) for f in features}
    if any(absent.values()):
        _report_missing(absent, annotations, data_dir, allow_missing)
        incomplete = set().union(*absent.values())
        keep = [n for n, feature_id in enumerate(annotations.feature_ids) if feature_id not in incomplete]
        annotations = annotations.subset(torch.tensor(keep, dtype=torch.int64))

    opened = {}
    for feature in features:
        path = packs[feature]
        stale = _why_stale(path, sources[feature])
        if stale:
            with exclusive(packed_dir, ANOTHER_FOLDER):
                stale = _why_stale(path, sources[feature])  # another process may have packed it meanwhile
                if stale:
                    tqdm.write(f"Packing {annotations.dataset} {annotations.split} {feature}: {stale}")
                    _pack(path, feature, data_dir, sources[feature], pooled=DATASETS[annotations.dataset].pooled)
        opened[feature] = _open(path, feature, sources[feature], annotations)
    return annotations, opened


def _find_sources(feature: str, data_dir: Path, pack: Path, segments: dict[str, int]) -> _Sources:
    """The source files of the wanted videos; those listed in the packed file where the source folder is gone."""
    folder = data_dir / FEATURES[feature].folder
    if not folder.is_dir():
        manifest = _read_manifest(pack)
        if manifest is None:
            raise InputError(
                folder,
                "no such folder",
                f"the {feature} features, one .npy a video",
                "data/README.md says where to get them, or how to simulate them.",
            )
        if any(segments.get(i, length) != length for i, length in zip(manifest.ids, manifest.lengths, strict=True)):
            raise InputError(
                pack,
                f"videos of other lengths than annotated, and no folder {folder} to pack them anew from",
                "features of the annotated lengths",
                "Put the feature files back, or use the annotations that the file was packed with.",
            )
        tqdm.write(f"{folder} is gone; using {pack} as it is")
        return manifest
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.removesuffix(".npy")
            if name in segments and name != entry.name:
                try:
                    stat = entry.stat()
                except OSError as error:  # a link that leads nowhere
                    raise feature_error(Path(entry.path), error) from error
                found[name] = (stat.st_size, stat.st_mtime_ns)
    ids = [i for i in segments if i in found]
    stats = np.array([found[i] for i in ids], dtype=np.int64).reshape(-1, 2)
    return _Sources(ids, np.array([segments[i] for i in ids], dtype=np.int64), stats[:, 0], stats[:, 1])


def _report_missing(
    absent: dict[str, set[str]], annotations: SplitAnnotations, data_dir: Path, allow_missing: bool
) -> None:
    """Say which videos lack a feature; raise unless they may be left out."""
    lines = []
    for feature, ids in absent.items():
        if ids:
            shown = ", ".join(sorted(ids)[:20]) + (", ..." if len(ids) > 20 else "")
            lines.append(f"{feature}: {len(ids)} of {annotations.num_videos} ({shown})")
    incomplete = set().union(*absent.values())
    if not allow_missing or len(incomplete) == len(set(annotations.feature_ids)):
        raise InputError(
            data_dir,
            f"{annotations.dataset} {annotations.split} videos without feature files; " + "; ".join(lines),
            "a file for every video",
            f"`python -m dataloaders.check --dataset {annotations.dataset} --data_dir {data_dir} --list_all` lists "
            "all; --allow_missing goes on without these videos.",
        )
    tqdm.write(
        f"{annotations.dataset} {annotations.split}: leaving out {len(incomplete)} of {annotations.num_videos} "
        f"videos without feature files; " + "; ".join(lines)
    )


def _read_manifest(path: Path) -> _Sources | None:
    """What a packed file was packed from; None when there is no whole packed file of this format."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != PACK_FORMAT:
                return None
            arrays = [file.get_tensor(name) for name in ("lengths", "sizes", "mtimes")]
            ids = metadata["ids"].split("\n") if metadata["ids"] else []
            values = file.get_slice("values")
            shape = values.get_shape()
            fits = values.get_dtype() == "F32" and len(shape) == 2 and shape[0] == sum(arrays[0].tolist())
            if not fits or any(array.dtype != np.int64 or array.shape != (len(ids),) for array in arrays):
                return None
            return _Sources(ids, *arrays)
    except PermissionError as error:
        way_out = "Give yourself permission to read it, or choose another --packed_dir."
        raise InputError(path, "no permission to read it", "a readable file", way_out) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _why_stale(path: Path, sources: _Sources) -> str | None:
    """Why a packed file cannot be used for these sources; None when it can."""
    manifest = _read_manifest(path)
    if manifest is None:
        return "the packed file is damaged or of another format" if path.exists() else "for the first time"
    if manifest.ids != sources.ids:
        added = len(set(sources.ids) - set(manifest.ids))
        removed = len(set(manifest.ids) - set(sources.ids))
        return f"{added} files were added, {removed} removed"
    unequal = (
        (manifest.sizes != sources.sizes) | (manifest.mtimes != sources.mtimes) | (manifest.lengths != sources.lengths)
    )
    return f"{unequal.sum()} files were changed" if unequal.any() else None


def _pack(path: Path, feature: str, data_dir: Path, sources: _Sources, pooled: bool) -> None:
    """Write a packed file: many threads read, one writes, in order."""

    def read(index: int, width: int | None) -> np.ndarray:
        file = feature_path(data_dir, feature, sources.ids[index])
        return read_segment_features(file, feature, int(sources.lengths[index]), pooled, width)  # (T, D)

    width = read(0, None).shape[1]
    num_rows, num_files = int(sources.lengths.sum()), len(sources.ids)
    tensors = {"values": ("F32", [num_rows, width], num_rows * width * 4)}
    tensors |= {name: ("I64", [num_files], num_files * 8) for name in ("lengths", "sizes", "mtimes")}
    header: dict = {"__metadata__": {"format": PACK_FORMAT, "feature": feature, "ids": "\n".join(sources.ids)}}
    end = 0
    for name, (dtype, shape, num_bytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + num_bytes]}
        end += num_bytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)

    with (
        atomic_write(path, ANOTHER_FOLDER) as out,
        ThreadPoolExecutor(READER_THREADS) as pool,
        tqdm(total=num_files, desc=f"packing {feature}", unit="video", mininterval=1) as progress,
    ):
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for first in range(0, num_files, VIDEOS_IN_FLIGHT):
            indices = range(first, min(first + VIDEOS_IN_FLIGHT, num_files))
            for rows in pool.map(lambda i: read(i, width), indices):
                out.write(np.ascontiguousarray(rows, dtype="<f4").data)
                progress.update()
        for array in (sources.lengths, sources.sizes, sources.mtimes):
            out.write(np.ascontiguousarray(array, dtype="<i8").data)


def _open(path: Path, feature: str, sources: _Sources, annotations: SplitAnnotations) -> PackedFeature:
    """Map a packed file and find the annotated videos in it."""
    with safe_open(path, framework="pt") as file:
        values = file.get_tensor("values")
    firsts = dict(zip(sources.ids, (sources.lengths.cumsum() - sources.lengths).tolist(), strict=True))
    first_rows = torch.tensor([firsts[i] for i in annotations.feature_ids], dtype=torch.int64)
    return PackedFeature(path, feature, values, first_rows)
