"""What bf16 costs in accuracy: stage 3 on simulated LLP in float32 and in bf16, several seeds.

python -m benchmarks.run --accuracy
"""

import json
import statistics
from pathlib import Path

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from simulation.simulate import simulate
from utils.reporting.tables import Cell, Column, Row, Table

METRIC = "segment_Type"
NETWORK = ("--dim", "128", "--num_heads", "4", "--ffn_dim", "256", "--num_layers", "2")
STAGE_1 = ("--num_epochs", "10", "--warmup_epochs", "2", "--lr", "1e-3", "--lr_min", "1e-4", "--dropout", "0.1")
STAGE_3 = ("--num_epochs", "20", "--warmup_epochs", "2", "--lr", "5e-4", "--lr_min", "5e-5")


def bf16_difference(
    folder: Path,
    annotations: Path | None,
    num_pretrain: int = 800,
    num_train: int = 600,
    num_eval: int = 300,
    seeds: tuple[int, ...] = (1, 2, 3),
    network: tuple[str, ...] = NETWORK,
    stage_1: tuple[str, ...] = STAGE_1,
    stage_3: tuple[str, ...] = STAGE_3,
) -> Table:
    """Segment-level Type@AV of the test split by precision and seed, and the difference."""
    for dataset, number in (("UnAV", num_pretrain), ("LLP", num_train)):
        sizes = {"train": number, "val": num_eval, "test": num_eval}
        simulate(dataset, folder / "data", annotations, sizes)
    runs = folder / "runs"
    llp = ("--data_dir", str(folder / "data" / "LLP"))
    train_transformer.main(["--data_dir", str(folder / "data" / "UnAV"), "--output_dir", str(runs), *network, *stage_1])
    teacher = folder / "pseudo_labels"
    pseudo_label_generation.main([*llp, "--runs_dir", str(runs), "--output_dir", str(teacher)])
    scores: dict[str, list[float]] = {}
    for precision in ("float32", "bf16"):
        scores[precision] = []
        for seed in seeds:
            output = folder / f"{precision}_{seed}"
            flags = ("--pseudo_label_dir", str(teacher), "--output_dir", str(output))
            train_han.main([*llp, *flags, *network, *stage_3, "--seed", str(seed), "--precision", precision])
            tested = output / "test"
            flags = ("--runs_dir", str(output), "--output_dir", str(tested), "--num_figures", "0")
            test_han.main([*llp, *flags, "--precision", precision])
            scores[precision].append(json.loads((tested / "summary.json").read_text())["test"][METRIC])
    differences = [b - a for a, b in zip(scores["float32"], scores["bf16"], strict=True)]
    rows = [
        Row((name,), (*(f"{v:.2f}" for v in values), Cell(statistics.mean(values)), Cell(statistics.stdev(values))))
        for name, values in (*scores.items(), ("bf16 - float32", differences))
    ]
    columns = (*(Column(f"seed {seed}") for seed in seeds), Column("mean", decimals=2), Column("std", decimals=2))
    notes = (
        f"Simulated LLP, {num_train} training and {num_eval} test videos; network {' '.join(network)}; "
        f"stage 3 {' '.join(stage_3)}. Goal: the means differ by less than 0.3.",
    )
    return Table("Segment-level Type@AV on the test split, by precision of stage 3", ("",), columns, tuple(rows), notes)
