"""Networks that classify clips, run over a split, and what their scores and tables say."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lavish.clip_batches import Augmentation, ClipBatches
from lavish.clip_splits import ClipSplit
from lavish.clip_tasks import (
    TASKS,
    ClipPredictions,
    classifier_table,
    classify,
    keep_features,
    predict_clips,
    score_table,
)
from lavish.lavish_network import ClipOutput
from lavish.packing import ClipFormat, PackedClips
from utils.reporting.tables import format_text
from utils.training.device import Precision

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", CPU)
N = 5


class Brightness(nn.Module):
    """A clip's two features are the means of its pixels and of its sound; in training mode they are wrong."""

    def forward(self, frames: Tensor, sound: Tensor) -> ClipOutput:
        return self.classify(self.encode(frames, sound))

    def encode(self, frames: Tensor, sound: Tensor) -> Tensor:
        means = torch.stack([frames.mean(dim=(1, 2, 3, 4)), sound.mean(dim=(1, 2, 3))], dim=-1)
        return means + 100 * self.training

    def classify(self, features: Tensor) -> ClipOutput:
        return ClipOutput(2 * features, features)


@pytest.fixture
def batches() -> ClipBatches:
    """Clips n = 0 to 4 of constant pixels 51 n, which are n / 5, and a constant sound of n + 1."""
    numbers = np.arange(N).reshape(N, 1, 1, 1, 1)
    frames = (51 * numbers * np.ones((N, 2, 4, 4, 3))).astype(np.uint8)
    sound = (numbers[..., 0] + 1) * np.ones((N, 2, 32, 32), np.float16)
    pack = PackedClips(ClipFormat(2, 4, sound="small"), {f"v{n}": n for n in range(N)}, frames, sound)
    names = tuple(f"v{n}" for n in range(N))
    split = ClipSplit(("Clap", "Drum"), names, names, torch.tensor([0, 1, 1, 0, 1]))
    return ClipBatches(split, pack, CPU, 4, augmentation=Augmentation(max_masked_bands=32))


def means(frames: bool = True, sound: bool = True) -> Tensor:
    """The features of `Brightness`; ImageNet's normalisation averages over the three colours."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    seen = [((n / 5 - mean) / deviation).mean() for n in range(N)]
    return torch.tensor([[seen[n] * frames, (n + 1) * sound] for n in range(N)], dtype=torch.float32)


@pytest.mark.parametrize(("without", "kept"), [(None, {}), ("audio", {"sound": False}), ("visual", {"frames": False})])
def test_a_split_is_predicted_in_its_order_without_a_modality_where_that_is_asked_for(batches, without, kept):
    network = Brightness().train()
    predictions = predict_clips(network, batches, 2, FLOAT32, without)
    torch.testing.assert_close(predictions.features, means(**kept), rtol=0, atol=1e-4)
    torch.testing.assert_close(predictions.logits, 2 * means(**kept), rtol=0, atol=1e-4)
    assert predictions.labels.tolist() == [0, 1, 1, 0, 1]


def test_kept_features_are_those_of_evaluation_and_stand_in_for_what_they_are_made_of(batches):
    network = Brightness().train()
    keep_features(network, batches, 2, FLOAT32)
    torch.testing.assert_close(batches.features, means(), rtol=0, atol=1e-4)
    (batch,) = next(batches.shuffled(3, 0, 1))
    output = classify(network, batch, FLOAT32)
    torch.testing.assert_close(output.logits, 2 * means()[batch.clips], rtol=0, atol=1e-4)


def predictions_of(logits: list, labels: list) -> ClipPredictions:
    return ClipPredictions(torch.tensor(logits), torch.zeros(0), torch.tensor(labels))


def test_clips_are_scored_by_the_best_class_and_the_best_five():
    logits = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 4
    assert TASKS["UCF101"].score(predictions_of(logits, [0, 1, 4, 5])) == {"top1": 25.0, "top5": 75.0}


def test_seconds_are_scored_by_the_best_class_of_each():
    logits = [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]  # two clips of two seconds
    assert TASKS["AVE"].score(predictions_of(logits, [[0, 1], [1, 1]])) == {"accuracy": 75.0}


def test_the_table_of_clips_has_scores_and_millions_of_parameters():
    scores = {"val": {"top1": 40.0, "top5": 80.0}, "test": {"top1": 30.0, "top5": 70.0}}
    table = score_table("UCF101", "run", scores, (1_250_000, 86_000_000), "generated")
    assert [row.labels for row in table.rows] == [("run", "val"), ("run", "test")]
    assert [[cell.mean for cell in row.cells] for row in table.rows] == [[40, 80, 1.25, 86], [30, 70, 1.25, 86]]
    assert [column.name for column in table.columns] == ["top-1", "top-5", "trained", "all"]
    assert all(row.note == "generated" for row in table.rows)


def test_the_table_of_seconds_stands_beside_what_was_published_and_says_who_was_supervised():
    table = score_table("AVE", "run", {"test": {"accuracy": 61.0}}, (1_000_000, 2_000_000), "generated")
    rows = {row.labels[0]: row for row in table.rows}
    assert rows["run"].cells[0].mean == 61.0 and rows["run"].note == "supervised, generated"
    assert rows["LAVISH"].cells[0].mean == 81.1 and rows["LAVISH"].note == "published, supervised"
    assert rows["UWAV"].cells[0].mean == 80.6 and rows["UWAV"].note == "published, weakly supervised"
    assert any("1.00 M of 2.00 M" in note for note in table.notes)


def test_each_task_names_what_selects_its_best_epoch_and_whether_frames_are_pooled():
    whole, seconds = TASKS["UCF101"], TASKS["AVE"]
    assert (whole.best_metric, whole.pools_time) == ("top1", True)
    assert (seconds.best_metric, seconds.pools_time) == ("accuracy", False)


def test_classifiers_stand_with_scores_over_runs_and_millions_of_trained_and_of_all_parameters():
    scores, parameters = [{"top1": 50.0, "top5": 80.0}, {"top1": 54.0, "top5": 82.0}], (10_700_000, 238_800_000)
    rows = [("LAVISH", "test", scores, parameters, ""), ("ViT", "test", scores[:1], (0, 5_000_000), "generated")]
    table = classifier_table("UCF-101", {"top1": "top-1", "top5": "top-5"}, rows)
    assert format_text(table).splitlines()[3:7] == [
        "Model            Split        top-1       top-5   trained     all",
        "-----------------------------------------------------------------",
        "LAVISH (2 runs)  test    52.0 ± 2.8  81.0 ± 1.4     10.70  238.80",
        "ViT (generated)  test    50.0        80.0            0.00    5.00",
    ]
