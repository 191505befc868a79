"""Feature networks on a device, given batches of one size whatever the videos' lengths."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from video.frames import CLIP, IMAGENET, KINETICS

NORMALIZATIONS = {"res152": IMAGENET, "r2plus1d_18": KINETICS, "clip": CLIP}
CONVOLUTIONAL = ("vggish", "res152", "r2plus1d_18")  # plain enough to be traced
ROWS_OF_A_SEGMENT = {"res152": 8}  # inputs that a network is given for one second, where it is not one


class FeatureNetwork:
    """A network with what comes before and after it: normalised pixels, precision, float32 features.

    Args:
        name: the feature's.
        network: in evaluation mode; it is changed.
        precision: "float32", "tf32" or "bf16" (the weights too).
    """

    def __init__(self, name: str, network: nn.Module, device: torch.device, precision: str = "float32"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        if name in CONVOLUTIONAL:
            network = fuse(network)  # folds batch norms into convolutions
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.network = network.to(device, self.dtype)
        if name == "res152":
            self.network = self.network.to(memory_format=torch.channels_last)
        elif name == "r2plus1d_18":
            self.network = self.network.to(memory_format=torch.channels_last_3d)
        self.device = device
        self.scale = self.shift = None
        if name in NORMALIZATIONS:
            mean, deviation = (
                torch.tensor(values, device=device)
                for values in (NORMALIZATIONS[name].mean, NORMALIZATIONS[name].deviation)
            )
            self.scale, self.shift = 1 / deviation, -mean / deviation

    def forget_texts(self) -> None:
        """Free the memory of a text encoder that is not needed any more."""
        inner = getattr(self.network, "network", None)  # of CLIP and CLAP
        if hasattr(inner, "text_model"):
            inner.text_model = None

    @torch.inference_mode()
    def __call__(self, rows: np.ndarray) -> Tensor:
        """What `inputs.read_inputs` prepared, B rows of it -> (B, D) float32 on the device."""
        x = torch.from_numpy(rows)
        if self.device.type == "cuda":
            x = x.pin_memory()
        x = x.to(self.device, non_blocking=True)
        if self.scale is not None:
            unit = x / 255 if x.dtype == torch.uint8 else x  # (B, ..., h, w, 3)
            x = torch.movedim(unit * self.scale + self.shift, -1, 1)  # (B, 3, ..., h, w), channels last in memory
        return self.network(x.to(self.dtype)).float()


@dataclass
class _Rows:
    """One video's rows that wait for a network, and what has come out of it."""

    video: str
    waiting: np.ndarray  # (rows, ...)
    done: list[Tensor]


class BatchQueue:
    """Cuts the rows of many videos into batches of one size for a network.

    All batches have the same size, the last one filled up with zeros, so that a row's feature does not depend on its
    neighbours: an extraction that was interrupted writes the same files as one that was not.
    """

    def __init__(self, network: FeatureNetwork, batch_size: int):
        self.network, self.batch_size = network, batch_size
        self.videos: deque[_Rows] = deque()

    def put(self, video: str, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Add a video's rows. Returns the videos that are now complete, with their features (rows, D)."""
        self.videos.append(_Rows(video, rows, []))
        finished = []
        while sum(len(entry.waiting) for entry in self.videos) >= self.batch_size:
            finished += self._run()
        return finished

    def finish(self) -> list[tuple[str, np.ndarray]]:
        """Compute what is left."""
        finished = []
        while self.videos:
            finished += self._run()
        return finished

    def _run(self) -> list[tuple[str, np.ndarray]]:
        taken: list[tuple[_Rows, int]] = []
        free = self.batch_size
        for entry in self.videos:
            count = min(free, len(entry.waiting))
            taken.append((entry, count))
            free -= count
            if free == 0:
                break
        batch = np.zeros((self.batch_size, *taken[0][0].waiting.shape[1:]), taken[0][0].waiting.dtype)
        np.concatenate([entry.waiting[:count] for entry, count in taken], out=batch[: self.batch_size - free])
        features = self.network(batch)
        first = 0
        for entry, count in taken:
            entry.done.append(features[first : first + count])
            entry.waiting = entry.waiting[count:]
            first += count
        finished = []
        while self.videos and len(self.videos[0].waiting) == 0:
            entry = self.videos.popleft()
            finished.append((entry.video, torch.cat(entry.done).cpu().numpy()))
        return finished
