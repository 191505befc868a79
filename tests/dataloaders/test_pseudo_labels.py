"""Stage 2: pseudo-labels, their files, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dataloaders.annotations import SplitAnnotations, Subset
from dataloaders.features import feature_path, text_features_path
from dataloaders.llp import load_split
from dataloaders.pseudo_labels import PseudoLabels, export_npy, load_pseudo_labels, npy_stems, save_pseudo_labels
from models import TemporalTransformer
from tests.tiny_runs import assert_same_weights, label, pretrain, train
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.training.checkpoints import load_network


@pytest.fixture
def annotations(llp_dir) -> SplitAnnotations:
    return load_split(llp_dir, "train")


@pytest.fixture
def pseudo(annotations) -> PseudoLabels:
    generator = torch.Generator().manual_seed(0)
    audio, visual = torch.randn(2, int(annotations.lengths.sum()), 25, generator=generator)
    return PseudoLabels(
        dataset="LLP",
        classes=annotations.classes,
        sample_ids=annotations.sample_ids,
        lengths=annotations.lengths,
        logits=AudioVisual(audio, visual),
        labels=AudioVisual(audio > 0.5, visual > 0),
        thresholds=AudioVisual(
            torch.full((25,), 0.5, dtype=torch.float64),
            torch.tensor([0.0] * 24 + [-torch.inf], dtype=torch.float64),
        ),
    )


def assert_equal(one: PseudoLabels, other: PseudoLabels) -> None:
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, AudioVisual):
            assert all(a.map(torch.equal, b)), field.name
        else:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_packed_file_gives_back_what_was_saved(pseudo, annotations, tmp_path):
    save_pseudo_labels(pseudo, tmp_path / "train.safetensors")
    assert_equal(load_pseudo_labels(tmp_path, annotations), pseudo)


def test_released_layout_gives_back_what_was_exported(pseudo, annotations, tmp_path):
    export_npy(pseudo, tmp_path, npy_stems([annotations]))
    assert_equal(load_pseudo_labels(tmp_path, annotations), pseudo)


RELEASED = AudioVisual("a", "v")  # how the released names of the modalities begin


def test_files_of_the_released_names_are_read_as_what_they_are_named(annotations, tmp_path):
    num_classes = len(annotations.classes)
    for number, letter in enumerate(RELEASED):
        np.save(tmp_path / f"{letter}_classwise_threhsolds.npy", np.full(num_classes, 10.0 + number))
        for kind in ("pseudo_labels", "logits"):
            (tmp_path / f"{letter}_segmentwise_{kind}").mkdir()
        for n, feature_id in enumerate(annotations.feature_ids):
            labels = np.full((10, num_classes), float(number))
            np.save(tmp_path / f"{letter}_segmentwise_pseudo_labels" / f"{feature_id}.npy", labels)
            np.save(tmp_path / f"{letter}_segmentwise_logits" / f"{feature_id}.npy", labels + n + 0.5)
    read = load_pseudo_labels(tmp_path, annotations)
    assert not read.labels.audio.any() and read.labels.visual.all()
    assert (read.thresholds.audio == 10).all() and (read.thresholds.visual == 11).all()
    videos = torch.arange(annotations.num_videos).repeat_interleave(10).unsqueeze(1)
    assert (read.logits.audio == videos + 0.5).all() and (read.logits.visual == videos + 1.5).all()


def test_exported_files_hold_what_the_released_names_say(pseudo, annotations, tmp_path):
    export_npy(pseudo, tmp_path, npy_stems([annotations]))
    for letter, thresholds, labels, logits in zip(
        RELEASED, pseudo.thresholds, pseudo.labels, pseudo.logits, strict=True
    ):
        assert np.array_equal(np.load(tmp_path / f"{letter}_classwise_threhsolds.npy"), thresholds.float().numpy())
        for kind, rows in (("pseudo_labels", labels), ("logits", logits)):
            folder = tmp_path / f"{letter}_segmentwise_{kind}"
            assert sorted(path.stem for path in folder.iterdir()) == sorted(annotations.feature_ids)
            for n, feature_id in enumerate(annotations.feature_ids):
                assert np.array_equal(np.load(folder / f"{feature_id}.npy"), rows[10 * n : 10 * n + 10].float().numpy())


def test_subset_of_videos_is_taken_in_its_own_order(pseudo, annotations, tmp_path):
    save_pseudo_labels(pseudo, tmp_path / "train.safetensors")
    subset = annotations.subset(torch.tensor([5, 2]))
    loaded = load_pseudo_labels(tmp_path, subset)
    assert loaded.sample_ids == subset.sample_ids
    assert torch.equal(loaded.logits.audio[:10], pseudo.logits.audio[50:60])
    assert torch.equal(loaded.logits.audio[10:], pseudo.logits.audio[20:30])


def test_a_run_on_fewer_classes_takes_the_first_ones(pseudo, annotations, tmp_path):
    save_pseudo_labels(pseudo, tmp_path / "train.safetensors")
    part = Subset(num_classes=2).annotations(annotations)
    loaded = load_pseudo_labels(tmp_path, part)
    rows = annotations.video_labels[:, :2].any(dim=1).repeat_interleave(10)
    assert loaded.classes == annotations.classes[:2]
    for m in range(2):
        assert torch.equal(loaded.logits[m], pseudo.logits[m][rows, :2])
        assert torch.equal(loaded.labels[m], pseudo.labels[m][rows, :2])
        assert torch.equal(loaded.thresholds[m], pseudo.thresholds[m][:2])


def test_videos_of_other_lengths_are_refused(pseudo, annotations, tmp_path):
    lengths = pseudo.lengths.clone()
    lengths[3:5] += torch.tensor([1, -1])
    save_pseudo_labels(dataclasses.replace(pseudo, lengths=lengths), tmp_path / "train.safetensors")
    refused(tmp_path, annotations, "videos of other lengths")


def test_class_frequencies_are_shares_of_all_segments(pseudo):
    assert pseudo.class_frequencies.audio[3] == pseudo.labels.audio[:, 3].sum() / len(pseudo.labels.audio)


def refused(folder, annotations, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_pseudo_labels(folder, annotations)


def test_other_data_set_is_refused(pseudo, annotations, tmp_path):
    save_pseudo_labels(dataclasses.replace(pseudo, dataset="AVE"), tmp_path / "train.safetensors")
    refused(tmp_path, annotations, "a record of AVE")


def test_other_class_count_is_refused(pseudo, annotations, tmp_path):
    fewer = dataclasses.replace(pseudo, classes=pseudo.classes[:20])
    save_pseudo_labels(fewer, tmp_path / "train.safetensors")
    refused(tmp_path, annotations, "with 20 classes")


def test_missing_video_is_named(pseudo, annotations, tmp_path):
    sample_ids = ("somebody_else_0_10", *pseudo.sample_ids[1:])
    save_pseudo_labels(dataclasses.replace(pseudo, sample_ids=sample_ids), tmp_path / "train.safetensors")
    refused(tmp_path, annotations, f"1 absent and 0 repeated videos, for instance {annotations.sample_ids[0]}")


def test_damaged_file_is_refused(pseudo, annotations, tmp_path):
    save_pseudo_labels(pseudo, tmp_path / "train.safetensors")
    data = (tmp_path / "train.safetensors").read_bytes()
    (tmp_path / "train.safetensors").write_bytes(data[: len(data) // 2])
    refused(tmp_path, annotations, "no readable record")


def test_empty_folder_is_refused(annotations, tmp_path):
    refused(tmp_path, annotations, "Run stage 2 for this data set")


def test_released_thresholds_of_wrong_length_are_refused(pseudo, annotations, tmp_path):
    export_npy(pseudo, tmp_path, npy_stems([annotations]))
    np.save(tmp_path / "v_classwise_threhsolds.npy", np.zeros(28))
    refused(tmp_path, annotations, r"v_classwise_threhsolds.npy: .* shape \(28,\)")


def test_released_video_of_wrong_shape_is_refused(pseudo, annotations, tmp_path):
    export_npy(pseudo, tmp_path, npy_stems([annotations]))
    np.save(tmp_path / "a_segmentwise_logits" / f"{annotations.feature_ids[3]}.npy", np.zeros((10, 24)))
    refused(tmp_path, annotations, rf"{annotations.feature_ids[3]}.*\n?.*\(10, 24\)")


def test_released_video_that_is_absent_is_named(pseudo, annotations, tmp_path):
    export_npy(pseudo, tmp_path, npy_stems([annotations]))
    (tmp_path / "a_segmentwise_pseudo_labels" / f"{annotations.feature_ids[3]}.npy").unlink()
    refused(tmp_path, annotations, f"{annotations.feature_ids[3]}.npy: found no readable file")


@pytest.mark.parametrize("threshold_type", ["class_wise", "class_agnostic"])
def test_stage_2_writes_every_split_and_its_quality(llp_dir, unav_dir, tmp_path, threshold_type):
    folder = label(llp_dir, pretrain(unav_dir, tmp_path, "--num_epochs", "1"), "--threshold_type", threshold_type)
    for split, number in (("train", 14), ("val", 6), ("test", 6)):
        tensors = load_file(folder / f"{split}.safetensors")
        labels = load_split(llp_dir, split).video_labels.repeat_interleave(10, dim=0)
        assert tensors["lengths"].shape == (number,)
        for modality in ("audio", "visual"):
            positive = tensors[f"{modality}_logits"] > tensors[f"{modality}_thresholds"]
            assert torch.equal(tensors[f"{modality}_labels"], positive & labels)
            assert (tensors[f"{modality}_thresholds"].unique().numel() == 1) == (threshold_type == "class_agnostic")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() == {"val", "test"}
    assert all(0 <= value <= 100 for scores in summary.values() for value in scores.values())
    assert {f"pseudo_label_quality.{kind}" for kind in ("txt", "md", "csv", "json")} <= {
        path.name for path in folder.iterdir()
    }


def test_stage_2_scores_segments_with_the_transformer_and_takes_the_best_thresholds_of_val(llp_dir, unav_dir, tmp_path):
    run = pretrain(unav_dir, tmp_path, "--num_epochs", "1")
    folder = label(llp_dir, run)
    model = load_network(TemporalTransformer, run / "checkpoints/checkpoint_best.pt", {}, num_heads=2).eval()
    texts = [torch.tensor(np.load(text_features_path(llp_dir, name))) for name in ("clap", "clip")]
    for split in ("train", "val", "test"):
        annotations, tensors = load_split(llp_dir, split), load_file(folder / f"{split}.safetensors")
        for n, feature_id in enumerate(annotations.feature_ids):
            arrays = [np.load(feature_path(llp_dir, name, feature_id)) for name in ("clap", "clip")]
            with torch.inference_mode():
                logits = model(*(torch.tensor(array)[None] for array in arrays), *texts).logits
            for modality, expected in logits._asdict().items():
                found = tensors[f"{modality}_logits"][10 * n : 10 * n + 10]
                torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-5)

    def f1(predicted: torch.Tensor, true: torch.Tensor) -> float:
        return 2 * (predicted & true).sum().item() / max(int(predicted.sum() + true.sum()), 1)

    annotations, tensors = load_split(llp_dir, "val"), load_file(folder / "val.safetensors")
    labels = annotations.video_labels.repeat_interleave(10, dim=0)
    for modality, truth in annotations.labels._asdict().items():
        for c in range(4):  # those that occur
            of_class, true = tensors[f"{modality}_logits"][:, c], truth[:, c]
            best = max(f1((of_class >= logit) & labels[:, c], true) for logit in of_class)
            assert f1(tensors[f"{modality}_labels"][:, c].bool(), true) == best


def test_stage_2_scores_its_labels_on_val_and_test_against_the_annotations(llp_dir, unav_dir, tmp_path):
    folder = label(llp_dir, pretrain(unav_dir, tmp_path, "--num_epochs", "1"))
    summary = json.loads((folder / "summary.json").read_text())
    for split in ("val", "test"):
        tensors = load_file(folder / f"{split}.safetensors")
        for modality, truth in load_split(llp_dir, split).labels._asdict().items():
            videos = zip(tensors[f"{modality}_labels"].bool().split(10), truth.split(10), strict=True)
            # Each class that occurs in prediction or truth; the others are 0 / 0.
            per_video = [(2 * (p & t).sum(dim=0) / (p.sum(dim=0) + t.sum(dim=0))).nanmean() for p, t in videos]
            expected = 100 * torch.stack(per_video).mean().item()
            assert summary[split][f"segment_{modality[0].upper()}"] == pytest.approx(expected)
    assert summary["val"] != summary["test"]


def test_class_without_positive_in_val_takes_the_class_agnostic_threshold(llp_dir, unav_dir, tmp_path):
    folder = label(llp_dir, pretrain(unav_dir, tmp_path, "--num_epochs", "1"))
    assert "using the class-agnostic threshold" in (folder / "log.txt").read_text()
    thresholds = load_file(folder / "val.safetensors")["audio_thresholds"]
    assert thresholds[4:].unique().numel() == 1  # the tiny data set has positives of the first four classes only
    assert thresholds.isfinite().any()


def test_stage_2_exports_videos_of_two_splits_that_share_a_feature_id_by_their_samples(llp_dir, unav_dir, tmp_path):
    for path in llp_dir.glob("AVVP_*.csv"):
        path.write_text(path.read_text().replace("va000000002_0_10", "tr000000003_10_20"))
    folder = label(llp_dir, pretrain(unav_dir, tmp_path, "--num_epochs", "1"), "--export")
    exported = {path.stem for path in (folder / "a_segmentwise_logits").iterdir()}
    assert {"tr000000003_0_10", "tr000000003_10_20", "tr000000004", "va000000001"} <= exported
    assert len(exported) == 14 + 6 + 6


def test_han_trains_alike_from_packed_and_exported_pseudo_labels(llp_dir, unav_dir, tmp_path):
    packed = label(llp_dir, pretrain(unav_dir, tmp_path, "--num_epochs", "1"), "--export")
    exported = tmp_path / "exported"
    exported.mkdir()
    for path in packed.glob("[av]_*"):
        path.rename(exported / path.name)
    runs = [train(llp_dir, tmp_path / d.name, "--pseudo_label_dir", d) for d in (packed, exported)]
    assert_same_weights(*runs)
