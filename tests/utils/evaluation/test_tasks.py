"""Tasks: which score selects the best epoch, and what a table says of its data set."""

from dataclasses import replace

import pytest
import torch

from dataloaders.datasets import DATASETS
from utils.audio_visual import AudioVisual
from utils.evaluation.tasks import Events, Parsing, Scores, find_task
from utils.method.metrics import F_SCORE_NAMES


class ParsingWithAnotherScore(Parsing):
    def score(self, prediction: Events, truth: Events) -> Scores:
        return super().score(prediction, truth) | {"loudness": 1e6}


def test_the_mean_that_selects_is_of_the_ten_f_scores_whatever_else_is_scored():
    torch.manual_seed(0)
    prediction, truth = (AudioVisual(*torch.rand(2, 6, 10, 3) < 0.4) for _ in range(2))
    task = ParsingWithAnotherScore(DATASETS["LLP"])
    scores = task.score(prediction, truth)
    expected = sum(scores[name] for name in F_SCORE_NAMES) / 10
    assert task.selection_score("mean", prediction, truth) == pytest.approx(expected)


@pytest.mark.parametrize("task", [find_task("LLP"), find_task("AVE")])
def test_a_data_set_that_the_paper_does_not_print_has_tables_without_published_rows(task):
    scores = [{"test": dict.fromkeys((*F_SCORE_NAMES, "accuracy"), 50.0)}]
    assert len(task.score_table("run", scores, "", ["UWAV"]).rows) == 2
    other = replace(task, dataset=replace(task.dataset, name="Other", published_scores=None))
    table = other.score_table("run", scores, "", ["UWAV"])
    assert len(table.rows) == 1 and table.title.endswith("on Other")
