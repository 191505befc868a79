"""Which videos features are extracted of."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")
pytest.importorskip("av", reason="pip install -r requirements-video.txt")

from dataloaders.datasets import load_annotations
from dataloaders.unav import UNAV_CLASSES
from utils.errors import InputError
from video.extraction.video_lists import Video, videos_of_dataset, videos_of_paths


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_videos_of_llp_are_found_by_both_of_their_names_in_any_folder_below(llp_dir: Path, tmp_path: Path):
    by_feature_id = touch(tmp_path / "videos" / "te000000001.mp4")
    by_sample_id = touch(tmp_path / "videos" / "below" / "te000000003_0_10.MKV")
    touch(tmp_path / "videos" / "te000000004.txt")
    videos = videos_of_dataset("LLP", llp_dir, tmp_path / "videos", ("test",))
    assert [video.feature_id for video in videos] == [f"te{n:09d}" for n in range(6)]
    assert {video.feature_id: video.path for video in videos if video.path} == {
        "te000000001": by_feature_id,
        "te000000003": by_sample_id,
    }
    assert {(video.num_segments, video.is_clip) for video in videos} == {(10, True)}
    assert videos_of_dataset("LLP", llp_dir, tmp_path / "videos", ("val",), 4)[0] == Video(
        "va000000000", None, 4, True, is_asked=True
    )
    assert len(videos_of_dataset("LLP", llp_dir, tmp_path / "videos")) == 14 + 6 + 6


def test_videos_of_unav_have_as_many_segments_as_their_duration_says(tmp_path: Path):
    event = {"segment": [0.5, 2.0], "label": UNAV_CLASSES[0], "label_id": 0}
    database = {
        name: {"duration": duration, "annotations": [event], "subset": "test"}
        for name, duration in (("aaaaaaaaaaa", 3.0), ("bbbbbbbbbbb", 7.4))
    }
    (tmp_path / "unav100_annotations.json").write_text(json.dumps({"version": "1", "database": database}))
    videos = videos_of_dataset("UnAV", tmp_path, tmp_path, ("test",))
    assert videos == [Video("aaaaaaaaaaa", None, 3, False), Video("bbbbbbbbbbb", None, 8, False)]


def test_named_videos_are_files_those_of_folders_and_of_lists(tmp_path: Path):
    one, other = touch(tmp_path / "folder" / "one.mp4"), touch(tmp_path / "folder" / "deeper" / "other.webm")
    touch(tmp_path / "folder" / "notes.md")
    (tmp_path / "list.txt").write_text(f"\n{tmp_path / 'listed.mp4'}  \n")
    videos = videos_of_paths([tmp_path / "any.name", tmp_path / "folder", tmp_path / "list.txt", one], 7)
    assert videos == [
        Video("any", tmp_path / "any.name", 7, is_asked=True),
        Video("other", other, 7, is_asked=True),
        Video("one", one, 7, is_asked=True),
        Video("listed", tmp_path / "listed.mp4", 7, is_asked=True),
    ]


def test_two_videos_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="a second video named one"):
        videos_of_paths([tmp_path / "a" / "one.mp4", tmp_path / "b" / "one.mp4"])


def test_two_clips_of_one_feature_id_are_not_taken_for_each_other(llp_dir: Path, tmp_path: Path):
    annotations = load_annotations("LLP", llp_dir, "train")
    first = annotations.sample_ids[0]
    shutil.copytree(llp_dir, tmp_path / "LLP", ignore=shutil.ignore_patterns("feats*"))
    table = tmp_path / "LLP" / "AVVP_train.csv"
    line = next(line for line in table.read_text().splitlines() if line.startswith(first))
    second = f"{annotations.feature_ids[0]}_300_310"
    table.write_text(table.read_text() + line.replace(first, second) + "\n")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / f"{first}.mp4").touch()
    found = {video.feature_id: video.path for video in videos_of_dataset("LLP", tmp_path / "LLP", videos, ("train",))}
    assert found[annotations.feature_ids[0]] == videos / f"{first}.mp4"
    (videos / f"{second}.mp4").touch()
    with pytest.raises(InputError, match=f"one clip for the feature file {annotations.feature_ids[0]}"):
        videos_of_dataset("LLP", tmp_path / "LLP", videos, ("train",))
