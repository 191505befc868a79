"""Extraction over many videos, with the small networks and drawn weights."""

import csv
import pickle
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")
pytest.importorskip("av", reason="pip install -r requirements-video.txt")

from dataloaders import feature_origin
from dataloaders.feature_origin import (
    EXTRACTION_MARKER,
    VIDEOS_MARKER,
    feature_note,
    read_extraction,
    record_extraction,
)
from dataloaders.features import FEATURES, PUBLISHED, feature_path, read_segment_features
from tests.video.made_videos import make_video, whole_inputs
from utils.errors import InputError
from utils.files import write_text
from video import extract_features
from video.extraction import event_texts as events
from video.extraction import extraction_inputs, ray_workers
from video.extraction import extraction_pipeline as pipeline
from video.extraction.event_texts import write_event_features
from video.extraction.extraction_inputs import read_inputs
from video.extraction.extraction_pipeline import BatchQueue, extract
from video.extraction.feature_networks import (
    NETWORKS,
    WEIGHTS,
    FeatureNetwork,
    Source,
    build_network,
    draw_network,
    settings_of,
    text_settings_of,
)
from video.extraction.ray_workers import Job
from video.extraction.video_lists import Video, fixed_segments, shard_of
from video.sounds import clap_mel
from video.video_encoding import write_video

ALL = list(PUBLISHED)


@pytest.fixture(scope="module")
def videos_dir(tmp_path_factory) -> Path:
    """Five good videos of one to three seconds."""
    folder = tmp_path_factory.mktemp("videos")
    for number, seconds in enumerate((2, 1, 3, 1.5, 2)):
        make_video(folder / f"video{number}.mp4", seconds, seed=number)
    return folder


@pytest.fixture(scope="module")
def networks() -> dict[str, FeatureNetwork]:
    return {name: FeatureNetwork(name, draw_network(name, "small", 0), torch.device("cpu")) for name in ALL}


def videos_of(folder: Path) -> list[Video]:
    return [Video(path.stem, path) for path in sorted(folder.glob("*.mp4"))]


def files_of(data_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in sorted(data_dir.rglob("*.npy"))}


@pytest.fixture(scope="module")
def undisturbed(videos_dir: Path, networks, tmp_path_factory) -> Path:
    """All five features of the five videos."""
    output = tmp_path_factory.mktemp("features")
    outcome = extract(videos_of(videos_dir), output, networks, "centre", 4, 2)
    assert (outcome.written, outcome.failures) == (5, [])
    return output


def test_every_feature_has_the_released_layout(undisturbed: Path):
    for number, segments in enumerate((2, 1, 3, 2, 2)):
        for name in ALL:
            path = feature_path(undisturbed, name, f"video{number}")
            rows = read_segment_features(path, name, segments, pooled=False)
            assert rows.shape[0] == segments
            assert np.load(path).dtype == np.float32


def test_different_videos_have_different_features(undisturbed: Path):
    for name in ALL:
        first, second = (np.load(feature_path(undisturbed, name, video))[0] for video in ("video0", "video2"))
        assert np.abs(first - second).max() > 1e-3


def test_an_extraction_that_is_interrupted_ends_in_the_same_files(
    videos_dir: Path, networks, undisturbed: Path, tmp_path: Path, monkeypatch
):
    class KilledError(Exception):
        pass

    save = pipeline.atomic_write
    for killed_after in (1, 4, 7, 6):
        written = []

        def dies(path: Path, written=written, killed_after=killed_after):
            if len(written) == killed_after:
                raise KilledError
            written.append(path)
            return save(path)

        monkeypatch.setattr(pipeline, "atomic_write", dies)
        with pytest.raises(KilledError):
            extract(videos_of(videos_dir), tmp_path, networks, "centre", 4, 2)
        monkeypatch.setattr(pipeline, "atomic_write", save)
    extract(videos_of(videos_dir), tmp_path, networks, "centre", 4, 2)
    assert files_of(tmp_path) == files_of(undisturbed)


def test_what_exists_is_not_decoded_again(videos_dir: Path, networks, undisturbed: Path, monkeypatch):
    monkeypatch.setattr(pipeline, "read_inputs", lambda *_: pytest.fail("it decoded a video"))
    outcome = extract(videos_of(videos_dir), undisturbed, networks, "centre", 4, 2)
    assert (outcome.written, outcome.already_there) == (0, 5)


def test_features_do_not_depend_on_the_batch_size_but_for_rounding(
    videos_dir: Path, networks, undisturbed: Path, tmp_path: Path
):
    extract(videos_of(videos_dir), tmp_path, networks, "centre", 3, 1)
    for name in ALL:
        for number in range(5):
            ours, theirs = (np.load(feature_path(folder, name, f"video{number}")) for folder in (tmp_path, undisturbed))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_bf16_gives_nearly_the_same_features(videos_dir: Path, undisturbed: Path, tmp_path: Path):
    networks = {name: FeatureNetwork(name, draw_network(name, "small", 0), torch.device("cpu"), "bf16") for name in ALL}
    extract(videos_of(videos_dir)[:1], tmp_path, networks, "centre", 4, 1)
    for name in ALL:
        ours, theirs = (np.load(feature_path(folder, name, "video0")) for folder in (tmp_path, undisturbed))
        assert ours.dtype == np.float32
        cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosine.min() > 0.99


def test_bad_videos_are_reported_and_stop_nothing(videos_dir: Path, tmp_path: Path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in (0, 1):
        (folder / f"video{number}.mp4").write_bytes((videos_dir / f"video{number}.mp4").read_bytes())
    (folder / "empty.mp4").touch()
    (folder / "damaged.mp4").write_bytes(b"<html>Video unavailable</html>")
    make_video(folder / "short.mp4", seconds=0.25)
    make_video(folder / "silent.mp4", sound=False)
    output = tmp_path / "features"
    flags = ["--videos", str(folder), "--output", str(output), "--random_weights", "small", "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        extract_features.main([*flags, "--batch_size", "4"])
    assert stopped.value.code == 1
    with open(output / "failures.csv") as file:
        failures = {row["id"]: row for row in csv.DictReader(file)}
    assert failures.keys() == {"empty", "damaged", "short", "silent"}
    assert "no readable video" in failures["empty"]["reason"]
    assert "no readable video" in failures["damaged"]["reason"]
    assert "0.26 seconds" in failures["short"]["reason"]
    assert failures["silent"]["reason"] == "no audio track"
    assert failures["silent"]["features"] == "vggish clap"
    assert {path.stem for path in (output / "feats/vggish").iterdir()} == {"video0", "video1"}
    assert {path.stem for path in (output / "feats/res152").iterdir()} == {"video0", "video1", "silent"}

    for name in ("empty", "damaged", "short"):
        (folder / f"{name}.mp4").unlink()
    extract_features.main([*flags, "--no_sound", "silence"])  # ends normally
    assert not (output / "failures.csv").exists()
    assert feature_path(output, "vggish", "silent").exists()


def test_shards_share_the_videos():
    videos = [Video(str(number), None) for number in range(10)]
    shards = [shard_of(videos, f"{k}/3") for k in (1, 2, 3)]
    assert [video.feature_id for video in shards[0]] == ["0", "3", "6", "9"]
    assert [len(shard) for shard in shards] == [4, 3, 3]
    assert sorted((video for shard in shards for video in shard), key=lambda v: int(v.feature_id)) == videos
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(InputError, match="--shard"):
            shard_of(videos, wrong)


def test_a_row_does_not_depend_on_its_neighbours_in_a_batch(networks):
    rng = np.random.default_rng(0)
    rows = rng.random((5, 224, 224, 3), np.float32)
    alone, among = BatchQueue(networks["clip"], 4), BatchQueue(networks["clip"], 4)
    assert alone.put("one", rows[:1]) == []
    (_, of_one) = alone.finish()[0]
    results = dict(among.put("others", rows[1:4]) + among.put("one", rows[:1]) + among.finish())
    np.testing.assert_array_equal(of_one, results["one"])
    assert results["others"].shape == (3, 256)


def test_features_of_random_weights_are_marked_and_never_mixed_with_others(videos_dir: Path, tmp_path: Path):
    flags = ["--videos", str(videos_dir / "video1.mp4"), "--output", str(tmp_path), "--features", "vggish"]
    extract_features.main([*flags, "--random_weights", "small"])
    assert (tmp_path / EXTRACTION_MARKER).exists()
    assert feature_note(tmp_path) == "features of small networks with random weights"
    (tmp_path / VIDEOS_MARKER).touch()
    assert feature_note(tmp_path).startswith("generated videos, features of small")
    before = (tmp_path / EXTRACTION_MARKER).stat().st_mtime_ns
    extract_features.main([*flags, "--random_weights", "small"])
    assert (tmp_path / EXTRACTION_MARKER).stat().st_mtime_ns == before  # written where it changes only
    with pytest.raises(InputError, match="differ in weights"):
        extract_features.main([*flags, "--random_weights", "small", "--seed", "1"])
    (tmp_path / EXTRACTION_MARKER).unlink()
    with pytest.raises(InputError, match="features of another origin"):
        extract_features.main([*flags, "--random_weights", "small"])


def test_text_features_have_a_row_for_each_event(tmp_path: Path):
    flags = ["--output", str(tmp_path), "--random_weights", "small", "--features", "clip", "clap"]
    extract_features.main([*flags, "--events", "dog barking", "dog growling", "rain"])
    for folder in ("feats_CLIP", "feats_CLAP"):
        rows = np.load(tmp_path / folder / "event_feats/all_event_feats.npy")
        assert rows.shape == (3, 256)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
        assert (
            tmp_path / folder / "event_feats/all_event_feats.txt"
        ).read_text() == "dog barking\ndog growling\nrain\n"


@pytest.mark.parametrize(("dataset", "recipe"), [("LLP", "valor"), ("UnAV", "centre"), (None, "centre")])
def test_the_recipe_of_a_data_set_is_that_of_its_published_features(
    llp_dir: Path, unav_dir: Path, tmp_path: Path, dataset: str | None, recipe: str
):
    where = {
        "LLP": ["--dataset", "LLP", "--annotations_dir", str(llp_dir), "--videos_dir", str(tmp_path)],
        "UnAV": ["--dataset", "UnAV", "--annotations_dir", str(unav_dir), "--videos_dir", str(tmp_path)],
        None: ["--videos", str(tmp_path / "absent.mp4")],
    }[dataset]
    flags = ["--output", str(tmp_path / "features"), "--random_weights", "small", "--features", "clip", "clap"]
    with pytest.raises(SystemExit):  # there are no videos
        extract_features.main([*where, *flags])
    record = read_extraction(tmp_path / "features")
    assert {name: record[name]["recipe"] for name in ("clip", "clap")} == {"clip": recipe, "clap": recipe}


def test_absent_weights_are_named_with_where_to_get_them(videos_dir: Path, tmp_path: Path):
    flags = ["--videos", str(videos_dir), "--output", str(tmp_path), "--weights_dir", str(tmp_path / "weights")]
    with pytest.raises(InputError, match=r"weights/vggish-10086976.pth.*harritaylor.*download.sh vggish"):
        extract_features.main([*flags, "--features", "vggish"])


def test_clip_takes_the_frame_in_the_middle_of_each_second(tmp_path: Path):
    levels = [np.full((32, 48, 3), 20 + 2 * number, np.uint8) for number in range(75)]  # 25 a second
    write_video(tmp_path / "video.mp4", levels, 25, quality=0)
    arrays = whole_inputs(tmp_path / "video.mp4", ["clip"], None, "centre")
    frames = (255 * arrays["clip"].mean((1, 2, 3)) - 20) / 2
    np.testing.assert_allclose(frames, [12.5, 37.5, 62.5], atol=2)
    with_others = whole_inputs(tmp_path / "video.mp4", ["clip", "res152"], None, "centre")
    np.testing.assert_array_equal(with_others["clip"], arrays["clip"])


def test_where_frames_are_rare_the_nearest_stands_for_the_middle(tmp_path: Path):
    levels = [np.full((32, 48, 3), level, np.uint8) for level in (50, 100, 150)]
    write_video(tmp_path / "video.mp4", levels, 25, times=[0, 0.9, 3.9], quality=0)
    arrays = whole_inputs(tmp_path / "video.mp4", ["clip"], 4, "centre")
    shown = 255 * arrays["clip"].mean((1, 2, 3))
    np.testing.assert_allclose(shown, [100, 100, 150, 150], atol=3)
    for num_segments in (4, 1):
        with_others = whole_inputs(tmp_path / "video.mp4", ["clip", "res152"], num_segments, "centre")
        np.testing.assert_array_equal(with_others["clip"], arrays["clip"][:num_segments])


def test_the_valor_recipe_takes_the_first_and_the_last_frame(tmp_path: Path):
    levels = [np.full((32, 48, 3), 20 + 2 * number, np.uint8) for number in range(75)]
    write_video(tmp_path / "video.mp4", levels, 25, quality=0)
    arrays = whole_inputs(tmp_path / "video.mp4", ["clip"], 3, "valor")
    frames = (255 * arrays["clip"].mean((1, 2, 3)) - 20) / 2
    assert frames[0] == pytest.approx(0, abs=1) and frames[-1] == pytest.approx(74, abs=1.5)


def test_sound_that_ends_early_is_followed_by_silence(tmp_path: Path):
    frames = [np.zeros((32, 48, 3), np.uint8)] * 32
    noise = np.random.default_rng(0).integers(-8000, 8000, (1, 32_000)).astype(np.int16)
    write_video(tmp_path / "video.mp4", frames, 8, noise, 16_000)
    for recipe in ("valor", "centre"):
        arrays = whole_inputs(tmp_path / "video.mp4", ["vggish", "clap"], 4, recipe)
        for name in ("vggish", "clap"):
            heard = arrays[name].mean((1, 2))
            assert heard[:2].min() > heard[3] + 1


def test_slices_of_a_second_repeat_their_spectra_exactly():
    pcm = np.random.default_rng(0).integers(-8000, 8000, 48_000).astype(np.int16)
    (fast,) = clap_mel(pcm, np.array([[0, 48_000]]))
    repeated = np.tile(pcm, 10)
    (plain,) = clap_mel(repeated, np.array([[0, 480_000]]))
    np.testing.assert_allclose(fast, plain, atol=1e-3)


def at_the_same_time(count: int, call) -> None:
    """Call a function in threads that start together; raises what one of them raises."""
    barrier = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        started = [pool.submit(lambda: barrier.wait() + 1 and call()) for _ in range(count)]
        for one in started:
            one.result()


def test_shards_that_start_together_write_the_record_and_the_text_features_once(tmp_path: Path, networks, monkeypatch):
    written: list[Path] = []

    def slowly(path: Path, text: str) -> None:
        time.sleep(0.05)
        write_text(path, text)
        written.append(path)

    monkeypatch.setattr(feature_origin, "write_text", slowly)
    monkeypatch.setattr(events, "write_text", slowly)
    source = Source(tmp_path, "small")

    def start() -> None:
        record_extraction(tmp_path, settings_of(["clip"], source, "centre", "float32"))
        write_event_features(tmp_path, {"clip": networks["clip"]}, source, ("rain", "dog barking"))

    at_the_same_time(4, start)
    assert [path.name for path in written] == [EXTRACTION_MARKER, "all_event_feats.txt"]


def published(data_dir: Path, part: str) -> Path:
    """A file that was not extracted here."""
    path = data_dir / part
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones((2, 768), np.float32))
    return path


def text_flags(output: Path, *more: str) -> list[str]:
    return ["--output", str(output), "--random_weights", "small", "--features", "clip", *more]


def test_published_text_features_are_not_overwritten(tmp_path: Path):
    path = published(tmp_path, "feats_CLIP/event_feats/all_event_feats.npy")
    content = path.read_bytes()
    for flags in (["--dataset", "LLP", "--text_only"], ["--events", "rain"]):
        with pytest.raises(InputError, match="another origin"):
            extract_features.main(text_flags(tmp_path, *flags))
    assert path.read_bytes() == content and not (tmp_path / EXTRACTION_MARKER).exists()


def test_random_text_features_do_not_join_published_segments(tmp_path: Path):
    published(tmp_path, "feats_CLIP/segment_feats/video.npy")
    with pytest.raises(InputError, match="another origin"):
        extract_features.main(text_flags(tmp_path, "--events", "rain"))


def test_texts_of_published_weights_may_stand_beside_published_segments_but_not_segments(tmp_path: Path):
    published(tmp_path, "feats_CLIP/segment_feats/video.npy")
    source = Source(tmp_path)
    record_extraction(tmp_path, text_settings_of(["clip"], source, "valor", "float32"))
    with pytest.raises(InputError, match="another origin"):
        record_extraction(tmp_path, settings_of(["clip"], source, "valor", "float32"))


def test_the_text_features_of_classes_are_not_replaced_by_those_of_other_events(tmp_path: Path):
    extract_features.main(text_flags(tmp_path, "--dataset", "AVE", "--text_only"))
    path = tmp_path / "feats_CLIP/event_feats/all_event_feats.npy"
    content = path.read_bytes()
    with pytest.raises(InputError, match="other or unknown events"):
        extract_features.main(text_flags(tmp_path, "--dataset", "AVE", "--text_only", "--events", "rain"))
    extract_features.main(text_flags(tmp_path, "--dataset", "AVE", "--text_only"))
    assert path.read_bytes() == content


def test_every_file_of_text_features_has_its_own_list(tmp_path: Path):
    for prompts in ("event_names", "valor"):
        extract_features.main(text_flags(tmp_path, "--events", "rain", "--prompts", prompts))
    names = {path.name for path in (tmp_path / "feats_CLIP/event_feats").glob("[!.]*")}
    stems = ("all_event_feats", "valor_prompt_feats")
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("npy", "txt")}


def test_text_features_alone_leave_the_failures_of_an_extraction(tmp_path: Path):
    (tmp_path / "failures.csv").write_text("id,file,features,reason\n")
    extract_features.main(text_flags(tmp_path, "--events", "rain"))
    assert (tmp_path / "failures.csv").exists()
    with pytest.raises(InputError, match="--text_only"):
        extract_features.main(text_flags(tmp_path, "--text_only", "--videos", str(tmp_path)))


def test_an_error_that_nobody_foresaw_stops_no_other_video(videos_dir: Path, networks, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(extraction_inputs, "STRETCH", 1)
    videos, network = videos_of(videos_dir)[:3], {"vggish": networks["vggish"]}
    extract(videos[:2], tmp_path / "others", network, "centre", 4, 1)

    def read(path: Path, *rest):
        for inputs in read_inputs(path, *rest):
            yield inputs
            if path.stem == "video2":
                raise IndexError("tuple index out of range")

    monkeypatch.setattr(pipeline, "read_inputs", read)
    outcome = extract(videos, tmp_path / "all", network, "centre", 4, 1)
    assert outcome.written == 2
    assert [one.reason for one in outcome.failures] == ["IndexError: tuple index out of range"]
    names = [f"{feature_path(Path(), 'vggish', video.feature_id)}" for video in videos[:2]]
    assert all((tmp_path / "all" / name).read_bytes() == (tmp_path / "others" / name).read_bytes() for name in names)


@pytest.mark.parametrize("recipe", ["valor", "centre"])
@pytest.mark.parametrize("num_segments", [None, 3, 8])
def test_a_long_video_in_stretches_gives_what_it_gives_at_once(
    tmp_path: Path, monkeypatch, recipe: str, num_segments: int | None
):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (24, 32, 3)).astype(np.uint8) for _ in range(50)]
    noise = rng.integers(-8000, 8000, (1, 5 * 16_000 + 7)).astype(np.int16)
    write_video(tmp_path / "video.mp4", images, 10, noise, 16_000)
    wanted = (tmp_path / "video.mp4", list(ALL), num_segments, recipe)
    [(at_once, is_all)] = read_inputs(*wanted)
    monkeypatch.setattr(extraction_inputs, "STRETCH", 2)
    stretches = list(read_inputs(*wanted))
    assert is_all and [is_last for _, is_last in stretches] == [False] * (len(stretches) - 1) + [True]
    assert len(stretches) == -(-(num_segments or 5) // 2)
    for name, rows in whole_inputs(*wanted).items():
        np.testing.assert_array_equal(rows, at_once[name])


def test_of_a_long_video_no_more_than_two_stretches_are_in_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(extraction_inputs, "STRETCH", 2)
    videos = [make_video(tmp_path / f"{seconds}.mp4", seconds) for seconds in (10, 40)]
    peaks = []
    for path in videos:
        tracemalloc.start()
        for _ in read_inputs(path, ["vggish", "res152", "clap", "clip"], None, "centre"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_whole_video_is_not_taken_for_the_clip_of_a_data_set(videos_dir: Path, networks, tmp_path: Path):
    three_seconds = videos_dir / "video2.mp4"
    videos = [Video("clip", three_seconds, 2, is_clip=True), Video("whole", three_seconds, 1, is_clip=True)]
    outcome = extract([*videos, Video("any", three_seconds, 1)], tmp_path, networks, "valor", 4, 1)
    assert [one.feature_id for one in outcome.failures] == ["whole"]
    assert "a video of 3.0 seconds" in outcome.failures[0].reason
    assert fixed_segments("LLP") and fixed_segments("AVE") and not fixed_segments("UnAV")


def test_of_a_video_shorter_than_its_segments_frames_are_spread_and_sound_ends_in_silence(tmp_path: Path):
    levels = [np.full((240, 240, 3), 20 + 6 * number, np.uint8) for number in range(16)]  # two seconds
    noise = np.random.default_rng(0).integers(-8000, 8000, (1, 32_000)).astype(np.int16)
    write_video(tmp_path / "video.mp4", levels, 8, noise, 16_000, quality=0)
    arrays = whole_inputs(tmp_path / "video.mp4", ["vggish", "res152", "r2plus1d_18"], 4, "valor")
    assert arrays["res152"].shape[0] == 32 and arrays["r2plus1d_18"].shape[:2] == (4, 8)
    for shown in (arrays["res152"].mean((1, 2, 3)), arrays["r2plus1d_18"].reshape(32, -1).mean(1)):
        assert (np.diff(shown) >= -0.5).all()
        assert shown[0] == pytest.approx(20, abs=2) and shown[-1] == pytest.approx(110, abs=2)
    heard = arrays["vggish"].mean((1, 2))
    assert heard[:2].min() > heard[2:].max() + 1


def test_the_record_names_the_file_of_the_backend(tmp_path: Path):
    (tmp_path / "open_clip_model.safetensors").touch()
    settings = settings_of(["clip", "clap"], Source(tmp_path, clip_backend="open_clip"), "centre", "float32")
    assert settings["clip"]["weights"] == "open_clip_model.safetensors"
    assert settings["clap"]["weights"] == "630k-fusion-best.pt"


def test_a_feature_without_a_network_is_an_error_in_words(tmp_path: Path):
    assert NETWORKS.keys() <= FEATURES.keys() & WEIGHTS.keys()
    with pytest.raises(InputError, match="without a network in this repository"):
        build_network("i3d", Source(tmp_path, "small"))


def test_workers_of_ray_compute_on_the_device_that_is_named(tmp_path: Path, monkeypatch):
    asked = []
    monkeypatch.setattr(ray_workers, "select_device", asked.append)
    monkeypatch.setattr(ray_workers, "build_networks", lambda *_: {})
    for device in ("cpu", "cuda:1"):
        job = Job(["clip"], Source(tmp_path), tmp_path, "centre", "float32", 4, 1, False, device)
        ray_workers.ExtractionWorker(job)
    assert asked == ["cpu", "cuda"]  # which GPU is a worker's own is for Ray to say


def test_a_worker_of_ray_writes_what_the_extraction_on_one_machine_writes(
    videos_dir: Path, undisturbed: Path, tmp_path: Path
):
    source = Source(tmp_path, "small")
    job = Job(["vggish", "clip"], source, tmp_path / "features", "centre", "float32", 4, 2, False, "cpu")
    worker = ray_workers.ExtractionWorker(job)
    silent = make_video(tmp_path / "silent.mp4", sound=False)
    videos = [Video("video2", videos_dir / "video2.mp4"), Video("silent", silent), Video("absent", None)]
    rows = worker({"video": [pickle.dumps(video) for video in videos]})
    (outcome,) = map(pickle.loads, rows["outcome"])
    assert (outcome.written, outcome.already_there, rows["videos"]) == (2, 0, [3])
    failures = {one.feature_id: (one.features, one.reason) for one in outcome.failures}
    assert failures == {
        "silent": (("vggish",), "no audio track"),
        "absent": (("vggish", "clip"), "no video file"),
    }
    for name in ("vggish", "clip"):
        ours, theirs = (np.load(feature_path(folder, name, "video2")) for folder in (job.data_dir, undisturbed))
        np.testing.assert_array_equal(ours, theirs)
    silence = ray_workers.ExtractionWorker(replace(job, silence_if_no_sound=True))
    (outcome,) = map(pickle.loads, silence({"video": [pickle.dumps(videos[1])]})["outcome"])
    assert outcome.failures == []


def test_features_that_are_no_numbers_are_a_failure_and_no_file(videos_dir: Path, networks, tmp_path: Path):
    network = networks["vggish"]
    broken = {"vggish": lambda rows: network(rows) * float("nan")}
    outcome = extract(videos_of(videos_dir)[:2], tmp_path, broken, "centre", 4, 1)
    assert [one.reason for one in outcome.failures] == 2 * ["features that are NaN or infinite"]
    assert not list(tmp_path.rglob("*.npy"))


def test_another_video_of_a_name_is_a_failure_and_not_already_there(videos_dir: Path, networks, tmp_path: Path):
    one, other = videos_of(videos_dir)[:2]
    extract([one], tmp_path, {"vggish": networks["vggish"]}, "centre", 4, 1)
    before = files_of(tmp_path)
    outcome = extract([replace(other, feature_id=one.feature_id)], tmp_path, networks, "centre", 4, 1)
    assert (outcome.written, outcome.already_there) == (0, 0)
    assert "another video with this name" in outcome.failures[0].reason and files_of(tmp_path) == before


def test_another_number_of_segments_is_not_mixed_in(videos_dir: Path, tmp_path: Path):
    flags = ["--videos", str(videos_dir / "video1.mp4"), "--output", str(tmp_path), "--features", "vggish"]
    extract_features.main([*flags, "--random_weights", "small"])
    with pytest.raises(InputError, match="differ in num_segments"):
        extract_features.main([*flags, "--random_weights", "small", "--num_segments", "3"])


def test_other_weights_in_files_of_the_same_name_are_not_mixed_in(tmp_path: Path):
    (tmp_path / "weights" / WEIGHTS["clip"]).mkdir(parents=True)
    weights = tmp_path / "weights" / WEIGHTS["clip"] / "model.safetensors"
    weights.write_bytes(b"one")
    source = Source(tmp_path / "weights")
    record_extraction(tmp_path, settings_of(["clip"], source, "centre", "float32"))
    feature_path(tmp_path, "clip", "video").parent.mkdir(parents=True)
    feature_path(tmp_path, "clip", "video").touch()
    record_extraction(tmp_path, settings_of(["clip"], source, "centre", "float32"))
    weights.write_bytes(b"two")
    with pytest.raises(InputError, match="differ in sha256"):
        record_extraction(tmp_path, settings_of(["clip"], source, "centre", "float32"))


def test_a_record_of_an_earlier_version_goes_on(tmp_path: Path):
    settings = settings_of(["clip"], Source(tmp_path, "small"), "centre", "float32")
    earlier = {"clip": {key: settings["clip"][key] for key in ("weights", "drawn_weights", "precision", "recipe")}}
    record_extraction(tmp_path, earlier)
    feature_path(tmp_path, "clip", "video").parent.mkdir(parents=True)
    feature_path(tmp_path, "clip", "video").touch()
    record_extraction(tmp_path, settings)
    assert read_extraction(tmp_path)["clip"] == settings["clip"]
