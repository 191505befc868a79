"""The training loop on a network of one layer, beside PyTorch's optimiser called by hand."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from utils.method.losses import Losses, Moment
from utils.training.loop import Recipe, Saving, cosine_learning_rate, fit

RECIPE = Recipe(num_epochs=3, batch_size=4, lr=0.1, lr_min=0.02, warmup_epochs=2, weight_decay=0.1, clip_norm=0.05)


class Numbers:
    """Seven inputs in order, whatever the seed, and which seeds and epochs they were asked for."""

    device = torch.device("cpu")
    inputs = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    num_videos = len(inputs)

    def __init__(self):
        self.asked: list[tuple[int, int]] = []

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        self.asked.append((seed, epoch))
        yield from self.inputs.split(batch_size)

    def check_features(self) -> None:
        pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def run(model: nn.Module, run_dir: Path, recipe: Recipe, scores: list[float], parts: int = 1, **arguments: object):
    """Train; returns the progress, every moment of a step, and the data.

    Args:
        parts: of a batch, one after the other; more than one take the optimiser's step themselves.
    """
    moments: list[Moment] = []
    data, remaining = Numbers(), iter(scores)

    def losses(network: nn.Module, batch: Tensor, moment: Moment) -> Losses:
        assert network is model and model.training and torch.is_grad_enabled()
        moments.append(moment)
        return {"total": model(batch).square().mean()}

    def losses_of_parts(network: nn.Module, batch: Tensor, moment: Moment, take_step: Callable[[], Tensor]) -> Losses:
        moments.append(moment)
        total = 0.0
        for part in batch.chunk(parts):
            loss = len(part) / len(batch) * network(part).square().mean()
            loss.backward()
            total = total + loss.detach()
        return {"total": total, "gradient_norm": take_step()}

    def validate() -> dict[str, float]:
        assert not model.training and torch.is_inference_mode_enabled()
        return {"score": next(remaining)}

    log = logging.getLogger("test")
    step = losses if parts == 1 else losses_of_parts
    arguments["takes_steps"] = parts > 1
    return fit(model, data, step, validate, recipe, "score", run_dir, log, **arguments), moments, data


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_steps_are_pytorch_s_on_whole_batches_however_many_parts_these_have(tmp_path: Path, parts: int, name: str):
    ours, theirs = network(), network()
    recipe = replace(RECIPE, optimizer=name, betas=(0.6, 0.9), eps=1e-3)
    progress, moments, data = run(ours, tmp_path, recipe, [0, 0, 0], parts, lr_factors={"1.": 0.5})
    groups = [{"params": theirs[0].parameters()}, {"params": theirs[1].parameters()}]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
    optimizer = kind(groups, lr=0.1, betas=(0.6, 0.9), eps=1e-3, weight_decay=0.1)
    for epoch, lr in enumerate((0.05, 0.1, 0.02)):
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = lr, lr / 2
        totals, norms = [], []
        for batch in data.inputs.split(4):
            loss = theirs(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(theirs.parameters(), 0.05).item())
            optimizer.step()
            totals.append(loss.item())
        history = progress.history[epoch]
        assert history["total"] == pytest.approx(sum(totals) / 2, rel=1e-4)
        assert history["gradient_norm"] == pytest.approx(sum(norms) / 2, rel=1e-4)
        assert history["learning_rate"] == pytest.approx(lr)
    for weight, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)
    assert moments == [Moment(epoch, step) for epoch in (1, 2, 3) for step in (0, 1)]
    assert data.asked == [(20000, 1), (20000, 2), (20000, 3)]


def test_the_first_of_equal_scores_is_the_best_and_its_weights_are_kept(tmp_path: Path):
    model, kept = network(), []

    class Remembered(nn.Sequential):
        def eval(self):
            kept.append({name: weight.clone() for name, weight in self.state_dict().items()})
            return super().eval()

    progress, _, _ = run(Remembered(*model), tmp_path, RECIPE, [1.0, 5.0, 5.0])
    assert (progress.epoch, progress.best_epoch, progress.best_score) == (3, 2, 5.0)
    best = torch.load(tmp_path / "checkpoints/checkpoint_best.pt", weights_only=True)
    assert all(torch.equal(best[name], weight) for name, weight in kept[1].items())


@pytest.mark.parametrize(("keep", "epoch"), [("first_best", 2), ("last_best", 3), ("last", 4)])
def test_the_epoch_that_is_kept_is_the_one_that_the_recipe_says(tmp_path: Path, keep: str, epoch: int):
    model, recipe, scores = network(), replace(RECIPE, num_epochs=4, keep=keep), [1.0, 5.0, 5.0, 2.0]
    progress, _, _ = run(model, tmp_path, recipe, scores, saving=Saving(checkpoint_every=1))
    assert (progress.best_epoch, progress.best_score) == (epoch, scores[epoch - 1])
    kept, of_epoch = (
        torch.load(tmp_path / f"checkpoints/checkpoint_{name}.pt", weights_only=True)
        for name in ("best", f"epoch_{epoch:03d}")
    )
    assert all(torch.equal(kept[name], weight) for name, weight in of_epoch.items())


def test_a_second_step_is_taken_on_the_same_gradient(tmp_path: Path):
    ours, theirs, data = network(), network(), Numbers()
    recipe = replace(RECIPE, num_epochs=1, clip_norm=float("inf"))

    def step(network: nn.Module, batch: Tensor, moment: Moment, take_step: Callable[[bool], Tensor]) -> Losses:
        loss = network(batch).square().mean()
        loss.backward()
        return {"total": loss, "gradient_norm": take_step(moment.step == 1)}

    fit(ours, data, step, lambda: {"score": 0.0}, recipe, "score", tmp_path, logging.getLogger(), takes_steps=True)
    lr = recipe.learning_rate(1)
    optimizer = torch.optim.AdamW(
        theirs.parameters(), lr=lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
    )
    for number, batch in enumerate(data.inputs.split(recipe.batch_size)):
        optimizer.zero_grad()
        theirs(batch).square().mean().backward()
        for _ in range(1 + (number == 1)):
            optimizer.step()
    for weight, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7)


def test_training_stops_after_as_many_epochs_without_a_better_score_as_its_patience(tmp_path: Path):
    recipe = replace(RECIPE, num_epochs=9)
    progress, _, _ = run(network(), tmp_path, recipe, [1.0, 2.0, 1.5, 2.0, 9.0], patience=2)
    assert (progress.epoch, progress.best_epoch) == (4, 2)


def test_checkpoints_are_kept_every_so_many_epochs_and_the_last_state_at_the_end(tmp_path: Path):
    run(network(), tmp_path, RECIPE, [3.0, 2.0, 1.0], saving=Saving(checkpoint_every=2, save_every=2))
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"checkpoint_best.pt", "checkpoint_epoch_002.pt", "last.pt"}
    assert torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)["progress"]["epoch"] == 3


def test_the_state_to_resume_from_is_that_of_the_last_multiple_of_save_every(tmp_path: Path):
    recipe, saving = replace(RECIPE, num_epochs=9), Saving(save_every=3)
    progress, _, _ = run(network(), tmp_path, recipe, [1.0, 2.0, 1.0, 1.0, 1.0], saving=saving, patience=3)
    assert progress.epoch == 5
    assert torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)["progress"]["epoch"] == 3


def test_tensorboard_shows_every_epoch_of_a_run_that_was_resumed(tmp_path: Path):
    run(network(), tmp_path, replace(RECIPE, num_epochs=2), [1.0, 2.0])
    progress, _, _ = run(network(), tmp_path, RECIPE, [3.0], resume=True)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in shown.Scalars("val/score")] == [(1, 1), (2, 2), (3, 3)]
    assert [event.value for event in shown.Scalars("train/learning_rate")] == pytest.approx([0.05, 0.1, 0.02])
    totals = [epoch["total"] for epoch in progress.history]
    assert [event.value for event in shown.Scalars("train/total")] == pytest.approx(totals)


def test_weights_that_need_no_gradient_stay_as_they_are(tmp_path: Path):
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    run(model, tmp_path, RECIPE, [0, 0, 0])
    assert torch.equal(model[0].weight, before)


def test_the_cosine_begins_at_the_end_of_the_warm_up_and_ends_with_the_last_epoch():
    assert [cosine_learning_rate(epoch, 2, 1, 0.1, 0.02) for epoch in (1, 2)] == pytest.approx([0.1, 0.02])
    assert cosine_learning_rate(2, 2, 2, 0.1, 0.02) == pytest.approx(0.1)  # nothing but the warm-up
    for epoch in (0, 3):
        with pytest.raises(ValueError, match="outside"):
            cosine_learning_rate(epoch, 2, 1, 0.1, 0.02)
