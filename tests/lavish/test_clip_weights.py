"""Weights of classifiers of clips: which files are taken, what is refused, and what is said of random ones."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")
pytest.importorskip("av", reason="clips are decoded by PyAV")

import timm

from lavish import test_classifier, train_classifier
from lavish.clip_networks import has_random_backbone, load_backbone, load_i3d_soundnet, make_clip_network
from lavish.clip_settings import ClassifierSettings
from lavish.i3d_soundnet import SoundNet
from lavish.image_transformers import make_backbone
from lavish.lavish_network import from_released_state
from tests.tiny_clips import tiny_flags, write_tiny_ucf
from utils.errors import InputError
from utils.settings import with_settings

SIZES = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def backbone(image_size: int = 16, num_classes: int = 0) -> torch.nn.Module:
    if num_classes == 0:
        return make_backbone("vit_tiny_patch16_224", image_size, SIZES)
    return timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, img_size=image_size, **SIZES)


def write(path: Path, state: dict[str, Tensor]) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "hub/model.safetensors", "hub/pytorch_model.bin"])
def test_timms_weights_are_loaded_from_every_kind_of_file_and_the_classifier_is_left_out(tmp_path: Path, name: str):
    theirs, ours = backbone(num_classes=5), backbone()
    path = write(tmp_path / name, theirs.state_dict())
    load_backbone(ours, path.parent if "/" in name else path)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key]), key


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_of_ours_is_known_by_its_names_and_not_by_its_suffix(tmp_path: Path, wrapped: bool):
    theirs, ours = backbone(), backbone()
    state = {f"backbone.{key}": value for key, value in theirs.state_dict().items()} | {"head.bias": torch.zeros(2)}
    load_backbone(ours, write(tmp_path / "any.bin", {"state_dict": state} if wrapped else state))
    assert torch.equal(ours.patch_embed.proj.weight, theirs.patch_embed.proj.weight)


def test_positions_are_resized_to_the_images(tmp_path: Path):
    ours = backbone(image_size=32)
    load_backbone(ours, write(tmp_path / "w.pth", backbone().state_dict()))
    assert ours.pos_embed.shape == (1, 17, 16)


def test_weights_of_which_none_or_not_all_fit_are_refused(tmp_path: Path):
    state = backbone().state_dict()
    for wrong in (
        {"module." + key: value for key, value in state.items()},
        {key: value for key, value in state.items() if key != "norm.weight"},
        state | {"blocks.1.norm1.weight": torch.ones(16)},
    ):
        with pytest.raises(InputError, match="weights of another architecture"):
            load_backbone(backbone(), write(tmp_path / "w.pth", wrong))


def test_files_without_weights_are_refused(tmp_path: Path):
    files = {"cut.safetensors": b"\xff" * 20, "empty.pth": b"", "empty.safetensors": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    (tmp_path / "folder").mkdir()
    for name in (*files, "list.pth", "number.pth", "folder", "absent.pth"):
        with pytest.raises(InputError, match=name):
            load_backbone(backbone(), tmp_path / name)


def test_the_hubs_weights_are_not_loaded_in_part_into_other_sizes():
    with pytest.raises(ValueError, match="depth"):
        make_backbone("vit_tiny_patch16_224", 16, {"depth": 2}, pretrained=True)


def test_soundnets_unused_classifiers_are_passed_over(tmp_path: Path):
    theirs, parts = SoundNet(), torch.nn.ModuleDict({"soundnet": SoundNet()})
    unused = {"conv8_objs.weight": torch.zeros(1000, 1024, 8, 1), "conv8_scns.bias": torch.zeros(401)}
    write(tmp_path / "soundnet.pt", theirs.state_dict() | unused)
    load_i3d_soundnet(parts, tmp_path)
    assert torch.equal(parts["soundnet"]["conv7"].weight, theirs["conv7"].weight)


def test_the_older_baseline_says_which_weights_it_takes():
    settings = with_settings(ClassifierSettings(), model="i3d_soundnet", dataset="UCF101")
    with pytest.raises(InputError, match=r"random, or a folder with i3d\.pt and soundnet\.pt"):
        make_clip_network(settings, 2)


def test_a_released_state_loses_the_backbones_classifier_and_gates_of_one():
    unused = {"ViT.v.head.weight": torch.ones(2), "swin.head.fc.bias": torch.ones(2)}
    unused["audio_adapter_blocks_p1.0.gate_tk"] = torch.ones(1)
    assert from_released_state({"ViT.v.norm.weight": torch.ones(2)} | unused).keys() == {"backbone.norm.weight"}
    with pytest.raises(ValueError, match=r"gate_tk of 0.5"):
        from_released_state({"audio_adapter_blocks_p1.0.gate_tk": torch.full((1,), 0.5)})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backbone_sizes", "depth=0"], "depth=0; expected"),
        (["--backbone_sizes", "depth"], "found depth; expected"),
        (["--backbone_sizes", "depth=99999999"], "at most"),
        (["--image_size", "7"], "--image_size: found 7 x 7 pixels; expected at least one patch of 8 x 8"),
        (
            ["--image_size", "48", "--backbone_sizes", "patch_size=48", "embed_dim=16", "num_heads=2"],
            "--sound: found 32",
        ),
        (["--backbone_sizes", "patch_size=32", "embed_dim=16", "depth=1", "num_heads=2"], "one patch of 32 x 32"),
    ],
)
def test_sizes_of_which_no_network_can_be_made_are_refused(tmp_path_factory, flags: list[str], message: str):
    folder = tmp_path_factory.getbasetemp() / "sizes"
    if not folder.exists():
        write_tiny_ucf(folder)
    with pytest.raises(InputError, match=message):
        train_classifier.main(tiny_flags(folder, *flags))


def run_of(folder: Path, **settings: object) -> Path:
    """The folder of an unfinished run with these settings: its checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "args.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items()))
    return folder / "checkpoints/checkpoint_best.pt"


def is_random(**settings: object) -> bool:
    return has_random_backbone(with_settings(ClassifierSettings(), **settings))


def test_a_random_backbone_is_known_through_the_runs_that_it_came_by(tmp_path: Path):
    first = run_of(tmp_path / "first", backbone_weights="random")
    second = run_of(tmp_path / "second", backbone_weights=str(first))
    trained = run_of(tmp_path / "trained", backbone_weights="random", train_backbone=True)
    assert is_random(backbone_weights="random") and not is_random(backbone_weights="hub")
    assert is_random(backbone_weights=str(first)) and is_random(backbone_weights=str(second))
    assert is_random(backbone_weights="hub", network_weights=second)
    assert not is_random(backbone_weights=str(trained)) and not is_random(network_weights=tmp_path / "released.pt")
    assert not is_random(backbone_weights=str(first), train_backbone=True)


def test_the_mark_of_a_random_backbone_reaches_the_tables_of_a_run_that_starts_from_another(tmp_path: Path):
    folder = write_tiny_ucf(tmp_path / "ucf")
    train_classifier.main(tiny_flags(folder, "--num_epochs", "1"))
    (first,) = (folder / "runs").glob("Clips_*")
    weights = ["--backbone_weights", str(first / "checkpoints/checkpoint_best.pt")]
    train_classifier.main(tiny_flags(folder, "--num_epochs", "1", *weights, "--output_dir", str(tmp_path / "second")))
    (second,) = (tmp_path / "second").glob("Clips_*")
    test_classifier.main(["--checkpoint_dir", str(second), "--logs_dir", str(tmp_path / "logs"), "--device", "cpu"])
    rows = json.loads((tmp_path / "logs" / second.name / "scores.json").read_text())["rows"]
    assert all("random backbone" in row["note"] for row in rows)
