"""Feature networks: their weights, their computation on a device, and their entries in a folder's record."""

import argparse
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dataloaders.feature_origin import text_part
from utils.errors import InputError
from utils.files import hash_of, hash_of_file
from utils.provenance import versions
from utils.settings import whole_number
from utils.training.device import PRECISIONS
from video.backbones import drawn_weights
from video.backbones.clip_clap import CLAP, CLIP, is_torchscript, load_laion_state, make_laion_clap, read_open_clip
from video.backbones.convolutional import MN04, EfficientNetLite2, VGGish, torchvision_features
from video.backbones.pe_audio import PEAudio
from video.extraction.download import TABLE, Download, check_sha256, fetch, read_table
from video.frames import NORMALIZATIONS
from video.video_decoding import Colours

WEIGHTS = {  # files or folders; addresses and hashes are in data/downloads.yaml
    "vggish": "vggish-10086976.pth",
    "res152": "resnet152-394f9c45.pth",  # ImageNet V1
    "r2plus1d_18": "r2plus1d_18-91a641e6.pth",  # Kinetics-400 V1
    "clip": "clip-vit-large-patch14",
    "clap": "630k-fusion-best.pt",
    "pe_audio": "pe-a-frame-small",
    "mn04": "mn04_as_mAP_432.pt",
    "efficientnet_lite2": "tf_efficientnet_lite2-dcccb7df.pth",
    "open_clip": "ViT-L-14.pt",
    "clap tokenizer": "roberta-base",
}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {  # real, small stand-in
    "vggish": (VGGish, drawn_weights.small_vggish),
    "res152": (partial(torchvision_features, "resnet152"), drawn_weights.small_image_network),
    "r2plus1d_18": (partial(torchvision_features, "r2plus1d_18"), drawn_weights.small_clip_network),
    "clip": (CLIP, drawn_weights.small_clip),
    "clap": (CLAP, drawn_weights.small_clap),
    "pe_audio": (PEAudio, drawn_weights.small_pe_audio),
    "mn04": (MN04, MN04),
    "efficientnet_lite2": (EfficientNetLite2, EfficientNetLite2),
}
CONVOLUTIONAL = ("vggish", "res152", "r2plus1d_18", "mn04")  # networks that torch.fx can trace
LIGHT = ("mn04", "efficientnet_lite2")  # networks with classifiers
BACKENDS = {"clip": ("transformers", "open_clip"), "clap": ("transformers", "laion_clap")}
PACKAGES = {  # installation of each backend
    "transformers": "pip install -r requirements-video.txt",
    "open_clip": "pip install open_clip_torch",
    "laion_clap": "pip install laion-clap 'numpy<2', which fetches bert-base-uncased, roberta-base, facebook/bart-base",
}
HUB_FILES = {"efficientnet_lite2": ("tf_efficientnet_lite2.in1k/model.safetensors",)}
OPEN_CLIP_FILES = (WEIGHTS["open_clip"], "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """Source of the networks' weights."""

    weights_dir: Path
    drawn: Literal["real", "small"] | None = None  # random weights of the real architectures or of small stand-ins
    seed: int = 0
    clip_backend: str = "transformers"
    clap_backend: str = "transformers"

    def backend(self, feature: str) -> str:
        """Return the package that computes a feature."""
        return {"clip": self.clip_backend, "clap": self.clap_backend}.get(feature, "transformers")

    def record(self, feature: str, precision: str) -> dict[str, object]:
        """Return the entry of a feature's network in a folder's record."""
        backend, digest = self.backend(feature), None
        weights = f"drawn from seed {self.seed}" if self.drawn else WEIGHTS[_weights_name(feature, backend)]
        if self.drawn is None:
            with suppress(InputError):  # weights are not required if all features exist
                path = weights_of(feature, self.weights_dir, backend)
                if path.is_relative_to(self.weights_dir):
                    weights = path.relative_to(self.weights_dir).as_posix()
                folder = (file for kind in ("*.safetensors", "*.bin") for file in path.glob(kind))
                digest = hash_of(map(hash_of_file, [path] if path.is_file() else sorted(folder)))
        return {"weights": weights, "sha256": digest, "drawn_weights": self.drawn, "precision": precision}


def _weights_name(feature: str, backend: str) -> str:
    """Return the key of a feature's network in `WEIGHTS`."""
    return "open_clip" if backend == "open_clip" else feature


def package_versions() -> dict[str, str]:
    """Return the versions of the packages on which features depend."""
    return versions("torch", "torchvision", "transformers", "av") | {"ffmpeg": av.ffmpeg_version_info}


def settings_of(
    features: list[str],
    source: Source,
    recipe: str,
    precision: str,
    num_segments: int | None = None,
    colours: Colours = "bt601",
    segments_per_second: int = 1,
) -> dict[str, dict]:
    """Return the entry of each feature in a folder's record."""
    more = {"num_segments": num_segments, "versions": package_versions()}
    more |= {"segments_per_second": segments_per_second} if segments_per_second > 1 else {}
    settings = {name: source.record(name, precision) | more for name in features}
    for name in NORMALIZATIONS.keys() & settings.keys():
        settings[name]["colours"] = colours
    for name in BACKENDS.keys() & settings.keys():
        settings[name] |= {"recipe": recipe, "backend": source.backend(name)}
    return settings


def text_settings_of(features: list[str], source: Source, prompts: str, precision: str) -> dict[str, dict]:
    """Return the entry of each feature's text features in a folder's record."""
    more = {name: {"backend": source.backend(name), "versions": package_versions()} for name in features}
    return {text_part(name, prompts): source.record(name, precision) | more[name] for name in features}


def add_network_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags of the feature networks; `source_of` reads those of their weights."""
    group.add_argument("--weights_dir", type=Path, default=Path("weights"), help="folder of the networks' weights")
    how = "initialise all networks randomly, even those whose weights exist; small: small networks"
    group.add_argument("--random_weights", nargs="?", const="real", choices=("real", "small"), help=how)
    group.add_argument("--seed", type=whole_number(0), default=0, help="seed of random weights")
    group.add_argument("--clip_backend", choices=BACKENDS["clip"], default=BACKENDS["clip"][0])
    group.add_argument("--clap_backend", choices=BACKENDS["clap"], default=BACKENDS["clap"][0])
    colours = get_args(Colours)
    group.add_argument("--colours", choices=colours, default="bt601", help="YUV to RGB: BT.601, or the file's own tag")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or mps (default: the fastest available)")
    group.add_argument("--precision", choices=PRECISIONS, default="float32", help="precision of the networks")


def source_of(args: argparse.Namespace) -> Source:
    """Return the source of weights given by the flags of `add_network_flags`."""
    return Source(args.weights_dir, args.random_weights, args.seed, args.clip_backend, args.clap_backend)


def download_of(name: str) -> Download:
    """Return the entry of a network's weights, or of the first file of its folder, in data/downloads.yaml."""
    files, _ = read_table(TABLE, [], Path("."))
    return next(file for file in files if WEIGHTS[name] in file.path.parts)


def _other_places(feature: str, weights_dir: Path, backend: str) -> list[Path]:
    """Return the files in which a network's weights may also lie, under names without a published hash."""
    names = OPEN_CLIP_FILES if backend == "open_clip" else HUB_FILES.get(feature, ())
    return [weights_dir / name for name in names]


def existing_weights(feature: str, weights_dir: Path, backend: str = "transformers") -> Path | None:
    """Return the file or folder of a network's weights in `weights_dir` or a hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    name = _weights_name(feature, backend)
    file, download = WEIGHTS[name], download_of(name)
    places = [*_other_places(feature, weights_dir, backend), weights_dir / file]
    places.append(Path(torch.hub.get_dir()) / "checkpoints" / file)
    if of_hub := re.fullmatch(r"https://huggingface\.co/(.+)/resolve/(\w+)/(.+)", download.address):
        cached = try_to_load_from_cache(of_hub[1], of_hub[3], revision=of_hub[2])
        if isinstance(cached, str):
            places.append(Path(cached) if of_hub[3] == file else Path(cached).parent)
    return next((place for place in places if place.exists()), None)


def absent_weights(names: Sequence[str], weights_dir: Path, why: str = "") -> InputError:
    """Return the error that lists all absent weights, by keys of `WEIGHTS`, and how to obtain them."""
    downloads = {name: download_of(name) for name in names}
    files = "; ".join(f"{weights_dir / WEIGHTS[name]} from {of.address}" for name, of in downloads.items())
    groups = " ".join(dict.fromkeys(of.group for of in downloads.values()))
    way_out = f"Run `bash scripts/download.sh {groups}`, or use another --weights_dir or --random_weights."
    return InputError(weights_dir, f"no weights of {', '.join(names)}{why}", files, way_out)


def weights_of(feature: str, weights_dir: Path, backend: str = "transformers") -> Path:
    """Return the file or folder of a network's weights. Raises InputError if they are absent or altered."""
    path, name = existing_weights(feature, weights_dir, backend), _weights_name(feature, backend)
    if path is None:
        raise absent_weights([name], weights_dir)
    if path not in _other_places(feature, weights_dir, backend) or is_torchscript(path):  # OpenAI's archive
        download = download_of(name)
        check_sha256(path, download.sha256, download.address)
    return path


def fetch_light_weights(weights_dir: Path) -> None:
    """Fetch the weights of the light networks unless they exist. Raises InputError if they cannot be fetched."""
    absent = [name for name in LIGHT if existing_weights(name, weights_dir) is None]
    for name in absent:
        try:
            fetch(replace(download_of(name), path=weights_dir / WEIGHTS[name]))
        except InputError as error:
            raise absent_weights(absent[absent.index(name) :], weights_dir, f" ({name}: {error.found})") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint file, which may also hold counters of numpy types (LAION's does)."""
    if path.suffix == ".safetensors":
        return load_file(path)
    scalar = np.core.multiarray.scalar if np.__version__ < "2" else np._core.multiarray.scalar
    number_types = [np.dtype, scalar, *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64"))]
    names = [(scalar, "numpy.core.multiarray.scalar")]  # its name in files written with numpy 1
    with torch.serialization.safe_globals([*number_types, *names]):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not isinstance(state.get("state_dict", {}), dict):
        raise ValueError("no mapping of tensors")
    return state.get("state_dict", state)


def load_network(name: str, weights_dir: Path, backend: str = "transformers") -> nn.Module:
    """Return a feature's network with published weights. Raises InputError for unusable weights or packages."""
    path = weights_of(name, weights_dir, backend)
    try:
        if backend == "open_clip":
            network = read_open_clip(path)
        elif backend == "laion_clap":
            network = make_laion_clap(read_state(path))
        elif name == "clip":
            from transformers import CLIPModel

            network = CLIP(CLIPModel.from_pretrained(path, local_files_only=True))
        elif name == "pe_audio":
            from transformers import PeAudioFrameLevelModel

            network = PEAudio(PeAudioFrameLevelModel.from_pretrained(path, local_files_only=True))
        else:
            network, state = NETWORKS[name][0](), read_state(path)
            if name == "clap":
                load_laion_state(network.network, state)
            elif name == "efficientnet_lite2":
                network.network.load_state_dict(state)
            else:  # without the classifier
                network.load_state_dict({key: x for key, x in state.items() if not key.startswith("fc.")})
    except Exception as error:  # packages may raise anything for damaged files
        found = f"no {name} weights that {backend} can read ({' '.join(str(error).split())[:200]})"
        expected = f"the weights from {download_of(_weights_name(name, backend)).address}, and the package"
        raise InputError(path, found, expected, f"Download them again, or {PACKAGES[backend]}.") from error
    return network.eval()


def draw_network(name: str, kind: Literal["real", "small"], seed: int) -> nn.Module:
    """Return a feature's network with random weights from a fixed seed, in evaluation mode."""
    real, stand_in = NETWORKS[name]
    network = real() if kind == "real" else stand_in()
    drawn_weights.draw_weights_of(network, seed)
    return network.eval()


def build_network(feature: str, source: Source) -> nn.Module:
    """Return a feature's network in evaluation mode on the CPU. Raises InputError if it cannot be built."""
    if feature not in NETWORKS:
        found, expected = "a feature without a network in this repository", f"one of {', '.join(NETWORKS)}"
        raise InputError(feature, found, expected, "Add its feature files by other means.")
    backend = source.backend(feature)
    if source.drawn is None:
        return load_network(feature, source.weights_dir, backend)
    if backend != "transformers":
        expected, way_out = "transformers with --random_weights", "Leave out one of the two flags."
        raise InputError(f"--{feature}_backend", backend, expected, way_out)
    return draw_network(feature, source.drawn, source.seed)


class FeatureNetwork:
    """A feature's network (which is modified) on a device, from unnormalised pixels or audio to float32 features."""

    def __init__(self, name: str, network: nn.Module, device: torch.device, precision: str = "float32"):
        self.probs = getattr(network, "probs", None)  # of light networks: features -> class probabilities
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        if name in CONVOLUTIONAL:
            from torch.fx.experimental.optimization import fuse

            network = fuse(network)  # folds batch norms into convolutions
        self.device, self.dtype = device, torch.bfloat16 if precision == "bf16" else torch.float32
        self.network = network.to(device, self.dtype)
        if name in ("res152", "r2plus1d_18"):
            last = torch.channels_last if name == "res152" else torch.channels_last_3d
            self.network = self.network.to(memory_format=last)
        self.scale = self.shift = None
        if name in NORMALIZATIONS:
            mean, deviation = (torch.tensor(values, device=device) for values in NORMALIZATIONS[name])
            self.scale, self.shift = 1 / deviation, -mean / deviation

    @torch.inference_mode()
    def __call__(self, rows: np.ndarray) -> Tensor:
        """Compute the features of B inputs of `read_inputs`: (B, D) float32 on the device."""
        x = torch.from_numpy(rows)
        if self.device.type == "cuda":
            x = x.pin_memory()
        x = x.to(self.device, non_blocking=True)
        if self.scale is not None:
            unit = x / 255 if x.dtype == torch.uint8 else x  # (B, ..., h, w, 3)
            x = torch.movedim(unit * self.scale + self.shift, -1, 1)  # (B, 3, ..., h, w), channels last in memory
        return self.network(x.to(self.dtype)).float()


def build_networks(
    features: list[str], source: Source, device: torch.device, precision: str
) -> dict[str, FeatureNetwork]:
    """Return the networks of features on a device. Raises InputError for all absent weights, and as `build_network`."""
    if source.drawn is None:
        backends = {name: source.backend(name) for name in features if name in NETWORKS}
        absent = [name for name, of in backends.items() if existing_weights(name, source.weights_dir, of) is None]
        if absent:
            raise absent_weights([_weights_name(name, backends[name]) for name in absent], source.weights_dir)
    return {name: FeatureNetwork(name, build_network(name, source), device, precision) for name in features}
