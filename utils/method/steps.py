"""One training step of stage 3: what is minimised in it, one thing after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from baselines.coleaf.coleaf_network import ReferenceOutput
from baselines.coleaf.coleaf_objective import GUIDANCE, Guidance, reference_losses
from dataloaders.batches import Batch
from models import CoLeaF, HANOutput, ParsingNetwork
from utils.audio_visual import AudioVisual
from utils.method.objectives import HANObjective, Losses, Moment

Forward = Callable[..., HANOutput]  # (network, *its arguments), in the run's precision


@dataclass(frozen=True)
class HANStep:
    """The losses of a network that is trained by itself."""

    network: ParsingNetwork
    objective: HANObjective
    forward: Forward

    def __call__(self, batch: Batch, moment: Moment) -> Iterator[Losses]:
        """Losses by name; "total" is to be minimised before the next ones are asked for."""
        output = self.forward(self.network, *batch.features)
        targets = self.objective.targets(batch, moment, lambda: self.forward(self.network, *batch.features, False))
        classifier = self.network.fc_prob if self.network.can_mix else None
        yield self.objective(output, batch, classifier, moment, targets)


@dataclass(frozen=True)
class CoLeaFStep:
    """CoLeaF: first the reference networks learn, then the anchor, also from what they now predict."""

    network: CoLeaF
    objective: HANObjective
    forward: Forward
    guidance: Guidance = GUIDANCE

    def __call__(self, batch: Batch, moment: Moment) -> Iterator[Losses]:
        """As `HANStep`, of the reference networks and then of the anchor."""
        output = self.forward(self.network, *batch.features)
        targets = self.objective.targets(batch, moment, lambda: self.forward(self.network, *batch.features, False))
        yield reference_losses(self._references(batch), targets, output.modality_probs, moment.epoch)

        losses = self.objective(output, batch, None, moment, targets)
        if moment.epoch >= self.guidance.first_epoch:
            with torch.no_grad():
                references = self._references(batch)
            guided = self.guidance.losses(output, references, targets)
            losses = {**losses, **guided, "total": losses["total"] + guided["total"]}
        yield losses

    def _references(self, batch: Batch) -> AudioVisual[ReferenceOutput]:
        """What each reference network makes of its own modality."""
        networks = AudioVisual(self.network.audio_reference, self.network.visual_reference)
        return networks.map(self.forward, batch.features)


def make_step(network: ParsingNetwork, objective: HANObjective, forward: Forward) -> HANStep | CoLeaFStep:
    """The training step that suits the network."""
    return (CoLeaFStep if network.has_references else HANStep)(network, objective, forward)
