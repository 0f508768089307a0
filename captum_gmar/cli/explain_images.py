"""The work of ``captum-gmar explain``: batches of images through a model."""

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.classifier import find_class
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.cli.explain_settings import ImageSettings
from captum_gmar.cli.image_report import ExplainedImage, Question, arrays, draw_picture, seen_lines, summary_text
from captum_gmar.cli.options import Top
from captum_gmar.cli.paths import PictureFile
from captum_gmar.cli.sources import Source
from captum_gmar.cli.terminal import CommandError, heartbeat, print_text, report
from captum_gmar.engine.models.layers import has_several_grids
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.files.names import readable_name
from captum_gmar.files.writing import save_arrays, save_picture, write_page
from captum_gmar.inspection.class_page import ClassPage
from captum_gmar.metrics.removal import Blur

Pictures = Mapping[Path, PictureFile]
ImagePixels = tuple[Path, Tensor]  # (1, channels, height, width)


def explain_images(source: Source, pictures: Pictures, array: Path | None, settings: ImageSettings) -> tuple[int, int]:
    """Explain images and write their pictures and, if requested, their arrays; return how many were explained and
    failed.
    """
    paths, size = list(pictures), settings.batch_size
    bar = tqdm(total=len(paths), unit="image", disable=len(paths) == 1 or not sys.stderr.isatty())
    work = ExplainWork(source, pictures, settings)
    with bar:
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            with heartbeat(readable_name(batch[0]) if len(batch) == 1 else f"{len(batch)} images"):
                work.explain_batch(batch)
            bar.update(len(batch))
    if array is not None and work.done:
        work.save_arrays(array)
    return len(work.done), work.failed


def is_over_one_grid(source: Source) -> bool:
    """Return whether the model has one grid of patches, which GMAR is defined over."""
    return not has_several_grids(source.classifier.model, torch.empty(1, 3, 1, 1))


class ExplainWork:
    """A model, a question to it, and the results so far."""

    def __init__(self, source: Source, pictures: Pictures, settings: ImageSettings) -> None:
        self.source, self.classifier = source, source.classifier
        self.pictures = pictures
        self.with_heads, self.with_proof = settings.with_heads, settings.with_proof
        self.question = _question(settings, self.classifier.labels)
        self.explainer = Explainer(
            settings.methods,
            self.classifier.model,
            self.classifier.logits,
            settings.tokens,
            batch_size=settings.batch_size,
        )
        self.done: list[ExplainedImage] = []
        self.failed = 0
        self._photos: dict[Path, Image.Image] = {}  # those of the batch

    def explain_batch(self, paths: list[Path]) -> None:
        """Explain images and write their pictures."""
        self._photos.clear()
        readable_images = [(path, pixels) for path in paths if (pixels := self._read(path)) is not None]
        for _, group in groupby(readable_images, key=lambda image: image[1].shape):
            for explained, pixels in self._explain(list(group)):
                self._draw(explained, pixels)

    def save_arrays(self, path: Path) -> None:
        """Write the arrays of all explained images to one file."""
        try:
            save_arrays(path, arrays(self.done, self.question, self.classifier.labels))
        except ValueError as error:
            self._fail(f"{readable_name(path)}: cannot be written: {error}")
        except OSError as error:
            self._fail(error)
        else:
            images = "1 image" if len(self.done) == 1 else f"{len(self.done)} images"
            print_text(f"{readable_name(path)}: arrays of {images}")

    def _read(self, path: Path) -> Tensor | None:
        try:
            self._photos[path], pixels = self.source.open(path)
        except (OSError, ValueError) as error:
            self._fail(error)
            return None
        return pixels

    def _explain(self, images: Sequence[ImagePixels]) -> list[tuple[ExplainedImage, Tensor]]:
        """Return the explained images with their pixel values. If a batch fails, explain its images one by one."""
        done, failures = self._attempt(images)
        if failures and len(images) > 1:
            attempts = [self._attempt([image]) for image in images]
            done = [image for images, _ in attempts for image in images]
            failures = [failure for _, failures in attempts for failure in failures]
        # A model that explains none of the first images would fail on all others.
        if failures and not (done or self.done):
            raise CommandError(f"the model's prediction cannot be explained: {failures[0][1]}") from failures[0][1]
        for path, error in failures:
            self._fail(f"{readable_name(path)}: {error}")
        handled = {*(image.path for image, _ in done), *(path for path, _ in failures)}
        for path in [path for path, _ in images if path not in handled]:
            self._fail(
                f"{readable_name(path)}: its most likely class must differ from --contrast, but is the same. "
                "Pass another class as --target."
            )
        return done

    def _attempt(
        self, images: Sequence[ImagePixels]
    ) -> tuple[list[tuple[ExplainedImage, Tensor]], list[tuple[Path, Exception]]]:
        """Return the explained images, or the errors that prevent it."""
        try:
            return self._explain_batch(images), []
        except FAILURES as error:
            return [], [(path, error) for path, _ in images]

    def _explain_batch(self, images: Sequence[ImagePixels]) -> list[tuple[ExplainedImage, Tensor]]:
        pixels = torch.cat([pixels for _, pixels in images]).to(self.classifier.device)
        maps = self.explainer.explain(pixels, self.question.targets, self.question.contrast)
        relevance = maps.relevance.movedim(1, 0).flatten(1, 2)  # (N, methods × K, rows, columns)
        heads = maps.head_importance if self.with_heads else None
        paths = [path for path, _ in images]
        columns = paths, maps.logits, maps.targets.tolist(), relevance, repeat(None) if heads is None else heads
        explained = list(zip(map(ExplainedImage, *columns), pixels, strict=True))
        return [(image, seen) for image, seen in explained if not self.question.is_void(image.logits)]

    def _draw(self, explained: ExplainedImage, pixels: Tensor) -> None:
        file, photo = self.pictures[explained.path], self._photos.pop(explained.path)
        grid = patch_grid(self.classifier.model, *pixels.shape[-2:])  # beyond it is a margin that no patch covers
        covered = pixels[:, : grid.rows * grid.patch_height, : grid.columns * grid.patch_width]
        view = self.classifier.view(photo, covered)
        try:
            if file.path.suffix.lower() == ".html":
                self._write_page(file, view, pixels)
            else:
                save_picture(draw_picture(explained, self.question, view, self.classifier), *file)
        except OSError as error:
            return self._fail(error)
        except FAILURES as error:  # of the other classes of a page
            return self._fail(f"{readable_name(explained.path)}: {error}")
        self.done.append(explained)
        text = summary_text(explained, self.question, self.classifier)
        lines = [text, *seen_lines(self.classifier, photo), f"  {file.kind:<9}  {readable_name(file.path)}"]
        return print_text("\n".join(lines))

    def _write_page(self, file: PictureFile, view: PhotoView, pixels: Tensor) -> None:
        classifier, methods = self.classifier, self.question.methods
        options: dict[str, Any] = {"crop": view.crop, "forward_func": classifier.logits}
        if self.with_proof:
            options |= {"proof": Blur(), "show_progress": sys.stderr.isatty()}
        page = ClassPage(classifier.model, pixels[None], view.photo, classifier.labels, methods, **options)
        write_page(file.path, page.html, file.note)

    def _fail(self, message: object) -> None:
        report(message)
        self.failed += 1


def _question(settings: ImageSettings, labels: Mapping[int, str]) -> Question:
    target, contrast = None, None
    if isinstance(settings.target, str):
        target = find_class(settings.target, labels, forms="topK, an index or a label")
    if settings.contrast is not None:
        contrast = find_class(settings.contrast, labels, "contrast")
    if contrast is not None and contrast == target:
        raise CommandError(f"--contrast must differ from --target, but got {target} ({labels[target]}) for both.")
    if isinstance(settings.target, Top) and settings.top > max(1, len(labels) - (contrast is not None)):
        others = "" if contrast is None else ", of which the contrast is left out"
        raise CommandError(f"--target must be at most the {len(labels)} classes{others}, but got top{settings.top}.")
    drawing = bool(settings.share_scale), settings.width
    return Question(settings.methods, target, contrast, settings.tokens, settings.top, *drawing)
