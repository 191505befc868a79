"""Features of many videos: decoded in parallel, computed in batches, written as one file a video and feature."""

import csv
import io
import math
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from dataloaders.feature_origin import other_videos, record_videos
from dataloaders.features import feature_path
from utils.errors import InputError
from utils.files import atomic_write, write_text
from utils.reporting.tables import csv_cell
from video.extraction.extraction_inputs import Recipe, read_inputs
from video.extraction.feature_networks import FeatureNetwork
from video.extraction.video_lists import LONGEST_NAME, Video
from video.video_decoding import Colours

LONGER_SECONDS = 1.1  # that a clip may last beyond its segments, a packet of sound included
ROWS_OF_A_SEGMENT = {"res152": 8}  # inputs that a network is given for one second, where it is not one


@dataclass(frozen=True)
class Failure:
    """Features that one video does not have, and why."""

    feature_id: str
    path: str
    features: tuple[str, ...]
    reason: str


@dataclass
class Outcome:
    """What an extraction did."""

    written: int = 0  # videos
    already_there: int = 0
    failures: list[Failure] = field(default_factory=list)


def missing_features(video: Video, data_dir: Path, features: Iterable[str]) -> list[str]:
    """Return the features whose file a video does not have yet."""
    return [name for name in features if not feature_path(data_dir, name, video.feature_id).exists()]


class BatchQueue:
    """Cuts the rows of many videos into batches of one size for a network.

    All batches have the same size, the last one filled up with zeros, so that a row's feature does not depend on its
    neighbours: an extraction that was interrupted writes the same files as one that was not.
    """

    def __init__(self, network: FeatureNetwork, batch_size: int):
        self.network, self.batch_size = network, batch_size
        self.waiting: deque[tuple[np.ndarray, str, bool]] = deque()  # a row, its video, and whether it is its last
        self.features: dict[str, list[Tensor]] = defaultdict(list)  # of the videos that are being computed

    def put(self, video: str, rows: np.ndarray, is_all: bool = True) -> list[tuple[str, np.ndarray]]:
        """Add rows of a video, with which they are all of it or not yet.

        Returns the videos that are now complete, with their features (rows, D).
        """
        self.waiting.extend((row, video, is_all and n == len(rows)) for n, row in enumerate(rows, start=1))
        return self._run_while(self.batch_size)

    def finish(self) -> list[tuple[str, np.ndarray]]:
        """Compute what is left."""
        return self._run_while(1)

    def drop(self, video: str) -> None:
        """Forget a video that cannot be completed."""
        self.waiting = deque(waiting for waiting in self.waiting if waiting[1] != video)
        self.features.pop(video, None)

    def _run_while(self, num_waiting: int) -> list[tuple[str, np.ndarray]]:
        """Run batches while so many rows are waiting."""
        finished = []
        while len(self.waiting) >= num_waiting:
            taken = [self.waiting.popleft() for _ in range(min(self.batch_size, len(self.waiting)))]
            rows = np.stack([row for row, _, _ in taken])
            padding = [(0, self.batch_size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
            for (_, video, is_last), feature in zip(taken, self.network(np.pad(rows, padding)), strict=False):
                self.features[video].append(feature)
                if is_last:
                    finished.append((video, torch.stack(self.features.pop(video)).cpu().numpy()))
        return finished


def extract(
    videos: list[Video],
    data_dir: Path,
    networks: dict[str, FeatureNetwork],
    recipe: Recipe,
    batch_size: int,
    num_decoders: int,
    silence_if_no_sound: bool = False,
    colours: Colours = "bt601",
) -> Outcome:
    """Write the feature files of `videos` that are not there yet.

    Args:
        networks: by feature name.
        batch_size: segments that a network is given at a time.
        num_decoders: videos that are decoded at a time, each by a thread.

    A video that fails stops nothing; the outcome says what failed.
    """
    outcome = Outcome()
    to_do: list[tuple[Video, list[str]]] = []
    others = other_videos(data_dir, _files_of(videos))
    for video in videos:
        missing = missing_features(video, data_dir, networks)
        if video.feature_id in others:
            reason = "features of another video of this name; delete them, or choose another folder"
            outcome.failures.append(Failure(video.feature_id, str(video.path), tuple(networks), reason))
        elif len(os.fsencode(video.feature_id)) > LONGEST_NAME:
            reason = f"a name of more than {LONGEST_NAME} bytes, which is too long for feature files"
            outcome.failures.append(Failure(video.feature_id, str(video.path), tuple(missing), reason))
        elif not missing:
            outcome.already_there += 1
        elif video.path is None:
            outcome.failures.append(Failure(video.feature_id, "", tuple(missing), "no video file"))
        else:
            to_do.append((video, missing))
    if to_do:
        record_videos(data_dir, _files_of(video for video, _ in to_do))
    queues = {
        name: BatchQueue(network, batch_size * ROWS_OF_A_SEGMENT.get(name, 1)) for name, network in networks.items()
    }

    def read(video: Video, missing: list[str]) -> tuple[Iterator, Future]:
        """Begin to decode a video."""
        rate = video.segments_per_second
        longest = video.num_segments / rate + LONGER_SECONDS if video.is_clip else math.inf
        how = (video.num_segments, recipe, silence_if_no_sound, longest, colours, rate, video.is_asked)
        stretches = read_inputs(video.path, missing, *how)
        return stretches, pool.submit(next, stretches)

    # Decoding threads are as many as are wanted; OpenBLAS would start others for each of numpy's small products.
    pool = ThreadPoolExecutor(num_decoders)
    with torch.inference_mode(), threadpool_limits({"openblas": 1}):
        try:
            ahead = deque(read(*job) for job in to_do[:num_decoders])
            waiting = iter(to_do[num_decoders:])
            for video, missing in tqdm(to_do, desc="extracting features", unit="video", smoothing=0.1):
                if following := next(waiting, None):
                    ahead.append(read(*following))
                stretches, stretch = ahead.popleft()
                inputs, is_all, reason = {}, False, "no audio track"
                while not is_all:
                    try:
                        inputs, is_all = stretch.result()
                    except Exception as error:  # whatever a broken file makes a decoder raise
                        for name in inputs:
                            queues[name].drop(video.feature_id)
                        inputs, is_all = {}, True
                        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                    if not is_all:
                        stretch = pool.submit(next, stretches)
                    for name, rows in inputs.items():
                        computed = queues[name].put(video.feature_id, rows, is_all)
                        outcome.failures += _write(data_dir, name, computed)
                if failed := tuple(name for name in missing if name not in inputs):
                    outcome.failures.append(Failure(video.feature_id, str(video.path), failed, reason))
                outcome.written += bool(inputs)
            for name, queue in queues.items():
                outcome.failures += _write(data_dir, name, queue.finish())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return outcome


def _files_of(videos: Iterable[Video]) -> dict[str, Path]:
    """Return the file of each video that has one, by feature id."""
    return {video.feature_id: video.path for video in videos if video.path and video.path.is_file()}


def _write(data_dir: Path, feature: str, computed: list[tuple[str, np.ndarray]]) -> list[Failure]:
    """Write feature files, and return those that are no features: a network in half precision may overflow."""
    failures = []
    for feature_id, values in computed:
        if not np.isfinite(values).all():
            failures.append(Failure(feature_id, "", (feature,), "features that are NaN or infinite"))
            continue
        with atomic_write(feature_path(data_dir, feature, feature_id)) as file:
            np.save(file, values)
    return failures


def write_failures(path: Path, failures: list[Failure]) -> None:
    """Write `failures.csv`; without failures, remove one from before."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    rows = sorted((one.feature_id, one.path, " ".join(one.features), one.reason) for one in failures)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")  # not pandas, whose texts are Unicode alone
    table.writerow(["id", "file", "features", "reason"])
    table.writerows([csv_cell(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def default_num_decoders() -> int:
    """Return how many threads decode where nothing else is said: all cores but one, at most sixteen."""
    return max(1, min(16, (os.cpu_count() or 2) - 1))
