"""AVE from its videos: which second has which class."""

from pathlib import Path

import pytest

from dataloaders.ave import AVE_CLASSES
from lavish.clip_splits import load_ave_clips
from utils.errors import InputError

BACKGROUND = 28
LINES = {
    "train": ["Accordion&AAAAAAAAAAA&good&0&10", "Bark&BBBBBBBBBBB&good&2&5", "Bus&BBBBBBBBBBB&good&5&6"],
    "val": ["Violin, fiddle&CCCCCCCCCCC&good&9&10"],
    "test": ["Clock&DDDDDDDDDDD&good&3&3"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [line for of_split in LINES.values() for line in of_split]
    (tmp_path / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "\n".join(lines) + "\n")
    for split, of_split in LINES.items():
        (tmp_path / f"{split}Set.txt").write_text("\n".join(of_split) + "\n")
    (tmp_path / "videos").mkdir()
    for letter in "ABCD":
        (tmp_path / f"videos/{letter * 11}.mp4").touch()
    return tmp_path


def test_every_second_has_its_class_or_is_background(folder: Path):
    splits = load_ave_clips(folder, folder).splits
    bark, bus, violin = (AVE_CLASSES.index(name) for name in ("Bark", "Bus", "Violin, fiddle"))
    assert splits["train"].labels.tolist() == [
        [0] * 10,
        [BACKGROUND] * 2 + [bark] * 3 + [BACKGROUND] * 5,
        [BACKGROUND] * 5 + [bus] + [BACKGROUND] * 4,
    ]
    assert splits["val"].labels.tolist() == [[BACKGROUND] * 9 + [violin]]
    assert splits["test"].labels.tolist() == [[BACKGROUND] * 10]
    assert splits["test"].classes == (*AVE_CLASSES, "background")


def test_samples_of_one_video_share_its_item(folder: Path):
    data = load_ave_clips(folder, folder)
    assert data.splits["train"].sources == ("A" * 11, "B" * 11, "B" * 11)
    assert sorted((source.name, source.path.name) for source in data.sources) == [
        (letter * 11, letter * 11 + ".mp4") for letter in "ABCD"
    ]
    assert all(source.start == 0 and source.seconds is None for source in data.sources)


def test_a_video_without_a_file_is_named_or_left_out_with_its_samples(folder: Path):
    (folder / f"videos/{'B' * 11}.mp4").unlink()
    with pytest.raises(InputError, match=r"1 of 2 listed clips without a file.*BBBBBBBBBBB"):
        load_ave_clips(folder, folder)
    data = load_ave_clips(folder, folder, allow_missing=True)
    assert data.splits["train"].sources == ("A" * 11,) and data.splits["train"].labels.tolist() == [[0] * 10]
    assert len(data.sources) == 3


def test_a_folder_without_videos_is_an_error(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="2 of 2 listed clips without a file"):
        load_ave_clips(tmp_path / "elsewhere", folder, allow_missing=True)
