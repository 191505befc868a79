"""The baseline that looks at no video."""

from pathlib import Path

import pytest
import torch

from dataloaders.llp import load_split
from dataloaders.provenance import EXTRACTION_MARKER, SIMULATION_MARKER, feature_note, read_extraction
from experiments.constant_baseline import constant_events, constant_scores, most_frequent_events
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
    truth = true_events(test, torch.device("cpu"))
    assert scores == named_scores(parsing_scores(constant_events(events, truth), truth))
    for other in range(1, len(val.classes) + 1):
        on_val = true_events(val, torch.device("cpu"))
        score = [
            named_scores(parsing_scores(constant_events(most_frequent_events(val, n), on_val), on_val))["segment_Type"]
            for n in (count, other)
        ]
        assert score[0] >= score[1]


def test_real_features_have_no_note_and_others_have(tmp_path: Path):
    assert feature_note(tmp_path) == ""
    (tmp_path / SIMULATION_MARKER).touch()
    assert feature_note(tmp_path) == "simulated features"


def test_a_damaged_record_of_features_is_an_error(tmp_path: Path):
    (tmp_path / EXTRACTION_MARKER).write_text("nothing")
    with pytest.raises(InputError, match="no record of features"):
        read_extraction(tmp_path)
