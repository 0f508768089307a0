"""The work of ``captum-gmar explain``: batches of images through a model."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_gmar import demo
from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.classifier import choose_device, find_class, load_classifier
from captum_gmar.cli.explained import Explained, Question, arrays, draw, tell
from captum_gmar.cli.options import top_classes
from captum_gmar.cli.terminal import CommandError, report, say
from captum_gmar.files.images import read_image
from captum_gmar.files.writing import replacing, save_picture

SCENE_SEED = 3

Pictures = Mapping[Path, Path]
ImagePixels = tuple[Path, Tensor]  # (1, channels, height, width)


def explain_scene(pictures: Pictures, array: Path | None, arguments: argparse.Namespace) -> tuple[int, int]:
    """Explains a built-in scene with the built-in model; as :func:`explain_images`."""
    with demo.model_folder() as folder:
        arguments.model = str(folder)
        return explain_images(pictures, array, arguments, read=lambda path: demo.load_scene(SCENE_SEED).image)


def explain_images(
    pictures: Pictures,
    array: Path | None,
    arguments: argparse.Namespace,
    read: Callable[[Path], Image.Image] = read_image,
) -> tuple[int, int]:
    """Explains images and writes their pictures and, if asked for, their arrays.

    Args:
        pictures: where the picture of each image goes.
        array: where the arrays go, if anywhere.
        arguments: of the command.
        read: gives the image of a path.

    Returns:
        How many were explained and how many failed. Failures are reported.

    Raises:
        CommandError: if the model cannot be had, or not even the first images can be explained.
    """
    paths, size = list(pictures), arguments.batch_size
    work = Work(arguments, pictures, read, with_heads=array is not None)
    with tqdm(total=len(paths), unit="image", disable=len(paths) == 1 or not sys.stderr.isatty()) as bar:
        for start in range(0, len(paths), size):
            work.explain_batch(paths[start : start + size])
            bar.update(len(paths[start : start + size]))
    if array is not None and work.done:
        work.save_arrays(array)
    return len(work.done), work.failed


class Work:
    """A model, what it is asked, and what became of each image so far."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        pictures: Pictures,
        read: Callable[[Path], Image.Image],
        with_heads: bool,
    ) -> None:
        self.device = choose_device(arguments.device)
        self.classifier = load_classifier(arguments.model, size=arguments.size, device=self.device)
        self.question = _question(arguments, self.classifier.labels)
        self.explainer = Explainer(
            arguments.methods,
            self.classifier.model,
            self.classifier.logits,
            arguments.tokens,
            batch_size=arguments.batch_size,
        )
        self.pictures = pictures
        self.read = read
        self.with_heads = with_heads
        self.done: list[Explained] = []
        self.failed = 0

    def explain_batch(self, paths: list[Path]) -> None:
        readable = [(path, pixels) for path in paths if (pixels := self._read(path)) is not None]
        for _, group in groupby(readable, key=lambda image: image[1].shape):
            for explained, pixels in self._explain(list(group)):
                self._finish(explained, pixels)

    def save_arrays(self, path: Path) -> None:
        """Writes the arrays of all explained images to one file."""
        try:
            of_images = arrays(self.done, self.question, self.classifier.labels)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **of_images)  # type: ignore[arg-type]
        except (OSError, ValueError) as error:
            self._fail(error if isinstance(error, OSError) else f"{path}: cannot be written: {error}")

    def _read(self, path: Path) -> Tensor | None:
        try:
            return self.classifier.pixel_values(self.read(path))
        except OSError as error:
            self._fail(error)
        except ValueError as error:
            self._fail(f"{path}: the model's image processor cannot take it: {error}")
        return None

    def _explain(self, images: Sequence[ImagePixels]) -> list[tuple[Explained, Tensor]]:
        """Those that could be explained, with their pixel values."""
        try:
            done = self._explained(images)
        except FAILURES as error:
            if not self.done:  # most likely the model's doing, so that every other image would fail as well
                raise CommandError(f"the model's prediction cannot be explained: {error}") from error
            for path, _ in images:
                self._fail(f"{path}: {error}")
            return []
        explained = {own.path for own, _ in done}
        for path in [path for path, _ in images if path not in explained]:
            self._fail(f"{path}: its most likely class is that of --contrast. Pass another class as --target.")
        return done

    def _explained(self, images: Sequence[ImagePixels]) -> list[tuple[Explained, Tensor]]:
        """All but those whose target is the class that it is contrasted with."""
        pixels = torch.cat([own for _, own in images]).to(self.device)
        with torch.no_grad():
            logits = self.classifier.logits(pixels)
        targets = self._targets(logits)
        kept = [index for index, own in enumerate(targets.tolist()) if self.question.contrast not in own]
        if not kept:
            return []
        pixels, logits, targets = pixels[kept], logits[kept], targets[kept]
        maps = self.explainer.explain(pixels, targets, self.question.contrast)
        relevance = maps.relevance.movedim(1, 0).flatten(1, 2)  # (N, maps, rows, columns)
        heads = maps.head_importance if self.with_heads else None
        paths = [images[index][0] for index in kept]
        columns = paths, logits.cpu(), targets.tolist(), relevance, repeat(None) if heads is None else heads
        return list(zip(map(Explained, *columns), pixels, strict=True))

    def _targets(self, logits: Tensor) -> Tensor:
        """(N, K) classes to explain, of logits (N, classes)."""
        target, contrast, top = self.question.target, self.question.contrast, self.question.top
        if target is not None:
            return logits.new_full((len(logits), 1), target, dtype=torch.long)
        if top > 1 and contrast is not None:
            logits = logits.index_fill(1, torch.tensor([contrast], device=logits.device), -torch.inf)
        return logits.argsort(descending=True, stable=True)[:, :top]

    def _finish(self, explained: Explained, pixels: Tensor) -> None:
        picture = self.pictures[explained.path]
        try:
            save_picture(draw(explained, self.question, pixels, self.classifier), picture)
        except OSError as error:
            self._fail(error)
        else:
            self.done.append(explained)
            say(f"{tell(explained, self.question, self.classifier)}\n  picture    {picture}")

    def _fail(self, message: object) -> None:
        report(message)
        self.failed += 1


def _question(arguments: argparse.Namespace, labels: Mapping[int, str]) -> Question:
    top = top_classes(arguments.target)
    target = None if top else find_class(arguments.target, labels, forms="topK, an index or a label")
    contrast = None if arguments.contrast is None else find_class(arguments.contrast, labels, "contrast")
    if contrast is not None and contrast == target:
        raise CommandError(f"--contrast must be another class than --target. Got {target} ({labels[target]}) for both.")
    if top is not None and top > max(1, len(labels) - (contrast is not None)):
        others = "" if contrast is None else ", of which the contrast is left out"
        raise CommandError(f"--target must be at most the model's {len(labels)} classes{others}. Got top{top} instead.")
    return Question(arguments.methods, target, contrast, arguments.tokens, top or 1)
