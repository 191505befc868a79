"""Extract features of many videos: decode in parallel, compute in batches, write a file per video and feature."""

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
from video.extraction.extraction_inputs import PE_SECONDS, Recipe, read_inputs
from video.extraction.feature_networks import FeatureNetwork
from video.extraction.video_lists import LONGEST_NAME, Video
from video.video_decoding import Colours

LONGER_SECONDS = 1.1  # by which a clip may exceed its segments, including a packet of audio
ROWS_OF_A_SEGMENT = {"res152": 8, "pe_audio": 1 / PE_SECONDS}  # inputs per segment; others have one


@dataclass(frozen=True)
class Failure:
    """Features of a video that could not be extracted, and the reason."""

    feature_id: str
    path: str
    features: tuple[str, ...]
    reason: str


@dataclass
class Outcome:
    """The result of an extraction."""

    written: int = 0  # videos
    already_there: int = 0
    failures: list[Failure] = field(default_factory=list)


def missing_features(video: Video, data_dir: Path, features: Iterable[str]) -> list[str]:
    """Return the features of a video without a file."""
    return [name for name in features if not feature_path(data_dir, name, video.feature_id).exists()]


class BatchQueue:
    """Queue of the rows of many videos, which a network processes in batches of one size.

    The last batch is padded with zeros, so that features do not depend on other rows: an interrupted extraction results
    in the same files as an uninterrupted one.
    """

    def __init__(self, network: FeatureNetwork, batch_size: int):
        self.network, self.batch_size = network, batch_size
        self.waiting: deque[tuple[np.ndarray, str, bool]] = deque()  # row, video, whether it is the video's last
        self.features: dict[str, list[Tensor]] = defaultdict(list)  # of unfinished videos

    def put(self, video: str, rows: np.ndarray, is_all: bool = True) -> list[tuple[str, np.ndarray]]:
        """Add rows of a video, the last ones if `is_all`; return the completed videos with their features (rows, D)."""
        self.waiting.extend((row, video, is_all and n == len(rows)) for n, row in enumerate(rows, start=1))
        return self._run_while(self.batch_size)

    def finish(self) -> list[tuple[str, np.ndarray]]:
        """Process the remaining rows, and return what `put` does."""
        return self._run_while(1)

    def drop(self, video: str) -> None:
        """Discard a video that cannot be completed."""
        self.waiting = deque(waiting for waiting in self.waiting if waiting[1] != video)
        self.features.pop(video, None)

    def _run_while(self, num_waiting: int) -> list[tuple[str, np.ndarray]]:
        """Run batches while at least `num_waiting` rows are waiting."""
        finished = []
        while len(self.waiting) >= num_waiting:
            taken = [self.waiting.popleft() for _ in range(min(self.batch_size, len(self.waiting)))]
            rows = np.stack([row for row, _, _ in taken])
            padding = [(0, self.batch_size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
            for (_, video, is_last), feature in zip(taken, self.network(np.pad(rows, padding)), strict=False):
                self.features[video].append(feature)
                if is_last:
                    finished.append((video, rows_of(torch.stack(self.features.pop(video))).cpu().numpy()))
        return finished


def rows_of(features: Tensor) -> Tensor:
    """Return features (T, D) unchanged; flatten those of clips (clips, F, D) without NaN at the end: (frames, D)."""
    return features if features.dim() == 2 else features.flatten(0, 1)[~features.isnan().all(dim=-1).flatten()]


def extract(
    videos: list[Video],
    data_dir: Path,
    networks: dict[str, FeatureNetwork],  # by feature
    recipe: Recipe,
    batch_size: int,  # segments per batch
    num_decoders: int,  # threads
    silence_if_no_sound: bool = False,
    colours: Colours = "bt601",
) -> Outcome:
    """Write the missing feature files of videos. Failures are part of the outcome and do not affect other videos."""
    outcome, to_do = Outcome(), []  # videos, each with its missing features
    others = other_videos(data_dir, _files_of(videos))
    for video in videos:
        missing, reason = missing_features(video, data_dir, networks), "no video file"
        if video.feature_id in others:
            missing = list(networks)
            reason = "features of another video with this name; delete them, or choose another folder"
        elif len(os.fsencode(video.feature_id)) > LONGEST_NAME:
            reason = f"a name of more than {LONGEST_NAME} bytes, too long for feature files"
        elif not missing:
            outcome.already_there += 1
            continue
        elif video.path is not None:
            to_do.append((video, missing))
            continue
        outcome.failures.append(Failure(video.feature_id, str(video.path or ""), tuple(missing), reason))
    if to_do:
        record_videos(data_dir, _files_of(video for video, _ in to_do))
    sizes = {name: math.ceil(batch_size * ROWS_OF_A_SEGMENT.get(name, 1)) for name in networks}
    queues = {name: BatchQueue(network, sizes[name]) for name, network in networks.items()}

    def read(video: Video, missing: list[str]) -> tuple[Iterator, Future]:
        """Start decoding a video."""
        rate = video.segments_per_second
        longest = video.num_segments / rate + LONGER_SECONDS if video.is_clip else math.inf
        how = (video.num_segments, recipe, silence_if_no_sound, longest, colours, rate, video.is_asked)
        stretches = read_inputs(video.path, missing, *how)
        return stretches, pool.submit(next, stretches)

    # without limits, OpenBLAS starts threads for each of numpy's small products
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
                        stretch = None if is_all else pool.submit(next, stretches)
                    except Exception as error:  # decoders may raise anything for broken files
                        for name in inputs:
                            queues[name].drop(video.feature_id)
                        inputs, is_all = {}, True
                        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
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
    """Return the existing video files by feature id."""
    return {video.feature_id: video.path for video in videos if video.path and video.path.is_file()}


def _write(data_dir: Path, feature: str, computed: list[tuple[str, np.ndarray]]) -> list[Failure]:
    """Write feature files, and return those with NaN or infinity as failures (bf16 may overflow)."""
    failures = []
    for feature_id, values in computed:
        if not np.isfinite(values).all():
            failures.append(Failure(feature_id, "", (feature,), "features that are NaN or infinite"))
            continue
        with atomic_write(feature_path(data_dir, feature, feature_id)) as file:
            np.save(file, values)
    return failures


def write_failures(path: Path, failures: list[Failure]) -> None:
    """Write `failures.csv`, or remove an earlier one if there are no failures."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    rows = sorted((one.feature_id, one.path, " ".join(one.features), one.reason) for one in failures)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")  # pandas rejects names that are not Unicode
    table.writerow(["id", "file", "features", "reason"])
    table.writerows([csv_cell(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def default_num_decoders() -> int:
    """Return the default number of decoding threads: all cores but one, at most sixteen."""
    return max(1, min(16, (os.cpu_count() or 2) - 1))
