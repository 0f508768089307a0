"""What the picture of one explained image shows, in arrays and texts, and its drawing."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from captum_gmar.visualization import visualize_attribution, visualize_comparison
from captum_gmar.visualization._heatmap import Array


class PictureMap(NamedTuple):
    """One map of a picture."""

    name: str
    relevance: Array  # (rows, columns)
    label: str  # what its colours measure
    note: str  # what it does not say


class ImagePicture(NamedTuple):
    """A photo, and its map or maps."""

    photo: Array  # (height, width, 3)
    title: str
    maps: Sequence[PictureMap]

    def draw(self) -> Figure:
        """The photo and its map, or its maps side by side."""
        if len(self.maps) > 1:
            return self._draw_comparison()
        (map,) = self.maps
        figure, _ = visualize_attribution(
            map.relevance, self.photo, title=self.title, label=map.label, note=map.note, use_pyplot=False
        )
        return figure

    def _draw_comparison(self) -> Figure:
        maps = {map.name: map.relevance for map in self.maps}
        labels = {map.name: map.label for map in self.maps}
        notes = {map.name: map.note for map in self.maps}
        figure, _ = visualize_comparison(maps, self.photo, title=self.title, label=labels, note=notes, use_pyplot=False)
        return figure
