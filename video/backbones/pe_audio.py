"""PE-A-Frame (Vyas et al., CVPR 2026): embeddings of 25 audio frames per second and of texts, from transformers.

The logit of a frame for a text is their inner product times a scale, plus a bias. B clips, F frames, L tokens, D
features.
"""

import torch
from torch import Tensor, nn


class PEAudio(nn.Module):
    """A given `PeAudioFrameLevelModel` of transformers, or a new one with the given sizes."""

    def __init__(self, network: nn.Module | None = None, config: dict | None = None):
        from transformers import PeAudioConfig, PeAudioFrameLevelModel

        super().__init__()
        self.network = PeAudioFrameLevelModel(PeAudioConfig(**config or {})) if network is None else network
        # text embeddings come from the 22nd layer itself, which transformers would replace by the normalised output
        self.network.text_model.config.tie_last_hidden_states = False

    def forward(self, waves: Tensor) -> Tensor:
        """Compute features of frames: (B, samples) in [-1, 1] at 48 kHz -> (B, F, D), not normalised.

        NaN pads shorter clips, which are computed separately, since padding would affect their last frames.
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
        """Compute features of clips of equal length; NaN in the result becomes infinite, as NaN marks padding."""
        return self.network.get_audio_embeds(waves.unsqueeze(1)).float().nan_to_num(nan=torch.inf)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute text features, multiplied by the scale of the logits: (B, L) both -> (B, D)."""
        tokens = {"input_ids": token_ids, "attention_mask": attention_mask, "output_hidden_states": True}
        first = self.network.text_model(**tokens).hidden_states[-1][:, 0]
        return (self.network.text_audio_head(first) * self.network.text_audio_logit_scale).float()

    @property
    def bias(self) -> float:
        """Return the bias of the logits."""
        return self.network.text_audio_logit_bias.item()
