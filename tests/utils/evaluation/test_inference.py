"""Networks over a split give what they give of each video by itself; padding never counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.cmpae.cmpae_decoding import CMPAEDecoding, mixed_output, predict
from baselines.ma.exchange import exchange_modalities, unrelated_videos
from baselines.valor.framewise import framewise_logits
from dataloaders.batches import DataSettings, SplitBatches, open_split
from dataloaders.features import feature_path
from models import HAN, HANConfig, HANOutput, TemporalTransformer, TemporalTransformerConfig
from tests.tiny_data import WIDTHS
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import (
    pad_rows,
    run_han,
    temporal_transformer_logits,
)
from utils.training.device import Precision

CPU = torch.device("cpu")
PLAIN = Precision("float32", CPU)
CLAP_AND_CLIP = {"audio_features": ("clap",), "visual_features": ("clip",)}
SMALL = {"dim": 8, "num_heads": 2, "ffn_dim": 12, "num_layers": 2}


@pytest.fixture
def unav(unav_dir: Path) -> SplitBatches:
    return open_split("UnAV", "train", DataSettings(data_dir=unav_dir, **CLAP_AND_CLIP), CPU)


def random_texts(num_classes: int = 4) -> AudioVisual[Tensor]:
    torch.manual_seed(1)
    return AudioVisual(*(torch.randn(num_classes, WIDTHS[feature]) for feature in ("clap", "clip")))


def streams(data_dir: Path, feature_id: str) -> AudioVisual[Tensor]:
    """One video's CLAP and CLIP features as they lie in their files, (T, D)."""
    return AudioVisual("clap", "clip").map(
        lambda name: torch.from_numpy(np.load(feature_path(data_dir, name, feature_id)))
    )


def test_rows_of_videos_are_padded_at_their_ends():
    rows = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    assert pad_rows(rows, torch.tensor([1, 2])).tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert pad_rows(rows, torch.tensor([2, 1])).tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]


def assert_logits_of_each_video(logits: AudioVisual[Tensor], expected: list[AudioVisual[Tensor]]) -> None:
    """Logits (N, T, C) hold those of each video (T_n, C), and -inf after its end."""
    longest = max(len(of_video.audio) for of_video in expected)
    for of_split, of_videos in zip(logits, zip(*expected, strict=True), strict=True):
        assert of_split.shape[:2] == (len(expected), longest)
        for found, wanted in zip(of_split, of_videos, strict=True):
            torch.testing.assert_close(found[: len(wanted)], wanted, rtol=1e-4, atol=1e-5)
            assert (found[len(wanted) :] == -torch.inf).all()


@torch.no_grad()
def test_the_temporal_transformer_scores_each_video_as_it_does_alone(unav: SplitBatches, unav_dir: Path):
    torch.manual_seed(0)
    texts = random_texts()
    model = TemporalTransformer(*unav.widths, *unav.widths, TemporalTransformerConfig(**SMALL))
    found = temporal_transformer_logits(model.train(), unav, texts, 4, PLAIN)
    expected = []
    for feature_id in unav.annotations.feature_ids:
        logits = model.eval()(*streams(unav_dir, feature_id).map(lambda x: x[None]), *texts).logits
        expected.append(logits.map(lambda z: z[0]))
    assert len({len(of_video.audio) for of_video in expected}) > 3
    assert_logits_of_each_video(found, expected)


def test_framewise_logits_are_scaled_cosines_of_each_segment(unav: SplitBatches, unav_dir: Path):
    texts = random_texts()
    expected = []
    for feature_id in unav.annotations.feature_ids:
        cosines = streams(unav_dir, feature_id).map(
            lambda x, text: torch.cosine_similarity(x[:, None], text[None], dim=-1), texts
        )
        expected.append(AudioVisual(3 * cosines.audio, 7 * cosines.visual))
    assert_logits_of_each_video(framewise_logits(unav, texts, AudioVisual(3, 7), 4), expected)


@pytest.mark.parametrize("cross_share", [1.0, 0.7])
@torch.no_grad()
def test_han_parses_each_video_as_it_does_alone(llp_dir: Path, cross_share: float):
    split = open_split("LLP", "val", DataSettings(data_dir=llp_dir, **CLAP_AND_CLIP), CPU)
    torch.manual_seed(0)
    model = HAN(3, split.widths.audio, (split.widths.visual,), HANConfig(**SMALL))
    found = predict(model.train(), split, 4, PLAIN, CMPAEDecoding(cross_share=cross_share))
    if cross_share == 1:
        assert torch.equal(found.video_probs, run_han(model, split, 4, PLAIN).video_probs)
    model.eval()
    for n, feature_id in enumerate(split.annotations.feature_ids):
        video = streams(llp_dir, feature_id).map(lambda x: x[None])
        crossed, alone = model(*video, True), model(*video, False)

        def assert_mixed(actual: Tensor, one: Tensor, other: Tensor) -> None:
            torch.testing.assert_close(
                actual, cross_share * one[0] + (1 - cross_share) * other[0], rtol=1e-4, atol=1e-6
            )

        assert_mixed(found.video_probs[n], crossed.video_probs, alone.video_probs)
        for m in range(2):
            assert_mixed(found.modality_probs[m][n], crossed.modality_probs[m], alone.modality_probs[m])
            assert_mixed(*(z.sigmoid() for z in (found.logits[m][n], crossed.logits[m], alone.logits[m])))


def test_two_outputs_are_mixed_as_probabilities_not_as_logits():
    def output(audio: float, visual: float, pooled: tuple[float, float], video: float) -> HANOutput:
        segments = AudioVisual(*(torch.logit(torch.full((1, 1, 1), p)) for p in (audio, visual)))
        return HANOutput(
            torch.tensor([[video]]), AudioVisual(*torch.tensor(pooled).view(2, 1, 1)), segments, None, None
        )

    mixed = mixed_output(output(0.9, 0.2, (0.5, 0.8), 0.6), output(0.1, 0.4, (0.3, 0.4), 0.2), 0.75)
    assert mixed.video_probs.item() == pytest.approx(0.5)
    assert [p.item() for p in mixed.modality_probs] == pytest.approx([0.45, 0.7])
    assert [torch.sigmoid(z).item() for z in mixed.logits] == pytest.approx([0.7, 0.25])


@torch.no_grad()
def test_each_modality_is_exchanged_for_that_of_its_partner(llp_dir: Path):
    split = open_split("LLP", "train", DataSettings(data_dir=llp_dir, **CLAP_AND_CLIP), CPU)
    split.annotations.video_labels[1, :4] = True  # shares a label with every video
    labels = split.annotations.video_labels
    torch.manual_seed(0)
    model = HAN(25, split.widths.audio, (split.widths.visual,), HANConfig(**SMALL))
    own = run_han(model, split, 14, PLAIN).modality_probs
    rates = own.map(lambda probs: 2 * probs.quantile(0.6, dim=0))  # so that p < r / 2 in about half of the videos
    partners = unrelated_videos(labels, torch.Generator().manual_seed(2))
    found = exchange_modalities(model.train(), split, partners, rates, 4, PLAIN)
    model.eval()
    partners = partners.tolist()
    assert partners[1] == -1 and 0 in partners and partners.count(-1) == 1
    videos = [streams(llp_dir, feature_id).map(lambda x: x[None]) for feature_id in split.annotations.feature_ids]
    expected = AudioVisual(labels.clone(), labels.clone())
    for n, partner in enumerate(partners):
        if n == 1:
            continue  # keeps its labels
        heard = model(videos[n].audio, videos[partner].visual).modality_probs
        seen = model(videos[partner].audio, videos[n].visual).modality_probs
        for left, probs, rate in zip(expected, (heard, seen), rates, strict=True):
            left[n] &= ~((probs.audio[0] < rate / 2) & (probs.visual[0] < rate / 2))
    assert all(found.map(torch.equal, expected))
    assert not torch.equal(*expected) and all(left.sum() < labels.sum() for left in expected)
