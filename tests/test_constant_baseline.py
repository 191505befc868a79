"""The baseline that looks at no video."""

from pathlib import Path

import pytest
import torch

from dataloaders.annotations import SplitAnnotations
from dataloaders.feature_origin import EXTRACTION_MARKER, SIMULATION_MARKER, feature_note, read_extraction
from dataloaders.llp import load_split
from experiments.constant_baseline import constant_scores, most_frequent_events, score_everywhere
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.tasks import true_events
from utils.method.metrics import named_scores, parsing_scores


def test_the_most_frequent_events_are_predicted_everywhere(llp_dir: Path):
    val, test = (load_split(llp_dir, split) for split in ("val", "test"))
    count, scores = constant_scores(val, test)
    events = most_frequent_events(val, count)
    assert int(events.sum()) == count
    frequency = val.labels.audio.sum(0) + val.labels.visual.sum(0)
    assert frequency[events].min() >= frequency[~events].max()
    assert scores == score_of(events, test)
    for other in range(1, len(val.classes) + 1):
        best, score = (score_of(most_frequent_events(val, n), val)["segment_Type"] for n in (count, other))
        assert best >= score


def score_of(events: torch.Tensor, annotations: SplitAnnotations) -> dict[str, float]:
    """The scores of a prediction of these events for every segment, filled in one by one."""
    truth = true_events(annotations, torch.device("cpu"))
    predicted = torch.zeros_like(truth.audio)
    predicted[..., events] = True
    scores = named_scores(parsing_scores(AudioVisual(predicted, predicted), truth))
    assert scores == score_everywhere(events, annotations)
    return scores


def test_real_features_have_no_note_and_others_have(tmp_path: Path):
    assert feature_note(tmp_path) == ""
    (tmp_path / SIMULATION_MARKER).touch()
    assert feature_note(tmp_path) == "simulated features"


def test_a_damaged_record_of_features_is_an_error(tmp_path: Path):
    (tmp_path / EXTRACTION_MARKER).write_text("nothing")
    with pytest.raises(InputError, match="no record of features"):
        read_extraction(tmp_path)
