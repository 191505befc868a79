"""F-scores on events in one modality only, which CoLeaF reports and selects checkpoints by (Sardari et al., 2024)."""

from dataclasses import replace

from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.method.metrics import LevelScores, ParsingScores, parsing_scores, type_at_av


def unimodal_scores(prediction: AudioVisual[Tensor], truth: AudioVisual[Tensor]) -> ParsingScores:
    """Compute scores on audible-only (A) and visible-only (V) events in percent: (N, T, C) bool each.

    Event pools both, AV is that of `parsing_scores`, and Type is the mean of A, V and AV.
    """

    def in_one_modality(events: AudioVisual[Tensor]) -> AudioVisual[Tensor]:
        return AudioVisual(events.audio & ~events.visual, events.visual & ~events.audio)

    def level(own: LevelScores, of_both: LevelScores) -> LevelScores:
        mean = type_at_av(own.audio, own.visual, of_both.audio_visual)
        return replace(own, audio_visual=of_both.audio_visual, type_at_av=mean)

    whole = parsing_scores(prediction, truth)
    alone = parsing_scores(in_one_modality(prediction), in_one_modality(truth))
    return ParsingScores(level(alone.segment, whole.segment), level(alone.event, whole.event))
