"""Splits of clips: samples that are left out or joined, and the files that clips lie in."""

from pathlib import Path

import pytest
import torch

from lavish.clip_splits import ClipSplit, find_video, report_absent
from utils.errors import InputError


def split_of(name: str, *sources: str) -> ClipSplit:
    """Samples `<name>0`, ... whose labels are the numbers in their sources' names."""
    ids = tuple(f"{name}{n}" for n in range(len(sources)))
    return ClipSplit("AVE", name, ("Bark", "Bus"), ids, sources, torch.tensor([int(one[1:]) for one in sources]))


def test_all_samples_of_an_absent_item_are_left_out_with_their_labels():
    split = split_of("train", "v4", "v5", "v4", "v6").without({"v4", "v9"})
    assert split.sample_ids == ("train1", "train3") and split.sources == ("v5", "v6")
    assert split.labels.tolist() == [5, 6] and split.num_clips == 2
    assert (split.dataset, split.split, split.classes) == ("AVE", "train", ("Bark", "Bus"))


def test_labels_of_seconds_go_with_their_sample():
    split = ClipSplit("AVE", "val", (), ("a", "b"), ("v1", "v2"), torch.tensor([[1, 2], [3, 4]]))
    assert split.without({"v1"}).labels.tolist() == [[3, 4]]
    assert split.without({"v1", "v2"}).labels.shape == (0, 2)


def test_joined_samples_come_one_split_after_the_other():
    split = split_of("train", "v4", "v5").joined(split_of("val", "v6"))
    assert split.sample_ids == ("train0", "train1", "val0") and split.sources == ("v4", "v5", "v6")
    assert split.labels.tolist() == [4, 5, 6] and split.split == "train"


@pytest.mark.parametrize(
    ("present", "found"),
    [
        ((".webm", ".mkv", ".avi", ".mp4"), ".mp4"),
        ((".webm", ".mkv", ".avi"), ".avi"),
        ((".webm", ".mkv"), ".mkv"),
        ((".webm",), ".webm"),
        ((".txt",), None),
    ],
)
def test_a_clip_is_found_in_any_container_mp4_first(tmp_path: Path, present: tuple[str, ...], found: str | None):
    for suffix in present:
        (tmp_path / f"clip.v1{suffix}").touch()
    assert find_video(tmp_path, "clip.v1") == (found and tmp_path / f"clip.v1{found}")


def test_a_folder_is_no_video(tmp_path: Path):
    (tmp_path / "clip.mp4").mkdir()
    assert find_video(tmp_path, "clip") is None


def test_absent_clips_may_be_left_out_unless_all_are_absent(tmp_path: Path, capsys):
    report_absent(tmp_path, "fold 1", ["a", "b"], 3, allow_missing=True)
    assert "2 of 3 listed clips without a file (a, b)" in capsys.readouterr().out
    for absent, allow_missing in ((["a"], False), (["a", "b", "c"], True)):
        with pytest.raises(InputError, match="without a file"):
            report_absent(tmp_path, "fold 1", absent, 3, allow_missing)
