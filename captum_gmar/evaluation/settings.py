"""The settings of evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.catalogue import STEPS
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.evaluation.catalogue import (
    DEFAULT_REMOVALS,
    DEFAULT_SCORES,
    METRICS,
    REMOVALS,
    check_name,
    default_metrics,
    metrics_of,
)
from captum_gmar.evaluation.data.subject import TARGETS, Subject
from captum_gmar.evaluation.runs.batches import first_pixels
from captum_gmar.metrics._inputs import check_count, is_integer

MOSAICS = "gridpg"  # the metric that joins images
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class EvaluationSettings:
    """The settings of :func:`captum_gmar.evaluate`."""

    methods: tuple[str, ...]  # names, in the order of the tables
    metrics: tuple[str, ...] | None = None  # names; None for those that the data allows
    removals: tuple[str, ...] = DEFAULT_REMOVALS  # names
    target: str = "predicted"  # or "label"
    steps: int | None = None  # of curves; None for 28, or as many as there are patches
    seed: int = 0  # of everything that is sampled
    limit: int | None = None  # of images; None: all
    part: tuple[int, int] = (1, 1)  # (2, 3) for every third image from the second on
    batch_size: int | None = None  # images in a pass; None: what suits the device
    precision: str = "float32"  # of passes over perturbed images

    def __post_init__(self) -> None:
        for option, known in (("metrics", METRICS), ("removals", REMOVALS)):
            for name in getattr(self, option) or ():
                check_name(name, known, option)
        for option in ("methods", "metrics"):
            if getattr(self, option) == ():
                raise ValueError(f"{option} must be at least one name, but got none.")
        for option, choices in (("target", TARGETS), ("precision", PRECISIONS)):
            if getattr(self, option) not in choices:
                wanted = " or ".join(map(repr, choices))
                raise ValueError(f"{option} must be {wanted}, but got {getattr(self, option)!r}.")
        _check_numbers(self.seed, steps=self.steps, limit=self.limit, batch_size=self.batch_size)

    def as_numbers_depend(self) -> Mapping[str, Any]:
        """Return all that the numbers depend on, but for the methods and the images: more of these can follow."""
        names = ("metrics", "removals", "target", "steps", "seed", "precision")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class HeadSettings:
    """The settings of :func:`captum_gmar.evaluate_heads`."""

    scores: Sequence[str] | Mapping[str, HeadScore] = DEFAULT_SCORES  # names, or functions by name
    target: str | int = "predicted"  # or "label", a class index or a class name
    limit: int | None = None  # of images; None: all
    seed: int = 0  # of everything that is sampled
    batch_size: int | None = None  # images in a pass; None: what suits the device

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError("scores must hold at least one, but got none.")
        _check_numbers(self.seed, limit=self.limit, batch_size=self.batch_size)


def complete_settings(settings: EvaluationSettings, subject: Subject, numbers: Sequence[int]) -> EvaluationSettings:
    """Fill in metrics, removals and steps by the data and the model."""
    has_objects = any(example.has_object for example in subject.examples)
    metrics = settings.metrics or default_metrics(has_objects)
    unknown = metrics_of("localisation", metrics)
    if unknown and not has_objects:
        raise ValueError(f"metrics {', '.join(unknown)} require boxes or masks, but got neither. Choose others.")
    if subject.sheet is not None and MOSAICS in metrics:
        raise ValueError(f"metrics {MOSAICS} require images, but got videos. Pass other metrics.")
    if len(subject.classifier.labels) == 1:
        raise one_class_error()
    if not metrics_of("curve", metrics):
        return replace(settings, metrics=metrics, steps=None, removals=())
    if not settings.removals:
        raise ValueError("removals must be at least one name, but got none.")
    pixels = first_pixels(subject, numbers)
    patches = STEPS if pixels is None else patch_grid(subject.classifier.model, *pixels.shape[2:]).patches
    steps = settings.steps or min(STEPS, patches)
    if pixels is not None and steps > patches:
        raise ValueError(f"steps must be at most the number of patches, {patches}, but got {steps}.")
    return replace(settings, metrics=metrics, steps=steps)


def one_class_error() -> ValueError:
    return ValueError("evaluate requires a model of several classes, but got one of one. Pass another model.")


def _check_numbers(seed: object, **counts: object) -> None:
    for name, value in counts.items():
        if value is not None:
            check_count(value, name)
    if not is_integer(seed) or seed < 0:  # type: ignore[operator]
        raise ValueError(f"seed must be an integer, zero or more, but got {seed!r}.")
