"""F-scores of events in one modality alone, which CoLeaF reports and selects by (Sardari et al., ECCV 2024)."""

from dataclasses import replace

from torch import Tensor

from utils.audio_visual import AudioVisual
from utils.method.metrics import LevelScores, ParsingScores, parsing_scores, type_at_av


def unimodal_scores(prediction: AudioVisual[Tensor], truth: AudioVisual[Tensor]) -> ParsingScores:
    """Compute scores of events that are audible and not visible, or the reverse: (N, T, C) bool each -> percent.

    A and V are the F-scores of these, Event pools both, AV is that of `parsing_scores`, and Type the mean of the three.
    """

    def in_one_modality(events: AudioVisual[Tensor]) -> AudioVisual[Tensor]:
        return AudioVisual(events.audio & ~events.visual, events.visual & ~events.audio)

    def level(own: LevelScores, of_both: LevelScores) -> LevelScores:
        mean = type_at_av(own.audio, own.visual, of_both.audio_visual)
        return replace(own, audio_visual=of_both.audio_visual, type_at_av=mean)

    whole = parsing_scores(prediction, truth)
    alone = parsing_scores(in_one_modality(prediction), in_one_modality(truth))
    return ParsingScores(level(alone.segment, whole.segment), level(alone.event, whole.event))
