"""Which frames are chosen, by hand, and pixels beside torchvision and torch. Parity: test_feature_cases.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchvision", reason="pip install -r requirements-video.txt")

from PIL import Image
from torchvision import transforms

from video.frames import (
    CLIP,
    IMAGENET,
    KINETICS,
    Normalization,
    centre_frames,
    clip_pixels,
    lavish_frames,
    lavish_pixels,
    r2plus1d_pixels,
    resnet152_pixels,
    spread_frames,
)


@pytest.mark.parametrize(
    ("num_frames", "count", "nearest", "below"),
    [
        (82, 10, [0, 9, 18, 27, 36, 45, 54, 63, 72, 81], [0, 9, 18, 27, 36, 45, 54, 63, 72, 81]),
        (10, 4, [0, 3, 6, 9], [0, 3, 6, 9]),
        (9, 4, [0, 3, 5, 8], [0, 2, 5, 8]),  # 2.67 and 5.33
        (4, 8, [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 1, 1, 2, 2, 3]),
        (1, 3, [0, 0, 0], [0, 0, 0]),
    ],
)
def test_frames_are_spread_from_first_to_last_and_rounded(
    num_frames: int, count: int, nearest: list[int], below: list[int]
):
    assert spread_frames(num_frames, count).tolist() == nearest
    assert lavish_frames(num_frames, count).tolist() == below


def test_the_centre_frame_is_the_nearest_to_the_middle_of_its_second():
    times = np.array([0.0, 0.4, 0.7, 1.2, 1.45, 1.6, 2.9])
    assert centre_frames(times, 3).tolist() == [1, 4, 6]
    assert centre_frames(times, 5).tolist() == [1, 4, 6, 6, 6]  # the last frame stands for what is missing


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


SHAPES = [(240, 322), (320, 240), (257, 300), (300, 257), (100, 333), (224, 224), (31, 17)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_resnets_pixels_are_torchvisions_resize_and_central_crop(height: int, width: int):
    image = random_image(height, width)
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(Image.fromarray(image))
    np.testing.assert_array_equal(resnet152_pixels(image), np.asarray(theirs))


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_r2plus1ds_pixels_are_torchvisions_resize(height: int, width: int):
    image = random_image(height, width)
    np.testing.assert_array_equal(
        r2plus1d_pixels(image), np.asarray(transforms.Resize((112, 112))(Image.fromarray(image)))
    )


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_clips_and_lavishs_pixels_are_torchs_interpolation(height: int, width: int):
    image = random_image(height, width)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    for pixels, size, mode in (
        (clip_pixels(image), 224, "bilinear"),
        (lavish_pixels(image, 224), 224, "bicubic"),
        (lavish_pixels(image, 33), 33, "bicubic"),
    ):
        theirs = F.interpolate(tensor, (size, size), mode=mode, align_corners=False)[0].permute(1, 2, 0)
        np.testing.assert_allclose(pixels, theirs.numpy(), rtol=0, atol=2e-5)
        assert pixels.dtype == np.float32


def test_normalisations_are_the_published_ones():
    assert Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) == IMAGENET
    assert Normalization((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)) == KINETICS
    assert Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)) == CLIP
