"""The paired bootstrap: what it finds, what it does not, and what it refuses to compare."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.compare import Comparison, class_scores, compare_runs, main
from utils.evaluation.predictions import Predictions, save_predictions
from utils.method.metrics import parsing_scores, segment_accuracy

TRUTH_SEED = 7


def run(seed: int, error_rate: float, num_videos: int = 120, dataset: str = "LLP") -> Predictions:
    """A run whose segments are wrong at random at that rate; the truth is the same for all."""
    truth = np.random.default_rng(TRUTH_SEED).random((2, num_videos, 10, 4)) < 0.3
    wrong = np.random.default_rng(seed).random(truth.shape) < error_rate
    audio, visual = truth ^ wrong
    ids = tuple(f"video{n}" for n in range(num_videos))
    return Predictions(dataset, "test", ("a", "b", "c", "d"), ids, AudioVisual(audio, visual), AudioVisual(*truth))


def compare_predictions(first: Predictions, second: Predictions, *options: int, **named: int) -> list[Comparison]:
    return compare_runs([first], [second], *options, **named)


def ave_run(seed: int, error_rate: float) -> Predictions:
    """One event or background (label 3) a segment; audible and visible are one."""
    truth = np.random.default_rng(TRUTH_SEED).integers(0, 4, (100, 10))
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(truth.shape) < error_rate, generator.integers(0, 4, truth.shape), truth)
    predicted, true = (np.eye(4, dtype=bool)[each][..., :3] for each in (labels, truth))
    ids = tuple(f"{n}:id" for n in range(100))
    return Predictions("AVE", "test", ("a", "b", "c"), ids, AudioVisual(predicted, predicted), AudioVisual(true, true))


def test_scores_are_those_of_table_1():
    first, second = run(1, 0.1), run(2, 0.2)
    for predictions, attribute in ((first, "first"), (second, "second")):
        scores = parsing_scores(predictions.events.map(torch.from_numpy), predictions.truth.map(torch.from_numpy))
        expected = [
            getattr(level, name)
            for level in (scores.segment, scores.event)
            for name in ("audio", "visual", "audio_visual", "type_at_av", "event_at_av")
        ]
        found = [getattr(comparison, attribute) for comparison in compare_predictions(first, second, 100)]
        assert found == pytest.approx(expected, abs=1e-9)


def test_about_95_of_100_intervals_of_equally_good_runs_cover_zero():
    pairs = [compare_predictions(run(2 * s + 1, 0.1), run(2 * s + 2, 0.1), 300) for s in range(30)]
    comparisons = [comparison for pair in pairs for comparison in pair]
    assert 0.90 < np.mean([comparison.low < 0 < comparison.high for comparison in comparisons]) < 0.99
    assert 0.01 < np.mean([comparison.p_value < 0.05 for comparison in comparisons]) < 0.10


def test_a_clear_difference_is_found_on_every_metric_and_changes_its_sign_with_the_order():
    better, worse = run(1, 0.05), run(2, 0.15)
    for comparison, swapped in zip(
        compare_predictions(better, worse, 2000), compare_predictions(worse, better, 2000), strict=True
    ):
        assert 0 < comparison.low < comparison.difference < comparison.high
        assert comparison.p_value == pytest.approx(2 / 2001)
        assert (swapped.low, swapped.high) == pytest.approx((-comparison.high, -comparison.low))


def test_a_run_does_not_differ_from_itself():
    for comparison in compare_predictions(run(1, 0.1), run(1, 0.1), 100):
        assert (comparison.low, comparison.high, comparison.p_value) == (0, 0, 1)


def test_the_interval_agrees_with_the_normal_approximation():
    first, second = ave_run(1, 0.1), ave_run(2, 0.2)
    (comparison,) = compare_predictions(first, second, 10_000)
    right = [(each.events.audio == each.truth.audio).all(axis=-1).mean(axis=1) for each in (first, second)]
    standard_error = 100 * (right[0] - right[1]).std(ddof=1) / np.sqrt(len(right[0]))
    assert comparison.high - comparison.low == pytest.approx(2 * 1.96 * standard_error, rel=0.05)


def test_ave_is_compared_by_accuracy():
    first, second = ave_run(1, 0.1), ave_run(2, 0.5)
    (comparison,) = compare_predictions(first, second, 500)
    truth = torch.from_numpy(first.truth.audio)
    assert comparison.metric == "Accuracy"
    assert comparison.first == pytest.approx(segment_accuracy(torch.from_numpy(first.events.audio), truth))
    assert comparison.second == pytest.approx(segment_accuracy(torch.from_numpy(second.events.audio), truth))
    assert comparison.low > 0


def accuracy_of(predictions: Predictions) -> np.ndarray:
    """Each video's share of right segments in percent, (N,)."""
    return 100 * (predictions.events.audio == predictions.truth.audio).all(axis=-1).mean(axis=1)


def test_a_method_of_several_runs_scores_their_mean_and_its_videos_theirs():
    first, second = [ave_run(1, 0.1), ave_run(2, 0.2), ave_run(3, 0.3)], [ave_run(4, 0.3), ave_run(5, 0.1)]
    (comparison,) = compare_runs(first, second, 4000)
    means = [np.mean([accuracy_of(each) for each in runs], axis=0) for runs in (first, second)]  # (N,) each
    assert (comparison.first, comparison.second) == pytest.approx([mean.mean() for mean in means])
    assert comparison.difference == pytest.approx((means[0] - means[1]).mean())
    error = (means[0] - means[1]).std() / 10  # of 100 videos
    assert comparison.low == pytest.approx(comparison.difference - 1.96 * error, abs=0.2 * error)
    assert comparison.high == pytest.approx(comparison.difference + 1.96 * error, abs=0.2 * error)


def test_runs_of_a_method_are_aligned_before_they_are_averaged():
    first, other = ave_run(1, 0.1), ave_run(2, 0.2)
    order = np.random.default_rng(0).permutation(100)
    shuffled = replace(
        other,
        sample_ids=tuple(other.sample_ids[n] for n in order),
        events=other.events.map(lambda x: x[order]),
        truth=other.truth.map(lambda x: x[order]),
    )
    reference = [ave_run(3, 0.1)]
    assert compare_runs([first, shuffled], reference, 100) == compare_runs([first, other], reference, 100)


def two_videos(*spoilt: int) -> Predictions:
    """Two videos of ten segments of background; in the spoilt ones an event is predicted in the first."""
    truth = np.zeros((2, 10, 1), dtype=bool)
    events = truth.copy()
    events[list(spoilt), 0] = True
    return Predictions("AVE", "test", ("a",), ("0", "1"), AudioVisual(events, events), AudioVisual(truth, truth))


def test_resamples_without_a_difference_count_for_either_side():
    (comparison,) = compare_predictions(two_videos(0), two_videos(1), 2000)  # half of the resamples hold both videos
    assert (comparison.first, comparison.second, comparison.low, comparison.high) == (95, 95, -10, 10)
    assert comparison.p_value == 1


def test_p_is_twice_the_share_of_resamples_that_do_not_show_the_difference():
    (comparison,) = compare_predictions(two_videos(), two_videos(0), 4000)  # a quarter holds the other video alone
    assert (comparison.difference, comparison.low, comparison.high) == (5, 0, 10)
    assert comparison.p_value == pytest.approx(2 * 0.25, abs=0.04)


def test_the_seed_decides_the_interval():
    first, second = run(1, 0.1), run(2, 0.1)
    assert compare_predictions(first, second, 300, seed=3) == compare_predictions(first, second, 300, seed=3)
    assert compare_predictions(first, second, 300, seed=3) != compare_predictions(first, second, 300, seed=4)


def test_the_order_of_the_videos_does_not_matter():
    first, second = run(1, 0.1), run(2, 0.1)
    order = np.random.default_rng(0).permutation(len(second.sample_ids))
    shuffled = replace(
        second,
        sample_ids=tuple(second.sample_ids[n] for n in order),
        events=second.events.map(lambda x: x[order]),
        truth=second.truth.map(lambda x: x[order]),
    )
    assert compare_predictions(first, shuffled, 100) == compare_predictions(first, second, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "UnAV"}, "dataset UnAV"),
        ({"split": "val"}, "split val"),
        ({"classes": ("a", "b", "c", "e")}, "classes"),
        ({"sample_ids": tuple(f"video{n}" for n in range(1, 121))}, "video0, video120"),
        ({"truth": AudioVisual(run(1, 0.1).truth.audio, run(1, 0.1).events.visual)}, "another ground truth"),
    ],
)
def test_runs_of_unlike_videos_are_refused(change: dict, message: str):
    with pytest.raises(InputError, match=message):
        compare_predictions(run(1, 0.1), replace(run(2, 0.1), **change), 100)


def test_runs_of_unlike_numbers_of_videos_are_refused():
    with pytest.raises(InputError, match="119 videos"):
        compare_predictions(run(1, 0.1, 120), run(2, 0.1, 119), 100)


def test_the_command_prints_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture):
    save_predictions(tmp_path / "a", run(1, 0.05))
    save_predictions(tmp_path / "b", run(2, 0.15))
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    main([*folders, "--resamples", "200", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "paired bootstrap over 120 videos" in printed and "Event-level    Type" in printed
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 11


def test_a_class_scores_the_mean_of_its_f_scores_of_a_v_and_av_that_exist():
    truth, events = np.zeros((2, 2, 1, 4, 3), bool)
    truth[0, 0, :2, 0] = events[0, 0, :1, 0] = True  # audible alone: F of A is 2/3
    truth[:, 0, :2, 1] = events[0, 0, :2, 1] = True  # F of A is 1, of V and AV 0
    found = class_scores(Predictions("LLP", "test", ("a", "b", "c"), ("x",), AudioVisual(*events), AudioVisual(*truth)))
    np.testing.assert_allclose(found, [200 / 3, 100 / 3, np.nan])


def test_the_command_draws_the_scores_of_each_class(tmp_path: Path, written_figures: list[Figure]):
    seeds, other = [run(1, 0.05), run(2, 0.1)], run(4, 0.2)
    save_seeds(tmp_path / "a", seeds)
    save_predictions(tmp_path / "b", other)
    main([str(tmp_path / "a"), str(tmp_path / "b"), "--resamples", "20", "--figure", str(tmp_path / "bars.png")])
    (axes,) = written_figures[0].axes
    expected = np.mean([class_scores(each) for each in seeds], axis=0)
    assert sorted(bar.get_width() for bar in axes.containers[0]) == pytest.approx(sorted(expected))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"A: {tmp_path / 'a'} (2 runs)", f"B: {tmp_path / 'b'}"] and (tmp_path / "bars.png").is_file()


def save_seeds(folder: Path, runs: list[Predictions]) -> Path:
    """Write what the evaluation of several seeds leaves behind."""
    for seed, predictions in enumerate(runs):
        save_predictions(folder / f"run_{seed}", predictions)
    (folder / "args.yaml").write_text(f"num_runs: {len(runs)}\n")
    return folder


def test_the_command_takes_folders_of_several_seeds(tmp_path: Path, capsys: pytest.CaptureFixture):
    seeds, other = [run(1, 0.05), run(2, 0.1), run(3, 0.1)], run(4, 0.2)
    save_seeds(tmp_path / "a", seeds)
    save_predictions(tmp_path / "b", other)
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    main([*folders, "--resamples", "200", "--output", str(tmp_path / "out")])
    assert f"A: {tmp_path / 'a'} (3 runs)\nB: {tmp_path / 'b'}\n" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    expected = compare_runs(seeds, [other], 200)
    assert [row["values"]["Score (%) A"]["mean"] for row in rows] == pytest.approx([c.first for c in expected])


def test_seeds_are_not_compared_before_all_are_there(tmp_path: Path):
    folder = save_seeds(tmp_path / "a", [run(1, 0.05), run(2, 0.1)])
    (folder / "args.yaml").write_text("num_runs: 3\n")
    with pytest.raises(InputError, match="found 2 runs; expected those of 3 seeds"):
        main([str(folder), str(folder)])
    (folder / "run_2").mkdir()
    with pytest.raises(InputError, match=r"run_2/predictions_test\.npz"):
        main([str(folder), str(folder)])


def test_the_command_names_what_is_missing(tmp_path: Path):
    save_predictions(tmp_path / "a", run(1, 0.05))
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=str(tmp_path / "b" / "predictions_test.npz")):
        main([str(tmp_path / "a"), str(tmp_path / "b")])
