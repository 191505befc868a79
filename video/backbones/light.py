"""Two small classifiers with real weights of 27 MB, for laptops: EfficientAT's mn04 and EfficientNet-Lite2.

Their features are what their last layers see; the last layers themselves name events without any training of ours.
"""

from functools import partial

from torch import Tensor, nn


class MN04(nn.Module):
    """EfficientAT's MobileNet of width 0.4 on AudioSet (Schmid et al., ICASSP 2023), under the names of its checkpoint.

    MobileNetV3-Large but for one input channel, squeeze-and-excitation by linear layers, and narrower widths.
    """

    def __init__(self):
        from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig, MobileNetV3

        super().__init__()
        blocks = (  # input, kernel, expanded, output, squeeze-and-excitation, activation, stride
            (16, 3, 16, 16, False, "RE", 1),
            (16, 3, 64, 24, False, "RE", 2),
            (24, 3, 72, 24, False, "RE", 1),
            (24, 5, 72, 40, True, "RE", 2),
            (40, 5, 120, 40, True, "RE", 1),
            (40, 5, 120, 40, True, "RE", 1),
            (40, 3, 240, 80, False, "HS", 2),
            (80, 3, 200, 80, False, "HS", 1),
            (80, 3, 184, 80, False, "HS", 1),
            (80, 3, 184, 80, False, "HS", 1),
            (80, 3, 480, 112, True, "HS", 1),
            (112, 3, 672, 112, True, "HS", 1),
            (112, 5, 672, 160, True, "HS", 2),
            (160, 5, 960, 160, True, "HS", 1),
            (160, 5, 960, 160, True, "HS", 1),
        )
        settings = [InvertedResidualConfig(*block, dilation=1, width_mult=0.4) for block in blocks]
        block = partial(InvertedResidual, se_layer=SqueezeExcitation)
        self.features = MobileNetV3(settings, last_channel=512, block=block).features
        self.features[0][0] = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        pooling = (nn.Identity(), nn.Identity())  # the checkpoint counts what averages over places
        layers = (nn.Linear(384, 512), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(512, 527))
        self.classifier = nn.Sequential(*pooling, *layers)

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, frames, 128) -> (B, 384)."""
        return self.features(log_mel.transpose(1, 2).unsqueeze(1)).mean((2, 3))

    def probs(self, features: Tensor) -> Tensor:
        """(B, 384) -> probabilities of AudioSet's classes, several of which may be present: (B, 527)."""
        return self.classifier(features).sigmoid()


class SqueezeExcitation(nn.Module):
    """EfficientAT's, over channels."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        layers = nn.ModuleDict({"fc1": nn.Linear(channels, squeezed), "fc2": nn.Linear(squeezed, channels)})
        self.conc_se_layers = nn.ModuleList([layers])

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, bands, frames), also returned."""
        layers = self.conc_se_layers[0]
        weights = layers["fc2"](layers["fc1"](x.mean((2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]


class EfficientNetLite2(nn.Module):
    """timm's, on ImageNet (Tan and Le, 2019; Lite: without squeeze-and-excitation and with ReLU6)."""

    def __init__(self):
        import timm

        super().__init__()
        self.network = timm.create_model("tf_efficientnet_lite2")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 260, 260) -> (B, 1280)."""
        return self.network.forward_head(self.network.forward_features(images), pre_logits=True)

    def probs(self, features: Tensor) -> Tensor:
        """(B, 1280) -> probabilities of ImageNet's classes, one of which is present: (B, 1000)."""
        return self.network.classifier(features).softmax(-1)
