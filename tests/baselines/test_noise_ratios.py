"""JoMoLD's noise ratios of a split, beside a plain loop over its videos, and their file."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.jomold.noise_ratios import FILE, estimate_noise_ratios, load_noise_ratios, save_noise_ratios
from dataloaders.batches import DataSettings, open_split
from dataloaders.features import feature_path
from models import HAN, HANConfig
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.training.device import Precision

CPU = torch.device("cpu")
CLASSES = ("Speech", "Car", "Dog")
RATIOS = AudioVisual(torch.rand(3), torch.rand(3))


def of_classes(*classes: str, dataset: str = "LLP") -> SimpleNamespace:
    """Annotations as far as the file of ratios knows them."""
    return SimpleNamespace(dataset=dataset, classes=classes)


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


def test_noise_ratios_are_read_as_they_were_written(tmp_path: Path):
    save_noise_ratios(RATIOS, of_classes(*CLASSES), tmp_path)
    loaded = load_noise_ratios(tmp_path, of_classes(*CLASSES))
    assert all(loaded.map(torch.equal, RATIOS))


def test_a_run_on_fewer_classes_takes_the_first_ratios(tmp_path: Path):
    save_noise_ratios(RATIOS, of_classes(*CLASSES), tmp_path)
    loaded = load_noise_ratios(tmp_path, of_classes(*CLASSES[:2]))
    assert torch.equal(loaded.visual, RATIOS.visual[:2])


def test_ratios_that_cannot_be_used_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"baselines\.jomold\.find_noise_ratios"):
        load_noise_ratios(tmp_path, of_classes(*CLASSES))
    save_noise_ratios(RATIOS, of_classes(*CLASSES), tmp_path)
    for dataset, classes in (("AVE", CLASSES), ("LLP", ("Car", "Speech"))):
        with pytest.raises(InputError, match="of LLP with 3 classes"):
            load_noise_ratios(tmp_path, of_classes(*classes, dataset=dataset))
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable record"):
        load_noise_ratios(tmp_path, of_classes(*CLASSES))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7.0, -5.0])
def test_ratios_that_are_no_shares_are_refused(tmp_path: Path, value: float):
    wrong = RATIOS.visual.clone()
    wrong[1] = value
    save_noise_ratios(AudioVisual(RATIOS.audio, wrong), of_classes(*CLASSES), tmp_path)
    with pytest.raises(InputError, match="in visual; expected shares between 0 and 1"):
        load_noise_ratios(tmp_path, of_classes(*CLASSES))
