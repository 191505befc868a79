"""Where a folder's features come from, so that every table of them can say so."""

from pathlib import Path

import yaml

from dataloaders.features import FEATURES, TEXT_FILES
from utils.errors import InputError
from utils.files import exclusive, write_text

SIMULATION_MARKER = "simulation.yaml"  # of `simulation`: features without videos
VIDEOS_MARKER = "generated_videos.yaml"  # of `simulation --videos` and `simulation.generated_clips`
EXTRACTION_MARKER = "extraction.yaml"  # of video.extract_features
MARKERS = (SIMULATION_MARKER, VIDEOS_MARKER, EXTRACTION_MARKER)


def feature_note(data_dir: Path) -> str:
    """Return what a table has to say about features that are not real ones; empty for real ones."""
    notes = []
    if (data_dir / SIMULATION_MARKER).exists():
        notes.append("simulated features")
    if videos := video_note(data_dir):
        notes.append(videos)
    drawn = [one["drawn_weights"] for one in read_extraction(data_dir).values() if one["drawn_weights"]]
    if drawn:
        small = "small" in drawn
        notes.append("features of small networks with random weights" if small else "features of random weights")
    return ", ".join(notes)


def video_note(data_dir: Path) -> str:
    """Return what a table has to say about videos that are not real ones; empty for real ones."""
    return "generated videos" if (data_dir / VIDEOS_MARKER).exists() else ""


def read_extraction(data_dir: Path) -> dict[str, dict]:
    """Read how a folder's features were extracted, by feature name; empty: they were not extracted here.

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
        found = f"no record of features ({error})"
        raise InputError(path, found, "what was written there", "Extract again.") from error


def text_part(feature: str, prompts: str) -> str:
    """Return what the record calls a feature's text features, which may be of another origin than its segments'."""
    return f"{feature} {TEXT_FILES[prompts]}"


def files_of(data_dir: Path, part: str) -> list[Path]:
    """Return the files that are there of a part of the record: a feature, or its text features (`text_part`)."""
    feature, _, text_file = part.partition(" ")
    known = FEATURES[feature]
    folder, pattern = (known.text_folder, text_file) if text_file else (known.folder, "*.npy")
    return sorted((data_dir / folder).glob(pattern))


def record_extraction(data_dir: Path, settings: dict[str, dict]) -> None:
    """Write down how features are extracted, before the first is. Several processes may do so at the same time.

    Args:
        settings: by feature name or `text_part`: `weights`, `drawn_weights` (None, "real" or "small"), `precision`, ...

    Raises:
        InputError: when the folder holds such features that were made otherwise, or elsewhere: they are never mixed.
    """
    with exclusive(data_dir):
        before = read_extraction(data_dir)
        for part, wanted in settings.items():
            _refuse_others(data_dir, part, wanted, before)
        content = before | settings
        if content != before:
            write_text(data_dir / EXTRACTION_MARKER, yaml.safe_dump({"features": content}, sort_keys=False))


def _refuse_others(data_dir: Path, part: str, wanted: dict, before: dict[str, dict]) -> None:
    """Raise InputError when files of this part, or of the feature that it belongs to, do not go with it."""
    feature = part.split(" ")[0]
    related = [text_part(feature, prompts) for prompts in TEXT_FILES] if FEATURES[feature].text_folder else []
    way_out = "Choose another --output, leave them out, or delete these features."
    for other in dict.fromkeys([part, feature, *related]):
        files, made = files_of(data_dir, other), before.get(other, {})
        # Texts with published weights may stand beside published segments, and segments beside texts.
        unrelated = not made and other != part and not (other == feature and wanted["drawn_weights"])
        if not files or unrelated:
            continue
        compared = {**made, **wanted} if other == part else ("weights", "drawn_weights")
        if differing := [key for key in compared if not made or made.get(key) != wanted.get(key)]:
            found = f"{other} features of another origin, with another {', '.join(differing)}"
            raise InputError(
                files[0], found, f"features of {wanted['weights']} and the settings of this extraction", way_out
            )


def refuse_own_features(folder: Path) -> None:
    """Raise InputError when own features lie where published ones are to go: in `<data>/feats_CLIP` or another."""
    for part in read_extraction(folder.parent):
        for file in files_of(folder.parent, part)[:1]:
            if file.is_relative_to(folder):
                way_out = "Delete them first, or fetch to another --root."
                raise InputError(file, "features that were extracted here", "no features", way_out)
