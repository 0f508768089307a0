"""A volume with its relevance: slices in three planes and a montage, in one colour scale and in millimetres."""

from collections.abc import Sequence
from math import inf

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from captum_gmar.metrics._inputs import check_count
from captum_gmar.visualization._heatmap import OUTLIERS, Array, Heat, Map, array_of, blend, scale
from captum_gmar.visualization._panels import (
    BAR_INCHES,
    PAD_INCHES,
    Layout,
    PanelRow,
    draw_bar,
    make_grid,
    map_text,
    show,
    split_evenly,
    text_height,
    wrap,
)

SLICES = Layout(panel=1.35, gap=0.45, columns=6, name_size=8, text_size=7)
BESIDE, BELOW = 0.3, 0.4  # inches for the numbers of a slice's axes
AXES = "zyx"
PLANES = ((1, 2), (0, 2), (0, 1))  # the axes down and across of a slice through each of (z, y, x)


def visualize_volume(
    attribution: Map,
    volume: Map,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    voxel: Sequence[int] | None = None,
    slices: int = 12,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    smooth: bool = False,
    outlier_perc: float = OUTLIERS,
    use_pyplot: bool = True,
) -> tuple[Figure, tuple[list[Axes], list[Axes]]]:
    """Draw a volume with its relevance in three planes through a voxel, and below them in a montage along z.

    All slices share one colour scale. Their axes are in millimetres from the volume's first corner, with z upwards
    and y downwards. If z runs along a body, the planes are axial, coronal and sagittal.

    Args:
        attribution (Tensor or numpy.ndarray): Of one volume: (depth, rows, columns), the relevance of patches that
            divide the volume evenly, or of voxels; or (channels, depth, height, width), whose channels are summed.
        volume (Tensor or numpy.ndarray): (depth, height, width), grey from its least to its largest value. Clip it to
            choose a window.
        spacing (sequence of float, optional): Millimetres from one voxel to the next along depth, height and width.
        voxel (sequence of int, optional): The planes' (z, y, x). Default: the middle of the patch with the strongest
            relevance.
        slices (int, optional): Most slices of the montage.
        smooth (bool, optional): Interpolate between the patches.
        title, label, note, outlier_perc, use_pyplot: those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*tuple of two lists of matplotlib.axes.Axes*): each plane without and with
        relevance, and the montage.

    Raises:
        TypeError, ValueError: if an argument is none of these, or a value is not finite.

    Example::

        >>> import torch
        >>> from captum_gmar.visualization import visualize_volume
        >>> figure, (planes, montage) = visualize_volume(
        ...     torch.rand(2, 4, 4), torch.rand(10, 64, 64), spacing=(5, 0.8, 0.8), voxel=(3, 20, 40), use_pyplot=False
        ... )
        >>> [panel.get_title() for panel in planes[::2]]
        ['z = 17.5 mm', 'y = 16.4 mm', 'x = 32.4 mm']
    """
    check_count(slices, "slices")
    values, voxels, steps = _checked_volume(attribution, volume, spacing)
    heat = scale(values, "attribution", outlier_perc)
    middle = _strongest_voxel(values, voxels) if voxel is None else tuple(voxel)
    if len(middle) != 3 or not all(0 <= place < size for place, size in zip(middle, voxels.shape, strict=True)):
        raise ValueError(f"voxel must be (z, y, x) within the volume of shape {voxels.shape}, but got {voxel!r}.")
    planes = [(axis, middle[axis], shown) for axis in range(3) for shown in (None, heat)]
    montage = [(0, place, heat) for place in _middles(min(slices, len(voxels)), len(voxels))]
    lines = [planes, *split_evenly(montage, SLICES.columns)]
    text = wrap(map_text(label or "relevance per patch", heat, note), 3 * SLICES.panel, SLICES.text_size)
    sides = np.multiply(voxels.shape, steps)
    rows = []
    for line in lines:
        height = SLICES.panel * max(sides[PLANES[axis][0]] for axis, *_ in line) / sides.max()
        rows.append(PanelRow(text_height("z", SLICES.name_size) + PAD_INCHES, height, BELOW, len(line)))
    rows[-1] = rows[-1]._replace(bottom_space=BELOW + BAR_INCHES + text_height(text, SLICES.text_size))
    figure, panels = make_grid(rows, SLICES, title, use_pyplot, left=BESIDE)
    for panel, (axis, place, shown) in zip(panels, [each for line in lines for each in line], strict=True):
        _draw_slice(panel, voxels, shown, axis, place, steps, smooth)
    draw_bar(panels[-len(lines[-1])], heat, SLICES.text_size, gap=BELOW, text=text)
    show(figure, use_pyplot)
    return figure, (panels[: len(planes)], panels[len(planes) :])


def _checked_volume(attribution: Map, volume: Map, spacing: Sequence[float]) -> tuple[Array, Array, tuple[float, ...]]:
    """Return the relevance (depth, rows, columns), the volume and its millimetres per voxel."""
    values, voxels = array_of(attribution, "attribution"), array_of(volume, "volume")
    values = values.sum(0) if values.ndim == 4 else values
    if voxels.ndim != 3 or values.ndim != 3 or not values.size or np.remainder(voxels.shape, values.shape).any():
        raise ValueError(
            "attribution must be of one volume (depth, height, width), in patches that divide it evenly, but got "
            f"shapes {values.shape} and {voxels.shape}. Pass one example and one of its channels."
        )
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 3 or not all(0 < step < inf for step in steps):
        raise ValueError(f"spacing must be three positive numbers of millimetres, but got {spacing!r}.")
    if not np.isfinite(voxels).all():
        raise ValueError("volume must be finite, but got NaN or infinity.")
    return values, voxels, steps


def _middles(parts: int, size: int) -> list[int]:
    """Return the middles of equal parts of so many voxels."""
    return [(2 * part + 1) * size // (2 * parts) for part in range(parts)]


def _strongest_voxel(values: Array, voxels: Array) -> tuple[int, ...]:
    strongest = np.unravel_index(np.abs(values).argmax(), values.shape)
    pairs = zip(strongest, zip(values.shape, voxels.shape, strict=True), strict=True)
    return tuple(_middles(*sizes)[place] for place, sizes in pairs)


def _draw_slice(
    panel: Axes, voxels: Array, heat: Heat | None, axis: int, place: int, steps: Sequence[float], smooth: bool
) -> None:
    """Draw the slice through a voxel of an axis, with relevance or without, its axes in millimetres."""
    levels = 255 * (voxels.take(place, axis) - voxels.min()) / (np.ptp(voxels) or 1)
    image = Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")
    if heat is not None:
        patch = place * heat.values.shape[axis] // voxels.shape[axis]
        image = blend(image, heat._replace(values=heat.values.take(patch, axis)), smooth=smooth)
    down, across = PLANES[axis]
    height, width = (steps[each] * voxels.shape[each] for each in (down, across))
    panel.imshow(np.asarray(image), extent=(0, width, height, 0), interpolation="nearest")
    if axis:
        panel.invert_yaxis()
    panel.set_title(f"{AXES[axis]} = {(place + 0.5) * steps[axis]:.1f} mm", fontsize=SLICES.name_size, pad=3)
    panel.set_xlabel(f"{AXES[across]} in mm", fontsize=SLICES.text_size, labelpad=1)
    panel.set_ylabel(f"{AXES[down]} in mm", fontsize=SLICES.text_size, labelpad=1)
    panel.locator_params(nbins=3)
    panel.tick_params(labelsize=SLICES.text_size - 1, length=2)
