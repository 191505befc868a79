"""Annotation files that would lead out of a folder, give empty truth or take forever."""

import json
import time
from pathlib import Path

import pytest

from dataloaders.datasets import load_annotations
from dataloaders.unav import FILE
from tests.tiny_data import write_ave, write_llp, write_unav
from utils.errors import InputError

OUTSIDE = "AAAAAAAAAAA_/../../x"
BAD_NAMES = (
    OUTSIDE,
    "AAAAAAAAAAA_0",
    "AAAA/AAAAAA_0_10",
    "AAAAAAAAAAA_0_10/x",
    "AAAAAAAAAAA_0_10.",
    "ÄÄÄÄÄÄÄÄÄÄÄ_0_10",
)
BAD_IDS = ("../../../xx", "AAAAAAAAAA", "AAAAAAAAAAAA", "AAAAAAAAAA\n", "AAAAA\nAAAAA", "AAAAA/AAAAA", "")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_llp_name_that_is_no_id_with_times_is_refused(tmp_path, name):
    path = write_llp(tmp_path) / "AVVP_train.csv"
    path.write_text(path.read_text() + f"{name}\tSpeech\n")
    with pytest.raises(InputError, match=r"AVVP_train\.csv, line 16: found a malformed or repeated file name"):
        load_annotations("LLP", tmp_path, "train")


@pytest.mark.parametrize("name", ["-_AAAAAAAAA_0_10", "AAAAAAAAAAA_101.8_111.8"])
def test_llp_names_with_decimals_and_dashes_are_read(tmp_path, name):
    path = write_llp(tmp_path) / "AVVP_train.csv"
    path.write_text(path.read_text() + f"{name}\tSpeech\n")
    assert load_annotations("LLP", tmp_path, "train").sample_ids[-1] == name


@pytest.mark.parametrize("video_id", BAD_IDS)
def test_unav_id_that_is_none_of_youtube_is_refused(tmp_path, video_id):
    path = write_unav(tmp_path) / FILE
    content = json.loads(path.read_text())
    content["database"][video_id] = next(iter(content["database"].values()))
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"\[key\]': found .* pattern"):
        load_annotations("UnAV", tmp_path, "train")


@pytest.mark.parametrize("video_id", ["../../../xx", "AAAAAAAAAA", "AAAAAAAAAAAA", "AAAAA/AAAAA"])
def test_ave_id_that_is_none_of_youtube_is_refused(tmp_path, video_id):
    write_ave(tmp_path)
    for name in ("trainSet.txt", "Annotations.txt"):
        with (tmp_path / name).open("a") as file:
            file.write(f"Bark&{video_id}&good&0&4\n")
    with pytest.raises(InputError, match=r", line \d+: found video id .* 11 letters, digits, - or _"):
        load_annotations("AVE", tmp_path, "train")


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_eval_file_without_a_row_of_the_split_is_refused(tmp_path, modality):
    path = write_llp(tmp_path) / f"AVVP_eval_{modality}.csv"
    path.write_text("".join(line for line in path.open() if not line.startswith("va")))
    load_annotations("LLP", tmp_path, "test")
    with pytest.raises(InputError, match=f"AVVP_eval_{modality}.csv: found no row for the 6 videos of val"):
        load_annotations("LLP", tmp_path, "val")


def test_repeated_key_among_many_is_found_at_once(tmp_path):
    keys = [f'"{n:011d}": 0' for n in range(60_000)]
    (tmp_path / FILE).write_text('{"database": {' + ", ".join([*keys, keys[-1]]) + "}}")
    started = time.perf_counter()
    with pytest.raises(InputError, match="'00000059999' more than once"):
        load_annotations("UnAV", tmp_path, "train")
    assert time.perf_counter() - started < 5  # a search of the whole list for each key takes a minute


@pytest.mark.parametrize("text", ["[" * 100_000, '{"database": ' + "1" * 5000 + "}"])
def test_json_beyond_the_parsers_limits_is_called_broken(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=f"{FILE}: found a broken file"):
        load_annotations("UnAV", tmp_path, "train")


@pytest.mark.parametrize("duration", ["1e15", "1" * 400])
def test_video_that_lasts_for_years_is_refused(tmp_path, duration):
    video = f'{{"duration": {duration}, "annotations": [], "subset": "train"}}'
    (tmp_path / FILE).write_text(f'{{"database": {{"AAAAAAAAAAA": {video}}}}}')
    with pytest.raises(InputError, match="AAAAAAAAAAA duration': found 1"):
        load_annotations("UnAV", tmp_path, "train")


@pytest.mark.parametrize("split", ["val", "test"])
def test_training_videos_that_are_evaluated_on_are_refused(llp_dir: Path, split: str):
    train, other = llp_dir / "AVVP_train.csv", llp_dir / f"AVVP_{split}_pd.csv"
    line = other.read_text().splitlines()[1]
    train.write_text(train.read_text() + line + "\n")
    with pytest.raises(InputError, match=rf"1 videos that are also in AVVP_{split}_pd\.csv.*AVVP_dataset_full\.csv"):
        load_annotations("LLP", llp_dir, "train")


def test_a_file_with_commas_or_quotes_is_refused_with_what_is_meant(llp_dir: Path):
    path = llp_dir / "AVVP_train.csv"
    text = path.read_text()
    path.write_text("\n".join('"' + line.replace("\t", '","') + '"' for line in text.splitlines()))
    with pytest.raises(InputError, match=r"separated by commas.*with tabs, without quotes"):
        load_annotations("LLP", llp_dir, "train")
    header, *lines = text.splitlines()
    path.write_text("\n".join([header, *('"' + line.replace("\t", '"\t"') + '"' for line in lines)]))
    with pytest.raises(InputError, match="values in quotes"):
        load_annotations("LLP", llp_dir, "train")
