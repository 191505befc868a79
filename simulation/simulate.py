"""Simulate the feature files of a data set, and its annotation files unless real ones are given.

Files have the layout, formats and shapes of the real ones; docs/simulation.md describes the generative model.
`<output>/<dataset>/simulation.yaml` marks a folder as simulated and holds all parameters. Every video has its own
random seed, so that its files do not depend on other videos, and an interrupted simulation can be resumed.
"""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import yaml
from tqdm.contrib.concurrent import thread_map

from baselines.leap.leap_network import WORD_VECTORS_FILE
from baselines.lsld.subset_texts import FEATURES_FILE, NAMES_FILE, TEXTS_FILE, load_names, subset_text, subsets_of
from dataloaders.annotations import SplitAnnotations
from dataloaders.datasets import DATASETS, SPLITS
from dataloaders.feature_origin import SIMULATION_MARKER
from dataloaders.features import BIAS_FILE, FEATURES, feature_path, text_features_path
from simulation.generated_annotations import SIMULATED, annotation_files, choose_videos, video_truth
from simulation.simulated_features import MODEL, Truth, VideoSimulator, generator, text_features, word_vectors_text
from utils.errors import InputError
from utils.files import atomic_write, write_text

WITH_LABEL_TEXTS = ("LLP",)  # data sets with LSLD's texts and LEAP's word vectors of their classes
TRAIN_TRUTH = Path("simulation") / "train_truth.npz"
VERSION = 1  # of the generative model; files of different versions are never mixed
UNAV_OTHER_ROW_COUNT = 0.1  # share of UnAV videos whose files have one row more or fewer than segments


def simulate(
    dataset: str,
    output: Path,
    annotations: Path | None = None,  # folder that holds `<dataset>/` with annotation files; None: generate them
    sizes: dict[str, int | None] | None = None,  # number of videos by split; absent, None or too large: all
    seed: int = 0,
    features: list[str] | None = None,  # names in `FEATURES`; None: those of the data set
) -> Path:
    """Simulate a data set in `output/<dataset>`, and return that folder."""
    data_dir = Path(output) / dataset
    names = list(features or DATASETS[dataset].features)
    with annotation_files(dataset, annotations, seed) as (source, whole):
        kept = {split: choose_videos(whole[split], (sizes or {}).get(split), seed) for split in SPLITS}
        origin = "generated" if annotations is None else "copied"
        content = b"".join((source / file).read_bytes() for file in SIMULATED[dataset].files)
        parameters = {"simulated": True, "version": VERSION, "dataset": dataset, "seed": seed}
        parameters["annotations"] = {"origin": origin, "sha256": hashlib.sha256(content).hexdigest()}
        parameters["model"] = MODEL
        before = check_folder(data_dir, SIMULATION_MARKER, parameters)
        marker = parameters | {"videos": {split: len(videos) for split, videos in kept.items()}}
        marker["features"] = [name for name in FEATURES if name in {*names, *before.get("features", [])}]
        marker["complete"] = False
        write_text(data_dir / SIMULATION_MARKER, yaml.safe_dump(marker, sort_keys=False))
        SIMULATED[dataset].copy(source, data_dir, whole, kept)
    train, classes, truth = whole["train"], whole["train"].classes, video_truth(whole, seed)
    if train.labels is None:  # for evaluation only: filename and length (N,), audio and visual (R, C) bool
        filenames = np.array([train.sample_ids[n] for n in kept["train"]])
        audio, visual, _ = zip(*(truth[train.feature_ids[n]] for n in kept["train"]), strict=True)
        with atomic_write(data_dir / TRAIN_TRUTH) as file:
            rows = {"audio": np.concatenate(audio), "visual": np.concatenate(visual)}
            np.savez_compressed(file, filename=filenames, length=list(map(len, audio)), **rows)
    for name in names:
        if FEATURES[name].text_folder:
            path = text_features_path(data_dir, name)
            with atomic_write(path) as file:
                np.save(file, text_features(name, classes, seed))
            if name == "pe_audio":
                with atomic_write(path.with_name(BIAS_FILE)) as file:
                    np.save(file, np.zeros(1, np.float32))
            if dataset in WITH_LABEL_TEXTS:
                _write_subset_texts(data_dir, name, list(whole.values()), seed)
    if dataset in WITH_LABEL_TEXTS:
        write_text(data_dir / WORD_VECTORS_FILE, word_vectors_text(classes, seed))
    videos = [whole[split].feature_ids[n] for split in SPLITS for n in kept[split]]
    _write_features(VideoSimulator(dataset, classes, seed), data_dir, {video: truth[video] for video in videos}, names)
    write_text(data_dir / SIMULATION_MARKER, yaml.safe_dump({**marker, "complete": True}, sort_keys=False))
    return data_dir


def _write_subset_texts(data_dir: Path, feature: str, splits: list[SplitAnnotations], seed: int) -> None:
    """Write LSLD's texts and their features, which are simulated from class names, independent of a text's wording."""
    classes, modality = splits[0].classes, FEATURES[feature].modality
    names = load_names(NAMES_FILE, splits[0].dataset, classes)
    simulated_by = {
        subset_text(subset, names, modality): subset_text(subset, classes, "visual") for subset in subsets_of(splits)
    }
    if modality == "visual":
        simulated_by |= {name: name for name in classes}
    folder = text_features_path(data_dir, feature).parent
    with atomic_write(folder / FEATURES_FILE) as file:
        np.save(file, text_features(feature, simulated_by.values(), seed))
    write_text(folder / TEXTS_FILE, "\n".join(simulated_by) + "\n")


def check_folder(data_dir: Path, marker: str, parameters: dict[str, object]) -> dict:
    """Return the content of a folder's marker, {} if it is empty. Raises InputError for other parameters or files."""
    path, before = data_dir / marker, {}
    way_out = "Delete the folder or choose another --output."
    if path.exists():
        before = yaml.safe_load(path.read_text()) or {}
        if differing := [key for key in parameters if before.get(key) != parameters[key]]:
            raise InputError(path, f"a different {', '.join(differing)}", "the parameters of this simulation", way_out)
    elif data_dir.exists() and any(not entry.name.startswith(".") for entry in data_dir.iterdir()):
        raise InputError(data_dir, f"files without {marker}, perhaps real data", "a new or simulated folder", way_out)
    return before


def _write_features(simulator: VideoSimulator, data_dir: Path, truth: dict[str, Truth], names: list[str]) -> None:
    """Write missing feature files. Raises InputError if the disk has too little space for them."""
    missing, num_bytes = {}, 0
    for video in truth:
        if absent := [name for name in names if not feature_path(data_dir, name, video).exists()]:
            missing[video] = absent
            per_second = sum(4 * FEATURES[name].width * FEATURES[name].rows_per_second for name in absent)
            num_bytes += len(truth[video].audio) * per_second
    free = shutil.disk_usage(data_dir).free
    if num_bytes > free:
        found, expected = (f"{size / 2**30:.1f} GiB" for size in (free, num_bytes))
        raise InputError(data_dir, f"{found} free", expected, "Simulate fewer videos (--num_train) or features.")

    def write(video: str) -> None:
        for name, values in simulator.features(video, truth[video], missing[video]).items():
            rng = generator(simulator.seed, simulator.dataset, video, "rows")
            if DATASETS[simulator.dataset].pooled and rng.random() < UNAV_OTHER_ROW_COUNT:
                num_rows = max(1, len(values) + int(rng.choice((-1, 1))))
                values = values[((np.arange(num_rows) + 0.5) * len(values) / num_rows).astype(int)]
            with atomic_write(feature_path(data_dir, name, video)) as file:
                np.save(file, values)

    progress = {"desc": f"simulating {simulator.dataset}", "unit": "video", "mininterval": 1}
    thread_map(write, missing, max_workers=os.cpu_count(), **progress)
