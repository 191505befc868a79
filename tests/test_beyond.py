"""Tables that are not in the paper: the choice of the epoch, UWAV's components, and the search of settings."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import test_han
from experiments import beyond, tune
from experiments.jobs import Runner, Study
from tests.tiny_data import write_llp
from tests.tiny_runs import newest
from utils.errors import InputError
from utils.training.loop import LAST_STATE

ROOT = Path(__file__).parents[1]
TINY = [
    "--dim",
    "16",
    "--num_heads",
    "2",
    "--ffn_dim",
    "24",
    "--num_epochs",
    "4",
    "--warmup_epochs",
    "1",
    "--batch_size",
    "4",
]


def study(data_root: Path, *seeds: int) -> Study:
    return Study("tiny", data_root, data_root, seeds)


def test_selection_compares_test_scores_of_the_epochs_that_val_and_test_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(beyond, "method_names", lambda: ("han",))
    monkeypatch.setattr(beyond, "SELECTION", {"LLP": "segment_Type"})
    write_llp(tmp_path / "data/LLP")
    monkeypatch.setattr(Study, "preset", {"han": {"num_epochs": 5, "dim": 16, "ffn_dim": 24, "lr": 3e-3}})
    experiment, runner = beyond.selection(study(tmp_path / "data", 1, 2)), Runner(tmp_path / "runs", "cpu")
    expected = []
    for job in experiment.jobs:
        runner.run(job)
        run = runner.finished_output(job.inputs["checkpoint_dir"])
        val = [
            epoch["segment_Type"] for epoch in torch.load(run / LAST_STATE, weights_only=True)["progress"]["history"]
        ]
        test = []
        for checkpoint in sorted(run.glob("checkpoints/checkpoint_epoch_*.pt")):
            logs = tmp_path / "logs" / run.parent.name / checkpoint.stem
            where = ["--checkpoint_dir", str(run), "--checkpoint", str(checkpoint), "--output_dir", str(logs)]
            test_han.main([*where, "--splits", "test", "--num_figures", "0", "--device", "cpu"])
            test.append(json.loads((logs / "summary.json").read_text())["test"]["segment_Type"])
        assert len(val) == len(test) == 5
        expected.append((test[val.index(max(val))], max(test)))
    (row,) = experiment.tables(runner)["selection"].rows
    assert row.labels == ("HAN", "LLP")
    on_val, on_test = np.array(expected).T
    assert [cell.mean for cell in row.cells] == pytest.approx(
        [on_val.mean(), on_test.mean(), (on_test - on_val).mean()]
    )


def test_effects_of_a_factorial_are_those_that_scores_were_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = {("soft labels",): 3.0, ("mixup",): -1.0, ("soft labels", "CMRC"): 2.0}
    draw, seeds, scores = np.random.default_rng(0), (1, 2, 3), {}
    experiment = beyond.factorial(study(tmp_path, *seeds))
    assert len(experiment.ours) == 16 and len(set(experiment.jobs)) == 48
    of_videos = draw.normal(50, 20, (3, 300))
    for on, jobs in zip(product((False, True), repeat=4), experiment.ours.values(), strict=True):
        is_on = dict(zip(beyond.FACTORS, on, strict=True))
        effect = sum(size / 2 * np.prod([1 if is_on[name] else -1 for name in names]) for names, size in made.items())
        for n, job in enumerate(jobs):
            scores[job] = of_videos[n] + effect + draw.normal(0, 0.5, 300)
    monkeypatch.setattr(Runner, "finished_output", lambda self, job: job)
    monkeypatch.setattr(beyond, "load_predictions", lambda job, split: job)
    monkeypatch.setattr(beyond, "aligned", lambda first, run: run)
    monkeypatch.setattr(beyond, "score_videos", lambda job: np.tile(scores[job][:, None], (1, 10)))
    found = experiment.intervals(Runner(tmp_path))
    assert len(found) == 10
    for name, (estimate, low, high) in found.items():
        size = made.get(tuple(name.split(" × ")), 0.0)
        assert abs(estimate - size) < 0.1 and low < estimate < high and high - low < 0.3
    (path,) = experiment.draw(Runner(tmp_path), tmp_path)
    assert path.stat().st_size > 5000


with_optuna = pytest.mark.skipif(tune.optuna is None, reason="optuna is not installed")


def search(llp_dir: Path, output_dir: Path, space: Path, trials: int) -> list[str]:
    own = ["--method", "valor", "--space", str(space), "--trials", str(trials), "--seeds", "7", "--device", "cpu"]
    return [*own, "--output_dir", str(output_dir), "--", "--data_dir", str(llp_dir), "--segment_labels", "none", *TINY]


def trials_of(output_dir: Path) -> list:
    storage = tune.JournalStorage(tune.JournalFileBackend(str(output_dir / "optuna.log")))
    return tune.optuna.load_study(study_name="tune", storage=storage).trials


@with_optuna
def test_a_search_begins_with_the_recipe_and_a_killed_one_goes_on(llp_dir: Path, tmp_path: Path):
    space = tmp_path / "space.yaml"
    space.write_text("video_weight: {low: 0.1, high: 10, log: true}\nseed: [3, 1000]\n")
    command = [sys.executable, "-m", "experiments.tune", *search(llp_dir, tmp_path / "tune", space, 8)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TQDM_DISABLE": "1"}, stdout=subprocess.DEVNULL)
    while len([*(tmp_path / "tune").glob("trial_*/HAN_*/checkpoints/last.pt")]) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    tune.main(search(llp_dir, tmp_path / "tune", space, 8))
    trials = trials_of(tmp_path / "tune")
    assert trials[0].params == {"video_weight": 1.0, "seed": 1000}  # the recipe's
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(ended) == 8 and not [trial for trial in trials if trial.state.name == "RUNNING"]
    for trial in ended:
        run = newest(tmp_path / "tune" / tune.name_of(trial.params), "HAN_")
        if trial.state.name == "COMPLETE":
            assert trial.value == json.loads((run / "summary.json").read_text())["segment_Type"]
    table = json.loads((tmp_path / "tune/tuned.json").read_text())
    assert "valor, recipe" in str(table) and "best of 8 trials" in str(table)


@with_optuna
def test_a_search_space_is_checked(llp_dir: Path, tmp_path: Path):
    for text, words in (("lr: 3", "no search space"), ("speed: [1, 2]", "unknown settings: speed")):
        (tmp_path / "space.yaml").write_text(text)
        with pytest.raises(InputError, match=words):
            tune.main(search(llp_dir, tmp_path / "tune", tmp_path / "space.yaml", 1))
