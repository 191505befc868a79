"""README's table "To add ...": a feature, a loss, a network and a method, in the places that it names only."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROW_OF_A_FEATURE = '        Feature("wavlm", "audio", 64, "feats/wavlm"),\n'
LOSS = '''

def entropy_loss(video_probs: Tensor) -> Tensor:
    """Mean entropy of the video's probabilities, (B, C)."""
    return F.binary_cross_entropy(video_probs.clamp(1e-7, 1 - 1e-7), video_probs.clamp(1e-7, 1 - 1e-7))
'''
SETTING = '    entropy_weight: float = setting(0.0, "weight of the entropy; 0: none", least=0)\n'
LINE = """        if settings.entropy_weight:
            weighted.append(("entropy", settings.entropy_weight, entropy_loss(output.video_probs)))
"""
NETWORK = """from dataclasses import replace

from models.han import HAN, HANOutput


class Averaging(HAN):
    def forward(self, *inputs) -> HANOutput:
        output = super().forward(*inputs)
        return replace(output, video_probs=sum(output.modality_probs) / 2)
"""
ROW_OF_A_METHOD = """    "sharp": Method(
        "UWAV", {"network": "averaging", "segment_labels": "none", "entropy_weight": 0.5, "lr": 2e-3}
    ),
"""


def insert(file: Path, before: str, text: str) -> None:
    content = file.read_text()
    assert content.count(before) >= 1, f"{file} has no {before!r}"
    file.write_text(content.replace(before, text + before, 1))


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of this repository with a feature, a loss, a network and a method of its own."""
    copy = tmp_path_factory.mktemp("extended")
    for name in ("baselines", "dataloaders", "models", "simulation", "utils", "video", "data"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "benchmark", "*.npy"))
    for name in ("train_han.py", "test_han.py"):
        shutil.copy(ROOT / name, copy / name)
    insert(copy / "dataloaders/features.py", '        Feature("res152"', ROW_OF_A_FEATURE)
    losses, objectives = copy / "utils/method/losses.py", copy / "utils/method/objectives.py"
    losses.write_text(losses.read_text() + LOSS)
    insert(objectives, "    soft_pseudo_labels,\n", "    entropy_loss,\n")
    insert(objectives, "    similarity_weight: float", SETTING)
    insert(objectives, "        if settings.mutual_weight:\n", LINE)
    (copy / "models/averaging.py").write_text(NETWORK)
    insert(
        copy / "models/__init__.py", "from baselines.cmpae.cmpae_network", "from models.averaging import Averaging\n"
    )
    insert(copy / "models/__init__.py", '"cmpae": CMPAE', '"averaging": Averaging, ')
    insert(copy / "utils/methods.py", '    "han": Method(', ROW_OF_A_METHOD)
    run(copy, "-m", "simulation", "--dataset", "LLP", "--output", "simulated", *sizes(), *features())
    return copy


def sizes() -> list[str]:
    return ["--num_train", "24", "--num_val", "8", "--num_test", "8"]


def features() -> list[str]:
    return ["--features", "wavlm", "r2plus1d_18"]


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_method_with_a_new_loss_and_network_trains_on_a_new_feature_and_is_evaluated(repository: Path):
    network = ["--dim", "16", "--num_heads", "2", "--ffn_dim", "16", "--num_layers", "1", "--device", "cpu"]
    chosen = ["--audio_features", "wavlm", "--visual_features", "r2plus1d_18", "--num_epochs", "2"]
    run(repository, "train_han.py", "--method", "sharp", "--data_dir", "simulated/LLP", *network, *chosen)
    (folder,) = (repository / "temp_train_logs").glob("HAN_sharp_LLP_*")
    settings = yaml.safe_load((folder / "args.yaml").read_text())
    assert (settings["entropy_weight"], settings["lr"], settings["network"]) == (0.5, 2e-3, "averaging")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Scalars("train/entropy")[0].value > 0
    assert "UWAV (published)" in run(repository, "test_han.py", "--num_figures", "0")


def test_the_new_loss_is_a_flag_with_its_meaning_and_range(repository: Path):
    assert "weight of the entropy" in run(repository, "train_han.py", "--help")
    done = subprocess.run(
        [sys.executable, "train_han.py", "--entropy_weight", "-1"], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 2 and "--entropy_weight: found '-1'; expected a number at least 0" in done.stderr
