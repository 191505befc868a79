"""The stages at a size that takes a second or two each."""

from pathlib import Path

import torch

import pseudo_label_generation
import test_han
import train_han
import train_transformer

NETWORK = ["--dim", "16", "--num_heads", "2", "--ffn_dim", "24", "--num_layers", "2", "--device", "cpu"]
RECIPE = ["--num_epochs", "3", "--batch_size", "4", "--warmup_epochs", "1", "--lr", "1e-3"]


def pretrain(unav_dir: Path, output_dir: Path, *flags: str) -> Path:
    """Stage 1. Returns the run folder."""
    train_transformer.main(
        ["--data_dir", str(unav_dir), "--output_dir", str(output_dir), *NETWORK, *RECIPE, *map(str, flags)]
    )
    return newest(output_dir, "TemporalTransformer_UnAV_")


def label(llp_dir: Path, transformer_dir: Path, *flags: str) -> Path:
    """Stage 2. Returns the folder of pseudo-labels."""
    pseudo_label_generation.main(
        ["--data_dir", str(llp_dir), "--transformer_dir", str(transformer_dir), "--device", "cpu", *map(str, flags)]
    )
    return transformer_dir / "LLP_Dataset"


def train(llp_dir: Path, output_dir: Path, *flags: str) -> Path:
    """Stage 3. Returns the run folder."""
    train_han.main(["--data_dir", str(llp_dir), "--output_dir", str(output_dir), *NETWORK, *RECIPE, *map(str, flags)])
    return newest(output_dir, "HAN_")


def evaluate(checkpoint_dir: Path, logs_dir: Path, *flags: str) -> Path:
    """Stage 4. Returns the folder of tables and figures."""
    test_han.main(
        [
            *("--checkpoint_dir", str(checkpoint_dir), "--logs_dir", str(logs_dir)),
            *("--num_figures", "0", "--device", "cpu", *map(str, flags)),
        ]
    )
    return logs_dir / checkpoint_dir.name


def newest(folder: Path, prefix: str) -> Path:
    return max(folder.glob(f"{prefix}*"), key=lambda path: path.stat().st_mtime_ns)


def assert_same_weights(one: Path, other: Path, file: str = "checkpoints/last.pt") -> None:
    """Two runs have ended in the same weights and optimiser state, bit for bit."""
    a, b = (torch.load(run / file, weights_only=True) for run in (one, other))
    a, b = (dict(_flat(state)) for state in (a, b))
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[name]), name
        elif not name.endswith("seconds"):
            assert value == b[name], name


def _flat(state: object, prefix: str = ""):
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, (list, tuple)):
        items = enumerate(state)
    else:
        yield prefix, state
        return
    for key, value in items:
        yield from _flat(value, f"{prefix}/{key}")
