"""Cross-modality random combination: labels, pairs, determinism, and what it refuses."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train_han
from dataloaders.annotations import SplitAnnotations
from dataloaders.batches import SplitBatches
from dataloaders.cmrc import CMRC, CombinedBatches
from dataloaders.pseudo_labels import PseudoLabels
from dataloaders.store import PackedFeature
from tests.tiny_runs import NETWORK, RECIPE, assert_same_weights, label, newest, pretrain, train
from utils.audio_visual import AudioVisual
from utils.errors import InputError

CPU = torch.device("cpu")
T, C = 2, 3
# Classes that are audible and visible in some segment of each video.
AUDIBLE, VISIBLE = ({0}, {1}, {0, 1}, set(), {2}), ({0}, {0}, {1}, {1}, {2})


def split_of(dataset: str = "LLP") -> SplitBatches:
    """Five videos whose features are their number, with the events above in the second segment."""
    ids = tuple("abcde")
    labels = torch.tensor([[c in a | v for c in range(C)] for a, v in zip(AUDIBLE, VISIBLE, strict=True)])
    annotations = SplitAnnotations(dataset, "train", tuple("xyz"), ids, ids, torch.full((5,), T), labels, None)
    hard = AudioVisual(*(torch.zeros(5, T, C, dtype=torch.bool) for _ in range(2)))
    for of_modality, occurring in zip(hard, (AUDIBLE, VISIBLE), strict=True):
        for n, classes in enumerate(occurring):
            of_modality[n, 1, list(classes)] = True
    hard = hard.map(lambda x: x.flatten(0, 1))
    thresholds = AudioVisual(torch.zeros(C), torch.zeros(C))
    pseudo = PseudoLabels(
        dataset, annotations.classes, ids, annotations.lengths, hard.map(torch.Tensor.float), hard, thresholds
    )
    values = torch.arange(5.0).repeat_interleave(T).unsqueeze(1)
    first_rows = torch.arange(5) * T
    feature = PackedFeature(Path("packed"), "vggish", values, first_rows)
    return SplitBatches(annotations, AudioVisual([feature], [replace(feature, feature="clip")]), CPU, pseudo=pseudo)


def test_a_combination_has_the_features_and_labels_of_both():
    batches = CombinedBatches(split_of(), CMRC(cmrc=3.0))
    assert batches.num_videos == 20
    seen = Counter()
    for batch in batches.shuffled(4, seed=0, epoch=1):
        for n in range(len(batch.videos)):
            j, i = (int(x[n, 0, 0]) for x in batch.features)
            seen[i == j] += 1
            assert {c for c in range(C) if batch.pseudo.labels.audio[n, :, c].any()} == AUDIBLE[j]
            assert {c for c in range(C) if batch.pseudo.labels.visual[n, :, c].any()} == VISIBLE[i]
            assert set(batch.video_labels[n].nonzero().flatten().tolist()) == AUDIBLE[j] | VISIBLE[i]
            assert torch.equal(batch.pseudo.logits.audio[n], batch.pseudo.labels.audio[n].float())
    assert seen == {True: 5, False: 15}


def test_streams_fit_the_label_that_was_drawn_and_empty_ones_are_skipped_unless_kept():
    skipping, keeping = (CombinedBatches(split_of(), CMRC(cmrc=40.0, cmrc_empty=how)) for how in ("skip", "keep"))
    audio, visual = skipping.pairs(0, 1)
    assert not (audio == visual).any() and 3 not in audio and 3 in keeping.pairs(0, 1).audio
    sets = [AUDIBLE[j] | VISIBLE[i] for j, i in zip(audio.tolist(), visual.tolist(), strict=True)]
    # {2} belongs to one video, so that its partner is any other one; all else stays within a label of some video.
    assert Counter(2 in labels and len(labels) > 1 for labels in sets)[True] < len(sets) / 2
    assert {0, 1} in sets and all(labels <= {0, 1} or 2 in labels for labels in sets)


def test_pairs_depend_on_seed_and_epoch_alone_or_on_the_seed():
    batches, fixed = (CombinedBatches(split_of(), CMRC(cmrc=4.0, cmrc_fixed=on)) for on in (False, True))
    assert torch.equal(batches.pairs(3, 2).audio, batches.pairs(3, 2).audio)
    assert not torch.equal(batches.pairs(3, 2).audio, batches.pairs(3, 1).audio)
    assert torch.equal(fixed.pairs(3, 2).audio, fixed.pairs(3, 1).audio)
    assert not torch.equal(fixed.pairs(3, 2).audio, fixed.pairs(4, 2).audio)


@pytest.mark.parametrize("fault", ["labels", "lengths", "AVE"])
def test_what_has_no_segment_labels_of_each_modality_is_refused(fault: str):
    split = split_of("AVE" if fault == "AVE" else "LLP")
    if fault == "labels":
        split.pseudo = None
    if fault == "lengths":
        split.equal_length = False
    with pytest.raises(InputError, match=r"--cmrc: found training on .* expected parsing with segment labels"):
        CombinedBatches(split, CMRC(cmrc=1.0))


def test_a_run_with_combinations_resumes_bit_by_bit_and_differs_from_one_without(llp_dir, unav_dir, tmp_path):
    folder = label(llp_dir, pretrain(unav_dir, tmp_path / "stage1"))
    labels = ("--pseudo_label_dir", folder)
    plain = train(llp_dir, tmp_path / "plain", *labels)
    whole = train(llp_dir, tmp_path / "whole", *labels, "--cmrc", "1.0")
    part = train(llp_dir, tmp_path / "part", *labels, "--cmrc", "1.0", "--num_epochs", "2")
    train_han.main(["--resume", str(part), "--num_epochs", "3"])
    with pytest.raises(AssertionError):
        assert_same_weights(plain, whole)
    part = newest(tmp_path / "part", "HAN_")
    flags = ["--cmrc", "1.0", "--pseudo_label_dir", str(folder)]
    train_han.main(["--data_dir", str(llp_dir), "--output_dir", str(tmp_path / "again"), *NETWORK, *RECIPE, *flags])
    assert_same_weights(whole, newest(tmp_path / "again", "HAN_"))
