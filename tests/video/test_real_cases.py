"""Files as people have them: cut without re-encoding, joined, mirrored, with tags of other encodings, of telephones."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed: pip install -r requirements-video.txt")
pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from lavish.clip_splits import ClipSource, survey
from lavish.packing import ClipFormat, open_pack
from tests.video.made_videos import make_video, whole_inputs
from utils.errors import InputError
from video import extract_features
from video.extraction.video_lists import videos_of_dataset, videos_of_paths
from video.video_decoding import decode_video

CASES = Path(__file__).resolve().parents[1] / "real_cases"
REAL = Path(__file__).resolve().parents[3] / "shared/real/clips"  # of people: read where it is there
# Frames at 8 a second as `ffmpeg -r 8` has them, and seconds of the longer track.
RIGHT = {
    "avi_with_b_frames/b_frames.avi": (25, 3.07),
    "bt709_and_pyav_version/tagged709.mp4": (10, 1.0),
    "codec_without_decoder/sound_unknown.mkv": (26, 3.02),
    "cut_without_reencoding/cut.mp4": (35, 4.2),
    "joined_ts/joined.ts": (82, 10.02),
    "metadata_not_utf8/title_latin1.mkv": (26, 3.01),
    "metadata_not_utf8/title_latin1.mp4": (26, 3.02),
    "mirrored_display_matrix/mirrored.mp4": (26, 3.0),
    "segments_differ_between_features/sound_longer.mp4": (82, 10.61),
    "sound_layout_changes/stereo_then_mono.ts": (49, 5.97),
    "still_picture_with_sound/one_frame.mkv": (1, 10.03),
    "still_picture_with_sound/one_frame.mp4": (1, 10.01),
    "still_picture_with_sound/pictures_end_early.mp4": (26, 10.01),
    "still_picture_with_sound/slides.mp4": (160, 20.02),
}

# Without the one whose layout changes, where ffmpeg's resampler begins anew and counts from 0 again.
WITH_SOUND = [CASES / file for file in RIGHT if "layout" not in file]
by_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg is not installed; it judges, and nothing needs it"
)


def ffmpeg(*arguments: object) -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", *map(str, arguments)], capture_output=True, check=True).stdout


@pytest.mark.parametrize("file", RIGHT)
def test_frames_and_seconds_are_those_that_players_show(file: str):
    decoded = decode_video(CASES / file, 8, (16_000,))
    assert (len(decoded.frames), round(decoded.duration, 2)) == RIGHT[file]
    for rate, sound in decoded.sounds.items():
        assert len(sound) == pytest.approx(rate * decoded.duration, abs=0.2 * rate)


@by_ffmpeg
@pytest.mark.parametrize(
    "path", [*(CASES / file for file in RIGHT), *sorted(REAL.glob("*"))], ids=lambda path: path.name
)
def test_frames_are_the_same_as_ffmpeg_s(path: Path):
    frames = decode_video(path, 8, colours="tagged").frames
    height, width = frames[0].shape[:2]
    raw = ffmpeg("-i", path, "-map", "0:V:0", "-r", 8, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    assert len(theirs) == len(frames)
    differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, theirs, strict=True)]
    # Levels, of another rounding. Of a transport stream's pictures alone ffmpeg counts from the first picture, ours
    # from the first packet of either track: 11 ms, which another frame may be nearest to.
    assert max(differences) < (5 if path.suffix == ".ts" else 2)


def test_a_reordered_avi_shows_its_frames_in_order():
    shown = decode_video(CASES / "avi_with_b_frames/b_frames.avi", 8).times * 30 - 2
    of_ffmpeg = [0, 1, 5, 8, 12, 16, 20, 23, 27, 31, 35, 38, 42, 46, 50, 53, 57, 61, 65, 68, 72, 76, 80, 83, 87]
    assert shown.round().tolist() == of_ffmpeg


def test_colours_are_those_of_jpeg_files_or_the_file_s_own():
    folder = CASES / "bt709_and_pyav_version"
    tagged, untagged = (decode_video(folder / f"{name}.mp4", 8).frames for name in ("tagged709", "untagged"))
    assert all(map(np.array_equal, tagged, untagged))
    own = decode_video(folder / "tagged709.mp4", 8, colours="tagged").frames
    assert np.abs(own[0].astype(int) - tagged[0]).mean() > 5
    assert all(map(np.array_equal, decode_video(folder / "untagged.mp4", 8, colours="tagged").frames, untagged))


def test_a_mirrored_video_is_mirrored():
    folder = CASES / "mirrored_display_matrix"
    mirrored, upright = (decode_video(folder / f"{name}.mp4", 8).frames for name in ("mirrored", "upright"))
    assert all(np.array_equal(one, other[:, ::-1]) for one, other in zip(mirrored, upright, strict=True))


def test_a_cover_is_no_video_track():
    cover = CASES / "still_picture_with_sound/song_with_cover.mp3"
    with pytest.raises(InputError, match="no video track"):
        decode_video(cover)
    assert len(decode_video(cover, None, (16_000,)).sounds[16_000]) == pytest.approx(5 * 16_000, abs=2000)


def test_a_track_without_decoder_is_named_and_stops_no_packing(tmp_path: Path, capsys):
    unknown = CASES / "codec_without_decoder/sound_unknown.mkv"
    inputs = whole_inputs(unknown, ["vggish", "r2plus1d_18"], None, "centre")
    assert inputs.keys() == {"r2plus1d_18"}
    assert "cannot be decoded (none, 44100 Hz, 1 channels)" in capsys.readouterr().out
    sources = tuple(ClipSource(path.stem, path) for path in (unknown, make_video(tmp_path / "good.mp4", 2)))
    pack = open_pack(tmp_path, sources, ClipFormat(num_frames=2, size=16, sound="small"))
    assert pack.row_of.keys() == {"sound_unknown", "good"}


@pytest.mark.parametrize(
    "file", ["still_picture_with_sound/one_frame.mp4", "still_picture_with_sound/pictures_end_early.mp4"]
)
def test_the_last_picture_stands_for_what_the_pictures_do_not_reach(file: str, capsys):
    inputs = whole_inputs(CASES / file, ["r2plus1d_18", "res152", "vggish"], None, "centre")
    assert inputs["r2plus1d_18"].shape[:2] == (10, 8) and len(inputs["res152"]) == 80 and len(inputs["vggish"]) == 10
    assert (inputs["res152"][40:] == inputs["res152"][-1]).all()
    assert "its last frame is repeated" in capsys.readouterr().out


@pytest.mark.parametrize("features", [["vggish"], ["r2plus1d_18"], ["clip"], ["vggish", "clip"]])
def test_the_number_of_segments_does_not_depend_on_the_features_that_are_asked_for(features: list[str]):
    inputs = whole_inputs(CASES / "segments_differ_between_features/sound_longer.mp4", features, None, "centre")
    assert {len(rows) for rows in inputs.values()} == {11}


def test_tags_of_other_encodings_do_not_keep_a_clip_from_being_surveyed(tmp_path: Path):
    paths = {name: CASES / f"metadata_not_utf8/title_latin1.{name}" for name in ("mp4", "mkv")}
    assert survey(paths, tmp_path).sound.all()


# ---- names


def test_names_of_any_kind_are_taken_or_listed_with_what_is_wrong(tmp_path: Path, monkeypatch):
    video = make_video(tmp_path / "good.mp4", 1)
    odd = Path(os.fsdecode(b"bad\xe9.mp4"))
    monkeypatch.chdir(tmp_path)
    for name in ("clip:1.mp4", f"{'x' * 247}.mp4"):
        shutil.copy(video, name)
    odd.write_bytes(video.read_bytes()[:500])
    Path("list.txt").write_bytes(b"\xef\xbb\xbf" + b"\n".join(os.fsencode(path) for path in Path().glob("*.mp4")))
    flags = ["--output", "out", "--features", "vggish", "--random_weights", "small", "--device", "cpu"]
    with pytest.raises(SystemExit):
        extract_features.main(["--videos", "list.txt", *flags])
    failures = Path("out/failures.csv").read_bytes()
    assert b"bad\xe9" in failures and b"more than 240 bytes" in failures and failures.count(b"\n") == 3
    assert {path.stem for path in Path("out").rglob("*.npy")} == {"good", "clip:1"}


def test_an_empty_list_and_what_macos_writes_beside_files_are_no_videos(tmp_path: Path):
    (tmp_path / "list.txt").write_text("\n \n")
    with pytest.raises(InputError, match="no video"):
        videos_of_paths([tmp_path / "list.txt"])
    for name in ("._clip.mp4", "clip.mp4", "old.wmv", "camera.MTS", "tape.m2ts", "free.ogv", "loop.gif"):
        (tmp_path / name).touch()
    assert {video.feature_id for video in videos_of_paths([tmp_path])} == {
        "clip",
        "old",
        "camera",
        "tape",
        "free",
        "loop",
    }


def test_of_two_files_of_one_id_the_good_one_is_taken_and_both_are_named(llp_dir: Path, tmp_path: Path, capsys):
    good = tmp_path / "te000000001.mp4"
    good.write_bytes(bytes(100))
    (tmp_path / "te000000001.webm").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/te000000001.mp4").write_bytes(bytes(1000))
    found = {video.feature_id: video.path for video in videos_of_dataset("LLP", llp_dir, tmp_path, ("test",))}
    assert found["te000000001"] == good
    assert all(name in capsys.readouterr().out for name in ("te000000001.webm",))


# ---- beside ffmpeg, which judges what real clips and made ones sound and look like


@by_ffmpeg
@pytest.mark.parametrize("path", [*WITH_SOUND, *sorted(REAL.glob("*"))], ids=lambda path: path.name)
def test_sound_begins_when_ffmpeg_s_does(path: Path):
    rate = 16_000
    sounds = decode_video(path, 8, (rate,)).sounds
    if not sounds:
        return
    form = ("-af", "aresample=async=1:first_pts=0", "-ac", 1, "-ar", rate, "-f", "s16le")
    whole = ffmpeg("-i", path, "-map", "0:a:0", *form, "-")
    ours, theirs = (np.float64(sound[: 10 * rate]) for sound in (sounds[rate], np.frombuffer(whole, np.int16)))
    size = len(ours) + len(theirs)
    correlation = np.fft.irfft(np.fft.rfft(ours, size).conj() * np.fft.rfft(theirs, size))
    within_a_millisecond = np.r_[correlation[: rate // 1000], correlation[-rate // 1000 :]]
    assert within_a_millisecond.max() >= 0.999 * correlation.max()  # tones have several such lags
    assert abs(len(ours) - len(theirs)) < 0.05 * rate


@by_ffmpeg
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("colour_range", ["tv", "pc"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_colours_and_rotation_are_those_of_ffmpeg(tmp_path: Path, matrix: str, colour_range: str, rotation: int):
    plain, path = tmp_path / "plain.mp4", tmp_path / "video.mp4"
    tags = ("-colorspace", {"bt601": "smpte170m"}.get(matrix, matrix), "-color_range", colour_range)
    scale = f"scale=out_color_matrix={matrix}:out_range={colour_range},format=yuv420p"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=8:d=1", "-vf", scale, *tags, "-crf", 1, plain)
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v:0", f"rotate={rotation}", path)
    ours = np.stack(decode_video(path, 8, colours="tagged").frames)
    raw = ffmpeg("-i", path, "-r", 8, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(ours.shape)
    assert np.abs(ours.astype(int) - theirs).mean() < 1.5
    as_jpeg = np.stack(decode_video(path, 8).frames).astype(int)
    assert (np.abs(as_jpeg - theirs).mean() > 2) == (matrix == "bt709")


def test_a_codec_without_decoder_is_named(tmp_path: Path):
    path = make_video(tmp_path / "video.mp4", 1)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zz99").replace(b"mp41zz99", b"mp41avc1"))
    with pytest.raises(InputError, match=r"cannot be decoded \(none \(zz99 / 0x39397A7A\)"):
        decode_video(path)
