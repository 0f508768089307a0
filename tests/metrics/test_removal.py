"""Removals: values of removed pixels, and untouched kept pixels."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import Blur, Mean, Noise, NoisyLinear, Zero

PIXELS = [Zero(), Mean(), Blur(3.0), Noise(), NoisyLinear()]


@pytest.fixture
def photos():
    return torch.randn(3, 3, 12, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def removed():
    """Five sets of 3x4 patches for three examples; the first removes nothing, the last everything."""
    sets = torch.rand(3, 5, 3, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    sets[:, 0], sets[:, -1] = False, True
    return sets


def pixels(removed):
    return removed.repeat_interleave(4, -2).repeat_interleave(4, -1)[:, :, None].expand(-1, -1, 3, -1, -1)


@pytest.mark.parametrize("removal", PIXELS, ids=lambda removal: removal.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kept_pixels_are_the_same_bit_for_bit(photos, removed, removal, dtype):
    photos = (1e-3 + photos).to(dtype)
    perturbed = removal.perturb(photos, removed)
    assert perturbed.dtype == dtype
    kept = ~pixels(removed)
    assert torch.equal(perturbed[kept], photos[:, None].expand_as(perturbed)[kept])
    assert torch.equal(perturbed[:, 0], photos)


@pytest.mark.parametrize("removal", [Zero(), NoisyLinear()], ids=lambda removal: removal.name)
def test_removed_pixels_say_nothing_of_what_was_there(photos, removed, removal):
    gone = pixels(removed)[:, 1]
    other = torch.where(gone, 100.0, photos)
    before, after = (removal.perturb(inputs, removed[:, 1:2]) for inputs in (photos, other))
    assert torch.equal(before, after)


@pytest.mark.parametrize("removal", PIXELS, ids=lambda removal: removal.name)
def test_a_batch_equals_its_singles(photos, removed, removal):
    batch = removal.perturb(photos, removed)
    for example in range(3):
        for part in range(5):
            single = removal.perturb(photos[example : example + 1], removed[example : example + 1, part : part + 1])
            assert_close(batch[example, part], single[0, 0], rtol=1e-6, atol=1e-6)


def test_the_model_runs_on_what_is_left_the_first_example_first(photos, removed):
    outputs = Zero()(lambda images: images.flatten(1), photos, removed)
    assert torch.equal(outputs.view(3, 5, 3, 12, 16), Zero().perturb(photos, removed))


def test_zero_and_mean_by_hand():
    inputs = tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    removed = tensor([[[[True, False], [False, True]]]])
    assert_close(Zero().perturb(inputs, removed), tensor([[[[[0.0, 2.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]]))
    assert_close(Mean().perturb(inputs, removed), tensor([[[[[3.0, 2.0], [3.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]]]]]))


@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_blur_against_the_sum_over_all_pixels(photos, sigma):
    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    blurred = Blur(sigma).perturb(photos[:1], everything)[0, 0]
    for y, x in ((0, 0), (5, 7), (11, 3)):
        squares = [[(y - v) ** 2 + (x - u) ** 2 for u in range(16)] for v in range(12)]
        weights = (-tensor(squares) / (2 * sigma**2)).exp()
        expected = (photos[0] * weights).sum((1, 2)) / weights.sum()
        assert_close(blurred[:, y, x], expected, rtol=1e-4, atol=1e-5)


def test_noise_is_uniform_in_the_range_of_each_channel_and_seeded():
    inputs = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64) * tensor([1.0, 4.0]).view(1, 2, 1, 1) - 1
    everything = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    noise = Noise(3).perturb(inputs, everything)[0, 0]
    for channel, width in ((0, 1.0), (1, 4.0)):
        values = noise[channel]
        assert -1 <= float(values.min()) < -1 + 0.01 * width
        assert -1 + 0.99 * width < float(values.max()) <= -1 + width
        counts = torch.histc(values, 4, -1, -1 + width)
        assert ((counts - 1024).abs() < 120).all()  # four deviations of the binomial are 111
    assert torch.equal(noise, Noise(3).perturb(inputs, everything)[0, 0])
    assert not torch.equal(noise, Noise(4).perturb(inputs, everything)[0, 0])


def test_noise_leaves_the_global_generator_alone(photos, removed):
    state = torch.get_rng_state()
    for removal in (Noise(), NoisyLinear()):
        removal.perturb(photos, removed)
    assert torch.equal(torch.get_rng_state(), state)


def test_names_say_what_results_depend_on():
    names = ["zero", "mean", "blur (sigma 3)", "noise (seed 0)", "noisy linear imputation (noise 0.01)"]
    assert [removal.name for removal in PIXELS] == names


@pytest.mark.parametrize("removal", PIXELS, ids=lambda removal: removal.name)
def test_wrong_patches(photos, removed, removal):
    for wrong, error, message in (
        (removed.float(), TypeError, "removed must be a boolean tensor.* but got torch.float32"),
        (removed.tolist(), TypeError, "removed must be a boolean tensor.* but got list"),
        (removed[:2], ValueError, r"\(3 examples, sets, rows, columns\), but got \(2, 5, 3, 4\)"),
        (removed[:, 0], ValueError, r"\(3 examples, sets, rows, columns\), but got \(3, 3, 4\)"),
        (removed[:, :0], ValueError, r"\(3 examples, sets, rows, columns\), but got \(3, 0, 3, 4\)"),
        (removed[..., :3], ValueError, "removed must be of whole patches over 12x16 pixels, but got 3x3"),
    ):
        with pytest.raises(error, match=message):
            removal.perturb(photos, wrong)
    with pytest.raises(TypeError, match="inputs must be a tensor"):
        removal.perturb([photos], removed)


def test_wrong_options():
    for sigma in (0, -1, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match=r"sigma must be a positive, finite number of pixels, but got"):
            Blur(sigma)
    for removal in (Noise, lambda seed: NoisyLinear(seed=seed)):
        with pytest.raises(ValueError, match=r"seed must be an integer, but got 0.5"):
            removal(0.5)
    for noise in (-0.1, float("nan"), "1"):
        with pytest.raises(ValueError, match=r"noise must be a finite number, zero or more, but got"):
            NoisyLinear(noise)
