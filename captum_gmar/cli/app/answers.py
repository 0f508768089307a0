"""The answers of the page of ``captum-gmar app``, without the page: images in, maps and numbers out."""

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar import demo
from captum_gmar.attr.catalogue import GMAR, METHODS
from captum_gmar.attr.gmar import GMARAttribution
from captum_gmar.attr.patch_relevance import Method
from captum_gmar.classifier import Classifier
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.files.images import read_image
from captum_gmar.inspection.compare import compare
from captum_gmar.visualization import visualize_token_interaction

MOST_BYTES, MOST_PIXELS = 20 * 2**20, 40_000_000
CLICKABLE = 400  # pixels of the shorter side of what is clicked
FEW_STEPS = 14  # of insertion and deletion, as somebody waits for them
TOO_MANY_PIXELS = (
    f"the image must have at most {MOST_PIXELS // 10**6} million pixels: scale it down first, the model sees a few "
    "hundred a side."
)
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # no more of Pillow's readers than photos need


class PageAnswer(NamedTuple):
    """Of one question: a picture, its table, and the relevance of each method by name."""

    figure: Figure
    table: str
    relevance: dict[str, Tensor]  # (rows, columns)


def read_upload(path: Path) -> Image.Image:
    """Read an image that somebody else has made, after a check of its size in the file and its header."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise OSError(f"the file must be of at most {MOST_BYTES / 2**20:.0f} MiB. Got {size / 2**20:.0f} instead.")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=IMAGE_FORMATS) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the tighter limit
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:  # Pillow's own limit, by the header as well
        raise OSError(TOO_MANY_PIXELS) from error
    except Exception as error:  # of a hostile file, Pillow's readers raise nearly anything
        raise OSError(f"the file must be an image: {', '.join(IMAGE_FORMATS)}. Another format, or damaged.") from error
    if pixels > MOST_PIXELS:
        raise OSError(TOO_MANY_PIXELS)
    try:
        return read_image(path)
    except OSError as error:
        raise OSError(str(error).removeprefix(f"{path}: ")) from error


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


def compare_methods(
    classifier: Classifier,
    image: Image.Image,
    target: int,
    contrast: int | None,
    names: Iterable[str],
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> PageAnswer:
    """Compare the maps of the methods side by side, with insertion, deletion, time and passes of each."""
    names = list(names)
    if not names:
        raise ValueError("methods must be at least one method. Got none instead; take one.")
    if contrast is not None and (others := [name for name in names if not METHODS[name].takes_contrast]):
        raise ValueError(
            f"rather than a class requires methods that take it. Got {', '.join(others)} instead; take them away."
        )
    pixels = _read_pixels(classifier, image)
    methods: dict[str, Method] = {}
    for name in names:
        method = METHODS[name].load()(classifier.model, forward_func=classifier.logits)
        methods[name] = method if contrast is None else partial(_rather, method, contrast)
    progress(0.1, f"measuring {len(names)} methods")
    grid = patch_grid(classifier.model, *pixels.shape[-2:])
    comparison = compare(
        *(classifier.model, pixels, methods, target),
        forward_func=classifier.logits,
        steps=min(FEW_STEPS, grid.patches),
        softmax=not classifier.is_multi_label,
        repeats=1,
    )
    progress(0.8, "drawing")
    title = classifier.labels[target] + (f" rather than {classifier.labels[contrast]}" if contrast is not None else "")
    view = classifier.view(image, pixels[0])
    figure, _ = comparison.visualize(view.photo, crop=view.crop, title=title, use_pyplot=False)
    relevance = {result.name: torch.as_tensor(result.relevance) for result in comparison.methods}
    return PageAnswer(figure, comparison.to_markdown(), relevance)


def explain_patch(classifier: Classifier, image: Image.Image, target: int, place: tuple[float, float]) -> Figure:
    """Draw what fed the patch at this place of the photo, (x, y) from 0 to 1."""
    pixels = _read_pixels(classifier, image)
    grid = patch_grid(classifier.model, *pixels.shape[-2:])
    patch = min(int(place[1] * grid.rows), grid.rows - 1), min(int(place[0] * grid.columns), grid.columns - 1)
    method = GMARAttribution(classifier.model, tokens=patch, forward_func=classifier.logits)
    relevance = method.relevance(pixels, target)[0].cpu()
    view = classifier.view(image, pixels[0])
    title = f"what fed the patch in row {patch[0]}, column {patch[1]}, by {GMAR}"
    figure, _ = visualize_token_interaction(
        *(relevance, view.photo, patch),
        crop=view.crop,
        title=title,
        label="share of all tokens, per patch",
        use_pyplot=False,
    )
    return figure


def _rather(method: Any, contrast: int, inputs: Tensor, target: Any) -> Tensor:
    attributions: Tensor = method.attribute(inputs, target=target, contrast=contrast)
    return attributions


def _read_pixels(classifier: Classifier, image: Image.Image) -> Tensor:
    return classifier.pixel_values(image).to(classifier.device)
