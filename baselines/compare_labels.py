"""Comparison of the labels that two sources, such as ours and the authors', remove from each modality.

    python -m baselines.compare_labels SOURCE_A SOURCE_B [--annotations_dir DIR] [--output results/labels]

A source is a folder of cleaned labels, noise ratios or pseudo-labels in any format that training reads; both must be of
one kind. N videos, C classes.
"""

from utils.entry_point import run_entry_point

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from baselines.jomold import noise_ratios
from baselines.ma import exchange
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, PARSED_DATASETS, load_annotations
from dataloaders.pseudo_labels import load_pseudo_labels
from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.compare import note_of
from utils.reporting.tables import Column, Table, class_table, format_text, write_tables


def labels_taken_away(folder: Path, annotations: SplitAnnotations) -> tuple[str, Tensor, AudioVisual[Tensor]]:
    """Return the kind of a folder's labels, the number of labels per class, (C,), and those removed per modality.

    Removed labels are (R, C) bool for R videos or segments; for noise ratios only their counts are known, (1, C).
    Raises InputError if the folder has no labels, or they do not fit the annotations.
    """
    labels = annotations.video_labels  # (N, C)
    if any((folder / name).exists() for name in (exchange.FILE, exchange.RELEASED_FILE)):
        left = exchange.load_cleaned_labels(folder, annotations)
        return "cleaned labels", labels.sum(dim=0), left.map(lambda kept: labels & ~kept)
    if any((folder / name).exists() for name in (noise_ratios.FILE, noise_ratios.RELEASED_FILE)):
        ratios, counts = noise_ratios.load_noise_ratios(folder, annotations), labels.sum(dim=0)
        return "noise ratios", counts, ratios.map(lambda shares: (shares * counts).round().long()[None])
    given = labels.repeat_interleave(annotations.lengths, dim=0)  # (R, C)
    left = load_pseudo_labels(folder, annotations).labels
    return "segment labels", given.sum(dim=0), left.map(lambda kept: given & ~kept)


def in_words(name: str, taken: Tensor, counts: Tensor, classes: Sequence[str]) -> str:
    """Return a sentence on how many of the labels, (C,), a source removes, (C,), and of which classes."""
    total, of = int(taken.sum()), int(counts.sum())
    share = 100 * total / of
    largest = taken.argsort(descending=True, stable=True)[:3].tolist()
    most = ", ".join(f"{classes[c]} {int(taken[c]):,}" for c in largest)
    spared = int(((taken == 0) & (counts > 0)).sum())
    return f"{name} removes {total:,} of {of:,} labels ({share:.1f} %; {most}); {spared} classes lose none."


def comparison_table(
    title: str, counts: Tensor, first: AudioVisual[Tensor], second: AudioVisual[Tensor], classes: Sequence[str]
) -> Table:
    """Return the table of how many labels per class A, B and both remove, as returned by `labels_taken_away`."""
    columns, words = {Column("labels", decimals=0): counts}, []
    for modality, a, b in zip(("Audio", "Visual"), first, second, strict=True):
        for name, taken in (("A", a.sum(dim=0)), ("B", b.sum(dim=0))):
            columns[Column(name, modality, 0)] = taken
            words.append(f"{modality}: {in_words(name, taken, counts, classes)}")
        if a.dtype == torch.bool:
            columns[Column("both", modality, 0)] = both = (a & b).sum(dim=0)
            words.append(f"{modality}: both remove the same {int(both.sum()):,}.")
    columns = {column: torch.cat([values, values.sum()[None]]) for column, values in columns.items()}
    return class_table(title, (*classes, "all"), columns, words)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source_a", type=Path, help="folder of cleaned labels, noise ratios or pseudo-labels")
    parser.add_argument("source_b", type=Path)
    parser.add_argument("--dataset", choices=PARSED_DATASETS, default="LLP")
    parser.add_argument("--annotations_dir", type=Path, help="folder of the annotation files (default: data/<dataset>)")
    parser.add_argument("--output", type=Path, help="also write OUTPUT.txt, .md, .csv and .json")
    args = parser.parse_args(arguments)

    train = load_annotations(args.dataset, args.annotations_dir or DATASETS[args.dataset].folder, "train")
    kind, counts, first = labels_taken_away(args.source_a, train)
    other_kind, _, second = labels_taken_away(args.source_b, train)
    if other_kind != kind:
        raise InputError(args.source_b, other_kind, f"{kind} as in {args.source_a}", "Pass two sources of one kind.")
    title = f"Labels removed by two sources of {kind}, {args.dataset} train"
    table = comparison_table(title, counts, first, second, train.classes)
    sources = {"A": args.source_a, "B": args.source_b}
    table = replace(table, notes=(*table.notes, *(f"{name}: {of}{note_of(of)}" for name, of in sources.items())))
    print(format_text(table))
    if args.output:
        print("written:", *write_tables(args.output, table))


if __name__ == "__main__":
    run_entry_point(main)
