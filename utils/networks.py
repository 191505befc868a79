"""What the training loop trains: one network, or several seeds of it stacked and computed as one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.func import functional_call, stack_module_state

from dataloaders.batches import Batch, Teacher
from models.streams import RandomStreams, default_generators

Losses = dict[str, Tensor]  # by name; "total" is minimised
StepLosses = Callable[[nn.Module, Batch], Losses]  # of a network on a batch

register_dataclass(Teacher)  # so that torch.vmap takes a batch apart
register_dataclass(Batch)


class SingleNetwork:
    """One run.

    Args:
        network: on its device.
        seed: of the order of its batches.
    """

    def __init__(self, network: nn.Module, seed: int, device: torch.device):
        self.network = network
        self.seed = seed
        self.num_runs = 1
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self._generators = default_generators(device)

    def losses(self, step_losses: StepLosses, batch: Batch) -> Losses:
        """The losses of a batch, scalars."""
        return step_losses(self.network, batch)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Scale the gradients down to a norm. Returns the norm before, a scalar."""
        return nn.utils.clip_grad_norm_(self.parameters, max_norm)

    def network_of(self, run: int) -> nn.Module:
        """The network with the present weights of a run."""
        return self.network

    def state_dict(self) -> dict[str, object]:
        """Weights and random streams."""
        generators = [generator.get_state() for generator in self._generators]
        return {"network": self.network.state_dict(), "generators": generators}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`. KeyError, RuntimeError or ValueError when it does not fit."""
        self.network.load_state_dict(state["network"])
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.set_state(saved)


class StackedNetworks:
    """Several runs that differ in their seed alone: parameters stacked, one batched step for all of them.

    Each run sees the batches and draws the random numbers that it would see and draw alone, so it ends where it would
    end alone, but for rounding.

    Args:
        make_network: builds the network of a run on the device; called once a seed, after seeding.
        seeds: of the runs, R of them.
    """

    def __init__(self, make_network: Callable[[], nn.Module], seeds: Sequence[int], device: torch.device):
        self.seed = tuple(seeds)
        self.num_runs = len(self.seed)
        self._streams = RandomStreams(device)
        networks = []
        for seed in self.seed:
            torch.manual_seed(seed)
            networks.append(make_network())
            self._streams.add_run()
        trained, buffers = stack_module_state(networks)  # (R, ...) each
        self._values: dict[str, Tensor] = {**trained, **buffers}
        self.parameters: list[Tensor] = [p for p in trained.values() if p.requires_grad]
        self.network = networks[0]  # the architecture; holds the weights of whichever run was asked for last

    def losses(self, step_losses: StepLosses, batch: Batch) -> Losses:
        """The losses of a batch whose tensors have a first dimension of runs: (R,) each."""
        step = _Step(self.network, step_losses)

        def of_run(values: dict[str, Tensor], batch: Batch) -> Losses:
            return functional_call(step, {f"network.{name}": value for name, value in values.items()}, (batch,))

        with self._streams.active():
            return torch.vmap(of_run, randomness="error")(self._values, batch)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Scale the gradients of each run down to a norm. Returns the norms before, (R,)."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)  # (R,)
        factors = (max_norm / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
        return norms

    def network_of(self, run: int) -> nn.Module:
        """The network with the present weights of a run, until it is asked for another's."""
        self.network.load_state_dict({name: value[run] for name, value in self._values.items()})
        return self.network

    def state_dict(self) -> dict[str, object]:
        """Weights and random streams of all runs."""
        return {"network": self._values, "generators": self._streams.states, "seeds": list(self.seed)}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`. KeyError, RuntimeError or ValueError when it does not fit."""
        shapes = {name: value.shape for name, value in state["network"].items()}
        if shapes != {name: value.shape for name, value in self._values.items()}:
            raise ValueError("another network")
        if state["seeds"] != list(self.seed):
            raise ValueError(f"seeds {state['seeds']} instead of {list(self.seed)}")
        if [len(run) for run in state["generators"]] != [len(run) for run in self._streams.states]:
            raise ValueError("the random streams of another kind of device")
        with torch.no_grad():
            for name, value in self._values.items():
                value.copy_(state["network"][name])
        self._streams.states = state["generators"]


class _Step(nn.Module):
    """A training step as a module, so that `functional_call` gives the network in it the weights of a run."""

    def __init__(self, network: nn.Module, step_losses: StepLosses):
        super().__init__()
        self.network = network
        self._step_losses = step_losses

    def forward(self, batch: Batch) -> Losses:
        return self._step_losses(self.network, batch)
