"""The work of ``captum-gmar explain`` on models that detect, segment, or classify videos or sounds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.evidence import AttentionEvidence
from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.classifier import Classifier, find_class
from captum_gmar.classifier.detection import Corners, find_query
from captum_gmar.classifier.vision_task import VisionTask
from captum_gmar.cli.image_report import claim, most_likely_lines
from captum_gmar.cli.paths import FILMS
from captum_gmar.cli.terminal import print_text, report
from captum_gmar.engine.fields import stretched
from captum_gmar.engine.models import frames_of
from captum_gmar.files.images import read_image
from captum_gmar.files.names import readable
from captum_gmar.files.sounds import read_sound
from captum_gmar.files.videos import Clip, read_video, save_film
from captum_gmar.files.writing import save_picture
from captum_gmar.visualization import overlay_video, visualize_attribution, visualize_spectrogram, visualize_video
from captum_gmar.visualization.heat import Array

METHOD = METHODS["attention-evidence"]
PER_PLACE = METHOD.label.replace("per patch", "per place")
VIDEO_VALUES = ("pixel_values", "pixel_values_videos")


class TaskSettings(NamedTuple):
    """What is asked of every input."""

    target: str | None = None  # None: what the model is surest of
    contrast: str | None = None
    box: Corners | None = None
    threshold: float = 0.5
    mask: Path | None = None
    point: tuple[float, float] | None = None


class ExplainedInput(NamedTuple):
    """What is known of one input."""

    lines: list[str]  # what is printed
    save: Callable[[Path], None]  # writes its picture


def explain_inputs(
    classifier: Classifier, task: VisionTask, pictures: Mapping[Path, Path], settings: TaskSettings
) -> tuple[int, int]:
    """Explains each input and writes its picture.

    Args:
        classifier: the model, and what makes pixel values of images.
        task: what the model does.
        pictures: where the picture of each input goes.
        settings: what is asked of each.

    Returns:
        How many were explained and how many failed. Failures are reported.
    """
    failed = 0
    for path, picture in pictures.items():
        try:
            explained = EXPLAIN[task](classifier, path, settings)
            picture.parent.mkdir(parents=True, exist_ok=True)
            explained.save(picture)
        except OSError as error:
            failed += 1
            report(error)
        except FAILURES as error:
            failed += 1
            report(f"{readable(path)}: {error}")
        else:
            print_text("\n".join([readable(path), *explained.lines, f"  picture    {readable(picture)}"]))
    return len(pictures) - failed, failed


def _explain_objects(detector: Classifier, path: Path, settings: TaskSettings) -> ExplainedInput:
    image = read_image(path)
    pixels = detector.pixel_values(image).to(detector.device)
    label = _class_of(settings.target, detector)
    with torch.no_grad():
        output = detector.model(pixels)
    size = image.height, image.width
    found = find_query(output, len(detector.labels), size, label=label, box=settings.box, threshold=settings.threshold)
    relevance = AttentionEvidence(detector.model).relevance(pixels, target=found.target)
    what = f"{detector.labels[found.label]} (class {found.label}), probability {100 * found.probability:.1f}%"
    corners = ", ".join(f"{corner:.0f}" for corner in found.box)
    high, wide = (new / old for new, old in zip(pixels.shape[-2:], size, strict=True))
    box = tuple(corner * share for corner, share in zip(found.box, (wide, high) * 2, strict=True))
    return ExplainedInput(
        [f"  explained  {what}", f"  query      {found.query}, which sees it in the box {corners}", _METHOD_LINE],
        _image_picture(detector, path, pixels, relevance, f"{what}, query {found.query}", box=box),
    )


def _explain_region(segmenter: Classifier, path: Path, settings: TaskSettings) -> ExplainedInput:
    image = read_image(path)
    pixels = segmenter.pixel_values(image).to(segmenter.device)
    with torch.no_grad():
        predicted = segmenter.logits(pixels)[0].argmax(0)  # (rows, columns)
    label = _class_of(settings.target, segmenter)
    region = _region(settings, image, (predicted.shape[0], predicted.shape[1]))
    if region is not None and label is None:
        label = int(predicted[region.to(predicted.device)].mode().values)
    label = int(predicted.flatten().mode().values) if label is None else label
    region = predicted == label if region is None else region.to(predicted.device)
    what = f"{segmenter.labels[label]} (class {label})"
    if not region.any():
        raise ValueError(f"Expected {what} somewhere but the model predicts it nowhere. Pass --mask or --point.")

    def mean_logit(pixels: Tensor) -> Tensor:
        return (segmenter.logits(pixels)[:, label] * region).sum((1, 2)) / region.sum()

    relevance = AttentionEvidence(segmenter.model, forward_func=mean_logit).relevance(pixels)
    where = f"over {100 * float(region.float().mean()):.2g}% of the image"
    return ExplainedInput(
        [f"  explained  {what}, its mean logit {where}", _METHOD_LINE],
        _image_picture(segmenter, path, pixels, relevance, f"{what}, {where}", region=region),
    )


def _region(settings: TaskSettings, image: Image.Image, shape: tuple[int, int]) -> Tensor | None:
    """Where --mask or --point say, boolean (rows, columns) of the logits."""
    rows, columns = shape
    if settings.mask is not None:
        mask = read_image(settings.mask).convert("L")
        if mask.size != image.size:
            raise ValueError(
                f"--mask must be as large as the image, {image.width}x{image.height} pixels. Got "
                f"{mask.width}x{mask.height} instead."
            )
        region = torch.from_numpy(np.array(mask.resize((columns, rows), Image.Resampling.BOX)) > 127)
        if not region.any():
            raise ValueError("--mask must be white somewhere. Got a mask that covers no place of the model's output.")
        return region
    if settings.point is None:
        return None
    x, y = settings.point
    if not (x < image.width and y < image.height):
        raise ValueError(f"--point must lie in the image of {image.width}x{image.height} pixels. Got {x:g},{y:g}.")
    region = torch.zeros(shape, dtype=torch.bool)
    region[int(y * rows / image.height), int(x * columns / image.width)] = True
    return region


def _explain_video(classifier: Classifier, path: Path, settings: TaskSettings) -> ExplainedInput:
    clip = read_video(path, frames_of(classifier.model) or 0)
    made = classifier.processor(list(clip.frames), return_tensors="pt")
    pixels = next(made[name] for name in VIDEO_VALUES if name in made).to(classifier.device)
    lines, what, relevance = _of_class(classifier, pixels, settings)
    photos = [classifier.photo(frame) for frame in pixels[0]]
    return ExplainedInput(
        lines, lambda picture: _save_video(picture, relevance, photos, clip, _input_title(path, what))
    )


def _save_video(picture: Path, relevance: Tensor, photos: list[Array], clip: Clip, title: str) -> None:
    if picture.suffix[1:].lower() in FILMS:
        save_film(overlay_video(relevance, photos), picture, clip.seconds)
        return
    label = PER_PLACE.replace("place", "tube")
    figure, _ = visualize_video(100 * relevance, photos, title=title, label=label, note=METHOD.caveat, use_pyplot=False)
    save_picture(figure, picture)


def _explain_sound(classifier: Classifier, path: Path, settings: TaskSettings) -> ExplainedInput:
    rate = classifier.processor.sampling_rate
    made = classifier.processor(read_sound(path, rate), sampling_rate=rate, return_tensors="pt")
    spectrogram = made["input_values"].to(classifier.device)  # (1, time, bins)
    lines, what, relevance = _of_class(classifier, spectrogram, settings)

    def save(picture: Path) -> None:
        figure, _ = visualize_spectrogram(
            100 * relevance,
            spectrogram[0],
            sampling_rate=rate,
            title=_input_title(path, what),
            label=PER_PLACE,
            note=METHOD.caveat,
            use_pyplot=False,
        )
        save_picture(figure, picture)

    return ExplainedInput(lines, save)


def _of_class(classifier: Classifier, inputs: Tensor, settings: TaskSettings) -> tuple[list[str], str, Tensor]:
    """What is printed of a class, its claim, and the relevance of one input's places."""
    contrast = _class_of(settings.contrast, classifier, "contrast")
    target = _class_of(settings.target, classifier)
    maps = AttentionEvidence(classifier.model).explain(
        inputs,
        lambda logits: logits.argmax(1, keepdim=True) if target is None else torch.tensor([[target]]),
        contrast=contrast,
    )
    logits, chosen = maps.logits[0], int(maps.targets[0, 0])
    if chosen == contrast:
        raise ValueError("its most likely class is that of --contrast. Pass another class as --target.")
    what = claim(logits, classifier, chosen)
    lines = [*most_likely_lines(logits, classifier), f"  explained  {what}"]
    if contrast is not None:
        lines.append(f"  contrast   {claim(logits, classifier, contrast)}")
        what = f"{what}, rather than {classifier.labels[contrast]}"
    return [*lines, _METHOD_LINE], what, maps.relevance[0, 0]


def _image_picture(
    classifier: Classifier,
    path: Path,
    pixels: Tensor,
    relevance: Tensor,
    what: str,
    box: Any = None,
    region: Tensor | None = None,
) -> Callable[[Path], None]:
    def save(picture: Path) -> None:
        figure, _ = visualize_attribution(
            _on_pixels(100 * relevance[0], pixels),
            classifier.photo(pixels[0]),
            title=_input_title(path, what),
            label=PER_PLACE,
            note=METHOD.caveat,
            box=box,
            region=region,
            use_pyplot=False,
        )
        save_picture(figure, picture)

    return save


def _on_pixels(relevance: Tensor, pixels: Tensor) -> Tensor:
    """A map (rows, columns) that divides the pixels evenly, or one for each pixel of the place that it lies in."""
    size = height, width = pixels.shape[-2], pixels.shape[-1]
    rows, columns = relevance.shape
    if height % rows == 0 and width % columns == 0:
        return relevance
    return stretched(relevance[None], size)[0] * (height * width / (rows * columns))


def _class_of(name: str | None, classifier: Classifier, option: str = "target") -> int | None:
    return None if name is None else find_class(name, classifier.labels, option)


def _input_title(path: Path, what: str) -> str:
    return f"{readable(path.name)}: {what}, explained by {METHOD.name}"


_METHOD_LINE = f"  method     {METHOD.name}"
EXPLAIN = {
    VisionTask.DETECTION: _explain_objects,
    VisionTask.SEGMENTATION: _explain_region,
    VisionTask.VIDEO: _explain_video,
    VisionTask.SOUND: _explain_sound,
}
