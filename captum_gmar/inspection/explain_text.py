"""One image and texts: which patches made the model score them so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED, find_method
from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.token_evidence import TokenEvidence
from captum_gmar.classifier import Classifier
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.classifier.text_scores import PackedTextScores, TextScores, check_texts
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.files.images import to_rgb
from captum_gmar.visualization import visualize_comparison

OF_PATCHES = ("pixel_attention_mask", "spatial_shapes")  # what the model is told of images that come as patches


@dataclass(frozen=True)
class TextExplanation:
    """What fed the score of each of T texts.

    Attributes:
        texts: T, as they were given.
        relevance: (T, rows, columns) of the patches, in single precision on the CPU.
        scores: (T,) the model's logits of the image with each text.
        contrast: the text that is taken off, if any.
        view: the photo, and the place of the patches in it.
        method: by which it was explained.
    """

    texts: tuple[str, ...]
    relevance: Tensor
    scores: Tensor
    contrast: str | None
    view: PhotoView
    method: str

    def visualize(self, **options: Any) -> tuple[Figure, list[list[Axes]]]:
        """Draw the photo and a map for each text; options are those of :func:`captum_gmar.visualize_comparison`."""
        entry = METHODS[self.method]
        rather = "" if self.contrast is None else f" rather than “{self.contrast}”"
        names = [f"“{text}”{rather}\nlogit {score:.4g}" for text, score in zip(self.texts, self.scores, strict=True)]
        percent = 100 if entry.share else 1
        maps = {name: percent * map for name, map in zip(names, self.relevance, strict=True)}
        shown = {"crop": self.view.crop, "label": entry.label, "note": entry.caveat, **options}
        return visualize_comparison(maps, self.view.photo, **shown)


def explain_text(
    model: nn.Module,
    processor: Any,
    image: Image.Image,
    text: str | Sequence[str],
    *,
    contrast: str | None = None,
    method: str = RECOMMENDED,
) -> TextExplanation:
    """Explain the score that CLIP, SigLIP or one of their kind gives an image with a text.

    Of several texts of a model that was trained to choose among texts, as CLIP was, token evidence explains the
    log-odds of each against the others; of one alone, and of SigLIP's, each pair's logit. A score grows also with what
    is said by any text of such images: a contrast that differs in one word tells what that word is worth.

    Args:
        model (torch.nn.Module): Of transformers: CLIP, MetaCLIP 2, Chinese-CLIP, AltCLIP, SigLIP, SigLIP 2. It is used
            as it is, on the device where it is.
        processor (transformers.ProcessorMixin): Of ``AutoProcessor.from_pretrained``, which makes pixels of images and
            tokens of texts.
        image (PIL.Image.Image): Of any size.
        text (str or sequence of str): One text or several.
        contrast (str, optional): Explains why each text rather than this one: their logits' difference.
        method (str, optional): One of :func:`captum_gmar.list_methods`; of images that come as patches, as SigLIP 2's
            NaFlex ones, "token-evidence" alone. Default: "token-evidence".

    Returns:
        TextExplanation: **relevance** (texts, rows, columns), **scores** (texts,), and ``visualize()``.

    Raises:
        TypeError: if the model, the image, a text or the processor is none.
        ValueError: if the model scores no texts, a text has more tokens than the model takes, is empty, given twice or
            also the contrast, or there is no such method, or it takes no contrast.
        RuntimeError: if the method cannot explain the model; the message begins with its name.

    Example::

        >>> from captum_gmar import explain_text
        >>> explained = explain_text(model, processor, photo, ["a dog", "a cat"])  # doctest: +SKIP
        >>> figure, axes = explained.visualize()  # doctest: +SKIP
    """
    if not isinstance(text, Iterable):
        raise TypeError(f"text must be a string or a sequence of strings, but got {text!r}.")
    texts = (text,) if isinstance(text, str) else tuple(text)
    classes = texts if contrast is None else (*texts, contrast)
    check_texts(classes)
    if not isinstance(image, Image.Image):
        raise TypeError(f"image must be a PIL.Image.Image, but got {type(image).__name__}.")
    if not min(image.size):
        raise ValueError(f"image must have pixels, but got {image.width}x{image.height} of them.")
    check_model(model)
    missing = [part for part in ("image_processor", "tokenizer") if not callable(getattr(processor, part, None))]
    if missing:
        raise TypeError(
            f"processor must be the model's, with {' and '.join(missing)}, as AutoProcessor.from_pretrained makes it, "
            f"but got {type(processor).__name__}."
        )
    name = find_method(method)
    if contrast is not None and not METHODS[name].takes_contrast:
        raise ValueError(f"contrast requires a method that takes it, but got {name!r}. Choose another method.")
    image = to_rgb(image)
    pixels, arguments = _inputs(processor, image, next(model.parameters()).device)
    scores = (PackedTextScores if arguments else TextScores)(model, processor, classes)
    targets, against = torch.arange(len(texts)), None if contrast is None else len(texts)
    if arguments:
        if name != RECOMMENDED:
            raise ValueError(f"method must be {RECOMMENDED!r} for images that come as patches, but got {name!r}.")
        maps = TokenEvidence(scores).explain(pixels, targets[None].to(pixels.device), arguments, contrast=against)
        view = PhotoView(image, None)  # such processors resize alone
    else:
        maps = Explainer([name], scores, scores).explain(pixels, targets.to(pixels.device)[None], against)
        view = Classifier(scores, processor.image_processor).view(image, pixels[0])
    relevance = maps.relevance.reshape(len(texts), *maps.relevance.shape[-2:]).float().cpu()
    return TextExplanation(texts, relevance, maps.logits[0, : len(texts)].float().cpu(), contrast, view, name)


def _inputs(processor: Any, image: Image.Image, device: torch.device) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the model's input for an image, and its other arguments where the image comes as patches."""
    made = processor.image_processor(images=image, return_tensors="pt")
    pixels: Tensor = made["pixel_values"].to(device)
    return pixels, tuple(made[name].to(device) for name in OF_PATCHES if name in made)
