"""Pseudo-labels made of a teacher's logits, and the thresholds of VALOR."""

from types import SimpleNamespace

import pytest
import torch

from baselines.valor.framewise import valor_thresholds
from dataloaders.annotations import SplitAnnotations
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import hard_events, make_pseudo_labels


def test_hard_labels_need_a_logit_above_their_class_s_threshold_and_the_video_s_label():
    audio = torch.tensor([[[0.5, 2.0, 2.0], [0.6, 1.0, 3.0]]])
    events = hard_events(
        AudioVisual(audio, audio),
        AudioVisual(torch.tensor([0.5, 1.0, 0.0]), torch.tensor([0.0, 2.0, 9.0])),
        torch.tensor([[True, True, False]]),
    )
    assert events.audio.tolist() == [[[False, True, False], [True, False, False]]]
    assert events.visual.tolist() == [[[True, False, False], [True, False, False]]]


def test_pseudo_labels_hold_the_segments_of_each_video_one_after_the_other_without_padding():
    lengths = torch.tensor([1, 3, 2])
    annotations = SplitAnnotations("LLP", "train", ("Dog",), ("a", "b", "c"), ("a", "b", "c"), lengths, None, None)
    audio = torch.tensor([[0.0, 99, 99], [1, 2, 3], [4, 5, 99]]).unsqueeze(-1)
    logits, thresholds = AudioVisual(audio, -audio), AudioVisual(torch.tensor([1.5]), torch.tensor([2.5]))
    events = AudioVisual(audio > 1.5, audio > 2.5)
    pseudo = make_pseudo_labels(SimpleNamespace(annotations=annotations), logits, events, thresholds)
    assert pseudo.logits.audio.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert pseudo.logits.visual.flatten().tolist() == [0, -1, -2, -3, -4, -5]
    assert pseudo.labels.audio.flatten().tolist() == [False, False, True, True, True, True]
    assert pseudo.labels.visual.flatten().tolist() == [False, False, False, True, True, True]
    assert (pseudo.dataset, pseudo.classes, pseudo.sample_ids) == ("LLP", ("Dog",), ("a", "b", "c"))
    assert torch.equal(pseudo.lengths, lengths)
    assert pseudo.thresholds == thresholds


def test_valor_has_thresholds_of_llp_alone():
    audio, visual = valor_thresholds("LLP")
    assert audio[:6].tolist() == [0, 0, 1, 4, 6, -2] and visual[:4].tolist() == [20, 15, 18, 14]
    assert audio.dtype == visual.dtype == torch.float64
    with pytest.raises(InputError, match="LLP"):
        valor_thresholds("AVE")
