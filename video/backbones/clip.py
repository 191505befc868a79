"""CLIP ViT-L/14 (Radford et al., 2021) as transformers has it: features of images and of texts."""

import torch.nn.functional as F
from torch import Tensor, nn

# The sizes of openai/clip-vit-large-patch14; quick GELU is the class's default.
VIT_L_14 = {
    "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    },
}


class CLIP(nn.Module):
    """Features of unit length.

    Args:
        network: transformers' `CLIPModel` with its weights; None: a new one.
        config: of the new one.
    """

    def __init__(self, network: nn.Module | None = None, config: dict = VIT_L_14):
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        self.network = CLIPModel(CLIPConfig(**config)) if network is None else network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, 768)."""
        pooled = self.network.vision_model(pixel_values=images).pooler_output
        return F.normalize(self.network.visual_projection(pooled).float(), dim=-1)

    def text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Two (B, L) -> (B, 768)."""
        pooled = self.network.text_model(input_ids=token_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.network.text_projection(pooled).float(), dim=-1)
