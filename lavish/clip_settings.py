"""Settings of clip classifiers, and the data that they name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from dataloaders.ave import NUM_SEGMENTS
from dataloaders.feature_origin import video_marks
from lavish.clip_batches import NORMALIZATIONS, UNCHANGED, Augmentation, ClipBatches
from lavish.clip_splits import FOLDS, PIECE_SECONDS, ClipData, load_ave_clips, load_ucf101
from lavish.clip_tasks import TASKS
from lavish.lavish_network import ClipNetworkSettings
from lavish.packing import CHOICES, SOUNDS, ClipFormat, PackedClips, open_pack
from utils.errors import InputError
from utils.files import hash_of
from utils.provenance import Provenance
from utils.recipes import CONFIGS, recipe_file
from utils.settings import FromFile, first_flags, read_args, settings_group, with_file, with_settings
from utils.training.device import DeviceSettings

MODELS = ("vit_visual", "vit_audio", "late_fusion", "lavish", "i3d_soundnet")
WAVEFORM_SECONDS = 10.0  # the length of AVE's videos


@settings_group
class ClipDataSettings:
    """Location, packing and augmentation of the clips; the defaults are those of AVE."""

    data_dir: Path | None = None  # folder that holds videos/; None: data/<dataset>
    annotations_dir: Path | None = None  # AVE's annotations, or UCF-101's official lists; None: data_dir
    packed_dir: Path | None = None  # folder of the packed clips; None: data_dir/packed_clips
    fold: Annotated[int, Field(ge=min(FOLDS), le=max(FOLDS))] = 1  # UCF-101: number of the official train/test lists
    sound_only: bool = True  # clips without audio: leave out (UCF-101), refuse (AVE); if off: use silence
    pieces: bool = False  # UCF-101: cut clips into consecutive pieces of 64 frames at 20 fps, as in the report
    allow_missing: bool = False  # leave out absent and damaged files, and AVE's files without an audio track
    packed_frames: Annotated[int, Field(ge=1, le=1024)] = 10  # frames packed per clip
    image_size: Annotated[int, Field(ge=1, le=4096)] = 192  # side of the network's input images in pixels
    packed_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """side of the packed images in pixels; None: image_size, or 8/7 of it with random_crop"""
    frame_rate: Annotated[float, Field(gt=0, le=1000)] = 8.0  # frames per second from which the packed ones are sampled
    choice: Literal[tuple(CHOICES)] = "released"  # frame sampling: first to last frame, or centres of equal parts
    sound: Literal[tuple(SOUNDS)] = "swin"  # audio input: a filter bank, or the waveform (i3d_soundnet)
    waveform_seconds: Annotated[float, Field(ge=0.1, le=3600)] | None = None
    """seconds of waveform per clip; None: 10, or 3.2 with pieces"""
    augmentation: Augmentation = Augmentation()

    @property
    def format(self) -> ClipFormat:
        """Return the format of the pack."""
        size = self.packed_size or (self.image_size * 8 // 7 if self.augmentation.random_crop else self.image_size)
        seconds = self.waveform_seconds or (PIECE_SECONDS if self.pieces else WAVEFORM_SECONDS)
        return ClipFormat(self.packed_frames, size, self.frame_rate, self.sound, self.choice, seconds)


@settings_group
class ClipSettings(FromFile):
    """Settings that determine which clips are packed and how."""

    dataset: Literal["AVE", "UCF101"] = "AVE"  # data set; selects the recipe, and thus other defaults
    model: Literal[tuple(MODELS)] = "lavish"  # network; selects the recipe, and thus other defaults
    data: ClipDataSettings = ClipDataSettings()

    @property
    def data_dir(self) -> Path:
        """Return the data set's folder."""
        return self.data.data_dir or Path("data") / self.dataset


@settings_group
class ClassifierSettings(ClipSettings):
    """Settings that determine a network, its inputs and its training clips."""

    select_on: Literal["val", "test"] = "val"  # split on which the best epoch is chosen (the paper: test)
    num_frames: Annotated[int, Field(ge=1, le=1024)] | None = None  # frames per clip; None: all packed ones
    normalization: Literal[tuple(NORMALIZATIONS)] = "imagenet"  # mean and std of pixels: ImageNet's, or both 0.5
    network: ClipNetworkSettings = ClipNetworkSettings()
    device: DeviceSettings = DeviceSettings(eval_batch_size=16)


def clip_recipe(start: ClipSettings, argv: Sequence[str] | None) -> ClipSettings:
    """Return settings filled from the recipe of `--model` and `--dataset`, read from flags or `--config FILE`."""
    given = first_flags(argv, "model", "dataset", "config")
    chosen = read_args(Path(given["config"])) if given["config"] else {}
    for name in ("model", "dataset"):
        if name in chosen and given[name] not in (None, chosen[name]):
            expected = f"{chosen[name]!r} as in {given['config']}, which depends on it"
            raise InputError(f"--{name}", repr(given[name]), expected, "Leave out the flag or the file.")
    model, dataset = (given[name] or chosen.get(name) or getattr(start, name) for name in ("model", "dataset"))
    own = CONFIGS / f"{model}_{str(dataset).lower()}.yaml"
    path = own if own.is_file() else recipe_file("lavish", str(dataset))
    return with_settings(with_file(start, path, others=True), model=model)


def load_clips(settings: ClipSettings) -> tuple[ClipData, Path]:
    """Load the splits of the data set; return them and the folder of their packs."""
    of_data, data_dir = settings.data, settings.data_dir
    lists_dir, packed_dir = of_data.annotations_dir or data_dir, of_data.packed_dir or data_dir / "packed_clips"
    if settings.dataset == "AVE":
        if of_data.packed_frames != NUM_SEGMENTS:
            found, expected = str(of_data.packed_frames), f"{NUM_SEGMENTS} for AVE, one per second"
            raise InputError("--packed_frames", found, expected, "Leave out the flag.")
        return load_ave_clips(data_dir, lists_dir, of_data.allow_missing), packed_dir / "AVE"
    choice = (of_data.sound_only, of_data.pieces, of_data.allow_missing)
    data = load_ucf101(data_dir, lists_dir, of_data.fold, packed_dir, *choice)
    name = ("pieces" if of_data.pieces else "clips") + ("" if of_data.sound_only else "_with_silent")
    return data, packed_dir / name  # shared by all folds, which list the same clips


def open_clips(settings: ClipSettings) -> tuple[ClipData, PackedClips]:
    """Open the data set and its pack, which is written first if absent."""
    data, packed_dir = load_clips(settings)
    of_data, chooses_sound = settings.data, TASKS[settings.dataset].chooses_sound
    silent = ("left out" if of_data.allow_missing or chooses_sound else "refused") if of_data.sound_only else "kept"
    pack = open_pack(packed_dir, data.sources, of_data.format, of_data.allow_missing, silent)
    absent = {source.name for source in data.sources} - pack.row_of.keys()
    return ClipData(data.sources, {name: split.without(absent) for name, split in data.splits.items()}), pack


def used_splits(settings: ClassifierSettings, data: ClipData) -> ClipData:
    """Return the splits that a run uses: choosing the epoch on test adds UCF-101's held-out clips to training."""
    if settings.select_on == "val" or not TASKS[settings.dataset].holds_out:
        return data
    splits = {"train": data.splits["train"].joined(data.splits["val"]), "test": data.splits["test"]}
    return ClipData(data.sources, splits)


def clip_record(kind: str, settings: ClassifierSettings, data: ClipData) -> Provenance:
    """Return the provenance of results on these clips, which hashes their names and file sizes."""
    classes, marks = data.splits["train"].classes, video_marks(settings.data_dir)
    for name, split in data.splits.items():
        if settings.data.allow_missing and split.num_missing:
            marks += (f"{split.num_missing:,} {settings.dataset} {name} clips missing",)
    videos = {name: hash_of(split.sample_ids) for name, split in data.splits.items()}
    sources = {"clips": hash_of(f"{source.name} {source.path.stat().st_size}" for source in data.sources)}
    return Provenance(kind, settings.dataset, classes, videos, sources, marks)


def clip_batches(
    settings: ClassifierSettings, data: ClipData, pack: PackedClips, split: str, network: nn.Module
) -> ClipBatches:
    """Return a split's batches for a network. Raises InputError for unsuitable sizes and a split without clips."""
    of_data = settings.data
    if split not in data.splits or not data.splits[split].num_clips:
        found = "no clips (all were left out, or --select_on test moved them to training)"
        raise InputError(f"{settings.dataset}, split {split}", found, "at least one", "Check the lists and files.")
    image, spectrogram = (of_data.image_size, of_data.image_size), pack.format.sound_shape[1:]
    inputs = {"--image_size": image} if network.has_visual else {}
    if network.has_audio:
        inputs["--sound"] = spectrogram
    for flag, pixels in inputs.items():
        found, least = " x ".join(map(str, pixels)), network.patch_size
        if any(length < patch for length, patch in zip(pixels, least, strict=False)):
            expected = f"at least one patch of {least[0]} x {least[1]} pixels"
            raise InputError(flag, f"{found} pixels", expected, "Choose a larger size.")
        if not network.any_size and pixels != image:
            expected = f"{image[0]} x {image[1]} for {settings.network.backbone}, which has a fixed input size"
            way_out = "Choose --sound swin with 192 pixels, small with 32, or a ViT."
            raise InputError(flag, f"{of_data.sound}: {found} spectrograms", expected, way_out)
    device, normalization = next(network.parameters()).device, NORMALIZATIONS[settings.normalization]
    read = (of_data.image_size, settings.num_frames, normalization, network.has_visual, network.has_audio)
    augmentation = of_data.augmentation if split == "train" else UNCHANGED
    return ClipBatches(data.splits[split], pack, device, *read, augmentation)
