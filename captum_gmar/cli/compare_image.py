"""The work of ``captum-gmar compare``: one image through a model and several methods."""

import argparse
import csv
import json
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from captum_gmar import demo
from captum_gmar.attr.catalogue import COMPARED
from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.classifier import Classifier, choose_device, find_class, load_classifier
from captum_gmar.cli.explain_images import SCENE_SEED
from captum_gmar.cli.explained import claim
from captum_gmar.cli.options import top_classes
from captum_gmar.cli.removals import make_removal
from captum_gmar.cli.terminal import CommandError, say
from captum_gmar.files.images import read_image
from captum_gmar.files.writing import replacing, save_picture
from captum_gmar.inspection.compare import compare
from captum_gmar.inspection.comparison import Comparison


def compare_scene(image: Path, picture: Path, table: Path | None, arguments: argparse.Namespace) -> None:
    """Compares on a built-in scene with the built-in model; as :func:`compare_image`."""
    with demo.model_folder() as folder:
        arguments.model = str(folder)
        compare_image(image, picture, table, arguments, read=lambda path: demo.load_scene(SCENE_SEED).image)


def compare_image(
    image: Path,
    picture: Path,
    table: Path | None,
    arguments: argparse.Namespace,
    read: Callable[[Path], Image.Image] = read_image,
) -> None:
    """Compares methods on an image, writes the picture and, if asked for, the table, and prints what was found.

    Raises:
        CommandError: if the model or the image cannot be had, a method cannot explain it, or a file cannot be written.
    """
    device = choose_device(arguments.device)
    classifier = load_classifier(arguments.model, size=arguments.size, device=device)
    is_most_likely = top_classes(arguments.target) == 1
    forms = "top1, an index or a label"
    target = None if is_most_likely else find_class(arguments.target, classifier.labels, forms=forms)
    pixels = _pixels(image, classifier, read).to(device)
    comparison, explained = _compare(classifier, pixels, target, arguments)
    figure = comparison.visualize(classifier.photo(pixels[0]), title=f"{image.name}: {explained}", use_pyplot=False)
    lines = [f"{image}", f"  explained  {explained}", f"  picture    {picture}"]
    save_picture(figure[0], picture)
    if table is not None:
        _save_table(comparison, table)
        lines.append(f"  table      {table}")
    say("\n".join([*lines, "", comparison.to_markdown()]))


def _pixels(path: Path, classifier: Classifier, read: Callable[[Path], Image.Image]) -> Tensor:
    try:
        return classifier.pixel_values(read(path))
    except ValueError as error:
        raise CommandError(f"{path}: the model's image processor cannot take it: {error}") from error


def _compare(
    classifier: Classifier, pixels: Tensor, target: int | None, arguments: argparse.Namespace
) -> tuple[Comparison, str]:
    """What was found, and which class was explained."""
    methods = list(dict.fromkeys(arguments.methods or COMPARED))
    try:
        with torch.no_grad():
            (logits,) = classifier.logits(pixels).cpu()
        chosen = int(logits.argmax()) if target is None else target
        comparison = compare(
            classifier.model,
            pixels,
            methods,
            chosen,
            forward_func=classifier.logits,
            removal=make_removal(arguments.removal, classifier.model),
            steps=arguments.steps,
            ig_steps=arguments.ig_steps,
            softmax=not classifier.is_multi_label,
            batch_size=arguments.batch_size,
            show_progress=sys.stderr.isatty(),
        )
    except torch.OutOfMemoryError as error:
        raise CommandError("out of memory: pass a smaller --batch-size or --size") from error
    except FAILURES as error:
        raise CommandError(f"the methods cannot be compared: {error}") from error
    return comparison, claim(logits, classifier, chosen)


def _save_table(comparison: Comparison, path: Path) -> None:
    """In the format that the suffix names."""
    suffix, records = path.suffix[1:].lower(), comparison.records()
    text = StringIO(newline="")
    if suffix == "csv":
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        text.write(json.dumps(records, indent=1) if suffix == "json" else comparison.to_markdown())
        text.write("\n")
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
