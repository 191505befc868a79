"""A pair of values, one audio and one visual, used for all data from annotations to scores."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class AudioVisual(NamedTuple, Generic[T]):
    """One value per modality. Unpacks as `audio, visual = pair`."""

    audio: T
    visual: T

    def map(self, function: Callable[..., R], *others: "AudioVisual") -> "AudioVisual[R]":
        """Apply `function` to each modality, with the same modality of the other pairs as further arguments."""
        return AudioVisual(*map(function, self, *others))


MODALITIES = AudioVisual._fields  # ("audio", "visual")
