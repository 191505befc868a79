"""A command that is killed at any moment, and run again, ends in the files of an undisturbed run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


MOMENTS = {  # at least so many of each command
    "train_transformer": 20,
    "pseudo_label_generation": 20,
    "train_han": 20,
    "train_mmcse_on_combinations": 20,
    "test_han": 20,
    "extract_features": 6,
    "prepare_clips": 6,
    "find_noise_ratios": 10,
    "find_exchange": 10,
    "refine_labels": 10,
    "export": 2,
    "download": 6,
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", MOMENTS)
def test_a_command_killed_at_any_moment_goes_on_to_the_same_files(stage: str, tmp_path: Path):
    command = [sys.executable, "-m", "tests.fault_injection", stage, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == {}, done.stderr
    assert found["moments"] >= MOMENTS[stage]
