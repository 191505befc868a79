"""Tasks: which score selects the best epoch, and what a table says of its data set."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.inference import SplitOutput
from utils.evaluation.tasks import Events, Parsing, Scores, find_task, true_events
from utils.method.decoding import DecodingSettings
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


def output_of(video: list[float], audio: list[float], visual: list[float], segment: list[float]) -> SplitOutput:
    """One video of one segment: the classes' probabilities in the video, in each modality and in both segments."""
    logits = torch.logit(torch.tensor([[segment]]))
    return SplitOutput(
        AudioVisual(logits, logits.clone()),
        torch.tensor([video]),
        AudioVisual(torch.tensor([audio]), torch.tensor([visual])),
    )


def classes_of(events: Events) -> tuple[list[int], list[int]]:
    return tuple(of_modality[0, 0].nonzero().flatten().tolist() for of_modality in events)


IN_VIDEO, IN_AUDIO, IN_VISUAL = [0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.9, 0.1], [0.9, 0.1, 0.1, 0.9]


@pytest.mark.parametrize(("decoding", "audible", "visible"), [("video", [0, 1], [0, 1]), ("modality", [0, 2], [0, 3])])
def test_events_of_a_segment_also_need_the_video_or_their_modality(
    decoding: str, audible: list[int], visible: list[int]
):
    output = output_of(IN_VIDEO, IN_AUDIO, IN_VISUAL, [0.8] * 4)
    assert classes_of(find_task("LLP").decode(output, DecodingSettings(decoding=decoding))) == (audible, visible)


@pytest.mark.parametrize("decoding", ["video", "modality"])
def test_segments_have_a_threshold_and_what_is_around_them_a_gate(decoding: str):
    around = [0.5, 0.5, 0.3, 0.3]
    output = output_of(around, around, around, [0.8, 0.5, 0.8, 0.5])
    settings = DecodingSettings(decoding=decoding, segment_threshold=0.6, gate_threshold=0.4)
    assert classes_of(find_task("LLP").decode(output, settings)) == ([0], [0])
    settings = DecodingSettings(decoding=decoding, segment_threshold=0.4, gate_threshold=0.4)
    assert classes_of(find_task("LLP").decode(output, settings)) == ([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"decoding": "video"}, [0]),
        ({"decoding": "video", "inclusive": True}, [0, 1, 2]),
        ({"decoding": "modality"}, [0, 1, 2]),
    ],
)
def test_probabilities_have_to_exceed_one_half_in_uwav_and_to_reach_it_in_han_and_ma(settings: dict, found: list[int]):
    around = [0.6, 0.6, 0.5]
    output = output_of(around, around, around, [0.6, 0.5, 0.6])
    assert classes_of(find_task("LLP").decode(output, DecodingSettings(**settings))) == (found, found)


def test_gates_of_the_classes_replace_the_visual_gate_alone():
    output = output_of([0.0] * 4, [0.6, 0.4, 0.6, 0.4], [0.6, 0.4, 0.6, 0.4], [0.8] * 4)
    gates = torch.tensor([0.7, 0.3, 0.5, 0.5])
    assert classes_of(find_task("LLP").decode(output, DecodingSettings("modality"), gates)) == ([0, 2], [1, 2])


def test_the_one_event_of_a_video_is_decoded_as_the_settings_say():
    output = output_of([0.9, 0.1], [0.0] * 2, [0.0] * 2, [0.6, 0.8])
    output.logits.audio[0, 0, 0] = -1
    task = find_task("AVE")
    assert classes_of(task.decode(output, DecodingSettings())) == ([], [])
    assert classes_of(task.decode(output, DecodingSettings(active_in="either"))) == ([0], [0])
    assert classes_of(task.decode(output, DecodingSettings(event_from="segments"))) == ([1], [1])


def annotated(lengths: list[int], video_labels: list[list[int]], audio: Tensor, visual: Tensor) -> SplitAnnotations:
    ids = tuple(f"video{n}" for n in range(len(lengths)))
    classes = tuple("abcdefg"[: len(video_labels[0])])
    labels = AudioVisual(audio.bool(), visual.bool())
    return SplitAnnotations(
        "LLP", "val", classes, ids, ids, torch.tensor(lengths), torch.tensor(video_labels).bool(), labels
    )


def test_the_truth_is_padded_with_nothing():
    audio, visual = torch.tensor([[1], [1], [1]]), torch.tensor([[0], [1], [1]])
    truth = true_events(annotated([1, 2], [[1], [1]], audio, visual), torch.device("cpu"))
    assert truth.audio.squeeze(-1).tolist() == [[True, False], [True, True]]
    assert truth.visual.squeeze(-1).tolist() == [[False, False], [True, True]]


LOG = logging.getLogger("test")


def test_thresholds_of_parsing_are_searched_in_each_modality_and_class(caplog: pytest.LogCaptureFixture):
    # Classes 0 and 1 are separable in both modalities; class 2 has no positive in audio, class 3 in neither.
    scores = AudioVisual(
        torch.tensor([[0.0, 5, 1, 9], [2, 7, 2, 9], [4, 9, 3, 9], [6, 11, 4, 9]]),
        torch.tensor([[20.0, 25, 21, 9], [22, 27, 22, 9], [24, 29, 23, 9], [26, 31, 24, 9]]),
    )
    audio = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    visual = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0]])
    annotations = annotated([4], [[1, 1, 1, 0]], audio, visual)
    logits = scores.map(lambda rows: rows.unsqueeze(0))
    found = find_task("LLP").search_thresholds(logits, annotations, class_wise=True, jointly=True, log=LOG)
    # Over all classes: above 5.5 lie 6, 7, 9, 11, three of audio's four positives; above 21.5 all seven visual ones.
    assert found.audio.tolist() == [3, 8, 5.5, 5.5]
    assert found.visual.tolist() == [25, 26, 21.5, 21.5]
    assert "no positive validation segment of c, d" in caplog.text
    agnostic = find_task("LLP").search_thresholds(logits, annotations, class_wise=False, jointly=True, log=LOG)
    assert agnostic.audio.tolist() == [5.5] * 4 and agnostic.visual.tolist() == [21.5] * 4


@pytest.mark.parametrize(("jointly", "audio"), [(True, [-6 / 98, 2 - 2 / 98, -6 / 98]), (False, [6, 4, 6])])
def test_thresholds_of_localisation_are_searched_together_or_apart(
    jointly: bool, audio: list[float], caplog: pytest.LogCaptureFixture
):
    # The event of either video lasts one second, in which it is seen, but quieter than the background: of the audio
    # alone, silence is best. The 100 candidates are a 98th of the logits' range apart and begin one step below them.
    of_video = AudioVisual(torch.tensor([[0.0, 5, 6], [2, 3, 4]]), torch.tensor([[9.0, 0, 1], [4, 2.5, 2]]))
    logits = of_video.map(lambda z: z.unsqueeze(-1).expand(2, 3, 3))
    labels = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])
    annotations = annotated([3, 3], [[1, 0, 0], [0, 1, 0]], labels, labels)
    searched = {"jointly": jointly, "log": LOG}
    found = find_task("AVE").search_thresholds(logits, annotations, class_wise=True, **searched)
    assert found.audio.tolist() == pytest.approx(audio)
    assert found.visual.tolist() == pytest.approx([9 * 11 / 98, 2 + 2 * 25 / 98, 9 * 28 / 98])
    assert "no validation video of c" in caplog.text
    agnostic = find_task("AVE").search_thresholds(logits, annotations, class_wise=False, **searched)
    assert agnostic.audio.tolist() == pytest.approx(audio[2:] * 3)
    assert agnostic.visual.tolist() == pytest.approx([9 * 28 / 98] * 3)


def test_the_mean_that_selects_coleaf_is_of_the_ten_unimodal_scores():
    torch.manual_seed(0)
    prediction, truth = (AudioVisual(*torch.rand(2, 6, 10, 3) < 0.4) for _ in range(2))
    task = find_task("LLP")
    named = task.unimodal_scores(prediction, truth)
    assert task.selection_score("unimodal_mean", prediction, truth) == pytest.approx(sum(named.values()) / 10)
    assert task.selection_score("unimodal_event_AV", prediction, truth) == named["unimodal_event_AV"]
    assert task.selection_score("event_AV", prediction, truth) == task.score(prediction, truth)["event_AV"]
    assert named["unimodal_segment_A"] != task.score(prediction, truth)["segment_A"]


def one_event(*labels: int | None) -> Tensor:
    """A video of one segment a label, of three classes: (1, T, C) bool; None is background."""
    return torch.tensor([[[label == c for c in range(3)] for label in labels]])


def test_the_accuracy_of_localisation_counts_segments_whose_label_is_right_background_included():
    truth = one_event(0, 0, None, None)
    audible = one_event(0, 1, None, 0)
    visible = one_event(0, 1, None, None)  # not visible: so it is background
    events, true = AudioVisual(audible, visible), AudioVisual(truth, truth)
    task = find_task("AVE")
    assert task.score(events, true) == {"accuracy": 75} and task.selection_score("accuracy", events, true) == 75
    assert task.per_video_scores(events, true).tolist() == [[75]]
    with pytest.raises(InputError, match="--unimodal_scores"):
        task.unimodal_scores(events, true)
