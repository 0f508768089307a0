"""The picture of one explained image: the photo, and its map or maps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar.classifier import Classifier
from captum_gmar.visualization import visualize_attribution, visualize_comparison
from captum_gmar.visualization._heatmap import Array, Crop, Pixels


class PhotoView(NamedTuple):
    """A photo, and where the model's patches are in it."""

    photo: Pixels
    crop: Crop | None


class PictureMap(NamedTuple):
    """One map of a picture."""

    name: str
    relevance: Array  # (rows, columns)
    label: str  # what its colours measure
    note: str  # what it does not say


class ImagePicture(NamedTuple):
    """A photo, and its map or maps."""

    view: PhotoView
    title: str
    maps: Sequence[PictureMap]

    def draw(self) -> Figure:
        """Draw the photo and its map, or its maps side by side."""
        view: dict[str, Any] = {"crop": self.view.crop, "title": self.title, "use_pyplot": False}
        if len(self.maps) == 1:
            (map,) = self.maps
            return visualize_attribution(map.relevance, self.view.photo, label=map.label, note=map.note, **view)[0]
        maps = {map.name: map.relevance for map in self.maps}
        labels = {map.name: map.label for map in self.maps}
        notes = {map.name: map.note for map in self.maps}
        return visualize_comparison(maps, self.view.photo, label=labels, note=notes, **view)[0]


def view_photo(classifier: Classifier, image: Image.Image, pixels: Tensor) -> PhotoView:
    """Return a photo, and where its pixel values (channels, height, width) are in it: all, or the upper left part.

    Where the image processor does more than resize, crop and pad, it is what the model sees of the photo.
    """
    height, width = pixels.shape[-2:]
    try:
        return PhotoView(image, classifier.frame(image).to_photo((0, 0, width, height)))
    except ValueError:
        return PhotoView(classifier.photo(pixels), None)
