"""The packed feature store: one memory-mapped file per feature and split instead of thousands of `.npy` files.

A packed file holds the features of a split's videos one after the other, one row a second, and a manifest of the source
files (name, size, time of change, segments). A source that was changed, added or removed since is noticed, and the file
is packed again. Rows are float32; those that hold the frames of a second beside each other are float16.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from dataloaders.annotations import WHOLE, SplitAnnotations, Subset
from dataloaders.datasets import DATASETS
from dataloaders.features import PACKED, feature_error, feature_path, read_segment_features
from utils.errors import InputError
from utils.files import atomic_write, exclusive

PACK_FORMAT = "1"
MANIFEST = ("lengths", "sizes", "mtimes")  # of source files: segments, bytes, nanoseconds
Manifest = dict[str, tuple[int, int, int]]  # of each feature id, in the order of the rows
READER_THREADS = 8
ANOTHER_FOLDER = "Free some space, or name another --packed_dir."
VIDEOS_IN_FLIGHT = 256  # bounds the memory of packing: 256 ResNet files are 168 MB


@dataclass(frozen=True)
class PackedFeature:
    """One feature of one split, opened. R rows (segments of all packed videos), D wide, N annotated videos."""

    path: Path
    feature: str
    values: Tensor  # (R, k·D), memory-mapped, of k frames a second; k = 1 but for frames that are not averaged
    first_rows: Tensor  # (N,) int64, the first row of each annotated video

    @property
    def width(self) -> int:
        return self.values.shape[1] // PACKED[self.feature].parts


def open_features(
    annotations: SplitAnnotations,
    features: list[str],
    data_dir: Path,
    packed_dir: Path | None = None,
    allow_missing: bool = False,
    subset: Subset = WHOLE,
) -> tuple[SplitAnnotations, dict[str, PackedFeature]]:
    """Open a split's features, packing first whatever is not packed yet or out of date.

    Args:
        features: names in `PACKED`.
        data_dir: the data set's folder.
        packed_dir: where packed files lie; None: `data_dir/packed`.
        allow_missing: leave out videos without a feature file, and say how many, instead of raising.
        subset: the part of the split that is opened; all of it is packed.

    Returns:
        the annotations of the subset's videos that have every feature, and the features by name

    Raises:
        InputError: for missing or unusable feature files, and when the disk fills up.
    """
    packed_dir = packed_dir or data_dir / "packed"
    packs = {feature: packed_dir / f"{feature}_{annotations.split}.safetensors" for feature in features}
    segments = dict(zip(annotations.feature_ids, annotations.lengths.tolist(), strict=True))
    sources = {feature: _find_sources(feature, data_dir, packs[feature], segments) for feature in features}

    absent = {feature: sorted(segments.keys() - sources[feature].keys()) for feature in features}
    if incomplete := set().union(*absent.values()):
        _report_missing(absent, annotations, data_dir, allow_missing and len(incomplete) < len(segments))
        keep = [n for n, feature_id in enumerate(annotations.feature_ids) if feature_id not in incomplete]
        annotations = annotations.subset(torch.tensor(keep, dtype=torch.int64))

    for feature, path in packs.items():
        if _why_stale(path, feature, sources[feature]):
            with exclusive(packed_dir, ANOTHER_FOLDER):
                if stale := _why_stale(path, feature, sources[feature]):  # another process may have packed it meanwhile
                    tqdm.write(f"Packing {annotations.dataset} {annotations.split} {feature}: {stale}")
                    _pack(path, feature, data_dir, sources[feature], pooled=DATASETS[annotations.dataset].pooled)
    annotations = subset.annotations(annotations)
    return annotations, {f: _open(path, f, sources[f], annotations) for f, path in packs.items()}


def _find_sources(feature: str, data_dir: Path, pack: Path, segments: dict[str, int]) -> Manifest:
    """Find the source files of the wanted videos; those listed in the packed file where the source folder is gone."""
    folder = data_dir / PACKED[feature].folder
    if not folder.is_dir():
        manifest = _read_manifest(pack, feature)
        if manifest is None:
            way_out = "data/README.md says where to get them, or how to simulate them."
            raise InputError(folder, "no such folder", f"the {feature} features, one .npy a video", way_out)
        if any(segments.get(feature_id, length) != length for feature_id, (length, _, _) in manifest.items()):
            found = f"videos of other lengths than annotated, and no folder {folder} to pack them anew from"
            way_out = "Put the feature files back, or use the annotations that the file was packed with."
            raise InputError(pack, found, "features of the annotated lengths", way_out)
        tqdm.write(f"{folder} is gone; using {pack} as it is")
        return manifest
    found = {}
    for feature_id, length in segments.items():
        path = f"{folder}/{feature_id}.npy"  # no Path: there are tens of thousands
        try:
            status = os.stat(path)
            found[feature_id] = (length, status.st_size, status.st_mtime_ns)
        except OSError as error:
            if (problem := feature_error(Path(path), error)).problem != "missing":  # such as a link that leads nowhere
                raise problem from error
    return found


def _report_missing(absent: dict[str, list[str]], annotations: SplitAnnotations, data_dir: Path, allowed: bool) -> None:
    """Say which videos lack a feature; raise unless they may be left out."""
    split, number = f"{annotations.dataset} {annotations.split}", annotations.num_videos
    lacking = "; ".join(
        f"{feature}: {len(ids)} of {number} ({', '.join(ids[:20])}{', ...' * (len(ids) > 20)})"
        for feature, ids in absent.items()
        if ids
    )
    if not allowed:
        checked = f"python -m dataloaders.check --dataset {annotations.dataset} --data_dir {data_dir} --list_all"
        way_out = f"`{checked}` lists all; --allow_missing goes on without these videos."
        found = f"{split} videos without feature files; {lacking}"
        raise InputError(data_dir, found, "a file for every video", way_out)
    num_missing = len(set().union(*absent.values()))
    tqdm.write(f"{split}: leaving out {num_missing} of {number} videos without feature files; {lacking}")


def _read_manifest(path: Path, feature: str) -> Manifest | None:
    """Read what a packed file was packed from; None when there is no whole packed file of this format."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            ids = metadata["ids"].split("\n") if metadata["ids"] else []
            columns = [file.get_tensor(name) for name in MANIFEST]
            values = file.get_slice("values")
            (num_rows, _), dtype = values.get_shape(), values.get_dtype()
    except PermissionError as error:
        way_out = "Give yourself permission to read it, or choose another --packed_dir."
        raise InputError(path, "no permission to read it", "a readable file", way_out) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    fits = all(column.dtype == np.int64 and column.shape == (len(ids),) for column in columns)
    fits = fits and metadata.get("format") == PACK_FORMAT and dtype == _dtype(feature)[0]
    if not fits or num_rows != sum(columns[0].tolist()):
        return None
    return dict(zip(ids, zip(*(column.tolist() for column in columns), strict=True), strict=True))


def _why_stale(path: Path, feature: str, sources: Manifest) -> str | None:
    """Return why a packed file cannot be used for these sources; None when it can."""
    manifest = _read_manifest(path, feature)
    if manifest is None:
        return "the packed file is damaged or of another format" if path.exists() else "for the first time"
    return None if list(manifest.items()) == list(sources.items()) else "feature files were added, removed or changed"


def _dtype(feature: str) -> tuple[str, str]:
    """Return the type of a packed feature's values, as safetensors and as numpy write it."""
    return ("F32", "<f4") if PACKED[feature].averaged else ("F16", "<f2")


def _pack(path: Path, feature: str, data_dir: Path, sources: Manifest, pooled: bool) -> None:
    """Write a packed file: many threads read, one writes, in order."""
    videos = [(feature_id, length) for feature_id, (length, _, _) in sources.items()]
    width = None  # that of the first video

    def read(video: tuple[str, int]) -> np.ndarray:
        feature_id, length = video
        return read_segment_features(feature_path(data_dir, feature, feature_id), feature, length, pooled, width)

    columns = read(videos[0]).shape[1]
    width = columns // PACKED[feature].parts
    num_rows, num_files, (stored, dtype) = sum(length for _, length in videos), len(videos), _dtype(feature)
    tensors = {"values": (stored, [num_rows, columns], num_rows * columns * np.dtype(dtype).itemsize)}
    tensors |= {name: ("I64", [num_files], num_files * 8) for name in MANIFEST}
    header: dict = {"__metadata__": {"format": PACK_FORMAT, "feature": feature, "ids": "\n".join(sources)}}
    end = 0
    for name, (kind, shape, num_bytes) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + num_bytes]}
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
            for rows in pool.map(read, videos[first : first + VIDEOS_IN_FLIGHT]):  # (T, D)
                out.write(np.ascontiguousarray(rows, dtype=dtype).data)
                progress.update()
        out.write(np.array(list(sources.values()), dtype="<i8").T.tobytes())  # the columns of the manifest


def _open(path: Path, feature: str, sources: Manifest, annotations: SplitAnnotations) -> PackedFeature:
    """Map a packed file and find the annotated videos in it."""
    with safe_open(path, framework="pt") as file:
        values = file.get_tensor("values")
    ends = accumulate(length for length, _, _ in sources.values())
    first_rows = {feature_id: end - sources[feature_id][0] for feature_id, end in zip(sources, ends, strict=True)}
    wanted = [first_rows[feature_id] for feature_id in annotations.feature_ids]
    return PackedFeature(path, feature, values, torch.tensor(wanted, dtype=torch.int64))
