"""The work of ``captum-gmar compare``: one image through a model and several methods."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.classifier import Classifier, find_class
from captum_gmar.cli.image_report import claim, seen_lines
from captum_gmar.cli.options import CompareSettings
from captum_gmar.cli.paths import PictureFile
from captum_gmar.cli.sources import Source
from captum_gmar.cli.terminal import CommandError, print_text
from captum_gmar.evaluation.catalogue import make_removal
from captum_gmar.files.names import readable_name
from captum_gmar.files.writing import save_picture, write_csv, write_json, write_text
from captum_gmar.inspection.compare import compare
from captum_gmar.inspection.comparison import Comparison


def compare_image(
    source: Source, image: Path, picture: PictureFile, table: Path | None, settings: CompareSettings
) -> Comparison:
    """Compare methods on an image, write picture and, if requested, table, print the results and return them."""
    classifier = source.classifier
    target = None
    if settings.target is not None:
        target = find_class(settings.target, classifier.labels, forms="top1, an index or a label")
    photo, pixels = source.open(image)
    comparison, explained = _compare(classifier, pixels.to(classifier.device), target, settings)
    title = f"{readable_name(image.name)}: {explained}"
    view = classifier.view(photo, pixels[0])
    figure = comparison.visualize(view.photo, crop=view.crop, title=title, use_pyplot=False)
    lines = [readable_name(image), f"  explained  {explained}", *seen_lines(classifier, photo)]
    lines.append(f"  picture    {readable_name(picture.path)}")
    save_picture(figure[0], *picture)
    if table is not None:
        _save_table(comparison, table)
        lines.append(f"  table      {readable_name(table)}")
    print_text("\n".join([*lines, "", comparison.to_markdown()]))
    return comparison


def _compare(
    classifier: Classifier, pixels: Tensor, target: int | None, settings: CompareSettings
) -> tuple[Comparison, str]:
    try:
        with torch.no_grad():
            (logits,) = classifier.logits(pixels).cpu()
        chosen = int(logits.argmax()) if target is None else target
        comparison = compare(
            classifier.model,
            pixels,
            settings.methods,
            chosen,
            forward_func=classifier.logits,
            removal=make_removal(settings.removal, classifier.model),
            steps=settings.steps,
            ig_steps=settings.ig_steps,
            softmax=not classifier.is_multi_label,
            batch_size=settings.batch_size,
            show_progress=sys.stderr.isatty(),
        )
    except torch.OutOfMemoryError as error:
        raise CommandError("comparison needs memory, but has too little. Reduce --batch-size or --size.") from error
    except FAILURES as error:
        raise CommandError(f"the methods cannot be compared: {error}") from error
    return comparison, claim(logits, classifier, chosen)


def _save_table(comparison: Comparison, path: Path) -> None:
    """Write the table in the format of the suffix."""
    suffix, records = path.suffix[1:].lower(), comparison.records()
    if suffix == "csv":
        write_csv(path, list(records[0]), [list(record.values()) for record in records])
    elif suffix == "json":
        write_json(path, records)
    else:
        write_text(path, comparison.to_markdown() + "\n")
