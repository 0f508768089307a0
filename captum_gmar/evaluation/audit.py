"""An audit of a model over a data set: where the evidence of each class is, and whether it is always the same place.

A model that knows a class by a watermark has its evidence at the watermark in image after image, and not there for
other classes. The alarm compares the two.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, exp, lgamma, log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.patch_relevance import images_at_once
from captum_gmar.classifier.class_names import find_classes
from captum_gmar.evaluation.data.subject import Subject, sample_numbers
from captum_gmar.evaluation.runs.batches import Batches, Examples, Skipped
from captum_gmar.evaluation.runs.journal import Record
from captum_gmar.evaluation.runs.run import Run, Workplace, start_run
from captum_gmar.metrics import relevance_by_segment
from captum_gmar.metrics._statistics import FEWEST
from captum_gmar.visualization._heatmap import Array

TOP_PATCHES = 0.05  # share of the patches of an image on which it is said to rest
MOST_OF_A_CLASS = 0.5  # images that rest on one place, for an alarm
LEVEL = 0.001  # probability of an alarm by chance in a whole audit


class Alarm(NamedTuple):
    """A place on which many images of one class rest, and few of the others."""

    row: int
    column: int
    images: int
    others: float  # share of the other classes' images that rest there
    chance: float  # probability that any place of any class would have so many, or more


class AuditedImage(NamedTuple):
    """Measurements of an image."""

    name: str
    label: int | None
    predicted: int
    share: float  # probability of the label, or of the prediction where there is no label
    relevance: Array  # (rows, columns) for the prediction
    rather: Array | None  # why the prediction rather than the label, where they differ
    inside: float | None  # share of the positive relevance on the object

    @property
    def is_wrong(self) -> bool:
        """True if the label is known and is not the prediction."""
        return self.label is not None and self.label != self.predicted


class ClassAudit(NamedTuple):
    """All images for which a class is predicted."""

    label: int
    images: int
    mean: Array  # (rows, columns)
    inside: float | None  # mean share of the positive relevance on objects, where they are known
    alarm: Alarm | None


def audit(
    subject: Subject, place: Workplace, method: str, limit: int | None = None, seed: int = 0
) -> tuple[list[AuditedImage], list[Skipped]]:
    """Explain the prediction of every image that is not kept yet, and return all, in the order of the data."""
    labels = [example.label for example in subject.examples if example.label is not None]
    known = find_classes(labels, subject.classifier.labels, "the data's label")
    numbers = sample_numbers(len(subject.examples), limit, seed)
    size = images_at_once(subject.device)
    batches = Batches(subject, lambda example: None, size, place.listener.note)
    explainer = Explainer([method], subject.classifier.model, subject.classifier.logits)
    with start_run(place, {**subject.fingerprints(), "method": method}) as folder:
        work = partial(_measure, subject, explainer, known)
        run = Run(batches, folder, place, size)
        records, skipped = run.measure_once(numbers, work, "explaining", "explained")
    return [_read_record(record) for record in records], skipped


def _measure(
    subject: Subject, explainer: Explainer, known: Mapping[Any, int], examples: Examples, batch_size: int
) -> list[Record]:
    """Return a record of each image, with lists in place of arrays."""
    (method,) = explainer.methods
    maps = explainer.explain(examples.pixels, examples.targets[:, None])
    shares = subject.classifier.probabilities(maps.logits)
    values = []
    for index, number in enumerate(examples.numbers):
        label, predicted = known.get(subject.examples[number].label), int(examples.targets[index])
        relevance, rather, mask = maps.relevance[0, index, 0], None, examples.masks[index].cpu()
        if label is not None and label != predicted:
            one = slice(index, index + 1)
            rather = explainer.relevance(method, examples.pixels[one], examples.targets[one], label)[0].tolist()
        share = 1.0 if shares is None else float(shares[index, predicted if label is None else label])
        inside = None
        if mask.any():
            positive = relevance.clamp(min=0)
            held, _ = relevance_by_segment(positive, {"object": mask})
            inside = held.relevance / (float(positive.sum()) or 1)
        values.append([label, share, relevance.tolist(), rather, inside])
    return examples.records(values)


def _read_record(record: Record) -> AuditedImage:
    label, share, relevance, rather, inside = record.values
    contrast = None if rather is None else np.array(rather)
    return AuditedImage(record.example.name, label, record.target, share, np.array(relevance), contrast, inside)


def audit_classes(images: Sequence[AuditedImage]) -> list[ClassAudit]:
    """Return the mean map and the alarm of each predicted class, those with alarms and many images first."""
    shapes = sorted({image.relevance.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(f"images must have patch grids of one shape, but got {shapes}. Pass --size.")
    groups: dict[int, list[AuditedImage]] = defaultdict(list)
    for image in images:
        groups[image.predicted].append(image)
    rests = {label: np.sum([strongest_places(each.relevance) for each in group], 0) for label, group in groups.items()}
    total, tests = np.sum(list(rests.values()), 0), len(groups) * images[0].relevance.size
    classes = []
    for label, group in groups.items():
        inside = [image.inside for image in group if image.inside is not None]
        alarm = find_alarm(rests[label], len(group), total - rests[label], len(images) - len(group), tests)
        mean = np.mean([image.relevance for image in group], 0)
        classes.append(ClassAudit(label, len(group), mean, float(np.mean(inside)) if inside else None, alarm))
    return sorted(classes, key=lambda each: (each.alarm is None, -each.images))


def strongest_places(relevance: Array) -> npt.NDArray[np.int64]:
    """Return 1 at the patches on which an image rests, its strongest 5 %, and 0 elsewhere; ties by position."""
    places = np.zeros(relevance.size, np.int64)
    places[np.argsort(-relevance, axis=None, kind="stable")[: ceil(TOP_PATCHES * relevance.size)]] = 1
    return places.reshape(relevance.shape) * (relevance > 0)


def find_alarm(
    rests: npt.NDArray[np.int64], images: int, other_rests: npt.NDArray[np.int64], others: int, tests: int
) -> Alarm | None:
    """Return the place on which most images of a class rest, if those of other classes hardly do.

    Under the null, a class's images rest on a place as often as those of other classes, and at least as often as evenly
    spread patches: their number is binomial. Objects in the middle of photos thus raise no alarm. The probability of so
    many or more is multiplied by the number of tests (Bonferroni). ``rests`` and ``other_rests`` are counts for each
    patch (rows, columns); fewer than 10 images raise no alarm.
    """
    row, column = divmod(int(rests.argmax()), rests.shape[1])
    count = int(rests[row, column])
    if images < FEWEST or count < MOST_OF_A_CLASS * images:
        return None
    elsewhere = int(other_rests[row, column])
    rate = max((elsewhere + 1) / (others + 2), ceil(TOP_PATCHES * rests.size) / rests.size)  # Laplace's estimate
    chance = min(1.0, tests * binomial_tail(count, images, rate))
    return Alarm(row, column, count, elsewhere / max(others, 1), chance) if chance < LEVEL else None


def binomial_tail(least: int, trials: int, rate: float) -> float:
    """Return the probability of at least so many successes."""
    ways = lgamma(trials + 1)
    terms = ((hits, trials - hits) for hits in range(least, trials + 1))
    return sum(
        exp(ways - lgamma(hits + 1) - lgamma(misses + 1) + hits * log(rate) + misses * log(1 - rate))
        for hits, misses in terms
    )
