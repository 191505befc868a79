"""Provenance of features: whether they are simulated, or how they were extracted, for the notes of every table."""

import hashlib
import json
from pathlib import Path

import yaml

from dataloaders.features import FEATURES, PACKED, TEXT_FILES
from utils.errors import InputError
from utils.files import exclusive, write_text

SIMULATION_MARKER = "simulation.yaml"  # written by `simulation`: features without videos
VIDEOS_MARKER = "generated_videos.yaml"  # written by `simulation --videos` and `simulation.generated_clips`
EXTRACTION_MARKER = "extraction.yaml"  # written by video.extract_features
VIDEOS_FILE = "videos.json"  # fingerprints of the video files by feature id
READ_OF_VIDEO = 1 << 16  # bytes
MARKERS = (SIMULATION_MARKER, VIDEOS_MARKER, EXTRACTION_MARKER)


def feature_marks(data_dir: Path, feature: str | None = None) -> tuple[str, ...]:
    """Return the notes on features for tables: unpublished (`feature`), simulated, or from random weights."""
    marks = [] if feature is None or PACKED[feature].is_published else [f"{feature} features"]
    marks += ["simulated features"] if (data_dir / SIMULATION_MARKER).exists() else []
    marks += video_marks(data_dir)
    if drawn := [one["drawn_weights"] for one in read_extraction(data_dir).values() if one["drawn_weights"]]:
        marks.append(f"features {'of small networks with' if 'small' in drawn else 'from'} random weights")
    return tuple(marks)


def feature_note(data_dir: Path) -> str:
    """Return the marks of a folder's features as one text for tables."""
    return ", ".join(feature_marks(data_dir))


def video_marks(data_dir: Path) -> tuple[str, ...]:
    """Return the notes on generated videos for tables; empty for real videos."""
    return ("generated videos",) if (data_dir / VIDEOS_MARKER).exists() else ()


def read_extraction(data_dir: Path) -> dict[str, dict]:
    """Read the settings of a folder's extraction by feature; empty without a record. Raises InputError if damaged."""
    path = data_dir / EXTRACTION_MARKER
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
        return {str(name): {"drawn_weights": None, **settings} for name, settings in content["features"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        found = f"no record of features ({error})"
        raise InputError(path, found, "an intact record", "Extract the features again.") from error


def text_part(feature: str, prompts: str) -> str:
    """Return the name of a feature's text features in the record, as their provenance may differ from the segments'."""
    return f"{feature} {TEXT_FILES[prompts]}"


def files_of(data_dir: Path, part: str) -> list[Path]:
    """Return the existing files of a part of the record: a feature, or its text features (`text_part`)."""
    feature, _, text_file = part.partition(" ")
    known = FEATURES[feature]
    folder, pattern = (known.text_folder, text_file) if text_file else (known.folder, "*.npy")
    return sorted((data_dir / folder).glob(pattern))


def record_extraction(data_dir: Path, settings: dict[str, dict]) -> None:
    """Record the settings of an extraction before it starts; several processes may do so at the same time.

    `settings`, by feature name or `text_part`, are `weights`, `drawn_weights` (None, "real" or "small"), `precision`
    and so on. Raises InputError if the folder has features of another provenance, as these are never mixed.
    """
    with exclusive(data_dir):
        before = read_extraction(data_dir)
        for part, wanted in settings.items():
            _refuse_others(data_dir, part, wanted, before)
        content = before | settings
        if content != before:
            write_text(data_dir / EXTRACTION_MARKER, yaml.safe_dump({"features": content}, sort_keys=False))


def _refuse_others(data_dir: Path, part: str, wanted: dict, before: dict[str, dict]) -> None:
    """Raise InputError if files of this part, or of its feature, have another provenance."""
    feature = part.split(" ")[0]
    related = [text_part(feature, prompts) for prompts in TEXT_FILES] if FEATURES[feature].text_folder else []
    way_out = "Choose another --output, extract other features, or delete these."
    for other in dict.fromkeys([part, feature, *related]):
        files, made = files_of(data_dir, other), before.get(other, {})
        # Texts and segments may have separate records if both were extracted with published weights.
        unrelated = not made and other != part and not (other == feature and wanted["drawn_weights"])
        if not files or unrelated:
            continue
        compared = {**made, **wanted}.keys() - {"versions"} if other == part else {"weights", "drawn_weights", "sha256"}
        # Records of earlier versions lack some settings, and absent weights have no hash.
        known = {key: value for key, value in made.items() if not (key == "sha256" and None in (value, wanted[key]))}
        differing = [key for key in sorted(compared) if not made or known.get(key, wanted.get(key)) != wanted.get(key)]
        if differing:
            found = f"{other} features of another origin, which differ in {', '.join(differing)}"
            expected = f"weights {wanted['weights']} and the settings of this extraction"
            raise InputError(files[0], found, expected, way_out)


def other_videos(data_dir: Path, videos: dict[str, Path]) -> list[str]:
    """Return the ids among `videos` for which this folder records the fingerprint of another file."""
    known = _read_videos(data_dir)
    return [name for name, file in videos.items() if name in known and known[name] != _fingerprint(file)]


def record_videos(data_dir: Path, videos: dict[str, Path]) -> None:
    """Record the video file of each feature id before its extraction; several processes may do so at the same time."""
    with exclusive(data_dir):
        known = _read_videos(data_dir)
        if new := {name: _fingerprint(file) for name, file in videos.items() if name not in known}:
            write_text(data_dir / VIDEOS_FILE, json.dumps(known | new, indent=0))


def _read_videos(data_dir: Path) -> dict[str, str]:
    path = data_dir / VIDEOS_FILE
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        found = f"no record of videos ({error})"
        raise InputError(path, found, "an intact record", "Extract again, to another folder.") from error


def _fingerprint(path: Path) -> str:
    """Return a hash of a file's size, beginning and end."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        beginning = file.read(READ_OF_VIDEO)
        file.seek(max(0, size - READ_OF_VIDEO))
        return hashlib.sha256(b"%d " % size + beginning + file.read(READ_OF_VIDEO)).hexdigest()


def refuse_own_features(folder: Path) -> None:
    """Raise InputError for extracted features in a folder for published ones, such as `<data>/feats_CLIP`."""
    for part in read_extraction(folder.parent):
        for file in files_of(folder.parent, part)[:1]:
            if file.is_relative_to(folder):
                raise InputError(file, "features extracted here", "no features", "Delete them, or use another --root.")
