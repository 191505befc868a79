"""The file of noise ratios."""

from pathlib import Path

import pytest
import torch

from baselines.jomold.noise_ratios import FILE, NoiseRatios, load_noise_ratios, save_noise_ratios
from utils.audio_visual import AudioVisual
from utils.errors import InputError

RATIOS = NoiseRatios("LLP", ("Speech", "Car", "Dog"), AudioVisual(torch.rand(3), torch.rand(3)))


def test_noise_ratios_are_read_as_they_were_written(tmp_path: Path):
    save_noise_ratios(RATIOS, tmp_path)
    loaded = load_noise_ratios(tmp_path, "LLP", RATIOS.classes)
    assert all(torch.equal(a, b) for a, b in zip(loaded.ratios, RATIOS.ratios, strict=True))


def test_a_run_on_fewer_classes_takes_the_first_ratios(tmp_path: Path):
    save_noise_ratios(RATIOS, tmp_path)
    loaded = load_noise_ratios(tmp_path, "LLP", RATIOS.classes[:2])
    assert torch.equal(loaded.ratios.visual, RATIOS.ratios.visual[:2])


def test_ratios_that_cannot_be_used_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"baselines\.jomold\.find_noise_ratios"):
        load_noise_ratios(tmp_path, "LLP", RATIOS.classes)
    save_noise_ratios(RATIOS, tmp_path)
    for dataset, classes in (("AVE", RATIOS.classes), ("LLP", ("Car", "Speech"))):
        with pytest.raises(InputError, match="of LLP with 3 classes"):
            load_noise_ratios(tmp_path, dataset, classes)
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable record"):
        load_noise_ratios(tmp_path, "LLP", RATIOS.classes)
