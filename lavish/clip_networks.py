"""Build clip classifiers from settings or run folders; weights are loaded completely or not at all."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import swin_transformer_v2, vision_transformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from lavish.clip_settings import ClassifierSettings, clip_batches, clip_record, open_clips, used_splits
from lavish.clip_splits import ClipData
from lavish.clip_tasks import TASKS, ClipPredictions, ClipTask, predict_clips
from lavish.i3d_soundnet import I3DSoundNet
from lavish.image_transformers import make_backbone
from lavish.lavish_network import LARGEST_SIZE, ClipNetworkSettings, LavishNetwork, from_released_state
from lavish.packing import PackedClips
from utils.errors import InputError
from utils.provenance import Provenance, read_provenance
from utils.run_folders import DEFAULT_RUNS_DIR, SUMMARY_FILE, newest_finished_run
from utils.settings import ARGS_FILE, flat, read_args, settings_group, with_file, with_settings
from utils.training.checkpoints import check_weights, load_checkpoint, load_strictly, other_architecture
from utils.training.loop import BEST_CHECKPOINT

CLIP_RUN_PREFIX = "Clips_"
RANDOM, HUB = "random", "hub"
FILES_OF_FOLDER = ("model.safetensors", "pytorch_model.bin")  # names used by the Hugging Face hub and timm
WRAPPERS = ("model", "state_dict")  # keys under which some files store the state dict


def make_clip_network(settings: ClassifierSettings, num_classes: int) -> LavishNetwork | I3DSoundNet:
    """Return the network of the settings with its initial weights. Raises InputError when it cannot be built."""
    of_network = settings.network
    if settings.model == "i3d_soundnet":
        network = I3DSoundNet(num_classes, of_network.fusion, of_network.train_backbone)
        if of_network.backbone_weights != RANDOM:
            load_i3d_soundnet(network.backbone, Path(of_network.backbone_weights))
    else:
        network = _make_lavish(settings.model, of_network, settings.data.image_size, num_classes)
    path = of_network.network_weights
    if path is not None:
        try:
            state = from_released_state(read_weights(path))
        except ValueError as error:
            raise InputError(path, str(error), "weights of the released LAVISH", "Choose other weights.") from error
        load_strictly(network, state, path)
    return network


def _make_lavish(model: str, settings: ClipNetworkSettings, image_size: int, num_classes: int) -> LavishNetwork:
    """Return LAVISH or a model for comparison; only the backbone's weights are loaded."""
    weights = settings.backbone_weights
    sizes: dict[str, int | float] = {}
    for pair in settings.backbone_sizes or ():
        match = re.fullmatch(r"(\w+)=(\d{1,9}(?:\.\d+)?)", pair)
        if match is None or not 0 < float(match[2]) <= LARGEST_SIZE:
            expected = f"<name>=<number above 0, at most {LARGEST_SIZE}>, such as depth=3"
            raise InputError("--backbone_sizes", pair, expected, "Correct the pair.")
        sizes[match[1]] = float(match[2]) if "." in match[2] else int(match[2])
    try:
        backbone = make_backbone(settings.backbone, image_size, sizes, settings.drop_path, pretrained=weights == HUB)
        if weights not in (RANDOM, HUB):
            load_backbone(backbone, Path(weights))
        return LavishNetwork(backbone, num_classes, model, settings)
    except (ValueError, RuntimeError, OSError) as error:
        found = f"{settings.backbone} for {image_size} pixels, weights {weights}: {str(error).splitlines()[0]}"
        expected = "a ViT or SwinV2 from timm with matching sizes and weights"
        way_out = "Without access to the hub, pass a weights file, or use --backbone_weights random."
        raise InputError("--backbone", found, expected, way_out) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a torch.save or safetensors file, or a folder of the hub. Raises InputError otherwise."""
    places = [path, *(path / name for name in FILES_OF_FOLDER)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        expected = f"a weights file, or a folder with {' or '.join(FILES_OF_FOLDER)}"
        raise InputError(path, "no such file", expected, "Correct the path.")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else load_checkpoint(file)
    except (SafetensorError, OSError) as error:
        raise InputError(file, f"a damaged file ({error})", "an intact file", "Download it again.") from error
    state = next((state[name] for name in WRAPPERS if isinstance(state.get(name), dict)), state)
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(file, "no state dict", "tensors by name", "Pass a file that holds the weights themselves.")
    check_weights(state, file)
    return state


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load timm's weights, or the backbone of one of our checkpoints, into a timm network without a classifier."""
    state = read_weights(path)
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    of_timm = swin_transformer_v2 if isinstance(network, SwinTransformerV2) else vision_transformer
    try:  # timm's filter renames old keys and resizes what depends on the image size
        renamed = of_timm.checkpoint_filter_fn(own or state, network)
        network.load_state_dict({key: value for key, value in renamed.items() if not key.startswith("head.")})
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise other_architecture(path, type(network), error) from error


def load_i3d_soundnet(parts: nn.ModuleDict, folder: Path) -> None:
    """Load a folder's `i3d.pt` and `soundnet.pt`, without SoundNet's two classifiers on top of conv7, `conv8_*`."""
    if not folder.is_dir():
        expected = "random, or a folder with i3d.pt and soundnet.pt"
        raise InputError("--backbone_weights", str(folder), expected, "See docs/lavish.md for sources of both files.")
    for name, part in parts.items():
        state = read_weights(folder / f"{name}.pt")
        used = {key: value for key, value in state.items() if not key.startswith("conv8_")}
        load_strictly(part, used, folder / f"{name}.pt")


@settings_group
class TrainedClassifier:
    """The run to evaluate, and settings that may differ from those of its training."""

    checkpoint_dir: Path | None = None  # run folder of lavish.train_classifier; None: the newest finished run
    runs_dir: Path = DEFAULT_RUNS_DIR  # folder searched for the newest finished run
    logs_dir: Path = Path("test_logs")  # parent folder of the results, one subfolder per run
    data_dir: Path | None = None  # folder that holds videos/; None: that of the run
    annotations_dir: Path | None = None  # folder of annotations or lists; None: that of the run
    packed_dir: Path | None = None  # folder of the packed clips; None: that of the run
    device: str = "auto"  # cpu, cuda, cuda:N or mps; auto selects the fastest available
    eval_batch_size: PositiveInt = 16  # clips per batch


@dataclass(frozen=True)
class ClipRun:
    """A trained classifier."""

    folder: Path
    settings: ClassifierSettings  # those of its training, with the overrides of `TrainedClassifier`
    network: nn.Module  # with the weights of its best epoch, in evaluation mode, on its device
    data: ClipData  # without a validation split if the run was trained on it
    pack: PackedClips
    parameters: tuple[int, int]  # numbers of trained and of all parameters
    random_backbone: bool  # whether the frozen part has random weights
    record: Provenance  # of the results computed with it

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def task(self) -> ClipTask:
        return TASKS[self.settings.dataset]

    @property
    def note(self) -> str:
        """Return the caveats of its results: generated data, a random backbone, model selection on the test split."""
        on_test = self.settings.select_on == "test"
        facts = ["random backbone"] * self.random_backbone + ["best epoch chosen on test"] * on_test
        return ", ".join([*self.record.marks, *facts])

    def title(self, split: str) -> str:
        """Return the title of a split's tables and figures, with the note."""
        return f"{self.name}, {split}" + (f" ({self.note})" if self.note else "")

    def predict(self, split: str, without: str | None = None) -> ClipPredictions:
        """Return predictions for a split, with both modalities or without one (see `predict_clips`)."""
        _, precision = self.settings.device.select()
        batches = clip_batches(self.settings, self.data, self.pack, split, self.network)
        return predict_clips(self.network, batches, self.settings.device.eval_batch_size, precision, without)


def has_random_backbone(settings: ClassifierSettings) -> bool:
    """Return whether the frozen part has random weights, by these settings or by those of the run that wrote them."""
    network = settings.network
    if network.train_backbone:
        return False
    if network.network_weights is None and network.backbone_weights in (RANDOM, HUB):
        return network.backbone_weights == RANDOM
    folder = Path(network.network_weights or network.backbone_weights).resolve().parent
    run_dir = folder.parent
    if folder.name != BEST_CHECKPOINT.parent.name or not (run_dir / ARGS_FILE).is_file():
        return False
    if (run_dir / SUMMARY_FILE).is_file():
        return read_summary(run_dir)[1]
    return has_random_backbone(with_file(ClassifierSettings(), run_dir / ARGS_FILE, others=True))


def read_summary(run_dir: Path) -> tuple[tuple[int, int], bool]:
    """Read the numbers of trained and of all parameters, and whether the backbone is random, from a run's summary."""
    path = run_dir / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text())
        return (int(summary["trained_parameters"]), int(summary["parameters"])), bool(summary["random_backbone"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        found, way_out = f"no summary ({error})", "Finish the run with python -m lavish.train_classifier --resume RUN."
        raise InputError(path, found, "the summary of a finished training", way_out) from error


def load_clip_run(which: TrainedClassifier) -> ClipRun:
    """Load the network and data of the named run, or of the newest finished one."""
    way_out = "Run python -m lavish.train_classifier, or pass --checkpoint_dir."
    folder = which.checkpoint_dir or newest_finished_run(which.runs_dir, CLIP_RUN_PREFIX, way_out)
    if not {"model", "pieces"} <= read_args(folder / ARGS_FILE).keys():
        raise InputError(folder, "another run", "a run of lavish.train_classifier", "Choose another --checkpoint_dir.")
    of_run = with_file(ClassifierSettings(), folder / ARGS_FILE, others=True)
    known = flat(of_run).keys()
    now = {name: value for name, value in flat(which).items() if name in known and value is not None}
    settings = with_settings(of_run, **now)

    parameters, is_random = read_summary(folder)  # like the weights, before anything slow
    state = read_weights(folder / BEST_CHECKPOINT)
    device, _ = settings.device.select()
    data, pack = open_clips(settings)
    data = used_splits(settings, data)
    record, way_out = read_provenance(folder), "Restore the lists that the run was trained with."
    now = clip_record("", settings, data)
    record.check(folder, way_out, dataset=now.dataset, classes=now.classes, videos={"train": now.videos["train"]})
    blank = replace(settings.network, backbone_weights=RANDOM, network_weights=None)  # the checkpoint has all weights
    network = make_clip_network(replace(settings, network=blank), len(data.splits["train"].classes))
    load_strictly(network, state, folder / BEST_CHECKPOINT)
    network = network.to(device).eval()
    return ClipRun(folder, settings, network, data, pack, parameters, is_random, now.inherit(record, "training"))
