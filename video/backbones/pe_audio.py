"""PE-A-Frame (Vyas et al., CVPR 2026): 25 audio frames a second and texts in one space, from transformers.

B clips, F frames, L tokens, D features. A frame's logit for a text is their product times a scale, plus a bias.
"""

import torch
from torch import Tensor, nn

SAMPLES_OF_A_FRAME = 1920  # 40 ms at 48 kHz


class PEAudio(nn.Module):
    """transformers' `PeAudioFrameLevelModel` with its weights, or a new one of the given sizes."""

    def __init__(self, network: nn.Module | None = None, config: dict | None = None):
        from transformers import PeAudioConfig, PeAudioFrameLevelModel

        super().__init__()
        self.network = PeAudioFrameLevelModel(PeAudioConfig(**config or {})) if network is None else network
        # The original reads texts from the 22nd layer itself; transformers would replace it by the normalised output.
        self.network.text_model.config.tie_last_hidden_states = False

    def forward(self, waves: Tensor) -> Tensor:
        """Compute features of frames: (B, samples) in [-1, 1] at 48 kHz -> (B, F, D), not normalised.

        NaN follows the end of shorter clips, in both. Those are computed alone: beside longer ones, the padding would
        reach their last frames through convolutions.
        """
        num_samples = (~waves.isnan()).sum(dim=1)
        whole = num_samples == waves.shape[1]
        frames = self.embed(torch.where(whole.unsqueeze(1), waves, 0))
        for n in (~whole).nonzero().squeeze(1).tolist():
            own = self.embed(waves[n : n + 1, : num_samples[n]])[0]
            frames[n] = torch.nan
            frames[n, : len(own)] = own
        return frames

    def embed(self, waves: Tensor) -> Tensor:
        """Compute features of clips of one length; what is NaN in them becomes infinite, as NaN marks padding."""
        return self.network.get_audio_embeds(waves.unsqueeze(1)).float().nan_to_num(nan=torch.inf)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute features of texts: (B, L) both -> (B, D), multiplied by the scale of the logits."""
        tokens = {"input_ids": token_ids, "attention_mask": attention_mask, "output_hidden_states": True}
        first = self.network.text_model(**tokens).hidden_states[-1][:, 0]
        return (self.network.text_audio_head(first) * self.network.text_audio_logit_scale).float()

    @property
    def bias(self) -> float:
        """Return the bias of the logits."""
        return self.network.text_audio_logit_bias.item()
