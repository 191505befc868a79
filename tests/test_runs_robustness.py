"""Folders of output hold what one command made, or do not count as finished."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pseudo_label_generation
import train_han
from models import HAN, HANConfig
from tests.tiny_runs import train
from utils.errors import InputError
from utils.provenance import Provenance
from utils.run_folders import begin_output
from utils.training import loop
from utils.training.checkpoints import load_checkpoint, load_network, save_checkpoint


def test_what_an_earlier_command_wrote_is_withdrawn_and_other_files_stay(tmp_path: Path):
    for name in ("args.yaml", "summary.json", "train.safetensors", "notes.txt"):
        (tmp_path / name).write_text("dataset: LLP")
    begin_output(tmp_path, pseudo_label_generation.Settings(), pseudo_label_generation.FILES, Provenance())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"notes.txt", "args.yaml", "log.txt", "provenance.json"}


def test_files_of_another_origin_stay(tmp_path: Path):
    (tmp_path / "train.safetensors").write_text("mine")
    begin_output(tmp_path, pseudo_label_generation.Settings(), pseudo_label_generation.FILES, Provenance())
    assert (tmp_path / "train.safetensors").read_text() == "mine"


def test_a_file_in_place_of_the_output_folder_is_named_with_the_flag(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=r"file: found .*--output_dir"):
        begin_output(path, pseudo_label_generation.Settings(), pseudo_label_generation.FILES, Provenance())


def test_a_run_is_continued_by_one_process_at_a_time(llp_dir: Path, tmp_path: Path):
    run = train(llp_dir, tmp_path, "--segment_labels", "none", "--num_epochs", "1")  # and this process keeps it
    command = [sys.executable, "train_han.py", "--resume", str(run), "--num_epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and "another process using it" in done.stderr and "Traceback" not in done.stderr
    assert (run / "summary.json").exists()


@pytest.mark.parametrize("change", [lambda x: x * torch.nan, lambda x: x.long(), lambda x: x.to(torch.complex64)])
def test_weights_that_are_not_finite_numbers_are_refused(tmp_path: Path, change):
    state = HAN(5, 6, (7,), HANConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=1)).state_dict()
    save_checkpoint(state | {"fc_prob.bias": change(state["fc_prob.bias"])}, tmp_path / "han.pt")
    with pytest.raises(InputError, match=r"not finite numbers, such as fc_prob\.bias"):
        load_network(HAN, tmp_path / "han.pt", {}, num_heads=2)


def test_a_refused_pickle_is_not_recommended_to_be_loaded_anyway(tmp_path: Path):
    torch.save(HAN(5, 6, (7,), HANConfig(dim=8, num_heads=2, ffn_dim=12, num_layers=1)), tmp_path / "model.pt")
    with pytest.raises(InputError, match="a pickle of other objects") as error:
        load_network(HAN, tmp_path / "model.pt", {})
    assert "weights_only" not in str(error.value)


def test_a_longer_run_counts_as_unfinished_until_it_ends(llp_dir: Path, tmp_path: Path, monkeypatch):
    run = train(llp_dir, tmp_path, "--segment_labels", "none", "--num_epochs", "1")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_check_finite", killed)
    with pytest.raises(KeyboardInterrupt):
        train_han.main(["--resume", str(run), "--num_epochs", "3"])
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"progress": {"epoch": "3"}},
        {"progress": {"epoch": 1, "best_epoch": 5, "best_score": 1.0, "history": [{}]}},
        {"progress": {"epoch": 1, "best_epoch": 1, "best_score": 1.0, "history": []}},
        {"progress": [1, 2]},
        {"network": [1]},
        {"generators": []},
        {"generators": [None]},
        {"optimizer": {"state": {}}},
    ],
)
def test_damaged_progress_is_named(llp_dir: Path, tmp_path: Path, damage: dict):
    run = train(llp_dir, tmp_path, "--segment_labels", "none", "--num_epochs", "1")
    path = run / loop.LAST_STATE
    save_checkpoint(load_checkpoint(path) | damage, path)
    with pytest.raises(InputError, match=r"last\.pt: found a state that does not fit"):
        train_han.main(["--resume", str(run), "--num_epochs", "2"])


def test_a_mistyped_folder_of_the_transformer_is_not_made(llp_dir: Path, tmp_path: Path):
    flags = ["--data_dir", str(llp_dir), "--transformer_dir", str(tmp_path / "typo"), "--num_heads", "2"]
    with pytest.raises(InputError, match="typo: found no such folder"):
        pseudo_label_generation.main(flags)
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher", "framewise", "--num_heads", "4"], "--num_heads: found 4"),
        (["--teacher", "framewise", "--transformer_dir", "x"], "--transformer_dir: found x"),
        (["--teacher", "framewise", "--checkpoint", "x"], "--checkpoint: found x"),
        (["--teacher", "framewise", "--thresholds", "fixed", "--threshold_type", "class_agnostic"], "--threshold_type"),
        (["--audio_logit_scale", "3"], "--teacher: found temporal_transformer with VALOR's"),
        (["--thresholds", "fixed"], "--teacher: found temporal_transformer with VALOR's"),
    ],
)
def test_flags_that_the_teacher_would_ignore_are_refused(flags: list[str], message: str):
    with pytest.raises(InputError, match=message):
        pseudo_label_generation.main(flags)


def test_data_that_cannot_be_read_leave_earlier_pseudo_labels_as_they_are(llp_dir: Path, tmp_path: Path):
    flags = ["--teacher", "framewise", "--thresholds", "search", "--output_dir", str(tmp_path / "labels")]
    pseudo_label_generation.main([*flags, "--data_dir", str(llp_dir), "--device", "cpu"])
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "labels").iterdir())
    with pytest.raises(InputError):
        pseudo_label_generation.main([*flags, "--data_dir", str(tmp_path / "nowhere")])
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "labels").iterdir())
