"""The check of a data set's files before training."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataloaders import check
from dataloaders.ave import AVE_CLASSES
from dataloaders.features import FEATURES, feature_path
from utils.errors import InputError

IDS = {"train": ("trainvideo0", "trainvideo1", "trainvideo2"), "val": ("valvideo000",), "test": ("testvideo00",)}
WIDTHS = {"clip": 8, "clap": 6, "r2plus1d_18": 4}


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """A complete AVE data set of five videos."""
    every_line = []
    for split, ids in IDS.items():
        lines = [f"Bark&{video_id}&good&0&10" for video_id in ids]
        if split == "train":
            lines.append(f"Goat&{ids[0]}&good&2&5")  # a second sample of the first video
        every_line += lines
        (tmp_path / f"{split}Set.txt").write_text("\n".join(lines))
    (tmp_path / "Annotations.txt").write_text("\n".join(every_line))
    for feature, width in WIDTHS.items():
        for ids in IDS.values():
            for video_id in ids:
                write(feature_path(tmp_path, feature, video_id), 10, width)
        if FEATURES[feature].text_folder:
            write(tmp_path / FEATURES[feature].text_folder / "all_event_feats.npy", len(AVE_CLASSES), width)
    return tmp_path


def write(path: Path, rows: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones((rows, width), dtype=np.float32))


def run(data_dir: Path, *options: str) -> int:
    return check.main(["--dataset", "AVE", "--data_dir", str(data_dir), *options])


def counts(output: str, feature: str, part: str) -> list[int]:
    """A line of the table: files, present, missing, unreadable, wrong shape, wrong names, not finite."""
    (line,) = [
        line for line in output.splitlines() if line.split()[:2] == [feature, part.split()[0]] and ":" not in line
    ]
    return [int(cell) for cell in line.split()[-7:]]


def test_complete_data_set_passes(data_dir, capsys):
    assert run(data_dir) == 0
    output = capsys.readouterr().out
    assert "All files can be used." in output
    assert counts(output, "clip", "test") == [1, 1, 0, 0, 0, 0, 0]
    assert counts(output, "clap", "class names") == [1, 1, 0, 0, 0, 0, 0]


def test_video_of_two_samples_is_one_file(data_dir, capsys):
    run(data_dir)
    assert counts(capsys.readouterr().out, "clip", "train") == [3, 3, 0, 0, 0, 0, 0]


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_unreadable(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def spoil_wrong_shape(path: Path) -> None:
    write(path, 9, 4)


def spoil_not_finite(path: Path) -> None:
    np.save(path, np.full((10, 4), np.nan, dtype=np.float32))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_missing, [3, 2, 1, 0, 0, 0, 0]),
        (spoil_unreadable, [3, 3, 0, 1, 0, 0, 0]),
        (spoil_wrong_shape, [3, 3, 0, 0, 1, 0, 0]),
        (spoil_not_finite, [3, 3, 0, 0, 0, 0, 1]),
    ],
)
def test_unusable_file_is_counted_and_named_and_fails_the_check(data_dir, capsys, spoil, expected):
    path = feature_path(data_dir, "r2plus1d_18", "trainvideo1")
    spoil(path)
    assert run(data_dir) == 1
    output = capsys.readouterr().out
    assert counts(output, "r2plus1d_18", "train") == expected
    assert counts(output, "clip", "train") == [3, 3, 0, 0, 0, 0, 0]
    assert str(path) in output
    assert "1 file cannot be used: training would fail." in output


def test_file_of_another_width_than_most_is_of_wrong_shape(data_dir, capsys):
    write(feature_path(data_dir, "clip", "trainvideo0"), 10, 7)  # the first file that is read
    assert run(data_dir) == 1
    output = capsys.readouterr().out
    assert counts(output, "clip", "train") == [3, 3, 0, 0, 1, 0, 0]
    assert "found width 7; expected width 8" in output


@pytest.mark.parametrize(("rows", "width"), [(len(AVE_CLASSES) + 1, 8), (len(AVE_CLASSES), 7)])
def test_text_features_of_another_class_count_or_width_fail_the_check(data_dir, capsys, rows, width):
    write(data_dir / "feats_CLIP" / "event_feats" / "all_event_feats.npy", rows, width)
    assert run(data_dir) == 1
    assert counts(capsys.readouterr().out, "clip", "class names") == [1, 1, 0, 0, 1, 0, 0]


def test_text_features_of_other_class_names_fail_the_check(data_dir, capsys):
    names = data_dir / "feats_CLIP" / "event_feats" / "all_event_feats.txt"
    names.write_text("\n".join(reversed(AVE_CLASSES)))
    assert run(data_dir) == 1
    output = capsys.readouterr().out
    assert counts(output, "clip", "class names") == [1, 1, 0, 0, 0, 1, 0] and str(names) in output


def test_only_the_chosen_features_and_splits_are_checked(data_dir, capsys):
    spoil_missing(feature_path(data_dir, "clip", "trainvideo1"))
    spoil_missing(feature_path(data_dir, "clap", "testvideo00"))
    assert run(data_dir, "--features", "clip", "r2plus1d_18", "--splits", "val", "test") == 0
    assert "clap" not in capsys.readouterr().out


def test_first_few_offenders_are_listed_unless_all_are_wanted(data_dir, capsys, monkeypatch):
    monkeypatch.setattr(check, "OFFENDERS_SHOWN", 2)
    for video_id in IDS["train"]:
        spoil_missing(feature_path(data_dir, "clip", video_id))
    run(data_dir)
    first_few = capsys.readouterr().out
    run(data_dir, "--list_all")
    everything = capsys.readouterr().out
    assert first_few.count("trainvideo") == 2 and "... and 1 more" in first_few
    assert everything.count("trainvideo") == 3 and "more (" not in everything


def test_unusable_annotations_are_named(data_dir):
    (data_dir / "valSet.txt").write_text("Barking&valvideo000&good&0&10")
    with pytest.raises(InputError, match=r"valSet\.txt, line 1: found unknown category 'Barking'"):
        run(data_dir)


def test_annotations_may_lie_elsewhere(data_dir, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("annotations")
    for path in data_dir.glob("*.txt"):
        path.rename(elsewhere / path.name)
    with pytest.raises(InputError, match=r"Annotations\.txt: found no file"):
        run(data_dir)
    assert run(data_dir, "--annotations_dir", str(elsewhere)) == 0


def test_unknown_feature_is_bad_usage(data_dir):
    with pytest.raises(SystemExit) as stop:
        run(data_dir, "--features", "i3d")
    assert stop.value.code == 2


def test_unav_files_may_have_any_number_of_rows(tmp_path):
    event = {"segment": [0, 3], "label": "sailing", "label_id": 55}
    video = {"duration": 20.5, "annotations": [event], "subset": "train"}
    (tmp_path / "unav100_annotations.json").write_text(json.dumps({"database": {"unavvideo00": video}}))
    write(feature_path(tmp_path, "clip", "unavvideo00"), 7, 8)
    write(tmp_path / "feats_CLIP" / "event_feats" / "all_event_feats.npy", 100, 8)
    arguments = ["--dataset", "UnAV", "--data_dir", str(tmp_path), "--features", "clip", "--splits", "train"]
    assert check.main(arguments) == 0


def test_missing_files_alone_are_said_to_be_no_obstacle_with_a_flag(data_dir, capsys):
    feature_path(data_dir, "r2plus1d_18", "trainvideo1").unlink()
    assert run(data_dir) == 1
    said = capsys.readouterr().out
    assert "1 of 3 train videos lack a feature." in said and "--allow_missing" in said
