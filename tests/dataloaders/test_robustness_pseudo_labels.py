"""Pseudo-labels with values that are none, packed and as `.npy`, and the names that the released code opens."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import load_annotations
from dataloaders.pseudo_labels import PseudoLabels, export_npy, load_pseudo_labels, npy_stems, save_pseudo_labels
from tests.tiny_runs import label, pretrain
from utils.audio_visual import AudioVisual
from utils.errors import InputError

nan, inf = float("nan"), float("inf")


@pytest.fixture
def annotations(llp_dir) -> SplitAnnotations:
    return load_annotations("LLP", llp_dir, "train")


def make_pseudo(annotations: SplitAnnotations) -> PseudoLabels:
    num_classes = len(annotations.classes)
    audio, visual = torch.randn(2, int(annotations.lengths.sum()), num_classes)
    thresholds = torch.full((num_classes,), 0.1, dtype=torch.float64)
    return PseudoLabels(
        annotations.dataset,
        annotations.classes,
        annotations.sample_ids,
        annotations.lengths,
        AudioVisual(audio, visual),
        AudioVisual(audio > 0, visual > 0),
        AudioVisual(thresholds, thresholds.clone()),
    )


def packed(annotations, folder):
    save_pseudo_labels(make_pseudo(annotations), folder / "train.safetensors")
    return folder / "train.safetensors"


def rewrite(path, annotations, **changed) -> None:
    """Replace tensors of a packed file, or its ids."""
    ids = changed.pop("sample_ids", annotations.sample_ids)
    metadata = {"dataset": "LLP", "classes": "\n".join(annotations.classes), "sample_ids": "\n".join(ids)}
    save_file({**load_file(path), **changed}, path, metadata)


def refused(folder, annotations, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_pseudo_labels(folder, annotations)


@pytest.mark.parametrize("value", [nan, inf])
@pytest.mark.parametrize("name", ["audio_logits", "visual_logits", "audio_thresholds", "visual_thresholds"])
def test_packed_values_that_are_not_finite_are_refused(annotations, tmp_path, name, value):
    path = packed(annotations, tmp_path)
    values = load_file(path)[name]
    values.flatten()[7] = value
    rewrite(path, annotations, **{name: values})
    refused(tmp_path, annotations, f"train.safetensors: found {name.replace('_', ' ')} with the value {value}")


def test_minus_infinity_stands_for_absent_classes_only(annotations, tmp_path):
    path = packed(annotations, tmp_path)
    logits = load_file(path)["audio_logits"]
    absent = ~annotations.video_labels.repeat_interleave(10, dim=0)
    logits[absent] = -inf
    rewrite(path, annotations, audio_logits=logits.clone())
    assert torch.equal(load_pseudo_labels(tmp_path, annotations).logits.audio, logits)
    logits[35][annotations.video_labels[3]] = -inf
    rewrite(path, annotations, audio_logits=logits)
    refused(tmp_path, annotations, f"logits of -inf .* of {annotations.sample_ids[3]}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("audio_labels", torch.full((140, 25), 2.0)),
        ("visual_labels", torch.zeros(140, 25, dtype=torch.int64)),
        ("audio_logits", torch.zeros(140, 24)),
        ("visual_logits", torch.zeros(139, 25)),
        ("audio_logits", torch.zeros(140, 25, dtype=torch.float64)),
        ("audio_thresholds", torch.zeros(24, dtype=torch.float64)),
        ("lengths", torch.full((13,), 10)),
        ("lengths", torch.full((14,), 10.0)),
    ],
)
def test_packed_tensor_of_another_type_or_shape_is_refused(annotations, tmp_path, name, values):
    path = packed(annotations, tmp_path)
    rewrite(path, annotations, **{name: values})
    refused(tmp_path, annotations, f"train.safetensors: found {name}: type {values.dtype} and")


@pytest.mark.parametrize("length", [0, -5, 2**62])
def test_packed_lengths_that_are_none_are_refused(annotations, tmp_path, length):
    path = packed(annotations, tmp_path)
    rewrite(path, annotations, lengths=torch.tensor([length] * 14))
    refused(tmp_path, annotations, "train.safetensors: found ")


def test_packed_labels_of_bytes_beyond_one_are_refused(annotations, tmp_path):
    path = packed(annotations, tmp_path)
    rewrite(path, annotations, audio_labels=torch.full((140, 25), 3, dtype=torch.uint8).view(torch.bool))
    refused(tmp_path, annotations, "audio labels with the value 3; expected labels of 0 or 1")


def test_packed_ids_that_are_repeated_are_refused(annotations, tmp_path):
    path = packed(annotations, tmp_path)
    rewrite(path, annotations, sample_ids=(*annotations.sample_ids, annotations.sample_ids[0]))
    refused(tmp_path, annotations, f"1 repeated videos, for instance {annotations.sample_ids[0]}")


@pytest.mark.parametrize(
    ("folder", "value"),
    [
        *(("a_segmentwise_pseudo_labels", value) for value in (nan, 2, -1, 0.5, inf)),
        *(("v_segmentwise_logits", value) for value in (nan, inf)),
    ],
)
def test_npy_value_that_is_none_is_refused_with_its_file(annotations, tmp_path, folder, value):
    export_npy(make_pseudo(annotations), tmp_path, npy_stems([annotations]))
    path = tmp_path / folder / f"{annotations.feature_ids[4]}.npy"
    values = np.load(path)
    values[3, 3] = value
    np.save(path, values)
    refused(tmp_path, annotations, f"{annotations.feature_ids[4]}.npy: found .* with the value {value}")


@pytest.mark.parametrize("values", [np.full(25, nan), np.full(25, inf), np.full(25, "0.5"), np.full(25, 1j)])
def test_npy_thresholds_that_are_none_are_refused(annotations, tmp_path, values):
    export_npy(make_pseudo(annotations), tmp_path, npy_stems([annotations]))
    np.save(tmp_path / "a_classwise_threhsolds.npy", values)
    refused(tmp_path, annotations, "a_classwise_threhsolds.npy: found ")


@pytest.mark.parametrize("dtype", ["U4", "c8", "M8[s]"])
def test_npy_labels_that_are_no_real_numbers_are_refused(annotations, tmp_path, dtype):
    export_npy(make_pseudo(annotations), tmp_path, npy_stems([annotations]))
    path = tmp_path / "v_segmentwise_pseudo_labels" / f"{annotations.feature_ids[0]}.npy"
    np.save(path, np.zeros((10, 25), dtype=dtype))
    refused(tmp_path, annotations, f"{annotations.feature_ids[0]}.npy: found values of type")


def test_exported_files_have_the_names_and_types_that_the_released_code_opens(llp_dir, unav_dir, tmp_path):
    folder = label(llp_dir, pretrain(unav_dir, tmp_path, "--num_epochs", "1"), "--export")
    feature_ids = {i for s in ("train", "val", "test") for i in load_annotations("LLP", llp_dir, s).feature_ids}
    for letter in "av":
        assert np.load(folder / f"{letter}_classwise_threhsolds.npy").dtype == np.float32
        for kind in ("pseudo_labels", "logits"):
            files = list((folder / f"{letter}_segmentwise_{kind}").iterdir())
            assert {path.stem for path in files} == feature_ids
            assert np.load(files[0]).dtype == np.float32


def test_samples_that_share_a_video_are_exported_under_their_own_names(ave_dir):
    splits = [load_annotations("AVE", ave_dir, split) for split in ("train", "test")]
    both = dataclasses.replace(splits[1], feature_ids=(splits[0].feature_ids[2], *splits[1].feature_ids[1:]))
    stems = npy_stems([splits[0], both])
    assert stems[both.sample_ids[0]] == both.sample_ids[0]
    assert stems[splits[0].sample_ids[2]] == splits[0].sample_ids[2]
    assert stems[both.sample_ids[1]] == both.feature_ids[1]
    assert len(set(stems.values())) == splits[0].num_videos + both.num_videos


def test_files_of_an_older_export_by_sample_are_read_and_replaced(annotations, tmp_path):
    old, new = make_pseudo(annotations), make_pseudo(annotations)
    export_npy(old, tmp_path, {sample_id: sample_id for sample_id in annotations.sample_ids})
    assert torch.equal(load_pseudo_labels(tmp_path, annotations).logits.audio, old.logits.audio)
    export_npy(new, tmp_path, npy_stems([annotations]))
    assert torch.equal(load_pseudo_labels(tmp_path, annotations).logits.audio, new.logits.audio)
    assert len(os.listdir(tmp_path / "a_segmentwise_logits")) == annotations.num_videos
