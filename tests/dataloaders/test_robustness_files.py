"""Feature files and packed files that are none: broken headers, links, pipes, other tensors, no permission."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dataloaders import check
from dataloaders.datasets import load_annotations
from dataloaders.features import feature_error, feature_path
from dataloaders.store import open_features
from tests.tiny_runs import pretrain
from utils.errors import InputError


def feature(llp_dir: Path) -> Path:
    annotations = load_annotations("LLP", llp_dir, "train")
    return feature_path(llp_dir, "clip", annotations.feature_ids[3])


def declare(path: Path, shape: str) -> None:
    """Rewrite the header of a `.npy` file in place, the data stay."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(path.read_bytes()[:8] + len(header).to_bytes(2, "little") + header.encode() + bytes(480))


def refused(llp_dir: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_features(load_annotations("LLP", llp_dir, "train"), ["clip"], llp_dir)


def check_says(llp_dir: Path, capsys, message: str) -> None:
    arguments = ["--dataset", "LLP", "--data_dir", str(llp_dir), "--features", "clip", "--splits", "train"]
    assert check.main(arguments) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    "shape", ["(2000000000, 12)", "(-10, -12)", f"({2**70}, 12)", f"({2**32}, {2**32})", "((1, 2), 3"]
)
def test_header_that_declares_other_values_than_the_file_holds_is_refused(llp_dir, capsys, shape):
    path = feature(llp_dir)
    declare(path, shape)
    refused(llp_dir, f"{path.name}: found an unreadable file")
    check_says(llp_dir, capsys, f"{path.name}: found an unreadable file")


def test_link_that_leads_nowhere_is_named(llp_dir, capsys):
    path = feature(llp_dir)
    path.unlink()
    path.symlink_to("gone.npy")
    refused(llp_dir, f"{path.name}: found a link to gone.npy, which does not exist")
    check_says(llp_dir, capsys, f"{path.name}: found a link to gone.npy")


def test_named_pipe_is_refused_without_waiting_for_a_writer(llp_dir, capsys):
    path = feature(llp_dir)
    path.unlink()
    os.mkfifo(path)
    refused(llp_dir, f"{path.name}: found an unreadable file .*a named pipe")
    check_says(llp_dir, capsys, f"{path.name}: found an unreadable file")


def test_missing_permission_is_not_called_damage():
    error = feature_error(Path("x.npy"), PermissionError(13, "Permission denied"))
    assert "x.npy: found an unreadable file ([Errno 13] Permission denied)" in str(error)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("values", torch.zeros(140, 12, dtype=torch.float64)),
        ("values", torch.zeros(139, 12)),
        ("values", torch.zeros(140 * 12)),
        ("lengths", torch.zeros(14)),
        ("sizes", torch.zeros(13, dtype=torch.int64)),
        ("mtimes", torch.zeros(2, 7, dtype=torch.int64)),
    ],
)
def test_packed_file_with_other_tensors_is_packed_again(llp_dir, name, values):
    annotations = load_annotations("LLP", llp_dir, "train")
    packed = open_features(annotations, ["clip"], llp_dir)[1]["clip"]
    wanted = packed.values.clone()
    with safe_open(packed.path, framework="pt") as file:
        metadata = file.metadata()
    save_file({**load_file(packed.path), name: values}, packed.path, metadata)
    again = open_features(annotations, ["clip"], llp_dir)[1]["clip"].values
    assert torch.equal(again, wanted)
    np.testing.assert_array_equal(again[30:40], np.load(feature(llp_dir)))


def test_packed_feature_that_is_not_finite_is_named_instead_of_the_learning_rate(unav_dir, tmp_path):
    open_features(load_annotations("UnAV", unav_dir, "train"), ["clip"], unav_dir)
    path = unav_dir / "packed" / "clip_train.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["values"][3, 3] = float("nan")
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=r"clip_train\.safetensors: found features that are NaN or infinite"):
        pretrain(unav_dir, tmp_path)
