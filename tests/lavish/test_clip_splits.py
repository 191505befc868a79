"""Splits of clips: samples that are left out or joined, and the files that clips lie in."""

from pathlib import Path

import pytest
import torch

from lavish.clip_splits import ClipSplit, find_videos
from utils.errors import InputError


def split_of(name: str, *sources: str) -> ClipSplit:
    """Samples `<name>0`, ... whose labels are the numbers in their sources' names."""
    ids = tuple(f"{name}{n}" for n in range(len(sources)))
    return ClipSplit(("Bark", "Bus"), ids, sources, torch.tensor([int(one[1:]) for one in sources]))


def test_all_samples_of_an_absent_item_are_left_out_with_their_labels():
    split = split_of("train", "v4", "v5", "v4", "v6").without({"v4", "v9"})
    assert split.sample_ids == ("train1", "train3") and split.sources == ("v5", "v6")
    assert split.labels.tolist() == [5, 6] and split.num_clips == 2
    assert split.classes == ("Bark", "Bus")


def test_labels_of_seconds_go_with_their_sample():
    split = ClipSplit((), ("a", "b"), ("v1", "v2"), torch.tensor([[1, 2], [3, 4]]))
    assert split.without({"v1"}).labels.tolist() == [[3, 4]]
    assert split.without({"v1", "v2"}).labels.shape == (0, 2)


def test_joined_samples_come_one_split_after_the_other():
    split = split_of("train", "v4", "v5").joined(split_of("val", "v6"))
    assert split.sample_ids == ("train0", "train1", "val0") and split.sources == ("v4", "v5", "v6")
    assert split.labels.tolist() == [4, 5, 6]


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
    assert find(tmp_path, "other", "clip.v1").get("clip.v1") == (found and tmp_path / f"clip.v1{found}")


def find(folder: Path, *names: str, allow_missing: bool = True) -> dict[str, Path]:
    (folder / "other.mp4").touch()
    return find_videos({name: folder / name for name in names}, "fold 1", allow_missing)


def test_a_folder_is_no_video(tmp_path: Path):
    (tmp_path / "clip.mp4").mkdir()
    assert find(tmp_path, "other", "clip") == {"other": tmp_path / "other.mp4"}


def test_absent_clips_may_be_left_out_unless_all_are_absent(tmp_path: Path, capsys):
    assert find(tmp_path, "b", "other", "a").keys() == {"other"}
    assert "fold 1: leaving out 2 of 3 listed clips without a file: a, b" in capsys.readouterr().out
    for names, allow_missing in ((("a", "other"), False), (("a", "b"), True)):
        with pytest.raises(InputError, match=r"fold 1: found .* of 2 listed clips without a file"):
            find(tmp_path, *names, allow_missing=allow_missing)
