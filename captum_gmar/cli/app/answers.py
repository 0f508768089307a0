"""The answers of the page of ``captum-gmar app``, without the page: images in, maps and numbers out."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar import demo
from captum_gmar.attr.catalogue import GMAR, METHODS
from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.patch_relevance import Method
from captum_gmar.classifier import Classifier
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.files.images import read_image
from captum_gmar.inspection.compare import compare
from captum_gmar.visualization import visualize_comparison, visualize_token_interaction
from captum_gmar.visualization._heatmap import photo_of
from captum_gmar.visualization._style import percent_text

MOST_BYTES, MOST_PIXELS = 20 * 2**20, 40_000_000
CLICKABLE = 400  # pixels of the shorter side of what is clicked
SMALL_PHOTO = 320  # pixels of the longer side
FEW_STEPS = 14  # of insertion and deletion, as somebody waits for them
TOO_MANY_PIXELS = (
    f"the image must have at most {MOST_PIXELS // 10**6} million pixels, but has more. Scale it down first, "
    "as the model sees a few hundred a side."
)
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # no more of Pillow's readers than photos need


class Panel(NamedTuple):
    """A map on a picture: its method, and its edges in shares of the picture's width and height."""

    method: str
    left: float
    top: float
    right: float
    bottom: float

    def find(self, x: float, y: float) -> tuple[float, float] | None:
        """Return where a place of the picture is on the map, from 0 to 1 each, if it is on it."""
        place = (x - self.left) / (self.right - self.left), (y - self.top) / (self.bottom - self.top)
        return place if min(place) >= 0 and max(place) < 1 else None


class AppQuestion(NamedTuple):
    """Why a class, rather than another if any, by these methods."""

    target: int
    contrast: int | None
    methods: Sequence[str]

    def check(self) -> None:
        """Raise a ValueError if there is no method, or one does not take the contrast."""
        if not self.methods:
            raise ValueError("methods must be at least one method, but got none. Take one.")
        others = [name for name in self.methods if not METHODS[name].takes_contrast]
        if self.contrast is not None and others:
            raise ValueError(
                f"rather than a class requires methods that take it, but got {', '.join(others)}. Drop it."
            )


class DrawnMaps(NamedTuple):
    """The maps of one question: their picture, what it says, and relevance (rows, columns) by the method's name."""

    figure: Figure
    sentence: str
    relevance: dict[str, Tensor]
    panels: list[Panel]


def read_upload(path: Path) -> Image.Image:
    """Read an image that somebody else has made, after a check of its size in the file and its header."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise OSError(f"the file must be of at most {MOST_BYTES / 2**20:.0f} MiB, but got {size / 2**20:.0f}.")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=IMAGE_FORMATS) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the tighter limit
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:  # Pillow's own limit, by the header as well
        raise OSError(TOO_MANY_PIXELS) from error
    except Exception as error:  # of a hostile file, Pillow's readers raise nearly anything
        raise OSError(f"the file must be an image, {', '.join(IMAGE_FORMATS)}, but is none, or damaged.") from error
    if pixels > MOST_PIXELS:
        raise OSError(TOO_MANY_PIXELS)
    try:
        return read_image(path)
    except OSError as error:
        raise OSError(str(error).replace(str(path), "the file")) from error


def scene_image(seed: int) -> Image.Image:
    """Return the built-in scene of two objects."""
    return demo.load_scene(seed, objects=2).image


def rank_classes(classifier: Classifier, image: Image.Image) -> list[tuple[str, int, float | None]]:
    """Return name, index and probability of every class, the likeliest first; in the order of logits without any."""
    with torch.no_grad():
        logits = classifier.logits(_read_pixels(classifier, image)).cpu()
    probabilities = classifier.probabilities(logits)
    return [
        (classifier.labels[index], index, None if probabilities is None else float(probabilities[0, index]))
        for index in logits[0].argsort(descending=True).tolist()
    ]


def view_of_model(classifier: Classifier, image: Image.Image) -> Image.Image:
    """Return what the model sees of the image, resized and cropped, and large enough to click a patch of it."""
    photo = classifier.photo(_read_pixels(classifier, image)[0])
    small = Image.fromarray((photo * 255).round().astype("uint8"))
    times = -(-CLICKABLE // min(small.size))
    return small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)


def explain_methods(classifier: Classifier, image: Image.Image, question: AppQuestion) -> DrawnMaps:
    """Explain a class by all methods, and draw the maps side by side.

    Raises:
        ValueError: if there is no method, or one does not take the contrast.
    """
    question.check()
    pixels, names = _read_pixels(classifier, image), question.methods
    targets = torch.tensor([[question.target]], device=pixels.device)
    explained = Explainer(names, classifier.model, classifier.logits).explain(pixels, targets, question.contrast)
    relevance = dict(zip(names, explained.relevance[:, 0, 0], strict=True))
    entries = {name: METHODS[name] for name in names}
    view = classifier.view(image, pixels[0])
    figure, axes = visualize_comparison(
        {name: _in_unit(name, map) for name, map in relevance.items()},
        view.photo,
        crop=view.crop,
        label={name: entry.label for name, entry in entries.items()},
        note={name: entry.caveat for name, entry in entries.items()},
        title=_name_question(classifier, question),
        use_pyplot=False,
    )
    probabilities = classifier.probabilities(explained.logits)
    share = None if probabilities is None else float(probabilities[0, question.target])
    panels = _place_maps(names, axes[0][1:], view)
    return DrawnMaps(
        figure, _sentence(_name_question(classifier, question), share, names[0], relevance[names[0]]), relevance, panels
    )


def measure_methods(classifier: Classifier, image: Image.Image, question: AppQuestion) -> tuple[Figure, str]:
    """Return a picture and a table of the methods with insertion, deletion, time and passes of each."""
    pixels = _read_pixels(classifier, image)
    methods: dict[str, Method] = {}
    for name in question.methods:
        method: Any = METHODS[name].load()(classifier.model, forward_func=classifier.logits)
        methods[name] = method if question.contrast is None else partial(method.attribute, contrast=question.contrast)
    comparison = compare(
        *(classifier.model, pixels, methods, question.target),
        forward_func=classifier.logits,
        steps=min(FEW_STEPS, patch_grid(classifier.model, *pixels.shape[-2:]).patches),
        softmax=not classifier.is_multi_label,
        repeats=1,
    )
    view = classifier.view(image, pixels[0])
    title = _name_question(classifier, question)
    figure, _ = comparison.visualize(view.photo, crop=view.crop, title=title, use_pyplot=False)
    return figure, comparison.to_markdown()


def explain_patch(
    classifier: Classifier, image: Image.Image, target: int, place: tuple[float, float], name: str
) -> Figure:
    """Draw what fed the patch at this place of the model's input, (x, y) from 0 to 1, by the method if it can begin
    at a patch, else by GMAR."""
    pixels = _read_pixels(classifier, image)
    grid = patch_grid(classifier.model, *pixels.shape[-2:])
    patch = min(int(place[1] * grid.rows), grid.rows - 1), min(int(place[0] * grid.columns), grid.columns - 1)
    used = name if METHODS[name].takes_tokens else GMAR
    method: Any = METHODS[used].load()(classifier.model, tokens=patch, forward_func=classifier.logits)
    relevance = _in_unit(used, method.relevance(pixels, target)[0].cpu())
    view = classifier.view(image, pixels[0])
    title = f"what fed the patch in row {patch[0] + 1}, column {patch[1] + 1}, by {used}"
    figure, _ = visualize_token_interaction(
        *(relevance, view.photo, patch),
        crop=view.crop,
        title=title if used == name else f"{title}: {name} cannot begin at a patch",
        label=METHODS[used].label,
        use_pyplot=False,
    )
    return figure


def _place_maps(names: Sequence[str], axes: Sequence[Axes], view: PhotoView) -> list[Panel]:
    """Return the places of the maps on their picture; where the model does not see all of the photo, of its part."""
    width, height = photo_of(view.photo).size
    left, top, right, bottom = view.crop or (0, 0, width, height)
    panels = []
    for name, panel in zip(names, axes, strict=True):
        panel.apply_aspect()
        box = panel.get_position()
        across, down = box.width / width, box.height / height
        edges = box.x0 + left * across, 1 - box.y1 + top * down, box.x0 + right * across, 1 - box.y1 + bottom * down
        panels.append(Panel(name, *edges))
    return panels


def _name_question(classifier: Classifier, question: AppQuestion) -> str:
    rather = "" if question.contrast is None else f" rather than {classifier.labels[question.contrast]}"
    return f"{classifier.labels[question.target]}{rather}"


def _sentence(title: str, share: float | None, name: str, relevance: Tensor) -> str:
    """Return what a map says of a class in words."""
    row, column = divmod(int(relevance.argmax()), relevance.shape[1])
    speaking, against = (float((sign * relevance).clamp(0).sum()) for sign in (1, -1))
    signs = f"{percent_text(speaking / (speaking + against))} of the patches' evidence is for it; " if against else ""
    likely = "" if share is None else f", {percent_text(share, '.3g')}"
    return f"{title}{likely}. By {name}, {signs}the strongest patch is in row {row + 1}, column {column + 1}."


def _in_unit(name: str, relevance: Tensor) -> Tensor:
    """Return relevance in the unit of the method's label."""
    return 100 * relevance if METHODS[name].share else relevance


def _read_pixels(classifier: Classifier, image: Image.Image) -> Tensor:
    return classifier.pixel_values(image).to(classifier.device)
