"""A volume is drawn in three planes and a montage: the right voxels, in one scale, in millimetres."""

import numpy as np
import pytest
import torch

from captum_gmar.visualization import overlay_attribution, visualize_volume

VOLUME = torch.rand(6, 4, 8, generator=torch.Generator().manual_seed(0))
SPACING = (5.0, 2.0, 0.5)  # 30, 8 and 4 mm


def patches():
    relevance = torch.zeros(3, 2, 4)
    relevance[2, 0, 3], relevance[0, 1, 0] = -2.0, 1.0
    return relevance


def pixels(panel):
    return np.asarray(panel.images[0].get_array())


def levels(plane):
    """Grey levels of a slice, by hand."""
    grey = torch.round(255 * (plane - VOLUME.min()) / (VOLUME.max() - VOLUME.min()))
    return grey.numpy().astype(np.uint8)[..., None].repeat(3, -1)


def test_planes_through_the_strongest_patch_in_millimetres():
    figure, (planes, _) = visualize_volume(patches(), VOLUME, spacing=SPACING, use_pyplot=False)
    assert [panel.get_title() for panel in planes[::2]] == ["z = 27.5 mm", "y = 3.0 mm", "x = 3.8 mm"]
    for panel, plane in zip(planes[::2], (VOLUME[5], VOLUME[:, 1], VOLUME[:, :, 7]), strict=True):
        np.testing.assert_array_equal(pixels(panel), levels(plane))
    assert [tuple(panel.get_xlim()) for panel in planes[::2]] == [(0, 4), (0, 4), (0, 8)]
    assert [tuple(panel.get_ylim()) for panel in planes[::2]] == [(8, 0), (0, 30), (0, 30)]  # z upwards
    figure.draw_without_rendering()
    inches = [panel.get_window_extent().size / figure.dpi for panel in planes[::2]]
    across = [(width / 4, width / 4, width / 8)[number] for number, (width, _) in enumerate(inches)]
    down = [(height / 8, height / 30, height / 30)[number] for number, (_, height) in enumerate(inches)]
    np.testing.assert_allclose(across, down, rtol=1e-6)  # a millimetre is as long down as across


def test_relevance_of_the_slices_in_one_scale():
    _, (planes, montage) = visualize_volume(
        patches(), VOLUME, voxel=(0, 3, 1), slices=3, outlier_perc=0, use_pyplot=False
    )
    assert [panel.get_title() for panel in montage] == ["z = 1.5 mm", "z = 3.5 mm", "z = 5.5 mm"]
    coloured = [(pixels(panel) != pixels(panel)[..., :1]).any(-1) for panel in (planes[1], *montage)]
    assert [place.sum() for place in coloured] == [4, 4, 0, 4]
    assert coloured[0][2:, :2].all()
    assert coloured[3][:2, 6:].all()
    whole = overlay_attribution(patches()[0] * 1.0, levels(VOLUME[0]), outlier_perc=0)
    assert (np.asarray(whole)[3, 0] != pixels(montage[0])[3, 0]).any()  # half as strong as the strongest of the volume
    alone = overlay_attribution(patches()[2], levels(VOLUME[5]), outlier_perc=0)
    np.testing.assert_array_equal(pixels(montage[2]), np.asarray(alone))


def test_attributions_of_voxels_are_summed_over_channels():
    channels = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(1))
    _, (_, drawn) = visualize_volume(channels, VOLUME, use_pyplot=False)
    _, (_, expected) = visualize_volume(channels.sum(0), VOLUME, use_pyplot=False)
    assert len(drawn) == 6
    for panel, other in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(pixels(panel), pixels(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribution": torch.rand(4, 2, 4)}, r"attribution must be of one volume .* \(4, 2, 4\) and \(6, 4, 8\)"),
        ({"volume": VOLUME[None]}, "attribution must be of one volume"),
        ({"volume": VOLUME / 0}, "volume must be finite, but got"),
        ({"spacing": (1, 2)}, r"spacing must be three positive numbers of millimetres, but got \(1, 2\)"),
        ({"spacing": (1, 0, 1)}, "spacing must be three positive"),
        (
            {"voxel": (6, 0, 0)},
            r"voxel must be \(z, y, x\) within .* \(6, 4, 8\), but got \(6, 0, 0\)",
        ),
        ({"slices": 0}, "slices must be an integer, one or more"),
    ],
)
def test_other_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        visualize_volume(**{"attribution": patches(), "volume": VOLUME, **change}, use_pyplot=False)
