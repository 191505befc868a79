"""An earlier audio-visual classifier: I3D for frames, SoundNet for audio, and a gate that weights both.

Parameter names are those of the common PyTorch ports: I3D's `Conv3d_1a_7x7.conv3d.weight`, SoundNet's `conv1.weight`. B
clips, T frames, L samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavish.lavish_network import ClipOutput

I3D_DIM, SOUNDNET_DIM, JOINT_DIM = 400, 1024, 256  # Kinetics logits, features of conv7, width of the fusion
CLIP_RATE, SOUNDNET_RATE = 16_000, 22_050  # hertz, of packed clips and of SoundNet's training data


class Unit3D(nn.Module):
    """3D convolution, batch norm and ReLU, padded as TensorFlow's "same" does."""

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(in_dim, out_dim, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_dim, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, T, H, W)."""
        return F.relu(self.bn(self.conv3d(pad_same(x, self.kernel, self.stride))))


class SameMaxPool3d(nn.MaxPool3d):
    """Max pooling padded with zeros as TensorFlow's "same" does."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool (B, C, T, H, W)."""
        return super().forward(pad_same(x, self.kernel_size, self.stride))


def pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pad (B, C, T, H, W) with zeros, an odd one at the end, so that output lengths are ceil(length / stride)."""
    pads = []
    for length, size, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(0, size - (length % step or step))
        pads = [total // 2, total - total // 2, *pads]  # F.pad expects the last dimension first
    return F.pad(x, pads)


class Inception(nn.Module):
    """Inception module of four branches; `dims` are the widths of b0, b1a, b1b, b2a, b2b and b3b."""

    def __init__(self, in_dim: int, dims: tuple[int, int, int, int, int, int]):
        super().__init__()
        point, cube = (1, 1, 1), (3, 3, 3)
        self.b0 = Unit3D(in_dim, dims[0], point)
        self.b1a, self.b1b = Unit3D(in_dim, dims[1], point), Unit3D(dims[1], dims[2], cube)
        self.b2a, self.b2b = Unit3D(in_dim, dims[3], point), Unit3D(dims[3], dims[4], cube)
        self.b3a, self.b3b = SameMaxPool3d(cube, point), Unit3D(in_dim, dims[5], point)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the branches: (B, C, T, H, W) -> (B, sum of widths, T, H, W)."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class I3D(nn.Module):
    """Inflated Inception-V1 (Carreira and Zisserman, 2017) up to the logits of Kinetics-400; RGB in [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(3, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64, (1, 1, 1))
        self.Conv3d_2c_3x3 = Unit3D(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Inception(192, (64, 96, 128, 16, 32, 32))
        self.Mixed_3c = Inception(256, (128, 128, 192, 32, 96, 64))
        self.MaxPool3d_4a_3x3 = SameMaxPool3d((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Inception(480, (192, 96, 208, 16, 48, 64))
        self.Mixed_4c = Inception(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = Inception(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = Inception(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = Inception(528, (256, 160, 320, 32, 128, 128))
        self.MaxPool3d_5a_2x2 = SameMaxPool3d((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Inception(832, (256, 160, 320, 32, 128, 128))
        self.Mixed_5c = Inception(832, (384, 192, 384, 48, 128, 128))
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(1024, I3D_DIM, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, T, 3, H, W) -> (B, 400), averaged over space and time."""
        x = frames.transpose(1, 2)
        for name, module in self.named_children():
            if name != "logits":
                x = module(x)
        x = F.avg_pool3d(x, (min(2, x.shape[2]), min(7, x.shape[3]), min(7, x.shape[4])), stride=1)
        return self.logits.conv3d(x).mean(dim=(2, 3, 4))


class SoundNet(nn.ModuleDict):
    """SoundNet's eight-layer network (Aytar et al., 2016) up to conv7, averaged over time."""

    # kernel, stride, padding and subsequent max pooling of conv1 to conv7
    LAYERS = ((64, 2, 32, 8), (32, 2, 16, 8), (16, 2, 8, 1), (8, 2, 4, 1), (4, 2, 2, 4), (4, 2, 2, 1), (4, 2, 2, 1))
    WIDTHS = (1, 16, 32, 64, 128, 256, 512, SOUNDNET_DIM)

    def __init__(self):
        super().__init__()
        for number, (kernel, stride, padding, _) in enumerate(self.LAYERS, start=1):
            in_dim, out_dim = self.WIDTHS[number - 1 : number + 1]
            self[f"conv{number}"] = nn.Conv2d(in_dim, out_dim, (kernel, 1), stride=(stride, 1), padding=(padding, 0))
            self[f"batchnorm{number}"] = nn.BatchNorm2d(out_dim)

    def forward(self, samples: Tensor) -> Tensor:
        """Map (B, L) at 16 kHz in [-1, 1] -> (B, 1024)."""
        x = resample(samples, CLIP_RATE, SOUNDNET_RATE)[:, None, :, None] * 256  # SoundNet's range
        for number, (_, _, _, pool) in enumerate(self.LAYERS, start=1):
            x = F.relu(self[f"batchnorm{number}"](self[f"conv{number}"](x)))
            if pool > 1:
                x = F.max_pool2d(x, (min(pool, x.shape[2]), 1))
        return x.mean(dim=(2, 3))


def resample(samples: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Resample whole clips in the Fourier domain: (B, L) -> (B, L · new / old)."""
    length = round(samples.shape[-1] * new_rate / old_rate)
    spectrum = torch.fft.rfft(samples.float())
    return torch.fft.irfft(spectrum, n=length) * (length / samples.shape[-1])


class I3DSoundNet(nn.Module):
    """I3D and SoundNet, fused by "attention" or "concatenation", or I3D alone ("i3d"); optionally fine-tuned."""

    any_size = True  # audio is a waveform, which does not have to match the frames' size
    patch_size = (1, 1)

    def __init__(self, num_classes: int, fusion: str = "attention", train_backbone: bool = False):
        super().__init__()
        self.fusion = fusion
        self.has_visual, self.has_audio = True, fusion != "i3d"
        self.frozen = not train_backbone
        self.backbone = nn.ModuleDict({"i3d": I3D()})
        self.visual_proj = nn.Linear(I3D_DIM, JOINT_DIM)
        if self.has_audio:
            self.backbone["soundnet"] = SoundNet()
            self.audio_proj = nn.Linear(SOUNDNET_DIM, JOINT_DIM)
        self.backbone.requires_grad_(train_backbone)
        if fusion == "attention":  # softmax weights of both modalities, computed from both
            layers = nn.Linear(2 * JOINT_DIM, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)
            self.gate = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(2 * JOINT_DIM if fusion == "concatenation" else JOINT_DIM, num_classes)

    def train(self, mode: bool = True) -> "I3DSoundNet":
        """Keep frozen networks in evaluation mode."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        return self

    def forward(self, frames: Tensor, samples: Tensor | None) -> ClipOutput:
        """Classify clips: (B, T, 3, H, W) in [-1, 1], (B, L) at 16 kHz."""
        return self.classify(self.encode(frames, samples))

    def encode(self, frames: Tensor, samples: Tensor | None) -> Tensor:
        """Concatenate I3D's 400 and SoundNet's 1024 features of a clip: (B, 1, 400) or (B, 1, 1424)."""
        parts = [self.backbone["i3d"](frames)]
        if self.has_audio:
            parts.append(self.backbone["soundnet"](samples))
        return torch.cat(parts, dim=-1).unsqueeze(1)

    def classify(self, features: Tensor) -> ClipOutput:
        """Classify features: (B, 1, 400) or (B, 1, 1424) -> logits and the fused features."""
        visual, audio = features.squeeze(1).split([I3D_DIM, features.shape[-1] - I3D_DIM], dim=-1)
        fused = self.visual_proj(visual)
        if self.has_audio:
            pair = torch.stack([fused, self.audio_proj(audio)], dim=1)  # (B, 2, 256)
            if self.fusion == "attention":
                weights = self.gate(pair.flatten(1)).softmax(dim=-1)  # (B, 2)
                fused = (weights.unsqueeze(-1) * pair).sum(dim=1)
            else:
                fused = pair.flatten(1)
        fused = F.relu(fused)
        return ClipOutput(self.classifier(self.dropout(fused)), fused)
