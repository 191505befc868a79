"""ResNet-152 and R(2+1)D-18 without their classifiers, as torchvision has them."""

from torch import nn
from torchvision.models import ResNet, resnet152
from torchvision.models.video import VideoResNet, r2plus1d_18


def resnet152_features() -> ResNet:
    """ResNet-152 up to its classifier: (B, 3, 224, 224) -> (B, 2048)."""
    network = resnet152()
    network.fc = nn.Identity()
    return network


def r2plus1d_18_features() -> VideoResNet:
    """R(2+1)D-18 up to its classifier: (B, 3, 8, 112, 112), eight frames of a second -> (B, 512)."""
    network = r2plus1d_18()
    network.fc = nn.Identity()
    return network
