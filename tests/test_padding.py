"""Videos of different lengths in one batch: what is computed of a video does not depend on the padding beside it."""

import pytest
import torch
from torch import Tensor, nn

from baselines.cmpae import CMPAELosses
from baselines.cmpae.cmpae_network import CMPAE, CMPAEConfig
from baselines.coleaf import guidance_losses
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.jomold import JoMoLDStep
from baselines.leap import LEAPLosses, LEAPStep
from baselines.leap.leap_network import LEAP, LEAPConfig
from baselines.lsld import LSLDLosses, LSLDStep
from baselines.ma import MABaseLosses, MAStep
from baselines.mmcse import MMCSELosses, MMCSEStep
from baselines.mmcse.mmcse_network import MMCSE, MMCSEConfig
from dataloaders.batches import Batch, SegmentPseudoLabels
from models import HAN, HANConfig
from utils.audio_visual import AudioVisual
from utils.method.losses import Moment
from utils.method.metrics import parsing_scores
from utils.method.uwav_objective import UWAVLosses, UWAVStep

LENGTHS, C = torch.tensor([3, 9, 1, 6]), 5
SMALL = {"dim": 16, "num_heads": 2, "ffn_dim": 16, "num_layers": 2}
HAN_SETTINGS = ({}, {"pre_norm": True}, {"encoder_order": "parallel"}, {"cross_attention": False})
NETWORKS = [
    *(lambda more=more: HAN(C, 7, [6, 4], HANConfig(**SMALL, **more)) for more in HAN_SETTINGS),
    lambda: CMPAE(C, 7, [6, 4], CMPAEConfig(**SMALL)),
    lambda: CoLeaF(C, 7, [6, 4], CMPAEConfig(**SMALL)),
    lambda: LEAP(C, 7, [6, 4], LEAPConfig(**SMALL), torch.randn(C, 8)),
    lambda: MMCSE(C, 7, [6, 4], MMCSEConfig(dim=8, event_dim=4, num_heads=2, ffn_dim=8, num_layers=2, dropout=0.0)),
]


def padded_batch(longest: int) -> Batch:
    """The same four videos whatever `longest` is; garbage after their ends."""
    torch.manual_seed(0)
    audio, visual, teacher = (torch.randn(4, 9, width) for width in (7, 10, 2 * C))
    garbage = torch.Generator().manual_seed(longest)
    mask = torch.arange(longest) < LENGTHS.unsqueeze(1)

    def pad(x: Tensor) -> Tensor:
        whole = 5 * torch.randn(4, longest, x.shape[-1], generator=garbage)
        whole[mask] = x[mask[:, :9]]
        return whole

    features = AudioVisual(pad(audio), pad(visual))
    logits = AudioVisual(*(teacher.masked_fill(~mask[:, :9].unsqueeze(-1), 0)).chunk(2, dim=-1))
    ends = torch.minimum(torch.arange(longest), LENGTHS.unsqueeze(1) - 1)  # labels repeat the last segment
    logits = logits.map(lambda z: z[torch.arange(4).unsqueeze(1), ends])
    labels = (torch.arange(4 * C).view(4, C) % 3 != 0).float()
    pseudo = SegmentPseudoLabels(logits, logits.map(lambda z: (z > 0) & labels.bool().unsqueeze(1)))
    valid = mask.flatten().nonzero().squeeze(1)
    return Batch(torch.arange(4), features, mask, valid, labels, None, pseudo)


def built(make) -> nn.Module:
    torch.manual_seed(1)
    return make().eval()


@pytest.mark.parametrize("make", NETWORKS)
def test_a_network_gives_each_video_what_it_gives_it_alone(make):
    network, batch = built(make), padded_batch(12)
    together = network(*batch.features, **batch.padding)
    for n, length in enumerate(LENGTHS.tolist()):
        alone = network(*(x[n : n + 1, :length] for x in batch.features))
        for ours, expected in zip(together.logits, alone.logits, strict=True):
            torch.testing.assert_close(ours[n, :length], expected[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.video_probs[n], alone.video_probs[0], atol=1e-5, rtol=1e-5)
        for ours, expected in zip(together.modality_probs, alone.modality_probs, strict=True):
            torch.testing.assert_close(ours[n], expected[0], atol=1e-5, rtol=1e-5)
    assert all(z.isfinite().all() for z in together.logits)


class Split:
    """What the steps ask of the training split."""

    class annotations:  # noqa: N801
        video_labels = padded_batch(9).video_labels.bool()

    device = torch.device("cpu")


def run(network: nn.Module, *inputs: Tensor | bool, **padding: Tensor) -> object:
    return network(*inputs, **padding)


def uwav(**settings: object) -> UWAVStep:
    of_classes = AudioVisual(torch.linspace(-0.3, 0.4, C), torch.tensor([0.1, -torch.inf, 0.0, 0.2, -0.1]))
    frequencies = AudioVisual(torch.linspace(0.1, 0.3, C), torch.linspace(0.3, 0.1, C))
    return UWAVStep(UWAVLosses(**settings), of_classes, frequencies, run)


STEPS = {
    "uwav": (0, lambda: uwav()),
    "uwav, hard": (0, lambda: uwav(segment_labels="hard", mixup_labels="ceiling")),
    "lsld": (0, lambda: LSLDStep(LSLDLosses(), Split, run)),
    "ma": (0, lambda: MAStep(MABaseLosses(), Split, run)),
    "jomold": (0, lambda: JoMoLDStep(MABaseLosses(), Split, run)),
    "cmpae": (4, lambda: JoMoLDStep(MABaseLosses(), Split, run)),
    "leap": (6, lambda: LEAPStep(LEAPLosses(), Split, run)),
    "mmcse": (7, lambda: MMCSEStep(MMCSELosses(), Split, run)),
}


@pytest.mark.parametrize("name", STEPS)
def test_losses_and_gradients_do_not_depend_on_how_much_padding_there_is(name: str):
    number, make_step = STEPS[name]
    found = []
    for longest in (9, 14):
        network, batch = built(NETWORKS[number]), padded_batch(longest)
        torch.manual_seed(2)  # mixup draws
        losses = make_step()(network, batch, Moment(3, 1))
        losses["total"].backward()
        gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        found.append((torch.stack(list(losses.values())).detach(), gradients))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert found[0][1].isfinite().all()


def test_coleafs_guidance_does_not_depend_on_padding_either():
    found = []
    for longest in (9, 14):
        network, batch = built(NETWORKS[5]), padded_batch(longest)
        seconds = AudioVisual(batch.features.audio, batch.features.visual)
        references = AudioVisual(
            network.audio_reference(seconds.audio, **batch.padding),
            network.visual_reference(seconds.visual, **batch.padding),
        )
        targets = AudioVisual(batch.video_labels, batch.video_labels)
        output = network(*batch.features, **batch.padding)
        losses = guidance_losses(output, references, targets, CMPAELosses(), batch.mask)
        found.append(torch.stack(list(losses.values())))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["ma", "jomold"])
def test_videos_of_equal_length_lose_the_same_with_a_mask_as_without(name: str):
    batch = padded_batch(9)
    batch.features = batch.features.map(lambda x: x[:, :3])
    network, losses = built(NETWORKS[0]), []
    for mask in (None, torch.ones(4, 3, dtype=torch.bool)):
        batch.mask, batch.valid_rows = mask, None if mask is None else torch.arange(12)
        losses.append(STEPS[name][1]()(network, batch, Moment(1, 0))["total"])
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)


def test_padding_of_truth_and_prediction_counts_for_nothing():
    torch.manual_seed(0)
    prediction, truth = (AudioVisual(*(torch.rand(2, 3, 8, C) > 0.6)) for _ in range(2))
    longer = [pair.map(lambda events: nn.functional.pad(events, (0, 0, 0, 5))) for pair in (prediction, truth)]
    assert parsing_scores(*longer) == parsing_scores(prediction, truth)
