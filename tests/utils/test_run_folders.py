"""Run folders: names, and which one is the newest that is finished."""

import os
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.run_folders import (
    TrainingRun,
    create_run_dir,
    is_one_of_several,
    newest_finished_run,
    run_name,
    seed_folders,
)


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


def test_a_run_is_found_by_its_settings_whatever_its_name(tmp_path: Path):
    for second, (name, method, dataset) in enumerate(
        (("a", "ma", "LLP"), ("b", "ma", "AVE"), ("ma_AVE", "han", "LLP"))
    ):
        run = finish(tmp_path / f"HAN_{name}_{dataset}_1", second)
        (run / "args.yaml").write_text(f"method: {method}\ndataset: {dataset}\n")
    found = [
        newest_finished_run(tmp_path, "HAN_", "", **settings).name
        for settings in ({"method": "ma", "dataset": "LLP"}, {"dataset": "AVE"}, {"dataset": "LLP"})
    ]
    assert found == ["HAN_a_LLP_1", "HAN_b_AVE_1", "HAN_ma_AVE_LLP_1"]
    with pytest.raises(InputError, match=r"no finished run HAN_\* with method ma_base"):
        newest_finished_run(tmp_path, "HAN_", "", method="ma_base")


def test_the_other_folder_is_looked_into_only_where_the_first_has_no_run(tmp_path: Path):
    first, other = tmp_path / "first", tmp_path / "other"
    newer = finish(other / "HAN_1", 20)
    assert newest_finished_run(first, "HAN_", "", fallback=other) == newer
    own = finish(first / "HAN_1", 10)
    assert newest_finished_run(first, "HAN_", "", fallback=other) == own
    with pytest.raises(InputError, match=f"{first}, {other}: found no finished run"):
        newest_finished_run(first, "Clips_", "", fallback=other)


@pytest.mark.parametrize("name", ["lr_1e-3", "a", "Mixup=0.5+W.2", "x" * 100])
def test_a_run_may_have_a_plain_name(name: str):
    assert TrainingRun(name=name).name == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "-a", "*", "é", "a\n", "x" * 101])
def test_a_run_has_no_name_that_its_folder_cannot_have(name: str):
    with pytest.raises(InputError, match="--name"):
        TrainingRun(name=name)


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
