"""Settings of the classifiers of clips, and what they open and make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dataloaders.clips.ave_clips import load_ave_clips
from dataloaders.clips.batches import NORMALIZATIONS, Augmentation, ClipBatches
from dataloaders.clips.packing import CHOICES, SOUNDS, ClipFormat, PackedClips, open_pack
from dataloaders.clips.splits import ClipData
from dataloaders.clips.ucf101 import FOLDS, PIECE_FRAMES, PIECE_RATE, load_ucf101
from models.i3d_soundnet import FUSIONS, I3DSoundNet
from models.image_transformers import RANDOM, make_backbone
from models.lavish import LavishNetwork, from_released_state
from models.temporal_pooling import POOLINGS
from utils.errors import InputError
from utils.evaluation.clips import ClipTask, SecondsOfClips, WholeClips
from utils.settings import setting
from utils.training.checkpoints import load_checkpoint
from utils.training.device import DeviceSettings

MODELS = ("vit_visual", "vit_audio", "late_fusion", "lavish", "i3d_soundnet")


@dataclass(frozen=True)
class ClipDataSettings:
    """Where the clips lie, what of them is packed, and what of that a network sees and hears. Defaults: AVE's."""

    data_dir: Path | None = setting(None, "holds videos/ (default: data/<dataset>)")
    annotations_dir: Path | None = setting(None, "folder of the lists (default: data_dir)")
    packed_dir: Path | None = setting(None, "folder of the packed clips (default: data_dir/packed_clips)")
    fold: int = setting(1, "UCF-101: which of the official lists", least=min(FOLDS), most=max(FOLDS))
    sound_only: bool = setting(True, "UCF-101: leave out clips without sound")
    pieces: bool = setting(False, "UCF-101: items of 64 frames at 20 a second, one every 64, as the report counts them")
    allow_missing: bool = setting(False, "leave out absent and damaged files")
    packed_frames: int = setting(10, "frames of a clip that are packed", least=1)
    packed_size: int | None = setting(
        None, "their pixels (default: image_size, and 8/7 of it to crop from)", least=1, most=4096
    )
    frame_rate: float = setting(8.0, "frames a second that they are chosen from", above=0, most=1000)
    choice: str = setting("released", "first to last frame, or the middles of equal parts", choices=CHOICES)
    sound: str = setting("swin", "filter banks, or the waveform (i3d_soundnet)", choices=SOUNDS)
    waveform_seconds: float = setting(10.0, "length of a waveform", above=0, most=3600)
    image_size: int = setting(192, "pixels of the network's images", least=1, most=4096)
    num_frames: int | None = setting(None, "T, of the packed frames (default: all)", least=1)
    normalization: str = setting("imagenet", "of pixels", choices=NORMALIZATIONS)
    random_crop: bool = setting(False, "train on a random crop of the packed frames")
    flip: bool = setting(False, "train on half of the clips from right to left")
    max_masked_bands: int = setting(0, "SpecAugment: widest band that is blanked", least=0)
    max_masked_frames: int = setting(0, "SpecAugment: longest stretch that is blanked", least=0)

    @property
    def format(self) -> ClipFormat:
        """What is packed."""
        size = self.packed_size or (self.image_size * 8 // 7 if self.random_crop else self.image_size)
        return ClipFormat(self.packed_frames, size, self.frame_rate, self.sound, self.choice, self.waveform_seconds)


@dataclass(frozen=True)
class ClipNetworkSettings:
    """How the network is made; defaults are LAVISH's on AVE."""

    backbone: str = setting("swinv2_large_window12_192.ms_in22k", "a ViT or SwinV2 of timm")
    backbone_sizes: tuple[str, ...] | None = setting(None, "its sizes where they are others: depth=3 embed_dim=96")
    backbone_weights: str = setting(
        "hub",
        "hub, random, a file of timm's weights, or a checkpoint_best.pt of ours; "
        "i3d_soundnet: random, or a folder with i3d.pt and soundnet.pt",
    )
    network_weights: Path | None = setting(
        None, "weights of the whole network to start from: a released LAVISH's, or a checkpoint of ours"
    )
    train_backbone: bool = setting(False, "fine-tune the backbone")
    train_norms: bool = setting(False, "fine-tune its normalisation layers")
    cross_modal: bool = setting(True, "lavish: adapters see the other modality; without: plain adapters")
    fusion: str = setting("attention", "of i3d_soundnet", choices=FUSIONS)
    reduction: int = setting(8, "of the width of tokens within an adapter", least=1)
    num_tokens: int = setting(2, "latent tokens of an adapter", least=1)
    groups: int = setting(2, "groups of an adapter's products", least=1)
    head_dim: int = setting(512, "between the head's two layers; a network of one modality has one layer", least=1)
    temporal: str = setting("none", "how frames become a clip", choices=POOLINGS)
    checkpoint_blocks: bool = setting(False, "compute blocks again in the backward pass: less memory, more time")


@dataclass(frozen=True)
class ClipSettings:
    """What decides which clips are packed, and how."""

    dataset: str = setting("AVE", "data set", choices=("AVE", "UCF101"))
    model: str = setting("lavish", "which network; changes the defaults of flags below", choices=MODELS)
    data: ClipDataSettings = ClipDataSettings()

    @property
    def data_dir(self) -> Path:
        """The data set's folder."""
        return self.data.data_dir or Path("data") / self.dataset


@dataclass(frozen=True)
class ClassifierSettings(ClipSettings):
    """What decides a network and what it sees and hears."""

    network: ClipNetworkSettings = ClipNetworkSettings()
    device: DeviceSettings = DeviceSettings(eval_batch_size=16)

    @property
    def has_random_backbone(self) -> bool:
        """Whether the frozen part of the network has never learned anything, which every report has to say."""
        network = self.network
        return network.backbone_weights == RANDOM and not network.train_backbone and network.network_weights is None


def _open_ave(settings: ClipDataSettings, data_dir: Path, packed_dir: Path) -> tuple[ClipData, Path]:
    return load_ave_clips(data_dir, settings.annotations_dir or data_dir, settings.allow_missing), packed_dir / "AVE"


def _open_ucf101(settings: ClipDataSettings, data_dir: Path, packed_dir: Path) -> tuple[ClipData, Path]:
    data = load_ucf101(
        data_dir,
        settings.annotations_dir or data_dir,
        settings.fold,
        packed_dir,
        sound_only=settings.sound_only,
        pieces=settings.pieces,
        allow_missing=settings.allow_missing,
    )
    name = "pieces" if settings.pieces else "clips"  # of all folds, which list the same clips
    return data, packed_dir / f"{name}{'' if settings.sound_only else '_with_silent'}"


@dataclass(frozen=True)
class ClipDataset:
    """A data set of clips: one row each."""

    open: Callable[[ClipDataSettings, Path, Path], tuple[ClipData, Path]]  # its splits, and the folder of its pack
    task: ClipTask
    holds_out: bool  # whether its validation split is a part of the official training list
    settings: Mapping[str, object]  # what it changes; the flags' own defaults are those of AVE, the released setting


CLIP_DATASETS = {
    "AVE": ClipDataset(_open_ave, SecondsOfClips(), False, {"patience": 5}),
    "UCF101": ClipDataset(
        _open_ucf101,
        WholeClips(),
        True,
        {
            "backbone": "vit_base_patch16_224.augreg_in21k_ft_in1k",
            "image_size": 224,
            "sound": "vit",
            "normalization": "half",
            "frame_rate": PIECE_RATE,
            "choice": "centres",
            "packed_frames": 8,
            "temporal": "mean",
            "loss": "cross_entropy",
            "lr": 3e-4,
            "head_lr": 3e-4,
            "batch_size": 32,
            "num_epochs": 20,
        },
    ),
}
# What a model changes over the data set's.
MODEL_SETTINGS: dict[str, dict[str, object]] = {
    "i3d_soundnet": {"sound": "waveform", "normalization": "half", "packed_frames": PIECE_FRAMES, "image_size": 224},
}


def settings_of_clips(settings: ClipSettings) -> Mapping[str, object]:
    """What data set and model change in the defaults."""
    return {**CLIP_DATASETS[settings.dataset].settings, **MODEL_SETTINGS.get(settings.model, {})}


def open_clips(settings: ClipSettings) -> tuple[ClipData, PackedClips]:
    """The data set and its pack, made where it is not there yet. Raises InputError as the loaders and `open_pack`."""
    packed_dir = settings.data.packed_dir or settings.data_dir / "packed_clips"
    data, packed_dir = CLIP_DATASETS[settings.dataset].open(settings.data, settings.data_dir, packed_dir)
    pack = open_pack(packed_dir, data.sources, settings.data.format, settings.data.allow_missing)
    broken = {source.name for source in data.sources} - pack.row_of.keys()
    return ClipData(data.sources, {name: split.without(broken) for name, split in data.splits.items()}), pack


def clip_batches(
    settings: ClassifierSettings,
    data: ClipData,
    pack: PackedClips,
    split: str,
    network: nn.Module,
    device: torch.device,
) -> ClipBatches:
    """Batches of a split, with what the network sees and hears. Raises InputError for sizes that do not fit."""
    of_data = settings.data
    sides = pack.format.sound_shape[1:]
    if network.hears and not network.any_size and sides != (of_data.image_size, of_data.image_size):
        found = f"{of_data.sound}: {sides[0]} x {sides[1]} spectrograms"
        takes_one_size = f"{settings.network.backbone}, which takes images of one size"
        expected = f"{of_data.image_size} x {of_data.image_size} for {takes_one_size}"
        raise InputError("--sound", found, expected, "Choose --sound swin with 192 pixels, small with 32, or a ViT.")
    augmentation = None
    if split == "train":
        augmentation = Augmentation(
            of_data.random_crop, of_data.flip, of_data.max_masked_bands, of_data.max_masked_frames
        )
    try:
        return ClipBatches(
            data.splits[split],
            pack,
            device,
            of_data.image_size,
            of_data.num_frames,
            NORMALIZATIONS[of_data.normalization],
            network.sees,
            network.hears,
            augmentation,
        )
    except ValueError as error:
        found, expected = f"{error}", "images and frames that were packed"
        raise InputError("--image_size, --num_frames", found, expected, "Choose fewer, or pack more.") from error


def make_clip_network(settings: ClassifierSettings, num_classes: int) -> nn.Module:
    """The network of the settings, with the weights that they name. Raises InputError when it cannot be made."""
    network = _make_network(settings.model, settings.network, settings.data.image_size, num_classes)
    path = settings.network.network_weights
    if path is not None:
        _load_state(network, from_released_state(load_checkpoint(path)), path)
    return network


def _make_network(model: str, settings: ClipNetworkSettings, image_size: int, num_classes: int) -> nn.Module:
    """The network of the settings; only its backbone has weights."""
    weights = settings.backbone_weights
    if model == "i3d_soundnet":
        network = I3DSoundNet(num_classes, settings.fusion, settings.train_backbone)
        if weights != RANDOM:
            for name, module in network.backbone.items():
                load_weights(module, Path(weights) / f"{name}.pt")
        return network
    own = weights.endswith(".pt") and Path(weights).is_file()
    try:
        sizes = {name: _number(text) for name, text in (pair.split("=", 1) for pair in settings.backbone_sizes or ())}
        backbone = make_backbone(settings.backbone, RANDOM if own else weights, image_size, sizes)
        if own:
            load_weights(backbone, Path(weights), "backbone.")
        single = model.startswith("vit_")
        adapters = "cross_modal" if settings.cross_modal else "plain"
        return LavishNetwork(
            backbone,
            num_classes,
            adapters=adapters if model == "lavish" else "none",
            modalities=model.removeprefix("vit_") if single else "both",
            reduction=settings.reduction,
            num_tokens=settings.num_tokens,
            groups=settings.groups,
            head_dim=None if single else settings.head_dim,
            temporal=settings.temporal,
            train_backbone=settings.train_backbone,
            train_norms=settings.train_norms,
            checkpoint_blocks=settings.checkpoint_blocks,
        )
    except (ValueError, RuntimeError, OSError) as error:
        found = f"{settings.backbone} with weights {weights}: {str(error).splitlines()[0]}"
        expected = "a ViT or SwinV2 of timm and weights that fit it"
        way_out = "Without a hub, name a file of weights, or train on --backbone_weights random (which is marked)."
        raise InputError("--backbone", found, expected, way_out) from error


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def load_weights(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Load the weights of a checkpoint whose names begin so. Raises InputError when they do not fit."""
    state = load_checkpoint(path)
    of_module = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    _load_state(module, of_module, path)


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        found = "weights of another network (" + " ".join(str(error).split()[:30]) + " ...)"
        raise InputError(path, found, f"weights of {type(module).__name__}", "Name other weights.") from error
