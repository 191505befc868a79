"""ResNet-152 and R(2+1)D-18 without their classifiers, as torchvision has them."""

from torch import nn


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
