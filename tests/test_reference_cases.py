"""Parity with the method's released code, on every file of a folder of reference cases.

The folder is named by the environment variable UWAV_REFERENCE_CASES. Without it, the cases that come with the project
are read, and those of ../shared/reference_cases that the project lacks, should that folder exist. A file's prefix says
what it holds, and nothing here knows the sizes of a case: they come from the case itself.

Cases of real annotations need those annotations, one folder a data set, below UWAV_ANNOTATIONS (default:
../shared/annotations); without them they are skipped.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dataloaders import llp, unav
from dataloaders.annotations import SplitAnnotations
from dataloaders.features import read_segment_features
from models import HAN, HANConfig, TemporalTransformer, TemporalTransformerConfig
from utils.audio_visual import MODALITIES, AudioVisual
from utils.method.decoding import decode_segments
from utils.method.losses import (
    audio_visual_loss,
    class_balance_weights,
    mixup_features,
    mixup_loss,
    segment_loss,
    soft_pseudo_labels,
    video_loss,
)
from utils.method.metrics import parsing_scores, per_video_f_scores, segment_accuracy
from utils.method.thresholds import ThresholdSearch, class_agnostic_threshold, classwise_thresholds
from utils.training.loop import cosine_learning_rate

ROOT = Path(__file__).parents[1]
OWN_FOLDER = ROOT / "tests" / "reference_cases"
SHARED_FOLDER = ROOT.parent / "shared" / "reference_cases"
SHARED_ANNOTATIONS = ROOT.parent / "shared" / "annotations"

# The first pattern that matches a file's name tells its kind.
KINDS = {
    "metrics": r"metrics.*\.npz",
    "accuracy": r"accuracy.*\.npz",
    "han_training": r"han_training.*\.npz",
    "han": r"han.*\.npz",
    "han_checkpoint": r"han.*\.pt",
    "temporal_transformer": r"temporal_transformer.*\.npz",
    "thresholds": r"thresholds.*\.npz",
    "schedule": r"schedule.*\.npz",
    "llp_ground_truth": r"llp_ground_truth.*\.npz",
    "unav_labels": r"unav_labels.*\.npz",
    "unav_pooling": r"unav_pooling.*\.npz",
    # Checked in test_method_cases.py.
    "ma_exchange": r"ma_exchange.*\.npz",
    "method_jomold": r"method_jomold.*\.npz",
    "method_cmpae_losses": r"method_cmpae_losses.*\.npz",
    "method_cmpae": r"method_cmpae.*\.npz",
    "method_coleaf_losses": r"method_coleaf_losses.*\.npz",
    "method_leap_losses": r"method_leap_losses.*\.npz",
    # Checked in test_mmcse_cases.py.
    "method_mmcse_losses": r"method_mmcse_losses.*\.npz",
    "method_mmcse_decoding": r"method_mmcse_decoding.*\.npz",
    "method_mmcse": r"method_mmcse.*\.npz",
    "training_mmcse": r"training_mmcse.*\.npz",
    # Checked in test_training_cases.py.
    "training_inputs": r"training_inputs\.npz",
    "training_han": r"training_han.*\.npz",
    "training_ma_base": r"training_ma_base.*\.npz",
    "training_ma_retrain": r"training_ma_retrain.*\.npz",
    "training_jomold_base": r"training_jomold_base.*\.npz",
    "training_jomold": r"training_jomold_denoise.*\.npz",
    "training_cmpae": r"training_cmpae.*\.npz",
    "training_coleaf": r"training_coleaf.*\.npz",
    "training_leap": r"training_leap.*\.npz",
    "features_vggish": r"features_vggish.*\.npz",
    "features_frames": r"features_frames.*\.npz",
    "features_pixels": r"features_pixels.*\.npz",
    "features_clap": r"features_clap.*\.npz",
    "lavish_adapter": r"lavish_adapter.*\.npz",
    "lavish_filter_banks": r"lavish_filter_banks.*\.npz",
    "lavish_swin": r"lavish_swin.*\.npz",
    "lavish_vit": r"lavish_vit.*\.npz",
}


def cases_in(folder: Path) -> list[Path]:
    """Every entry of a folder of reference cases, save its README and hidden files; an empty folder is an error."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of reference cases {folder} does not exist")
    cases = sorted(path for path in folder.iterdir() if path.name != "README.md" and not path.name.startswith("."))
    if not cases:
        raise FileNotFoundError(f"the folder of reference cases {folder} holds no file")
    return cases


def all_cases() -> list[Path]:
    if named := os.environ.get("UWAV_REFERENCE_CASES"):
        return cases_in(Path(named))
    cases = {path.name: path for path in cases_in(SHARED_FOLDER)} if SHARED_FOLDER.is_dir() else {}
    return list((cases | {path.name: path for path in cases_in(OWN_FOLDER)}).values())


def find_kind(path: Path) -> str | None:
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, path.name)), None)


CASES = all_cases()  # when there are none, the collection of this module fails, whichever tests were selected


def every_case_of(kind: str) -> pytest.MarkDecorator:
    """Run a test on each file of one kind; it is skipped when the folder holds none."""
    none = pytest.param(None, id="none", marks=pytest.mark.skip(reason=f"no reference case of the kind {kind}"))
    found = [pytest.param(path, id=path.name) for path in CASES if find_kind(path) == kind]
    return pytest.mark.parametrize("path", found or [none])


class Case:
    """The arrays of one file, which remembers those that were read."""

    def __init__(self, path: Path):
        self.arrays = dict(np.load(path))
        self.unread = set(self.arrays)

    def array(self, key: str) -> np.ndarray:
        self.unread.discard(key)
        return self.arrays[key]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.array(key))

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def matching(self, pattern: str) -> list[re.Match]:
        return [match for key in self.arrays if (match := re.fullmatch(pattern, key))]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Everything called `prefix/<name>`, by name."""
        return {match[1]: self[match[0]] for match in self.matching(f"{prefix}/(.*)")}


@contextmanager
def opened(path: Path) -> Iterator[Case]:
    """A case that must have been compared in full by the end of the block."""
    case = Case(path)
    yield case
    assert not case.unread, f"{path.name} holds arrays that no check reads: {sorted(case.unread)}"


def assert_equal_to_rounding(actual: Tensor | float, expected: Tensor, name: str, precision: torch.dtype) -> None:
    """Equal to 1e-5 where float32 was used and 1e-9 in float64, relative to the largest of the expected magnitudes."""
    actual, expected = torch.as_tensor(actual).detach().double(), expected.double()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[precision] * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}")


def assert_identical(actual: Tensor, expected: Tensor, name: str) -> None:
    """Same shape and the same labels, whether these are stored as bool, integers or floats."""
    assert actual.shape == expected.shape, f"{name} is of shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    num_different = (actual.double() != expected.double()).sum().item()
    assert num_different == 0, f"{name} differs in {num_different} of {expected.numel()} entries"


def gradient_norm(model: nn.Module) -> Tensor:
    """Norm over all parameters, summed in float64: float32 sums on a CPU are wrong by more than 1e-5."""
    gradients = [
        parameter.grad.double().square().sum() for parameter in model.parameters() if parameter.grad is not None
    ]
    return torch.stack(gradients).sum().sqrt()


def hidden_width(parameters: dict[str, Tensor], mlp: str, num_layers: int) -> int | None:
    """Width between the layers of an MLP, None when it has one layer only."""
    return parameters[f"{mlp}.layers.0.weight"].shape[0] if num_layers > 1 else None


def build_han(case: Case) -> HAN:
    """HAN without dropout, of the configuration and with the weights and the precision of a case."""
    parameters = case.below("param")
    (
        num_classes,
        visual_2d_dim,
        visual_3d_dim,
        audio_dim,
        dim,
        num_heads,
        ffn_dim,
        num_layers,
        num_proj_layers,
        num_mmil_layers,
        pre_norm,
    ) = case["config"].tolist()
    config = HANConfig(
        dim=dim,
        num_heads=num_heads,
        ffn_dim=ffn_dim,
        num_layers=num_layers,
        num_proj_layers=num_proj_layers,
        num_mmil_layers=num_mmil_layers,
        proj_hidden_dim=hidden_width(parameters, "fc_fusion", num_proj_layers),
        mmil_hidden_dim=hidden_width(parameters, "fc_frame_att", num_mmil_layers),
        dropout=0.0,
        pre_norm=bool(pre_norm),
    )
    model = HAN(num_classes, audio_dim, (visual_2d_dim, visual_3d_dim), config).to(case["in_audio"].dtype)
    model.load_state_dict(parameters)
    return model


def visual_input(case: Case) -> Tensor:
    """2D features, averaged over the frames of each second where they are not yet, beside the 3D ones: (B, T, D)."""
    frames, clips = case["in_visual_2d"], case["in_visual_3d"]
    seconds = frames.unflatten(1, (clips.shape[1], -1)).mean(dim=2)
    return torch.cat([seconds, clips], dim=-1)


@every_case_of("metrics")
def test_f_scores_equal_the_released_code(path: Path):
    with opened(path) as case:
        prediction = AudioVisual(case["pred_audio"], case["pred_visual"])
        truth = AudioVisual(case["gt_audio"], case["gt_visual"])
        for level in ("segment", "event"):
            audio, visual, audio_visual, event_at_av = per_video_f_scores(prediction, truth, level).unbind(dim=1)
            ordered = torch.stack([audio, visual, event_at_av, audio_visual], dim=1)  # the released code's order
            torch.testing.assert_close(ordered, case[f"per_video_{level}"], rtol=1e-9, atol=1e-9)
        scores = parsing_scores(prediction, truth)
        flat = torch.tensor(
            [
                score
                for level in (scores.segment, scores.event)
                for score in (level.audio, level.visual, level.audio_visual, level.type_at_av, level.event_at_av)
            ],
            dtype=torch.float64,
        )
        torch.testing.assert_close(flat, case["scores"], rtol=1e-9, atol=1e-9)


@every_case_of("accuracy")
def test_accuracy_equals_the_released_code(path: Path):
    with opened(path) as case:
        assert segment_accuracy(case["pred"], case["gt"]) == pytest.approx(case["accuracy"].item(), rel=1e-9, abs=1e-9)


@every_case_of("han")
def test_han_its_losses_and_its_predictions_equal_the_released_code(path: Path):
    with opened(path) as case:
        model, precision = build_han(case), case["in_audio"].dtype
        output = model(case["in_audio"], visual_input(case))
        for key, actual in {
            "out_video_probs": output.video_probs,
            "out_audio_probs": output.modality_probs.audio,
            "out_visual_probs": output.modality_probs.visual,
            "out_audio_logits": output.logits.audio,
            "out_visual_logits": output.logits.visual,
            "out_audio_feats": output.features.audio,
            "out_visual_feats": output.features.visual,
        }.items():
            assert_equal_to_rounding(actual, case[key], key, precision)

        predictions = decode_segments(output.logits, output.video_probs)
        assert_identical(predictions.audio, case["pred_audio"], "pred_audio")
        assert_identical(predictions.visual, case["pred_visual"], "pred_visual")

        labels, lam, permutation = case["video_labels"], case["mixup_lambda"].item(), case["mixup_perm"]
        losses = {"video": video_loss(output.video_probs, labels)}
        for modality, logits, features in zip(MODALITIES, output.logits, output.features, strict=True):
            mixed_logits = model.fc_prob(mixup_features(features, lam, permutation))
            weights = class_balance_weights(labels, case[f"class_freq_{modality}"], 0.5, "sum")
            thresholds = case[f"thresholds_{modality}"]
            soft = soft_pseudo_labels(case[f"teacher_logits_{modality}"], thresholds, labels, temperature=2.0)
            for name, targets in {"soft": soft, "hard": case[f"pseudo_{modality}"]}.items():
                losses[f"segment_{name}_{modality}"] = segment_loss(logits, targets)
                losses[f"segment_{name}_rw_{modality}"] = segment_loss(logits, targets, weights)
                losses[f"mixup_{name}_{modality}"] = mixup_loss(mixed_logits, targets, lam, permutation)
        losses["total"] = losses["video"] + sum(
            losses[f"{term}_{modality}"]
            for term in ("segment_soft_rw", "mixup_soft")
            for modality in ("audio", "visual")
        )
        expected_losses = case.below("loss")
        assert expected_losses.keys() <= losses.keys()
        for name, expected in expected_losses.items():
            assert_equal_to_rounding(losses[name], expected, f"loss/{name}", precision)

        losses["total"].backward()
        assert_equal_to_rounding(gradient_norm(model), case["grad_norm"], "grad_norm", precision)


@every_case_of("han_training")
def test_training_han_gives_the_losses_and_weights_of_the_released_code(path: Path):
    with opened(path) as case:
        model, precision = build_han(case), case["in_audio"].dtype
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=case["lr"].item(), weight_decay=case["weight_decay"].item(), eps=1e-8
        )
        audio, visual, labels = case["in_audio"], visual_input(case), case["video_labels"]
        teachers = {}
        for modality in ("audio", "visual"):
            frequencies = case[f"class_freq_{modality}"]
            shares = case[f"pseudo_{modality}"].flatten(0, 1).mean(dim=0)
            assert_equal_to_rounding(shares, frequencies, f"class_freq_{modality}", precision)
            teachers[modality] = case[f"teacher_logits_{modality}"], case[f"thresholds_{modality}"], frequencies

        batches = cycle(torch.arange(labels.shape[0]).split(case["batch_size"].item()))
        for step, expected in enumerate(case["losses"]):
            batch = next(batches)
            output = model(audio[batch], visual[batch])
            loss = video_loss(output.video_probs, labels[batch])
            for modality, (teacher_logits, thresholds, frequencies) in teachers.items():
                targets = soft_pseudo_labels(teacher_logits[batch], thresholds, labels[batch], temperature=2.0)
                weights = class_balance_weights(labels[batch], frequencies, 0.5, "sum")
                loss = loss + segment_loss(output.logits._asdict()[modality], targets, weights)
            assert_equal_to_rounding(loss, expected, f"loss of step {step}", precision)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        final, expected_final = model.state_dict(), case.below("final")
        assert final.keys() == expected_final.keys()
        for name, expected in expected_final.items():
            assert_equal_to_rounding(final[name], expected, f"final/{name}", precision)


@every_case_of("han_checkpoint")
def test_a_released_han_checkpoint_loads_as_it_is(path: Path):
    state = torch.load(path, map_location="cpu", weights_only=True)

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, key) is not None for key in state)

    num_classes, dim = state["fc_prob.weight"].shape
    audio_dim, visual_dim = (state[f"{mlp}.layers.0.weight"].shape[1] for mlp in ("fc_a", "fc_fusion"))
    num_proj_layers, num_mmil_layers = (count(rf"{mlp}\.layers\.\d+\.weight") for mlp in ("fc_fusion", "fc_frame_att"))
    config = HANConfig(
        dim=dim,
        num_heads=1,  # no weight tells the number of heads
        ffn_dim=state["hat_encoder.layers.0.linear1.weight"].shape[0],
        num_layers=count(r"hat_encoder\.layers\.\d+\.linear1\.weight"),
        num_proj_layers=num_proj_layers,
        num_mmil_layers=num_mmil_layers,
        proj_hidden_dim=hidden_width(state, "fc_fusion", num_proj_layers),
        mmil_hidden_dim=hidden_width(state, "fc_frame_att", num_mmil_layers),
    )
    model = HAN(num_classes, audio_dim, (visual_dim,), config).to(precision := state["fc_prob.weight"].dtype)
    model.load_state_dict(state)
    for name, loaded in model.state_dict().items():
        assert torch.equal(loaded, state[name]), name
    output = model(torch.zeros(2, 3, audio_dim, dtype=precision), torch.zeros(2, 3, visual_dim, dtype=precision))
    assert output.logits.audio.shape == (2, 3, num_classes)
    assert output.video_probs.isfinite().all()


@every_case_of("temporal_transformer")
def test_the_temporal_transformer_and_its_loss_equal_the_released_code(path: Path):
    with opened(path) as case:
        visual_dim, audio_dim, dim, num_heads, ffn_dim, num_layers = case["config"].tolist()
        audio, visual = case["in_clap"], case["in_clip"]
        audio_texts, visual_texts = case["clap_event_feats"], case["clip_event_feats"]
        config = TemporalTransformerConfig(
            dim=dim, num_heads=num_heads, ffn_dim=ffn_dim, num_layers=num_layers, dropout=0.0
        )
        text_dims = (audio_texts.shape[1], visual_texts.shape[1])
        model = TemporalTransformer(audio_dim, visual_dim, *text_dims, config).to(precision := audio.dtype)
        model.load_state_dict(case.below("param"))

        mask = torch.arange(audio.shape[1]) < case["lengths"].unsqueeze(1)  # (B, T)
        output = model(audio, visual, audio_texts, visual_texts, mask)
        for modality, logits in zip(MODALITIES, output.logits, strict=True):
            key = f"out_{modality}_logits"
            assert_equal_to_rounding(logits[mask], case[key][mask], key, precision)

        loss = audio_visual_loss(output.logits, case["labels"], mask, occurring_weight=5.0)
        assert_equal_to_rounding(loss, case["loss"], "loss", precision)
        loss.backward()
        assert_equal_to_rounding(gradient_norm(model), case["grad_norm"], "grad_norm", precision)


def assert_same_search(search: ThresholdSearch, thresholds: Tensor, f1: Tensor) -> None:
    """Equal to 1e-6 where a row has positives; without any, no threshold is better than another and F1 is undefined."""
    defined = ~search.f1.isnan()
    assert not (f1[~defined] > 0).any()
    torch.testing.assert_close(search.thresholds[defined], thresholds[defined].double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(search.f1[defined], f1[defined].double(), rtol=1e-6, atol=1e-6)


@every_case_of("thresholds")
def test_thresholds_equal_the_released_code(path: Path):
    with opened(path) as case:
        inputs = case["logits"], case["labels"], case["video_labels"]
        assert_same_search(classwise_thresholds(*inputs), case["classwise_thresholds"], case["classwise_f1"])
        agnostic = case["class_agnostic_threshold"].reshape(1), case["class_agnostic_f1"].reshape(1)
        assert_same_search(class_agnostic_threshold(*inputs), *agnostic)


@every_case_of("schedule")
def test_the_learning_rate_of_every_epoch_equals_the_released_code(path: Path):
    with opened(path) as case:
        for name in [match[1] for match in case.matching("(.*)_config")]:
            warmup_epochs, num_epochs, lr_min, lr = case[f"{name}_config"].tolist()
            epochs = range(1, int(num_epochs) + 1)
            rates = [cosine_learning_rate(epoch, int(num_epochs), int(warmup_epochs), lr, lr_min) for epoch in epochs]
            torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), case[name], rtol=1e-9, atol=0)


def annotations(dataset: str, load_split: Callable[[Path, str], SplitAnnotations], split: str) -> SplitAnnotations:
    """A split's real annotations; skips the test when nobody named a folder of annotations and there is none nearby."""
    named = os.environ.get("UWAV_ANNOTATIONS")
    folder = Path(named or SHARED_ANNOTATIONS) / dataset
    if not named and not folder.is_dir():
        pytest.skip(f"{dataset}'s real annotations are neither in {folder} nor named by UWAV_ANNOTATIONS")
    return load_split(folder, split)


@every_case_of("llp_ground_truth")
def test_llp_labels_equal_the_released_code(path: Path):
    with opened(path) as case:
        for split in [match[1] for match in case.matching("(.*)_ids")]:
            own = annotations("LLP", llp.load_split, split)
            sample_ids = case.array(f"{split}_ids").tolist()
            assert sorted(own.sample_ids) == sorted(sample_ids)
            own = own.subset(torch.tensor([own.sample_ids.index(sample_id) for sample_id in sample_ids]))
            assert_identical(own.video_labels, case[f"{split}_video_labels"], f"{split}_video_labels")
            for modality, labels in zip(MODALITIES, own.labels, strict=True):
                expected = case[f"{split}_{modality}"]
                assert_identical(labels.view(expected.shape), expected, f"{split}_{modality}")


@every_case_of("unav_labels")
def test_unav_labels_equal_the_released_code(path: Path):
    with opened(path) as case:
        for split in [match[1] for match in case.matching("(.*)_num_videos")]:
            own = annotations("UnAV", unav.load_split, split)
            assert own.num_videos == case[f"{split}_num_videos"].item()
            assert own.lengths.sum().item() == case[f"{split}_total_segments"].item()
            key = f"{split}_positive_segments_per_class"
            assert_identical(own.labels.audio.sum(dim=0), case[key], key)
            assert_identical(own.labels.visual, own.labels.audio, "visual labels")
            for video, expected in case.below(f"{split}_labels").items():
                labels = own.subset(torch.tensor([own.sample_ids.index(video)]))
                assert_identical(labels.labels.audio, expected, f"{split}_labels/{video}")
                assert_identical(labels.video_labels[0], expected.any(dim=0), f"video label of {video}")


@every_case_of("unav_pooling")
def test_unav_features_are_pooled_to_seconds_as_by_the_released_code(path: Path, tmp_path: Path):
    with opened(path) as case:
        np.save(tmp_path / "video.npy", case.array("feats"))
        for match in case.matching(r"pooled_(\d+)"):
            pooled = read_segment_features(tmp_path / "video.npy", "clip", int(match[1]), pooled=True)
            assert_equal_to_rounding(torch.from_numpy(pooled), case[match[0]], match[0], torch.float32)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in CASES])
def test_every_reference_case_is_of_a_known_kind(path: Path):
    assert find_kind(path), f"no check is known for {path}; expected a name like one of {', '.join(KINDS.values())}"


def test_a_reference_case_of_unknown_prefix_is_of_no_kind():
    assert find_kind(Path("unheard_of.npz")) is None


def test_an_empty_folder_of_reference_cases_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no file"):
        cases_in(tmp_path)


def test_an_absent_folder_of_reference_cases_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        cases_in(tmp_path / "absent")


def test_an_array_that_no_check_reads_is_an_error(tmp_path: Path):
    np.savez(tmp_path / "accuracy.npz", known=np.zeros(1), forgotten=np.zeros(1))
    with pytest.raises(AssertionError, match="forgotten"), opened(tmp_path / "accuracy.npz") as case:
        case["known"]


def test_soft_labels_of_absent_classes_are_zero_even_where_their_logits_are_infinite():
    teacher_logits = torch.tensor([[[3.0, -torch.inf], [1.0, -torch.inf]], [[-torch.inf, 2.0], [-torch.inf, 4.0]]])
    labels = torch.eye(2)
    soft = soft_pseudo_labels(teacher_logits, torch.tensor([-torch.inf, 1.0]), labels, temperature=2.0)
    present = torch.sigmoid(torch.tensor([[1.5, 0.5], [0.5, 1.5]]))  # the threshold of class 0 becomes 1 - 1 = 0
    torch.testing.assert_close(soft[labels.bool().unsqueeze(1).expand_as(soft)].view(2, 2), present)
    assert torch.equal(soft[0, :, 1], torch.zeros(2)) and torch.equal(soft[1, :, 0], torch.zeros(2))
