"""Packed clips."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataloaders.clips import packing
from dataloaders.clips.packing import ClipFormat, decode_clip, open_pack
from dataloaders.clips.splits import ClipData, ClipSource
from dataloaders.clips.ucf101 import load_ucf101
from dataloaders.simulation.clips import draw, play, write_video
from tests.tiny_clips import write_tiny_ucf
from utils.errors import InputError

FORM = ClipFormat(num_frames=3, size=20, frame_rate=10, sound="small", choice="centres")


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


def test_a_changed_file_is_packed_again(data: ClipData, tmp_path: Path):
    before = open_pack(tmp_path, data.sources, FORM).frames[0].copy()
    shutil.copy(data.sources[3].path, data.sources[0].path)
    assert not np.array_equal(open_pack(tmp_path, data.sources, FORM).frames[0], before)


def test_a_truncated_avi_is_named_and_the_others_are_packed(data: ClipData, tmp_path: Path, capsys):
    path = data.sources[2].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InputError, match=r"1 items that cannot be decoded") as error:
        open_pack(tmp_path, data.sources, FORM)
    assert path.name in str(error.value) and "--allow_missing" in str(error.value)
    pack = open_pack(tmp_path, data.sources, FORM, allow_missing=True)
    assert data.sources[2].name not in pack.row_of and len(pack.row_of) == len(data.sources) - 1
    with pytest.raises(InputError, match="could not be decoded"):
        open_pack(tmp_path, data.sources, FORM)


def test_a_clip_without_sound_is_silent(written: Path):
    source = ClipSource("mime", next((written / "videos/Mime").iterdir()))
    _, waveform, _ = decode_clip(source, replace(FORM, sound="waveform"))
    assert waveform.shape == (160_000,) and not waveform.any()
    _, banks, _ = decode_clip(source, FORM)
    assert (banks == banks[0, 0, 0]).all()


def test_a_piece_shows_its_part_of_the_clip(data: ClipData):
    source = data.sources[0]
    whole, _, _ = decode_clip(source, replace(FORM, num_frames=12))
    piece, _, _ = decode_clip(replace(source, start=0.5, seconds=0.4), replace(FORM, num_frames=4))
    assert np.array_equal(piece, whole[5:9])
    with pytest.raises(InputError, match="before the item"):
        decode_clip(replace(source, start=5.0, seconds=1.0), FORM)


def test_too_little_room_is_said_before_anything_is_written(data: ClipData, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(InputError, match="GB for the pack"):
        open_pack(tmp_path, data.sources, FORM)


def test_the_manifest_names_every_item_and_its_file(data: ClipData, tmp_path: Path):
    open_pack(tmp_path, data.sources, FORM)
    manifest = json.loads((tmp_path / FORM.folder_name / "pack.json").read_text())
    assert [item[0] for item in manifest["items"]] == [source.name for source in data.sources]


def silent_sources(folder: Path) -> tuple[ClipSource, ...]:
    """A video with sound, one without, and a piece of the first that starts when its sound is over."""
    rng = np.random.default_rng(0)
    frames = draw("disc", 24, rng, 20)
    write_video(folder / "heard.avi", frames, play(400.0, 1.0, rng))  # of two seconds
    write_video(folder / "mute.avi", frames, None)
    piece = ClipSource("late", folder / "heard.avi", start=1.2, seconds=0.8)
    return (ClipSource("heard", folder / "heard.avi"), ClipSource("mute", folder / "mute.avi"), piece)


def test_items_without_sound_are_counted_named_and_kept_left_out_or_refused(tmp_path: Path, capsys):
    sources = silent_sources(tmp_path)
    with pytest.raises(InputError, match=r"2 of 3 items without sound: mute, late.*--allow_missing.*--no-sound_only"):
        open_pack(tmp_path, sources, FORM, silent="refused")
    assert open_pack(tmp_path, sources, FORM, silent="left out").row_of == {"heard": 0}
    assert "left out: 2 of 3 items without sound: mute, late" in capsys.readouterr().out
    kept = open_pack(tmp_path, sources, FORM)
    assert set(kept.row_of) == {"heard", "mute", "late"} and np.ptp(kept.sound[1][0, :5]) == 0
    assert "kept, as silence: 2 of 3 items" in capsys.readouterr().out


def test_a_pack_of_which_nothing_is_left_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="no item that can be used"):
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
