"""Pixel values and patches against values by hand."""

import numpy as np
import torch

from captum_gmar.demo.patches import GRID, PATCH, patch_shares, scene_pixel_values, to_pixel_values
from captum_gmar.demo.scenes import make_scene


def test_black_is_minus_one_and_white_is_one():
    image = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    image[0, 1, 2] = torch.tensor([255, 0, 255])
    pixels = to_pixel_values(image)
    assert pixels.shape == (1, 3, 2, 3)
    assert pixels[0, :, 1, 2].tolist() == [1, -1, 1]
    assert (pixels == -1).sum() == pixels.numel() - 2


def test_scenes_come_back_from_their_pixel_values():
    scenes = [make_scene(1), make_scene(2)]
    images = (scene_pixel_values(scenes) + 1) * 127.5
    assert (images.permute(0, 2, 3, 1).round().byte().numpy() == np.stack([scene.image for scene in scenes])).all()


def test_shares_of_patches_in_a_mask():
    """The mask holds one patch and the left half of the patch below."""
    mask = np.zeros((GRID * PATCH, GRID * PATCH), dtype=bool)
    mask[:PATCH, PATCH : 2 * PATCH] = True
    mask[PATCH : 2 * PATCH, PATCH : PATCH + PATCH // 2] = True
    shares = patch_shares(mask).view(GRID, GRID)
    assert (shares[0, 1], shares[1, 1]) == (1, 0.5)
    assert shares.sum() == 1.5
