"""VGGish (Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017)."""

import torch
from torch import Tensor, nn


class VGGish(nn.Module):
    """Log-mel spectrograms to embeddings, with the parameter names of the PyTorch port of the released checkpoint.

    The output is that of the last ReLU: neither PCA nor quantisation follows, as in LLP's published features.
    """

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for group in ((64,), (128,), (256, 256), (512, 512)):
            for width in group:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = 4096
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 128),
            nn.ReLU(inplace=True),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, 96, 64) spectrograms of a second each -> (B, 128)."""
        maps = self.features(log_mel[:, None])  # (B, 512, 6, 4)
        # Time, mel, channel: the order in which the TensorFlow original flattens.
        return self.embeddings(torch.flatten(maps.permute(0, 2, 3, 1), 1))
