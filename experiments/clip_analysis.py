"""Analyses of a trained classifier of clips, each a PNG and a CSV in the run's folder of results.

python -m experiments.clip_analysis --analysis features --checkpoint_dir RUN  (PCA and t-SNE of what the head sees)
python -m experiments.clip_analysis --analysis reliance --checkpoint_dir RUN  (accuracy of classes without a modality)
python -m experiments.clip_analysis --analysis mistakes --checkpoint_dir RUN  (the worst mistakes as contact sheets)
"""

from utils.entry_point import run_entry_point

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from lavish.classification import label_confusion
from lavish.clip_figures import reliance_figure, scatter_figure
from lavish.clip_runs import ClipRun, TrainedClassifier, load_clip_run
from lavish.clip_settings import clip_batches
from lavish.clip_tasks import ClipPredictions, predict_clips
from utils.errors import InputError
from utils.files import atomic_write
from utils.reporting.tables import Cell, Column, Row, Table, write_table
from utils.settings import FromFile, parse_settings, settings_group

WORST = 24  # mistakes of a sheet
THUMBNAIL = 112  # pixels
LARGEST_MAP = 5_000  # rows of t-SNE, drawn at random beyond


def predict(run: ClipRun, split: str, without: str | None = None) -> ClipPredictions:
    """What the run says of a split, with or without a modality."""
    batches = clip_batches(run.settings, run.data, run.pack, split, run.network, run.device)
    return predict_clips(run.network, batches, run.settings.device.eval_batch_size, run.precision, without)


def features(run: ClipRun, split: str, folder: Path) -> None:
    """PCA and t-SNE of the head's input, one point a clip (AVE: a second)."""
    predictions = predict(run, split)
    points = predictions.features.flatten(0, -2).numpy().astype(np.float64)  # (R, D)
    labels = predictions.labels.flatten().numpy()
    correct = (predictions.logits.argmax(-1).flatten() == predictions.labels.flatten()).numpy()
    if len(points) < 4:
        raise InputError(f"--split {split}", f"{len(points)} points", "4 or more", "Choose another split.")
    if len(points) > LARGEST_MAP:
        chosen = np.sort(np.random.default_rng(0).choice(len(points), LARGEST_MAP, replace=False))
        points, labels, correct = points[chosen], labels[chosen], correct[chosen]
    perplexity = min(30.0, (len(points) - 1) / 3)
    pca = PCA(2).fit(points)
    maps = {
        "PCA": pca.transform(points),
        "t-SNE": TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points),
    }
    classes = run.data.splits[split].classes
    shares = " + ".join(f"{100 * share:.0f} %" for share in pca.explained_variance_ratio_)
    title = f"{run.title(split)}; PCA: {shares} of the variance, t-SNE: perplexity {perplexity:g}"
    scatter_figure(folder / f"features_{split}.png", maps, labels, classes, title)
    columns = [Column(f"{name} {axis}", decimals=3) for name in maps for axis in "xy"]
    rows = []
    for n, label in enumerate(labels.tolist()):
        cells = [Cell(float(value)) for of_map in maps.values() for value in of_map[n]]
        rows.append(Row((classes[label], "right" if correct[n] else "wrong"), tuple(cells), run.note))
    table = Table(title, ("Class", "Prediction"), tuple(columns), tuple(rows))
    write_table(folder / f"features_{split}.csv", table)


def reliance(run: ClipRun, split: str, folder: Path) -> None:
    """Accuracy of each class with both modalities, without sound and without the picture."""
    if not (run.network.sees and run.network.hears):
        raise InputError(run.folder, "a model of one modality", "one that sees and hears", "Name another run.")
    classes = run.data.splits[split].classes
    accuracy = {}
    for name, without in {"both": None, "without sound": "audio", "without picture": "visual"}.items():
        predictions = predict(run, split, without)
        matrix = label_confusion(predictions.logits.argmax(-1), predictions.labels, len(classes)).double()
        accuracy[name] = (100 * matrix.diag() / matrix.sum(dim=1)).tolist()  # NaN for classes that never occur
    columns = [Column(name, "Accuracy") for name in accuracy]
    columns += [Column("sound", "Falls without"), Column("picture", "Falls without")]
    rows = []
    for c, name in enumerate(classes):
        both, no_sound, no_picture = (accuracy[key][c] for key in accuracy)
        if not np.isnan(both):
            values = (both, no_sound, no_picture, both - no_sound, both - no_picture)
            rows.append(Row((name, _relied_on(both - no_sound, both - no_picture)), tuple(map(Cell, values)), run.note))
    title = run.title(split)
    notes = ("Accuracy in percent. A modality is left out by putting its mean, 0, in its place.",)
    table = Table(title, ("Class", "Relies on"), tuple(columns), tuple(rows), notes)
    write_table(folder / f"reliance_{split}.csv", table)
    falls = [(row.labels[0], row.cells[3].mean, row.cells[4].mean) for row in rows]
    reliance_figure(folder / f"reliance_{split}.png", falls, title)


def _relied_on(without_sound: float, without_picture: float, least: float = 10.0) -> str:
    """In words; a fall of less than `least` percent counts as none."""
    relied = [name for name, fall in (("sound", without_sound), ("picture", without_picture)) if fall >= least]
    return " and ".join(relied) or "neither alone"


def mistakes(run: ClipRun, split: str, folder: Path) -> None:
    """The samples whose wrong class was the most probable compared with the true one: frames, truth and prediction."""
    clips = run.data.splits[split]
    predictions = predict(run, split)
    probs = predictions.logits.softmax(-1)
    best, predicted = probs.max(dim=-1)
    true = probs.gather(-1, predictions.labels.unsqueeze(-1)).squeeze(-1)
    margin = (best - true).flatten()  # (R,)
    wrong = (predicted != predictions.labels).flatten()
    order = [r for r in margin.argsort(descending=True, stable=True).tolist() if wrong[r]][:WORST]
    per_clip = 1 if predictions.labels.dim() == 1 else predictions.labels.shape[1]
    sheet, rows = [], []
    for row in order:
        n, second = divmod(row, per_clip)
        where = clips.sample_ids[n] + (f", second {second}" if per_clip > 1 else "")
        truth = clips.classes[predictions.labels.flatten()[row]]
        guess = clips.classes[predicted.flatten()[row]]
        cells = (Cell(100 * best.flatten()[row].item()), Cell(100 * true.flatten()[row].item()))
        rows.append(Row((where, truth, guess), cells, run.note))
        frames = run.pack.frames[run.pack.row_of[clips.sources[n]]]  # (T, S, S, 3)
        shown = frames[second : second + 1] if per_clip > 1 else frames[:: max(1, len(frames) // 4)][:4]
        sheet.append((shown, f"{where}\n{truth} -> {guess} ({cells[0].mean:.0f} %)"))
    columns = (Column("of the prediction", "Probability"), Column("of the truth", "Probability"))
    labels = ("Sample", "Truth", "Prediction")
    table = Table(run.title(split), labels, columns, tuple(rows), ("Probabilities in percent.",))
    write_table(folder / f"mistakes_{split}.csv", table)
    with atomic_write(folder / f"mistakes_{split}.png") as file:
        file.write(contact_sheet(sheet, run.title(split)))


def contact_sheet(entries: list[tuple[np.ndarray, str]], title: str, columns: int = 3) -> bytes:
    """A PNG: for each entry up to four frames (T, S, S, 3) uint8 side by side above two lines of text."""
    font = ImageFont.load_default(11)
    width, height = 4 * THUMBNAIL + 8, THUMBNAIL + 40
    rows = max(1, -(-len(entries) // columns))
    page = Image.new("RGB", (columns * width, rows * height + 24), "white")
    draw = ImageDraw.Draw(page)
    draw.text((4, 4), title if entries else f"{title}: no mistake", fill="black", font=font)
    for i, (frames, text) in enumerate(entries):
        left, top = i % columns * width + 4, i // columns * height + 24
        for k, frame in enumerate(frames):
            page.paste(Image.fromarray(frame).resize((THUMBNAIL, THUMBNAIL)), (left + k * THUMBNAIL, top))
        draw.multiline_text((left, top + THUMBNAIL + 2), text, fill="black", font=font)
    png = io.BytesIO()
    page.save(png, "PNG")
    return png.getvalue()


ANALYSES = {"features": features, "reliance": reliance, "mistakes": mistakes}


@settings_group
class Settings(FromFile):
    """Which analysis, of which run."""

    analysis: Literal[tuple(ANALYSES)] = "features"
    """features: PCA and t-SNE; reliance: accuracy without a modality; mistakes: the worst as contact sheets"""
    split: Literal["train", "val", "test"] = "test"
    """split to analyse"""
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
