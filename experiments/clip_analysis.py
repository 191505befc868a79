"""Analyses of a trained classifier of clips, each a PNG and a CSV in the run's folder of results.

python -m experiments.clip_analysis --analysis features --checkpoint_dir RUN  (PCA and t-SNE of the head's input)
python -m experiments.clip_analysis --analysis reliance --checkpoint_dir RUN  (accuracy of classes without a modality)
python -m experiments.clip_analysis --analysis mistakes --checkpoint_dir RUN  (the worst mistakes as contact sheets)
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

WORST = 24  # mistakes of a sheet
THUMBNAIL = 112  # pixels
LARGEST_MAP = 5_000  # rows of t-SNE, drawn at random beyond
LEGEND_CLASSES = 28  # more do not fit beside the map
LEAST_FALL = 10.0  # percent of accuracy; less counts as none


def features(run: ClipRun, split: str, folder: Path) -> None:
    """Map the head's input by PCA and t-SNE, one point a clip (AVE: a second)."""
    predictions, classes = run.predict(split), run.data.splits[split].classes
    points = predictions.features.flatten(0, -2).numpy().astype(np.float64)  # (R, D)
    labels = predictions.labels.flatten().numpy()
    correct = predictions.logits.argmax(-1).flatten().numpy() == labels
    if len(points) < 4:
        raise InputError(f"--split {split}", f"{len(points)} points", "4 or more", "Choose another split.")
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
    """Draw two-dimensional maps side by side, points (R, 2) by name, coloured by class: labels (R,) int."""
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
        raise InputError(run.folder, "a model of one modality", "an audio-visual model", "Name another run.")
    classes = run.data.splits[split].classes
    accuracies = []
    for without in (None, "audio", "visual"):
        predictions = run.predict(split, without)
        matrix = label_confusion(predictions.logits.argmax(-1), predictions.labels, len(classes)).double()
        accuracies.append((100 * matrix.diag() / matrix.sum(dim=1)).tolist())  # NaN for classes that never occur
    rows, falls = [], []
    for name, both, no_sound, no_picture in zip(classes, *accuracies, strict=True):
        if not np.isnan(both):
            falls.append((name, both - no_sound, both - no_picture))
            values = (both, no_sound, no_picture, both - no_sound, both - no_picture)
            rows.append(Row((name, _relied_on(*falls[-1][1:])), tuple(map(Cell, values)), run.note))
    columns = [Column(name, "Accuracy") for name in ("both", "without sound", "without picture")]
    columns += [Column(name, "Falls without") for name in ("sound", "picture")]
    notes = ("Accuracy in percent. A modality is left out by putting its mean, 0, in its place.",)
    table = Table(run.title(split), ("Class", "Relies on"), tuple(columns), tuple(rows), notes)
    write_table(folder / f"reliance_{split}.csv", table)
    reliance_figure(folder / f"reliance_{split}.png", falls, run.title(split))


def _relied_on(without_sound: float, without_picture: float) -> str:
    """Return in words which modalities' absence lowers the accuracy."""
    falls = {"sound": without_sound, "picture": without_picture}
    return " and ".join(name for name, fall in falls.items() if fall >= LEAST_FALL) or "neither alone"


def reliance_figure(path: Path, falls: Sequence[tuple[str, float, float]], title: str) -> None:
    """Draw two bars a class: the fall of its accuracy without audio and without visual input, in percent."""
    figure = Figure(figsize=(6.0, 1.2 + 0.28 * len(falls)), dpi=DPI)
    axes = figure.subplots()
    names, without_sound, without_picture = zip(*falls, strict=True)
    places = np.arange(len(falls))
    axes.barh(places - 0.18, without_sound, 0.34, color=COLOURS[1], label="without sound")
    axes.barh(places + 0.18, without_picture, 0.34, color=COLOURS[0], label="without picture")
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.6)
    axes.set_xlabel("Fall of accuracy (percent)")
    axes.set_title(title, fontsize=7)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def mistakes(run: ClipRun, split: str, folder: Path) -> None:
    """Show the samples whose wrong class was most probable compared with the true one: frames, truth, prediction."""
    clips, predictions = run.data.splits[split], run.predict(split)
    labels = predictions.labels.flatten()  # (R,)
    probs = predictions.logits.softmax(-1).flatten(0, -2)  # (R, C)
    best, predicted = probs.max(dim=-1)
    true = probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    order = (best - true).argsort(descending=True, stable=True)
    seconds = len(labels) // clips.num_clips  # that are labelled in a clip
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
    """Draw for each entry up to four frames (T, S, S, 3) uint8 side by side above two lines of text."""
    font, columns = ImageFont.load_default(11), 3
    width, height = 4 * THUMBNAIL + 8, THUMBNAIL + 40
    rows = max(1, math.ceil(len(entries) / columns))
    page = Image.new("RGB", (columns * width, rows * height + 24), "white")
    draw = ImageDraw.Draw(page)
    draw.text((4, 4), title if entries else f"{title}: no mistake", fill="black", font=font)
    for i, (frames, text) in enumerate(entries):
        left, top = i % columns * width + 4, i // columns * height + 24
        for k, frame in enumerate(frames):
            page.paste(Image.fromarray(frame).resize((THUMBNAIL, THUMBNAIL)), (left + k * THUMBNAIL, top))
        draw.multiline_text((left, top + THUMBNAIL + 2), text, fill="black", font=font)
    return page


ANALYSES = {"features": features, "reliance": reliance, "mistakes": mistakes}


@settings_group
class Settings(FromFile):
    """Which analysis, of which run."""

    analysis: Literal[tuple(ANALYSES)] = "features"
    """features: PCA and t-SNE; reliance: accuracy without a modality; mistakes: the worst as contact sheets"""
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
