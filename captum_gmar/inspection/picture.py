"""Measurements of methods on one image, and the picture of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.metrics import PerturbationCurve
from captum_gmar.visualization._heatmap import Crop, Pixels, blend, heat_of
from captum_gmar.visualization._panels import (
    PAD_INCHES,
    Layout,
    PanelRow,
    Tile,
    draw_tile,
    draw_title,
    given_axes,
    make_grid,
    show,
    split_evenly,
    text_height,
    tile_row,
    wrap,
    wrap_tile,
)
from captum_gmar.visualization._style import DELETION_LINE, GREY, INSERTION_LINE, SIGNS, milliseconds_text, number_text

WIDEST = 5  # panels in a line
PAIRS = Layout(panel=2.25, gap=0.45, columns=WIDEST, name_size=10, text_size=8)
PAIR_LETTERS = PAIRS.panel, PAIRS.text_size
AXIS_INCHES = 0.3  # the numbers at an axis
CURVES_HEIGHT = 0.65  # of its width
LEGEND_POINTS = 46  # the height of three lines, and a gap
CAPTION_LETTERS = PAIRS.panel + 0.25, PAIRS.text_size

REFERENCE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "zorder": 1.5}
NOTE = f"Each map has its own scale. In signed maps, {SIGNS}."


class Cost(NamedTuple):
    """Time and passes of one map. The runs of all methods take turns, so that a busy moment slows all alike."""

    seconds: float  # the median of its runs
    lowest_seconds: float  # the quickest and the slowest of them
    highest_seconds: float
    forward_seconds: float  # the median of forward passes without gradient, one before every run of every method
    forward_passes: int | None  # images through the model; None where the method cannot be watched
    backward_passes: int | None  # of these, how many a gradient came back for

    @property
    def ratio(self) -> float:
        """Time in multiples of a forward pass."""
        return self.seconds / self.forward_seconds


class MethodResult(NamedTuple):
    """One method's map of an image, how faithful it is, and what it costs."""

    name: str
    relevance: Tensor  # (rows, columns)
    insertion: PerturbationCurve
    deletion: PerturbationCurve
    cost: Cost | None  # None for controls

    @property
    def areas(self) -> tuple[float, float, float]:
        """Under the curves of insertion and deletion, and the first less the second."""
        inserted, deleted = float(self.insertion.auc), float(self.deletion.auc)
        return inserted, deleted, inserted - deleted


def time_text(cost: Cost) -> str:
    """Return milliseconds, and in brackets the quickest and the slowest run where they differ."""
    spread = f" ({milliseconds_text(cost.lowest_seconds)}–{milliseconds_text(cost.highest_seconds)})"
    return milliseconds_text(cost.seconds) + (spread if cost.lowest_seconds < cost.highest_seconds else "")


def visualize_side_by_side(
    methods: Sequence[MethodResult],
    reference: MethodResult,
    image: Pixels,
    *,
    followed: str,
    is_probability: bool,
    removal: str,
    crop: Crop | None = None,
    title: str | None = None,
    smooth: bool = False,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """Draw the photo, and of every method its map over it, and below it curves of insertion and deletion and the costs.

    In grey among the curves are those of the ``reference``, one of the ``controls`` of what :func:`captum_gmar.compare`
    returned; ``followed`` names what curves follow. Every map has a colour scale of its own, that of
    :func:`~captum_gmar.visualize_attribution`. ``plt_fig_axis`` is a figure and 2 × (1 + methods) of its axes, the
    upper and the lower of the photo and then of every method, which are returned. The other arguments and the errors
    are those of :func:`~captum_gmar.visualize_attribution` and, of smooth, :func:`~captum_gmar.visualize_comparison`.
    """
    photo, crop = PAIRS.fit(image, crop=crop)
    tiles = [Tile(photo, "photo")]
    for result in methods:
        heat = heat_of(result.relevance, photo, result.name)
        tiles.append(Tile(blend(photo, heat, crop, smooth), result.name, heat.zero_text))
    tiles = [wrap_tile(tile, PAIRS) for tile in tiles]
    captions = [_caption(result) for result in methods]
    if plt_fig_axis:
        figure, axes = plt_fig_axis
        panels = given_axes(axes, 2 * len(tiles))
        pairs = list(zip(panels[::2], panels[1::2], strict=True))
        draw_title(figure, title)
    else:
        figure, pairs = _panels(tiles, captions, title, use_pyplot)
    for (upper, _), tile in zip(pairs, tiles, strict=True):
        draw_tile(upper, tile, PAIRS)
    for (_, lower), result, caption in zip(pairs[1:], methods, captions, strict=True):
        _draw_curves(lower, result, reference)
        lower.set_xlabel(caption, fontsize=PAIRS.text_size, parse_math=False)
    _share_scale([lower for _, lower in pairs[1:]], is_probability)
    notes = f"Curves: {followed} over the share of patches, %. Removal: {removal}.", NOTE
    _draw_legend(pairs[0][1], pairs[1][1], reference.name, notes)
    show(figure, use_pyplot)
    return figure, [list(pair) for pair in pairs]


def _panels(
    tiles: Sequence[Tile], captions: Sequence[str], title: str | None, use_pyplot: bool
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a new figure with room for all texts, and its panels, the upper and the lower of each pair."""
    caption_space = max(text_height(caption, PAIRS.text_size) for caption in captions)
    lines, rows = split_evenly(tiles, WIDEST), list[PanelRow]()
    for line in lines:
        upper = tile_row(line, PAIRS)
        lower = PanelRow(PAD_INCHES, CURVES_HEIGHT * PAIRS.panel, AXIS_INCHES + caption_space + PAD_INCHES, len(line))
        rows += [upper, lower]
    figure, panels = make_grid(rows, PAIRS, title, use_pyplot, left=AXIS_INCHES)
    pairs: list[tuple[Axes, Axes]] = []
    for line in lines:
        pairs += zip(panels[: len(line)], panels[len(line) :], strict=False)
        panels = panels[2 * len(line) :]
    return figure, pairs


def _draw_curves(panel: Axes, result: MethodResult, reference: MethodResult) -> None:
    for curves, style in ((reference, REFERENCE), (result, {})):
        for name, curve, line in (
            (f"insertion: {curves.name}", curves.insertion, INSERTION_LINE),
            (f"deletion: {curves.name}", curves.deletion, DELETION_LINE),
        ):
            shares, values = 100 * curve.shares.cpu().double(), curve.curve[0].cpu().double()
            panel.plot(shares.numpy(), values.numpy(), label=name, **{**line, **style})
    panel.set_box_aspect(CURVES_HEIGHT)
    panel.set_xlim(0, 100)
    panel.set_xticks([0, 50, 100], ["0", "50", "100"])
    panel.tick_params(labelsize=PAIRS.text_size)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)


def _share_scale(panels: Sequence[Axes], is_probability: bool) -> None:
    limits = [panel.get_ylim() for panel in panels]
    low, high = (-0.02, 1.02) if is_probability else (min(low for low, _ in limits), max(high for _, high in limits))
    for panel in panels:
        panel.set_ylim(low, high)
        panel.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]) if is_probability else MaxNLocator(2))


def _caption(result: MethodResult) -> str:
    """Return how faithful a map is, what it costs, and what it does not say."""
    inserted, deleted, _ = (number_text(area, ".3f") for area in result.areas)
    lines = [f"insertion {inserted}, deletion {deleted}"]
    if result.cost is not None:
        lines.append(f"{time_text(result.cost)} ms, {result.cost.ratio:.1f} × a forward pass")
    if result.name in METHODS:
        lines.append(METHODS[result.name].caveat)
    return wrap("\n".join(lines), *CAPTION_LETTERS)


def _draw_legend(panel: Axes, curves: Axes, reference: str, notes: Sequence[str]) -> None:
    """Draw what the lines are, in place of the photo's curves."""
    panel.set_axis_off()
    panel.set_box_aspect(CURVES_HEIGHT)
    *reference_lines, inserted, deleted = curves.get_lines()
    legend = panel.legend(
        [inserted, deleted, reference_lines[0]],
        ["insertion ↑: patches there", "deletion ↓: patches removed", f"{reference}, both"],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        fontsize=PAIRS.text_size,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=2.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    caption = "\n\n".join(wrap(note, *PAIR_LETTERS) for note in notes)
    place: dict[str, Any] = {"xytext": (0, -LEGEND_POINTS), "xycoords": "axes fraction", "textcoords": "offset points"}
    panel.annotate(caption, (0, 1), fontsize=PAIRS.text_size, va="top", parse_math=False, **place)
