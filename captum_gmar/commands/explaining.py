"""The work of ``captum-gmar explain``: batches of images through a model."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_gmar import demo
from captum_gmar._files import replacing
from captum_gmar.commands import CommandError, report
from captum_gmar.commands.classifier import Classifier
from captum_gmar.commands.explained import Explained, arrays, draw, tell
from captum_gmar.commands.loading import choose_device, load_classifier
from captum_gmar.commands.targets import find_target
from captum_gmar.gmar import GMARAttribution
from captum_gmar.images import read_image

SCENE_SEED = 3
PAPER: dict[str, Any] = {"dpi": 150, "bbox_inches": "tight", "pad_inches": 0.1}


Pictures = Mapping[Path, Path]


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
    with _own_warnings():
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
        model, processor = load_classifier(arguments.model)
        self.classifier = Classifier(model.to(self.device), processor, arguments.size)
        self.target = find_target(arguments.target, self.classifier.labels)
        self.gmar = GMARAttribution(model, arguments.norm, arguments.residual, self.classifier.logits)
        self.pictures = pictures
        self.read = read
        self.with_heads = with_heads
        self.done: list[Explained] = []
        self.failed = 0

    def explain_batch(self, paths: list[Path]) -> None:
        readable = [(path, pixels) for path in paths if (pixels := self._read(path)) is not None]
        for _, group in groupby(readable, key=lambda image: image[1].shape):
            images = list(group)
            pixels = torch.cat([own for _, own in images])
            for explained, own in zip(self._explain([path for path, _ in images], pixels), pixels, strict=False):
                self._finish(explained, own)

    def save_arrays(self, path: Path) -> None:
        """Writes the arrays of all explained images to one file."""
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays(self.done, self.classifier.labels))  # type: ignore[arg-type]
        except (OSError, ValueError) as error:
            self._fail(f"{path}: cannot be written: {error}")

    def _read(self, path: Path) -> Tensor | None:
        try:
            return self.classifier.pixel_values(self.read(path))
        except OSError as error:
            self._fail(error)
        except ValueError as error:
            self._fail(f"{path}: the model's image processor cannot take it: {error}")
        return None

    def _explain(self, paths: list[Path], pixels: Tensor) -> list[Explained]:
        try:
            return self._explained(paths, pixels.to(self.device))
        except (RuntimeError, TypeError, ValueError, FloatingPointError) as error:
            if not self.done:  # most likely the model's doing, so that every other image would fail as well
                raise CommandError(f"the model's prediction cannot be explained: {error}") from error
            for path in paths:
                self._fail(f"{path}: {error}")
            return []

    def _explained(self, paths: list[Path], pixels: Tensor) -> list[Explained]:
        with torch.no_grad():
            logits = self.classifier.logits(pixels)
        targets = (
            logits.argmax(-1) if self.target is None else torch.full_like(logits[:, 0], self.target, dtype=torch.long)
        )
        relevance = self.gmar.relevance(pixels, targets).cpu()
        heads = self.gmar.head_importance(pixels, targets).cpu() if self.with_heads else [None] * len(paths)
        return list(map(Explained, paths, logits.cpu(), targets.tolist(), relevance, heads))

    def _finish(self, explained: Explained, pixels: Tensor) -> None:
        picture = self.pictures[explained.path]
        try:
            with replacing(picture) as temporary:
                figure = draw(explained, pixels, self.classifier)
                figure.savefig(temporary, format=picture.suffix[1:].lower(), **PAPER)
        except OSError as error:
            self._fail(f"{picture}: cannot be written: {error}")
        else:
            self.done.append(explained)
            tqdm.write(f"{tell(explained, self.classifier)}\n  picture    {picture}")

    def _fail(self, message: object) -> None:
        report(message)
        self.failed += 1


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Tells this package's warnings as the command tells its errors, and no other package's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module="captum_gmar")
        warnings.showwarning = lambda message, *_, **__: report(message, "warning")
        yield
