"""Stage 4: tables, per-class scores, figures; and the whole chain through the bash scripts."""

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch

from models import HAN, HANConfig
from tests.tiny_data import WIDTHS
from tests.tiny_runs import evaluate, label, pretrain, train
from utils.errors import InputError
from utils.training.checkpoints import save_checkpoint

ROOT = Path(__file__).parents[1]
VISUAL_WIDTH = WIDTHS["res152"] + WIDTHS["r2plus1d_18"]


@pytest.fixture
def run(llp_dir, tmp_path) -> Path:
    return train(llp_dir, tmp_path / "runs", "--segment_labels", "none")


def test_table_comes_as_text_markdown_csv_and_json_with_the_published_row(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs")
    for kind in ("txt", "md", "csv", "json"):
        assert (logs / f"scores.{kind}").is_file()
    table = pd.read_csv(logs / "scores.csv")
    assert len(table) == 3
    text = (logs / "scores.txt").read_text()
    assert "UWAV (published)" in text
    assert "64.2" in (logs / "scores.md").read_text()  # the paper's segment-level audio F-score
    assert "simulated" not in text  # these features do not come from the simulation


def test_simulated_features_are_marked(run, llp_dir, tmp_path):
    (llp_dir / "simulation.yaml").write_text("simulated: true\n")
    assert "simulated" in (evaluate(run, tmp_path / "logs") / "scores.txt").read_text()


def test_tables_say_where_only_stage_1_has_seen_simulated_features(llp_dir, unav_dir, tmp_path):
    (unav_dir / "simulation.yaml").write_text("simulated: true\n")
    labels = label(llp_dir, pretrain(unav_dir, tmp_path / "runs", "--num_epochs", "1"))
    run = train(llp_dir, tmp_path / "runs", "--pseudo_label_dir", labels, "--num_epochs", "1")
    marked = "(stage 1: simulated features)"
    assert marked in (labels / "pseudo_label_quality.txt").read_text()
    assert marked in (evaluate(run, tmp_path / "logs") / "scores.txt").read_text()


def test_per_class_scores_and_timelines_are_written(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs", "--num_figures", "2")
    for split in ("val", "test"):
        assert len(pd.read_csv(logs / f"per_class_{split}.csv")) >= 25
        figures = list((logs / f"timelines_{split}").iterdir())
        assert len(figures) == 2
        assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)


def test_named_videos_are_drawn(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs", "--figure_videos", "te000000003_0_10")
    assert [path.name for path in (logs / "timelines_test").iterdir()] == ["te000000003_0_10.png"]


def test_validation_score_is_that_of_the_best_epoch(run, tmp_path):
    logs = evaluate(run, tmp_path / "logs")
    best = json.loads((run / "summary.json").read_text())["segment_Type"]
    assert json.loads((logs / "summary.json").read_text())["val"]["segment_Type"] == pytest.approx(best)


def test_run_keeps_the_settings_it_was_trained_with(llp_dir, tmp_path):
    flags = ("--encoder_order", "parallel", "--pre_norm", "--audio_features", "clap", "--visual_features", "clip")
    run = train(llp_dir, tmp_path / "runs", "--segment_labels", "none", *flags)
    logs = evaluate(run, tmp_path / "logs")
    best = json.loads((run / "summary.json").read_text())["segment_Type"]
    assert json.loads((logs / "summary.json").read_text())["val"]["segment_Type"] == pytest.approx(best)


def test_bare_checkpoint_in_the_released_layout_is_evaluated(llp_dir, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "released"
    save_checkpoint(
        HAN(25, WIDTHS["vggish"], (VISUAL_WIDTH,), HANConfig(dim=32, ffn_dim=24, num_layers=1)).state_dict(),
        folder / "checkpoints" / "checkpoint_best.pt",
    )
    with pytest.raises(InputError, match="no number of attention heads"):
        evaluate(folder, tmp_path / "logs", "--data_dir", llp_dir)
    logs = evaluate(folder, tmp_path / "logs", "--data_dir", llp_dir, "--num_heads", "4")
    assert json.loads((logs / "summary.json").read_text()).keys() == {"val", "test"}
    assert "taking encoder_order sequential" in (logs / "log.txt").read_text()


def test_videos_to_draw_that_are_in_no_evaluated_split_are_named(run, tmp_path):
    with pytest.raises(InputError, match="--figure_videos: found nowhere; expected videos of val"):
        evaluate(run, tmp_path / "logs", "--splits", "val", "--figure_videos", "va000000000_0_10", "nowhere")


def test_checkpoint_trained_on_other_features_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="visual_dim 18 instead of 12"):
        evaluate(run, tmp_path / "logs", "--visual_features", "clip")


def test_run_folder_without_checkpoint_is_refused(llp_dir, tmp_path):
    with pytest.raises(InputError, match="nothing: found no such folder"):
        evaluate(tmp_path / "nothing", tmp_path / "logs", "--data_dir", llp_dir)


def run_script(name: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / name)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("dataset", ["LLP", "AVE"])
def test_demo_runs_from_nothing_to_the_table_and_figures(tmp_path, dataset):
    done = run_script(
        "demo.sh",
        DATASET=dataset,
        DEMO_DIR=str(tmp_path),
        NUM_PRETRAIN="8",
        NUM_TRAIN="8",
        NUM_EVAL="4",
        STAGE1="--dim 16 --num_heads 2 --ffn_dim 16 --num_layers 1 --num_epochs 1",
        STAGE3="--dim 16 --num_heads 2 --ffn_dim 16 --num_layers 1 --num_epochs 1",
    )
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout
    (logs,) = (tmp_path / "test_logs").iterdir()
    assert "simulated" in (logs / "scores.txt").read_text()
    assert list((logs / "timelines_test").glob("*.png"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("pseudo_label_generation.sh", "Run train_transformer.py first"),
        ("train_han.sh", "Run pseudo_label_generation.py first"),
        ("test_han.sh", "Run train_han.py first"),
    ],
)
def test_script_without_its_predecessor_says_what_to_run(tmp_path, script, message):
    done = run_script(script, RUNS_DIR=str(tmp_path), OUTPUT_DIR=str(tmp_path), LOGS_DIR=str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_script_without_data_says_what_is_missing(tmp_path):
    done = run_script("train_transformer.sh", DATA_DIR=str(tmp_path / "nowhere"), OUTPUT_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_every_stage_script_passes_its_extra_arguments_on():
    for script in ("train_transformer.sh", "pseudo_label_generation.sh", "train_han.sh", "test_han.sh"):
        done = subprocess.run(
            ["bash", str(ROOT / "scripts" / script), "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "--data_dir" in done.stdout
