"""From generated videos to scores: what scripts/demo_video.sh does, tiny."""

import csv
from pathlib import Path

import pytest

pytest.importorskip("av", reason="pip install -r requirements-video.txt")
pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from simulation.__main__ import main as simulate
from tests.tiny_runs import evaluate, label, pretrain, train
from video import extract_features


@pytest.mark.slow
def test_generated_videos_go_through_all_stages_and_every_table_says_what_they_are(tmp_path: Path):
    runs = tmp_path / "runs"
    for dataset, longest in (("UnAV", "14"), ("LLP", "10")):
        data_dir = tmp_path / dataset
        sizes = ["--num_train", "4", "--num_val", "3", "--num_test", "3", "--longest", longest]
        simulate(["--videos", "--output", str(tmp_path), "--dataset", dataset, *sizes])
        where = ["--annotations_dir", str(data_dir), "--videos_dir", str(data_dir / "raw_videos")]
        flags = ["--dataset", dataset, *where, "--output", str(data_dir), "--random_weights", "small"]
        extract_features.main([*flags, "--features", "clip", "clap"])
    transformer = pretrain(tmp_path / "UnAV", runs)
    labels = label(tmp_path / "LLP", transformer)
    streams = ["--audio_features", "clap", "--visual_features", "clip"]
    han = train(tmp_path / "LLP", runs, *streams, "--pseudo_label_dir", labels)
    logs = evaluate(han, tmp_path / "logs")
    with open(logs / "scores.csv") as file:
        rows = list(csv.reader(file))
    ours = [row for row in rows if any("HAN_" in cell for cell in row)]
    assert ours
    note = "generated videos, features of small networks with random weights"
    assert all(any(note in cell for cell in row) for row in ours)
