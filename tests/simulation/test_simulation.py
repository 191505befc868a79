"""Simulated data sets: layout, determinism, what the features mean, and what is refused."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dataloaders import check
from dataloaders.datasets import load_annotations
from dataloaders.feature_origin import SIMULATION_MARKER
from dataloaders.features import FEATURES, PUBLISHED, feature_path, text_features_path
from dataloaders.llp import LLP_CLASSES
from dataloaders.unav import UNAV_CLASSES
from simulation import simulate as simulation
from simulation.__main__ import main as simulation_main
from simulation.simulated_features import (
    MODEL,
    Truth,
    VideoSimulator,
    class_concepts,
    name_words,
    text_features,
)
from utils.errors import InputError

SIZES = {"train": 3, "val": 2, "test": 2}
SMALL = ["vggish", "clap"]  # quick to write


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data sets with all their features, simulated once for the tests that only read them."""
    root = tmp_path_factory.mktemp("simulated")
    for dataset in ("LLP", "UnAV", "AVE"):
        simulation.simulate(dataset, root, sizes=SIZES)
    return root


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dataset", ["LLP", "UnAV", "AVE"])
def test_a_simulated_data_set_passes_the_check(generated, dataset):
    assert check.main(["--dataset", dataset, "--data_dir", str(generated / dataset)]) == 0


@pytest.mark.parametrize("dataset", ["LLP", "UnAV", "AVE"])
def test_generated_annotations_load_with_the_wanted_number_of_videos(generated, dataset):
    for split, size in SIZES.items():
        annotations = load_annotations(dataset, generated / dataset, split)
        assert annotations.num_videos == size
        assert annotations.video_labels.any(dim=1).all()


def test_files_have_the_shapes_and_norms_of_the_real_ones(generated):
    video = load_annotations("LLP", generated / "LLP", "train").feature_ids[0]
    for name, width in ((name, FEATURES[name].width) for name in PUBLISHED):
        values = np.load(feature_path(generated / "LLP", name, video))
        assert values.dtype == np.float32
        assert values.shape == (10 * FEATURES[name].rows_per_second, width)
        if name in ("clip", "clap"):
            np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
            events = np.load(text_features_path(generated / "LLP", name))
            assert events.shape == (25, width)
            np.testing.assert_allclose(np.linalg.norm(events, axis=1), 1, atol=1e-5)
        else:
            assert values.min() >= 0


def test_unav_files_have_about_one_row_a_second(generated):
    annotations = load_annotations("UnAV", generated / "UnAV", "train")
    for video, length in zip(annotations.feature_ids, annotations.lengths.tolist(), strict=True):
        assert abs(len(np.load(feature_path(generated / "UnAV", "clip", video))) - length) <= 1


def test_the_marker_says_that_and_how_a_folder_was_simulated(generated):
    marker = yaml.safe_load((generated / "LLP" / SIMULATION_MARKER).read_text())
    assert marker["simulated"] is True and marker["complete"] is True
    assert marker["videos"] == SIZES and marker["seed"] == 0
    assert set(marker["model"]["backbones"]) == set(MODEL["backbones"])


def test_the_same_seed_gives_the_same_files_and_another_seed_others(generated, tmp_path):
    folders = [
        simulation.simulate("LLP", tmp_path / name, generated, seed=seed, features=SMALL)
        for name, seed in (("first", 1), ("second", 1), ("third", 2))
    ]
    first, second, third = map(read_bytes, folders)
    assert first == second
    features = [name for name in first if name.endswith(".npy")]
    assert features and all(first[name] != third[name] for name in features)


def test_a_video_has_the_same_files_whatever_else_is_simulated(generated, tmp_path):
    few = simulation.simulate("LLP", tmp_path / "few", generated, dict.fromkeys(SIZES, 1), features=["vggish"])
    many = simulation.simulate("LLP", tmp_path / "many", generated, features=SMALL)
    more = read_bytes(many / FEATURES["vggish"].folder)
    files = read_bytes(few / FEATURES["vggish"].folder)
    assert len(files) == 3 < len(more)
    assert all(more[name] == content for name, content in files.items())


def test_a_killed_simulation_continues_where_it_was(generated, tmp_path, monkeypatch):
    whole = read_bytes(simulation.simulate("LLP", tmp_path / "whole", generated, features=SMALL))
    write, written = simulation.atomic_write, []
    folders = {tmp_path / "killed/LLP" / FEATURES[name].folder for name in SMALL}

    def killed(path):
        if path.parent in folders:
            if len(written) == 5:
                raise KeyboardInterrupt
            written.append(path)
        return write(path)

    monkeypatch.setattr(simulation.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(simulation, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):
        simulation.simulate("LLP", tmp_path / "killed", generated, features=SMALL)
    assert yaml.safe_load((tmp_path / "killed/LLP" / SIMULATION_MARKER).read_text())["complete"] is False
    before = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.setattr(simulation, "atomic_write", write)
    continued = simulation.simulate("LLP", tmp_path / "killed", generated, features=SMALL)
    assert read_bytes(continued) == whole
    assert {path: path.stat().st_mtime_ns for path in written} == before


@pytest.mark.parametrize("feature", ["clip", "clap"])
def test_texts_of_related_names_are_closer_than_those_of_unrelated_names(feature):
    pairs = [("Cello", "playing cello"), ("Speech", "man speaking"), ("Dog", "dog barking"), ("Cat", "cat meowing")]
    llp, unav = (text_features(feature, names, seed=0) for names in (LLP_CLASSES, UNAV_CLASSES))
    similarity = llp @ unav.T
    for one, other in pairs:
        row = similarity[LLP_CLASSES.index(one)]
        related = [c for c, name in enumerate(UNAV_CLASSES) if set(name_words(name)) & set(name_words(one))]
        assert UNAV_CLASSES.index(other) in related
        assert row[UNAV_CLASSES.index(other)] > np.delete(row, related).max()


def test_words_of_people_hardly_tell_classes_apart():
    assert name_words("man speaking")["speak"] > name_words("man speaking")["man"]
    assert name_words("Speech") == {"speak": 1.0}
    assert name_words("Lawn_mower") == name_words("lawn mowing")


def test_features_lie_near_the_names_of_active_events():
    """On average over videos: in one video, the event's own look may resemble another class."""
    truth = Truth(*np.zeros((2, 40, 25), bool), np.zeros(25, bool))
    truth.visual[:20, 3] = True
    simulator = VideoSimulator("LLP", LLP_CLASSES, seed=0)
    features = np.stack([simulator.features(f"video {n}", truth, ["clip"])["clip"] for n in range(40)])  # (N, T, D)
    scores = features @ text_features("clip", LLP_CLASSES, seed=0).T
    gain = scores[:, :20].mean(axis=(0, 1)) - scores[:, 20:].mean(axis=(0, 1))  # (C,)
    assert gain.argmax() == 3


def test_single_segments_mislead():
    """Evidence is hidden in part of an event's segments, and distractors show classes that are not there."""
    truth = Truth(*np.zeros((2, 2000, 25), bool), np.zeros(25, bool))
    truth.audio[:1000, 3] = truth.labels[3] = True
    strengths, _ = VideoSimulator("LLP", LLP_CLASSES, seed=0).evidence("video", "audio", truth)
    evidence = strengths[:, 3] > 0
    assert 0.1 < evidence[:1000].mean() < 0.9
    assert 0.02 < evidence[1000:].mean() < evidence[:1000].mean() / 2


def test_every_backbone_sees_every_class():
    for feature in MODEL["backbones"]:
        concepts = class_concepts(feature, LLP_CLASSES, seed=0)
        similarity = concepts @ concepts.T
        assert np.abs(similarity - np.diag(similarity.diagonal())).max() < 0.9


def test_training_videos_have_a_truth_that_fits_their_video_labels(generated):
    train = load_annotations("LLP", generated / "LLP", "train")
    with np.load(generated / "LLP" / simulation.TRAIN_TRUTH) as truth:
        assert tuple(truth["filename"]) == train.sample_ids
        assert truth["audio"].shape == truth["visual"].shape == (30, 25) and truth["length"].tolist() == [10] * 3
        present = (truth["audio"] | truth["visual"]).reshape(3, 10, 25).any(axis=1)
    assert (present <= train.video_labels.numpy()).all()
    assert present.any()


def test_training_never_sees_the_truth_of_training_videos(generated):
    train = load_annotations("LLP", generated / "LLP", "train")
    assert train.labels is None
    assert simulation.TRAIN_TRUTH.parts[0] not in {FEATURES[name].folder.split("/")[0] for name in FEATURES}


def test_unav_annotations_leave_out_one_sided_events(generated):
    splits = {split: load_annotations("UnAV", generated / "UnAV", split) for split in SIZES}
    truths = simulation.video_truth(splits, seed=0)
    labels = torch.split(splits["train"].labels.audio, splits["train"].lengths.tolist())
    for video, annotated in zip(splits["train"].feature_ids, labels, strict=True):
        for stream in (truths[video].audio, truths[video].visual):
            assert (annotated.numpy() <= stream).all()
    assert any((one.audio != one.visual).any() for one in truths.values())


def test_a_folder_of_real_data_is_refused(tmp_path):
    (tmp_path / "LLP").mkdir()
    (tmp_path / "LLP" / "AVVP_train.csv").write_text("filename\tevent_labels\n")
    with pytest.raises(InputError, match="real data"):
        simulation.simulate("LLP", tmp_path, sizes=SIZES, features=SMALL)
    assert [path.name for path in (tmp_path / "LLP").iterdir()] == ["AVVP_train.csv"]


def test_other_parameters_in_the_same_folder_are_refused(generated, tmp_path):
    arguments = ["--output", str(tmp_path), "--dataset", "LLP", "--features", "vggish"]
    arguments += ["--annotations", str(generated)]
    simulation_main(arguments)
    with pytest.raises(InputError, match="different seed"):
        simulation_main([*arguments, "--seed", "1"])


def test_real_annotations_are_copied_row_by_row(generated, tmp_path):
    copied = simulation.simulate("LLP", tmp_path, generated, {**SIZES, "train": 2}, features=["vggish"])
    rows = (copied / "AVVP_train.csv").read_text().splitlines()
    assert len(rows) == 1 + 2
    assert set(rows) <= set((generated / "LLP" / "AVVP_train.csv").read_text().splitlines())
    assert (copied / "AVVP_eval_audio.csv").read_bytes() == (generated / "LLP" / "AVVP_eval_audio.csv").read_bytes()


def test_a_disk_without_room_is_refused_before_features_are_written(generated, tmp_path, monkeypatch):
    usage = simulation.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(simulation.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="GiB"):
        simulation.simulate("LLP", tmp_path, generated, features=SMALL)
    assert not list((tmp_path / "LLP").rglob(FEATURES["vggish"].folder + "/*.npy"))


def test_a_disk_that_fills_up_leaves_no_half_written_file(generated, tmp_path, monkeypatch):
    def full(file, _):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(simulation.np, "save", full)
    with pytest.raises(InputError, match="No space left"):
        simulation.simulate("LLP", tmp_path, generated, features=["vggish"])
    assert not [path for path in tmp_path.rglob("*.npy*")]
