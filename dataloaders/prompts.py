"""VALOR's prompts: the sentences to compare segments with, one per class and modality.

`python -m dataloaders.prompts --dataset LLP --modality visual` prints them in class order, one per line.
"""

from utils.entry_point import run_entry_point

import argparse
from pathlib import Path

import yaml

from dataloaders.datasets import DATASETS, PARSED_DATASETS
from utils.audio_visual import MODALITIES, AudioVisual
from utils.errors import InputError

PROMPTS_FILE = Path(__file__).resolve().parent.parent / "data" / "valor_prompts.yaml"


def load_prompts(path: Path, dataset: str) -> AudioVisual[tuple[str, ...]]:
    """Read each modality's sentences, (C,) in class order. Raises InputError for a malformed file or other classes."""
    classes = DATASETS[dataset].classes
    expected = f"a sentence for each of {len(classes)} classes, by data set and modality"
    way_out = "Write one line `class: sentence` for every class."
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        prompts = [dict(content[dataset][modality]) for modality in MODALITIES]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"no sentences of {dataset} ({error})", expected, way_out) from error
    for modality, named in zip(MODALITIES, prompts, strict=True):
        empty = {name for name, sentence in named.items() if not isinstance(sentence, str) or not sentence}
        if wrong := set(classes) ^ set(named) | empty:
            found = f"an absent, unknown or empty sentence for {', '.join(sorted(map(str, wrong)))}"
            raise InputError(f"{path}, {dataset}, {modality}", found, expected, way_out)
    return AudioVisual(*(tuple(named[name] for name in classes) for named in prompts))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=PARSED_DATASETS, default="LLP")
    parser.add_argument("--modality", choices=MODALITIES, required=True)
    parser.add_argument("--prompts_file", type=Path, default=PROMPTS_FILE)
    args = parser.parse_args(argv)
    print("\n".join(load_prompts(args.prompts_file, args.dataset)._asdict()[args.modality]))


if __name__ == "__main__":
    run_entry_point(main)
