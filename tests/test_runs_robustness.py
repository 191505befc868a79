"""Folders of output hold what one command made, or do not count as finished."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pseudo_label_generation
from models import HAN, HANConfig
from tests.tiny_runs import train
from utils.cli.run_folders import begin_output
from utils.errors import InputError
from utils.training.checkpoints import load_network, save_checkpoint


def test_what_an_earlier_command_wrote_is_withdrawn_and_other_files_stay(tmp_path: Path):
    for name in ("args.yaml", "summary.json", "train.safetensors", "notes.txt"):
        (tmp_path / name).write_text("old")
    begin_output(tmp_path, pseudo_label_generation.Settings(), pseudo_label_generation.FILES)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"notes.txt", "args.yaml", "log.txt"}


def test_files_of_another_origin_stay(tmp_path: Path):
    (tmp_path / "train.safetensors").write_text("mine")
    begin_output(tmp_path, pseudo_label_generation.Settings(), pseudo_label_generation.FILES)
    assert (tmp_path / "train.safetensors").read_text() == "mine"


def test_a_file_in_place_of_the_output_folder_is_named_with_the_flag(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=r"file: found .*--output_dir"):
        begin_output(path, pseudo_label_generation.Settings(), pseudo_label_generation.FILES)


def test_a_run_is_continued_by_one_process_at_a_time(llp_dir: Path, tmp_path: Path):
    run = train(llp_dir, tmp_path, "--segment_labels", "none", "--num_epochs", "1")  # and this process keeps it
    command = [sys.executable, "train_han.py", "--resume", str(run), "--num_epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and "another process at work" in done.stderr and "Traceback" not in done.stderr
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
