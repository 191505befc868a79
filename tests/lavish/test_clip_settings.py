"""What the settings of classifiers of clips pack, read and make. Whole runs: tests/lavish/test_classifiers.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="LAVISH wraps networks of timm")
pytest.importorskip("av", reason="clips are decoded by PyAV")

from lavish.clip_batches import Augmentation, ClipBatches
from lavish.clip_networks import make_clip_network
from lavish.clip_settings import clip_batches, clip_recipe, load_clips, open_clips, used_splits
from lavish.clip_splits import ClipData, ClipSplit
from lavish.lavish_network import LavishNetwork
from lavish.packing import PackedClips
from lavish.train_classifier import Settings
from tests.tiny_clips import write_tiny_ucf
from utils.errors import InputError
from utils.settings import with_settings

TINY = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_weights": "random",
    "backbone_sizes": ("patch_size=8", "embed_dim=32", "depth=2", "num_heads=2"),
    "image_size": 16,
    "sound": "small",
    "packed_frames": 2,
}


def settings_with(dataset: str = "UCF101", model: str = "lavish", **changes: object) -> Settings:
    """The defaults of a data set and a model, but for those named."""
    return with_settings(clip_recipe(Settings(), ["--dataset", dataset, "--model", model]), **changes)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"image_size": 224}, 224),
        ({"image_size": 224, "random_crop": True}, 256),  # 8/7 of it
        ({"image_size": 192, "random_crop": True}, 219),
        ({"image_size": 224, "packed_size": 240}, 240),
        ({"image_size": 224, "packed_size": 300, "random_crop": True}, 300),
    ],
)
def test_frames_are_packed_larger_where_crops_are_taken_of_them(changes: dict[str, object], size: int):
    assert with_settings(Settings(), **changes).data.format.size == size


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 10.0),
        ({"pieces": True}, 3.2),
        ({"waveform_seconds": 4.5}, 4.5),
        ({"pieces": True, "waveform_seconds": 2}, 2),
    ],
)
def test_a_waveform_lasts_ten_seconds_or_a_piece(changes: dict[str, object], seconds: float):
    assert with_settings(Settings(), **changes).data.format.waveform_seconds == seconds


def test_defaults_are_the_released_setting_of_ave():
    settings, form = Settings(), Settings().data.format
    assert (form.num_frames, form.size, form.frame_rate, form.sound, form.choice) == (10, 192, 8.0, "swin", "released")
    network = settings.network
    assert network.backbone == "swinv2_large_window12_192.ms_in22k"
    assert (network.reduction, network.num_tokens, network.groups, network.temporal) == (8, 2, 2, "none")
    assert settings.normalization == "imagenet" and settings.select_on == "val"
    assert not (settings.data.augmentation != Augmentation() or network.train_backbone or network.train_norms)


def test_settings_of_the_older_baseline_come_over_those_of_the_data_set():
    vit, older = settings_with(), settings_with(model="i3d_soundnet")
    form = vit.data.format
    assert (form.sound, form.size, form.num_frames, form.frame_rate, form.choice) == ("vit", 224, 8, 20.0, "centres")
    assert (vit.normalization, vit.network.temporal, vit.loss) == ("half", "mean", "cross_entropy")
    form = older.data.format
    assert (form.sound, form.size, form.num_frames, form.frame_rate, form.choice) == (
        *("waveform", 224, 64, 20.0, "centres"),
    )
    assert older.normalization == "half"


def data_of(settings: Settings, num_clips: int = 12) -> tuple[ClipData, PackedClips]:
    """Random clips in the format of the settings; the first half is to train on, then come val and test."""
    rng = np.random.default_rng(0)
    form = settings.data.format
    frames = rng.integers(0, 256, (num_clips, form.num_frames, form.size, form.size, 3), np.uint8)
    sound = rng.uniform(1, 2, (num_clips, *form.sound_shape)).astype(form.arrays["sound"].base)
    names = tuple(f"v{n}" for n in range(num_clips))
    places = {"train": names[:6], "val": names[6:9], "test": names[9:]}
    splits = {name: ClipSplit(("Clap", "Drum"), of, of, torch.arange(len(of)) % 2) for name, of in places.items()}
    return ClipData((), splits), PackedClips(form, {name: n for n, name in enumerate(names)}, frames, sound)


def batches_of(settings: Settings, split: str) -> ClipBatches:
    data, pack = data_of(settings)
    network = make_clip_network(settings, 2)
    return clip_batches(settings, data, pack, split, network)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"random_crop": True}, "frames"),
        ({"flip": True}, "frames"),
        ({"max_masked_bands": 9}, "sound"),
        ({"max_masked_frames": 9}, "sound"),
    ],
)
def test_only_training_clips_are_changed_at_random(change: dict[str, object], changed: str):
    settings = settings_with(**TINY, **change)
    for split in ("train", "val", "test"):
        batches = batches_of(settings, split)
        assert batches.augmented == (split == "train")
        (drawn,), plain = next(batches.shuffled(6, 0, 1)), next(batches.in_order(6))
        order = drawn.clips.argsort()
        for name in ("frames", "sound"):
            same = torch.equal(getattr(drawn, name)[order], getattr(plain, name))
            assert same == (split != "train" or name != changed)


def test_max_masked_bands_are_columns_and_max_masked_frames_rows_of_spectrograms():
    for change, axis in (({"max_masked_bands": 9}, -2), ({"max_masked_frames": 9}, -1)):
        (batch,) = next(batches_of(settings_with(**TINY, **change), "train").shuffled(6, 0, 1))
        blanked = batch.sound == 0
        assert blanked.any() and torch.equal(blanked.all(dim=axis).sum(), blanked.any(dim=axis).sum())


@pytest.mark.parametrize(
    ("model", "frames", "sound"),
    [("vit_visual", True, False), ("vit_audio", False, True), ("late_fusion", True, True), ("lavish", True, True)],
)
def test_a_network_is_given_the_modalities_that_it_looks_at(model: str, frames: bool, sound: bool):
    settings = settings_with(**TINY, model=model)
    batch = next(batches_of(settings, "val").in_order(3))
    assert (batch.frames is not None, batch.sound is not None) == (frames, sound)
    assert make_clip_network(settings, 2)(batch.frames, batch.sound).logits.shape == (3, 2)


def test_frames_are_normalised_as_the_settings_say_and_as_many_as_they_say():
    settings = settings_with(**TINY, num_frames=1)
    assert settings.normalization == "half"
    batch = next(batches_of(settings, "test").in_order(3))
    _, pack = data_of(settings)
    expected = pack.frames[9:, 1:2].transpose(0, 1, 4, 2, 3) / 127.5 - 1  # of two the later stands in the middle
    np.testing.assert_allclose(batch.frames, expected, rtol=0, atol=1e-6)


def test_a_network_of_one_size_of_images_takes_only_spectrograms_of_that_size():
    sizes = ("window_size=4", "embed_dim=48")
    swin = {"backbone": "swinv2_tiny_window8_256", "backbone_sizes": sizes, "image_size": 32}
    fits = settings_with(**TINY | swin)
    assert batches_of(fits, "val").num_videos == 3
    with pytest.raises(InputError, match="--sound"):
        batches_of(settings_with(**TINY | swin | {"sound": "vit"}), "val")
    unheard = settings_with(**TINY | swin | {"sound": "vit"}, model="vit_visual")
    assert batches_of(unheard, "val").num_videos == 3


@pytest.mark.parametrize(
    ("model", "sound", "patch", "refused"),
    [
        ("vit_audio", "small", 33, True),  # spectrograms of 32 x 32
        ("lavish", "small", 33, True),
        ("vit_visual", "small", 33, False),
        ("vit_audio", "small", 32, False),
        ("vit_audio", "vit", 110, True),  # of 102 x 128
    ],
)
def test_spectrograms_have_at_least_a_patch_where_they_are_looked_at(model: str, sound: str, patch: int, refused: bool):
    sizes = {"backbone_sizes": (f"patch_size={patch}", "embed_dim=32", "depth=1", "num_heads=2"), "image_size": patch}
    settings = settings_with(**TINY | sizes | {"sound": sound}, model=model)
    if refused:
        with pytest.raises(InputError, match="--sound"):
            batches_of(settings, "val")
    else:
        assert batches_of(settings, "val").num_videos == 3


@pytest.mark.parametrize(
    ("dataset", "select_on", "train", "splits"),
    [
        ("UCF101", "val", 6, {"train", "val", "test"}),
        ("UCF101", "test", 9, {"train", "test"}),  # nothing is held out
        ("AVE", "val", 6, {"train", "val", "test"}),
        ("AVE", "test", 6, {"train", "val", "test"}),  # its validation split is official
    ],
)
def test_the_splits_that_a_run_uses(dataset: str, select_on: str, train: int, splits: set[str]):
    settings = settings_with(dataset, **TINY, select_on=select_on)
    used = used_splits(settings, data_of(settings)[0])
    assert used.splits["train"].num_clips == train and used.splits.keys() == splits
    assert used.splits["test"].sources == ("v9", "v10", "v11")


@pytest.mark.parametrize(
    ("model", "changes", "adapters", "modalities", "head_layers"),
    [
        ("lavish", {}, "cross_modal", "both", 2),
        ("lavish", {"cross_modal": False}, "plain", "both", 2),
        ("late_fusion", {}, "none", "both", 2),
        ("vit_visual", {}, "none", "visual", 1),
        ("vit_audio", {}, "none", "audio", 1),
    ],
)
def test_a_model_names_its_adapters_modalities_and_head(
    model: str, changes: dict[str, object], adapters: str, modalities: str, head_layers: int
):
    network = make_clip_network(settings_with(**TINY, model=model, **changes), 5)
    assert isinstance(network, LavishNetwork)
    crosses = {one.cross_modal for one in network.vis_adapter_blocks_p1}
    assert crosses == {"cross_modal": {True}, "plain": {False}, "none": set()}[adapters]
    assert (network.has_audio, network.has_visual) == (modalities != "visual", modalities != "audio")
    head = [layer.weight.shape for layer in (network.mlp_class, network.mlp_class_2) if hasattr(layer, "weight")]
    dim = 64 if modalities == "both" else 32
    assert head == ([(512, dim), (5, 512)] if head_layers == 2 else [(5, dim)])


def test_the_sizes_of_adapters_head_and_backbone_are_those_of_the_settings():
    sizes = {"reduction": 4, "num_tokens": 3, "groups": 4, "head_dim": 9, "temporal": "transformer"}
    backbone = (*TINY["backbone_sizes"], "mlp_ratio=2.5")
    network = make_clip_network(settings_with(**TINY | {"backbone_sizes": backbone}, **sizes), 5)
    adapter = network.audio_adapter_blocks_p2[1]
    assert adapter.my_tokens.shape == (3, 32) and adapter.down_sampler.weight.shape == (8, 8, 1, 1)
    assert network.mlp_class.weight.shape == (9, 256) and network.temporal.kind == "transformer"
    assert network.backbone.blocks[0].mlp.fc1.weight.shape == (80, 32) and len(network.backbone.blocks) == 2


@pytest.mark.parametrize("setting", ["train_backbone", "train_norms", "checkpoint_blocks"])
def test_switches_of_the_network_reach_it(setting: str):
    off, on = (make_clip_network(settings_with(**TINY, **{setting: value}), 2) for value in (False, True))
    trained = [{name for name, p in network.backbone.named_parameters() if p.requires_grad} for network in (off, on)]
    assert not trained[0] and bool(trained[1]) == (setting != "checkpoint_blocks")
    assert all("norm" in name for name in trained[1]) == (setting != "train_backbone")
    assert (off.checkpoint_blocks, on.checkpoint_blocks) == (False, setting == "checkpoint_blocks")


@pytest.mark.parametrize("train_backbone", [False, True])
def test_the_older_baseline_is_made_with_its_fusion(train_backbone: bool):
    settings = settings_with(
        model="i3d_soundnet", backbone_weights="random", fusion="concatenation", train_backbone=train_backbone
    )
    network = make_clip_network(settings, 3)
    assert network.classifier.weight.shape == (3, 512) and network.frozen != train_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_ucf(tmp_path_factory.mktemp("ucf"))


def test_opened_clips_of_ucf101_carry_sound_unless_silence_is_wanted(folder: Path, tmp_path: Path):
    where = {"data_dir": folder, "annotations_dir": folder / "lists", "packed_dir": tmp_path, "frame_rate": 10.0}
    with_sound, with_silent = (
        open_clips(settings_with(**TINY | where | {"sound_only": sound_only})) for sound_only in (True, False)
    )
    assert {split.num_clips for split in with_sound[0].splits.values()} == {4, 8} and len(with_sound[1].row_of) == 16
    assert len(with_silent[1].row_of) == 24
    assert len(list(tmp_path.glob("*/*/pack.json"))) == 2  # clips with silent ones lie apart


def test_pieces_and_folds_of_ucf101_are_those_of_the_settings(tmp_path: Path):
    folder = write_tiny_ucf(tmp_path / "ucf", seconds=3.3, clips=1)
    (folder / "lists/trainlist03.txt").write_text("Clap/v_Clap_g02_c01.avi 1\n")
    (folder / "lists/testlist03.txt").write_text("Clap/v_Clap_g01_c01.avi\n")

    def opened(**changes: object) -> tuple[ClipData, Path]:
        where = {"data_dir": folder, "annotations_dir": folder / "lists", "packed_dir": tmp_path}
        return load_clips(settings_with(**where, **changes))

    clips, pieces = opened(fold=3), opened(fold=3, pieces=True)
    assert [source.name for source in clips[0].sources] == ["Clap/v_Clap_g01_c01", "Clap/v_Clap_g02_c01"]
    assert [source.name for source in pieces[0].sources] == ["Clap/v_Clap_g01_c01_0", "Clap/v_Clap_g02_c01_0"]
    assert (clips[1], pieces[1]) == (tmp_path / "clips", tmp_path / "pieces")
    (folder / "videos/Clap/v_Clap_g01_c01.avi").unlink()
    with pytest.raises(InputError, match="without a file"):
        opened(fold=1)
    assert len(opened(fold=1, allow_missing=True)[0].sources) == 7


def test_annotations_of_ave_may_lie_elsewhere_than_its_videos(tmp_path: Path):
    line = "Bark&AAAAAAAAAAA&good&0&10"
    (tmp_path / "lists").mkdir()
    for name in ("Annotations", "trainSet", "valSet", "testSet"):
        (tmp_path / f"lists/{name}.txt").write_text(line + "\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/AAAAAAAAAAA.mp4").touch()
    settings = settings_with("AVE", data_dir=tmp_path, annotations_dir=tmp_path / "lists")
    data, packed_dir = load_clips(settings)
    assert data.splits["test"].num_clips == 1 and packed_dir == tmp_path / "packed_clips/AVE"
