"""Figures of classifiers of clips: maps of features, and what each class relies on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.files import atomic_write
from utils.reporting.figures import COLOURS, DPI

LEGEND_CLASSES = 28  # more do not fit beside the map


def scatter_figure(
    path: Path, maps: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], title: str
) -> None:
    """Points of two-dimensional maps, coloured by class.

    Args:
        maps: (R, 2) by name, drawn side by side.
        labels: (R,) int, of the points.
    """
    figure = Figure(figsize=(4.2 * len(maps) + 1.5, 4.4), dpi=DPI)
    panels = figure.subplots(1, len(maps))
    palette = matplotlib.colormaps["hsv"].resampled(len(classes) + 1)
    for axes, (name, points) in zip(panels, maps.items(), strict=True):
        for c, of_class in enumerate(classes):
            chosen = labels == c
            if chosen.any():
                axes.scatter(*points[chosen].T, s=9, color=palette(c), label=of_class, linewidths=0)
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
    if len(np.unique(labels)) <= LEGEND_CLASSES:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=8)
    save_figure(figure, path)


def reliance_figure(path: Path, falls: Sequence[tuple[str, float, float]], title: str) -> None:
    """Two bars a class: how far its accuracy falls without sound and without the picture, in percent."""
    figure = Figure(figsize=(6.0, 1.2 + 0.28 * len(falls)), dpi=DPI)
    axes = figure.subplots()
    places = np.arange(len(falls))
    for shift, column, colour, name in (
        (-0.18, 1, COLOURS[1], "without sound"),
        (0.18, 2, COLOURS[0], "without picture"),
    ):
        axes.barh(places + shift, [fall[column] for fall in falls], 0.34, color=colour, label=name)
    axes.set_yticks(places, [fall[0].replace("_", " ") for fall in falls])
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.6)
    axes.set_xlabel("Fall of accuracy (percent)")
    axes.set_title(title, fontsize=7)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG that depends on what is drawn alone."""
    FigureCanvasAgg(figure)  # no window, whatever backend the user has set
    with atomic_write(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
