"""Annotation files of LLP, UnAV and AVE: their quirks, and what is refused."""

import json
import os
from pathlib import Path

import pytest
import torch

from dataloaders import ave, llp, tables, unav
from dataloaders.datasets import DATASETS, load_annotations
from utils.errors import InputError

REAL_ANNOTATIONS = Path(os.environ.get("UWAV_ANNOTATIONS", Path(__file__).parents[3] / "shared" / "annotations"))
needs_real_annotations = pytest.mark.skipif(
    not REAL_ANNOTATIONS.is_dir(), reason="no real annotations (set UWAV_ANNOTATIONS to their folder)"
)

SPEECH, DOG, CLAPPING = (llp.LLP_CLASSES.index(name) for name in ("Speech", "Dog", "Clapping"))
CLIP_A, CLIP_B, CLIP_C = "AAAAAAAAAAA_10_20", "-BBBBBBBBB__101.8_111.8", "CCCCCCCCCCC_0_10"
TRAINING_CLIP = "DDDDDDDDDDD_0_10"


@pytest.fixture(autouse=True)
def every_warning_anew():
    tables.warn_once.cache_clear()


# ---------------------------------------------------------------- LLP


def write_llp(folder: Path, **replaced: list[str]) -> Path:
    files = {
        "AVVP_train.csv": ["filename\tevent_labels", f"{TRAINING_CLIP}\tDog"],
        "AVVP_val_pd.csv": ["filename\tevent_labels", f"{CLIP_C}\tSpeech"],
        "AVVP_test_pd.csv": ["filename\tevent_labels", f"{CLIP_A}\tSpeech,Dog", f"{CLIP_B}\tClapping,Clapping"],
        "AVVP_eval_audio.csv": [
            "filename\tonset\toffset\tevent_labels",
            f"{CLIP_A}\t2\t4\tSpeech",
            f"{CLIP_C}\t0\t1\tDog",
        ],
        "AVVP_eval_visual.csv": [
            "filename\tonset\toffset\tevent_labels",
            f"{CLIP_A}\t0\t10\tDog",
            f"{CLIP_C}\t0\t1\tDog",
        ],
    }
    for name, lines in files.items():
        lines = replaced.get(name.removesuffix(".csv"), lines)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def llp_audio(folder: Path, *rows: str) -> torch.Tensor:
    """The audio labels (2, 10, 25) of the test split for these rows of the eval file."""
    write_llp(folder, AVVP_eval_audio=["filename\tonset\toffset\tevent_labels", *rows])
    return llp.load_split(folder, "test").labels.audio.view(2, 10, 25)


def marked(labels: torch.Tensor) -> list[list[int]]:
    return labels.nonzero().tolist()


def test_llp_samples_are_whole_file_names_and_features_their_first_eleven_characters(tmp_path):
    split = llp.load_split(write_llp(tmp_path), "test")
    assert split.sample_ids == (CLIP_A, CLIP_B)
    assert split.feature_ids == ("AAAAAAAAAAA", "-BBBBBBBBB_")
    assert split.lengths.tolist() == [10, 10]


def test_llp_video_labels_follow_the_class_order_and_a_repeated_label_counts_once(tmp_path):
    split = llp.load_split(write_llp(tmp_path), "test")
    assert marked(split.video_labels) == [[0, SPEECH], [0, DOG], [1, CLAPPING]]


def test_llp_labels_may_have_a_space_after_the_comma(tmp_path):
    write_llp(tmp_path, AVVP_train=["filename\tevent_labels", f"{TRAINING_CLIP}\tSpeech, Dog"])
    assert marked(llp.load_split(tmp_path, "train").video_labels) == [[0, SPEECH], [0, DOG]]


def test_llp_event_marks_the_seconds_from_onset_to_before_offset(tmp_path):
    assert marked(llp_audio(tmp_path, f"{CLIP_B}\t2\t4\tSpeech")) == [[1, 2, SPEECH], [1, 3, SPEECH]]


def test_llp_audio_and_visual_labels_are_apart(tmp_path):
    split = llp.load_split(write_llp(tmp_path), "test")
    assert split.labels.audio.any(0).nonzero().flatten().tolist() == [SPEECH]
    assert split.labels.visual.any(0).nonzero().flatten().tolist() == [DOG]


def test_llp_overlapping_rows_of_one_class_are_joined(tmp_path):
    labels = llp_audio(tmp_path, f"{CLIP_A}\t0\t3\tDog", f"{CLIP_A}\t2\t5\tDog")
    assert marked(labels[0, :, DOG]) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("times", ["9\t9", "10\t10", "9\t0"])
def test_llp_row_that_does_not_end_after_its_onset_marks_nothing(tmp_path, times):
    assert not llp_audio(tmp_path, f"{CLIP_A}\t{times}\tDog").any()


def test_llp_eval_rows_of_no_split_or_of_another_split_are_skipped(tmp_path):
    others = ("17iGUal2M_10_20\t0\t10\tSinging", f"{CLIP_C}\t0\t10\tSpeech")
    assert marked(llp_audio(tmp_path, *others, f"{CLIP_B}\t0\t1\tSpeech")) == [[1, 0, SPEECH]]


def test_llp_segment_label_that_the_video_label_lacks_is_kept(tmp_path):
    labels = llp_audio(tmp_path, f"{CLIP_B}\t0\t1\tSpeech")
    assert marked(labels) == [[1, 0, SPEECH]]


def test_llp_training_videos_have_no_segment_labels_and_need_no_eval_files(tmp_path):
    write_llp(tmp_path)
    (tmp_path / "AVVP_eval_audio.csv").unlink()
    split = llp.load_split(tmp_path, "train")
    assert split.labels is None


OLD_ROWS = (
    "Baby_cry_infant_cry\t0\t10\tBaby_cry_infant_cry",
    "Baby_cry_infant_cry\t0\t4\tSpeech",
    "KvIjsmANkxI_10_20`\t0\t1\tCat",
    f"{CLIP_A}\t0\t1\tDog",
    f"{CLIP_C}\t0\t1\tDog",
)


def test_llp_audio_labels_from_before_the_correction_are_accepted_and_reported_once(tmp_path, caplog):
    labels = llp_audio(tmp_path, *OLD_ROWS)
    llp.load_split(tmp_path, "val")
    assert marked(labels) == [[0, 0, DOG]]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "older than the correction of April 2024" in caplog.text and "lines 2, 3, 4" in caplog.text


def test_llp_corrected_audio_labels_are_not_taken_for_the_old_version(tmp_path, caplog):
    llp_audio(tmp_path, f"{CLIP_A}\t0\t1\tDog", "17iGUal2M_10_20\t0\t10\tSinging", OLD_ROWS[2])
    assert not caplog.records


def refused(folder: Path, split: str, *words: str, dataset: str = "LLP") -> None:
    with pytest.raises(InputError) as error:
        load_annotations(dataset, folder, split)
    for word in words:
        assert word in str(error.value)


def test_llp_absent_file_is_refused(tmp_path):
    write_llp(tmp_path)
    (tmp_path / "AVVP_eval_visual.csv").unlink()
    refused(tmp_path, "val", "AVVP_eval_visual.csv", "no file")


def test_llp_absent_column_is_refused(tmp_path):
    write_llp(tmp_path, AVVP_eval_audio=["filename\tonset\tevent_labels", f"{CLIP_A}\t0\tDog"])
    refused(tmp_path, "test", "AVVP_eval_audio.csv: found columns ['filename', 'onset', 'event_labels']", "offset")


def test_llp_column_that_is_named_twice_is_refused(tmp_path):
    write_llp(tmp_path, AVVP_train=["filename\tevent_labels\tevent_labels", f"{CLIP_A}\tDog\tCat"])
    refused(tmp_path, "train", "AVVP_train.csv: found columns ['filename', 'event_labels', 'event_labels']")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"{CLIP_A}\t0\t4\tBarking", ("unknown class 'Barking'", "Dog")),
        (f"{CLIP_A}\t0\t11\tDog", ("offset '11'", "0 to 10")),
        (f"{CLIP_A}\t-1\t4\tDog", ("onset '-1'",)),
        (f"{CLIP_A}\tzero\t4\tDog", ("onset 'zero'",)),
        (f"{CLIP_A}\t0.5\t4\tDog", ("onset '0.5'",)),
        (f"{CLIP_A}\t0\tnan\tDog", ("offset 'nan'",)),
        (f"{CLIP_A}\t0\t4", ("3 values", "event_labels")),
        (f"{CLIP_A}\t0\t4\t", ("4 values", "event_labels")),
        (f"{CLIP_A}\t0\t4\tDog\tCat", ("5 values", "event_labels")),
    ],
)
def test_llp_bad_eval_row_is_refused_with_its_line(tmp_path, row, words):
    good = f"{CLIP_A}\t0\t1\tDog"
    write_llp(tmp_path, AVVP_eval_audio=["filename\tonset\toffset\tevent_labels", good, "", row])
    refused(tmp_path, "test", "AVVP_eval_audio.csv, line 4", *words)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("DDDDDDDDDDD_0_10\tSpeech,Dogs", ("unknown class 'Dogs'",)),
        (f"{CLIP_A}\tDog", ("repeated", CLIP_A)),
        ("tooshort\tDog", ("'tooshort'", "11 letters")),
    ],
)
def test_llp_bad_video_row_is_refused_with_its_line(tmp_path, row, words):
    write_llp(tmp_path, AVVP_train=["filename\tevent_labels", f"{CLIP_A}\tDog", row])
    refused(tmp_path, "train", "AVVP_train.csv, line 3", *words)


@pytest.mark.parametrize("lines", [["filename\tevent_labels"], [""]])
def test_llp_empty_split_is_refused(tmp_path, lines):
    write_llp(tmp_path, AVVP_train=lines)
    refused(tmp_path, "train", "AVVP_train.csv")


@pytest.mark.parametrize("dataset", DATASETS)
def test_unknown_split_is_refused(tmp_path, dataset):
    refused(tmp_path, "validation", "no split 'validation'", dataset=dataset)


# ---------------------------------------------------------------- UnAV


def unav_event(start: float, end: float, label_id: int = 36, label: str | None = None) -> dict:
    return {"segment": [start, end], "label": label or unav.UNAV_CLASSES[label_id], "label_id": label_id}


def unav_video(*events: dict, duration: float = 12.3, subset: str = "train") -> dict:
    return {"duration": duration, "annotations": list(events), "subset": subset}


def unav_id(name: str) -> str:
    return name.ljust(11, "_")


def write_unav(folder: Path, **videos: dict) -> Path:
    (folder / unav.FILE).write_text(
        json.dumps({"version": "unav100", "database": {unav_id(name): video for name, video in videos.items()}})
    )
    return folder


def test_unav_event_marks_every_second_that_it_touches(tmp_path):
    video = unav_video(unav_event(2.9, 4.1), unav_event(6, 8, label_id=0), unav_event(12, 12.3, label_id=0))
    split = unav.load_split(write_unav(tmp_path, a=video), "train")
    assert split.lengths.tolist() == [13]
    assert split.labels.audio[:, 36].nonzero().flatten().tolist() == [2, 3, 4]
    assert split.labels.audio[:, 0].nonzero().flatten().tolist() == [6, 7, 12]
    assert split.labels.visual is split.labels.audio


def test_unav_segment_rows_of_videos_of_different_lengths_follow_each_other(tmp_path):
    videos = {"a": unav_video(unav_event(0, 1), duration=3), "b": unav_video(unav_event(0, 1, 5), duration=60)}
    split = unav.load_split(write_unav(tmp_path, **videos), "train")
    assert split.offsets.tolist() == [0, 3, 63]
    assert marked(split.labels.audio) == [[0, 36], [3, 5]]
    assert marked(split.video_labels) == [[0, 36], [1, 5]]


def test_unav_video_may_last_an_hour(tmp_path):
    split = unav.load_split(write_unav(tmp_path, a=unav_video(unav_event(3599, 3600), duration=3600)), "train")
    assert marked(split.labels.audio) == [[3599, 36]]


def test_some_videos_keep_their_own_rows_in_the_order_asked_for(tmp_path):
    events = [(1, 5), (2, 6), (3, 7)]  # duration and class; each is in the video's last second
    videos = {f"v{d}": unav_video(unav_event(d - 1, d, label_id=c), duration=d) for d, c in events}
    part = unav.load_split(write_unav(tmp_path, **videos), "train").subset(torch.tensor([2, 0]))
    assert part.sample_ids == part.feature_ids == (unav_id("v3"), unav_id("v1"))
    assert part.lengths.tolist() == [3, 1]
    assert marked(part.video_labels) == [[0, 7], [1, 5]]
    assert marked(part.labels.audio) == marked(part.labels.visual) == [[2, 7], [3, 5]]


def test_unav_validation_subset_is_the_val_split(tmp_path):
    videos = {"a": unav_video(unav_event(0, 1)), "b": unav_video(unav_event(0, 1), subset="validation")}
    split = unav.load_split(write_unav(tmp_path, **videos), "val")
    assert split.sample_ids == split.feature_ids == (unav_id("b"),)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (unav_video(unav_event(0, 13.5)), ("segment [0.0, 13.5]", "13")),
        (unav_video(unav_event(-1, 3)), ("segment [-1.0, 3.0]",)),
        (unav_video(unav_event(4, 4)), ("segment [4.0, 4.0]",)),
        (unav_video(unav_event(0, float("nan"))), ("segment",)),
        (unav_video({"segment": ["0", 3], "label": "sailing", "label_id": 55}), ("segment 0': found '0'",)),
        (unav_video({"segment": [0, 1, 2], "label": "sailing", "label_id": 55}), ("segment': found [0, 1, 2]",)),
        (unav_video(unav_event(0, 1, label="skating")), ("label 'skating' with label_id 36",)),
        (unav_video({"segment": [0, 3], "label": "sailing", "label_id": 100}), ("label_id 100",)),
        (unav_video({"segment": [0, 3], "label": "sailing"}), ("label_id", "required")),
        (unav_video(duration=0), ("duration': found 0",)),
        (unav_video(duration="9"), ("duration': found '9'",)),
        (unav_video(duration=True), ("duration': found True",)),
        (unav_video(duration=3600.5), ("duration': found 3600.5", "3600")),
        ({"annotations": [], "subset": "train"}, ("duration", "required")),
        (unav_video(subset="val"), ("subset': found 'val'",)),
    ],
)
def test_unav_bad_video_is_refused_by_name(tmp_path, video, words):
    write_unav(tmp_path, good=unav_video(unav_event(0, 1)), bad=video)
    refused(tmp_path, "train", unav.FILE, unav_id("bad"), *words, dataset="UnAV")


def test_unav_repeated_video_is_refused(tmp_path):
    video = json.dumps(unav_video(unav_event(0, 1)))
    (tmp_path / unav.FILE).write_text(f'{{"database": {{"a": {video}, "a": {video}}}}}')
    refused(tmp_path, "train", "'a' more than once", dataset="UnAV")


def test_unav_file_that_breaks_off_is_refused_with_the_line(tmp_path):
    (tmp_path / unav.FILE).write_text('{"database":\n{"a": ')
    refused(tmp_path, "train", unav.FILE, "broken", "line 2", dataset="UnAV")


def test_unav_split_without_videos_is_refused(tmp_path):
    refused(write_unav(tmp_path, a=unav_video(unav_event(0, 1))), "test", "no video", "'test'", dataset="UnAV")


# ---------------------------------------------------------------- AVE

MAN, WOMAN = "Male speech, man speaking", "Female speech, woman speaking"


def write_ave(
    folder: Path, train: list[str], test: list[str] | None = None, annotations: list[str] | None = None
) -> Path:
    test = test or ["Bark&ttttttttttt&good&0&10"]
    annotations = annotations or [*test, *train]
    for name, lines in (("trainSet.txt", train), ("testSet.txt", test), ("Annotations.txt", annotations)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_ave_event_marks_its_seconds_and_the_rest_is_background(tmp_path):
    split = ave.load_split(write_ave(tmp_path, [f"{MAN}&aaaaaaaaaaa&good&2&5"]), "train")
    man = ave.AVE_CLASSES.index(MAN)
    assert marked(split.labels.audio) == [[2, man], [3, man], [4, man]]
    assert split.labels.visual is split.labels.audio
    assert marked(split.video_labels) == [[0, man]]


def test_ave_one_clip_under_two_categories_is_two_samples_with_one_feature_file(tmp_path):
    write_ave(tmp_path, [f"{MAN}&aaaaaaaaaaa&good&0&5", f"{WOMAN}&aaaaaaaaaaa&good&5&10"])
    split = ave.load_split(tmp_path, "train")
    assert split.feature_ids == ("aaaaaaaaaaa", "aaaaaaaaaaa")
    assert split.sample_ids == ("2_aaaaaaaaaaa", "3_aaaaaaaaaaa")  # lines of Annotations.txt
    assert split.video_labels.sum(1).tolist() == [1, 1]


def test_ave_line_that_ends_where_it_starts_is_background_throughout(tmp_path):
    split = ave.load_split(write_ave(tmp_path, ["Church bell&VWi2ENBuTbw&good&0&0"]), "train")
    assert not split.labels.audio.any() and not split.video_labels.any()


def test_ave_header_and_blank_lines_are_no_samples(tmp_path):
    line = "Bark&aaaaaaaaaaa&good&0&10"
    write_ave(tmp_path, [line, ""], annotations=["Category&VideoID&Quality&StartTime&EndTime", line, "", ""])
    (tmp_path / "testSet.txt").unlink()
    assert ave.load_split(tmp_path, "train").sample_ids == ("2_aaaaaaaaaaa",)


def test_ave_ids_in_train_and_test_are_reported_once(tmp_path, caplog):
    train = ["Bark&aaaaaaaaaaa&good&0&10", "Bark&bbbbbbbbbbb&good&0&10"]
    test = ["Bus&aaaaaaaaaaa&good&0&10", "Bus&ccccccccccc&good&0&10"]
    write_ave(tmp_path, train, test)
    ave.load_split(tmp_path, "train")
    ave.load_split(tmp_path, "test")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1 videos are in both train and test: aaaaaaaaaaa" in caplog.text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Barking&bbbbbbbbbbb&good&0&10", ("unknown category 'Barking'", "Bark")),
        ("Bark&bbbbbbbbbbb&good&0", ("4 values", "end")),
        ("Category&VideoID&Quality&StartTime&EndTime", ("unknown category 'Category'",)),  # no first line
        ("Bark&&good&0&10", ("5 values", "video id")),
        ("Bark&bbbbbbbbbbb&good&0&11", ("end '11'", "0 to 10")),
        ("Bark&bbbbbbbbbbb&good&-1&5", ("start '-1'",)),
        ("Bark&bbbbbbbbbbb&good&6&5", ("end 5 before start 6",)),
        ("Bark&bbbbbbbbbbb&good&a&5", ("start 'a'",)),
        ("Bark&aaaaaaaaaaa&good&0&10", ("repeated", "aaaaaaaaaaa")),
        ("Bark&ccccccccccc&good&0&10", ("not in Annotations.txt", "ccccccccccc")),
    ],
)
def test_ave_bad_line_is_refused_with_its_number(tmp_path, line, words):
    good = ["Bark&aaaaaaaaaaa&good&0&10", "Bark&bbbbbbbbbbb&good&0&10"]
    write_ave(tmp_path, [good[0], line], annotations=good)
    refused(tmp_path, "train", "trainSet.txt, line 2", *words, dataset="AVE")


def test_ave_line_of_too_many_fields_is_refused_with_its_number(tmp_path):
    write_ave(tmp_path, ["Bark&aaaaaaaaaaa&good&0&10", "Bark&bbbbbbbbbbb&good&0&4&9"])
    refused(tmp_path, "train", "Annotations.txt, line 3", "6 values", dataset="AVE")


def test_ave_empty_or_absent_file_is_refused(tmp_path):
    write_ave(tmp_path, ["Bark&aaaaaaaaaaa&good&0&10"])
    (tmp_path / "testSet.txt").write_text("\n")
    refused(tmp_path, "test", "testSet.txt", "0 rows", dataset="AVE")
    refused(tmp_path, "val", "valSet.txt", "no file", dataset="AVE")


# ---------------------------------------------------------------- the published files


@needs_real_annotations
@pytest.mark.parametrize(
    ("dataset", "counts"),
    [("LLP", (10_000, 649, 1_200)), ("UnAV", (6_489, 2_134, 2_167)), ("AVE", (3_339, 402, 402))],
)
def test_published_splits_have_the_published_number_of_videos(dataset, counts):
    splits = [load_annotations(dataset, REAL_ANNOTATIONS / dataset, name) for name in ("train", "val", "test")]
    assert tuple(split.num_videos for split in splits) == counts
    for split in splits:
        assert len(set(split.sample_ids)) == split.num_videos
        assert split.labels is None or split.labels.audio.shape == (int(split.lengths.sum()), len(split.classes))


@needs_real_annotations
def test_published_llp_videos_without_events_of_a_modality_are_as_many_as_known():
    splits = [llp.load_split(REAL_ANNOTATIONS / "LLP", name) for name in ("val", "test")]
    silent = sum((~s.labels.audio.view(-1, 250).any(1)).sum().item() for s in splits)
    invisible = sum((~s.labels.visual.view(-1, 250).any(1)).sum().item() for s in splits)
    assert (silent, invisible) == (10, 191)  # 9 without an audio row, and one whose only row ends at its onset
