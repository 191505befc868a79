"""Segments of other lengths than a second, and videos of other lengths than ten: the time axis belongs to the data."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders.batches import DataSettings, open_split
from dataloaders.datasets import load_annotations
from dataloaders.features import feature_path
from tests.tiny_data import WIDTHS, write_npy
from tests.tiny_runs import evaluate, train
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput, run_han
from utils.evaluation.online import OnlineWindows
from utils.evaluation.predictions import load_predictions
from utils.evaluation.tasks import find_task
from utils.method.decoding import DecodingSettings
from utils.trained import open_run
from utils.training.device import Precision

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
HALVES = ("--segments_per_second", "2", "--segment_labels", "none")


@pytest.fixture
def halves_dir(llp_dir: Path, tmp_path: Path) -> Path:
    """Features of half seconds for LLP's videos, beside its annotations."""
    folder, rng = tmp_path / "halves", np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for feature_id in load_annotations("LLP", llp_dir, split).feature_ids:
            for name, per_segment in (("vggish", 1), ("res152", 8), ("r2plus1d_18", 1)):
                write_npy(feature_path(folder, name, feature_id), rng.standard_normal((20 * per_segment, WIDTHS[name])))
    return folder


def test_half_seconds_train_evaluate_and_draw_with_two_settings(llp_dir: Path, halves_dir: Path, tmp_path: Path):
    run = train(halves_dir, tmp_path / "runs", "--annotations_dir", llp_dir, *HALVES)
    assert open_run(run).description.segments_per_second == 2
    evaluated = evaluate(run, tmp_path / "logs", "--num_figures", "2")
    predictions, truth = load_predictions(evaluated, "test"), load_annotations("LLP", llp_dir, "test").labels.audio
    assert predictions.events.audio.shape[1] == 20
    seconds = truth.view(predictions.truth.audio.shape[0], 10, -1).numpy()
    np.testing.assert_array_equal(predictions.truth.audio[:, ::2], seconds)
    np.testing.assert_array_equal(predictions.truth.audio[:, 1::2], seconds)
    scores = (evaluated / "scores.txt").read_text()
    assert "2 segments a second" in scores and "published" not in scores
    assert list(evaluated.glob("timelines_test/*.png"))
    results = json.loads((evaluated / "activitynet_test.json").read_text())["results"]  # in seconds
    drawn = AudioVisual(*np.zeros((2, *predictions.events.audio.shape), bool))
    for n, video in enumerate(predictions.sample_ids):
        for event in results[video]:
            start, end = (round(2 * second) for second in event["segment"])
            place = n, slice(start, end), predictions.classes.index(event["label"])
            drawn._asdict()[event["modality"]][place] = True
            scores = predictions.probs.segments._asdict()[event["modality"]][place].astype(float)
            assert event["score"] == pytest.approx(scores.mean(), abs=1e-4)
    for ours, kept in zip(drawn, predictions.events, strict=True):
        np.testing.assert_array_equal(ours, kept)


def test_features_of_seconds_are_no_features_of_half_seconds(llp_dir: Path, tmp_path: Path):
    with pytest.raises(InputError, match="10 rows; expected 20 rows"):
        train(llp_dir, tmp_path / "runs", *HALVES)


# ---- a data set of one's own


CLASSES = ["door", "kettle", "song"]


def annotations(num_videos: int = 18) -> dict:
    """Videos of 6 to 33 s; events that are audible, visible or both."""
    rng, database = np.random.default_rng(0), {}
    for n in range(num_videos):
        duration = float(np.round(rng.uniform(6, 33), 2))
        events = []
        for label in rng.choice(CLASSES, 2, replace=False):
            start = float(rng.uniform(0, duration / 2))
            modality = str(rng.choice(["audio", "visual", "both"]))
            events.append({"label": str(label), "segment": [start, start + duration / 3], "modality": modality})
        database[f"clip {n}"] = {
            "subset": ["training", "validation", "testing"][n % 3],
            "duration": duration,
            "annotations": events,
        }
    return {"version": "1", "database": database}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of this repository with a data set that a file describes, and its features."""
    copy = tmp_path_factory.mktemp("own")
    for name in ("baselines", "configs", "data", "dataloaders", "models", "utils", "video"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "benchmark", "*.npy"))
    for name in ("train_han.py", "test_han.py"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "configs/datasets").mkdir(exist_ok=True)
    described = f"classes: {json.dumps(CLASSES)}\nfeatures: [mn04, efficientnet_lite2]\n"
    (copy / "configs/datasets/Kitchen.yaml").write_text(described)
    (copy / "configs/datasets/Broken.yaml").write_text("classes: 3\n")
    folder, rng, content = copy / "data/Kitchen", np.random.default_rng(1), annotations()
    folder.mkdir()
    (folder / "annotations.json").write_text(json.dumps(content))
    for name, video in content["database"].items():
        rows = int(np.ceil(video["duration"] - 0.1))
        for feature in ("mn04", "efficientnet_lite2"):
            write_npy(feature_path(folder, feature, name), rng.standard_normal((rows, 6)))
    return copy


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_file_and_its_annotations_are_a_data_set(repository: Path):
    checked = run(repository, "-m", "dataloaders.check", "--dataset", "Kitchen")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    small = ["--dim", "16", "--num_heads", "2", "--ffn_dim", "16", "--num_layers", "1", "--num_epochs", "2"]
    small += ["--batch_size", "4", "--device", "cpu"]
    trained = run(repository, "train_han.py", "--dataset", "Kitchen", "--method", "han", *small)
    assert trained.returncode == 0, trained.stderr
    assert "6 training videos" in trained.stdout + trained.stderr
    folder = next((repository / "temp_train_logs").glob("HAN_han_Kitchen_*"))
    for batch_size in ("2", "256"):  # results do not depend on it
        flags = ["--eval_batch_size", batch_size, "--output_dir", f"logs/{batch_size}", "--num_figures", "2"]
        evaluated = run(repository, "test_han.py", "--dataset", "Kitchen", *flags, "--device", "cpu")
        assert evaluated.returncode == 0, evaluated.stderr
    small, large = (load_predictions(repository / f"logs/{size}", "test") for size in ("2", "256"))
    assert small.classes == tuple(CLASSES)
    for one, other in zip((*small.events, *small.truth), (*large.events, *large.truth), strict=True):
        np.testing.assert_array_equal(one, other)
    lengths = [
        int(np.ceil(v["duration"] - 0.1)) for v in annotations()["database"].values() if v["subset"] == "testing"
    ]
    for events in small.events:
        assert not any(of_video[length:].any() for of_video, length in zip(events, lengths, strict=True))
    assert (folder / "args.yaml").is_file() and "published" not in (repository / "logs/2/scores.txt").read_text()


def test_a_malformed_description_is_an_error_in_words_for_its_data_set_alone(repository: Path):
    done = run(repository, "train_han.py", "--dataset", "Broken", "--method", "han")
    assert done.returncode == 2 and "Broken.yaml: found classes" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subset": "training", "duration": -1}, "duration"),
        ({"annotations": [{"label": "cat", "segment": [0, 1]}]}, "label 'cat'"),
        ({"annotations": [{"label": "door", "segment": [3, 999]}]}, r"segment \[3.0, 999.0\]"),
        ({"annotations": [{"label": "door"}], "subset": "validation"}, "label 'door' without a segment"),
        ({"annotations": [{"label": "door", "segment": [0, 1], "modality": "smell"}]}, "modality"),
    ],
)
def test_bad_annotations_are_refused_by_video(tmp_path: Path, change: dict, expected: str):
    from dataloaders.activitynet import load_split

    content = annotations()
    content["database"]["clip 0"] |= change
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"clip 0.*{expected}|{expected}.*clip 0"):
        for split in ("train", "val"):
            load_split(tmp_path / "annotations.json", "Kitchen", CLASSES, 1, split)


def test_events_mark_the_segments_that_they_touch_in_their_modality(tmp_path: Path):
    from dataloaders.activitynet import load_split

    event = {"label": "kettle", "segment": [1.2, 2.6], "modality": "audio"}
    video = {"subset": "test", "duration": 4.05, "annotations": [event]}
    (tmp_path / "annotations.json").write_text(json.dumps({"database": {"a": video}}))
    for rate, marked in ((1, [0, 1, 1, 0]), (2, [0, 0, 1, 1, 1, 1, 0, 0])):
        loaded = load_split(tmp_path / "annotations.json", "Kitchen", CLASSES, rate, "test")
        assert loaded.lengths.tolist() == [4 * rate]
        assert loaded.labels.audio[:, 1].int().tolist() == marked and not loaded.labels.visual.any()
        assert torch.equal(loaded.video_labels, torch.tensor([[False, True, False]]))


# ---- online


@pytest.mark.parametrize("dataset", ["LLP", "AVE"])
def test_online_events_are_those_of_the_window_that_ends_with_each_segment(
    dataset: str, llp_dir: Path, ave_dir: Path, tmp_path: Path
):
    folder = {"LLP": llp_dir, "AVE": ave_dir}[dataset]
    more = ("--audio_features", "clap", "--visual_features", "clip") if dataset == "AVE" else ()
    run = train(folder, tmp_path / "runs", "--dataset", dataset, "--segment_labels", "none", *more)
    names = ("vggish", "res152", "r2plus1d_18") if dataset == "LLP" else ("clap", "clip")
    settings = DataSettings(data_dir=folder, audio_features=names[:1], visual_features=names[1:])
    split, task, decoding = open_split(dataset, "test", settings, CPU), find_task(dataset), DecodingSettings()
    network, window = open_run(run), 4
    windows = OnlineWindows(split, window)
    found = windows.decode(run_han(network, windows, 8, Precision("float32", CPU)), task, decoding, None)
    for n, batch in enumerate(split.in_order(1)):
        for t in range(10):
            seen = batch.features.map(lambda x, t=t: x[:, max(0, t - window + 1) : t + 1])
            with torch.inference_mode():
                output = network(*seen)
            whole = SplitOutput(output.logits, output.video_probs, output.modality_probs)
            expected = task.decode(replace(whole, logits=output.logits.map(lambda z: z[:, -1:])), decoding)
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours[n, t], theirs[0, 0])
    table = (evaluate(run, tmp_path / "logs", "--online") / "scores.txt").read_text()
    assert "test, online" in table and "val, online" in table


def test_batches_hold_videos_of_similar_lengths_in_an_order_of_seed_and_epoch_alone(llp_dir: Path):
    names = DataSettings(data_dir=llp_dir, audio_features=("clap",), visual_features=("clip",))
    split = open_split("LLP", "train", names, CPU)
    lengths = torch.randint(1, 11, (split.num_videos,), generator=torch.Generator().manual_seed(0))
    split.annotations, split.equal_length = replace(split.annotations, lengths=lengths), False

    def drawn(epoch: int) -> list[torch.Tensor]:
        return [batch.videos for batch in split.shuffled(4, 7, epoch)]

    assert torch.cat(drawn(1)).sort().values.tolist() == list(range(split.num_videos))
    assert all(map(torch.equal, drawn(1), drawn(1))) and not torch.equal(torch.cat(drawn(1)), torch.cat(drawn(2)))
    spread = sum(int(lengths[videos].max() - lengths[videos].min()) for videos in drawn(1))
    in_order = sum(int(x.max() - x.min()) for x in lengths.split(4))
    assert spread < in_order / 2
