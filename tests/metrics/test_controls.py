"""Maps that know nothing."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.metrics import centre_blob, control_maps, random_map, uniform_map

INPUTS = torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["random map", "uniform map", "centre blob"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_shape_sum_and_precision(name, dtype):
    maps = control_maps(INPUTS.to(dtype), patch_size=4)[name]
    assert maps.shape == INPUTS.shape
    assert maps.dtype == torch.promote_types(dtype, torch.float32)
    assert (maps >= 0).all()
    assert_close(maps.sum((1, 2, 3)), torch.ones(3, dtype=maps.dtype))
    assert torch.equal(maps[:, 0], maps[:, 2])


def test_none_of_them_depends_on_the_image():
    for maps, others in zip(control_maps(INPUTS).values(), control_maps(-2 * INPUTS).values(), strict=True):
        assert torch.equal(maps, others)


def test_random_maps_are_seeded_and_a_data_set_gets_the_same_in_any_batches():
    whole = random_map(INPUTS, seed=5)
    assert torch.equal(whole, torch.cat([random_map(INPUTS[:2], seed=5), random_map(INPUTS[2:], seed=7)]))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, random_map(INPUTS, seed=6))
    state = torch.get_rng_state()
    random_map(INPUTS)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_patches_have_one_value_each():
    patches = random_map(INPUTS, patch_size=(4, 3)).reshape(3, 3, 2, 4, 4, 3).transpose(3, 4)
    assert (patches == patches[..., :1, :1]).all()
    assert len(patches[0, 0, ..., 0, 0].unique()) == 8


def test_random_maps_are_uniformly_distributed():
    maps = random_map(torch.zeros(1, 1, 100, 100))[0, 0]
    assert ((torch.histc(maps / maps.max(), 4, 0, 1) - 2500).abs() < 180).all()  # four deviations are 173


def test_a_uniform_map():
    assert_close(uniform_map(INPUTS), torch.full((3, 3, 8, 12), 1 / (3 * 8 * 12)))


def test_a_blob_by_hand():
    blob = centre_blob(torch.zeros(1, 1, 4, 2))[0, 0]
    # Pixels' centres lie at ±1/4, ±3/4 along four, and at ±1/2 along two, of what runs from -1 to 1.
    ratio = blob[1, 0] / blob[0, 0]
    assert float(ratio) == pytest.approx(torch.e ** ((0.75**2 - 0.25**2) / (2 * 0.5**2)))
    assert torch.equal(blob, blob.flip(0))
    assert torch.equal(blob, blob.flip(1))
    blob = centre_blob(torch.zeros(1, 3, 9, 15))[0, 1]
    assert blob.argmax() == 4 * 15 + 7


@pytest.mark.parametrize("control", [random_map, uniform_map, centre_blob, control_maps])
def test_wrong_images(control):
    with pytest.raises(TypeError, match=r"inputs must be a tensor .* but got list"):
        control([INPUTS])
    with pytest.raises(ValueError, match=r"at least one example, but got torch.float32 of shape \(0, 3, 8, 12\)"):
        control(INPUTS[:0])


@pytest.mark.parametrize("control", [random_map, control_maps])
def test_wrong_options(control):
    with pytest.raises(ValueError, match=r"seed must be an integer, but got None"):
        control(INPUTS, seed=None)
    with pytest.raises(ValueError, match="patch_size must divide the image of 8x12 pixels, but got 5x5"):
        control(INPUTS, patch_size=5)
    with pytest.raises(TypeError, match="patch_size must be an integer or a tuple"):
        control(INPUTS, patch_size="4")
