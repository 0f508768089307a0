"""One explained image: what is printed of it, its picture, and its arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.classifier import Classifier
from captum_gmar.cli.tokens import start_name
from captum_gmar.engine.models import patch_grid
from captum_gmar.engine.start_tokens import Part
from captum_gmar.visualization import visualize_attribution, visualize_comparison

TOP = 5  # classes printed


class Question(NamedTuple):
    """What is asked of every image."""

    methods: tuple[str, ...]  # one, if there are several classes
    target: int | None  # None: each image's most likely classes
    contrast: int | None
    tokens: Sequence[Part]  # none: where each method begins itself
    top: int = 1  # how many classes


class Explained(NamedTuple):
    """What is found out about one image."""

    path: Path
    logits: Tensor  # (classes,)
    targets: Sequence[int]  # the classes explained
    relevance: Tensor  # (maps, rows, columns), one for each method or for each class
    head_importance: Tensor | None  # (K, layers, heads), if asked for and there is a method that weighs heads


def tell(explained: Explained, question: Question, classifier: Classifier) -> str:
    """The image, its most likely classes, the one explained, and how."""
    top = explained.logits.topk(min(TOP, len(explained.logits))).indices.tolist()
    scores = [_score(explained.logits, classifier, index)[1] for index in top]
    lines = [f"  {score:>9}  {_name(classifier, index)}" for score, index in zip(scores, top, strict=True)]
    for number, name in enumerate(_claims(explained, classifier)):
        lines.append(f"  {'' if number else 'explained':<9}  {name}")
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
    names = question.methods if question.top == 1 else _claims(explained, classifier)
    methods = question.methods * question.top  # of each map
    shares = [METHODS[name].share for name in methods]
    shown = [100 * own if share else own for share, own in zip(shares, explained.relevance, strict=True)]
    labels = [f"relevance per patch{f', % of {share}' if share else ''}" for share in shares]
    if len(shown) == 1:
        return visualize_attribution(shown[0], photo, title=title, label=labels[0], use_pyplot=False)[0]
    maps, label = (dict(zip(names, values, strict=True)) for values in (shown, labels))
    return visualize_comparison(maps, photo, title=title, label=label, use_pyplot=False)[0]


def arrays(done: Sequence[Explained], question: Question, labels: dict[int, str]) -> dict[str, npt.NDArray[Any]]:
    """What ``--save-array`` writes.

    Raises:
        ValueError: if the images have patch grids of different shapes.
    """
    shapes = sorted({tuple(explained.relevance.shape[1:]) for explained in done})
    if len(shapes) > 1:
        raise ValueError(f"the images have patch grids of different shapes, {shapes}: pass --size")
    relevance = np.stack([explained.relevance.numpy() for explained in done], 1)  # (maps, N, rows, columns)
    of_targets = {
        "target": np.array([explained.targets for explained in done]),
        "label": np.array([[labels[target] for target in explained.targets] for explained in done]),
    }
    heads = [explained.head_importance.numpy() for explained in done if explained.head_importance is not None]
    if heads:
        of_targets["head_importance"] = np.stack(heads)
    if question.top == 1:
        of_targets = {name: values[:, 0] for name, values in of_targets.items()}
    else:
        relevance = relevance.swapaxes(0, 1)[None]  # (1, N, K, rows, columns)
    return {
        "image": np.array([str(explained.path) for explained in done]),
        "logits": np.stack([explained.logits.numpy() for explained in done]),
        "method": np.array(question.methods),
        "relevance": relevance,
        **of_targets,
    }


def _title(explained: Explained, question: Question, classifier: Classifier) -> str:
    what, *others = _claims(explained, classifier)
    parts = [f"{explained.path.name}: {f'the {question.top} most likely classes' if others else what}"]
    if question.contrast is not None:
        parts.append(f"rather than {claim(explained.logits, classifier, question.contrast)}")
    if len(question.methods) == 1:
        parts.append(f"explained by {question.methods[0]}")
    if question.tokens:
        parts.append(f"relevance from {start_name(question.tokens)}")
    return ", ".join(parts)


def _claims(explained: Explained, classifier: Classifier) -> list[str]:
    return [claim(explained.logits, classifier, target) for target in explained.targets]


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
