"""Parts of a data set (Table A7): a share of the training videos, the first classes."""

import json
from pathlib import Path

import pytest
import torch

from dataloaders.annotations import Subset
from dataloaders.llp import LLP_CLASSES, load_split
from tests import tiny_runs
from tests.tiny_data import write_llp
from utils.errors import InputError


def test_a_smaller_share_of_the_training_videos_lies_within_a_larger_one(llp_dir: Path):
    train = load_split(llp_dir, "train")
    shares = (0.01, 0.6, 0.7, 1.0)
    parts = [Subset(share).annotations(train).sample_ids for share in shares]
    assert [len(part) for part in parts] == [1, 8, 10, 14]  # rounded, but at least one
    assert set(parts[0]) < set(parts[1]) < set(parts[2]) < set(parts[3])
    for part in parts:
        assert part == tuple(name for name in train.sample_ids if name in part)  # in the order of the file


def test_validation_and_test_videos_are_all_kept_whatever_the_share(llp_dir: Path):
    for split in ("val", "test"):
        annotations = load_split(llp_dir, split)
        assert Subset(0.5).annotations(annotations).sample_ids == annotations.sample_ids


def test_fewer_classes_cut_all_labels_and_leave_out_videos_without_any_of_them(llp_dir: Path):
    whole, part = load_split(llp_dir, "test"), Subset(num_classes=2).annotations(load_split(llp_dir, "test"))
    labelled = whole.video_labels[:, :2].any(dim=1)
    assert 0 < part.num_videos < whole.num_videos
    assert part.classes == LLP_CLASSES[:2]
    assert torch.equal(part.video_labels, whole.video_labels[labelled, :2])
    of_segments = labelled.repeat_interleave(whole.lengths)
    assert torch.equal(part.labels.audio, whole.labels.audio[of_segments, :2])
    assert torch.equal(part.labels.visual, whole.labels.visual[of_segments, :2])


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float):
    with pytest.raises(InputError, match="train_fraction"):
        tiny_runs.train(tmp_path, tmp_path, "--train_fraction", share)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [0, 26])
def test_more_classes_than_there_are_and_none_are_refused(llp_dir: Path, number: int):
    with pytest.raises(InputError, match="num_classes"):
        Subset(num_classes=number).annotations(load_split(llp_dir, "val"))


def test_han_trains_on_part_of_the_videos_and_classes_with_the_pseudo_labels_of_all(tmp_path: Path, unav_dir: Path):
    data_dir = write_llp(tmp_path / "LLP")
    transformer = tiny_runs.pretrain(unav_dir, tmp_path / "runs", "--num_epochs", 1)
    pseudo_labels = tiny_runs.label(data_dir, transformer)
    packed = {path: path.stat().st_mtime_ns for path in (data_dir / "packed").glob("*.safetensors")}
    flags = ("--num_epochs", 1, "--pseudo_label_dir", pseudo_labels, "--num_classes", 2, "--train_fraction", 0.67)
    run = tiny_runs.train(data_dir, tmp_path / "runs", *flags)
    weights = torch.load(run / "checkpoints/checkpoint_best.pt", weights_only=True)
    assert weights["fc_prob.weight"].shape[0] == 2
    assert "6 training videos" in (run / "log.txt").read_text()  # of nine with one of the two classes
    evaluation = tiny_runs.evaluate(run, tmp_path / "logs")
    assert "segment_Type" in json.loads((evaluation / "summary.json").read_text())["test"]
    assert (
        packed.items()
        <= {path: path.stat().st_mtime_ns for path in (data_dir / "packed").glob("*.safetensors")}.items()
    )
