"""JoMoLD's noise ratios of a split, beside a plain loop over its videos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.jomold.noise_estimation import estimate_noise_ratios
from dataloaders.batches import DataSettings, open_split
from dataloaders.features import feature_path
from models import HAN, HANConfig
from utils.audio_visual import AudioVisual
from utils.training.device import Precision

CPU = torch.device("cpu")


@torch.no_grad()
def test_noise_ratios_are_those_of_a_plain_loop_without_cross_attention(llp_dir: Path):
    split = open_split("LLP", "train", DataSettings(llp_dir, audio_features=("clap",), visual_features=("clip",)), CPU)
    torch.manual_seed(0)
    estimator = HAN(25, split.widths.audio, (split.widths.visual,), HANConfig(8, 2, 12, num_layers=1))
    smoothing, limits = AudioVisual(0.0, 0.6), AudioVisual(1.0, 0.72)
    found = estimate_noise_ratios(estimator.train(), split, smoothing, Precision("float32", CPU), 4, limits)

    pooled = []  # of each video by itself
    for feature_id in split.annotations.feature_ids:
        rows = [torch.from_numpy(np.load(feature_path(llp_dir, name, feature_id)))[None] for name in ("clap", "clip")]
        pooled.append(estimator.eval()(*rows, with_cross_attention=False).modality_probs)
    labels = split.annotations.video_labels
    for m in range(2):
        probs = torch.cat([of_video[m] for of_video in pooled])  # (N, C)
        target = 1 - smoothing[m] / 2
        ratios = []
        for c in range(25):
            mean = np.mean([part.mean().item() for part in probs[:, c].split(4)])  # of batches, the last one of two
            labelled = [n for n in range(14) if labels[n, c]]
            noisy = [n for n in labelled if probs[n, c].item() * target / mean < limits[m]]
            ratios.append(len(noisy) / len(labelled) if labelled else 0)
        assert found[m].tolist() == pytest.approx(ratios)
        assert 0 < sum(ratios) < 4
