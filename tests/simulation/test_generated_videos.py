"""Generated videos hold the events that their annotations say."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="pip install -r requirements-video.txt")

from dataloaders.feature_origin import VIDEOS_MARKER
from dataloaders.llp import LLP_CLASSES, load_split
from dataloaders.unav import UNAV_CLASSES
from simulation.__main__ import main
from simulation.generated_videos import (
    CONCEPTS,
    MODEL,
    SHARED_CONCEPTS,
    concept_of,
    generate_videos,
    look_of,
    render_video,
    sound_of,
)
from simulation.simulated_features import Truth
from utils.errors import InputError
from video.video_decoding import decode_video

SIZES = {"train": 2, "val": 4, "test": 4}


def truth_of(audible: list[int], visible: list[int], c: int, num_segments: int = 4) -> Truth:
    """One class that is heard and seen in some segments."""
    audio, visual = np.zeros((2, num_segments, len(LLP_CLASSES)), bool)
    audio[audible, c] = True
    visual[visible, c] = True
    return Truth(audio, visual, (audio | visual).any(0))


def test_one_name_is_one_look_and_sound_in_every_data_set():
    assert concept_of("Cello") == concept_of("playing cello")
    assert concept_of("Speech") == concept_of("man speaking")
    assert set(SHARED_CONCEPTS) <= {concept_of(name) for name in UNAV_CLASSES}
    looks = [(shape, *colour) for shape, colour in map(look_of, range(len(CONCEPTS)))]
    assert len(set(looks)) == len(looks)


def test_an_event_is_visible_where_it_is_said_to_be(monkeypatch):
    c = LLP_CLASSES.index("Cello")
    monkeypatch.setattr(MODEL, "hidden", 0.0)
    frames, _ = render_video(truth_of([], [1, 2], c), LLP_CLASSES, np.random.default_rng(3))
    assert frames.shape == (4 * MODEL.frame_rate, MODEL.height, MODEL.width, 3)
    _, colour = look_of(CONCEPTS.index(concept_of("Cello")))
    near = (np.abs(frames - colour).max(-1) < 30).mean((1, 2)).reshape(4, MODEL.frame_rate).max(1)
    assert (near[[1, 2]] > 0.005).all() and (near[[0, 3]] < 0.001).all()


def test_an_event_is_audible_where_it_is_said_to_be():
    c = LLP_CLASSES.index("Cello")
    _, sound = render_video(truth_of([0, 3], [], c), LLP_CLASSES, np.random.default_rng(3))
    wave = sound_of(CONCEPTS.index(concept_of("Cello")), MODEL.sample_rate)
    likeness = np.abs(sound.reshape(4, -1) @ wave)
    assert likeness[[0, 3]].min() > 5 * likeness[[1, 2]].max()


def test_the_folder_has_the_layout_of_the_data_set(tmp_path: Path):
    data_dir = generate_videos("LLP", tmp_path, sizes=SIZES, num_events=4)
    allowed = set(SHARED_CONCEPTS[:4])
    for split in SIZES:
        annotations = load_split(data_dir, split)
        assert annotations.num_videos == SIZES[split]
        for video in annotations.feature_ids:
            decoded = decode_video(data_dir / "raw_videos" / f"{video}.mp4", sample_rates=(16_000,))
            assert decoded.video_end == pytest.approx(10)
            assert len(decoded.sounds[16_000]) == pytest.approx(160_000, rel=0.01)
        labelled = annotations.video_labels.any(0).nonzero().flatten().tolist()
        assert {concept_of(annotations.classes[c]) for c in labelled} <= allowed
    assert (data_dir / VIDEOS_MARKER).exists()


def test_videos_are_made_once_and_parameters_are_not_mixed(tmp_path: Path):
    flags = ["--videos", "--dataset", "LLP", "--output", str(tmp_path), "--num_events", "4"]
    sizes = ["--num_train", "1", "--num_val", "1", "--num_test", "1"]
    main([*flags, *sizes])
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "LLP" / "raw_videos").iterdir()}
    main([*flags, *sizes])
    assert {path: path.stat().st_mtime_ns for path in files} == files
    with pytest.raises(InputError, match="different seed"):
        generate_videos("LLP", tmp_path, sizes=SIZES, num_events=4, seed=1)
    (tmp_path / "LLP" / VIDEOS_MARKER).unlink()
    with pytest.raises(InputError, match="perhaps real data"):
        generate_videos("LLP", tmp_path, sizes=SIZES, num_events=4)
