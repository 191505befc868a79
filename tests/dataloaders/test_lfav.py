"""LFAV's tables, and the four stages on videos of 10 to 210 seconds."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataloaders import lfav
from dataloaders.datasets import DATASETS, load_annotations
from dataloaders.features import feature_path
from simulation.simulate import TRAIN_TRUTH, simulate
from tests.tiny_data import write_npy
from tests.tiny_runs import evaluate, label, pretrain, train
from utils.errors import InputError
from utils.evaluation.predictions import load_predictions

HEADER = "filename\tonset\toffset\tevent_labels"
VIDEOS = {"train": "aaaaaaaaaaa", "val": "bbbbbbbbbbb", "test": "ccccccccccc"}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Tables with the peculiarities of LFAV's: silent videos, seconds without length, ends before beginnings."""
    folder = tmp_path / "LFAV_dataset"
    for split, video in VIDEOS.items():
        (folder / split).mkdir(parents=True)
        for modality, labels in (("audio", "speech,car_alarm"), ("visual", "silent")):
            weak = f"filename\tevent_labels\n{video}\t{labels}\n"
            (folder / split / f"{split}_{modality}_weakly.csv").write_text(weak)
            if split != "train":
                rows = [
                    f"{video}\t3\t3\tspeech",
                    f"{video}\t5\t99\tdog",
                    f"{video}\t6\t2\tcat",
                    "zzzzzzzzzzz\t0\t9\tcar",
                ]
                rows = rows if modality == "audio" else [f"{video}\t0\t1\tpiano"]
                (folder / split / f"{split}_{modality}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_tables_are_read_as_the_authors_evaluation_reads_them(tables: Path, tmp_path: Path):
    for video in VIDEOS.values():
        write_npy(feature_path(tmp_path / "data", "r2plus1d_18", video), np.zeros((8, 512)))
    lfav.main(["--tables", str(tables), "--data_dir", str(tmp_path / "data")])
    train_split, test_split = (load_annotations("LFAV", tmp_path / "data", split) for split in ("train", "test"))
    place = {name: n for n, name in enumerate(DATASETS["LFAV"].classes)}
    assert len(place) == 35 and train_split.labels is None
    assert train_split.video_labels[0].nonzero().flatten().tolist() == sorted([place["speech"], place["car_alarm"]])
    expected = np.zeros((2, 8, 35), bool)
    expected[0, 3, place["speech"]] = True  # one second
    expected[0, 5:8, place["dog"]] = True  # until the video ends
    expected[1, 0:2, place["piano"]] = True
    np.testing.assert_array_equal(np.stack(test_split.labels), expected)


def test_videos_without_features_are_kept_and_named(tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lfav.main(["--tables", str(tables), "--data_dir", str(tmp_path)])
    assert "3 of 3 videos have no r2plus1d_18 features" in caplog.text
    database = json.loads((tmp_path / "annotations.json").read_text())["database"]
    assert {video: entry["duration"] for video, entry in database.items()} == dict(
        zip(VIDEOS.values(), (1, 100, 100), strict=True)
    )


@pytest.mark.parametrize(
    "row", ["bbbbbbbbbbb\t1.5\t3\tspeech", "bbbbbbbbbbb\t1\t3\tquack", "bbbbbbbbbbb\t-1\t3\tspeech"]
)
def test_malformed_rows_are_named_by_their_line(tables: Path, tmp_path: Path, row: str):
    (tables / "val/val_visual.csv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(InputError, match=r"val_visual.csv, line 2: found .*expected whole seconds"):
        lfav.main(["--tables", str(tables), "--data_dir", str(tmp_path)])


def test_the_four_stages_parse_long_videos_of_different_lengths(tmp_path: Path):
    sizes = {"train": 8, "val": 4, "test": 4}
    lfav_dir, unav_dir = (simulate(dataset, tmp_path / "data", None, sizes) for dataset in ("LFAV", "UnAV"))
    annotations = load_annotations("LFAV", lfav_dir, "test")
    lengths = annotations.lengths.tolist()
    assert 10 <= min(lengths) < max(lengths) <= 210
    with np.load(lfav_dir / TRAIN_TRUTH) as truth:
        assert truth["length"].sum() == len(truth["audio"]) == len(truth["visual"])
    transformer = pretrain(unav_dir, tmp_path / "runs")
    label(lfav_dir, transformer, "--dataset", "LFAV")
    labels = ("--pseudo_label_dir", transformer / "LFAV_Dataset")
    run = train(lfav_dir, tmp_path / "runs", "--dataset", "LFAV", *labels)
    evaluated = evaluate(run, tmp_path / "logs", "--num_figures", "1")
    predictions = load_predictions(evaluated, "test")
    assert predictions.probs.lengths.tolist() == lengths
    for events, truth in zip(predictions.events, annotations.labels, strict=True):
        assert events.shape == (4, max(lengths), 35)
        assert not any(of_video[length:].any() for of_video, length in zip(events, lengths, strict=True))
        assert len(truth) == sum(lengths)
    assert "published" not in (evaluated / "scores.txt").read_text() and list(evaluated.glob("timelines_test/*.png"))
