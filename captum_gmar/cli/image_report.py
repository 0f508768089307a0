"""The report on an explained image: its printed lines, its picture and its arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.classifier import Classifier
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.cli.options import start_name
from captum_gmar.engine.models.readout_tokens import Part
from captum_gmar.files.images import FRAMES
from captum_gmar.files.names import readable_name
from captum_gmar.files.sounds import Sound
from captum_gmar.visualization import visualize_attribution, visualize_comparison, visualize_token_interaction
from captum_gmar.visualization._heatmap import photo_of
from captum_gmar.visualization.tokens import patch_box

TOP = 5  # classes printed
ALL_BUT = 0.995  # share of a photo that is printed as all of it
NO_CLASS = "the same for every class"  # the caption of maps that do not depend on the class
TEXTS = "label", "caveat"  # of a method, below its map


class Question(NamedTuple):
    """The question to every image, in the model's classes."""

    methods: tuple[str, ...]
    target: int | None  # None: each image's most likely classes
    contrast: int | None
    tokens: Sequence[Part]  # none: each method's own
    top: int = 1  # number of classes
    has_one_scale: bool = False  # for all maps of one unit
    width: float | None = None  # inches of the picture

    @property
    def reads_class(self) -> bool:
        """True if any of the maps depends on the class."""
        return any(METHODS[name].reads_class for name in self.methods)

    def targets(self, logits: Tensor) -> Tensor:
        """Return the classes (N, K) to explain for logits (N, classes); the contrast is none of them."""
        if self.target is not None:
            return logits.new_full((len(logits), 1), self.target, dtype=torch.long)
        if self.contrast is not None:
            logits = logits.index_fill(1, torch.tensor([self.contrast], device=logits.device), -torch.inf)
        return logits.argsort(descending=True, stable=True)[:, : self.top]

    def is_void(self, logits: Tensor) -> bool:
        """Return whether the most likely class of an image, by its logits (classes,), is the contrast."""
        is_most_likely = self.target is None and self.top == 1
        return is_most_likely and self.contrast is not None and int(logits.argmax()) == self.contrast


class ExplainedImage(NamedTuple):
    """The result for one image."""

    path: Path
    logits: Tensor  # (classes,)
    targets: Sequence[int]  # the classes explained
    relevance: Tensor  # (methods × K, rows, columns)
    head_importance: Tensor | None  # (K, layers, heads), if requested and a method weighs heads


def summary_text(explained: ExplainedImage, question: Question, classifier: Classifier) -> str:
    """Return the image's name, its most likely classes, the explained one, and the methods."""
    lines = most_likely_lines(explained.logits, classifier)
    claims = _claims(explained, classifier) if question.reads_class else [f"no class: the map is {NO_CLASS}"]
    for number, name in enumerate(claims):
        lines.append(f"  {'' if number else 'explained':<9}  {name}")
    if question.contrast is not None:
        lines.append(f"  contrast   {claim(explained.logits, classifier, question.contrast)}")
    lines.append(f"  {'method ' if len(question.methods) == 1 else 'methods'}    {', '.join(question.methods)}")
    if question.tokens:
        lines.append(f"  tokens     {start_name(question.tokens)}")
    return "\n".join([readable_name(explained.path), *lines])


def seen_lines(classifier: Classifier, image: Image.Image) -> list[str]:
    """Return the lines that say which part of a photo's file the model sees, if it does not see all of it."""
    frames = image.info.get(FRAMES, 1)
    lines = [f"  seen       the first of {frames} frames"] if frames > 1 else []
    try:
        frame = classifier.frame(image)
    except ValueError as error:
        return [*lines, f"  seen       an unknown part of the photo: {error}"]
    left, top, right, bottom = frame.seen
    part = f"{100 * frame.share:.0f}% of the photo, from {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f} in pixels"
    return [*lines, f"  seen       {part}"] if frame.share < ALL_BUT else lines


def seen_sound_lines(sound: Sound, seconds: float) -> list[str]:
    """Return the lines that say how much of a sound the model reads, and from which rate it was resampled."""
    lines = []
    if seconds < sound.seconds:
        lines.append(f"  seen       the first {seconds:.4g} of {sound.seconds:.4g} seconds")
    if sound.rate != sound.sampling_rate:
        lines.append(f"  resampled  from {sound.rate} to {sound.sampling_rate} samples a second")
    return lines


def most_likely_lines(logits: Tensor, classifier: Classifier) -> list[str]:
    """Return a line for each of the most likely classes, by logits (classes,)."""
    top = logits.topk(min(TOP, len(logits))).indices.tolist()
    scores = [_score(logits, classifier, index)[1] for index in top]
    return [f"  {score:>9}  {_name(classifier, index)}" for score, index in zip(scores, top, strict=True)]


def draw_picture(explained: ExplainedImage, question: Question, view: PhotoView, classifier: Classifier) -> Figure:
    """Draw the photo and its map, or its maps side by side."""
    entries, maps = [METHODS[name] for name in question.methods], _by_method(explained.relevance, question)
    scaled = [(100 if entry.share else 1) * each for entry, each in zip(entries, maps, strict=True)]
    patch = question.tokens[0] if len(question.tokens) == 1 else None  # is framed
    options: dict[str, Any] = {"crop": view.crop, "use_pyplot": False, "width": question.width}
    options["title"] = _title(explained, question, classifier)
    if question.top == len(entries) == 1:
        options |= {"label": entries[0].label, "note": entries[0].caveat}
        if isinstance(patch, tuple):
            return visualize_token_interaction(scaled[0][0], view.photo, patch, **options)[0]
        return visualize_attribution(scaled[0][0], view.photo, **options)[0]
    if isinstance(patch, tuple):
        options["box"] = patch_box(patch, tuple(maps.shape[2:]), view.crop or (0, 0, *photo_of(view.photo).size))
    return _draw_grid(scaled, explained, question, view, classifier, **options)


def _draw_grid(
    maps: Sequence[Tensor],
    explained: ExplainedImage,
    question: Question,
    view: PhotoView,
    classifier: Classifier,
    **options: Any,
) -> Figure:
    """Draw the photo with a column for each method and a row for each class; classes of one method side by side."""
    entries, claims = [METHODS[name] for name in question.methods], list[str]()
    beside = "" if not question.reads_class else f", {NO_CLASS}"  # of maps for which the class does not matter
    names = [
        name if entry.reads_class else name + beside for name, entry in zip(question.methods, entries, strict=True)
    ]
    if len(maps) == 1:
        entries, names, maps = entries * question.top, _claims(explained, classifier), list(maps[0])
    elif question.top == 1:
        maps = [each[0] for each in maps]
    else:
        claims = _claims(explained, classifier)
    labels, notes = ({name: getattr(entry, text) for name, entry in zip(names, entries, strict=True)} for text in TEXTS)
    options |= {"label": labels, "note": notes, "rows": claims, "share_scale": question.has_one_scale}
    return visualize_comparison(dict(zip(names, maps, strict=True)), view.photo, **options)[0]


def _by_method(relevance: Tensor, question: Question) -> Tensor:
    """Return maps as (methods, K, rows, columns)."""
    return relevance.reshape(len(question.methods), -1, *relevance.shape[1:])


def arrays(done: Sequence[ExplainedImage], question: Question, labels: dict[int, str]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that ``--save-array`` writes."""
    shapes = sorted({tuple(explained.relevance.shape[1:]) for explained in done})
    if len(shapes) > 1:
        raise ValueError(f"images must have patch grids of one shape, but got {shapes}. Pass --size.")
    maps = [_by_method(explained.relevance, question).numpy() for explained in done]
    relevance = np.stack(maps, 1)  # (methods, N, K, rows, columns)
    class_arrays = {
        "target": np.array([explained.targets for explained in done]),
        "label": np.array([[labels[target] for target in explained.targets] for explained in done]),
    }
    heads = [explained.head_importance.numpy() for explained in done if explained.head_importance is not None]
    if heads:
        class_arrays["head_importance"] = np.stack(heads)
    if question.top == 1:
        relevance, class_arrays = relevance[:, :, 0], {name: values[:, 0] for name, values in class_arrays.items()}
    return {
        "image": np.array([str(explained.path) for explained in done]),
        "logits": np.stack([explained.logits.numpy() for explained in done]),
        "method": np.array(question.methods),
        "relevance": relevance,
        **class_arrays,
    }


def _title(explained: ExplainedImage, question: Question, classifier: Classifier) -> str:
    name = readable_name(explained.path.name)
    if not question.reads_class:
        how = f"{' and '.join(question.methods)}, {NO_CLASS}" if len(question.methods) < 3 else NO_CLASS
        parts = [f"{name}: {how}"]
    else:
        what, *others = _claims(explained, classifier)
        parts = [f"{name}: {f'the {question.top} most likely classes' if others else what}"]
        if question.contrast is not None:
            parts.append(f"rather than {claim(explained.logits, classifier, question.contrast)}")
        if len(question.methods) == 1:
            parts.append(f"explained by {question.methods[0]}")
    if question.tokens:
        parts.append(f"relevance from {start_name(question.tokens)}")
    return ", ".join(parts)


def _claims(explained: ExplainedImage, classifier: Classifier) -> list[str]:
    return [claim(explained.logits, classifier, target) for target in explained.targets]


def claim(logits: Tensor, classifier: Classifier, index: int) -> str:
    """Return a class and its score, by logits (classes,)."""
    return f"{_name(classifier, index)}, {' '.join(_score(logits, classifier, index))}"


def _name(classifier: Classifier, index: int) -> str:
    return f"{classifier.labels[index]} (class {index})"


def _score(logits: Tensor, classifier: Classifier, index: int) -> tuple[str, str]:
    """Return the probability of a class, or its logit if it is the only one, with the name of that score."""
    probabilities = classifier.probabilities(logits)
    if probabilities is None:
        return "logit", f"{logits[index]:.4g}"
    return "probability", share_text(float(probabilities[index]))


def share_text(share: float) -> str:
    """
    >>> share_text(0.99996), share_text(0.00004)
    ('100.0%', '0.004%')
    """
    return f"{100 * share:.1f}%" if share >= 0.001 else f"{100 * share:.1g}%"
