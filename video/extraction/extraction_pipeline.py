"""Features of many videos: decoded in parallel, computed in batches, written as one file a video and feature."""

import csv
import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from dataloaders.features import feature_path
from utils.errors import InputError
from utils.files import atomic_write, write_text
from video.extraction.computing import ROWS_OF_A_SEGMENT, BatchQueue, FeatureNetwork
from video.extraction.extraction_inputs import Recipe, VideoInputs, read_inputs

LONGER_SECONDS = 1.0  # that a clip may last beyond its segments


@dataclass(frozen=True)
class Video:
    """A video to extract features of."""

    feature_id: str  # the stem of its feature files
    path: Path | None  # None: it is not there
    num_segments: int | None = None  # None: as many as its duration says
    is_clip: bool = False  # of num_segments seconds; a file that is longer by more than a second is another one


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
    """The features whose file a video does not have yet."""
    return [name for name in features if not feature_path(data_dir, name, video.feature_id).exists()]


def shard_of(videos: list[Video], shard: str) -> list[Video]:
    """The k-th of n parts of the videos: "3/16" is every sixteenth, beginning with the third.

    Raises:
        InputError: when `shard` is not k/n with 1 <= k <= n.
    """
    try:
        k, n = (int(part) for part in shard.split("/"))
    except ValueError:
        k = n = 0
    if not 1 <= k <= n:
        raise InputError("--shard", repr(shard), "k/n with 1 <= k <= n, such as 3/16", "Correct the flag.")
    return videos[k - 1 :: n]


def extract(
    videos: list[Video],
    data_dir: Path,
    networks: dict[str, FeatureNetwork],
    recipe: Recipe,
    batch_size: int,
    num_decoders: int,
    silence_if_no_sound: bool = False,
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
    for video in videos:
        missing = missing_features(video, data_dir, networks)
        if not missing:
            outcome.already_there += 1
        elif video.path is None:
            outcome.failures.append(Failure(video.feature_id, "", tuple(missing), "no video file"))
        else:
            to_do.append((video, missing))
    queues = {
        name: BatchQueue(network, batch_size * ROWS_OF_A_SEGMENT.get(name, 1)) for name, network in networks.items()
    }
    unfinished: dict[str, set[str]] = {}  # features that a video in the queues still lacks

    def write(name: str, finished: list[tuple[str, np.ndarray]]) -> None:
        for feature_id, values in finished:
            with atomic_write(feature_path(data_dir, name, feature_id)) as file:
                np.save(file, values)
            unfinished[feature_id].discard(name)
            if not unfinished[feature_id]:
                del unfinished[feature_id]
                outcome.written += 1
                progress.update()

    def read(job: tuple[Video, list[str]]) -> VideoInputs:
        video, missing = job
        longest = video.num_segments + LONGER_SECONDS if video.is_clip else math.inf
        return read_inputs(video.path, missing, video.num_segments, recipe, silence_if_no_sound, longest)

    progress = tqdm(total=len(to_do), desc="extracting features", unit="video", smoothing=0.1)
    # Decoding threads are as many as are wanted; OpenBLAS would start others for each of numpy's small products.
    with progress, torch.inference_mode(), threadpool_limits({"openblas": 1}):
        for (video, missing), inputs in _in_parallel(read, to_do, num_decoders):
            if isinstance(inputs, Exception):
                reason = str(inputs) if isinstance(inputs, InputError) else f"{type(inputs).__name__}: {inputs}"
                outcome.failures.append(Failure(video.feature_id, str(video.path), tuple(missing), reason))
                progress.update()
                continue
            for reason in dict.fromkeys(inputs.without.values()):
                names = tuple(name for name, why in inputs.without.items() if why == reason)
                outcome.failures.append(Failure(video.feature_id, str(video.path), names, reason))
            if not inputs.arrays:
                progress.update()
                continue
            unfinished[video.feature_id] = set(inputs.arrays)
            for name, rows in inputs.arrays.items():
                write(name, queues[name].put(video.feature_id, rows))
        for name, queue in queues.items():
            write(name, queue.finish())
    return outcome


def _in_parallel(
    read: Callable, jobs: list[tuple[Video, list[str]]], num_threads: int
) -> Iterator[tuple[tuple[Video, list[str]], VideoInputs | Exception]]:
    """Each job with what `read` made of it, in order, a few ahead. What it raises comes out as a value."""
    with ThreadPoolExecutor(num_threads) as pool:
        ahead: deque[tuple[tuple[Video, list[str]], Future]] = deque()
        remaining = iter(jobs)
        try:
            while True:
                for job in remaining:
                    ahead.append((job, pool.submit(read, job)))
                    if len(ahead) > num_threads:
                        break
                if not ahead:
                    return
                job, future = ahead.popleft()
                try:
                    yield job, future.result()
                except Exception as error:  # whatever a broken file makes a decoder raise
                    yield job, error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def write_failures(path: Path, failures: list[Failure]) -> None:
    """Write `failures.csv`; without failures, remove one from before."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "file", "features", "reason"])
    for failure in sorted(failures, key=lambda one: (one.feature_id, one.features)):
        table.writerow([failure.feature_id, failure.path, " ".join(failure.features), failure.reason])
    write_text(path, text.getvalue())


def default_num_decoders() -> int:
    """Threads that decode, where nothing else is said: all cores but one, at most sixteen."""
    return max(1, min(16, (os.cpu_count() or 2) - 1))
