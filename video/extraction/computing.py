"""Feature networks on a device, given batches of one size whatever the videos' lengths."""

from collections import deque

import numpy as np
import torch
from torch import Tensor, nn

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
            from torch.fx.experimental.optimization import fuse

            network = fuse(network)  # folds batch norms into convolutions
        self.device, self.dtype = device, torch.bfloat16 if precision == "bf16" else torch.float32
        self.network = network.to(device, self.dtype)
        if name in ("res152", "r2plus1d_18"):
            last = torch.channels_last if name == "res152" else torch.channels_last_3d
            self.network = self.network.to(memory_format=last)
        self.scale = self.shift = None
        if name in NORMALIZATIONS:
            mean = torch.tensor(NORMALIZATIONS[name].mean, device=device)
            deviation = torch.tensor(NORMALIZATIONS[name].deviation, device=device)
            self.scale, self.shift = 1 / deviation, -mean / deviation

    @torch.inference_mode()
    def __call__(self, rows: np.ndarray) -> Tensor:
        """Compute features: B rows of what `read_inputs` prepared -> (B, D) float32 on the device."""
        x = torch.from_numpy(rows)
        if self.device.type == "cuda":
            x = x.pin_memory()
        x = x.to(self.device, non_blocking=True)
        if self.scale is not None:
            unit = x / 255 if x.dtype == torch.uint8 else x  # (B, ..., h, w, 3)
            x = torch.movedim(unit * self.scale + self.shift, -1, 1)  # (B, 3, ..., h, w), channels last in memory
        return self.network(x.to(self.dtype)).float()


class BatchQueue:
    """Cuts the rows of many videos into batches of one size for a network.

    All batches have the same size, the last one filled up with zeros, so that a row's feature does not depend on its
    neighbours: an extraction that was interrupted writes the same files as one that was not.
    """

    def __init__(self, network: FeatureNetwork, batch_size: int):
        self.network, self.batch_size = network, batch_size
        self.waiting: deque[tuple[str, np.ndarray]] = deque()  # a row with its video
        self.num_rows: dict[str, int] = {}  # of each video that is not complete yet
        self.features: dict[str, list[Tensor]] = {}  # its rows so far

    def put(self, video: str, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Add a video's rows. Returns the videos that are now complete, with their features (rows, D)."""
        self.waiting.extend((video, row) for row in rows)
        self.num_rows[video], self.features[video] = len(rows), []
        return self._run_while(self.batch_size)

    def finish(self) -> list[tuple[str, np.ndarray]]:
        """Compute what is left."""
        return self._run_while(1)

    def _run_while(self, num_waiting: int) -> list[tuple[str, np.ndarray]]:
        """Run batches while so many rows are waiting."""
        finished = []
        while len(self.waiting) >= num_waiting:
            taken = [self.waiting.popleft() for _ in range(min(self.batch_size, len(self.waiting)))]
            first_row = taken[0][1]
            batch = np.zeros((self.batch_size, *first_row.shape), first_row.dtype)
            np.stack([row for _, row in taken], out=batch[: len(taken)])
            for (video, _), feature in zip(taken, self.network(batch), strict=False):
                self.features[video].append(feature)
                if len(self.features[video]) == self.num_rows[video]:
                    del self.num_rows[video]
                    finished.append((video, torch.stack(self.features.pop(video)).cpu().numpy()))
        return finished
