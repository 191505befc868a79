"""Provenance: what a run, labels or an evaluation were made from, in their folder's `provenance.json`.

The command that makes a folder writes the record, and commands that read the folder check it. Hashes are SHA-256.
"""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dataloaders.datasets import DATASETS
from dataloaders.feature_origin import feature_marks
from dataloaders.pseudo_labels import NPY_FILES
from utils.errors import InputError
from utils.files import hash_of, hash_of_file, write_text
from utils.settings import ARGS_FILE, read_args

PROVENANCE_FILE = "provenance.json"
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "transformers", "timm", "av")  # whose versions are recorded, if installed
HAN_RUN = "a run of train_han.py --method {}"
LABELS = "labels of {}"
STAGE_2 = "pseudo_label_generation.py --teacher {}"
MADE_WITH = {"transformer_dir": "stage 1", "pseudo_label_dir": "labels"}  # settings that name sources


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="ignore"))
class Provenance:
    """Provenance of a folder's content; empty fields are unknown."""

    kind: str = ""  # such as "a run of train_han.py --method uwav"
    dataset: str = ""
    classes: tuple[str, ...] = ()  # in order
    videos: Mapping[str, str] = field(default_factory=dict)  # by split, a hash of the ids (in order) and labels
    sources: Mapping[str, str] = field(default_factory=dict)  # by name, a hash of features, labels or weights
    marks: tuple[str, ...] = ()  # shown with every result, such as "simulated features"
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None  # of the code
    clean: bool | None = None  # whether the files tracked by git were those of the commit
    seconds: float | None = None  # of training and validation, summed over all parts of a resumed run

    @property
    def note(self) -> str:
        """Return the marks as one text for tables."""
        return ", ".join(self.marks)

    def inherit(self, source: "Provenance", of: str) -> "Provenance":
        """Return the record with the marks of one of its sources added, as `of: mark`."""
        new = [mark if ": " in mark else f"{of}: {mark}" for mark in source.marks if mark not in self.marks]
        return replace(self, marks=tuple(dict.fromkeys((*self.marks, *new))))

    def check(self, where: Path, way_out: str, **wanted: Any) -> None:
        """Raise InputError for the first known field that is not as wanted; of `kind`, the first words suffice."""
        for name, value in wanted.items():
            known = getattr(self, name)
            if isinstance(value, Mapping):
                both = {key: (known[key], value[key]) for key in known.keys() & value.keys()}
                differing = [key for key, hashes in both.items() if all(hashes) and hashes[0] != hashes[1]]
                if differing:
                    found = f"other {name} ({', '.join(sorted(differing))})"
                    raise InputError(where, found, f"the same {name}", way_out)
            elif known and known != value and not (name == "kind" and known.startswith(f"{value} ")):
                shown = [text if isinstance(text, str) else ", ".join(text) for text in (known, value)]
                raise InputError(where, f"{name}: {shown[0]}", shown[1], way_out)


def provenance_of(kind: str, splits: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> Provenance:
    """Return the provenance of what is made from splits and other sources. Raises InputError for unequal widths."""
    first = next(iter(splits.values()))
    widths = {name: "+".join(map(str, sum(split.feature_widths, ()))) for name, split in splits.items()}
    if len({*widths.values()}) > 1:
        found = "widths that differ: " + ", ".join(f"{name} {width}" for name, width in widths.items())
        way_out = "Extract the features of all splits with the same networks."
        raise InputError(f"{first.annotations.dataset} features", found, "equal widths", way_out)
    videos = {}
    for name, split in splits.items():
        of = split.annotations
        videos[name] = hash_of([*of.sample_ids, hash_of_tensors(of.lengths, of.video_labels, *(of.labels or ()))])
    features = {f"{name} {key}": text for name, split in splits.items() for key, text in split.sources.items()}
    sources, marks = features | (sources or {}), dict.fromkeys(mark for s in splits.values() for mark in s.marks)
    return Provenance(kind, first.annotations.dataset, first.annotations.classes, videos, sources, tuple(marks))


def write_provenance(folder: Path, record: Provenance) -> None:
    """Write `provenance.json`; command, commit and package versions are this process's unless the record has them."""
    name = sys.argv[0] if sys.argv[0].startswith("python -m ") else shlex.quote(sys.argv[0])
    called = f"{name} {shlex.join(sys.argv[1:])}".rstrip()
    command, of_packages = record.command or called, record.versions or versions(*PACKAGES)
    code = {} if record.commit else state_of_code(ROOT)
    record = replace(record, command=command, versions=of_packages, **code)
    write_text(folder / PROVENANCE_FILE, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")


def read_provenance(folder: Path) -> Provenance:
    """Read a folder's record, derive it for earlier versions, or return an empty one. Raises InputError if damaged."""
    path = folder / PROVENANCE_FILE
    if path.is_file():
        try:
            return Provenance(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            found = f"no record ({' '.join(str(error).split())[:200]})"
            raise InputError(path, found, "an intact record", "Regenerate the folder's content.") from error
    if not (folder / ARGS_FILE).is_file():
        return Provenance()
    args = read_args(folder / ARGS_FILE)
    kind = LABELS.format(STAGE_2.format(args["teacher"])) if "teacher" in args else ""
    if (folder / "checkpoints").is_dir():
        kind = HAN_RUN.format(args.get("method", "uwav")) if "decoding" in args else "a run of an earlier version"
    dataset = str(args.get("dataset", "UnAV"))  # stage 1 has no such setting
    data_dir = args.get("data_dir") or (DATASETS[dataset].folder if dataset in DATASETS else folder)
    record = Provenance(kind, dataset, marks=feature_marks(Path(data_dir)))
    for name, source in MADE_WITH.items():
        if args.get(name):
            record = record.inherit(read_provenance(Path(args[name])), source)
    return record


@cache  # a commit made while the process runs is not its code
def state_of_code(folder: Path) -> dict[str, str | bool]:
    """Return a folder's `commit`, and whether its tracked files are `clean`; empty without git or a repository."""
    status = ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    command = ["git", "--no-optional-locks", "-C", str(folder), *status]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = run.stdout.splitlines()
    commit = lines[0].removeprefix("# branch.oid ")  # "(initial)" before the first commit
    return {"commit": commit, "clean": all(line.startswith("#") for line in lines)}


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    installed = {name: metadata.version(name) for name in packages if any(metadata.distributions(name=name))}
    return {"python": platform.python_version(), **installed}


def hash_of_tensors(*tensors: Tensor) -> str:
    """Return the hash of the values of tensors, in order."""
    return hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)).hexdigest()


def hash_of_labels(folder: Path) -> str:
    """Return the hash of the content of all label files in a folder, in any layout (of damaged files, the bytes)."""
    others = (*NPY_FILES, "*.npz", "*.pkl")
    paths = sorted(folder.glob("*.safetensors")) or sorted(p for pattern in others for p in folder.glob(pattern))
    return hash_of(f"{path.relative_to(folder)} {_hash_of_content(path)}" for path in paths)


def _hash_of_content(path: Path) -> str:
    if path.suffix != ".safetensors":
        return hash_of_file(path)
    try:
        with safe_open(path, framework="pt") as file:  # the order of metadata is arbitrary
            names, metadata_of_file = sorted(file.keys()), str(sorted((file.metadata() or {}).items()))
            return hash_of([metadata_of_file, *names, hash_of_tensors(*map(file.get_tensor, names))])
    except (OSError, SafetensorError):
        return hash_of_file(path)
