"""VGGish, and ResNet-152 and R(2+1)D-18 without their classifiers."""

import torch
from torch import Tensor, nn


class VGGish(nn.Module):
    """Log-mel spectrograms to embeddings, with the parameter names of the PyTorch port of the released checkpoint.

    Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017.
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


def resnet152_features() -> nn.Module:
    """ResNet-152 up to its classifier: (B, 3, 224, 224) -> (B, 2048)."""
    from torchvision.models import resnet152

    network = resnet152()
    network.fc = nn.Identity()
    return network


def r2plus1d_18_features() -> nn.Module:
    """R(2+1)D-18 up to its classifier: (B, 3, 8, 112, 112), eight frames of a second -> (B, 512)."""
    from torchvision.models.video import r2plus1d_18

    network = r2plus1d_18()
    network.fc = nn.Identity()
    return network
