"""The analyses of a trained classifier of clips, the proof's driver and the benchmark, on a few generated clips."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")
pytest.importorskip("av", reason="clips are decoded by PyAV")

from benchmarks import lavish_benchmark as benchmark
from experiments import clip_analysis, lavish_proof
from lavish import train_classifier
from tests.tiny_clips import tiny_flags, write_tiny_ucf
from utils.errors import InputError


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = write_tiny_ucf(tmp_path_factory.mktemp("ucf"))
    for model in ("lavish", "vit_audio"):
        train_classifier.main(tiny_flags(folder, "--num_epochs", "1", "--model", model))
    return folder / "runs"


def analyse(runs: Path, logs_dir: Path, analysis: str, model: str = "lavish") -> tuple[list[dict[str, str]], Path]:
    (run,) = runs.glob(f"Clips_{model}_*")
    flags = ["--checkpoint_dir", str(run), "--logs_dir", str(logs_dir), "--split", "train", "--device", "cpu"]
    clip_analysis.main(["--analysis", analysis, *flags])
    stem = logs_dir / run.name / f"{analysis}_train"
    with stem.with_suffix(".csv").open() as file:
        return list(csv.DictReader(file)), stem.with_suffix(".png")


def test_features_are_mapped_by_pca_and_t_sne_one_point_a_clip(runs: Path, tmp_path: Path):
    rows, figure = analyse(runs, tmp_path, "features")
    assert len(rows) == 8 and {row["Class"] for row in rows} == {"Clap", "Drum"}
    assert {"PCA x", "PCA y", "t-SNE x", "t-SNE y"} <= rows[0].keys()
    assert abs(sum(float(row["PCA x"]) for row in rows)) < 1e-3
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_reliance_lists_for_each_class_how_far_accuracy_drops(runs: Path, tmp_path: Path):
    rows, figure = analyse(runs, tmp_path, "reliance")
    assert [row["Class"] for row in rows] == ["Clap", "Drum"]
    for row in rows:
        drop = float(row["Accuracy both"]) - float(row["Accuracy without audio"])
        assert float(row["Drop without audio"]) == pytest.approx(drop)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_model_of_one_modality_has_none_to_leave_out(runs: Path, tmp_path: Path):
    with pytest.raises(InputError, match="an audio-visual model"):
        analyse(runs, tmp_path, "reliance", model="vit_audio")


def test_the_worst_mistakes_come_first_with_truth_and_prediction(runs: Path, tmp_path: Path):
    rows, figure = analyse(runs, tmp_path, "mistakes")
    margins = [float(row["Probability of the prediction"]) - float(row["Probability of the truth"]) for row in rows]
    assert margins == sorted(margins, reverse=True) and all(margin > 0 for margin in margins)
    assert all(row["Truth"] != row["Prediction"] for row in rows)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_modality_that_relies_on_nothing_is_called_so():
    assert clip_analysis._relied_on(50.0, 0.0) == "audio"
    assert clip_analysis._relied_on(50.0, 20.0) == "audio and visual"
    assert clip_analysis._relied_on(0.0, 5.0) == "neither alone"


def test_reliance_has_a_bar_for_each_modality_that_is_left_out(tmp_path: Path, written_figures: list[Figure]):
    clip_analysis.reliance_figure(tmp_path / "r.png", [("Playing_Cello", 30.0, 5.0), ("Archery", 0.0, 60.0)], "title")
    (axes,) = written_figures[0].axes
    bars = {group.get_label(): [bar.get_width() for bar in group] for group in axes.containers}
    assert bars == {"without audio": [30.0, 0.0], "without visual": [5.0, 60.0]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Playing Cello", "Archery"]


def test_maps_show_the_points_of_each_class(tmp_path: Path, written_figures: list[Figure]):
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    clip_analysis.scatter_figure(
        tmp_path / "s.png", {"PCA": points, "t-SNE": -points}, np.array([1, 0, 1]), ["a", "b", "c"], "title"
    )
    for axes, name, sign in zip(written_figures[0].axes, ("PCA", "t-SNE"), (1, -1), strict=True):
        shown = {of_class.get_label(): of_class.get_offsets().tolist() for of_class in axes.collections}
        assert axes.get_title() == name
        assert shown == {"a": (sign * points[[1]]).tolist(), "b": (sign * points[[0, 2]]).tolist()}


def test_the_proof_asks_for_seeds_and_for_its_own_videos(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(lavish_proof, "compare", lambda *args: pytest.fail("runs were trained"))
    with pytest.raises(SystemExit):
        lavish_proof.main(["--output_dir", str(tmp_path), "--num_seeds", "0"])
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/generated_videos.yaml").write_text("clips_per_group: 1\nseconds: 2.0\nsize: 64\nseed: 0\n")
    with pytest.raises(InputError, match=r"videos with \{'clips_per_group': 1\}; expected \{'clips_per_group': 4\}"):
        lavish_proof.main(["--output_dir", str(tmp_path)])


def test_both_ways_of_an_epoch_are_timed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "SECONDS", 1)
    monkeypatch.setattr(benchmark, "VIDEO_SIZE", 32)
    twos, eights, packing = benchmark.epoch_rows("test", tmp_path, 2, 1, torch.device("cpu"))
    assert twos.naive == eights.naive and "batches of 8" in eights.what and packing.ours > 0


def test_longer_clips_take_more_time_and_memory(monkeypatch):
    monkeypatch.setattr(benchmark, "FRAME_COUNTS", (1, 64))
    rows = benchmark.frames_rows("test", torch.device("cpu"), "float32", 1)
    seconds, memory, more_seconds, more_memory = (row.naive for row in rows)
    assert more_seconds > seconds and more_memory > memory
