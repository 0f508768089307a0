"""One explained image: what is printed of it, its picture, and its arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from captum_gmar.commands.classifier import Classifier
from captum_gmar.commands.methods import SHARES
from captum_gmar.commands.tokens import start_name
from captum_gmar.models import patch_grid
from captum_gmar.starts import Part
from captum_gmar.visualization import visualize_attribution, visualize_comparison

TOP = 5  # classes printed


class Question(NamedTuple):
    """What is asked of every image."""

    methods: tuple[str, ...]
    target: int | None  # None: each image's most likely class
    contrast: int | None
    tokens: Sequence[Part]  # none: where each method begins itself


class Explained(NamedTuple):
    """What is found out about one image."""

    path: Path
    logits: Tensor  # (classes,)
    target: int
    relevance: Tensor  # (methods, rows, columns)
    head_importance: Tensor | None  # (layers, heads), if asked for and there is a method that weighs heads


def tell(explained: Explained, question: Question, classifier: Classifier) -> str:
    """The image, its most likely classes, the one explained, and how."""
    top = explained.logits.topk(min(TOP, len(explained.logits))).indices.tolist()
    scores = [_score(explained.logits, classifier, index)[1] for index in top]
    lines = [f"  {score:>9}  {_name(classifier, index)}" for score, index in zip(scores, top, strict=True)]
    lines.append(f"  explained  {claim(explained.logits, classifier, explained.target)}")
    if question.contrast is not None:
        lines.append(f"  contrast   {claim(explained.logits, classifier, question.contrast)}")
    lines.append(f"  {'method ' if len(question.methods) == 1 else 'methods'}    {', '.join(question.methods)}")
    if question.tokens:
        lines.append(f"  tokens     {start_name(question.tokens)}")
    return "\n".join([str(explained.path), *lines])


def draw(explained: Explained, question: Question, pixels: Tensor, classifier: Classifier) -> Figure:
    """The picture, of the pixel values (channels, height, width) that the model saw."""
    grid = patch_grid(classifier.model, *pixels.shape[-2:])
    # A margin that no patch covers was not seen by the model and is not shown.
    photo = classifier.photo(pixels)[: grid.rows * grid.patch_height, : grid.columns * grid.patch_width]
    title = _title(explained, question, classifier)
    maps = dict(zip(question.methods, explained.relevance, strict=True))
    maps = {name: 100 * relevance if name in SHARES else relevance for name, relevance in maps.items()}
    labels = {name: f"relevance per patch{', % of all tokens' if name in SHARES else ''}" for name in maps}
    if len(maps) > 1:
        return visualize_comparison(maps, photo, title=title, label=labels, use_pyplot=False)[0]
    (name,) = maps
    return visualize_attribution(maps[name], photo, title=title, label=labels[name], use_pyplot=False)[0]


def arrays(done: Sequence[Explained], question: Question, labels: dict[int, str]) -> dict[str, npt.NDArray[Any]]:
    """What ``--save-array`` writes.

    Raises:
        ValueError: if the images have patch grids of different shapes.
    """
    shapes = sorted({tuple(explained.relevance.shape[1:]) for explained in done})
    if len(shapes) > 1:
        raise ValueError(f"the images have patch grids of different shapes, {shapes}: pass --size")
    columns = {
        "image": np.array([str(explained.path) for explained in done]),
        "target": np.array([explained.target for explained in done]),
        "label": np.array([labels[explained.target] for explained in done]),
        "logits": np.stack([explained.logits.numpy() for explained in done]),
        "method": np.array(question.methods),
        "relevance": np.stack([explained.relevance.numpy() for explained in done], 1),
    }
    heads = [explained.head_importance.numpy() for explained in done if explained.head_importance is not None]
    return {**columns, "head_importance": np.stack(heads)} if heads else columns


def _title(explained: Explained, question: Question, classifier: Classifier) -> str:
    parts = [f"{explained.path.name}: {claim(explained.logits, classifier, explained.target)}"]
    if question.contrast is not None:
        parts.append(f"rather than {claim(explained.logits, classifier, question.contrast)}")
    if len(question.methods) == 1:
        parts.append(f"explained by {question.methods[0]}")
    if question.tokens:
        parts.append(f"relevance from {start_name(question.tokens)}")
    return ", ".join(parts)


def claim(logits: Tensor, classifier: Classifier, index: int) -> str:
    """A class, and what the model gives it, of logits (classes,)."""
    return f"{_name(classifier, index)}, {' '.join(_score(logits, classifier, index))}"


def _name(classifier: Classifier, index: int) -> str:
    return f"{classifier.labels[index]} (class {index})"


def _score(logits: Tensor, classifier: Classifier, index: int) -> tuple[str, str]:
    """What the model gives the class: its probability, or its logit if there is no other to compare it with."""
    probabilities = classifier.probabilities(logits)
    if probabilities is None:
        return "logit", f"{logits[index]:.4g}"
    percent = 100 * float(probabilities[index])
    return "probability", f"{percent:.1f}%" if percent >= 0.1 else f"{percent:.1g}%"
