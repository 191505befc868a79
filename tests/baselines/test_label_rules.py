"""The label rules of JoMoLD and LSLD beside plain loops that say the same."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.han import smooth_labels
from baselines.jomold import cleaned_targets
from baselines.jomold.noise_ratios import LIMITS, noise_ratios
from baselines.lsld.refine_labels import class_cosines, refined_labels, softened_labels
from dataloaders.batches import DataSettings, open_split
from dataloaders.features import feature_path
from tests.tiny_data import WIDTHS
from utils.audio_visual import AudioVisual


def cross_entropy(p: float, y: float) -> float:
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def denoising_batch(seed: int, num_videos: int = 24, num_classes: int = 5) -> dict[str, AudioVisual[Tensor] | Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_videos, num_classes, generator=draw) < 0.6).float()
    labels[:, -1] = 0  # a class that the batch lacks
    return {
        "probs": AudioVisual(*(torch.rand(2, num_videos, num_classes, generator=draw) * 0.98 + 0.01)),
        "targets": AudioVisual(labels, smooth_labels(labels, 0.1)),
        "ratios": AudioVisual(*(torch.rand(2, num_classes, generator=draw) * 0.7)),
        "labels": labels,
    }


def cleaned_by_loops(batch: dict[str, AudioVisual[Tensor] | Tensor]) -> AudioVisual[Tensor]:
    cleaned = batch["targets"].map(Tensor.clone)
    num_videos, num_classes = batch["labels"].shape
    for c in range(num_classes):
        positives = [n for n in range(num_videos) if batch["labels"][n, c]]

        by_audio, by_visual = (
            sorted(positives, key=list(map(cross_entropy, probs[:, c].tolist(), targets[:, c].tolist())).__getitem__)
            for probs, targets in zip(batch["probs"], batch["targets"], strict=True)
        )
        heard, seen = (math.floor(ratios[c].item() * len(positives)) for ratios in batch["ratios"])
        for n in set(by_audio[:seen]) & set(by_visual[len(positives) - seen :]):
            cleaned.visual[n, c] = 0
        for n in set(by_audio[len(positives) - heard :]) & set(by_visual[:heard]):
            cleaned.audio[n, c] = 0
    return cleaned


def test_jomold_cleans_the_targets_that_a_plain_loop_cleans():
    num_cleaned = AudioVisual(0, 0)
    for seed in range(5):
        batch = denoising_batch(seed)
        cleaned = cleaned_targets(**batch)
        assert all(cleaned.map(torch.equal, cleaned_by_loops(batch)))
        changed = cleaned.map(lambda ours, given: int((ours != given).sum()), batch["targets"])
        num_cleaned = num_cleaned.map(lambda so_far, more: so_far + more, changed)
    assert min(num_cleaned) > 5


def test_jomold_cleans_nothing_at_ratio_zero():
    batch = denoising_batch(0) | {"ratios": AudioVisual(torch.zeros(5), torch.zeros(5))}
    assert all(cleaned_targets(**batch).map(torch.equal, batch["targets"]))


def test_of_equal_losses_the_earlier_video_s_counts_as_the_smaller():
    half = torch.full((40, 1), 0.5)
    ratios = AudioVisual(torch.tensor([0.6]), torch.tensor([0.75]))  # 24 and 30 of the 40 positives are looked at
    cleaned = cleaned_targets(AudioVisual(half, half), AudioVisual(half + 0.5, half + 0.5), ratios, half + 0.5)
    # The 24 largest losses are those of videos 16 to 39, the 24 smallest those of 0 to 23; of 30: 10 to 39 and 0 to 29.
    assert (cleaned.audio == 0).flatten().nonzero().flatten().tolist() == list(range(16, 24))
    assert (cleaned.visual == 0).flatten().nonzero().flatten().tolist() == list(range(10, 30))


def test_losses_of_vanishing_probabilities_are_equal():
    audio, visual = torch.tensor([[0.6], [0.5]]), torch.tensor([[1e-9], [1e-8]])  # of which both count as 1e-7
    one, half = torch.ones(2, 1), torch.tensor([0.5])
    cleaned = cleaned_targets(AudioVisual(audio, visual), AudioVisual(one, one), AudioVisual(half, half), one)
    assert cleaned.visual.all()  # the later video's loss is the larger, the earlier one's audio loss the smaller


def test_all_targets_of_a_class_of_ratio_one_are_removed():
    batch = denoising_batch(1) | {"ratios": AudioVisual(torch.zeros(5), torch.ones(5))}
    visual, positive = cleaned_targets(**batch).visual, batch["labels"].bool()
    assert (visual[positive] == 0).all()
    assert torch.equal(visual[~positive], batch["targets"].visual[~positive])


def test_noise_ratios_are_those_of_a_plain_loop():
    batch = denoising_batch(3, num_videos=50)
    probs, targets, labels = batch["probs"].visual, batch["targets"].visual, batch["labels"].bool()
    parts = probs.split(16)  # the last holds 2 videos
    ratios = noise_ratios(probs, targets, labels, 16, limit=1.2)
    for c in range(5):
        mean = sum(part[:, c].mean().item() for part in parts) / len(parts)
        positives = [n for n in range(50) if labels[n, c]]
        noisy = [n for n in positives if probs[n, c].item() * targets[n, c].item() / mean < 1.2]
        expected = len(noisy) / len(positives) if positives else 0.0
        torch.testing.assert_close(ratios[c], torch.tensor(expected))
    assert 0 < ratios[0] < 1


def test_a_label_of_just_the_limit_is_no_noise():
    probs, labels = (
        torch.tensor([[0.25], [0.125], [1.125]]),
        torch.tensor([[True], [True], [False]]),
    )  # of a mean of 0.5
    assert noise_ratios(probs, torch.ones(3, 1), labels, 3, limit=0.5).tolist() == [0.5]
    assert LIMITS == (0.6, 1.8)  # of audio and visual labels


def test_the_last_smaller_batch_weighs_as_much_as_the_others():
    probs = torch.cat([torch.zeros(4, 1), torch.ones(1, 1)])  # batches' means of 0 and 1
    found = [noise_ratios(probs, torch.ones(5, 1), probs >= 0, 4, limit).item() for limit in (2.0, 2.1)]
    assert found == [pytest.approx(0.8), 1]


def test_a_segment_keeps_the_labels_of_its_nearest_text_as_in_a_plain_loop():
    draw = torch.Generator().manual_seed(0)
    subsets = [(1,), (3,), (1, 3), ()]
    cosines = torch.rand(10, len(subsets), generator=draw)
    labels = refined_labels(cosines, subsets, num_classes=5)
    for t in range(10):
        best = max(range(len(subsets)), key=lambda k: cosines[t, k].item())
        assert labels[t].nonzero().flatten().tolist() == list(subsets[best])
    assert not labels[cosines.argmax(dim=1) == len(subsets) - 1].any()


def test_soft_labels_of_overlapping_classes_are_those_of_a_plain_loop():
    draw = torch.Generator().manual_seed(1)
    cosines = torch.rand(200, 4, generator=draw, dtype=torch.float64) * 0.5 - 0.05
    labels = torch.rand(200, 4, generator=draw) < 0.3
    labels[:, 3] = cosines[:, 3] > 0.2  # no overlap: stays hard
    soft = softened_labels(cosines, labels, kept_factor=4.0, dropped_factor=0.4)
    expected = labels.double()
    for c in range(4):
        without = [cosines[r, c].item() for r in range(200) if not labels[r, c]]
        having = [cosines[r, c].item() for r in range(200) if labels[r, c]]
        largest, smallest = max(without), min(having)
        if largest <= smallest:
            continue
        for r in range(200):
            cosine = cosines[r, c].item()
            if labels[r, c] and cosine < largest and 0 < 4 * cosine < 1:
                expected[r, c] = 4 * cosine
            if not labels[r, c] and cosine > smallest and 0 < 0.4 * cosine < 1:
                expected[r, c] = 0.4 * cosine
    torch.testing.assert_close(soft, expected, rtol=0, atol=1e-15)
    assert (soft != labels.double()).any(dim=0).tolist() == [True, True, True, False]


def test_cosines_at_the_bounds_of_an_overlap_stay_hard():
    # Class 0: largest without the label 0.2, smallest with it 0.1; class 1: 0.3 and 0.
    labelled = torch.tensor([[True, True]] * 2 + [[False, False]] * 3)
    cosines = torch.tensor([[0.1, 0.0], [0.2, 0.1], [0.2, 0.3], [0.1, 0.0], [0.15, -0.1]], dtype=torch.float64)
    soft = softened_labels(cosines, labelled, kept_factor=4.0, dropped_factor=0.4)
    expected = [[0.4, 1], [1, 0.4], [0.08, 0.12], [0, 0], [0.06, 0]]  # 4 * 0 is not within (0, 1)
    torch.testing.assert_close(soft, torch.tensor(expected, dtype=torch.float64))
    doubled = softened_labels(torch.tensor([[0.1], [0.5]]), torch.tensor([[True], [False]]), 4.0, dropped_factor=2.0)
    assert doubled[1].item() == 0  # nor is 2 * 0.5


def test_class_cosines_are_those_of_visual_segments_with_the_names(llp_dir: Path):
    settings = DataSettings(llp_dir, audio_features=("clap",), visual_features=("clip",))
    split = open_split("LLP", "val", settings, torch.device("cpu"))
    names = torch.nn.functional.normalize(torch.randn(3, WIDTHS["clip"], generator=torch.Generator().manual_seed(0)))
    found = class_cosines(split, names, 4)
    for n, feature_id in enumerate(split.annotations.feature_ids):
        rows = torch.from_numpy(np.load(feature_path(llp_dir, "clip", feature_id)))
        expected = torch.cosine_similarity(rows.unsqueeze(1), names.unsqueeze(0), dim=-1)
        torch.testing.assert_close(found[n], expected)
