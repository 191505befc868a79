"""MM-CSE beside its authors' code: network, losses, training, decoding, first weights; float64."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import train_han
from baselines.mmcse import MMCSELosses, MMCSEStep, event_maps
from baselines.mmcse.mmcse_network import MMCSE, pool_clap_map
from dataloaders.batches import Batch, SegmentPseudoLabels
from tests.baselines.test_method_cases import weights_that_anyone_can_fill_in
from tests.test_reference_cases import Case, every_case_of, opened
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import SplitOutput
from utils.evaluation.tasks import find_task
from utils.method.decoding import DecodingSettings
from utils.method.losses import Losses
from utils.method.metrics import named_scores, parsing_scores
from utils.recipes import parse_recipe
from utils.training.loop import fit

HEADS = ("fc_prob", "fc_frame_att", "fc_av_att")
LOSSES = {  # ours are sums of theirs
    "video": ("video",),
    "audio_segment": ("audio_segments",),
    "visual_segment": ("visual_segments",),
    "reconstruction": ("reconstruction_audio", "reconstruction_visual"),
    "orthogonality": ("orthogonality_audio", "orthogonality_visual"),
    "map": ("map_aa", "map_av", "map_vv", "map_va"),
    "total": ("total",),
}


LOSSES_OF_A_STEP = {
    "total": "losses",
    "video": "losses_video",
    "audio_segment": "losses_audio_segments",
    "visual_segment": "losses_visual_segments",
}


def assert_close(actual: Tensor, expected: Tensor, name: str) -> None:
    """Equal to 1e-9 of the largest value."""
    tolerance = {"rtol": 0, "atol": 1e-9 * expected.abs().max().item(), "msg": lambda text: f"{name}: {text}"}
    torch.testing.assert_close(actual, expected, **tolerance)


def first_state(case: Case, prefix: str = "", factor: float = 1.0) -> dict[str, Tensor]:
    state = weights_that_anyone_can_fill_in(json.loads(case.array(f"{prefix}state_keys").item()), torch.float64)
    return {name: factor * x if name.startswith(HEADS) else x for name, x in state.items()}


def network_of(state: dict[str, Tensor]) -> MMCSE:
    """The authors' weights in our network, without dropout."""
    network = MMCSE.from_state(state, dropout=0.0).double()
    network.load_state_dict(state)
    return network


def features(case: Case, prefix: str = "") -> AudioVisual[Tensor]:
    frames, clips = (case[name].double() for name in ("clip", "st"))
    if prefix == "resnet_":
        frames = case["resnet_frames"].double().unflatten(1, (-1, 8)).mean(dim=2)
        clips = case["resnet_st"].double()
    return AudioVisual(case[f"{prefix}audio"].double(), torch.cat([frames, clips], dim=-1))


def run(network: nn.Module, *inputs: Tensor) -> object:
    return network(*inputs)


def batch_of(case: Case, prefix: str, videos: Tensor) -> Batch:
    labels = AudioVisual(case["audio_segment_labels"].bool(), case["visual_segment_labels"].bool())
    of_batch = [pair.map(lambda x: x[videos]) for pair in (features(case, prefix), labels)]
    weak = case["labels"].double()[videos]
    return Batch(videos, of_batch[0], None, None, weak, None, SegmentPseudoLabels(None, of_batch[1]))


class VideosInOrder:
    """The training videos of a case, in their order."""

    device = torch.device("cpu")

    def __init__(self, case: Case):
        self.case, self.num_videos = case, len(case["labels"])

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        for videos in torch.arange(self.num_videos).split(batch_size):
            yield batch_of(self.case, "", videos)

    def check_features(self) -> None:
        pass


class Traced:
    """Norms of what the modules of a network return, in the order of their calls."""

    def __init__(self, network: MMCSE, names: list[str]):
        self.norms: dict[str, list[Tensor]] = {name: [] for name in names}
        for name, module in network.named_modules():
            if name in self.norms:
                module.register_forward_hook(partial(self.keep, name))

    def keep(self, name: str, module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self.norms[name].append((output[0] if isinstance(output, tuple) else output).norm())


@every_case_of("method_mmcse")
@torch.no_grad()
def test_mm_cse_s_network_equals_the_released_code(path: Path):
    with opened(path) as case:
        for prefix in ("", "map_", "resnet_"):
            network = network_of(first_state(case, prefix)).eval()
            calls = [call.split("#") for call in json.loads(case.array(f"{prefix}trace_names").item())]
            traced = Traced(network, [name for name, _ in calls])
            output = network(*features(case, prefix))
            for name, actual in {
                "video": output.video_probs,
                "audio_pooled": output.modality_probs.audio,
                "visual_pooled": output.modality_probs.visual,
                "logits": torch.stack(output.logits, dim=2),
                "segments": torch.sigmoid(torch.stack(output.logits, dim=2)),
            }.items():
                assert_close(actual, case[prefix + name], prefix + name)
            for (name, call), expected in zip(calls, case[f"{prefix}trace_norms"], strict=True):
                # These are projected before rows of a second, or points of the map, are averaged.
                if (prefix, name) not in (("map_", "fc_a"), ("resnet_", "fc_v")):
                    assert_close(traced.norms[name][int(call)], expected, f"{prefix}{name}#{call}")
        pooling = pool_clap_map(torch.eye(32, dtype=torch.float64).repeat(2, 1).unsqueeze(0))[0]
        assert_close(pooling, case["map_pooling"], "map_pooling")

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.manual_seed(87)
        state = MMCSE(25, 768, [768, 512]).state_dict()  # the authors' first weights
        torch.set_num_threads(threads)
        assert list(state) == json.loads(case.array("first_names").item())
        assert_close(torch.stack([x.double().sum() for x in state.values()]), case["first_sums"], "first sums")
        assert_close(torch.stack([x.double().norm() for x in state.values()]), case["first_norms"], "first norms")


@every_case_of("method_mmcse_losses")
def test_mm_cse_s_losses_and_gradients_equal_the_released_code(path: Path):
    with opened(path) as case:
        names, without = (json.loads(case.array(name).item()) for name in ("grad_names", "no_grad_names"))
        for prefix, kind, factor in (
            ("", "", 1.0),
            ("peaked_", "", case["peaked_factor"].item()),
            ("map_", "map_", 1.0),
        ):
            network = network_of(first_state(case, kind, factor)).train()
            batch, outputs = batch_of(case, kind, torch.arange(len(case["labels"]))), []

            def kept(*inputs: object, outputs=outputs) -> object:
                outputs.append(run(*inputs))
                return outputs[0]

            losses = MMCSEStep(MMCSELosses(), None, kept)(network, batch, None)
            for name, theirs in LOSSES.items():
                expected = sum(case[f"{prefix}loss/{term}"] for term in theirs)
                assert_close(losses[name].detach(), expected, prefix + name)
            losses["total"].backward()
            gradients = {name: x.grad for name, x in network.named_parameters() if x.grad is not None}
            assert set(gradients) == set(names) and not set(without) & set(names)
            norms = torch.stack([gradients[name].norm() for name in names])
            expected = case[f"{prefix}grad_norms"]
            of_rounding = expected < 1e-12
            assert (norms[of_rounding] < 1e-12).all()
            torch.testing.assert_close(norms[~of_rounding], expected[~of_rounding], rtol=1e-9, atol=1e-12)
            assert_close(norms.norm(), case[f"{prefix}grad_norm"], "grad_norm")
            for module in {name.split(".")[0] for name in names}:
                of_module = torch.stack(
                    [norm for norm, name in zip(norms, names, strict=True) if name.split(".")[0] == module]
                )
                assert_close(of_module.norm(), case[f"{prefix}grad_norm/{module}"], module)
            (output,), labels = outputs, batch.pseudo.labels.map(Tensor.double)
            if prefix == "peaked_":
                assert_close(output.video_probs.detach(), case["peaked_video"], "peaked_video")
            if not prefix:
                own, other = event_maps(labels, labels), event_maps(labels, AudioVisual(labels.visual, labels.audio))
                found = {"aa": (output.own_maps.audio, own.audio), "vv": (output.own_maps.visual, own.visual)}
                found |= {"av": (output.other_maps.audio, other.audio), "va": (output.other_maps.visual, other.visual)}
                for name, (attention, target) in found.items():
                    assert_close(attention[0].detach(), case[f"attention_{name}"], name)
                    assert torch.equal(target.bool(), case[f"target_{name}"].bool())


@every_case_of("method_mmcse_decoding")
def test_mm_cse_s_events_and_scores_are_those_of_the_released_code(path: Path):
    with opened(path) as case:
        probs = AudioVisual(*case["segments"].unbind(dim=2))
        pooled = AudioVisual(case["audio_pooled"], case["visual_pooled"])
        logits = probs.map(lambda p: torch.logit(p.double()))  # exactly 0 at 0.5, negative one float32 step below
        output = SplitOutput(logits, case["video"], pooled)
        assert len(case.array("video_names").item()) and json.loads(case.array("score_names").item())[0] == "Seg-a"
        events = find_task("LLP").decode(output, DecodingSettings(decoding="audio_by_video", inclusive=True))
        for name, found in events._asdict().items():
            assert torch.equal(found, case[f"decoded_{name}"].bool()), name
        scores = named_scores(parsing_scores(events, AudioVisual(case["gt_audio"].bool(), case["gt_visual"].bool())))
        torch.testing.assert_close(torch.tensor([*scores.values()], dtype=torch.float64), case["scores"][:10])


@every_case_of("training_mmcse")
def test_mm_cse_trains_as_with_its_authors_code(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("utils.training.loop.save_checkpoint", lambda state, path: None)
    with opened(path) as case:
        for prefix, schedule in (("", "step"), ("cosine_", "cosine")):
            flags = ["--method", "mmcse", "--batch_size", "4", "--schedule", schedule]
            method, settings = parse_recipe(train_han.Settings, "", flags, ())
            rates = torch.tensor([settings.recipe.learning_rate(epoch) for epoch in range(1, 61)], dtype=torch.float64)
            torch.testing.assert_close(rates, case["schedule_cosine" if prefix else "schedule_steplr"])
            assert torch.equal(case[f"{prefix}learning_rates"], rates[:2].repeat_interleave(6))

            network, videos = network_of(first_state(case)), VideosInOrder(case)
            step = method.make_step(settings.losses, videos, run)
            weights = [x for x in network.parameters() if x.requires_grad]
            steps: dict[str, list[Tensor]] = defaultdict(list)

            def checked(*inputs: object, step=step, weights=weights, steps=steps) -> Losses:
                losses = step(*inputs)
                gradients = torch.autograd.grad(losses["total"], weights, retain_graph=True, allow_unused=True)
                steps["grad_norms"].append(torch.stack([x.norm() for x in gradients if x is not None]).norm())
                for ours, theirs in LOSSES_OF_A_STEP.items():
                    steps[theirs].append(losses[ours].detach())
                return losses

            recipe = replace(settings.recipe, num_epochs=2)
            fit(network, videos, checked, lambda: {"none": 0.0}, recipe, "none", tmp_path, logging.getLogger())
            for name, values in steps.items():
                expected = case[prefix + name]
                torch.testing.assert_close(torch.stack(values), expected, rtol=1e-9, atol=0)
            state = {name: x.detach() for name, x in network.state_dict().items()}
            of_names = [state[name] for name in json.loads(case.array("names").item())]
            norms, sums = torch.stack([x.norm() for x in of_names]), torch.stack([x.sum() for x in of_names])
            torch.testing.assert_close(norms, case[f"{prefix}norms"], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(sums, case[f"{prefix}sums"], rtol=1e-9, atol=1e-11)
