"""Figures as they are drawn: whether any of their texts and panels lie over each other."""

from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def leave_blank(patch):
    """Let pictures be empty files, for drawing takes longer than measuring."""
    patch.setattr(Figure, "savefig", lambda self, file, **options: isinstance(file, Path) and file.touch())


def assert_nothing_overlaps(figure):
    """All texts and panels, colour bars included, lie within the figure and not over each other."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    panels = [axis for panel in figure.axes for axis in (panel, *panel.child_axes)]
    texts = [figure._suptitle] if figure._suptitle else []
    for panel in panels:
        texts += [panel.title, panel.xaxis.label, panel.yaxis.label]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())  # beyond it there are ticks that are not drawn
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]
    boxes += [panel.get_window_extent(renderer) for panel in panels]
    boxes += [panel.legend_.get_window_extent(renderer) for panel in panels if panel.legend_]
    for one, other in combinations(boxes, 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert wide <= 1 or high <= 1, (one, other)
    for box in boxes:
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= -1
        assert box.y1 <= figure.bbox.y1 + 1


def shown(panel):
    """Return the pixels of a panel's first image."""
    return np.asarray(panel.images[0].get_array())


def ticks(panel):
    """Return the texts in a panel, as the values below its colour bar are."""
    return [text.get_text() for text in panel.texts]
