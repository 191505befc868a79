"""Batches of a split: whose rows they hold, what is padding, and where they come from."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dataloaders.annotations import SplitAnnotations, Subset
from dataloaders.batches import (
    Batch,
    DataSettings,
    SplitBatches,
    features_with_text,
    free_memory,
    open_split,
    open_texts,
)
from dataloaders.features import feature_path, text_features_path
from dataloaders.pseudo_labels import PseudoLabels
from dataloaders.store import PackedFeature
from tests.tiny_data import WIDTHS, write_npy
from utils.audio_visual import AudioVisual
from utils.errors import InputError

CPU = torch.device("cpu")
LENGTHS = (2, 5, 3, 1)  # of videos 0 to 3, whose segments are rows 0, 1 | 2 to 6 | 7 to 9 | 10 of all labels
FIRST_ROWS = (9, 0, 6, 5)  # where the videos start in a packed file


def make_annotations(lengths: tuple[int, ...] = LENGTHS) -> SplitAnnotations:
    """Three classes; label c of row r is bit c of r for audio, of r + 1 for visual."""
    rows = torch.arange(sum(lengths)).unsqueeze(1)
    audio, visual = (((r >> torch.arange(3)) % 2).bool() for r in (rows, rows + 1))
    video_labels = torch.eye(3, dtype=torch.bool)[torch.arange(len(lengths)) % 3]
    ids = tuple(f"video{n}" for n in range(len(lengths)))
    return SplitAnnotations(
        "LLP", "train", ("a", "b", "c"), ids, ids, torch.tensor(lengths), video_labels, AudioVisual(audio, visual)
    )


def packed(name: str, *columns: float, first_rows: tuple[int, ...] = FIRST_ROWS, num_rows: int = 11) -> PackedFeature:
    """A feature whose row r holds r plus a number for each of its columns."""
    values = torch.arange(float(num_rows)).unsqueeze(1) + torch.tensor(columns)
    return PackedFeature(Path(f"{name}_train.safetensors"), name, values, torch.tensor(first_rows))


def make_split(annotations: SplitAnnotations | None = None, **options: object) -> SplitBatches:
    features = AudioVisual([packed("clap", 0.25)], [packed("clip", 0.5, 0.75), packed("r2plus1d_18", 0.125)])
    return SplitBatches(annotations or make_annotations(), features, CPU, **options)


def make_pseudo(annotations: SplitAnnotations) -> PseudoLabels:
    logits = AudioVisual(*torch.randn(2, int(annotations.lengths.sum()), 3, generator=torch.Generator().manual_seed(0)))
    of_split = (annotations.dataset, annotations.classes, annotations.sample_ids, annotations.lengths)
    return PseudoLabels(*of_split, logits, logits.map(lambda z: z > 0), AudioVisual(*torch.zeros(2, 3).double()))


def only(batches: object) -> Batch:
    (batch,) = batches
    return batch


def of_videos(split: SplitBatches, *videos: int) -> Batch:
    return only(split.of_videos(torch.tensor(videos), len(videos)))


def test_features_are_each_video_s_rows_with_the_last_one_repeated_as_padding():
    audio, visual = of_videos(make_split(), 2, 0, 3).features
    rows = torch.tensor([[6.0, 7, 8], [9, 10, 10], [5, 5, 5]]).unsqueeze(-1)
    assert torch.equal(audio, rows + 0.25)
    assert torch.equal(visual, rows + torch.tensor([0.5, 0.75, 0.125]))


def test_a_split_knows_the_widths_of_its_features_one_by_one_and_together():
    split = make_split()
    assert split.feature_widths == ((1,), (2, 1)) and split.widths == (1, 3)


def test_the_mask_marks_the_segments_that_a_video_has():
    batch = of_videos(make_split(), 2, 0, 3)
    assert batch.mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert batch.valid_rows.tolist() == [0, 1, 2, 3, 4, 6]


def test_a_mask_is_made_even_for_a_batch_whose_videos_happen_to_be_of_one_length():
    assert of_videos(make_split(), 1).mask.tolist() == [[True] * 5]


def test_videos_of_one_length_need_no_mask():
    batch = of_videos(make_split(make_annotations((2, 2, 2, 2))), 1, 2)
    assert batch.mask is None and batch.valid_rows is None


def test_labels_are_those_of_the_batch_s_videos():
    split = make_split(pseudo=make_pseudo(make_annotations()))
    batch = of_videos(split, 2, 0)
    rows = [[7, 8, 9], [0, 1, 1]]
    assert batch.videos.tolist() == [2, 0]
    assert batch.video_labels.tolist() == [[0, 0, 1], [1, 0, 0]] and batch.video_labels.dtype == torch.float32
    bits = [[[[bool((r + m) >> c & 1) for c in range(3)] for r in video] for video in rows] for m in (0, 1)]
    assert [labels.tolist() for labels in batch.labels] == bits
    for of_batch, of_split in ((batch.pseudo.logits, split.pseudo.logits), (batch.pseudo.labels, split.pseudo.labels)):
        assert torch.equal(of_batch.audio, torch.stack([of_split.audio[video] for video in rows]))
        assert torch.equal(of_batch.visual, torch.stack([of_split.visual[video] for video in rows]))


def test_a_split_without_segment_labels_and_pseudo_labels_has_batches_without_them():
    batch = of_videos(make_split(replace(make_annotations(), labels=None)), 0)
    assert batch.labels is None and batch.pseudo is None


def test_batches_in_order_hold_every_video_once_the_last_batch_being_smaller():
    assert [batch.videos.tolist() for batch in make_split().in_order(3)] == [[0, 1, 2], [3]]


def orders(seed: int, epoch: int) -> list[int]:
    split = SplitBatches(
        make_annotations((1,) * 50),
        AudioVisual(*([packed("vggish", 0.0, first_rows=(0,) * 50)] for _ in range(2))),
        CPU,
    )
    return torch.cat([batch.videos for batch in split.shuffled(7, seed, epoch)]).tolist()


def test_every_epoch_of_every_seed_shuffles_anew_and_repeats_itself():
    drawn = [orders(seed, epoch) for seed in (1, 2) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(50)) for order in drawn)
    assert len({tuple(order) for order in drawn}) == 4
    assert orders(1, 2) == drawn[1]


def assert_same_batch(one: Batch, other: Batch) -> None:
    for name in ("videos", "mask", "valid_rows", "video_labels"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert all(one.features.map(torch.equal, other.features))


def test_streamed_batches_equal_resident_ones(capsys: pytest.CaptureFixture):
    resident = make_split(residency="resident")
    assert resident.resident and not capsys.readouterr().out
    streamed = make_split(residency="stream")
    assert not streamed.resident and "streaming them from disk" in capsys.readouterr().out
    for batch_size in (1, 3, 4):
        pairs = list(zip(streamed.shuffled(batch_size, 0, 1), resident.shuffled(batch_size, 0, 1), strict=True))
        assert len(pairs) == -(-4 // batch_size)
        for one, other in pairs:
            assert_same_batch(one, other)


def test_streamed_batches_are_read_by_a_thread_of_their_own():
    for residency, num_readers in (("resident", 0), ("stream", 1)):
        before = threading.active_count()
        batches = make_split(residency=residency).in_order(1)
        next(batches)
        assert threading.active_count() - before == num_readers
        batches.close()


def filling(share: float) -> PackedFeature:
    """A feature that would take this share of the free memory."""
    width = int(share * free_memory(CPU) / 4 / 11)
    return PackedFeature(Path("large"), "clap", torch.zeros(1, 1).expand(11, width), torch.tensor(FIRST_ROWS))


def test_features_that_leave_too_little_memory_are_streamed_unless_told_otherwise():
    small, half, most = packed("clip", 0.0), filling(0.4), filling(0.8)

    def is_resident(audio: list[PackedFeature], visual: list[PackedFeature], *residency: str) -> bool:
        return SplitBatches(make_annotations(), AudioVisual(audio, visual), CPU, *residency).resident

    assert is_resident([small], [half]) and is_resident([half], [small])
    for audio, visual in (([small], [most]), ([most], [small]), ([half], [half]), ([small], [half, half])):
        assert not is_resident(audio, visual)
        assert is_resident(audio, visual, "resident")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_a_single_value_that_is_not_finite_is_found_in_any_feature(spoilt: int, value: float):
    features = [packed(name, 0.0, 0.5) for name in ("clap", "clip", "r2plus1d_18")]
    split = SplitBatches(make_annotations(), AudioVisual(features[:1], features[1:]), CPU)
    split.check_features()
    features[spoilt].values[10, 1] = value
    with pytest.raises(InputError, match=f"{features[spoilt].feature}_train.safetensors: found features that are NaN"):
        split.check_features()


def test_a_value_that_is_not_finite_is_found_among_many_rows():
    feature = packed("clap", 0.0, num_rows=70_000)
    feature.values[69_999] = torch.nan
    with pytest.raises(InputError, match="clap"):
        SplitBatches(make_annotations(), AudioVisual([feature], [packed("clip", 0.0)]), CPU).check_features()


def llp_settings(llp_dir: Path) -> DataSettings:
    return DataSettings(data_dir=llp_dir, audio_features=("clap",), visual_features=("clip", "r2plus1d_18"))


def rows_of(llp_dir: Path, name: str, sample_ids: tuple[str, ...]) -> Tensor:
    return torch.from_numpy(
        np.stack([np.load(feature_path(llp_dir, name, sample_id[:11])) for sample_id in sample_ids])
    )


@pytest.mark.parametrize(
    ("subset", "num_videos"), [(Subset(), 14), (Subset(train_fraction=0.5), 7), (Subset(num_classes=2), 9)]
)
def test_an_opened_split_has_the_features_of_its_own_videos(llp_dir: Path, subset: Subset, num_videos: int):
    split = open_split("LLP", "train", llp_settings(llp_dir), CPU, subset=subset)
    assert split.num_videos == num_videos
    batch = only(split.in_order(14))
    clap, clip, clips = (
        rows_of(llp_dir, name, split.annotations.sample_ids) for name in ("clap", "clip", "r2plus1d_18")
    )
    assert torch.equal(batch.features.audio, clap)
    assert torch.equal(batch.features.visual, torch.cat([clip, clips], dim=-1))


def test_a_split_is_kept_where_the_settings_say(llp_dir: Path, tmp_path: Path):
    annotations_dir, packed_dir = tmp_path / "annotations", tmp_path / "elsewhere"
    annotations_dir.mkdir()
    for path in llp_dir.glob("*.csv"):
        path.rename(annotations_dir / path.name)
    settings = replace(llp_settings(llp_dir), annotations_dir=annotations_dir, packed_dir=packed_dir)
    assert open_split("LLP", "val", settings, CPU).num_videos == 6
    assert {path.stem for path in packed_dir.glob("*.safetensors")} == {"clap_val", "clip_val", "r2plus1d_18_val"}
    assert not (llp_dir / "packed").exists()


@pytest.mark.parametrize(("residency", "is_resident"), [("auto", True), ("resident", True), ("stream", False)])
def test_the_settings_say_whether_a_split_is_streamed(llp_dir: Path, residency: str, is_resident: bool):
    settings = replace(llp_settings(llp_dir), residency=residency)
    assert open_split("LLP", "val", settings, CPU).resident == is_resident


def test_videos_without_a_feature_are_left_out_only_where_the_settings_allow_it(llp_dir: Path):
    feature_path(llp_dir, "clip", "tr000000003").unlink()
    with pytest.raises(InputError, match="tr000000003"):
        open_split("LLP", "train", llp_settings(llp_dir), CPU)
    split = open_split("LLP", "train", replace(llp_settings(llp_dir), allow_missing=True), CPU)
    assert split.num_videos == 13


def test_each_modality_has_the_texts_of_its_own_encoder(llp_dir: Path):
    texts = open_texts("LLP", llp_settings(llp_dir), CPU)
    for of_modality, feature in zip(texts, ("clap", "clip"), strict=True):
        assert of_modality.shape == (25, WIDTHS[feature])
        np.testing.assert_array_equal(of_modality.numpy(), np.load(text_features_path(llp_dir, feature)))


def test_texts_are_those_of_the_prompts_that_are_asked_for(llp_dir: Path):
    for feature, value in (("clap", 1), ("clip", 2)):
        write_npy(text_features_path(llp_dir, feature, "valor"), np.full((25, WIDTHS[feature]), value))
    audio, visual = open_texts("LLP", llp_settings(llp_dir), CPU, "valor")
    assert (audio == 1).all() and (visual == 2).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audio_features": ("vggish",), "visual_features": ("clip",)}, "--audio_features"),
        ({"audio_features": ("clap",), "visual_features": ("res152", "r2plus1d_18")}, "--visual_features"),
        ({"audio_features": ("clap",), "visual_features": ("clip", "clip")}, "--visual_features"),
    ],
)
def test_a_modality_without_exactly_one_feature_with_texts_is_refused(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        features_with_text(DataSettings(**settings))
