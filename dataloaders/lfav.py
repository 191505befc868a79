"""Conversion of LFAV's tables into the `annotations.json` that configs/datasets/LFAV.yaml names.

python -m dataloaders.lfav --tables LFAV_dataset --data_dir data/LFAV
"""

from utils.entry_point import run_entry_point

import argparse
import json
import logging
from pathlib import Path

from dataloaders.datasets import DATASETS, SPLITS
from dataloaders.features import FEATURES, feature_path, read_npy
from dataloaders.tables import line_error, read_table
from utils.audio_visual import MODALITIES
from utils.files import write_text


def convert(tables: Path, data_dir: Path, feature: str) -> dict[str, dict]:
    """Return LFAV's tables as ActivityNet's `database`.

    Both ends of an event are included, as in the authors' evaluation: onset 15 and offset 15 are one second. As the
    tables lack durations, a video has as many seconds as its `feature`, or without that file ends with its last event.
    Events that end before they begin (the tables have some) and parts after the video's end are left out. Raises
    InputError for absent files and columns, unknown classes and malformed times.
    """
    database, num_unknown = {}, 0
    for split in SPLITS:
        events: dict[str, list[dict]] = {}
        for modality in MODALITIES:
            weak = tables / split / f"{split}_{modality}_weakly.csv"
            for row in read_table(weak, ("filename", "event_labels")).values():
                labels = [label for label in row["event_labels"].split(",") if label != "silent" and split == "train"]
                of_video = events.setdefault(row["filename"][:11], [])
                of_video += [{"label": label, "modality": modality} for label in labels]
            if split != "train":
                _add_events(events, tables / split / f"{split}_{modality}.csv", modality)
        for video, of_video in events.items():
            path, spans = feature_path(data_dir, feature, video), [e["segment"] for e in of_video if "segment" in e]
            num_unknown += not path.is_file()
            duration = max([1, *(end for _, end in spans)])
            if path.is_file():
                duration = len(read_npy(path)) // FEATURES[feature].rows_per_second
            for span in spans:
                span[1] = min(span[1], duration)
            kept = [e for e in of_video if "segment" not in e or e["segment"][0] < e["segment"][1]]
            database[video] = {"subset": split, "duration": duration, "annotations": kept}
    if num_unknown:
        logging.getLogger(__name__).warning(
            f"{num_unknown} of {len(database)} videos have no {feature} features, so their durations are guessed. "
            "Extract the features, and run this command again."
        )
    return database


def _add_events(events: dict[str, list[dict]], path: Path, modality: str) -> None:
    """Add the rows of an event table to the events of their videos."""
    classes = DATASETS["LFAV"].classes
    for line, row in read_table(path, ("filename", "onset", "offset", "event_labels")).items():
        if not (row["onset"].isdecimal() and row["offset"].isdecimal() and row["event_labels"] in classes):
            expected = f"whole seconds, and one of {', '.join(classes)}"
            raise line_error(path, line, f"{list(row.values())!r:.200}", expected)
        if row["filename"][:11] in events:  # otherwise it is not in the split
            span = [int(row["onset"]), int(row["offset"]) + 1]
            events[row["filename"][:11]].append({"label": row["event_labels"], "modality": modality, "segment": span})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path, required=True, help="the folder LFAV_dataset of the authors' repository")
    parser.add_argument("--data_dir", type=Path, default=DATASETS["LFAV"].folder)
    parser.add_argument("--feature", choices=FEATURES, default="r2plus1d_18", help="determines the videos' durations")
    args = parser.parse_args(argv)
    database = convert(args.tables, args.data_dir, args.feature)
    write_text(args.data_dir / "annotations.json", json.dumps({"database": database}))


if __name__ == "__main__":
    run_entry_point(main)
