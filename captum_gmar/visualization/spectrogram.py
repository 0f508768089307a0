"""A spectrogram with its relevance, with axes of time and frequency."""

from math import log

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization.attribution import ALPHA
from captum_gmar.visualization.heat import OUTLIERS, Map, array_of, scaled
from captum_gmar.visualization.panels import (
    draw_title,
    make_figure,
    map_text,
    opaque_colorbar,
    show,
    value_labels,
    wrapped,
)

FIGURE_SIZE = 9.0, 5.5  # inches
NAME_SIZE = 9
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
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    outlier_perc: float = OUTLIERS,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws a spectrogram, and below it the same with its relevance over it, over time and frequency.

    Args:
        attribution (Tensor or numpy.ndarray): Of one sound: (rows, columns), the relevance of places that lie evenly
            over it, lowest frequency and beginning first, as
            :meth:`AttentionEvidence.relevance <captum_gmar.AttentionEvidence.relevance>` gives it.
        spectrogram (Tensor or numpy.ndarray): (time, bins), as the model takes it, in bins of the mel scale.
        sampling_rate (int, optional): Samples a second; half of it is the highest frequency.
            Default: 16000
        seconds (float, optional): From one column to the next.
            Default: 0.01, as of Kaldi and AST
        title, label, note, cmap, alpha_overlay, outlier_perc, use_pyplot: those of
            :func:`~captum_gmar.visualize_attribution`.

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of matplotlib.axes.Axes*): the spectrogram, and the spectrogram with relevance over it.

    Raises:
        ValueError: if one of them is of another number of dimensions, or the attribution holds NaN or infinity.

    Example::

        >>> import torch
        >>> from captum_gmar import visualize_spectrogram
        >>> figure, axes = visualize_spectrogram(torch.rand(3, 7), torch.rand(100, 32), use_pyplot=False)
        >>> [panel.get_xlabel() for panel in axes]
        ['', 'time in seconds']
    """
    values, sound = array_of(attribution, "attribution"), array_of(spectrogram, "spectrogram")
    if values.ndim != 2 or sound.ndim != 2:
        raise ValueError(
            "attribution must be of one sound, (rows, columns), and the spectrogram (time, bins). Got shapes "
            f"{values.shape} and {sound.shape} instead."
        )
    heat = scaled(values, "attribution", outlier_perc)
    figure = make_figure(*FIGURE_SIZE, use_pyplot)
    axes = list(figure.subplots(2, 1, sharex=True))
    place = (0, len(sound) * seconds, 0, sound.shape[1])
    for panel, name in zip(axes, ("spectrogram", "overlay"), strict=True):
        panel.imshow(sound.T, origin="lower", aspect="auto", extent=place, cmap="gray")
        panel.set_title(name, fontsize=NAME_SIZE)
        panel.set_ylabel("frequency in Hz")
        _mark_frequencies(panel, sound.shape[1], sampling_rate)
    shown = {"cmap": cmap or heat.cmap, "vmin": heat.low, "vmax": heat.high}
    over = axes[1].imshow(
        heat.values, origin="lower", aspect="auto", extent=place, alpha=alpha_overlay * heat.strength, **shown
    )
    axes[1].set_xlabel("time in seconds")
    bar = opaque_colorbar(figure.colorbar(over, ax=axes, ticks=list(heat.ticks)))
    bar.ax.set_yticks(heat.ticks, value_labels(heat))
    text = map_text(label or "relevance per place", heat, cmap, note)
    bar.set_label(wrapped(text, FIGURE_SIZE[1], NAME_SIZE), fontsize=NAME_SIZE, parse_math=False)
    draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, axes


def _mark_frequencies(panel: Axes, bins: int, sampling_rate: int) -> None:
    """The ticks of a mel scale of so many bins."""
    low, high = _mel(LOWEST), _mel(sampling_rate / 2)
    marked = [hertz for hertz in HERTZ if hertz <= sampling_rate / 2]
    panel.set_yticks([bins * (_mel(hertz) - low) / (high - low) for hertz in marked], [str(hertz) for hertz in marked])


def _mel(hertz: float) -> float:
    """
    >>> round(_mel(1000))
    1000
    """
    return 1127 * log(1 + hertz / 700)
