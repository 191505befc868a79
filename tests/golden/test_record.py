"""The record of results is whole, and a digest notices a changed number but not a changed container."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="clips are decoded by PyAV")

from experiments.__main__ import EXPERIMENTS
from lavish.clip_settings import MODELS
from tests.golden.__main__ import RECORD, compare, digest
from utils.recipes import method_names

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(  # entry points beside the four stages
    path
    for folder in ("baselines", "lavish", "video")
    for path in (ROOT / folder).rglob("*.py")
    if "def main(" in path.read_text() and path.stem not in ("download", "subset_texts")
)


def test_every_method_model_and_table_has_a_result():
    results = json.loads(RECORD.read_text())["results"]
    steps = " ".join(results)
    assert all(results.values())
    assert set(method_names()) <= results.keys()
    assert all(model in steps for model in MODELS)
    tables = " ".join(results["experiments"])
    assert all(name in tables for name in EXPERIMENTS if name != "tableA5")  # A5 holds measured times


def test_every_entry_point_is_run():
    runs = (ROOT / "tests/golden/runs.py").read_text()
    stems = ("pages" if path.stem == "__main__" else path.stem for path in [*ROOT.glob("*.py"), *COMMANDS])
    assert all(f"{stem}.main" in runs for stem in stems)


def test_a_digest_is_of_the_numbers_and_not_of_the_file(tmp_path: Path):
    values = {"a": np.arange(3.0), "b": np.ones(2, bool)}
    np.savez(tmp_path / "one.npz", **values)
    np.savez_compressed(tmp_path / "other.npz", **dict(reversed(values.items())))
    np.savez(tmp_path / "changed.npz", a=values["a"] + np.float64(1e-15), b=values["b"])
    assert digest(tmp_path / "one.npz") == digest(tmp_path / "other.npz") != digest(tmp_path / "changed.npz")
    for name, weight in (("one", 1.0), ("same", 1.0), ("changed", 1 + 1e-7)):
        torch.save({"network": {"weight": torch.tensor([weight])}, "seconds": hash(name)}, tmp_path / f"{name}.pt")
    assert digest(tmp_path / "one.pt") == digest(tmp_path / "same.pt") != digest(tmp_path / "changed.pt")


def test_the_comparison_names_what_differs_is_missing_and_is_new():
    expected = {"one": {"a": "1", "b": "2"}, "two": {"c": "3"}}
    found = {"one": {"a": "1", "b": "4", "d": "5"}}
    assert list(compare(found, expected)) == ["one: b differs", "one: d is new", "two: c is missing"]
