"""Where a folder's features come from, so that every table of them can say so."""

from pathlib import Path

import yaml

from utils.errors import InputError
from utils.files import write_text

SIMULATION_MARKER = "simulation.yaml"  # of `dataloaders.simulation`: features without videos
VIDEOS_MARKER = "generated_videos.yaml"  # of `dataloaders.simulation --videos` and `dataloaders.simulation.clips`
EXTRACTION_MARKER = "extraction.yaml"  # of extract_features.py


def feature_note(data_dir: Path) -> str:
    """What a table has to say about features that are not real ones; empty for real ones."""
    notes = []
    if (data_dir / SIMULATION_MARKER).exists():
        notes.append("simulated features")
    if videos := video_note(data_dir):
        notes.append(videos)
    extracted = read_extraction(data_dir)
    if any(one["drawn_weights"] for one in extracted.values()):
        small = any(one["drawn_weights"] == "small" for one in extracted.values())
        notes.append("features of small networks with random weights" if small else "features of random weights")
    return ", ".join(notes)


def video_note(data_dir: Path) -> str:
    """What a table has to say about videos that are not real ones; empty for real ones."""
    return "generated videos" if (data_dir / VIDEOS_MARKER).exists() else ""


def read_extraction(data_dir: Path) -> dict[str, dict]:
    """How the features of a folder were extracted, by feature name; empty: they were not extracted here.

    Raises:
        InputError: when the record is damaged.
    """
    path = data_dir / EXTRACTION_MARKER
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
        return {str(name): {"drawn_weights": None, **settings} for name, settings in content["features"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            path, f"no record of features ({error})", "what was written there", "Extract again."
        ) from error


def record_extraction(data_dir: Path, settings: dict[str, dict], folders: dict[str, Path]) -> None:
    """Write down how features are extracted, before the first is.

    Args:
        settings: by feature name: `weights`, `drawn_weights` (None, "real" or "small"), `recipe`, `precision`, ...
        folders: by feature name: where its files lie.

    Raises:
        InputError: when the folder holds such features that were made otherwise: they are never mixed.
    """
    before = read_extraction(data_dir)
    way_out = "Choose another --output, or delete these features."
    for name, wanted in settings.items():
        there = folders[name].is_dir() and any(folders[name].glob("*.npy"))
        if there and name not in before and wanted.get("drawn_weights"):
            raise InputError(folders[name], "features of another origin", "features of random weights", way_out)
        if there and name in before and before[name] != wanted:
            differing = [key for key in {**before[name], **wanted} if before[name].get(key) != wanted.get(key)]
            found = f"{name} features with another {', '.join(differing)}"
            raise InputError(data_dir / EXTRACTION_MARKER, found, "the settings of this extraction", way_out)
    content = {"features": {**before, **settings}}
    write_text(data_dir / EXTRACTION_MARKER, yaml.safe_dump(content, sort_keys=False))
