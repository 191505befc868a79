"""VGGish, ResNet-152 and R(2+1)D-18, and two light networks for laptops with 29 MB of weights. B rows.

Features of the light networks, MN04 and EfficientNet-Lite2, are the inputs of their classifiers, which recognise events
without further training.
"""

from functools import partial

import torch
from torch import Tensor, nn


class VGGish(nn.Module):
    """VGGish with the parameter names of the PyTorch port of the released checkpoint.

    Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017. The output is that of the
    last ReLU, without PCA and quantisation, as in LLP's published features.
    """

    def __init__(self):
        from torchvision.models.vgg import make_layers

        super().__init__()
        self.features = make_layers([64, "M", 128, "M", 256, 256, "M", 512, 512, "M"])
        self.features[0] = nn.Conv2d(1, 64, 3, padding=1)
        linear = ((512 * 6 * 4, 4096), (4096, 4096), (4096, 128))
        pairs = ((nn.Linear(*sizes), nn.ReLU(inplace=True)) for sizes in linear)
        self.embeddings = nn.Sequential(*(layer for pair in pairs for layer in pair))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Compute features of log-mel spectrograms of a second each: (B, 96, 64) -> (B, 128)."""
        maps = self.features(log_mel[:, None])  # (B, 512, 6, 4)
        # (time, mel, channel) is the order in which the TensorFlow original flattens
        return self.embeddings(torch.flatten(maps.permute(0, 2, 3, 1), 1))


def torchvision_features(name: str) -> nn.Module:
    """Return torchvision's `resnet152` or `r2plus1d_18` without its classifier.

    ResNet-152: (B, 3, 224, 224) -> (B, 2048). R(2+1)D-18: (B, 3, 8, 112, 112), eight frames of a second -> (B, 512).
    """
    from torchvision.models import get_model

    network = get_model(name)
    network.fc = nn.Identity()
    return network


class MN04(nn.Module):
    """EfficientAT's MobileNet of width 0.4 on AudioSet (Schmid et al., ICASSP 2023), under the names of its checkpoint.

    MobileNetV3-Large with one input channel, squeeze-and-excitation by linear layers, and smaller widths.
    """

    def __init__(self):
        from torchvision.models.mobilenetv3 import InvertedResidual, mobilenet_v3_large

        super().__init__()
        block = partial(InvertedResidual, se_layer=SqueezeExcitation)
        network = mobilenet_v3_large(width_mult=0.4, num_classes=527, block=block)
        self.features = network.features
        self.features[0][0] = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        # in the checkpoint, two pooling layers precede the classifier
        self.classifier = nn.Sequential(nn.Identity(), nn.Identity(), *network.classifier)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Compute features of log-mel spectrograms: (B, frames, 128) -> (B, 384)."""
        return self.features(log_mel.transpose(1, 2).unsqueeze(1)).mean((2, 3))

    def probs(self, features: Tensor) -> Tensor:
        """Return the multi-label probabilities of AudioSet's classes: (B, 384) -> (B, 527)."""
        return self.classifier(features).sigmoid()


class SqueezeExcitation(nn.Module):
    """EfficientAT's squeeze-and-excitation over channels."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        layers = nn.ModuleDict({"fc1": nn.Linear(channels, squeezed), "fc2": nn.Linear(squeezed, channels)})
        self.conc_se_layers = nn.ModuleList([layers])

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of (B, channels, bands, frames)."""
        layers = self.conc_se_layers[0]
        weights = layers["fc2"](layers["fc1"](x.mean((2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]


class EfficientNetLite2(nn.Module):
    """timm's EfficientNet-Lite2 on ImageNet (Tan and Le, 2019; without squeeze-and-excitation, with ReLU6)."""

    def __init__(self):
        import timm

        super().__init__()
        self.network = timm.create_model("tf_efficientnet_lite2")

    def forward(self, images: Tensor) -> Tensor:
        """Compute features of images: (B, 3, 260, 260) -> (B, 1280)."""
        return self.network.forward_head(self.network.forward_features(images), pre_logits=True)

    def probs(self, features: Tensor) -> Tensor:
        """Return the probabilities of ImageNet's classes, which sum to 1: (B, 1280) -> (B, 1000)."""
        return self.network.classifier(features).softmax(-1)
