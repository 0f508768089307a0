"""Noisy linear imputation against the dense linear system of all removed pixels."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import NoisyLinear, road


class Imputation(NamedTuple):
    """Imputation without noise, up to a tolerance."""

    tolerance: float

    def perturb(self, images, removed):
        return road.impute(images, removed, self.tolerance)


EXACT = Imputation(1e-5)


def dense_solution(image, gone):
    """Solve the equations of all removed pixels in double precision."""
    image, gone = image.double().numpy(), gone.numpy()
    channels, height, width = image.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if gone[y, x]]
    number = {pixel: i for i, pixel in enumerate(pixels)}
    matrix, right = np.zeros((len(pixels), len(pixels))), np.zeros((len(pixels), channels))
    for i, (y, x) in enumerate(pixels):
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            v, u = y + dy, x + dx
            if not (0 <= v < height and 0 <= u < width):
                continue
            weight = 1 / 6 if 0 in (dy, dx) else 1 / 12
            matrix[i, i] += weight
            if (v, u) in number:
                matrix[i, number[v, u]] -= weight
            else:
                right[i] += weight * image[:, v, u]
    solution = image.copy()
    solution[:, gone] = np.linalg.solve(matrix, right).T
    return torch.from_numpy(solution)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((24, 32), (3, 4)),  # patches of 8x8
        ((24, 32), (6, 4)),  # not square
        ((12, 18), (1, 3)),  # one row
        ((12, 12), (12, 12)),  # pixels
        ((6, 6), (3, 2)),  # without inside
        ((24, 4), (24, 1)),  # one pixel high
        ((40, 40), (1, 2)),  # too large to be eliminated as a whole
        ((34, 3), (2, 1)),  # of a prime number of rows
        ((24, 24), (24, 24)),  # more of them
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_against_the_dense_system(size, grid, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *size, generator=generator, dtype=dtype)
    removed = torch.rand(2, 4, *grid, generator=generator) < tensor([0.2, 0.5, 0.8, 0.95])[:, None, None]
    removed[..., 0, 0] = False
    perturbed = Imputation(tolerance).perturb(images, removed)
    gone = removed.repeat_interleave(size[0] // grid[0], 2).repeat_interleave(size[1] // grid[1], 3)
    assert gone.any()
    for example in range(2):
        for part in range(4):
            expected = dense_solution(images[example], gone[example, part])
            assert_close(perturbed[example, part], expected.to(dtype), rtol=0, atol=tolerance)


def test_one_pixel_by_hand():
    image = torch.arange(9.0).view(1, 1, 3, 3) ** 2
    removed = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    removed[0, 0, 1, 1] = removed[0, 1, 0, 0] = True
    perturbed = EXACT.perturb(image, removed)[0, :, 0]
    assert float(perturbed[0, 1, 1]) == pytest.approx((1 + 9 + 25 + 49) / 6 + (0 + 4 + 36 + 64) / 12)
    assert float(perturbed[1, 0, 0]) == pytest.approx((1 / 6 + 9 / 6 + 16 / 12) / (1 / 6 + 1 / 6 + 1 / 12))


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
def test_no_pixel_is_farther_off_than_the_tolerance(tolerance):
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(2, 3, 12, 12, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")
    removed = torch.rand(2, 5, 12, 12, generator=generator) < torch.linspace(0.1, 0.97, 5)[:, None, None]
    exact = EXACT.perturb(images, removed)
    error = (Imputation(tolerance).perturb(images, removed) - exact).abs().max()
    assert 0 < error <= tolerance


@pytest.mark.parametrize("connected", [False, True])
def test_few_steps_are_enough(monkeypatch, connected):
    """The number of steps depends neither on the distance of kept pixels nor on the removed share."""
    generator = torch.Generator().manual_seed(4)
    image = torch.randn(1, 3, 112, 112, generator=generator)
    scores = torch.rand(1, 1, 14, 14, generator=generator)
    scores = torch.nn.functional.avg_pool2d(scores, 5, 1, 2) if connected else scores
    removed = scores < scores.quantile(torch.linspace(0.05, 0.95, 10)).view(1, 10, 1, 1)
    exact = EXACT.perturb(image, removed)
    monkeypatch.setattr(road, "_MAX_STEPS", 24)
    assert_close(Imputation(0.01).perturb(image, removed), exact, rtol=0, atol=0.01)


def test_where_nothing_is_kept_is_the_mean_colour():
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    removed = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    removed[0, 1, 0, 0] = False  # the others do not suffer from it
    perturbed = EXACT.perturb(images, removed)
    mean = images.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)
    assert_close(perturbed[0, 0], mean[0])
    assert_close(perturbed[1], mean[1].expand(2, -1, -1, -1))
    assert_close(
        perturbed[0, 1].double(), dense_solution(images[0], removed[0, 1].kron(torch.ones(2, 2)) > 0), atol=1e-5, rtol=0
    )


def test_what_is_solved_from_the_start_stays_so():
    """The zeros are solved at once while the other set takes many steps."""
    image = torch.zeros(1, 1, 16, 32)
    image[..., 16:] = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    removed = torch.zeros(1, 2, 4, 8, dtype=torch.bool)
    removed[0, 0, 1:3, 1] = removed[0, 1, 1:3, 5:7] = True
    perturbed = EXACT.perturb(image, removed)
    assert torch.equal(perturbed[:, 0], image)
    gone = removed[0, 1].repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert_close(perturbed[0, 1].double(), dense_solution(image[0], gone), rtol=0, atol=1e-5)


def test_noise_has_the_deviation_asked_for_and_lies_on_removed_pixels_only():
    image = torch.zeros(1, 3, 64, 64)
    removed = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    removed[..., :4] = True
    perturbed = NoisyLinear(noise=0.5).perturb(image, removed)[0, 0]
    assert float(perturbed[..., :32].std()) == pytest.approx(0.5, rel=0.05)
    assert float(perturbed[..., :32].mean()) == pytest.approx(0, abs=0.03)
    assert (perturbed[..., 32:] == 0).all()


def test_too_many_patches_to_be_solved_together(monkeypatch):
    images = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    removed = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.7
    together = EXACT.perturb(images, removed)
    monkeypatch.setattr(road, "_MOST_PATCHES", 100)
    road._constants.cache_clear()
    assert_close(EXACT.perturb(images, removed), together, rtol=0, atol=1e-4)
    road._constants.cache_clear()


def test_images_that_are_not_contiguous():
    images = torch.randn(2, 12, 8, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    removed = torch.rand(2, 2, 3, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    assert_close(EXACT.perturb(images, removed), EXACT.perturb(images.contiguous(), removed))
