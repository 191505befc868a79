"""One table of any runs: what differs, what is averaged, and a sweep as the documents have it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import test_han
import train_han
from experiments.collect import main
from tests.tiny_data import write_llp, write_unav
from tests.tiny_runs import NETWORK, label, pretrain
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
DEFAULTS = {"method": "uwav", "dataset": "LLP", "lr": 0.1, "mixup": True, "name": None, "visual_features": ["clip"]}


def write_yaml(folder: Path, settings: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.yaml").write_text(yaml.safe_dump(settings))
    return folder


def evaluated(
    root: Path, folder: str, score: float, split: str = "test", marks: tuple = (), **settings: object
) -> Path:
    """What is left of a training and its evaluation. Returns the folder of the evaluation."""
    run = write_yaml(
        root / "runs" / folder, {**DEFAULTS, "seed": 1, "device": "cuda", "output_dir": "runs", **settings}
    )
    own = {"method": settings.get("method", "uwav"), "dataset": "LLP", "device": "cpu", "splits": ["val", "test"]}
    best = {"checkpoint_dir": str(run), "checkpoint": str(run / "checkpoints/checkpoint_best.pt")}
    logs = write_yaml(root / "test_logs" / folder, own | best)
    (logs / "summary.json").write_text(json.dumps({split: {"segment_Type": score, "unimodal_segment_Type": 1.0}}))
    (logs / "provenance.json").write_text(json.dumps({"marks": marks}))
    return logs


def collected(tmp_path: Path, *arguments: object) -> list[dict]:
    """The rows of the table."""
    main([*map(str, arguments), "--logs_dir", str(tmp_path / "test_logs"), "--output", str(tmp_path / "table")])
    return json.loads((tmp_path / "table.json").read_text())["rows"]


def test_columns_are_the_settings_that_differ_and_seeds_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture):
    folders = [
        evaluated(tmp_path, "a1", 50.0, seed=1, name="a", device="cuda:0"),
        evaluated(tmp_path, "a2", 54.0, seed=2, name="a", device="cuda:1"),
        evaluated(tmp_path, "b", 60.0, lr=0.2),
        evaluated(tmp_path, "c", 70.0, mixup=False, visual_features=["clip", "r2plus1d_18"]),
    ]
    rows = collected(tmp_path, *folders)
    assert [row["labels"] for row in rows] == [
        {"Run": "a", "lr": "0.1", "mixup": "True", "visual_features": "clip", "Split": "test"},
        {"Run": "b", "lr": "0.2", "mixup": "True", "visual_features": "clip", "Split": "test"},
        {"Run": "c", "lr": "0.1", "mixup": "False", "visual_features": "clip+r2plus1d_18", "Split": "test"},
    ]
    cell = rows[0]["values"]["Segment-level Type"]
    assert (cell["mean"], cell["std"], cell["runs"]) == (52, pytest.approx(8**0.5), 2)
    assert [list(row["values"]) for row in rows] == [["Segment-level Type"]] * 3
    assert "a (2 runs)" in capsys.readouterr().out
    assert all((tmp_path / f"table.{suffix}").stat().st_size for suffix in ("txt", "md", "csv"))


def test_settings_that_follow_from_the_method_are_shown_only_on_request(tmp_path: Path):
    folders = [evaluated(tmp_path, "a", 50.0), evaluated(tmp_path, "b", 40.0, method="han", lr=0.3, dim=8)]
    assert [list(row["labels"]) for row in collected(tmp_path, *folders)] == [["Run", "method", "Split"]] * 2
    rows = collected(tmp_path, *folders, "--by", "dim", "lr")
    assert [(row["labels"]["dim"], row["labels"]["lr"]) for row in rows] == [("", "0.1"), ("8", "0.3")]
    folders.append(evaluated(tmp_path, "c", 45.0, method="han", lr=0.4, dim=8))
    assert [list(row["labels"]) for row in collected(tmp_path, *folders)] == [["Run", "method", "lr", "Split"]] * 3


def test_a_training_stands_for_its_evaluation_and_several_seeds_for_each_of_them(tmp_path: Path):
    evaluated(tmp_path, "a", 50.0)
    write_yaml(tmp_path / "runs/several", {"num_runs": 2})
    for seed in (3, 4):
        evaluated(tmp_path, f"several/run_{seed}", 10.0 * seed, seed=seed, lr=0.2)
    write_yaml(tmp_path / "test_logs/several", {"checkpoint_dir": "runs/several", "num_runs": 2})
    (tmp_path / "test_logs/several/summary.json").write_text('{"run_3": {}, "run_4": {}}')
    expected = [("a", 50, 1), ("several", 35, 2)]
    for folder in ("runs", "test_logs"):
        rows = collected(tmp_path, tmp_path / folder / "a", tmp_path / folder / "several")
        cells = [row["values"]["Segment-level Type"] for row in rows]
        found = [(row["labels"]["Run"], cell["mean"], cell["runs"]) for row, cell in zip(rows, cells, strict=True)]
        assert found == expected


def test_marks_stand_in_rows_of_their_own_and_val_for_test_where_that_is_all(tmp_path: Path):
    folders = [
        evaluated(tmp_path, "a", 50.0, marks=("simulated features",)),
        evaluated(tmp_path, "b", 60.0, seed=2),
        evaluated(tmp_path, "c", 70.0, split="val", seed=3),
    ]
    rows = collected(tmp_path, *folders)
    assert [(row["note"], row["labels"]["Split"]) for row in rows] == [
        ("simulated features", "test"),
        ("", "test"),
        ("", "val"),
    ]
    assert "a (simulated features)" in (tmp_path / "table.md").read_text()


def test_one_seed_with_equal_settings_is_not_averaged_but_can_be_told_apart(tmp_path: Path):
    folders = [evaluated(tmp_path, name, 50.0, name=name, pseudo_label_dir=f"labels/{name}") for name in "ab"]
    with pytest.raises(InputError, match=r"test_logs/b: found the settings and seed of .*test_logs/a; .*--by"):
        collected(tmp_path, *folders)
    for setting, expected in (("name", ["a", "b"]), ("pseudo_label_dir", ["labels/a", "labels/b"])):
        rows = collected(tmp_path, *folders, "--by", setting)
        assert [row["labels"][setting] for row in rows] == expected


def test_another_epoch_of_a_run_and_a_run_that_is_gone_are_told_apart_by_their_weights(tmp_path: Path):
    folders = [evaluated(tmp_path, name, 50.0) for name in "abc"]
    epoch = yaml.safe_load((folders[1] / "args.yaml").read_text()) | {"checkpoint": "checkpoint_epoch_020.pt"}
    write_yaml(folders[1], epoch)
    shutil.rmtree(tmp_path / "runs/c")
    rows = collected(tmp_path, *folders, "--by", "checkpoint")
    best = str(tmp_path / "runs/c/checkpoints/checkpoint_best.pt")
    assert [row["labels"]["checkpoint"] for row in rows] == ["", "checkpoint_epoch_020.pt", best]


def test_what_is_no_evaluation_and_no_setting_is_named(tmp_path: Path):
    folder = evaluated(tmp_path, "a", 50.0)
    with pytest.raises(InputError, match=r"--by: found learning_rate"):
        collected(tmp_path, folder, "--by", "learning_rate")
    (folder / "summary.json").unlink()
    for run in (folder, tmp_path / "runs/a"):
        with pytest.raises(InputError, match=r"test_logs/a: found no scores; expected a finished .*test_han\.py"):
            collected(tmp_path, run)
    with pytest.raises(InputError, match=r"nowhere/args\.yaml"):
        collected(tmp_path, tmp_path / "nowhere")


def test_the_sweep_of_the_documents_ends_in_one_table_of_four_rows(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    label(write_llp(Path("data/LLP")), pretrain(write_unav(tmp_path / "UnAV"), Path("temp_train_logs")))
    text = (ROOT / "docs/experiments.md").read_text()
    (sweep,) = re.findall(r"## Your own sweeps\n.*?```bash\n(.*?)```", text, re.S)
    # The shell expands the loop; the commands run in this process, at a size that takes seconds, with one seed.
    listing = "python() { printf '%s\\n' \"$*\"; }\n" + sweep.replace("--num_runs 3", "")
    commands = subprocess.run(["bash", "-ec", listing], capture_output=True, text=True, check=True).stdout.splitlines()
    mains = {"train_han.py": train_han.main, "test_han.py": test_han.main, "-m experiments.collect": main}
    for command in commands:
        name = next(name for name in mains if command.startswith(name))
        small = {"train_han.py": [*NETWORK, "--num_epochs", "1"], "test_han.py": ["--device", "cpu"]}.get(name, [])
        patterns = [sorted(map(str, Path().glob(word))) or [word] for word in command.removeprefix(name).split()]
        mains[name]([*(word for words in patterns for word in words), *small])
    rows = json.loads(Path("results/lr_and_mixup.json").read_text())["rows"]
    found = [tuple(row["labels"][name] for name in ("Run", "lr", "mixup")) for row in rows]
    assert found == [
        ("lr1e-4-mixup", "0.0001", "True"),
        ("lr1e-4-no-mixup", "0.0001", "False"),
        ("lr3e-4-mixup", "0.0003", "True"),
        ("lr3e-4-no-mixup", "0.0003", "False"),
    ]
    assert "lr1e-4-mixup" in capsys.readouterr().out
