"""Extraction on a local Ray cluster of two nodes, of which one worker and one node are lost on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'ray[data]'")
pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

import ray
from ray.cluster_utils import Cluster

from tests.video.made_videos import make_video
from utils.errors import InputError
from utils.training.device import select_device
from video.extraction import ray_workers
from video.extraction.extraction_pipeline import extract
from video.extraction.feature_networks import Source, build_networks
from video.extraction.ray_workers import Job, extract_on_ray
from video.extraction.video_lists import Video

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ["vggish", "r2plus1d_18"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


def own_workers() -> list[int]:
    """Process ids of extraction workers that descend from this process."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (ValueError, OSError):  # no process, or one that has just ended
            continue

    def descends(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, name in names.items() if b"ExtractionWorker" in name and descends(pid)]


def kill_a_worker_then_a_node(cluster: Cluster, node, output: Path, lost: list[str]) -> None:
    """Kill one extraction worker once a file is there, and take a node away after a few more."""

    def wait_for(count: int) -> None:
        end = time.monotonic() + 120
        while len(list(output.rglob("*.npy"))) < count and time.monotonic() < end:
            time.sleep(0.02)

    wait_for(1)
    os.kill(own_workers()[0], signal.SIGKILL)
    lost.append("worker")
    wait_for(len(list(output.rglob("*.npy"))) + 8)
    cluster.remove_node(node, allow_graceful=False)
    lost.append("node")


@pytest.mark.slow
def test_a_lost_worker_and_a_lost_node_cost_no_feature(tmp_path: Path):
    videos = [
        Video(f"video{n}", make_video(tmp_path / "videos" / f"video{n}.mp4", 1 + n % 2, seed=n)) for n in range(48)
    ]
    source = Source(tmp_path, "small")
    alone = tmp_path / "alone"
    extract(videos, alone, build_networks(FEATURES, source, select_device("cpu"), "float32"), "centre", 4, 1)

    output = tmp_path / "ray"
    output.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    lost: list[str] = []
    try:
        ray.init(
            address=cluster.address,
            runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}},
            log_to_driver=False,
        )
        disturber = threading.Thread(target=kill_a_worker_then_a_node, args=(cluster, node, output, lost))
        disturber.start()
        job = Job(FEATURES, source, output, "centre", "float32", 4, 1, False)
        outcome = extract_on_ray(videos, job, cluster.address, num_workers=2)
        disturber.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost == ["worker", "node"]
    assert outcome.failures == []
    assert outcome.written == len(videos)
    assert files_of(output) == files_of(alone)


@pytest.mark.slow
def test_a_cluster_that_was_started_for_a_command_listens_on_this_machine_alone(tmp_path: Path):
    program = """
import ray, sys
from pathlib import Path
from video.extraction.feature_networks import Source
from video.extraction.ray_workers import Job, extract_on_ray
from video.extraction.video_lists import Video

video = Video("video", Path(sys.argv[1]))
job = Job(["vggish"], Source(Path(sys.argv[2]), "small"), Path(sys.argv[2]), "centre", "float32", 4, 1, False, "cpu")
assert extract_on_ray([video], job, "auto", 1).written == 1
print("address", ray.get_runtime_context().gcs_address, "dashboard", repr(ray.worker.global_worker.node.webui_url))
"""
    video = make_video(tmp_path / "video.mp4", 1)
    command = [sys.executable, "-c", program, str(video), str(tmp_path / "features")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"RAY_ADDRESS": ""})
    assert done.returncode == 0, done.stderr
    assert "address 127.0.0.1:" in done.stdout and "dashboard ''" in done.stdout


def test_only_the_code_is_sent_to_workers(tmp_path: Path, monkeypatch):
    for name in (*ray_workers.SHIPPED, "data/LLP", "temp_train_logs", "my_videos", ".git"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("data/downloads.yaml", "data/LLP.zip", "big.bin"):
        (tmp_path / name).touch()
    asked = {}

    def refuse(address: str, **options: object) -> None:
        asked.update(options)
        raise ValueError("no such cluster")

    monkeypatch.setattr(ray_workers, "ROOT", tmp_path)
    monkeypatch.setattr(ray, "init", refuse)
    job = Job(["vggish"], Source(tmp_path, "small"), tmp_path, "centre", "float32", 4, 1, False)
    with pytest.raises(InputError, match=r"no cluster at 10\.0\.0\.1:6379"):
        extract_on_ray([], job, "10.0.0.1:6379")
    left_out = {"/temp_train_logs", "/my_videos", "/.git", "/big.bin", "/data/LLP", "/data/LLP.zip"}
    assert set(asked["runtime_env"]["excludes"]) == left_out
