"""Extract features with Ray Data, on one machine or the nodes of a cluster.

Each worker holds its own networks and writes files atomically to a folder shared by all nodes. Existing files are
skipped: the loss of a worker or node costs only its current videos, which Ray reassigns, and an interrupted extraction
resumes with the same command.
"""

import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.errors import InputError
from utils.training.device import select_device
from video.extraction.extraction_inputs import Recipe
from video.extraction.extraction_pipeline import Outcome, extract, missing_features
from video.extraction.feature_networks import Source, build_networks
from video.extraction.video_lists import Video
from video.video_decoding import Colours

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("baselines", "configs", "data", "dataloaders", "models", "utils", "video")  # the folders that workers need
VIDEOS_AT_A_TIME = 8  # videos per call of a worker


@dataclass(frozen=True)
class Job:
    """Settings of all workers. Paths are absolute and valid on every node."""

    features: list[str]
    source: Source
    data_dir: Path
    recipe: Recipe
    precision: str
    batch_size: int
    num_decoders: int
    silence_if_no_sound: bool
    device: str = "auto"  # as in `select_device`; Ray assigns GPUs to workers
    colours: Colours = "bt601"


class ExtractionWorker:
    """The networks of a process, which extracts the features of some videos per call."""

    def __init__(self, job: Job):
        self.job = job
        device = select_device(job.device.split(":")[0])
        self.networks = build_networks(job.features, job.source, device, job.precision)

    def __call__(self, batch: dict[str, Iterable[bytes]]) -> dict[str, list]:
        """Extract the features of the pickled `Video`s in `video` -> one row with their pickled `Outcome`."""
        job, videos = self.job, [pickle.loads(video) for video in batch["video"]]
        how = (job.recipe, job.batch_size, job.num_decoders, job.silence_if_no_sound, job.colours)
        return {"outcome": [pickle.dumps(extract(videos, job.data_dir, self.networks, *how))], "videos": [len(videos)]}


def extract_on_ray(videos: list[Video], job: Job, address: str, num_workers: int | None = None) -> Outcome:
    """Extract features on the cluster at `address`; "auto": that of this machine, or a new one of this machine only.

    The default number of workers is one per GPU, or one per two cores without GPUs. Raises InputError if Ray is not
    installed or the cluster cannot be reached.
    """
    try:
        import ray
        from ray._private import ray_constants
    except ImportError as error:
        raise InputError("--ray", "no ray", "the package ray", "Run pip install 'ray[data]'.") from error
    if not ray.is_initialized():
        excludes = [f"/{path.name}" for path in ROOT.iterdir() if path.name not in SHIPPED]
        excludes += [f"/data/{path.name}" for path in (ROOT / "data").iterdir() if path.suffix != ".yaml"]
        environment = {"working_dir": str(ROOT), "excludes": excludes, "env_vars": {"TQDM_DISABLE": "1"}}
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        options = {"runtime_env": environment, "log_to_driver": False}
        try:
            try:
                ray.init(address, **options)
            except ConnectionError:
                if address != "auto":
                    raise
                # start a cluster of this machine only, on the loopback address, as Ray does by default on macOS
                os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
                ray_constants.ENABLE_RAY_CLUSTER = False
                ray.init(include_dashboard=False, **options)
        except (ConnectionError, ValueError) as error:
            found, expected = f"no cluster at {address} ({str(error).splitlines()[0]})", "`auto` or a running cluster"
            raise InputError("--ray", found, expected, "Start one with ray start --head.") from error
    gpus = int(ray.cluster_resources().get("GPU", 0)) if job.device.startswith(("auto", "cuda")) else 0
    num_workers = num_workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // 2)
    to_do = [video for video in videos if missing_features(video, job.data_dir, job.features)]
    total = Outcome(already_there=len(videos) - len(to_do))
    if not to_do:
        return total
    rows = [{"video": pickle.dumps(video)} for video in to_do]
    outcomes = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // VIDEOS_AT_A_TIME)).map_batches(
        ExtractionWorker,
        fn_constructor_kwargs={"job": job},
        batch_size=VIDEOS_AT_A_TIME,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_workers),
        num_gpus=1 if gpus else 0,
        num_cpus=1,
    )
    with tqdm(total=len(to_do), desc="extracting features", unit="video", smoothing=0.1) as progress:
        for row in outcomes.iter_rows():
            outcome = pickle.loads(row["outcome"])
            # existing files were written by a worker that died before reporting them
            total.written += outcome.written + outcome.already_there
            total.failures += outcome.failures
            progress.update(row["videos"])
    return total
