"""Figures: what they show, read from the pixels and from the drawn texts."""

from itertools import combinations
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.audio_visual import AudioVisual
from utils.reporting.figures import (
    COLOURS,
    TRACK_COLOUR,
    TRUTH_COLOUR,
    PublishedPoint,
    Series,
    Timeline,
    class_bars_figure,
    confusion_matrix_figure,
    curve_figure,
    timeline_figure,
)

CLASSES = tuple(f"a_rather_long_event_name_{c}" for c in range(12))


def timeline(name: str, num_segments: int, active: dict[int, slice]) -> Timeline:
    """Audio as given, visual without the first class."""
    audio = np.zeros((num_segments, len(CLASSES)), dtype=bool)
    visual = audio.copy()
    for c, segments in active.items():
        audio[segments, c] = True
        visual[segments, c] = c > 0
    return Timeline(name, AudioVisual(audio, visual))


def pixels(path: Path, colour: str) -> np.ndarray:
    """(H, W) bool, where the picture has just that colour."""
    picture = matplotlib.image.imread(path)[..., :3]
    return (np.abs(picture - np.array(to_rgb(colour))) < 0.005).all(axis=-1)


def texts(figure) -> list[Text]:
    """Everything written, that is visible and not empty."""
    axes = figure.axes[0]
    labels = [axes.title, axes.xaxis.label, *axes.texts, *axes.get_xticklabels(), *axes.get_legend().get_texts()]
    return [text for text in labels if text.get_text()]


def test_bars_cover_the_share_of_time_that_the_events_do(tmp_path: Path):
    for end in (3, 8):
        truth = timeline("truth", 10, {0: slice(0, end)})
        timeline_figure(tmp_path / f"{end}.png", "t", CLASSES, truth, [timeline("UWAV", 10, {})])
    lengths = [pixels(tmp_path / f"{end}.png", TRUTH_COLOUR).sum(axis=1).max() for end in (3, 8)]
    assert lengths[1] / lengths[0] == pytest.approx(8 / 3, rel=0.1)  # the legend's patch lies in some of these rows


def test_the_truth_stands_above_the_prediction(tmp_path: Path):
    truth, predicted = (timeline(name, 10, {0: slice(0, 10)}) for name in ("truth", "UWAV"))
    timeline_figure(tmp_path / "a.png", "t", CLASSES, truth, [predicted])
    truth_rows, predicted_rows = (
        np.flatnonzero(pixels(tmp_path / "a.png", colour).sum(axis=1) > 300) for colour in (TRUTH_COLOUR, COLOURS[0])
    )
    assert len(truth_rows) and truth_rows.max() < predicted_rows.min()


def test_bars_lie_where_the_events_are_audio_above_visual(tmp_path: Path, written_figures: list[Figure]):
    none = np.zeros((10, 1), dtype=bool)
    audible, visible, heard = none.copy(), none.copy(), none.copy()
    audible[0:3] = visible[5:9] = heard[2:4] = True
    truth, predicted = Timeline("truth", AudioVisual(audible, visible)), Timeline("UWAV", AudioVisual(heard, none))
    timeline_figure(tmp_path / "t.png", "t", ["dog"], truth, [predicted])
    (axes,) = written_figures[0].axes
    bars = [
        (path.vertices[:, 1].mean(), to_hex(bar.get_facecolor()).upper(), *path.vertices[:, 0][[0, 2]])
        for bar in axes.collections
        for path in bar.get_paths()
    ]
    found = [bar[1:] for bar in sorted(bars) if bar[1] != TRACK_COLOUR]  # downwards
    assert found == [(TRUTH_COLOUR, 0, 3), (COLOURS[0], 2, 4), (TRUTH_COLOUR, 5, 9)]
    heights = [bar[0] for bar in sorted(bars) if bar[1] != TRACK_COLOUR]
    labels = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights[0] < labels["audio"] < heights[1] < labels["visual"]
    assert heights[2] < labels["visual"]


def test_only_classes_of_truth_predictions_and_video_label_are_shown(tmp_path: Path, written_figures: list[Figure]):
    labels = np.zeros(len(CLASSES), dtype=bool)
    labels[[1, 4]] = True
    truth, predicted = timeline("truth", 10, {1: slice(0, 2)}), timeline("UWAV", 10, {7: slice(3, 5)})
    timeline_figure(tmp_path / "t.png", "t", CLASSES, truth, [predicted], labels)
    (figure,) = written_figures
    shown = {" ".join(text.get_text().split()) for text in figure.axes[0].texts} - {"audio", "visual"}
    assert shown == {"a rather long event name 1", "a rather long event name 4", "a rather long event name 7*"}
    assert "* not in the video label" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_video_without_any_event_says_so(tmp_path: Path, written_figures: list[Figure]):
    timeline_figure(tmp_path / "t.png", "t", CLASSES, timeline("truth", 10, {}), [timeline("UWAV", 10, {})])
    (figure,) = written_figures
    assert [text.get_text() for text in figure.axes[0].texts] == ["no event"]


def test_the_legend_names_the_empty_modalities(tmp_path: Path, written_figures: list[Figure]):
    truth, predicted = timeline("Truth", 10, {0: slice(0, 2)}), timeline("Prediction", 10, {})
    whole = timeline("UWAV", 10, {1: slice(0, 2)})
    timeline_figure(tmp_path / "t.png", "t", CLASSES, truth, [predicted, whole])
    legend = [text.get_text() for text in written_figures[0].axes[0].get_legend().get_texts()]
    assert legend == ["Truth (no visible event)", "Prediction (no event)", "UWAV"]


@pytest.mark.parametrize("num_segments", [1, 10, 60])
@pytest.mark.parametrize("num_classes", [1, 10])
def test_no_text_overlaps_another_or_the_bars(
    tmp_path: Path, written_figures: list[Figure], num_segments: int, num_classes: int
):
    active = {c: slice(0, 1) for c in range(num_classes)}
    names = ("truth", "HAN", "VALOR", "UWAV") if num_classes == 10 else ("truth", "UWAV")
    truth, *predictions = (timeline(name, num_segments, active) for name in names)
    title, labels = "JfZEqeLZqWk_30_40, LLP test", np.zeros(12, dtype=bool)
    timeline_figure(tmp_path / "t.png", title, CLASSES, truth, predictions, labels)
    (figure,) = written_figures
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for (name, box), (other_name, other) in combinations(boxes, 2):
        assert not box.overlaps(other), (name, other_name)
    bars = figure.axes[0].get_window_extent()
    assert not [name for name, box in boxes if box.overlaps(bars)]


def test_the_same_data_give_the_same_file_and_names_are_not_formulae(tmp_path: Path):
    for name in ("a", "b"):
        truth = timeline("truth", 10, {0: slice(0, 4)})
        timeline_figure(tmp_path / f"{name}.png", "$x_{ costs 5$", CLASSES, truth, [timeline("UWAV", 10, {})])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_figures_leave_the_users_matplotlib_alone(tmp_path: Path):
    before = dict(matplotlib.rcParams)
    timeline_figure(tmp_path / "a.png", "t", CLASSES, timeline("truth", 10, {}), [])
    assert dict(matplotlib.rcParams) == before


def test_the_confusion_matrix_is_coloured_by_share_and_empty_rows_are_grey(tmp_path: Path):
    confusion_matrix_figure(tmp_path / "m.png", np.array([[5, 0, 0], [0, 0, 0], [0, 0, 50]]), ["x", "y"])
    assert pixels(tmp_path / "m.png", "#DDDDDD").mean() > 0.05  # the row of y
    full = matplotlib.colors.to_hex(matplotlib.colormaps["Blues"](1.0))
    cells = np.flatnonzero(pixels(tmp_path / "m.png", full).sum(axis=1) > 30)
    assert cells.max() - cells.min() > len(set(cells))  # both 5 of 5 and 50 of 50 are full, with a gap between


def test_the_confusion_matrix_has_the_truth_in_rows_and_shares_of_its_row(
    tmp_path: Path, written_figures: list[Figure]
):
    matrix = np.array([[120, 40, 0], [0, 2, 0], [1, 0, 199]])
    confusion_matrix_figure(tmp_path / "m.png", matrix, ["x_1", "y"], "title", "clips")
    axes = written_figures[0].axes[0]
    numbers = {tuple(map(int, text.get_position())): (text.get_text(), text.get_color()) for text in axes.texts}
    assert numbers == {  # by column and row
        (0, 0): ("75", "white"),
        (1, 0): ("25", "black"),
        (1, 1): ("100", "white"),
        (2, 2): ("100", "white"),  # 99.5; the half percent before it bears a number as well
        (0, 2): ("0", "black"),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x 1", "y", "background"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x 1 (160)", "y (2)", "background (200)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Prediction", "Truth (clips)")


def test_curves_have_bands_of_one_standard_deviation_and_the_published_values(
    tmp_path: Path, written_figures: list[Figure]
):
    series = Series("UWAV", [0.1, 1.0, 2.0], [60.0, 62.0, 61.0], [0.5, 0.2, None])
    published = [PublishedPoint("best", 1.7, 61.5), PublishedPoint("low", None, 60.5)]
    curve_figure(tmp_path / "c.png", [series], published, "α", "Type@AV (%)", "title")
    (axes,) = written_figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "UWAV": [[0.1, 60.0], [1.0, 62.0], [2.0, 61.0]],
        "best (published)": [[1.7, 61.5]],
        "low (published)": [[0.0, 60.5], [1.0, 60.5]],  # across the axes
    }
    (band,) = axes.collections
    corners = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices.tolist()}
    assert corners == {(0.1, 59.5), (0.1, 60.5), (1.0, 61.8), (1.0, 62.2), (2.0, 61.0)}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("α", "Type@AV (%)", "title")


def test_curves_show_runs_and_published_values(tmp_path: Path):
    series = Series("UWAV (simulated features)", [0.1, 1.0, 2.0], [60.0, 62.0, 61.0], [0.5, 0.2, None])
    for name, published in (
        ("with", [PublishedPoint("best", 1.7, 61.0), PublishedPoint("low", None, 60.5)]),
        ("none", []),
    ):
        curve_figure(tmp_path / f"{name}.png", [series], published, "α", "Type@AV (%)")
    with_published, without = (pixels(tmp_path / f"{name}.png", TRUTH_COLOUR).sum() for name in ("with", "none"))
    assert with_published > without
    assert pixels(tmp_path / "none.png", COLOURS[0]).any()


def test_curves_of_eighty_points_have_ten_markers_and_the_sixth_line_is_dashed(
    tmp_path: Path, written_figures: list[Figure]
):
    series = [Series(f"score {n}", range(80), [n] * 80) for n in range(6)]
    curve_figure(tmp_path / "c.png", series, [], "Epoch", "Score")
    (axes,) = written_figures[0].axes
    assert [line.get_markevery() for line in axes.lines] == [8] * 6
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines]
    assert looks[0] == (COLOURS[0], "o", "-") and looks[5] == (COLOURS[0], "o", "--") and len(set(looks)) == 6


def test_bars_of_classes_are_sorted_by_the_difference_of_two_runs(tmp_path: Path, written_figures: list[Figure]):
    scores = {"A: one": np.array([10, np.nan, 80, 30.0]), "B: two": np.array([40, 20, 75, 30.0])}
    class_bars_figure(tmp_path / "b.png", scores, ["loss", "no_score", "gain", "equal"], "F (%)", "title")
    (axes,) = written_figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gain", "equal", "loss", "no score"]
    assert [text.get_text() for text in axes.texts] == ["+5.0", "+0.0", "-30.0", "no score"]
    first, second = ([bar.get_width() for bar in bars] for bars in axes.containers)
    np.testing.assert_array_equal([first, second], [[80, 30, 10, np.nan], [75, 30, 40, 20]])
    assert axes.containers[0][0].get_y() < axes.containers[1][0].get_y() < axes.containers[0][1].get_y()
    assert axes.yaxis_inverted() and axes.get_xlim() == (0, 100)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*scores]


def lightness(colour: str) -> float:
    """CIE L* of a colour, by the definition of sRGB."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return 116 * np.dot((0.2126, 0.7152, 0.0722), linear) ** (1 / 3) - 16


def test_the_colours_of_truth_audio_visual_and_both_differ_in_greyscale():
    levels = sorted(map(lightness, (TRUTH_COLOUR, *COLOURS[:3])))
    assert np.diff(levels).min() > 11
