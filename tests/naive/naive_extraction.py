"""Feature extraction the authors' way: frames as JPEG files, sound as WAV files, one script a backbone, one video at a
time. Written for the benchmark from the description of their scripts."""

import wave
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from video.frames import CLIP, IMAGENET, KINETICS
from video.sounds import clap_boundaries, clap_mel, vggish_log_mel
from video.video_decoding import decode_video

FRAMES, SEGMENTS = 80, 10


def write_jpegs(video: Path, folder: Path) -> None:
    """What `ffmpeg -r 8 %06d.jpg` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(decode_video(video).frames):
        Image.fromarray(frame).save(folder / f"{number + 1:06d}.jpg", quality=95)


def write_wave(video: Path, path: Path, rate: int) -> None:
    """What `ffmpeg -ac 1 -ar <rate>` leaves; every rate decodes the file again."""
    with av.open(str(video)) as container, wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                file.writeframes(piece.to_ndarray()[0].tobytes())


def read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def read_jpegs(folder: Path, count: int, transform) -> Tensor:
    """(count, 3, h, w) float32."""
    files = sorted(folder.glob("*.jpg"))
    chosen = np.round(np.linspace(0, len(files) - 1, count)).astype(int)
    return torch.stack([transform(Image.open(files[n]).convert("RGB")) for n in chosen])


@torch.no_grad()
def resnet152_script(network: nn.Module, folder: Path) -> np.ndarray:
    """(80, 2048)."""
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET.mean, IMAGENET.deviation),
        ]
    )
    images = read_jpegs(folder, FRAMES, transform)
    return network(images).numpy()


@torch.no_grad()
def r2plus1d_script(network: nn.Module, folder: Path) -> np.ndarray:
    """(10, 512)."""
    transform = transforms.Compose(
        [
            transforms.Resize((112, 112)),
            transforms.ToTensor(),
            transforms.Normalize(KINETICS.mean, KINETICS.deviation),
        ]
    )
    images = read_jpegs(folder, FRAMES, transform)
    clips = images.reshape(SEGMENTS, 8, 3, 112, 112).transpose(1, 2)
    return torch.cat([network(clip[None]) for clip in clips]).numpy()


@torch.no_grad()
def clip_script(network: nn.Module, folder: Path) -> np.ndarray:
    """(10, 768)."""
    to_tensor = transforms.ToTensor()
    images = read_jpegs(folder, SEGMENTS, to_tensor)
    images = nn.functional.interpolate(images, (224, 224), mode="bilinear", align_corners=False)
    return network(transforms.functional.normalize(images, CLIP.mean, CLIP.deviation)).numpy()


@torch.no_grad()
def vggish_script(network: nn.Module, sound: Path) -> np.ndarray:
    """(10, 128), a second at a time."""
    log_mel = torch.from_numpy(vggish_log_mel(read_wave(sound), SEGMENTS))
    return torch.cat([network(one[None]) for one in log_mel]).numpy()


@torch.no_grad()
def clap_script(network: nn.Module, sound: Path) -> np.ndarray:
    """(10, 512), a slice at a time."""
    pcm = read_wave(sound)[: SEGMENTS * 48_000]
    boundaries = clap_boundaries(len(pcm), SEGMENTS)
    slices = [clap_mel(pcm, boundaries[i : i + 1]) for i in range(SEGMENTS)]
    return torch.cat([network(torch.from_numpy(mel)) for mel in slices]).numpy()


def extract_naively(video: Path, folder: Path, networks: dict[str, nn.Module]) -> dict[str, np.ndarray]:
    """All five features of one ten-second video, one script after the other.

    Args:
        folder: takes JPEGs and WAV files.
    """
    write_jpegs(video, folder / "frames")
    write_wave(video, folder / "16000.wav", 16_000)
    write_wave(video, folder / "48000.wav", 48_000)
    return {
        "vggish": vggish_script(networks["vggish"], folder / "16000.wav"),
        "res152": resnet152_script(networks["res152"], folder / "frames"),
        "r2plus1d_18": r2plus1d_script(networks["r2plus1d_18"], folder / "frames"),
        "clip": clip_script(networks["clip"], folder / "frames"),
        "clap": clap_script(networks["clap"], folder / "48000.wav"),
    }
