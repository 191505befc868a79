"""README's table "To add ...": a feature, a loss, a network and a method, in the places that it names only."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROW_OF_A_FEATURE = '        Feature("wavlm", "audio", 64, "feats/wavlm"),\n'
NETWORK = """from dataclasses import replace

from pydantic import PositiveFloat

from models.han import HAN, HANConfig, HANOutput
from utils.settings import settings_group


@settings_group
class AveragingConfig(HANConfig):
    sharpness: PositiveFloat = 1.0
    \"\"\"exponent of the video's probability\"\"\"


class Averaging(HAN):
    config_class = AveragingConfig

    def forward(self, *inputs) -> HANOutput:
        output = super().forward(*inputs)
        return replace(output, video_probs=(sum(output.modality_probs) / 2) ** self.config.sharpness)
"""
ROOM = """from dataclasses import dataclass

import torch.nn.functional as F
from pydantic import NonNegativeFloat

from baselines.sharp.averaging import Averaging, AveragingConfig
from utils.method.label_folders import LabelFolder
from utils.method.losses import Losses, Run, video_loss
from utils.recipes import Method
from utils.settings import settings_group


@settings_group
class SharpLosses(LabelFolder):
    entropy_weight: NonNegativeFloat = 0.0
    \"\"\"weight of the entropy\"\"\"


@dataclass(frozen=True)
class SharpStep:
    settings: SharpLosses
    run: Run

    def __call__(self, network, batch, moment) -> Losses:
        probs = self.run(network, *batch.features).video_probs
        video, entropy = video_loss(probs, batch.video_labels), video_loss(probs, probs)
        return {"video": video, "entropy": entropy, "total": video + self.settings.entropy_weight * entropy}


def make_step(settings, train, run) -> SharpStep:
    return SharpStep(settings, run)


METHODS = {"sharp": Method("UWAV", losses=SharpLosses, make_step=make_step, network=Averaging, config=AveragingConfig)}
"""


def insert(file: Path, before: str, text: str) -> None:
    content = file.read_text()
    assert content.count(before) >= 1, f"{file} has no {before!r}"
    file.write_text(content.replace(before, text + before, 1))


def recipe() -> str:
    """HAN's recipe with the losses of the new method."""
    lines = (ROOT / "configs/han_llp.yaml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("video_weight", "audio_", "visual_guided", "visual_smooth"))]
    values = {"method": "sharp", "lr": "2.0e-3"}
    changed = [f"{n}: {values[n]}" if (n := line.split(":")[0]) in values else line for line in kept]
    return "\n".join([*changed, "entropy_weight: 0.5", "audio_features: [wavlm]"]) + "\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of this repository with a feature, a loss, a network and a method of its own."""
    copy = tmp_path_factory.mktemp("extended")
    for name in ("baselines", "configs", "data", "dataloaders", "models", "simulation", "utils", "video"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "benchmark", "*.npy"))
    for name in ("train_han.py", "test_han.py"):
        shutil.copy(ROOT / name, copy / name)
    insert(copy / "dataloaders/features.py", '        Feature("res152"', ROW_OF_A_FEATURE)
    (copy / "baselines/sharp").mkdir()
    (copy / "baselines/sharp/averaging.py").write_text(NETWORK)
    (copy / "baselines/sharp/__init__.py").write_text(ROOM)
    (copy / "configs/sharp_llp.yaml").write_text(recipe())
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
    chosen = ["--visual_features", "r2plus1d_18", "--num_epochs", "2", "--sharpness", "0.01"]
    run(repository, "train_han.py", "--method", "sharp", "--data_dir", "simulated/LLP", *network, *chosen)
    (folder,) = (repository / "temp_train_logs").glob("HAN_sharp_LLP_*")
    settings = yaml.safe_load((folder / "args.yaml").read_text())
    assert (settings["entropy_weight"], settings["lr"], settings["audio_features"]) == (0.5, 2e-3, ["wavlm"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Scalars("train/entropy")[0].value > 0
    assert "UWAV (published)" in run(repository, "test_han.py", "--num_figures", "0")
    trained = json.loads((folder / "summary.json").read_text())["segment_Type"]
    evaluated = json.loads(next((repository / "test_logs").glob("HAN_sharp_*/summary.json")).read_text())
    assert evaluated["val"]["segment_Type"] == trained > 0  # where the network's own setting is forgotten it is not
    run(repository, "-m", "utils.trained", str(folder), "exported")
    for source in (folder, "exported"):
        shown = f"from utils.trained import open_trained; print(open_trained({str(source)!r}).config.sharpness)"
        assert run(repository, "-c", shown) == "0.01\n"


def test_the_new_loss_is_a_flag_with_its_meaning_and_range_for_its_method_alone(repository: Path):
    assert "weight of the entropy" in run(repository, "train_han.py", "--method", "sharp", "--help")
    assert "weight of the entropy" not in run(repository, "train_han.py", "--help")
    command = [sys.executable, "train_han.py", "--method", "sharp", "--entropy_weight", "-1"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: --entropy_weight: found -1.0; expected greater than or equal to 0" in done.stderr
