"""``captum-gmar audit``: a page of what a model's predictions over a data set rest on."""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED
from captum_gmar.cli.evaluate import add_data, run_on_data
from captum_gmar.cli.options import add_device_and_size, add_sample, command_parser, method_name, path
from captum_gmar.cli.terminal import print_text

if TYPE_CHECKING:
    from captum_gmar.evaluation.audit import AuditedImage, ClassAudit
    from captum_gmar.evaluation.data.subject import Subject
    from captum_gmar.evaluation.runs.run import Workplace

PAGE = "audit.html"
SHOWN = {"surprising": 24, "pairs": 12, "alarm": 6}
THUMBNAIL = 160  # pixels

DESCRIPTION = """\
Explains the prediction of every image and writes one page. For each predicted
class it has the mean map, the share of evidence outside the objects if boxes or
masks are known, and an alarm if most of its images depend on one place and those
of other classes do not, as with a watermark. It also has the images with the
least probable label, and the pairs of classes that are confused most, with the
evidence for one rather than the other. If a run is killed, the same command
continues it.
"""

EPILOG = """\
DATA is as in `captum-gmar evaluate --help`; without labels, the probability of
the prediction is used. Without DATA and --model, built-in scenes are audited.
RESULTS holds audit.html, which needs no network, settings.json and journal/.

exit status: 0 all images explained, 1 some left out, 2 bad usage or nothing
  done, 130 interrupted
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "write a page on the evidence of predictions over a data set"
    run = partial(run_on_data, work=_audit, name="audit", objects=1)
    parser = command_parser(subparsers, "audit", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add_data(parser)
    add("--method", type=method_name, default=RECOMMENDED, metavar="NAME", help="method (default: %(default)s)")
    add_sample(parser)
    add("--output", type=path, metavar="RESULTS", help="folder of the results (default: <data>-audit), see below")
    add_device_and_size(parser)


def _audit(arguments: argparse.Namespace, subject: "Subject", place: "Workplace") -> tuple[int, int]:
    from captum_gmar.evaluation.audit import audit
    from captum_gmar.evaluation.runs.progress import count
    from captum_gmar.files.writing import write_text
    from captum_gmar.inspection._html import fill_page

    images, skipped = audit(subject, place, arguments.method, arguments.limit, arguments.seed)
    assert place.folder is not None
    if place.processes.is_first:
        content, page = page_content(images, subject, arguments.method), place.folder / PAGE
        write_text(page, fill_page("audit_page.html", content, {"TITLE": f"Audit of {subject.data_name}"}))
        alarms = [f"alarm: {each['alarm']}" for each in content["classes"] if each["alarm"]]
        print_text("\n".join([*(alarms or ["no alarm"]), f"{count(len(images))} audited: {page}"]))
    return len(images), len(skipped)


def page_content(images: "Sequence[AuditedImage]", subject: "Subject", method: str) -> dict[str, Any]:
    """Return what the page shows, as JSON holds it."""
    from captum_gmar.evaluation.audit import audit_classes
    from captum_gmar.evaluation.data.subject import versions

    draw = _Pictures(subject)
    ordered_images = sorted(images, key=lambda image: image.share)
    surprising = [image for image in ordered_images if image.label is not None] or ordered_images
    pairs = defaultdict(list)
    for image in filter(lambda image: image.is_wrong, images):
        pairs[image.label, image.predicted].append(image)
    confused = sorted(pairs.values(), key=lambda group: -len(group))
    return {
        **{"model": subject.model_name, "data": subject.data_name, "images": len(images), "method": method},
        **{"caveat": METHODS[method].caveat, "versions": ", ".join(map(" ".join, versions().items()))},
        "classes": [draw.class_row(each, images) for each in audit_classes(images)],
        "surprising": [draw.image_row(image) for image in surprising[: SHOWN["surprising"]]],
        "pairs": [draw.pair_row(group) for group in confused[: SHOWN["pairs"]]],
    }


class _Pictures:
    """Rows of the page with small pictures, one photo in memory at a time."""

    def __init__(self, subject: "Subject") -> None:
        self.classifier, labels = subject.classifier, subject.classifier.labels
        self.names = {index: f"{label} (class {index})" for index, label in labels.items()}  # also where two are alike
        self.examples = {example.name: example for example in subject.examples}

    def class_row(self, audited: "ClassAudit", images: "Sequence[AuditedImage]") -> dict[str, Any]:
        """Return a predicted class with its mean map and, of an alarm, some of its images."""
        from captum_gmar.visualization._style import percent_text

        name, alarm = self.names[audited.label], audited.alarm
        row: dict[str, Any] = {"name": name, "images": audited.images, "map": self._mean(audited.mean)}
        outside = None if audited.inside is None else percent_text(1 - audited.inside)
        row |= {"outside": outside, "alarm": "", "pictures": []}
        if alarm:
            group = [image for image in images if image.predicted == audited.label][: SHOWN["alarm"]]
            row["pictures"] = [self._photo(image, alarm[:2]) for image in group]
            row["alarm"] = (
                f"{alarm.images} of {audited.images} images of {name} rest on row {alarm.row}, column {alarm.column}, "
                f"and {percent_text(alarm.others)} of those of other classes; by chance: {alarm.chance:.1g}"
            )
        return row

    def image_row(self, image: "AuditedImage") -> dict[str, Any]:
        """Return an image with its map."""
        from captum_gmar.visualization._style import percent_text

        label = None if image.label is None else self.names[image.label]
        row = {"name": image.name, "label": label, "predicted": self.names[image.predicted]}
        return {**row, "share": percent_text(image.share, ".3g"), "picture": self._photo(image)}

    def pair_row(self, group: "Sequence[AuditedImage]") -> dict[str, Any]:
        """Return images of one label and another prediction, and the mean map of one rather than the other."""
        first, maps = group[0], [image.rather for image in group if image.rather is not None]
        row = {"label": self.names[first.label or 0], "predicted": self.names[first.predicted], "images": len(group)}
        return {
            **row,
            "map": self._mean(sum(maps) / len(maps)),
            "picture": self._photo(first._replace(relevance=maps[0])),
        }

    def _mean(self, relevance: Any) -> str:
        """Return a map without its photo, a pixel for each patch."""
        from captum_gmar.inspection._html import image_data
        from captum_gmar.visualization._heatmap import PAPER, scale, tint

        strength = scale(relevance, "relevance").strength
        return image_data(tint(0 * strength + PAPER, strength))

    def _photo(self, image: "AuditedImage", patch: tuple[int, int] | None = None) -> str:
        """Return an image with its map over it and a patch framed."""
        from captum_gmar.inspection._html import image_data
        from captum_gmar.visualization._heatmap import blend, outline_box, scale
        from captum_gmar.visualization._panels import STRIP
        from captum_gmar.visualization.tokens import patch_box

        photo: Any = self.examples[image.name].read()
        view = self.classifier.view(photo, self.classifier.pixel_values(photo)[0])
        small, crop = STRIP.fit(view.photo, crop=view.crop)
        picture = blend(small, scale(image.relevance, "relevance"), crop)
        if patch:
            picture = outline_box(picture, patch_box(patch, image.relevance.shape, crop or (0, 0, *small.size)))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        return image_data(picture)
