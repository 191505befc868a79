"""One training step of stage 3: what is minimised in it, one thing after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from dataloaders.batches import Batch
from models.coleaf import CoLeaF, ReferenceOutput
from models.han import HAN, HANOutput
from utils.audio_visual import AudioVisual
from utils.method.coleaf_objective import GUIDANCE, Guidance, reference_losses
from utils.method.objectives import HANObjective, Losses, Moment

Run = Callable[..., HANOutput]  # a network on tensors, in the run's precision


@dataclass(frozen=True)
class HANStep:
    """The losses of HAN, CMPAE and LEAP."""

    objective: HANObjective

    def __call__(self, network: nn.Module, batch: Batch, moment: Moment, run: Run) -> Iterator[Losses]:
        """Losses by name; "total" is to be minimised before the next ones are asked for."""
        output = run(network, *batch.features)
        targets = self.objective.targets(batch, moment, lambda: run(network, *batch.features, False))
        # The other networks have no classifier that mixup could use, and are trained without it.
        classifier = network.fc_prob if isinstance(network, HAN) else None
        yield self.objective(output, batch, classifier, moment, targets)


@dataclass(frozen=True)
class CoLeaFStep:
    """CoLeaF: first the reference networks learn, then the anchor, also from what they now say."""

    objective: HANObjective
    guidance: Guidance = GUIDANCE

    def __call__(self, network: CoLeaF, batch: Batch, moment: Moment, run: Run) -> Iterator[Losses]:
        """As `HANStep`, of the reference networks and then of the anchor."""
        output = run(network, *batch.features)
        targets = self.objective.targets(batch, moment, lambda: run(network, *batch.features, False))
        references = _references(network, batch, run)
        yield reference_losses(references, targets, output.modality_probs, moment.epoch)

        losses = self.objective(output, batch, None, moment, targets)
        if moment.epoch >= self.guidance.first_epoch:
            with torch.no_grad():
                references = _references(network, batch, run)
            guided = self.guidance.losses(output, references, targets)
            losses = {**losses, **guided, "total": losses["total"] + guided["total"]}
        yield losses


def _references(network: CoLeaF, batch: Batch, run: Run) -> AudioVisual[ReferenceOutput]:
    """What each reference network says of its own modality."""
    networks = AudioVisual(network.audio_reference, network.visual_reference)
    return networks.map(run, batch.features)
