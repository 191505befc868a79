"""Batches of packed clips, on packs of generated arrays."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from lavish.clip_batches import NORMALIZATIONS, Augmentation, ClipBatch, ClipBatches
from lavish.clip_splits import ClipSplit
from lavish.packing import ClipFormat, PackedClips
from utils.errors import InputError

T, SIZE, BANDS = 3, 20, 32  # of the packs: frames, pixels, and bands and frames of a spectrogram


def pack_of(num_items: int, **form: object) -> PackedClips:
    """Random pixels, and filter banks that are nowhere 0."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (num_items, T, SIZE, SIZE, 3), np.uint8)
    sound = rng.uniform(1, 2, (num_items, T, BANDS, BANDS)).astype(np.float16)
    for array in (frames, sound):
        array.flags.writeable = False  # as memory maps are
    rows = {f"item{row}": row for row in range(num_items)}
    return PackedClips(replace(ClipFormat(T, SIZE, sound="small"), **form), rows, frames, sound)


def split_of(sources: list[str]) -> ClipSplit:
    ids = tuple(f"sample{n}" for n in range(len(sources)))
    return ClipSplit(("Clap", "Drum"), ids, tuple(sources), torch.arange(len(sources)) % 2)


def batches_of(pack: PackedClips, *, image_size: int = SIZE, sources: list[str] | None = None, **settings):
    return ClipBatches(split_of(sources or list(pack.row_of)), pack, torch.device("cpu"), image_size, **settings)


def shuffled(batches: ClipBatches, batch_size: int, seed: int = 0, epoch: int = 1) -> Iterator[ClipBatch]:
    return (batch for (batch,) in batches.shuffled(batch_size, seed, epoch))


def as_bytes(frames: torch.Tensor) -> np.ndarray:
    """ImageNet-normalised pixels (..., 3, H, W) back to the bytes (..., H, W, 3) that were packed."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return np.rint((np.moveaxis(frames.numpy(), -3, -1) * deviation + mean) * 255)


def test_an_ordered_batch_is_the_normalised_central_crop():
    pack = pack_of(2)
    (batch,) = batches_of(pack, image_size=15).in_order(2)
    pixels = pack.frames[:, :, 2:17, 2:17] / 255
    expected = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(batch.frames.numpy(), expected.transpose(0, 1, 4, 2, 3), rtol=0, atol=1e-5)
    assert batch.frames.dtype == torch.float32


def test_half_normalisation_maps_pixels_to_minus_one_to_one():
    pack = pack_of(1)
    (batch,) = batches_of(pack, normalization=NORMALIZATIONS["half"]).in_order(1)
    expected = pack.frames / 127.5 - 1
    np.testing.assert_allclose(batch.frames.numpy(), expected.transpose(0, 1, 4, 2, 3), rtol=0, atol=1e-6)


def test_filter_banks_are_batched_as_they_are_packed():
    pack = pack_of(3)
    (batch,) = batches_of(pack).in_order(3)
    np.testing.assert_array_equal(batch.sound.numpy(), pack.sound.astype(np.float32))


def test_waveforms_are_scaled_to_minus_one_to_one():
    samples = np.array([[-32768, -16384, 0, 8192, 32767]], np.int16)
    pack = replace(pack_of(1, sound="waveform"), sound=samples)
    ((batch,),) = batches_of(pack, augmentation=Augmentation(max_masked_bands=4)).shuffled(1, 0, 0)
    assert batch.sound.tolist() == [[-1.0, -0.5, 0.0, 0.25, 32767 / 32768]]


@pytest.mark.parametrize("way", ["in_order", "shuffled"])
def test_every_sample_comes_once_with_its_own_item_and_label(way: str):
    pack = pack_of(5)
    sources = ["item3", "item0", "item3", "item4", "item1"]  # not in the order of the pack; two samples share one
    split = batches_of(pack, sources=sources)
    drawn = list(split.in_order(2) if way == "in_order" else shuffled(split, 2))
    clips = torch.cat([batch.clips for batch in drawn])
    assert [len(batch.clips) for batch in drawn] == [2, 2, 1]
    assert (clips.tolist() if way == "in_order" else sorted(clips.tolist())) == [0, 1, 2, 3, 4]
    rows = [int(sources[clip][-1]) for clip in clips]
    assert torch.cat([batch.labels for batch in drawn]).tolist() == [clip % 2 for clip in clips.tolist()]
    np.testing.assert_array_equal(as_bytes(torch.cat([batch.frames for batch in drawn])), pack.frames[rows])
    np.testing.assert_array_equal(torch.cat([batch.sound for batch in drawn]).numpy(), pack.sound[rows])


@pytest.mark.parametrize(("num_frames", "chosen"), [(None, [0, 1, 2]), (1, [1]), (2, [0, 2])])
def test_fewer_frames_are_the_middles_of_equal_parts_and_so_are_their_sounds(num_frames: int | None, chosen: list[int]):
    pack = pack_of(2)
    (batch,) = batches_of(pack, num_frames=num_frames).in_order(2)
    np.testing.assert_array_equal(as_bytes(batch.frames), pack.frames[:, chosen])
    np.testing.assert_array_equal(batch.sound.numpy(), pack.sound[:, chosen])


def test_only_the_modalities_that_are_asked_for_are_read():
    pack = pack_of(1)
    (seen,) = batches_of(pack, sound=False).in_order(1)
    (heard,) = batches_of(pack, frames=False).in_order(1)
    assert seen.sound is None and seen.frames is not None
    assert heard.frames is None and heard.sound is not None


@pytest.mark.parametrize("settings", [{"image_size": SIZE + 1}, {"num_frames": T + 1}])
def test_more_than_was_packed_is_refused(settings: dict[str, int]):
    with pytest.raises(InputError, match="packed"):
        batches_of(pack_of(1), **settings)


AUGMENTATION = Augmentation(random_crop=True, flip=True, max_masked_bands=8, max_masked_frames=8)


def test_shuffled_batches_depend_on_seed_and_epoch_alone():
    split = batches_of(pack_of(1), image_size=16, sources=["item0"] * 12, augmentation=AUGMENTATION)  # all alike

    def epoch(seed: int, number: int) -> list[torch.Tensor]:
        drawn = list(shuffled(split, 5, seed, number))
        return [torch.cat([getattr(batch, name) for batch in drawn]) for name in ("clips", "frames", "sound")]

    first = epoch(7, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(7, 1), strict=True))
    for other in (epoch(7, 2), epoch(8, 1), epoch(8, 0), epoch(6, 2)):
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_evaluation_changes_nothing_at_random():
    pack = pack_of(12)
    plain, augmented = (batches_of(pack, image_size=16, augmentation=one) for one in (Augmentation(), AUGMENTATION))
    for expected, batch in zip(plain.in_order(5), augmented.in_order(5), strict=True):
        assert torch.equal(batch.frames, expected.frames) and torch.equal(batch.sound, expected.sound)


@pytest.mark.parametrize(
    "setting", [{"random_crop": True}, {"flip": True}, {"max_masked_bands": 1}, {"max_masked_frames": 1}]
)
def test_any_random_change_counts_as_augmentation(setting: dict[str, object]):
    assert batches_of(pack_of(1), augmentation=Augmentation(**setting)).augmented
    assert not batches_of(pack_of(1)).augmented


def test_half_of_the_clips_are_flipped_from_right_to_left_all_frames_alike():
    pack = pack_of(400)
    split = batches_of(pack, augmentation=Augmentation(flip=True))
    flipped = []
    for batch in shuffled(split, 100):
        for clip, pixels in zip(batch.clips.tolist(), as_bytes(batch.frames), strict=True):
            turned = np.array_equal(pixels, pack.frames[clip, :, :, ::-1])
            assert turned or np.array_equal(pixels, pack.frames[clip])
            flipped.append(turned)
    assert 160 < sum(flipped) < 240  # 200 of 400, within four standard deviations


def test_random_crops_reach_every_place_and_are_the_same_for_all_frames_of_a_clip():
    pack = pack_of(400)
    size = SIZE - 3
    places = np.zeros((4, 4), int)
    for batch in shuffled(batches_of(pack, image_size=size, augmentation=Augmentation(random_crop=True)), 100):
        for clip, pixels in zip(batch.clips.tolist(), as_bytes(batch.frames), strict=True):
            found = [
                (top, left)
                for top in range(4)
                for left in range(4)
                if np.array_equal(pixels, pack.frames[clip, :, top : top + size, left : left + size])
            ]
            assert len(found) == 1
            places[found[0]] += 1
    assert places.min() > 5 and places.max() < 45  # 25 each, within four standard deviations


@pytest.mark.parametrize(("setting", "axis"), [("max_masked_bands", -1), ("max_masked_frames", -2)])
def test_spec_augment_blanks_one_stretch_of_random_width_and_place_in_each_spectrogram(setting: str, axis: int):
    split = batches_of(pack_of(400), frames=False, augmentation=Augmentation(**{setting: 4}))
    sound = torch.cat([batch.sound for batch in shuffled(split, 100)]).flatten(0, 1)  # (400 T, L, F)
    blanked = (sound == 0).transpose(axis, -1)  # along the last axis
    assert torch.equal(blanked, blanked[:, :1].expand_as(blanked))  # whole bands, or whole frames
    blanked = blanked[:, 0].int()  # (400 T, 32)
    assert (blanked.diff(dim=-1) == 1).sum(dim=-1).add(blanked[:, 0]).max() == 1  # one stretch
    widths = torch.bincount(blanked.sum(dim=-1))
    assert len(widths) == 5 and widths.min() > 185 and widths.max() < 295  # 0 to 4, 240 each
    single = blanked[blanked.sum(dim=-1) == 1].sum(dim=0)  # where the narrowest ones are
    assert (single > 0).all()
    assert len(blanked.view(400, T, -1)[:, :2].diff(dim=1).abs().sum(dim=-1).nonzero()) > 300  # each frame its own


def test_spec_augment_may_blank_at_most_the_whole_spectrogram():
    split = batches_of(pack_of(40), frames=False, augmentation=Augmentation(max_masked_bands=1000))
    widths = (next(shuffled(split, 40)).sound == 0)[..., 0, :].sum(dim=-1)
    assert widths.max() <= BANDS and widths.min() < BANDS / 4 and widths.max() > BANDS * 3 / 4


def test_kept_features_stand_in_for_frames_and_sound():
    split = batches_of(pack_of(5))
    split.features = torch.arange(5.0).view(5, 1, 1)
    for batch in shuffled(split, 2):
        assert batch.frames is None and batch.sound is None
        assert batch.features.flatten().tolist() == batch.clips.tolist()
        assert batch.labels.tolist() == [clip % 2 for clip in batch.clips.tolist()]
