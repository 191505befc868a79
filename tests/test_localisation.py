"""Localisation on UnAV from a run of stage 1, at a size that takes seconds."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from dataloaders.unav import load_events, load_split
from experiments import localisation
from tests.tiny_data import write_unav
from tests.tiny_runs import pretrain, train
from utils.audio_visual import AudioVisual
from utils.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of stage 1; its data lie beside it."""
    folder = tmp_path_factory.mktemp("localisation")
    write_unav(folder / "UnAV")
    (folder / "UnAV/simulation.yaml").write_text("simulated: true\n")
    return pretrain(folder / "UnAV", folder / "runs", "--num_epochs", "1")


def test_events_are_read_with_the_fractions_of_a_second_that_the_reader_of_segments_rounds(unav_dir: Path):
    content = json.loads((unav_dir / "unav100_annotations.json").read_text())["database"]
    names = load_split(unav_dir, "val").sample_ids[::-1]
    video, label, times = load_events(unav_dir, names)
    events = [event for name in names for event in content[name]["annotations"]]
    assert video.tolist() == list(range(5)) and label.tolist() == [event["label_id"] for event in events]
    assert times.tolist() == [event["segment"] for event in events]


def test_the_spans_of_a_split_are_scored_against_the_annotated_events(unav_dir: Path):
    """Segments as annotated score 100 at a low tIoU, and what rounding to seconds costs at a high one."""
    annotations = load_split(unav_dir, "val")
    padded = torch.full((5, int(annotations.lengths.max()), 100), -torch.inf)
    _, label, times = load_events(unav_dir, annotations.sample_ids)
    for n, (start, end) in enumerate(times.tolist()):
        padded[n, int(start) : int(-(-end // 1)), label[n]] = 20.0
    ious = [(end - start) / (-(-end // 1) - start // 1) for start, end in times.tolist()]  # one event a class
    scores = localisation.mean_average_precisions(
        lambda split: AudioVisual(padded, padded), SimpleNamespace(annotations=annotations), unav_dir
    )
    wanted = [100 * sum(iou >= n / 10 for iou in ious) / 5 for n in range(1, 10)]
    assert list(scores.values()) == pytest.approx([*wanted, sum(wanted) / 9], abs=1e-4)
    assert scores["0.1"] == pytest.approx(100) and scores["0.9"] < 100


def test_the_table_has_a_row_a_split_and_says_what_the_features_are(run: Path, tmp_path: Path, capsys):
    flags = ["--checkpoint_dir", str(run), "--split", "val", "test", "--device", "cpu"]
    localisation.main([*flags, "--output", str(tmp_path / "table")])
    assert "(simulated features)" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["Split"].tolist() == ["val", "test"]
    scores = table.filter(like="mAP at tIoU")
    assert scores.columns.tolist() == [f"mAP at tIoU {name}" for name in (*(n / 10 for n in range(1, 10)), "mean")]
    assert scores.iloc[:, -1].tolist() == pytest.approx(scores.iloc[:, :-1].mean(axis=1).tolist(), abs=1e-5)


def test_data_may_lie_elsewhere(run: Path, tmp_path: Path, capsys):
    other = write_unav(tmp_path / "UnAV", seed=5)
    localisation.main(["--checkpoint_dir", str(run), "--device", "cpu", "--data_dir", str(other)])
    assert "(stage 1: simulated features)" in capsys.readouterr().out


def test_a_run_of_another_stage_is_refused(llp_dir: Path, tmp_path: Path):
    other = train(llp_dir, tmp_path / "runs", "--segment_labels", "none", "--num_epochs", "1")
    with pytest.raises(InputError, match=r"dataset: LLP; expected UnAV\. Choose a run of train_transformer\.py"):
        localisation.main(["--checkpoint_dir", str(other)])
    with pytest.raises(InputError, match="no such folder"):
        localisation.main(["--checkpoint_dir", str(tmp_path / "nowhere")])
