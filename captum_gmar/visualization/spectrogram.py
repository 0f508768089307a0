"""A spectrogram with its relevance, with axes of time and frequency."""

from math import log

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from captum_gmar.visualization._heatmap import OUTLIERS, Array, Map, array_of, blend, scale
from captum_gmar.visualization._panels import (
    BAR_INCHES,
    MARGIN_INCHES,
    PAD_INCHES,
    Layout,
    PanelRow,
    draw_bar,
    make_grid,
    map_text,
    show,
    text_height,
    wrap,
)

SOUND = Layout(panel=8.0, gap=0, columns=1, name_size=9, text_size=9)
SOUND_HEIGHT, MARKS_INCHES, SOUND_PIXELS = 2.2, 0.7, 900  # of a panel; beside and below it; most pixels across
LOWEST = 20.0  # Hz, where the first bin begins
HERTZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)


def visualize_spectrogram(
    attribution: Map,
    spectrogram: Map,
    *,
    sampling_rate: int = 16000,
    seconds: float = 0.01,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    smooth: bool = False,
    outlier_perc: float = OUTLIERS,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw a spectrogram, and below it the same with its relevance, over time and frequency.

    Args:
        attribution (Tensor or numpy.ndarray): Relevance (rows, columns) of one sound's patches, lowest frequency and
            beginning first, as :meth:`TokenEvidence.relevance <captum_gmar.TokenEvidence.relevance>` returns it.
        spectrogram (Tensor or numpy.ndarray): The model's input (time, bins), in bins of the mel scale.
        sampling_rate (int, optional): Samples per second; half of it is the highest frequency.
        seconds (float, optional): Time between two columns. Default: 0.01, as in Kaldi and AST.
        smooth (bool, optional): Interpolate between the patches.
        title, label, note, outlier_perc, use_pyplot: those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): the spectrogram without and with relevance.

    Raises:
        ValueError: if an argument has another number of dimensions, or the attribution contains NaN or infinity.

    Example::

        >>> import torch
        >>> from captum_gmar.visualization import visualize_spectrogram
        >>> figure, axes = visualize_spectrogram(torch.rand(3, 7), torch.rand(100, 32), use_pyplot=False)
        >>> [panel.get_xlabel() for panel in axes]
        ['', 'time in seconds']
    """
    values, sound = array_of(attribution, "attribution"), array_of(spectrogram, "spectrogram")
    if values.ndim != 2 or sound.ndim != 2:
        raise ValueError(
            "attribution must be of one sound, (rows, columns), and the spectrogram (time, bins), but got shapes "
            f"{values.shape} and {sound.shape}."
        )
    heat = scale(values, "attribution", outlier_perc)
    text = wrap(map_text(label or "relevance per place", heat, note), SOUND.panel, SOUND.text_size)
    rows = [PanelRow(MARGIN_INCHES + PAD_INCHES, SOUND_HEIGHT, PAD_INCHES, 1)]
    space = MARKS_INCHES + BAR_INCHES + text_height(text, SOUND.text_size)
    figure, axes = make_grid([*rows, rows[0]._replace(bottom_space=space)], SOUND, title, use_pyplot, left=MARKS_INCHES)
    photo = grey_picture(sound)
    images = photo, blend(photo, heat._replace(values=values[::-1]), smooth=smooth)
    place = (0, len(sound) * seconds, 0, sound.shape[1])
    for panel, image, name in zip(axes, images, ("spectrogram", "overlay"), strict=True):
        panel.imshow(np.asarray(image), aspect="auto", extent=place, interpolation="nearest")
        panel.set_title(name, fontsize=SOUND.name_size, pad=3)
        panel.set_ylabel("frequency in Hz")
        panel.tick_params(labelsize=SOUND.text_size - 1)
        _mark_frequencies(panel, sound.shape[1], sampling_rate)
    axes[0].set_xticks([])
    axes[1].set_xlabel("time in seconds")
    draw_bar(axes[1], heat, SOUND.text_size, gap=MARKS_INCHES, text=text)
    show(figure, use_pyplot)
    return figure, axes


def grey_picture(spectrogram: Array) -> Image.Image:
    """Return the levels of a spectrogram (time, bins) as a picture, the lowest frequency at the bottom."""
    levels = spectrogram.T[::-1].astype(float)
    levels = 255 * (levels - levels.min()) / (np.ptp(levels) or 1)
    picture = Image.fromarray(np.rint(levels).astype(np.uint8))
    return picture.resize((max(SOUND_PIXELS, picture.width), picture.height * 4), Image.Resampling.NEAREST).convert(
        "RGB"
    )


def _mark_frequencies(panel: Axes, bins: int, sampling_rate: int) -> None:
    """Draw the ticks of a mel scale of so many bins."""
    low, high = _mel(LOWEST), _mel(sampling_rate / 2)
    marked = [hertz for hertz in HERTZ if hertz <= sampling_rate / 2]
    panel.set_yticks([bins * (_mel(hertz) - low) / (high - low) for hertz in marked], [str(hertz) for hertz in marked])


def _mel(hertz: float) -> float:
    """Return the mel of a frequency in hertz.

    >>> round(_mel(1000))
    1000
    """
    return 1127 * log(1 + hertz / 700)
