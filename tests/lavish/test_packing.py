"""Packed clips."""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lavish import packing
from lavish.clip_splits import ClipData, ClipSource, load_ucf101
from lavish.packing import ClipFormat, decode_clip, open_pack
from simulation.generated_clips import draw, play, save_clip
from tests.test_reference_cases import every_case_of, opened
from tests.tiny_clips import write_tiny_ucf
from utils.errors import InputError

FORM = ClipFormat(num_frames=3, size=20, frame_rate=10, sound="small", choice="centres")
NOISE = np.random.default_rng(0).integers(-(2**15), 2**15, 32_000).astype(np.int16)
LEVELS = range(20, 220, 10)  # of 20 frames, which tell when each is shown


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_tiny_ucf(tmp_path_factory.mktemp("ucf"))


@pytest.fixture
def data(written: Path, tmp_path: Path) -> ClipData:
    shutil.copytree(written, tmp_path / "ucf")
    return load_ucf101(tmp_path / "ucf", tmp_path / "ucf/lists", 1, tmp_path / "survey")


def test_a_pack_holds_what_decoding_gives(data: ClipData, tmp_path: Path):
    pack = open_pack(tmp_path, data.sources, FORM)
    frames, sound, _ = decode_clip(data.sources[5], FORM)
    row = pack.row_of[data.sources[5].name]
    assert np.array_equal(pack.frames[row], frames) and np.array_equal(pack.sound[row], sound)
    assert pack.frames.dtype == np.uint8 and frames.std() > 10 and sound.std() > 0.1


def test_a_whole_pack_is_opened_without_decoding(data: ClipData, tmp_path: Path, monkeypatch):
    open_pack(tmp_path, data.sources, FORM)
    monkeypatch.setattr(packing, "decode_clip", lambda *args: pytest.fail("decoded again"))
    open_pack(tmp_path, data.sources, FORM)


def test_a_killed_packing_goes_on_where_it_stopped(data: ClipData, tmp_path: Path, monkeypatch):
    whole = open_pack(tmp_path / "whole", data.sources, FORM)
    decoded = []

    def killed(source, form):
        if len(decoded) == 10:
            raise KeyboardInterrupt
        decoded.append(source.name)
        return decode_clip(source, form)

    monkeypatch.setattr(packing, "FLUSH_EVERY", 4)
    monkeypatch.setattr(packing, "decode_clip", killed)
    with pytest.raises(KeyboardInterrupt):
        open_pack(tmp_path, data.sources, FORM)
    assert not (tmp_path / FORM.folder_name / "pack.json").exists()
    again = []
    monkeypatch.setattr(packing, "decode_clip", lambda *args: again.append(args[0].name) or decode_clip(*args))
    resumed = open_pack(tmp_path, data.sources, FORM)
    assert np.array_equal(resumed.frames, whole.frames) and np.array_equal(resumed.sound, whole.sound)
    assert 0 < len(again) < len(data.sources)


def test_a_changed_file_is_packed_again(tmp_path: Path):
    source = write_clip(tmp_path / "clip.avi", (50,) * 20)
    packed_at = source.path.stat().st_mtime_ns
    open_pack(tmp_path, (source,), FORM)
    write_clip(tmp_path / "clip.avi", (200,) * 20)
    assert open_pack(tmp_path, (source,), FORM).frames.mean() == pytest.approx(200, abs=5)
    os.utime(source.path, ns=(packed_at, packed_at + 1))  # of the same size
    np.load(tmp_path / FORM.folder_name / "frames.npy", mmap_mode="r+")[:] = 0
    assert open_pack(tmp_path, (source,), FORM).frames.mean() == pytest.approx(200, abs=5)


def test_a_truncated_avi_is_named_and_the_others_are_packed(data: ClipData, tmp_path: Path, capsys):
    path = data.sources[2].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InputError, match=r"1 of 16 items that cannot be decoded") as error:
        open_pack(tmp_path, data.sources, FORM)
    assert path.stem in str(error.value) and "--allow_missing" in str(error.value)
    assert path.name in capsys.readouterr().out  # with the reason
    pack = open_pack(tmp_path, data.sources, FORM, allow_missing=True)
    assert data.sources[2].name not in pack.row_of and len(pack.row_of) == len(data.sources) - 1
    with pytest.raises(InputError, match="cannot be decoded"):
        open_pack(tmp_path, data.sources, FORM)


def test_a_clip_without_sound_is_silent(written: Path):
    source = ClipSource("mime", next((written / "videos/Mime").iterdir()))
    _, waveform, _ = decode_clip(source, replace(FORM, sound="waveform"))
    assert waveform.shape == (160_000,) and not waveform.any()
    _, banks, _ = decode_clip(source, FORM)
    # Kaldi's smallest energy, 2^-23, normalised by the release's mean and twice its deviation
    np.testing.assert_allclose(banks, (np.log(2.0**-23) + 4.1426) / (2 * 3.2001), atol=1e-3)


def test_a_piece_shows_its_part_of_the_clip(data: ClipData):
    source = data.sources[0]
    whole, _, _ = decode_clip(source, replace(FORM, num_frames=12))
    piece, _, _ = decode_clip(replace(source, start=0.5, seconds=0.4), replace(FORM, num_frames=4))
    assert np.array_equal(piece, whole[5:9])
    with pytest.raises(InputError, match="before item"):
        decode_clip(replace(source, start=5.0, seconds=1.0), FORM)


def write_clip(path: Path, levels: Sequence[int] = (128,) * 20, samples: np.ndarray | None = None) -> ClipSource:
    """Grey frames of these levels, ten a second, and two seconds of noise where no samples are given."""
    frames = np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])
    save_clip(path, frames, NOISE if samples is None else samples)
    return ClipSource("clip", path)


def test_packed_pixels_have_the_colours_and_places_of_the_file(tmp_path: Path):
    colours = np.array([[[220, 40, 40], [40, 200, 60]], [[50, 60, 210], [230, 230, 230]]], np.uint8)  # of quadrants
    image = colours.repeat(16, axis=0).repeat(16, axis=1)
    save_clip(tmp_path / "clip.avi", np.stack([image] * 20), None)
    frames, _, _ = decode_clip(ClipSource("clip", tmp_path / "clip.avi"), replace(FORM, size=16))
    centres = frames[:, 4::8, 4::8].astype(int)
    assert np.abs(centres - colours).max() < 10


def test_packed_pixels_are_those_of_torchs_bicubic_resizing_rounded_and_kept_in_range(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = rng.choice([0, 255], (20, 8, 8, 1)).repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3).astype(np.uint8)
    save_clip(tmp_path / "clip.avi", images, None)
    with av.open(tmp_path / "clip.avi") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames, _, _ = decode_clip(ClipSource("clip", tmp_path / "clip.avi"), replace(FORM, num_frames=20, size=75))
    pixels = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).double()
    resized = torch.nn.functional.interpolate(pixels, size=(75, 75), mode="bicubic")
    assert resized.min() < -5 and resized.max() > 260
    expected = resized.round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    different = np.abs(frames - expected)
    assert different.max() <= 1 and different.mean() < 1e-3  # but for rounding


@pytest.mark.parametrize(
    ("choice", "num_frames", "shown"),
    [("released", 3, [0, 9, 19]), ("centres", 3, [3, 10, 16]), ("centres", 1, [10]), ("released", 4, [0, 6, 12, 19])],
)
def test_the_released_choice_takes_first_and_last_frame_and_centres_the_middles_of_equal_parts(
    tmp_path: Path, choice: str, num_frames: int, shown: list[int]
):
    source = write_clip(tmp_path / "clip.avi", LEVELS)
    frames, _, _ = decode_clip(source, replace(FORM, choice=choice, num_frames=num_frames))
    assert np.abs(frames.mean(axis=(1, 2, 3)) - np.array(LEVELS)[shown]).max() < 5


@pytest.mark.parametrize("seconds", [1.5, 3.0])
def test_a_packed_waveform_is_the_files_cut_or_followed_by_silence(tmp_path: Path, seconds: float):
    source = write_clip(tmp_path / "clip.avi")
    _, waveform, has_sound = decode_clip(source, replace(FORM, sound="waveform", waveform_seconds=seconds))
    expected = np.zeros(round(16_000 * seconds), np.int16)
    expected[: len(NOISE)] = NOISE[: len(expected)]
    assert has_sound and waveform.dtype == np.int16
    np.testing.assert_array_equal(waveform, expected)


def test_a_piece_sounds_as_its_part_of_the_clip(tmp_path: Path):
    source = replace(write_clip(tmp_path / "clip.avi"), start=0.5, seconds=0.75)
    _, waveform, _ = decode_clip(source, replace(FORM, sound="waveform", waveform_seconds=1.0))
    np.testing.assert_array_equal(waveform[:12_000], NOISE[8_000:20_000])
    assert not waveform[12_000:].any()


def test_the_rest_of_a_clip_is_a_piece_without_an_end(tmp_path: Path):
    source = replace(write_clip(tmp_path / "clip.avi", LEVELS), start=1.48)  # nearer to 1.5 than to 1.4
    frames, waveform, _ = decode_clip(
        source, replace(FORM, num_frames=5, sound="waveform", waveform_seconds=0.52, choice="released")
    )
    assert np.abs(frames.mean(axis=(1, 2, 3)) - np.array(LEVELS)[15:]).max() < 5
    np.testing.assert_array_equal(waveform, NOISE[23_680:])


@every_case_of("lavish_filter_banks")
def test_filter_banks_packed_from_a_file_equal_the_released_code(path: Path, tmp_path: Path):
    with opened(path) as case:
        source = write_clip(tmp_path / "clip.avi", (128,) * 100, case.array("pcm"))
        for name in ("vit", "swin"):
            _, banks, _ = decode_clip(source, ClipFormat(len(case.array("starts")), 16, 10, name))
            tolerance = 2**-10 * np.abs(case.array(name)).max()  # of float16
            np.testing.assert_allclose(banks, case.array(name), rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("choice", "num_frames", "heard"),
    [("centres", 4, [0, 1, 2, 3]), ("released", 4, [0, 1, 2, 3]), ("centres", 1, [1]), ("released", 1, [0])],
)
def test_every_packed_spectrogram_is_of_its_own_second(tmp_path: Path, choice: str, num_frames: int, heard: list[int]):
    hertz = np.array([500, 1000, 2000, 4000])  # of a tone a second
    times = np.arange(16_000) / 16_000
    samples = np.concatenate([8000 * np.sin(2 * np.pi * tone * times) for tone in hertz]).astype(np.int16)
    source = write_clip(tmp_path / "clip.avi", (128,) * 40, samples)
    _, banks, _ = decode_clip(source, replace(FORM, num_frames=num_frames, choice=choice, sound="vit"))
    edges = np.linspace(*(1127 * np.log(1 + np.array([20, 8000]) / 700)), 128 + 2)  # of Kaldi's bands, in mel
    bands = np.abs(1127 * np.log(1 + hertz / 700)[:, None] - edges[1:-1]).argmin(axis=-1)
    loudest = banks[:, 20].argmax(axis=-1)  # 0.2 s after the start of each window
    assert np.abs(loudest - bands[heard]).max() <= 1


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 4},
        {"size": 24},
        {"frame_rate": 8},
        {"sound": "vit"},
        {"choice": "released"},
        {"sound": "waveform", "waveform_seconds": 2.0},
    ],
)
def test_packs_of_another_format_lie_in_another_folder(change: dict[str, object]):
    assert replace(FORM, **change).folder_name != FORM.folder_name


def test_waveforms_of_another_length_lie_in_another_folder():
    short, long = (ClipFormat(sound="waveform", waveform_seconds=seconds) for seconds in (3.2, 10.0))
    assert short.folder_name != long.folder_name


def test_other_pieces_of_the_same_files_are_packed_again(tmp_path: Path):
    source = write_clip(tmp_path / "clip.avi", LEVELS)
    for start, seconds, shown in ((0.0, 0.5, 2), (1.0, 0.5, 12), (1.0, 0.1, 10)):
        piece = replace(source, start=start, seconds=seconds)
        frames = open_pack(tmp_path, (piece,), replace(FORM, num_frames=1)).frames
        assert frames.mean() == pytest.approx(LEVELS[shown], abs=5)


def test_every_item_is_packed_in_its_own_row_when_there_are_more_than_are_flushed_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(packing, "FLUSH_EVERY", 2)
    levels = (30, 80, 130, 180, 230)
    clips = [write_clip(tmp_path / f"{level}.avi", (level,) * 20) for level in levels]
    sources = tuple(replace(clip, name=str(level)) for clip, level in zip(clips, levels, strict=True))
    pack = open_pack(tmp_path, sources, FORM)
    for level in levels:
        assert pack.frames[pack.row_of[str(level)]].mean() == pytest.approx(level, abs=5)


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch):
    source = write_clip(tmp_path / "clip.avi")
    asked = []

    def full(file: int, start: int, num_bytes: int) -> None:
        asked.append(num_bytes)
        if len(asked) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packing.os, "posix_fallocate", full)
        with pytest.raises(InputError, match=r"no room left.*--packed_dir"):
            open_pack(tmp_path, (source,), FORM)
    assert asked[0] > 3 * 20 * 20 * 3  # all pixels
    assert not list(tmp_path.glob("**/*.npy"))
    assert open_pack(tmp_path, (source,), FORM).row_of == {"clip": 0}


def test_a_new_pack_takes_the_place_of_one_that_is_read_without_changing_it(tmp_path: Path):
    source = write_clip(tmp_path / "clip.avi", (50,) * 20)
    read = open_pack(tmp_path / "packed", (source,), FORM)
    write_clip(tmp_path / "clip.avi", (200,) * 20)
    assert open_pack(tmp_path / "packed", (source,), FORM).frames.mean() == pytest.approx(200, abs=5)
    assert read.frames.mean() == pytest.approx(50, abs=5)
    assert [path.name for path in (tmp_path / "packed").iterdir() if path.is_dir()] == [FORM.folder_name]


def test_a_clip_that_failed_once_is_tried_again(tmp_path: Path, monkeypatch):
    sources = tuple(replace(write_clip(tmp_path / f"{name}.avi"), name=name) for name in "ab")

    def broken(source: ClipSource, form: ClipFormat):
        if source.name == "b":
            raise InputError(source.path, "nothing for now", "a clip", "Wait.")
        return decode_clip(source, form)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "decode_clip", broken)
        assert open_pack(tmp_path, sources, FORM, allow_missing=True).row_of == {"a": 0}
    whole = open_pack(tmp_path, sources, FORM, allow_missing=True)
    assert whole.row_of == {"a": 0, "b": 1} and np.array_equal(whole.frames[0], whole.frames[1])


def test_the_manifest_names_every_item_and_its_file(data: ClipData, tmp_path: Path):
    open_pack(tmp_path, data.sources, FORM)
    manifest = json.loads((tmp_path / FORM.folder_name / "pack.json").read_text())
    assert [item[0] for item in manifest["items"]] == [source.name for source in data.sources]


def silent_sources(folder: Path) -> tuple[ClipSource, ...]:
    """A video with sound, one without, and a piece of the first that starts when its sound is over."""
    rng = np.random.default_rng(0)
    frames = draw("disc", 24, rng, 20)
    save_clip(folder / "heard.avi", frames, play(400.0, 1.0, rng))  # of two seconds
    save_clip(folder / "mute.avi", frames, None)
    piece = ClipSource("late", folder / "heard.avi", start=1.2, seconds=0.8)
    return (ClipSource("heard", folder / "heard.avi"), ClipSource("mute", folder / "mute.avi"), piece)


def test_items_without_sound_are_counted_named_and_kept_left_out_or_refused(tmp_path: Path, capsys):
    sources = silent_sources(tmp_path)
    with pytest.raises(InputError, match=r"2 of 3 items without an audio .*--no-sound_only.*: mute, late.*--allow"):
        open_pack(tmp_path, sources, FORM, silent="refused")
    assert open_pack(tmp_path, sources, FORM, silent="left out").row_of == {"heard": 0}
    assert "leaving out 2 of 3 items without an audio track" in capsys.readouterr().out
    kept = open_pack(tmp_path, sources, FORM)
    assert set(kept.row_of) == {"heard", "mute", "late"} and np.ptp(kept.sound[1][0, :5]) == 0
    assert "keeping 2 of 3 items" in capsys.readouterr().out


def test_a_pack_of_which_nothing_is_left_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="2 of 2 items without an audio track"):
        open_pack(tmp_path, silent_sources(tmp_path)[1:], FORM, silent="left out")


@pytest.mark.parametrize("name", ["frames", "sound", "done"])
@pytest.mark.parametrize("damage", ["absent", "cut", "garbage", "empty", "shape", "type"])
def test_a_damaged_pack_is_made_again(data: ClipData, tmp_path: Path, name: str, damage: str):
    sources = data.sources[:2]
    whole = open_pack(tmp_path, sources, FORM)
    before = whole.frames.copy(), whole.sound.copy()
    path = tmp_path / FORM.folder_name / f"{name}.npy"
    array, content = np.load(path), path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage in ("garbage", "empty"):
        path.write_bytes(b"no array" * 20 if damage == "garbage" else b"")
    elif damage in ("shape", "type"):
        np.save(path, array[:1] if damage == "shape" else array.astype(np.int32))
    again = open_pack(tmp_path, sources, FORM)
    assert np.array_equal(again.frames, before[0]) and np.array_equal(again.sound, before[1])
    assert set(again.row_of) == {source.name for source in sources}
