"""Analyse a trained clip classifier; each analysis writes a PNG and a CSV to the run's folder of results.

python -m experiments.clip_analysis --analysis reliance --checkpoint_dir RUN
"""

from utils.entry_point import run_entry_point

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from lavish.clip_networks import ClipRun, TrainedClassifier, load_clip_run
from utils.errors import InputError
from utils.files import atomic_write
from utils.method.metrics import label_confusion
from utils.reporting.figures import COLOURS, DPI, save_figure
from utils.reporting.tables import Cell, Column, Row, Table, write_table
from utils.settings import FromFile, parse_settings, settings_group

WORST = 24  # mistakes per sheet
THUMBNAIL = 112  # pixels
LARGEST_MAP = 5_000  # points of t-SNE; a larger split is subsampled
LEGEND_CLASSES = 28  # most classes that fit into the legend
LEAST_DROP = 10.0  # points of accuracy; smaller drops are ignored


def features(run: ClipRun, split: str, folder: Path) -> None:
    """Project the head's input by PCA and t-SNE, one point per clip (AVE: per second)."""
    predictions, classes = run.predict(split), run.data.splits[split].classes
    points = predictions.features.flatten(0, -2).numpy().astype(np.float64)  # (R, D)
    labels = predictions.labels.flatten().numpy()
    correct = predictions.logits.argmax(-1).flatten().numpy() == labels
    if len(points) < 4:
        raise InputError(f"--split {split}", f"{len(points)} points", "at least 4", "Choose another split.")
    if len(points) > LARGEST_MAP:
        chosen = np.sort(np.random.default_rng(0).choice(len(points), LARGEST_MAP, replace=False))
        points, labels, correct = points[chosen], labels[chosen], correct[chosen]
    perplexity = min(30.0, (len(points) - 1) / 3)
    pca, tsne = PCA(2).fit(points), TSNE(2, perplexity=perplexity, init="pca", random_state=0)
    maps = {"PCA": pca.transform(points), "t-SNE": tsne.fit_transform(points)}
    shares = " + ".join(f"{100 * share:.0f} %" for share in pca.explained_variance_ratio_)
    title = f"{run.title(split)}; PCA: {shares} of the variance, t-SNE: perplexity {perplexity:g}"
    scatter_figure(folder / f"features_{split}.png", maps, labels, classes, title)
    columns = tuple(Column(f"{name} {axis}", decimals=3) for name in maps for axis in "xy")
    rows = []
    for label, right, places in zip(labels, correct, np.hstack([*maps.values()]).tolist(), strict=True):
        rows.append(Row((classes[label], "right" if right else "wrong"), tuple(map(Cell, places)), run.note))
    write_table(folder / f"features_{split}.csv", Table(title, ("Class", "Prediction"), columns, tuple(rows)))


def scatter_figure(
    path: Path, maps: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], title: str
) -> None:
    """Plot projections (R, 2) side by side, by name and coloured by class: labels (R,) int."""
    figure = Figure(figsize=(4.2 * len(maps) + 1.5, 4.4), dpi=DPI)
    panels = figure.subplots(1, len(maps))
    palette = matplotlib.colormaps["hsv"].resampled(len(classes) + 1)
    for axes, (name, points) in zip(panels, maps.items(), strict=True):
        for c in np.unique(labels):
            axes.scatter(*points[labels == c].T, s=9, color=palette(c), label=classes[c], linewidths=0)
        axes.set(title=name, xticks=[], yticks=[])
    if len(np.unique(labels)) <= LEGEND_CLASSES:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=8)
    save_figure(figure, path)


def reliance(run: ClipRun, split: str, folder: Path) -> None:
    """Compare the accuracy of each class with both modalities, without audio and without visual input."""
    if not (run.network.has_visual and run.network.has_audio):
        raise InputError(run.folder, "a unimodal model", "an audio-visual model", "Choose another run.")
    classes = run.data.splits[split].classes
    accuracies = []
    for without in (None, "audio", "visual"):
        predictions = run.predict(split, without)
        matrix = label_confusion(predictions.logits.argmax(-1), predictions.labels, len(classes)).double()
        accuracies.append((100 * matrix.diag() / matrix.sum(dim=1)).tolist())  # NaN for classes that never occur
    rows, drops = [], []
    for name, both, no_audio, no_visual in zip(classes, *accuracies, strict=True):
        if not np.isnan(both):
            drops.append((name, both - no_audio, both - no_visual))
            values = (both, no_audio, no_visual, *drops[-1][1:])
            rows.append(Row((name, _relied_on(*drops[-1][1:])), tuple(map(Cell, values)), run.note))
    columns = [Column(name, "Accuracy") for name in ("both", "without audio", "without visual")]
    columns += [Column(name, "Drop without") for name in ("audio", "visual")]
    notes = ("Accuracy in percent. A modality is left out by replacing its input with the mean, 0.",)
    table = Table(run.title(split), ("Class", "Relies on"), tuple(columns), tuple(rows), notes)
    write_table(folder / f"reliance_{split}.csv", table)
    reliance_figure(folder / f"reliance_{split}.png", drops, run.title(split))


def _relied_on(drop_without_audio: float, drop_without_visual: float) -> str:
    """Return the modalities without which the accuracy drops."""
    drops = {"audio": drop_without_audio, "visual": drop_without_visual}
    return " and ".join(name for name, drop in drops.items() if drop >= LEAST_DROP) or "neither alone"


def reliance_figure(path: Path, drops: Sequence[tuple[str, float, float]], title: str) -> None:
    """Plot two bars per class: the drop in its accuracy without audio and without visual input, in points."""
    figure = Figure(figsize=(6.0, 1.2 + 0.28 * len(drops)), dpi=DPI)
    axes = figure.subplots()
    names, without_audio, without_visual = zip(*drops, strict=True)
    places = np.arange(len(drops))
    axes.barh(places - 0.18, without_audio, 0.34, color=COLOURS[1], label="without audio")
    axes.barh(places + 0.18, without_visual, 0.34, color=COLOURS[0], label="without visual")
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.6)
    axes.set_xlabel("Drop in accuracy (points)")
    axes.set_title(title, fontsize=7)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def mistakes(run: ClipRun, split: str, folder: Path) -> None:
    """Show the samples with the largest margins of a wrong class over the true one: frames, truth, prediction."""
    clips, predictions = run.data.splits[split], run.predict(split)
    labels = predictions.labels.flatten()  # (R,)
    probs = predictions.logits.softmax(-1).flatten(0, -2)  # (R, C)
    best, predicted = probs.max(dim=-1)
    true = probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    order = (best - true).argsort(descending=True, stable=True)
    seconds = len(labels) // clips.num_clips  # labels per clip
    sheet, rows = [], []
    for row in order[(predicted != labels)[order]][:WORST].tolist():
        n, second = divmod(row, seconds)
        where = clips.sample_ids[n] + (f", second {second}" if seconds > 1 else "")
        truth, guess = clips.classes[labels[row]], clips.classes[predicted[row]]
        cells = (Cell(100 * best[row].item()), Cell(100 * true[row].item()))
        rows.append(Row((where, truth, guess), cells, run.note))
        frames = run.pack.frames[run.pack.row_of[clips.sources[n]]]  # (T, S, S, 3)
        shown = frames[second : second + 1] if seconds > 1 else frames[:: max(1, len(frames) // 4)][:4]
        sheet.append((shown, f"{where}\n{truth} -> {guess} ({cells[0].mean:.0f} %)"))
    columns = tuple(Column(name, "Probability") for name in ("of the prediction", "of the truth"))
    heads = ("Sample", "Truth", "Prediction")
    table = Table(run.title(split), heads, columns, tuple(rows), ("Probabilities in percent.",))
    write_table(folder / f"mistakes_{split}.csv", table)
    with atomic_write(folder / f"mistakes_{split}.png") as file:
        contact_sheet(sheet, run.title(split)).save(file, "PNG")


def contact_sheet(entries: list[tuple[np.ndarray, str]], title: str) -> Image.Image:
    """Return a page that shows, for each entry, up to four frames (T, S, S, 3) uint8 above two lines of text."""
    font, columns = ImageFont.load_default(11), 3
    width, height = 4 * THUMBNAIL + 8, THUMBNAIL + 40
    rows = max(1, math.ceil(len(entries) / columns))
    page = Image.new("RGB", (columns * width, rows * height + 24), "white")
    draw = ImageDraw.Draw(page)
    draw.text((4, 4), title if entries else f"{title}: no mistakes", fill="black", font=font)
    for i, (frames, text) in enumerate(entries):
        left, top = i % columns * width + 4, i // columns * height + 24
        for k, frame in enumerate(frames):
            page.paste(Image.fromarray(frame).resize((THUMBNAIL, THUMBNAIL)), (left + k * THUMBNAIL, top))
        draw.multiline_text((left, top + THUMBNAIL + 2), text, fill="black", font=font)
    return page


ANALYSES = {"features": features, "reliance": reliance, "mistakes": mistakes}


@settings_group
class Settings(FromFile):
    """Settings of the analysis."""

    analysis: Literal[tuple(ANALYSES)] = "features"
    """features: PCA and t-SNE; reliance: accuracy without one modality; mistakes: contact sheet of the worst ones"""
    split: Literal["train", "val", "test"] = "test"  # split to analyse
    which: TrainedClassifier = TrainedClassifier()


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(Settings(), __doc__.partition("\n")[0], argv)
    run = load_clip_run(settings.which)
    folder = settings.which.logs_dir / run.name
    with torch.inference_mode():
        ANALYSES[settings.analysis](run, settings.split, folder)
    print(f"{folder}/{settings.analysis}_{settings.split}.png and .csv")


if __name__ == "__main__":
    run_entry_point(main)
