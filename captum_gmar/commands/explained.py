"""One explained image: what is printed of it, its picture, and its arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from captum_gmar.commands.classifier import Classifier
from captum_gmar.models import patch_grid
from captum_gmar.visualization import visualize_attribution

COLOUR_BAR = "relevance per patch, % of all tokens"
TOP = 5  # classes printed


class Explained(NamedTuple):
    """What is found out about one image."""

    path: Path
    logits: Tensor  # (classes,)
    target: int
    relevance: Tensor  # (rows, columns)
    head_importance: Tensor | None  # (layers, heads), if asked for


def tell(explained: Explained, classifier: Classifier) -> str:
    """The image, its most likely classes, and the one explained."""
    top = explained.logits.topk(min(TOP, len(explained.logits))).indices.tolist()
    scores = [_score(explained, classifier, index)[1] for index in top]
    lines = [f"  {score:>9}  {_name(classifier, index)}" for score, index in zip(scores, top, strict=True)]
    return "\n".join([str(explained.path), *lines, f"  explained  {_claim(explained, classifier)}"])


def draw(explained: Explained, pixels: Tensor, classifier: Classifier) -> Figure:
    """The picture, of the pixel values (channels, height, width) that the model saw."""
    grid = patch_grid(classifier.model, *pixels.shape[-2:])
    # A margin that no patch covers was not seen by the model and is not shown.
    photo = classifier.photo(pixels)[: grid.rows * grid.patch_height, : grid.columns * grid.patch_width]
    title = f"{explained.path.name}: {_claim(explained, classifier)}"
    percent = 100 * explained.relevance
    figure, _ = visualize_attribution(percent, photo, title=title, label=COLOUR_BAR, use_pyplot=False)
    return figure


def arrays(done: Sequence[Explained], labels: dict[int, str]) -> dict[str, npt.NDArray[Any]]:
    """What ``--save-array`` writes.

    Raises:
        ValueError: if the images have patch grids of different shapes.
    """
    shapes = sorted({tuple(explained.relevance.shape) for explained in done})
    if len(shapes) > 1:
        raise ValueError(f"the images have patch grids of different shapes, {shapes}: pass --size")
    columns = {
        "image": np.array([str(explained.path) for explained in done]),
        "target": np.array([explained.target for explained in done]),
        "label": np.array([labels[explained.target] for explained in done]),
    }
    for name in ("logits", "relevance", "head_importance"):
        columns[name] = np.stack([getattr(explained, name).numpy() for explained in done])
    return columns


def _name(classifier: Classifier, index: int) -> str:
    return f"{classifier.labels[index]} (class {index})"


def _claim(explained: Explained, classifier: Classifier) -> str:
    return f"{_name(classifier, explained.target)}, {' '.join(_score(explained, classifier, explained.target))}"


def _score(explained: Explained, classifier: Classifier, index: int) -> tuple[str, str]:
    """What the model gives the class: its probability, or its logit if there is no other to compare it with."""
    probabilities = classifier.probabilities(explained.logits)
    if probabilities is None:
        return "logit", f"{explained.logits[index]:.4g}"
    percent = 100 * float(probabilities[index])
    return "probability", f"{percent:.1f}%" if percent >= 0.1 else f"{percent:.1g}%"
