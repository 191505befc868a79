"""UCF-101: lists, sound, pieces, and what is said of data that are not as they should be."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from lavish.clip_splits import SURVEY_FILE, load_ucf101, read_classes, survey
from simulation.generated_clips import save_clip
from tests.tiny_clips import write_tiny_ucf
from utils.errors import InputError


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_tiny_ucf(tmp_path_factory.mktemp("ucf"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "ucf")
    return tmp_path / "ucf"


def load(folder: Path, **settings):
    return load_ucf101(folder, folder / "lists", 1, folder / "packed", **settings)


def test_classes_come_in_the_order_of_their_numbers(tmp_path: Path):
    (tmp_path / "classInd.txt").write_text("2 Drum\n3 Mime\n1 Clap\n")
    assert read_classes(tmp_path) == ("Clap", "Drum", "Mime")


def test_only_clips_that_carry_sound_are_kept_and_their_number_is_said(folder: Path, capsys):
    data = load(folder)
    assert data.splits["train"].classes == ("Clap", "Drum")
    assert len(data.sources) == 16
    said = capsys.readouterr().out
    assert "fold 1, train: 12 of 18 clips have audio, in 2 of 3 classes" in said
    assert "fold 1, test: 4 of 6 clips have audio, in 2 of 3 classes" in said
    assert (folder / "packed" / SURVEY_FILE).read_text().count(",no\n") == 8


def test_silent_clips_are_kept_when_they_are_asked_for(folder: Path):
    data = load(folder, sound_only=False)
    assert data.splits["train"].classes == ("Clap", "Drum", "Mime") and len(data.sources) == 24


def test_the_survey_opens_no_file_again(folder: Path, monkeypatch):
    load(folder)
    monkeypatch.setattr("lavish.clip_splits.av.open", lambda path: pytest.fail(f"{path} was opened again"))
    assert len(load(folder).sources) == 16


def write_surveyed(
    folder: Path,
    train: list[str],
    test: list[str],
    classes: tuple[str, ...] = ("Clap", "Drum"),
    facts: dict[str, tuple[float, str]] | None = None,
) -> None:
    """Lists, empty files for what they name, and a survey of these: seconds and whether they carry sound."""
    (folder / "lists").mkdir()
    numbered = [f"{number} {name}" for number, name in enumerate(classes, start=1)]
    for name, lines in {"classInd": numbered, "trainlist01": train, "testlist01": test}.items():
        (folder / f"lists/{name}.txt").write_text("\n".join(lines) + "\n")
    rows = ["clip,bytes,changed_ns,seconds,sound"]
    for line in (*train, *test):
        path = folder / "videos" / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        seconds, sound = (facts or {}).get(path.stem, (1.0, "yes"))
        rows.append(f"{path.parent.name}/{path.stem},0,{path.stat().st_mtime_ns},{seconds},{sound}")
    (folder / "packed").mkdir()
    (folder / "packed" / SURVEY_FILE).write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("groups", "held_out"),
    [
        ([8, 9, 10, 11, 12, 25], [11, 12, 25]),  # the last three
        ([8, 9, 10, 11], [9, 10, 11]),
        ([8, 9, 10], [10]),  # too few to spare three
        ([8, 9], [9]),
        ([8], []),
    ],
)
def test_validation_holds_the_last_groups_out_of_the_training_list(
    tmp_path: Path, groups: list[int], held_out: list[int]
):
    train = [f"Clap/v_Clap_g{group:02d}_c{clip:02d}.avi 1" for group in reversed(groups) for clip in (1, 2)]
    write_surveyed(tmp_path, train, ["Clap/v_Clap_g01_c01.avi"])
    splits = load(tmp_path).splits

    def groups_of(split: str) -> list[int]:
        return sorted(int(sample.split("_g")[1][:2]) for sample in splits[split].sample_ids)

    assert groups_of("val") == sorted(held_out * 2)
    assert groups_of("train") == sorted([group for group in groups if group not in held_out] * 2)
    assert groups_of("test") == [1]


def test_labels_are_places_among_the_classes_that_carry_sound_in_the_order_of_their_numbers(tmp_path: Path):
    names = ("Yodel", "Mime", "Clap")
    train = [f"{name}/v_{name}_g02_c01.avi {number}" for number, name in enumerate(names, start=1)][::-1]
    test = [f"{name}/v_{name}_g01_c01.avi" for name in names]
    write_surveyed(tmp_path, train, test, names, {f"v_Mime_g0{group}_c01": (1.0, "no") for group in (1, 2)})
    splits = load(tmp_path).splits
    assert splits["test"].classes == ("Yodel", "Clap")
    assert splits["test"].sample_ids == ("Yodel/v_Yodel_g01_c01", "Clap/v_Clap_g01_c01")
    assert splits["test"].labels.tolist() == [0, 1] and splits["train"].labels.tolist() == [1, 0]
    whole = load(tmp_path, sound_only=False).splits
    assert whole["test"].classes == names and whole["test"].labels.tolist() == [0, 1, 2]


def test_a_class_that_no_training_clip_has_is_left_out(tmp_path: Path, capsys):
    test = ["Drum/v_Drum_g01_c01.avi", "Clap/v_Clap_g01_c01.avi"]
    write_surveyed(tmp_path, ["Drum/v_Drum_g02_c01.avi 2"], test)
    splits = load(tmp_path).splits
    assert splits["test"].classes == ("Drum",) and splits["test"].sample_ids == ("Drum/v_Drum_g01_c01",)
    assert "classes without a training clip: Clap" in capsys.readouterr().out


def test_an_audio_track_without_a_packet_is_no_sound(folder: Path):
    path = folder / "videos/Drum/v_Drum_g02_c01.avi"
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.height, video.width, video.pix_fmt = 24, 24, "yuv420p"
        container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for _ in range(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((24, 24, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
    with av.open(path) as container:
        assert len(container.streams.audio) == 1
    assert "Drum/v_Drum_g02_c01" not in {source.name for source in load(folder).sources}


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (3.18, [0]),  # half a frame of 20 a second less than 64 frames is still 64
        (3.17, []),
        (6.37, [0]),
        (6.38, [0, 3.2]),
        (16.0, [0, 3.2, 6.4, 9.6, 12.8]),
    ],
)
def test_a_clip_is_cut_into_as_many_pieces_of_64_frames_as_it_has(tmp_path: Path, seconds: float, starts: list[float]):
    long, other = "Clap/v_Clap_g02_c01.avi", "Clap/v_Clap_g02_c02.avi"
    facts = {"v_Clap_g02_c01": (seconds, "yes"), "v_Clap_g02_c02": (4.0, "yes")}
    write_surveyed(tmp_path, [long, other], ["Clap/v_Clap_g01_c01.avi"], facts=facts)
    data = load(tmp_path, pieces=True)
    items = [source for source in data.sources if "g02_c01" in source.name]
    assert [source.start for source in items] == pytest.approx(starts)
    assert all(source.seconds == 3.2 and source.path.name == "v_Clap_g02_c01.avi" for source in items)
    names = [source.name for source in items]
    assert list(data.splits["train"].sample_ids) == [*names, "Clap/v_Clap_g02_c02_0"]
    assert data.splits["train"].labels.tolist() == [0] * (len(names) + 1)


def test_pieces_of_a_file_are_cut_by_the_length_that_it_declares(tmp_path: Path):
    folder = write_tiny_ucf(tmp_path / "long", seconds=6.5, clips=1)  # 130 frames at 20 a second
    data = load(folder, pieces=True)
    of_clip = [source.name[-2:] for source in data.sources if source.name.startswith("Clap/v_Clap_g01_c01")]
    assert of_clip == ["_0", "_1"] and data.splits["test"].num_clips == 4


def test_the_fold_names_the_lists(folder: Path):
    with pytest.raises(InputError, match="list02"):
        load_ucf101(folder, folder / "lists", 2, folder / "packed")


def test_a_file_that_changed_is_surveyed_again(folder: Path):
    load(folder)
    silent = next((folder / "videos/Mime").iterdir())
    shutil.copy(silent, folder / "videos/Drum/v_Drum_g02_c01.avi")
    assert "Drum/v_Drum_g02_c01" not in {source.name for source in load(folder).sources}


def test_clips_shorter_than_a_piece_are_counted_and_no_item_left_is_an_error(folder: Path, capsys):
    with pytest.raises(InputError, match="long enough"):
        load(folder, pieces=True)
    assert "16 clips shorter than 64 frames" in capsys.readouterr().out


def test_a_listed_clip_without_a_file_is_named_and_may_be_left_out(folder: Path):
    (folder / "videos/Drum/v_Drum_g02_c01.avi").unlink()
    with pytest.raises(InputError, match=r"1 of 24 listed clips.*Drum/v_Drum_g02_c01.*--allow_missing"):
        load(folder)
    assert len(load(folder, allow_missing=True).sources) == 15


def test_a_class_folder_too_many_is_an_error(folder: Path):
    (folder / "videos/Yodel").mkdir()
    with pytest.raises(InputError, match=r"1 folders not named after a class: Yodel"):
        load(folder)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Drum/v_Drum_g02_c01.avi 1", r"g02_c01\.avi 1'; .* with classes of classInd.txt"),
        ("Yodel/v_Yodel_g02_c01.avi 4", r"Yodel_g02_c01\.avi 4'; .* with classes of classInd.txt"),
        ("v_Drum.avi", "v_Drum.avi'; expected"),
        ("Clap/v_Clap_g02_c01.avi 1", r"g02_c01\.avi 1'; .* each clip once"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(folder: Path, line: str, found: str):
    path = folder / "lists/trainlist01.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(InputError, match=found) as error:
        load(folder)
    assert f"line {len(lines) + 1}" in str(error.value)


def test_a_file_that_is_no_video_is_named(folder: Path):
    (folder / "videos/Drum/v_Drum_g02_c01.avi").write_bytes(b"no video at all")
    with pytest.raises(InputError, match=r"1 of 24 files that cannot be opened: .*v_Drum_g02_c01.avi"):
        load(folder)


def test_folds_that_list_the_same_clips_share_what_is_packed(folder: Path):
    lists = folder / "lists"
    numbers = {
        name: number for number, name in (line.split() for line in (lists / "classInd.txt").read_text().splitlines())
    }
    test, train = ((lists / f"{name}list01.txt").read_text().splitlines() for name in ("test", "train"))
    turned = {
        "test": [line.split()[0] for line in train[:6]],
        "train": [f"{line} {numbers[line.split('/')[0]]}" for line in test],
    }
    turned["train"] += train[6:]
    for name, lines in turned.items():
        (lists / f"{name}list02.txt").write_text("\n".join(lines) + "\n")
    assert load_ucf101(folder, lists, 2, folder / "packed").sources == load(folder).sources


def test_a_clip_that_is_trained_and_tested_on_is_an_error(folder: Path):
    with (folder / "lists/testlist01.txt").open("a") as file:
        file.write("Clap/v_Clap_g02_c01.avi\n")
    with pytest.raises(InputError, match=r"1 clips that are also in trainlist01.txt: Clap/v_Clap_g02_c01"):
        load(folder)


@pytest.mark.parametrize("line", ["3 Yodel", "4 Drum"])
def test_a_repeated_class_or_number_is_an_error(folder: Path, line: str):
    with (folder / "lists/classInd.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=f"line 4: found line '{line}'; expected .*each number and class once"):
        load(folder)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xff\xfe\x00",
        b"clip,bytes\nClap/v_Clap_g01_c01,12\n",
        b"clip,bytes,changed_ns,seconds,sound\nClap/v_Clap_g01_c01,1,2,nan,yes\n",
        b"clip,bytes,changed_ns,seconds,sound\nClap/v_Clap_g01_c01,1\n",
    ],
)
def test_a_damaged_survey_is_made_anew(folder: Path, damaged: bytes):
    load(folder)
    table = folder / "packed" / SURVEY_FILE
    whole = table.read_bytes()
    table.write_bytes(damaged)
    load(folder)
    assert table.read_bytes() == whole


def test_a_length_that_is_no_number_is_surveyed_again(folder: Path):
    load(folder)
    table = folder / "packed" / SURVEY_FILE
    whole = table.read_text()
    first, second, *others = whole.splitlines()
    name, size, changed, _, sound = second.split(",")
    table.write_text("\n".join([first, f"{name},{size},{changed},nan,{sound}", *others]) + "\n")
    load(folder)
    assert table.read_text() == whole


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_the_survey_finds_length_and_sound_of_every_container(tmp_path: Path, suffix: str):
    for name, samples in (("mute", None), ("heard", np.zeros(32_000, np.int16))):
        save_clip(tmp_path / f"{name}{suffix}", np.zeros((20, 24, 24, 3), np.uint8), samples)
    facts = survey({name: tmp_path / f"{name}{suffix}" for name in ("mute", "heard")}, tmp_path)
    assert facts.seconds.to_dict() == pytest.approx({"mute": 2, "heard": 2}, abs=0.05)
    assert facts.sound.to_dict() == {"mute": False, "heard": True}


def test_a_file_without_a_video_track_is_named(folder: Path):
    with av.open(folder / "videos/Drum/v_Drum_g02_c01.avi", "w", format="wav") as container:
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(InputError, match=r"v_Drum_g02_c01\.avi \(no video track\)"):
        load(folder)


def test_a_file_that_cannot_be_opened_may_be_left_out(folder: Path, capsys):
    (folder / "videos/Drum/v_Drum_g02_c01.avi").write_bytes(b"no video at all")
    data = load(folder, allow_missing=True)
    assert len(data.sources) == 15 and "leaving out 1 of 24 files" in capsys.readouterr().out
