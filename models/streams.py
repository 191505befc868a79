"""Random numbers of several runs that are computed as one: each run draws what it would draw alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Drawn = Tensor | tuple[Tensor, ...]


def default_generators(device: torch.device) -> list[torch.Generator]:
    """The generators that operations on a device draw from when none is named: the CPU's, and the device's own."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # there are none before
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    return generators


class RandomStreams:
    """One random stream a run, each beginning where the default generators are when it is added."""

    def __init__(self, device: torch.device):
        self._generators = default_generators(device)
        self.states: list[list[Tensor]] = []  # of each run, a state of each generator

    def add_run(self) -> None:
        """Begin the stream of one more run here."""
        self.states.append([generator.get_state() for generator in self._generators])

    @contextmanager
    def of_run(self, run: int) -> Iterator[None]:
        """Draw from the stream of one run."""
        for generator, state in zip(self._generators, self.states[run], strict=True):
            generator.set_state(state)
        yield
        self.states[run] = [generator.get_state() for generator in self._generators]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let `drawn_per_run` draw from these streams."""
        global _active
        before, _active = _active, self
        try:
            yield
        finally:
            _active = before


_active: RandomStreams | None = None


def several_runs() -> bool:
    """Whether several runs are being computed as one."""
    return _active is not None


def drawn_per_run(draw: Callable[..., Drawn], *tensors: Tensor) -> Drawn:
    """Call a function that draws random numbers; within several runs at a time, once for each with its own stream.

    Several runs are computed by `torch.vmap`, which knows one stream only. Here the function sees the tensors of one
    run after the other and runs the kernels that it would run alone, so it draws the same numbers.

    Args:
        draw: takes the tensors, gives a tensor or a tuple of tensors. Gradients flow through it.
        tensors: within several runs at least one of them has to belong to the runs.
    """
    if _active is None:
        return draw(*tensors)
    return _DrawnPerRun.apply(draw, *tensors)


class _DrawnPerRun(torch.autograd.Function):
    """Only its rule for `torch.vmap` is ever used; autograd follows the operations inside."""

    @staticmethod
    def forward(draw, *tensors):
        raise ValueError("drawn_per_run was given no tensor of the runs: pass one that depends on their inputs")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Nothing to keep."""

    @staticmethod
    def vmap(info, in_dims: Sequence[int | None], draw: Callable[..., Drawn], *tensors: Tensor):
        of_runs = [
            [t] * info.batch_size if dim is None else t.unbind(dim) for t, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        drawn = []
        for run, of_run in enumerate(zip(*of_runs, strict=True)):
            with _active.of_run(run):
                drawn.append(draw(*of_run))
        if isinstance(drawn[0], Tensor):
            return torch.stack(drawn), 0
        stacked = tuple(torch.stack(parts) for parts in zip(*drawn, strict=True))
        return stacked, (0,) * len(stacked)
