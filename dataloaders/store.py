"""The packed feature store: one memory-mapped file per feature and split instead of thousands of `.npy` files.

A packed file contains the features of a split's videos in order, one row per second, their hash and marks, and a
manifest of the source files (name, size, time of change, segments). It is packed again if a source file is changed,
added or removed. Rows are float32, or float16 if they concatenate the frames of a second.
"""

import hashlib
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
from dataloaders.feature_origin import feature_marks
from dataloaders.features import PACKED, feature_error, feature_path, read_segment_features
from utils.errors import InputError
from utils.files import atomic_write, exclusive, require_file

PACK_FORMAT = "1"
# Segments, bytes and time of the last change (st_ctime_ns, despite the name) of each source file.
MANIFEST = ("lengths", "sizes", "mtimes")
NO_HASH = 64 * "0"  # placeholder in a packed file's header until all is written
Manifest = dict[str, tuple[int, int, int]]  # by feature id, in the order of the rows
READER_THREADS = 8
ANOTHER_FOLDER = "Free some space, or choose another --packed_dir."
VIDEOS_IN_FLIGHT = 256  # limits the memory of packing: 256 ResNet files are 168 MB


@dataclass(frozen=True)
class PackedFeature:
    """An opened feature of a split: R rows (segments of all packed videos), width D, N annotated videos."""

    path: Path
    feature: str
    values: Tensor  # (R, k·D), memory-mapped; k frames per second, 1 if they are averaged
    first_rows: Tensor  # (N,) int64, the first row of each annotated video
    sha256: str = ""  # of all values; empty: unknown
    marks: tuple[str, ...] = ()  # notes shown with every result of these features

    @property
    def width(self) -> int:
        return self.values.shape[1] // PACKED[self.feature].parts


def open_features(
    annotations: SplitAnnotations,
    features: list[str],  # names in `PACKED`
    data_dir: Path,  # the data set's folder
    packed_dir: Path | None = None,  # folder of the packed files; None: `data_dir/packed`
    allow_missing: bool = False,  # leave out videos without a feature file, with a message, instead of raising
    subset: Subset = WHOLE,  # the part of the split to open; the whole split is packed
) -> tuple[SplitAnnotations, dict[str, PackedFeature]]:
    """Return the annotations of the subset's videos that have every feature, and the opened features by name.

    They are packed first if necessary. Raises InputError for missing and unusable files, and if the disk is full.
    """
    packed_dir = packed_dir or data_dir / "packed"
    packs = {feature: packed_dir / f"{feature}_{annotations.split}.safetensors" for feature in features}
    segments = dict(zip(annotations.feature_ids, annotations.lengths.tolist(), strict=True))
    sources = {feature: _find_sources(feature, data_dir, packs[feature], segments) for feature in features}

    partial: tuple[str, ...] = ()  # notes on missing videos and finer segments
    if (rate := annotations.segments_per_second) != DATASETS[annotations.dataset].segments_per_second:
        partial = (f"{rate} segments a second",)
    absent = {feature: sorted(segments.keys() - sources[feature].keys()) for feature in features}
    if incomplete := set().union(*absent.values()):
        _report_missing(absent, annotations, data_dir, allow_missing and len(incomplete) < len(segments))
        keep = [n for n, feature_id in enumerate(annotations.feature_ids) if feature_id not in incomplete]
        split, number = f"{annotations.dataset} {annotations.split}", annotations.num_videos
        partial += (f"{len(keep):,} of {number:,} {split} videos",)
        annotations = annotations.subset(torch.tensor(keep, dtype=torch.int64))

    opened, pooled = {}, DATASETS[annotations.dataset].pooled
    for feature, path in packs.items():
        pack = _open(path, feature, sources[feature])
        if isinstance(pack, str):
            with exclusive(packed_dir, ANOTHER_FOLDER):
                pack = _open(path, feature, sources[feature])  # another process may have packed it in the meantime
                if isinstance(pack, str):
                    tqdm.write(f"Packing {annotations.dataset} {annotations.split} {feature}: {pack}")
                    _pack(path, feature, data_dir, sources[feature], pooled)
                    pack = _open(path, feature, sources[feature])
        opened[feature] = pack
    annotations = subset.annotations(annotations)
    return annotations, {
        f: _find_videos(packs[f], f, pack, annotations, (*partial, *feature_marks(data_dir, f)))
        for f, pack in opened.items()
    }


def _find_sources(feature: str, data_dir: Path, pack: Path, segments: dict[str, int]) -> Manifest:
    """Return the existing source files of the videos, or those of the packed file if their folder is absent."""
    folder = data_dir / PACKED[feature].folder
    if not folder.is_dir():
        found = _read(pack, feature)
        if found is None:
            way_out = "data/README.md describes where to get them, or how to simulate them."
            raise InputError(folder, "no such folder", f"the {feature} features, one .npy per video", way_out)
        lengths = {feature_id: length for feature_id, (length, _, _) in found.manifest.items()}
        if any(segments.get(feature_id, length) != length for feature_id, length in lengths.items()):
            found = f"videos of other lengths than annotated, and no folder {folder} to pack them again from"
            way_out = "Restore the feature files, or the annotations with which the file was packed."
            raise InputError(pack, found, "features of the annotated lengths", way_out)
        tqdm.write(f"{folder} does not exist; using the packed file {pack}")
        return found.manifest
    found = {}
    for feature_id, length in segments.items():
        path = f"{folder}/{feature_id}.npy"  # not a Path, as there are tens of thousands
        try:
            status = os.stat(path)
            found[feature_id] = (length, status.st_size, status.st_ctime_ns)
        except OSError as error:
            if (problem := feature_error(Path(path), error)).problem != "missing":  # such as a dangling link
                raise problem from error
    return found


def _report_missing(absent: dict[str, list[str]], annotations: SplitAnnotations, data_dir: Path, allowed: bool) -> None:
    """Print the videos without feature files if they may be left out, or raise InputError."""
    split, number = f"{annotations.dataset} {annotations.split}", annotations.num_videos
    lacking = "; ".join(
        f"{feature}: {len(ids)} of {number} ({', '.join(ids[:20])}{', ...' * (len(ids) > 20)})"
        for feature, ids in absent.items()
        if ids
    )
    if not allowed:
        checked = f"python -m dataloaders.check --dataset {annotations.dataset} --data_dir {data_dir} --list_all"
        way_out = f"`{checked}` lists all; --allow_missing continues without these videos."
        found = f"{split} videos without feature files; {lacking}"
        raise InputError(data_dir, found, "a file for every video", way_out)
    num_missing = len(set().union(*absent.values()))
    tqdm.write(f"{split}: leaving out {num_missing} of {number} videos without feature files; {lacking}")


@dataclass(frozen=True)
class _Pack:
    """Content of a packed file, read through one file handle, since another process may replace the file."""

    manifest: Manifest
    values: Tensor  # memory-mapped
    metadata: dict[str, str]


def _read(path: Path, feature: str) -> _Pack | None:
    """Read a packed file; None if it is absent, incomplete or of another format."""
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            ids = metadata["ids"].split("\n") if metadata["ids"] else []
            columns = [file.get_tensor(name) for name in MANIFEST]
            stored, (num_rows, _) = file.get_slice("values").get_dtype(), file.get_slice("values").get_shape()
            values = file.get_tensor("values")
    except PermissionError as error:
        way_out = "Give yourself permission to read it, or choose another --packed_dir."
        raise InputError(path, "no permission to read it", "a readable file", way_out) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    fits = all(column.dtype == torch.int64 and column.shape == (len(ids),) for column in columns)
    fits = fits and metadata.get("format") == PACK_FORMAT and stored == _dtype(feature)[0]
    if not fits or num_rows != sum(columns[0].tolist()):
        return None
    manifest = dict(zip(ids, zip(*(column.tolist() for column in columns), strict=True), strict=True))
    return _Pack(manifest, values, metadata)


def _open(path: Path, feature: str, sources: Manifest) -> _Pack | str:
    """Read a packed file of these sources, or return the reason why it must be packed."""
    pack = _read(path, feature)
    if pack is None:
        return "the packed file is damaged or of another format" if path.exists() else "for the first time"
    fits = list(pack.manifest.items()) == list(sources.items())
    return pack if fits else "feature files were added, removed or changed"


def _dtype(feature: str) -> tuple[str, str]:
    """Return safetensors' and numpy's names for the type of a packed feature's values."""
    return ("F32", "<f4") if PACKED[feature].averaged else ("F16", "<f2")


def _pack(path: Path, feature: str, data_dir: Path, sources: Manifest, pooled: bool) -> None:
    """Write a packed file; several threads read, and one writes in order."""
    videos = [(feature_id, length) for feature_id, (length, _, _) in sources.items()]
    width = None  # of the first video

    def read(video: tuple[str, int]) -> np.ndarray:
        feature_id, length = video
        return read_segment_features(feature_path(data_dir, feature, feature_id), feature, length, pooled, width)

    columns = read(videos[0]).shape[1]
    width = columns // PACKED[feature].parts
    num_rows, num_files, (stored, dtype) = sum(length for _, length in videos), len(videos), _dtype(feature)
    tensors = {"values": (stored, [num_rows, columns], num_rows * columns * np.dtype(dtype).itemsize)}
    tensors |= {name: ("I64", [num_files], num_files * 8) for name in MANIFEST}
    metadata = {"sha256": NO_HASH, "format": PACK_FORMAT, "feature": feature, "ids": "\n".join(sources)}
    header: dict = {"__metadata__": metadata | {"marks": "\n".join(feature_marks(data_dir, feature))}}
    end = 0
    for name, (kind, shape, num_bytes) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + num_bytes]}
        end += num_bytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()

    with (
        atomic_write(path, ANOTHER_FOLDER) as out,
        ThreadPoolExecutor(READER_THREADS) as pool,
        tqdm(total=num_files, desc=f"packing {feature}", unit="video", mininterval=1) as progress,
    ):
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for first in range(0, num_files, VIDEOS_IN_FLIGHT):
            for rows in pool.map(read, videos[first : first + VIDEOS_IN_FLIGHT]):  # (T, D)
                stored_rows = np.ascontiguousarray(rows, dtype=dtype).data
                digest.update(stored_rows)
                out.write(stored_rows)
                progress.update()
        out.write(np.array(list(sources.values()), dtype="<i8").T.tobytes())  # the columns of the manifest
        out.seek(8)
        out.write(encoded.replace(NO_HASH.encode(), digest.hexdigest().encode(), 1))


def _find_videos(
    path: Path, feature: str, pack: _Pack, annotations: SplitAnnotations, marks: tuple[str, ...]
) -> PackedFeature:
    """Find the annotated videos in a packed file."""
    lengths = (length for length, _, _ in pack.manifest.values())
    first_rows = dict(zip(pack.manifest, accumulate(lengths, initial=0), strict=False))
    wanted = torch.tensor([first_rows[feature_id] for feature_id in annotations.feature_ids], dtype=torch.int64)
    marks = tuple(dict.fromkeys([*filter(None, pack.metadata.get("marks", "").split("\n")), *marks]))
    return PackedFeature(path, feature, pack.values, wanted, pack.metadata.get("sha256", ""), marks)
