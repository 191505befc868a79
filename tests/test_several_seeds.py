"""Several seeds of stage 3 with one command: ordinary runs side by side."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train_han
from baselines.jomold import find_noise_ratios
from baselines.ma import find_exchange
from tests.tiny_data import write_llp
from tests.tiny_runs import NETWORK, assert_same_weights, evaluate, train
from utils.errors import InputError
from utils.settings import read_args

ROOT = Path(__file__).parents[1]
VIDEO_LABELS_ONLY = ("--segment_labels", "none", "--num_epochs", "2")


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory) -> tuple[Path, Path]:
    """The data, and the folder of seeds 5 to 7, two at a time."""
    folder = tmp_path_factory.mktemp("seeds")
    llp_dir = write_llp(folder / "LLP")
    run = train(llp_dir, folder / "runs", *VIDEO_LABELS_ONLY, "--num_runs", "3", "--jobs", "2", "--seed", "5")
    return llp_dir, run


def test_each_seed_ends_as_it_ends_alone(three_seeds, tmp_path):
    llp_dir, run = three_seeds
    assert sorted(path.name for path in run.glob("run_*")) == ["run_5", "run_6", "run_7"]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # as each of two has: others sum in another order
    try:
        alone = train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, "--seed", "6")
    finally:
        torch.set_num_threads(num_threads)
    assert_same_weights(run / "run_6", alone, "checkpoints/checkpoint_best.pt")


def test_each_seed_is_an_ordinary_run(three_seeds):
    _, run = three_seeds
    settings = read_args(run / "run_7" / "args.yaml")
    assert (settings["seed"], settings["num_runs"]) == (7, 1)
    assert read_args(run / "args.yaml")["num_runs"] == 3
    assert json.loads((run / "summary.json").read_text()).keys() == {"run_5", "run_6", "run_7"}
    assert (run / "run_5" / "log.txt").exists() and list((run / "run_5").glob("events.out.tfevents.*"))


def test_the_evaluation_has_a_table_of_each_seed_and_one_of_all(three_seeds, tmp_path):
    logs = evaluate(three_seeds[1], tmp_path)
    assert "3 runs" in (logs / "scores.txt").read_text() and "±" in (logs / "scores.txt").read_text()
    assert "±" not in (logs / "run_6" / "scores.txt").read_text()
    assert json.loads((logs / "summary.json").read_text()).keys() == {"run_5", "run_6", "run_7"}


@pytest.mark.slow
def test_a_seed_that_fails_stops_no_other_and_all_are_continued(three_seeds, tmp_path):
    llp_dir, whole = three_seeds
    command = (*VIDEO_LABELS_ONLY, "--num_runs", "2", "--jobs", "2", "--seed", "5")
    run = train(llp_dir, tmp_path, *command)
    for name in ("summary.json", "run_5/summary.json"):
        (run / name).unlink()
    (run / "run_5/checkpoints/last.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match="failed runs: run_5"):
        resume(run)
    assert "last.pt" in (run / "run_5/output.txt").read_text()
    assert not (run / "summary.json").exists() and (run / "run_6/summary.json").exists()
    (run / "run_5/checkpoints/last.pt").unlink()
    resume(run)
    assert (run / "summary.json").exists()
    assert_same_weights(run / "run_5", whole / "run_5", "checkpoints/checkpoint_best.pt")


def test_a_finished_seed_is_trained_again_only_for_more_epochs(three_seeds, tmp_path):
    llp_dir, _ = three_seeds
    run = train(llp_dir, tmp_path, *VIDEO_LABELS_ONLY, "--num_runs", "2", "--jobs", "2")
    before = (run / "run_20000/log.txt").read_text()
    resume(run)
    assert (run / "run_20000/log.txt").read_text() == before
    resume(run, "--num_epochs", "3")
    assert "epoch   3" in (run / "run_20001/log.txt").read_text()


def resume(run: Path, *flags: str) -> None:
    train_han.main(["--resume", str(run), *flags])


@pytest.mark.parametrize("stage", [find_exchange, find_noise_ratios])
def test_a_stage_that_builds_on_one_run_asks_which_of_several_seeds(three_seeds, stage):
    with pytest.raises(InputError, match="the runs of 3 seeds; expected one run"):
        stage.main(["--checkpoint_dir", str(three_seeds[1]), "--device", "cpu"])


def test_seeds_are_not_averaged_before_all_are_trained(three_seeds, tmp_path):
    run = tmp_path / three_seeds[1].name
    shutil.copytree(three_seeds[1], run)
    (run / "run_6" / "summary.json").unlink()
    with pytest.raises(InputError, match=r"run_6: found a run that is not finished.*--resume"):
        evaluate(run, tmp_path / "logs")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_seeds_end_with_the_process_that_trains_them_and_go_on(three_seeds, tmp_path):
    flags = ["--data_dir", str(three_seeds[0]), "--output_dir", str(tmp_path), "--segment_labels", "none"]
    seeds = ["--num_epochs", "100000", "--num_runs", "2", "--jobs", "2"]
    command = [sys.executable, "train_han.py", *flags, *NETWORK, *seeds]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("*/run_*/log.txt"))) < 2:
        time.sleep(0.05)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a seed trains on"
        time.sleep(0.05)
    assert len(children) == 2
