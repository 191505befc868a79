"""Run folders: names, and which one is the newest that is finished."""

import os
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.run_folders import create_run_dir, is_one_of_several, newest_finished_run, run_name, seed_folders


def finish(folder: Path, second: int, marker: str = "summary.json") -> Path:
    """A run whose marker was written at a time."""
    path = folder / marker
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (second, second))
    return folder


def test_the_run_that_was_finished_last_is_the_newest(tmp_path: Path):
    newest = finish(tmp_path / "HAN_uwav_LLP_1", 30)
    finish(tmp_path / "HAN_uwav_LLP_2", 20)
    finish(tmp_path / "HAN_valor_LLP_3", 40)
    finish(tmp_path / "HAN_several" / "run_1", 50)
    (tmp_path / "HAN_uwav_LLP_4").mkdir()  # unfinished
    assert newest_finished_run(tmp_path, "HAN_uwav_", "") == newest
    with pytest.raises(InputError, match=r"no finished run HAN_uwav_AVE_\*"):
        newest_finished_run(tmp_path, "HAN_uwav_AVE_", "")


def test_what_was_made_from_one_of_several_seeds_is_found_in_its_folder(tmp_path: Path):
    marker = "LLP_Exchange/summary.json"
    finish(tmp_path / "HAN_ma_base_1", 10, marker)
    newest = finish(tmp_path / "HAN_ma_base_2" / "run_5", 20, marker)
    assert newest_finished_run(tmp_path, "HAN_ma_base_", "", marker) == newest


def test_a_run_of_several_seeds_has_the_name_of_all_before_its_own(tmp_path: Path):
    runs = seed_folders(tmp_path / "HAN_several", 5, 3)
    assert [run.name for run in runs] == ["run_5", "run_6", "run_7"]
    for run in (*runs, tmp_path / "HAN_several" / "other"):
        run.mkdir(parents=True)
    assert run_name(runs[1]) == "run_6" and not is_one_of_several(runs[1])
    (tmp_path / "HAN_several" / "args.yaml").write_text("num_runs: 1\n")
    assert not is_one_of_several(runs[1])
    (tmp_path / "HAN_several" / "args.yaml").write_text("num_runs: 3\n")
    assert run_name(runs[1]) == "HAN_several/run_6"
    assert run_name(tmp_path / "HAN_several" / "other") == "other"


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path):
    first, second, third = (create_run_dir(tmp_path, "HAN") for _ in range(3))
    assert len({first, second, third}) == 3 and all(run.name.startswith("HAN_") for run in (first, second, third))
