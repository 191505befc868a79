"""The second experiment, AVE: thresholds for accuracy, decoding of one event a video, and stages 2 to 4."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import test_han
from dataloaders.ave import AVE_CLASSES
from tests.tiny_runs import NETWORK, evaluate, label, pretrain, train
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.method.decoding import decode_single_event
from utils.method.thresholds import accuracy_thresholds


@pytest.fixture
def pretrained(unav_dir, tmp_path) -> Path:
    return pretrain(unav_dir, tmp_path / "runs", "--num_epochs", "1")


@pytest.fixture
def pseudo_label_dir(ave_dir, pretrained) -> Path:
    label(ave_dir, pretrained, "--dataset", "AVE")
    return pretrained / "AVE_Dataset"


def train_ave(ave_dir: Path, output_dir: Path, pseudo_label_dir: Path, *flags: str) -> Path:
    return train(ave_dir, output_dir, "--dataset", "AVE", "--pseudo_label_dir", pseudo_label_dir, *flags)


def random_problem(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of both modalities, labels, video labels: 12 videos of one of 4 classes, 6 segments; class 3 has none."""
    generator = torch.Generator().manual_seed(seed)
    audio, visual = torch.randn(2, 12, 6, 4, generator=generator)
    video_labels = torch.nn.functional.one_hot(torch.arange(12) % 3, 4).bool()
    labels = (torch.rand(12, 6, 4, generator=generator) < 0.5) & video_labels.unsqueeze(1)
    return audio, visual, labels, video_labels


def candidates(logits: list[float], number: int) -> list[float]:
    step = (max(logits) - min(logits)) / (number - 2)
    first = min(logits) - step
    return [first + (max(logits) - first) * i / (number - 1) for i in range(number)]


def literal_search(audio, visual, labels, number: int) -> tuple[float, float, float]:
    """The best pair of thresholds over lists of logits and labels, by trying every pair; the first of the best."""
    best = (-1.0, 0.0, 0.0)
    for a in candidates(audio, number):
        for v in candidates(visual, number):
            right = sum(
                (x > a + 1e-9 and y > v + 1e-9) == truth for x, y, truth in zip(audio, visual, labels, strict=True)
            )
            best = max(best, (right / len(labels), a, v), key=lambda item: item[0])
    return best


def searched_values(problem: tuple[Tensor, ...], classes: list[int]) -> list[list[float]]:
    """Audio logits, visual logits and labels of these classes in the videos that have them."""
    audio, visual, labels, video_labels = problem
    places = [(n, t, c) for n in range(12) for t in range(6) for c in classes if video_labels[n, c]]
    return [[float(x[place]) for place in places] for x in (audio.double(), visual.double(), labels)]


def assert_accuracy(values: list[list[float]], thresholds: tuple[float, float], accuracy: float) -> None:
    right = [(a > thresholds[0] and v > thresholds[1]) == truth for a, v, truth in zip(*values, strict=True)]
    assert sum(right) / len(right) == pytest.approx(accuracy)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("groups", [[[0], [1], [2]], [[0, 1, 2]]])
def test_the_best_pair_of_thresholds_is_that_of_a_literal_search(seed: int, groups: list[list[int]]):
    problem = random_problem(seed)
    class_wise = len(groups) > 1
    search = accuracy_thresholds(AudioVisual(*problem[:2]), *problem[2:], class_wise, num_candidates=9)
    for k, classes in enumerate(groups):
        values = searched_values(problem, classes)
        accuracy, *best = literal_search(*values, 9)
        found = tuple(threshold[k].item() for threshold in search.thresholds)
        assert found == pytest.approx(best) and search.accuracy[k].item() == pytest.approx(accuracy)
        assert_accuracy(values, found, accuracy)
    if class_wise:
        assert search.accuracy[3].isnan()  # no video of this class


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_that_are_searched_apart_are_each_the_best_while_the_other_modality_is_active(seed: int):
    problem = random_problem(seed)
    search = accuracy_thresholds(AudioVisual(*problem[:2]), *problem[2:], jointly=False, num_candidates=9)
    for k in range(3):
        *logits, labels = values = searched_values(problem, [k])
        found = tuple(threshold[k].item() for threshold in search.thresholds)
        for own, threshold in zip(logits, found, strict=True):
            right = {c: sum((z > c + 1e-9) == y for z, y in zip(own, labels, strict=True)) for c in candidates(own, 9)}
            assert threshold == pytest.approx(max(right, key=right.__getitem__))  # the first of the best
        assert_accuracy(values, found, search.accuracy[k].item())


def test_logits_that_are_all_alike_can_all_be_positive_or_all_background():
    logits = AudioVisual(*torch.full((2, 2, 6, 2), 3.0))
    video_labels = torch.eye(2).bool()
    labels = video_labels.unsqueeze(1).expand(2, 6, 2) & torch.tensor([True, False])  # class 1 never lasts
    for jointly in (True, False):
        search = accuracy_thresholds(logits, labels, video_labels, jointly=jointly)
        assert search.accuracy.tolist() == [1, 1]
        assert max(search.thresholds.audio[0], search.thresholds.visual[0]) < 3
        assert max(search.thresholds.audio[1], search.thresholds.visual[1]) == 3


def test_searching_together_is_never_worse_than_apart():
    for seed in range(10):
        audio, visual, *labels = random_problem(seed)
        logits = AudioVisual(audio, visual)
        together, apart = (accuracy_thresholds(logits, *labels, jointly=jointly) for jointly in (True, False))
        assert (together.accuracy[:3] >= apart.accuracy[:3]).all()


def scores_of_one_video() -> tuple[AudioVisual[Tensor], Tensor]:
    """Three segments, three classes: class 1 wins by video probability, class 2 by the mean over segments."""
    audio = torch.tensor([[[-9.0, 1.0, 5.0], [-9.0, 1.0, 5.0], [-9.0, -1.0, 5.0]]])
    visual = torch.tensor([[[-9.0, 1.0, 5.0], [-9.0, -1.0, -5.0], [-9.0, -1.0, 5.0]]])
    return AudioVisual(audio, visual), torch.tensor([[0.1, 0.9, 0.8]])


@pytest.mark.parametrize(
    ("event_from", "active_in", "event", "segments"),
    [
        ("video", "both", 1, [0]),
        ("video", "either", 1, [0, 1]),
        ("segments", "both", 2, [0, 2]),
        ("segments", "either", 2, [0, 1, 2]),
    ],
)
def test_video_has_its_most_likely_event_where_it_is_active(event_from, active_in, event, segments):
    decoded = decode_single_event(*scores_of_one_video(), event_from=event_from, active_in=active_in)
    expected = torch.zeros(1, 3, 3, dtype=torch.bool)
    expected[0, segments, event] = True
    assert torch.equal(decoded, expected)


def test_the_event_of_the_segments_has_the_highest_mean_over_segments_and_both_modalities():
    # Class 0 is the loudest in any segment and in audio on average, class 1 in the mean of all: 0.6 against 0.525.
    logits = AudioVisual(
        *(torch.logit(torch.tensor([p])) for p in ([[0.9, 0.6], [0.9, 0.6]], [[0.2, 0.6], [0.1, 0.6]]))
    )
    decoded = decode_single_event(logits, torch.tensor([[0.9, 0.1]]), event_from="segments")
    assert decoded.tolist() == [[[False, True]] * 2]
    logits = AudioVisual(*(torch.logit(torch.tensor([[[0.9, 0.6], [0.1, 0.6]]])) for _ in range(2)))
    assert decode_single_event(logits, torch.tensor([[0.9, 0.1]]), event_from="segments")[0, :, 1].all()


def test_the_event_is_active_where_both_probabilities_exceed_the_threshold():
    probs = AudioVisual(torch.tensor([[[0.75], [0.5], [0.75]]]), torch.tensor([[[0.75], [0.75], [0.5]]]))
    for threshold, expected in ((0.5, [True, False, False]), (0.4, [True] * 3), (0.8, [False] * 3)):
        decoded = decode_single_event(probs.map(torch.logit), torch.ones(1, 1), threshold)
        assert decoded.flatten().tolist() == expected


def test_event_is_found_even_where_its_probability_is_low():
    logits, video_probs = scores_of_one_video()
    assert decode_single_event(logits, video_probs * 0.1).any()


@pytest.mark.parametrize("flags", [(), ("--threshold_type", "class_agnostic"), ("--grid_search", "apart")])
def test_stage_2_reports_the_accuracy_of_the_labels(ave_dir, pretrained, flags):
    label(ave_dir, pretrained, "--dataset", "AVE", *flags)
    folder = pretrained / "AVE_Dataset"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() == {"val", "test"}
    assert summary["val"]["accuracy"] >= 100 * background_share(
        ave_dir / "valSet.txt"
    )  # "all background" is a candidate
    thresholds = load_file(folder / "val.safetensors")["audio_thresholds"]
    assert thresholds.shape == (28,)
    assert (thresholds.unique().numel() == 1) == ("class_agnostic" in flags)


def background_share(path: Path) -> float:
    events = [line.split("&")[3:] for line in path.read_text().splitlines()]
    return 1 - sum(int(end) - int(start) for start, end in events) / (10 * len(events))


def test_recipe_of_ave_is_the_default(ave_dir, pseudo_label_dir, tmp_path):
    run = train_ave(ave_dir, tmp_path / "runs", pseudo_label_dir)
    assert run.name.startswith("HAN_soft_reweight_mixup_AVE_")
    settings = yaml.safe_load((run / "args.yaml").read_text())
    assert settings["audio_features"] == ["clap"]
    assert settings["visual_features"] == ["clip", "r2plus1d_18"]
    assert settings["mixup_labels"] == "ceiling"


def test_han_is_evaluated_by_accuracy_with_tables_and_confusion_matrices(ave_dir, pseudo_label_dir, tmp_path):
    run = train_ave(ave_dir, tmp_path / "runs", pseudo_label_dir)
    logs = evaluate(run, tmp_path / "logs", "--num_figures", "1")
    best = json.loads((run / "summary.json").read_text())["accuracy"]
    assert json.loads((logs / "summary.json").read_text())["val"]["accuracy"] == pytest.approx(best)
    assert "published" in (logs / "scores.txt").read_text()
    for split in ("val", "test"):
        assert (logs / f"confusion_{split}.png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(logs / f"per_class_{split}.csv")) >= len(AVE_CLASSES)
        precisions = pd.read_csv(logs / f"average_precision_{split}.csv")
        assert precisions.filter(like="Average").columns.tolist() == ["Average precision AV"]
        assert (logs / f"pr_curves_{split}.png").is_file()
    test_han.main(["--ensemble", str(logs), str(logs), "--output_dir", str(tmp_path / "twice")])
    assert (tmp_path / "twice/summary.json").read_text() == (logs / "summary.json").read_text()


def test_training_never_reads_the_segments_of_training_videos(ave_dir, pseudo_label_dir, tmp_path):
    before = train_ave(ave_dir, tmp_path / "before", pseudo_label_dir)
    lines = (ave_dir / "trainSet.txt").read_text().splitlines()
    moved = [lines[0], *(line.rsplit("&", 2)[0] + "&0&10" for line in lines[1:])]  # the first has no event at all
    (ave_dir / "trainSet.txt").write_text("\n".join(moved) + "\n")
    annotations = (ave_dir / "Annotations.txt").read_text()
    for line, other in zip(lines, moved, strict=True):
        annotations = annotations.replace(line, other)
    (ave_dir / "Annotations.txt").write_text(annotations)
    after = train_ave(ave_dir, tmp_path / "after", pseudo_label_dir)
    weights = [torch.load(run / "checkpoints/checkpoint_best.pt", weights_only=True) for run in (before, after)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_pseudo_labels_of_another_data_set_are_refused(ave_dir, llp_dir, pretrained, tmp_path):
    of_llp = label(llp_dir, pretrained)
    with pytest.raises(InputError, match="a record of LLP with 25 classes"):
        train_ave(ave_dir, tmp_path / "runs", of_llp)


def test_checkpoint_of_another_data_set_is_refused(ave_dir, llp_dir, tmp_path):
    flags = ("--audio_features", "clap", "--visual_features", "clip", "r2plus1d_18", *NETWORK)
    run = train(llp_dir, tmp_path / "runs", "--segment_labels", "none", *flags)
    with pytest.raises(InputError, match="dataset: LLP; expected AVE"):
        evaluate(run, tmp_path / "logs", "--dataset", "AVE", "--data_dir", ave_dir, "--annotations_dir", ave_dir)
