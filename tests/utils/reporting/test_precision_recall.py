"""Average precision and precision-recall curves of classes, without padding."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.audio_visual import AudioVisual
from utils.reporting.figures import COLOURS, precision_recall_figure
from utils.reporting.precision_recall import average_precision_table, precision_recall_curves

ALL = ("A", "V", "AV")


def literal_average_precision(true: list[bool], scores: list[float]) -> float:
    """The mean, over true segments, of the precision among all that score at least as high."""
    found = []
    for is_true, score in zip(true, scores, strict=True):
        above = [other for other, s in zip(true, scores, strict=True) if s >= score]
        found += [sum(above) / len(above)] if is_true else []
    return sum(found) / len(found)


def random_split(seed: int) -> tuple[AudioVisual, AudioVisual, np.ndarray]:
    """Probabilities, in steps so that some are equal, and truth of six videos of 2 to 7 segments; three classes."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 8, 6)
    probs = AudioVisual(*(rng.integers(0, 12, (2, 6, 8, 3)) / 12).astype(np.float16))
    return probs, AudioVisual(*rng.random((2, 6, 8, 3)) < 0.4), lengths


@pytest.mark.parametrize("seed", range(4))
def test_the_average_precision_of_a_class_is_that_of_its_definition_over_the_segments_of_all_videos(seed: int):
    probs, truth, lengths = random_split(seed)
    curves = precision_recall_curves(probs, truth, lengths, ALL)
    places = [(n, t) for n in range(6) for t in range(lengths[n])]
    for c in range(3):
        audio, visual = ([float(p[n, t, c]) for n, t in places] for p in probs)
        audible, visible = ([bool(e[n, t, c]) for n, t in places] for e in truth)
        both = [a and v for a, v in zip(audible, visible, strict=True)]
        products = [float(np.float32(a) * np.float32(v)) for a, v in zip(audio, visual, strict=True)]
        for name, true, scores in (("A", audible, audio), ("V", visible, visual), ("AV", both, products)):
            assert curves[name][c].average == pytest.approx(literal_average_precision(true, scores))


def test_a_curve_holds_precision_and_recall_at_each_threshold():
    probs = np.array([0.9, 0.8, 0.7, 0.2], np.float16).reshape(1, 4, 1)
    truth = np.array([True, False, True, False]).reshape(1, 4, 1)
    pairs = AudioVisual(probs, probs), AudioVisual(truth, truth)
    (curve,) = precision_recall_curves(*pairs, np.array([4]), ("A",))["A"]
    points = set(zip(curve.recall.tolist(), curve.precision.round(3).tolist(), strict=True))
    assert {(1.0, 0.667), (0.5, 1.0), (0.0, 1.0)} <= points <= {(1.0, 0.5), (1.0, 0.667), (0.5, 0.5), (0.5, 1), (0, 1)}


def test_padding_enters_neither_average_precision_nor_curve():
    probs, truth, lengths = random_split(5)
    before = precision_recall_curves(probs, truth, lengths, ALL)
    behind = np.arange(8) >= lengths[:, None]
    for of_modality, true in zip(probs, truth, strict=True):
        of_modality[behind], true[behind] = 1, False
    after = precision_recall_curves(probs, truth, lengths, ALL)
    for name in ALL:
        for one, other in zip(before[name], after[name], strict=True):
            assert one.average == other.average and np.array_equal(one.precision, other.precision)


def test_a_class_without_a_true_segment_is_an_empty_cell_and_not_part_of_the_mean():
    probs, truth, lengths = random_split(6)
    truth.audio[..., 1] = truth.visual[..., 2] = False
    curves = precision_recall_curves(probs, truth, lengths, ALL)
    table = average_precision_table(curves, ("x", "y", "z"), "title", "simulated features")
    cells = {row.labels[0]: row.cells for row in table.rows}
    assert [cell is None for cell in cells["y"]] == [True, False, True] and cells["z"][1] is None
    assert cells["mean"][0].mean == pytest.approx((cells["x"][0].mean + cells["z"][0].mean) / 2)
    assert cells["mean"][2].mean == pytest.approx(cells["x"][2].mean) == pytest.approx(100 * curves["AV"][0].average)
    assert all(row.note == "simulated features" for row in table.rows)


def test_of_a_split_without_any_truth_there_is_no_mean():
    probs, truth, lengths = random_split(7)
    curves = precision_recall_curves(probs, truth.map(np.zeros_like), lengths, ("AV",))
    assert all(row.cells == (None,) for row in average_precision_table(curves, ("x", "y", "z"), "title").rows)


def test_the_figure_has_a_panel_a_class_with_a_curve_a_modality(tmp_path: Path, written_figures: list[Figure]):
    probs, truth, lengths = random_split(8)
    truth.audio[..., 1] = truth.visual[..., 1] = truth.visual[..., 2] = False
    curves = precision_recall_curves(probs, truth, lengths, ALL)
    names = ("A_long_name", "y", "a name that is far too long for a panel of this width")
    for name in ("one", "other"):
        precision_recall_figure(tmp_path / f"{name}.png", curves, names, "run, test (simulated features)")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    figure = written_figures[0]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["A long name", "y"] and titles[2].endswith("…") and len(titles) == 3
    assert [[line.get_color() for line in axes.lines] for axes in figure.axes] == [[*COLOURS[:3]], [], [COLOURS[0]]]
    assert [text.get_text() for text in figure.axes[1].texts] == ["no true segment"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*ALL]
    assert "simulated features" in figure.get_suptitle()
    line = figure.axes[0].lines[0]
    assert np.array_equal(line.get_xdata(), curves["A"][0].recall) and line.get_drawstyle() == "steps-post"


def test_as_many_panels_as_classes_are_drawn_in_rows_of_five(tmp_path: Path, written_figures: list[Figure]):
    probs, truth, lengths = random_split(9)
    curves = {name: 4 * of_classes for name, of_classes in precision_recall_curves(probs, truth, lengths, ALL).items()}
    precision_recall_figure(tmp_path / "figure.png", curves, tuple("abcdefghijkl"))
    (figure,) = written_figures
    assert [axes.get_title() for axes in figure.axes] == list("abcdefghijkl")
    assert len({axes.get_position().x0 for axes in figure.axes}) == 5
