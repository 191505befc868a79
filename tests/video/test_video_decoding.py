"""What decoding makes of videos that are not as they should be. All files are written with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed: pip install -r requirements-video.txt")

import av

from tests.video.made_videos import write_wav
from utils.errors import InputError
from video.video_decoding import Frame, decode_video
from video.video_encoding import write_video

SAMPLE = Path(__file__).parents[2].parent / "shared" / "samples"


def clock(seconds: float, rate: float, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames whose grey level tells when they are shown: 50 levels a second, so at most four seconds."""
    times = np.arange(round(seconds * rate)) / rate
    return [np.full((height, width, 3), 20 + 50 * time, np.uint8) for time in times]


def read_clock(image: np.ndarray) -> float:
    """When a frame of `clock` is shown, in seconds."""
    return (float(image.mean()) - 20) / 50


def tone(seconds: float, rate: int = 44_100, hertz: float = 440) -> np.ndarray:
    """(L,) int16."""
    return (10_000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def loudness(pcm: np.ndarray) -> float:
    return float(np.sqrt((pcm.astype(np.float64) ** 2).mean()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "video.mp4"


@pytest.mark.parametrize("rate", [5, 8, 12.5, 25, 29.97, 60])
def test_eight_frames_a_second_come_out_of_any_frame_rate(path: Path, rate: float):
    write_video(path, clock(4, rate), rate, quality=0)
    decoded = decode_video(path)
    assert 32 <= len(decoded.frames) <= 34
    expected = np.arange(len(decoded.frames)) / 8
    shown = [read_clock(frame) for frame in decoded.frames]
    assert np.abs(shown - expected).max() < 0.26 + 1 / rate
    assert np.abs(shown - decoded.times).max() < 0.06


def tenths(*numbers: float) -> list[float]:
    return [number / 10 for number in numbers]


# Which of the frames that were written `ffmpeg -r <wanted>` (5.1) shows: rate or times, wanted rate, frame numbers.
FFMPEG = {
    "25": (25, 50, 8, [0, 1, 2, 5, 9, 12, 15, 18, 21, 24, 27, 30, 34, 37, 40, 43, 46, 49]),
    "10": (10, 20, 8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19]),
    "5": (5, 10, 8, [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 8, 8, 9]),
    "3": (3, 6, 8, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5]),
    "29.97": (30_000 / 1001, 45, 8, [0, 1, 3, 7, 10, 14, 18, 22, 25, 29, 33, 37, 40, 44]),
    "24 at 20": (
        24,
        36,
        20,
        [*range(13), 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 32, 33, 34, 35],
    ),
    "as many as wanted": (8, 12, 8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    "a gap": (
        [*tenths(*range(10)), *tenths(*range(15, 25))],
        20,
        8,
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
    ),
    "30, then 3": (
        [*(n / 30 for n in range(15)), *(0.5 + n / 3 for n in range(9))],
        24,
        8,
        [0, 1, 3, 7, 10, 14, 15, 16, 16, 16, 17, 17, 18, 18, 18, 19, 19, 19, 20, 20, 21, 21, 21, 22, 22, 22, 23],
    ),
    "bursts": (
        tenths(0, 0.3, 0.6, 1, 5, 5.5, 6, 6.5, 7, 12, 12.5, 13, 14, 19, 19.5, 20, 25, 25.5, 26, 26.5),
        20,
        8,
        [0, 1, 3, 3, 4, 5, 6, 8, 8, 8, 9, 10, 11, 12, 12, 13, 14, 15, 15, 15, 16, 17, 18, 19],
    ),
    "sixteenths at 20": (
        [n / 16 for n in [0, 1, 11, 15, 18, 20, 24, 26, 27, 29, 32, 35, 39, 42, 44, 46]],
        16,
        20,
        np.repeat(range(16), [1, 12, 6, 4, 2, 5, 2, 2, 2, 4, 4, 5, 4, 2, 2, 3]).tolist(),
    ),
    "hundredths": (
        [n / 100 for n in [0, 30, 32, 36, 66, 96, 100, 102, 132, 142, 172, 174, 184, 234]],
        14,
        8,
        np.repeat(range(14), [2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 4, 1]).tolist(),
    ),
}


@pytest.mark.parametrize(("shown", "count", "wanted", "expected"), FFMPEG.values(), ids=FFMPEG)
def test_frames_are_chosen_and_repeated_as_by_ffmpeg(
    path: Path, shown: float | list[float], count: int, wanted: float, expected: list[int]
):
    rate, times = (10, shown) if isinstance(shown, list) else (shown, None)
    step = 240 // count
    frames = [np.full((32, 48, 3), 8 + step * number, np.uint8) for number in range(count)]
    write_video(path, frames, rate, times=times, quality=0)
    decoded = decode_video(path, frame_rate=wanted)
    assert [round((frame.mean() - 8) / step) for frame in decoded.frames] == expected
    written = np.arange(count) / rate if times is None else np.array(times)
    np.testing.assert_allclose(decoded.times, written[expected], atol=1e-4)


def test_frames_are_those_of_ffmpeg_at_eight_a_second():
    pictures = pytest.importorskip("PIL.Image")
    jpegs = sorted((SAMPLE / "BjCEufrlXm4_frames").glob("*.jpg"))
    if not jpegs:
        pytest.skip("the sample video and its JPEGs are not at ../shared/samples")
    theirs = np.stack([np.asarray(pictures.open(file), dtype=np.float32) for file in jpegs])
    ours = np.stack(decode_video(SAMPLE / "BjCEufrlXm4.mp4").frames).astype(np.float32)
    assert ours.shape == theirs.shape
    own = ((ours - theirs) ** 2).mean((1, 2, 3))
    for step in (-1, 1):
        neighbours = np.roll(theirs, step, 0)
        other = ((ours - neighbours) ** 2).mean((1, 2, 3))
        between = ((theirs - neighbours) ** 2).mean((1, 2, 3))
        differ = between > 10  # JPEG noise alone is about 5
        assert differ.sum() > 60
        assert (own < other)[differ].all()
    psnr = 10 * np.log10(255**2 / own)
    assert psnr.min() > 30, f"PSNR {psnr.min():.1f}"


def test_a_variable_frame_rate_is_decoded_by_timestamps(path: Path):
    times = np.concatenate([np.arange(0, 2, 1 / 30), np.arange(2, 4, 1 / 3)])  # 30 a second, then 3 a second
    frames = [np.full((32, 48, 3), 20 + 50 * time, np.uint8) for time in times]
    write_video(path, frames, 30, times=times)
    decoded = decode_video(path)
    assert 31 <= len(decoded.frames) <= 35
    shown = np.array([read_clock(frame) for frame in decoded.frames])
    expected = np.arange(len(shown)) / 8
    assert np.abs(shown - expected)[expected < 2].max() < 0.3
    assert np.abs(shown - expected)[expected >= 2].max() < 0.5


def test_both_waveforms_come_with_the_frames(path: Path):
    write_video(path, clock(3, 25), 25, tone(3)[None])
    decoded = decode_video(path, sample_rates=(16_000, 48_000))
    assert decoded.video_end == pytest.approx(3, abs=0.01)
    assert decoded.duration == pytest.approx(3, abs=0.05)  # packets of sound have a length of their own
    for rate, pcm in decoded.sounds.items():
        assert pcm.dtype == np.int16
        assert len(pcm) == pytest.approx(3 * rate, abs=0.05 * rate)
        spectrum = np.abs(np.fft.rfft(pcm[rate : 2 * rate].astype(np.float64)))
        assert spectrum.argmax() == 440
        assert loudness(pcm[rate : 2 * rate]) == pytest.approx(10_000 / np.sqrt(2), rel=0.02)


def test_stereo_is_the_mean_of_both_channels(path: Path):
    write_video(path, clock(2, 10), 10, np.stack([tone(2), tone(2)]))
    same = decode_video(path, sample_rates=(16_000,)).sounds[16_000]
    write_video(path, clock(2, 10), 10, np.stack([tone(2), np.zeros_like(tone(2))]))
    one_sided = decode_video(path, sample_rates=(16_000,)).sounds[16_000]
    assert loudness(one_sided) == pytest.approx(loudness(same) / 2, rel=0.03)


def test_sound_that_begins_late_is_preceded_by_silence(path: Path):
    write_video(path, clock(4, 10), 10, tone(2)[None], sound_start=1.5)
    pcm = decode_video(path, sample_rates=(16_000,)).sounds[16_000]
    assert loudness(pcm[: int(1.4 * 16_000)]) < 50
    assert loudness(pcm[int(1.6 * 16_000) : 3 * 16_000]) > 6000


def test_pictures_that_begin_late_leave_the_sound_before_them(path: Path):
    write_video(path, clock(2, 10), 10, tone(4)[None], times=2 + np.arange(20) / 10)
    decoded = decode_video(path, sample_rates=(16_000,))
    assert len(decoded.sounds[16_000]) == pytest.approx(4 * 16_000, abs=0.1 * 16_000)
    assert loudness(decoded.sounds[16_000][: 2 * 16_000]) > 6000
    shown = [read_clock(frame) for frame in decoded.frames]
    assert len(shown) in (32, 33, 34) and max(shown[:16]) < 0.05  # the first picture stands for what is before


def test_a_gap_in_the_sound_is_silence_and_shifts_nothing(path: Path):
    write_video(path, clock(4, 10), 10, tone(4)[None])
    with av.open(path) as source, av.open(path.with_suffix(".mkv"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "audio" and 1 <= packet.pts * packet.time_base < 2):
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    pcm = decode_video(path.with_suffix(".mkv"), sample_rates=(16_000,)).sounds[16_000]
    assert len(pcm) == pytest.approx(4 * 16_000, abs=0.1 * 16_000)
    assert loudness(pcm[int(1.1 * 16_000) : int(1.9 * 16_000)]) < 50
    for start, end in ((0.1, 0.9), (2.1, 3.9)):
        assert loudness(pcm[int(start * 16_000) : int(end * 16_000)]) > 6000


@pytest.mark.parametrize(
    ("shown", "wanted", "copies"),
    [  # 25ths of a second at which frames are shown, frames a second, how often `ffmpeg -r` (5.1) repeats each
        (
            [0, 1, 2, 3, 23, 43, 46, 47, 48, 49, 51, 58, 60, 61, 62, 69],
            10,
            [1, 1, 1, 6, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        ),
        (
            [0, 1, 3, 4, 24, 27, 29, 31, 38, 41, 42, 54, 66, 106, 118, 119],
            10,
            [1, 1, 1, 6, 1, 1, 1, 3, 1, 1, 4, 5, 16, 5, 1, 5],
        ),
        (
            [0, 7, 14, 34, 35, 75, 76, 77, 117, 157, 158, 159, 160, 161, 181, 188],
            8,
            [2, 2, 6, 1, 12, 1, 1, 12, 13, 1, 1, 1, 0, 4, 3, 2],
        ),
    ],
)
def test_where_frames_are_missing_the_one_before_is_repeated_as_by_ffmpeg(
    tmp_path: Path, shown: list[int], wanted: float, copies: list[int]
):
    path = tmp_path / "clip.ts"  # every frame declares that it lasts a 25th of a second
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg2video", rate=25, options={"qscale": "1"})
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        video.codec_context.gop_size, video.codec_context.time_base = 1, Fraction(1, 25)
        for number, time in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 8 + 15 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    converted = []
    decoded = decode_video(path, wanted, keep=lambda frame: converted.append(1) or frame.rgb())
    assert len(converted) == np.count_nonzero(copies)  # each but once
    numbers = [round((frame.mean() - 8) / 15) for frame in decoded.frames]
    assert numbers == np.repeat(np.arange(len(shown)), copies).tolist()
    np.testing.assert_allclose(decoded.times, np.array(shown)[numbers] / 25, atol=1e-4)


def write_pieces(path: Path, pieces: Sequence[tuple[float, np.ndarray]], start: float = 0.0) -> None:
    """Two seconds of pictures, and uncompressed sound at 16 kHz that begins at these times, into a Matroska file."""
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for number, image in enumerate(clock(2, 10)):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = round(10 * start) + number, Fraction(1, 10)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for time, samples in pieces:
            for start in range(0, len(samples), 800):
                frame = av.AudioFrame.from_ndarray(samples[None, start : start + 800], format="s16", layout="mono")
                frame.sample_rate, frame.time_base = 16_000, Fraction(1, 16_000)
                frame.pts = round(time * 16_000) + start
                container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-(2**15), 2**15, round(16_000 * seconds)).astype(np.int16)


@pytest.mark.parametrize(
    ("starts", "silences"),
    [
        ([0, 0.5], [0, 0]),
        ([0.25, 0.75], [0.25, 0]),  # it begins late
        ([0, 1.0], [0, 0.5]),  # half a second is missing
        ([0.3, 1.4], [0.3, 0.6]),
        ([0, 0.53], [0, 0]),  # so little that it is rounding
    ],
)
def test_sound_is_its_samples_with_silence_of_the_right_length_where_there_are_none(
    tmp_path: Path, starts: list[float], silences: list[float]
):
    pieces = [noise(0.5, seed) for seed in (0, 1)]
    write_pieces(tmp_path / "clip.mkv", list(zip(starts, pieces, strict=True)))
    pcm = decode_video(tmp_path / "clip.mkv", sample_rates=(16_000,)).sounds[16_000]
    before, between = (np.zeros(round(16_000 * seconds), np.int16) for seconds in silences)
    np.testing.assert_array_equal(pcm, np.concatenate([before, pieces[0], between, pieces[1]]))


def test_resampled_sound_keeps_its_last_samples_before_a_gap_and_at_the_end(tmp_path: Path):
    loud = np.full(8_000, 10_000, np.int16)
    write_pieces(tmp_path / "clip.mkv", [(0.0, loud), (1.0, loud)])
    pcm = decode_video(tmp_path / "clip.mkv", sample_rates=(44_100,)).sounds[44_100]
    assert len(pcm) == pytest.approx(1.5 * 44_100, abs=1)
    heard = (pcm > 5_000).astype(int)
    np.testing.assert_allclose(np.flatnonzero(np.diff(heard)), [22_050, 44_100], atol=4)  # where it ends and begins
    assert heard[-4:].all()


def test_a_clock_that_does_not_start_at_zero_changes_nothing(tmp_path: Path):
    files = [tmp_path / "zero.mkv", tmp_path / "later.mkv"]
    for file, start in zip(files, (0.0, 5.0), strict=True):
        write_pieces(file, [(start + 0.25, noise(1.0))], start)
    lost = 6  # seconds: Matroska declares the last time on its clock as its length
    zero, later = (decode_video(file, sample_rates=(16_000,), lost_seconds=lost) for file in files)
    np.testing.assert_allclose(later.times, zero.times, atol=1e-3)
    assert later.times[0] == 0 and later.duration == pytest.approx(2, abs=0.01)
    np.testing.assert_array_equal(np.stack(later.frames), np.stack(zero.frames))
    np.testing.assert_array_equal(later.sounds[16_000], zero.sounds[16_000])


def test_sound_that_outlasts_the_pictures_is_whole_and_no_damage_where_only_pictures_are_wanted(tmp_path: Path):
    write_pieces(tmp_path / "clip.mkv", [(0.0, noise(4.0))])
    with_sound, alone = (decode_video(tmp_path / "clip.mkv", sample_rates=rates) for rates in ((16_000,), ()))
    np.testing.assert_array_equal(with_sound.sounds[16_000], noise(4.0))
    assert with_sound.video_end == alone.video_end == pytest.approx(2, abs=0.01)
    assert with_sound.duration == alone.duration == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_damaged_packets_are_passed_over(path: Path, kind: str):
    half_silent = tone(4)
    half_silent[2 * 44_100 :] = 0
    write_video(path, clock(4, 10), 10, half_silent[None])
    content = bytearray(path.read_bytes())
    with av.open(path) as container:
        packets = [packet for packet in container.demux(container.streams.get(**{kind: 0})[0]) if packet.size]
    for packet in packets[10:16]:
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    decoded = decode_video(path, sample_rates=(16_000,))
    assert 32 <= len(decoded.frames) <= 34 and read_clock(decoded.frames[-1]) == pytest.approx(3.9, abs=0.2)
    pcm = decoded.sounds[16_000]
    assert len(pcm) == pytest.approx(4 * 16_000, abs=0.1 * 16_000)
    assert loudness(pcm[int(1.7 * 16_000) : int(1.95 * 16_000)]) > 6000
    assert loudness(pcm[int(2.05 * 16_000) :]) < 50


def test_a_file_that_lasts_too_long_is_refused_before_it_is_decoded(path: Path):
    write_video(path, clock(3, 10), 10)
    never = lambda frame: pytest.fail("it decoded a frame")  # noqa: E731
    with pytest.raises(InputError, match=r"a video of 3\.0 seconds"):
        decode_video(path, keep=never, longest=2)
    assert decode_video(path, longest=3.0).frames


def test_without_an_audio_track_there_are_no_waveforms(path: Path):
    write_video(path, clock(2, 10), 10)
    assert decode_video(path, sample_rates=(16_000, 48_000)).sounds == {}


def test_sound_alone_is_decoded_without_frames(path: Path):
    write_video(path, clock(2, 10), 10, tone(2)[None])
    decoded = decode_video(path, frame_rate=None, sample_rates=(16_000,))
    assert decoded.frames == []
    assert decoded.duration == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("turn", "matrix"), [(-1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (1, (0, -1, 1, 0))])
def test_a_rotated_video_is_turned_upright(path: Path, turn: int, matrix: tuple[int, ...]):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32] = 200  # the upper left corner is bright
    write_video(path, [image] * 10, 10)
    _rotate_track(path, matrix)
    frame = decode_video(path).frames[0].astype(int)
    expected = np.rot90(image, turn).astype(int)
    assert frame.shape == expected.shape
    assert np.abs(frame - expected).mean() < 8


def _rotate_track(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a rotation into the first track's header, as telephones do."""
    content = path.read_bytes()
    identity = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    a, b, c, d = (value % (1 << 16) << 16 for value in matrix)
    turned = b"".join(value.to_bytes(4, "big") for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    header = content.index(b"tkhd")
    assert identity in content[header:]
    path.write_bytes(content[:header] + content[header:].replace(identity, turned, 1))


def test_4k_is_scaled_down_as_it_is_decoded(path: Path):
    write_video(path, [np.full((2160, 3840, 3), level, np.uint8) for level in (50, 150)], 2)
    frames = decode_video(path).frames
    assert frames[0].shape == (720, 1280, 3)
    assert frames[0].mean() == pytest.approx(50, abs=3)


def test_frames_that_are_not_wanted_are_counted_and_not_kept(path: Path):
    write_video(path, clock(3, 25), 25)
    seen = []

    def keep(frame: Frame) -> float | None:
        seen.append(frame.time)
        return frame.rgb().mean() if 1 <= frame.time < 2 else None

    decoded = decode_video(path, keep=keep)
    assert len(decoded.frames) == len(decode_video(path).frames)
    kept = [time for frame, time in zip(decoded.frames, decoded.times, strict=True) if frame is not None]
    assert kept and all(1 <= time < 2 for time in kept)
    assert seen == sorted(set(decoded.times))


def test_zero_bytes_are_an_error(path: Path):
    path.touch()
    with pytest.raises(InputError, match=r"video\.mp4: found no readable video"):
        decode_video(path)


def test_an_absent_file_is_an_error(path: Path):
    with pytest.raises(InputError, match=r"no readable video.*No such file"):
        decode_video(path)


def test_a_file_that_is_no_video_is_an_error(path: Path):
    path.write_text("<html>This video is unavailable</html>" * 50)
    with pytest.raises(InputError, match="no readable video"):
        decode_video(path)


def test_a_file_cut_off_before_its_index_is_an_error(path: Path):
    write_video(path, clock(4, 25), 25, tone(4)[None])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="no readable video"):
        decode_video(path)


def test_a_file_that_ends_early_is_an_error_that_says_how_much_is_there(path: Path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(50)]
    write_video(path, noise, 10, tone(5)[None])
    content = path.read_bytes()
    data, index = content.index(b"mdat"), content.index(b"moov")
    assert data < index
    middle = data + (index - data) // 2
    path.write_bytes(content[:middle] + bytes(index - middle) + content[index:])  # the second half is overwritten
    for frame_rate in (8, None):  # None: sound alone
        with pytest.raises(InputError, match=r"damaged file: \d.\d of 5.\d seconds"):
            decode_video(path, frame_rate, sample_rates=(16_000,))


@pytest.mark.parametrize("sound", [None, noise(3.0)], ids=["silent", "with sound"])
def test_a_truncated_avi_lacks_what_its_header_counts(tmp_path: Path, sound: np.ndarray | None):
    path = tmp_path / "clip.avi"
    frames = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    write_video(path, frames, 10, None if sound is None else sound[None], 16_000)
    assert decode_video(path).duration == pytest.approx(3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])  # FFmpeg takes 1.8 s for its length now
    with pytest.raises(InputError, match=r"damaged file: 1\.\d of 3\.0 seconds"):
        decode_video(path, sample_rates=(16_000,))


def test_sound_without_pictures_is_an_error_where_frames_are_wanted(tmp_path: Path):
    path = tmp_path / "sound.wav"
    write_wav(path, tone(2, 16_000), 16_000)
    with pytest.raises(InputError, match="no video track"):
        decode_video(path)
    assert len(decode_video(path, frame_rate=None, sample_rates=(16_000,)).sounds[16_000]) == 32_000


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("wanted", [(16_000, 48_000), (48_000, 16_000)])
def test_sound_that_has_one_of_the_wanted_rates_is_passed_on_and_resampled_to_the_other(
    tmp_path: Path, rate: int, wanted: tuple[int, int]
):
    samples = tone(2, rate)
    write_wav(tmp_path / "sound.wav", samples, rate)
    sounds = decode_video(tmp_path / "sound.wav", frame_rate=None, sample_rates=wanted).sounds
    np.testing.assert_array_equal(sounds[rate], samples)
    (other,) = set(wanted) - {rate}
    assert np.abs(sounds[other][200:-200] - tone(2, other)[200:-200]).max() < 50


def test_a_video_that_is_all_width_is_refused_before_it_fills_the_memory(tmp_path: Path):
    write_video(tmp_path / "line.mp4", [np.zeros((2, 640, 3), np.uint8)] * 8, 8)
    with pytest.raises(InputError, match="frames of 640 x 2 pixels"):
        decode_video(tmp_path / "line.mp4")
