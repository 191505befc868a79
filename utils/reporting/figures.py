"""Figures for papers: timelines of events, confusion matrices and curves, as PNG files that depend on the data only."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dataloaders.ave import BACKGROUND
from utils.audio_visual import MODALITIES, AudioVisual
from utils.files import atomic_write
from utils.method.spans import maximal_spans
from utils.reporting.colours import COLOURS, EMPTY_GREY, GRID_GREY, RULE_GREY, TEXT_GREY, TRACK_COLOUR, TRUTH_COLOUR
from utils.reporting.precision_recall import Curves

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so every machine draws the same
    "font.size": 8.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,  # a $ in a name is a $
}
DPI = 200
ROW, MODALITY_GAP, CLASS_GAP = 0.15, 0.07, 0.2  # heights in timelines, inches
PANELS = 5  # side by side
SHORT = 20  # segments; timelines of longer videos are wider and have a tick every five seconds


@dataclass(frozen=True)
class Timeline:
    """Events of one video, predicted by a method or true."""

    name: str
    events: AudioVisual[np.ndarray]  # (T, C) bool, audible and visible

    @property
    def label(self) -> str:
        """Return the name, and which modality has no event."""
        empty = [kind for kind, events in zip(("audible", "visible"), self.events, strict=True) if not events.any()]
        kind = f"{empty[0]} " if len(empty) == 1 else ""
        return f"{self.name} (no {kind}event)" if empty else self.name


@matplotlib.rc_context(STYLE)
def timeline_figure(
    path: Path,
    title: str,
    classes: Sequence[str],
    truth: Timeline,
    predictions: Sequence[Timeline],  # one per method, drawn in this order
    video_labels: np.ndarray | None = None,  # (C,) bool, the weak labels; other classes are marked with an asterisk
) -> None:
    """Draw the events of all occurring classes over time as in the paper's Figure 3, truth above each method."""
    timelines = (truth, *predictions)
    colours = [(TRUTH_COLOUR, *COLOURS)[n % (1 + len(COLOURS))] for n in range(len(timelines))]
    occurring = [events.any(axis=0) for timeline in timelines for events in timeline.events]  # (C,) each
    shown = np.flatnonzero(np.any(occurring if video_labels is None else [*occurring, video_labels], axis=0))
    outside = [] if video_labels is None else [c for c in shown if not video_labels[c]]
    num_segments = truth.events.audio.shape[0]
    tick_step = 1 if num_segments <= SHORT else 5  # seconds
    class_height = 2 * len(timelines) * ROW + MODALITY_GAP
    height = max(len(shown) * (class_height + CLASS_GAP), 0.6)

    figure, axes = _figure(5.0 if num_segments <= SHORT else 7.0, height)  # x in seconds, y in inches
    axes.set(xlim=(0, num_segments), ylim=(height, 0), xlabel="Time (s)", yticks=[])
    axes.set_xticks(range(0, num_segments + 1, tick_step))
    axes.spines[["left", "right", "top"]].set_visible(False)
    for place, c in enumerate(shown):
        top = CLASS_GAP / 2 + place * (class_height + CLASS_GAP)
        name = textwrap.fill(classes[c].replace("_", " ") + ("*" if c in outside else ""), width=20)
        _side_label(axes, top + class_height / 2, name, inches_left=0.52, weight="bold")
        for m, modality in enumerate(MODALITIES):
            first = top + m * (len(timelines) * ROW + MODALITY_GAP)
            _side_label(axes, first + len(timelines) * ROW / 2, modality, inches_left=0.08)
            for n, (timeline, colour) in enumerate(zip(timelines, colours, strict=True)):
                bar = (first + (n + 0.1) * ROW, 0.8 * ROW)
                axes.broken_barh([(0, num_segments)], bar, facecolor=TRACK_COLOUR)
                onsets, ends = maximal_spans(timeline.events[m][:, c])
                axes.broken_barh(torch.stack([onsets, ends - onsets], dim=1).tolist(), bar, facecolor=colour)
        if c != shown[-1]:
            axes.axhline(top + class_height + CLASS_GAP / 2, color=RULE_GREY, linewidth=0.5, zorder=3)
    for boundary in range(1, num_segments):  # over the bars, so that segments can be counted
        axes.axvline(boundary, color="white", linewidth=0.6 if boundary % tick_step == 0 else 0.25)
    if not len(shown):
        axes.text(num_segments / 2, height / 2, "no event", ha="center", va="center", color=TEXT_GREY)

    handles = [Patch(color=colour, label=t.label) for colour, t in zip(colours, timelines, strict=True)]
    if outside:
        handles.append(Line2D([], [], linestyle="none", label="* not in the video label"))
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, handlelength=1.2, borderaxespad=0
    )
    axes.set_title(textwrap.fill(title, width=int(11 * figure.get_figwidth())), fontsize=9)
    save_figure(figure, path)


@matplotlib.rc_context(STYLE)
def confusion_matrix_figure(
    path: Path, matrix: np.ndarray, classes: Sequence[str], title: str = "", unit: str = "segments"
) -> None:
    """Draw counts, true labels in rows, in percent of each row: (C + 1, C + 1), background last, or (C, C)."""
    matrix = np.asarray(matrix)
    names = [name.replace("_", " ") for name in (*classes, BACKGROUND)][: len(matrix)]
    support = matrix.sum(axis=1, keepdims=True)  # (C + 1, 1)
    shares = np.ma.masked_where(np.broadcast_to(support == 0, matrix.shape), 100 * matrix / np.maximum(support, 1))
    side = max(1.2 + 0.24 * len(names), 2.6)  # the bar's label needs 2.2
    figure, axes = _figure(side, side)
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=EMPTY_GREY)
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    counted = [f"{name} ({count})" for name, count in zip(names, support[:, 0].tolist(), strict=True)]
    axes.set_yticks(range(len(names)), counted)
    axes.tick_params(which="both", length=0)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID_GREY, linewidth=0.4)
    axes.set(xlabel="Prediction", ylabel=f"Truth ({unit})", title=title)
    for i, j in np.argwhere(shares.filled(0) >= 0.5):  # percent
        colour = "white" if shares[i, j] > 55 else "black"
        axes.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=6, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label(f"Share of the true label's {unit} (%)")
    bar.outline.set_linewidth(0.6)
    save_figure(figure, path)


@dataclass(frozen=True)
class Series:
    """One curve: a mean for each x, with its deviation over several runs."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float | None] | None = None


@dataclass(frozen=True)
class PublishedPoint:
    """A value that the paper prints; without x, a horizontal line."""

    name: str
    x: float | None
    y: float


@matplotlib.rc_context(STYLE)
def curve_figure(
    path: Path,
    series: Sequence[Series],
    published: Sequence[PublishedPoint],
    x_label: str,
    y_label: str,
    title: str = "",
) -> None:
    """Draw curves with bands of one standard deviation beside the paper's values, for Figures A4 (alpha) and A5 (W)."""
    figure, axes = _figure(4.2, 2.8)
    styles = cycle([style for style in ("-", "--", ":") for _ in range(5)])  # five colours and markers each
    for curve, colour, marker, style in zip(series, cycle(COLOURS[:5]), cycle("os^Dv"), styles, strict=False):
        mean = np.asarray(curve.mean, dtype=float)
        every = max(1, len(mean) // 10)  # points between markers
        line = {"color": colour, "linestyle": style, "linewidth": 1.3, "label": curve.name}
        axes.plot(curve.x, mean, marker=marker, markevery=every, markersize=3.5, **line)
        if curve.std is not None:
            std = np.array([value or 0.0 for value in curve.std])
            axes.fill_between(curve.x, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
    for point, line in zip(published, cycle(("--", ":", "-.")), strict=False):
        label = f"{point.name} (published)"
        if point.x is None:
            axes.axhline(point.y, color=TRUTH_COLOUR, linewidth=1.0, linestyle=line, label=label)
        else:
            axes.plot([point.x], [point.y], "*", color=TRUTH_COLOUR, markersize=9, linestyle="none", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=(1, 2, 2.5, 5, 10)))
    axes.margins(y=0.1)
    axes.grid(color=GRID_GREY, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, borderaxespad=0)
    save_figure(figure, path)


@matplotlib.rc_context(STYLE)
def intervals_figure(path: Path, intervals: Mapping[str, tuple[float, float, float]], label: str, title: str) -> None:
    """Draw estimates with their intervals (low, high), one below the other, beside a line at zero."""
    figure, axes = _figure(4.2, 0.6 + 0.22 * len(intervals))
    for y, (middle, low, high) in enumerate(reversed(intervals.values())):
        axes.plot([low, high], [y, y], color=COLOURS[0], linewidth=1.5)
        axes.plot([middle], [y], "o", color=COLOURS[0], markersize=4)
    axes.axvline(0, color=TRUTH_COLOUR, linewidth=0.8)
    axes.set_yticks(range(len(intervals)), [*reversed(intervals)])
    axes.spines[["right", "top", "left"]].set_visible(False)
    axes.set(xlabel=label, title=title, ylim=(-0.7, len(intervals) - 0.3))
    save_figure(figure, path)


@matplotlib.rc_context(STYLE)
def class_bars_figure(path: Path, scores: Mapping[str, np.ndarray], classes: Sequence[str], label: str, title: str):
    """Draw the scores of each class in percent, (C,), of two runs, sorted by their difference; NaN: no bar."""
    first, second = scores.values()
    order = np.argsort(second - first, kind="stable")  # NaN last
    height = 0.4 + 0.27 * len(order)
    figure, axes = _figure(4.2, height)
    for shift, (name, values), colour in zip((-0.19, 0.19), scores.items(), COLOURS, strict=False):
        axes.barh(np.arange(len(order)) + shift, values[order], 0.36, color=colour, label=name)
    for y, c in enumerate(order):
        text = "no score" if np.isnan(first[c] - second[c]) else f"{first[c] - second[c]:+.1f}"
        axes.text(np.nan_to_num([first[c], second[c]]).max() + 1.5, y, text, va="center", fontsize=7)
    axes.set_yticks(range(len(order)), [classes[c].replace("_", " ") for c in order])
    axes.set(xlim=(0, 100), ylim=(len(order) - 0.4, -0.6), xlabel=label)
    axes.spines[["right", "top"]].set_visible(False)
    axes.set_title(textwrap.fill(title, width=70), fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.45 / height), frameon=False, borderaxespad=0)
    save_figure(figure, path)


@matplotlib.rc_context(STYLE)
def precision_recall_figure(path: Path, curves: Curves, classes: Sequence[str], title: str = "") -> None:
    """Draw a panel for each class with a curve for each modality, or a remark that no segment is true."""
    num_columns = min(PANELS, len(classes))
    num_rows = -(-len(classes) // num_columns)
    figure = Figure(figsize=(1.5 * num_columns, 1.4 * num_rows), dpi=DPI)
    FigureCanvasAgg(figure)
    inner = {"left": 0, "right": 1, "bottom": 0, "top": 1, "hspace": 0.4}  # all around lies outside, as in `_figure`
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False, gridspec_kw=inner)
    styles = zip(COLOURS, ("-", "--", ":"), (0.9, 1.1, 1.3), strict=False)  # A, V and AV also differ in greyscale
    lines = [{"color": c, "linestyle": style, "linewidth": w} for (c, style, w), _ in zip(styles, curves, strict=False)]
    for axes, name, *of_class in zip(panels.flat, classes, *curves.values(), strict=False):
        axes.set(xlim=(0, 1), ylim=(0, 1.03))
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
        axes.set_title(textwrap.shorten(name.replace("_", " "), 24, placeholder="…"), fontsize=7)
        axes.spines[["right", "top"]].set_visible(False)
        for curve, line in zip(of_class, lines, strict=True):
            if curve is not None:
                axes.step(curve.recall, curve.precision, where="post", clip_on=False, **line)
        if not any(of_class):
            axes.text(0.5, 0.5, "no true segment", ha="center", va="center", color=TEXT_GREY, fontsize=7)
    for axes in panels.flat[len(classes) :]:
        axes.remove()
    handles = [Line2D([], [], label=name, **line) for name, line in zip(curves, lines, strict=True)]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    inch = 1 / figure.get_figheight()
    figure.supxlabel("Recall", y=-0.4 * inch, va="top", fontsize=8)
    figure.supylabel("Precision", x=-0.5 / figure.get_figwidth(), fontsize=8)
    figure.suptitle(title, y=1 + 0.3 * inch, va="bottom", fontsize=9)
    save_figure(figure, path)


def _side_label(axes: Axes, y: float, text: str, inches_left: float, weight: str = "normal") -> None:
    """Write text at the height y of the data, `inches_left` of the axes."""
    offset = (-72 * inches_left, 0)  # points
    coordinates = ("axes fraction", "data"), "offset points"
    axes.annotate(text, (0, y), offset, *coordinates, ha="right", va="center", weight=weight, annotation_clip=False)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return axes of that size in inches; labels and legend lie outside, and `save_figure` makes room for them."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)  # no window, whatever backend the user has set
    return figure, figure.add_axes((0, 0, 1, 1))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG that depends only on what is drawn, cropped to its content."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
