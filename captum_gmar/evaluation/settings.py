"""What an evaluation is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from captum_gmar.evaluation.catalogue import DEFAULT_REMOVALS, METRICS, REMOVALS, check_name
from captum_gmar.evaluation.data.subject import TARGETS
from captum_gmar.metrics._inputs import check_count, is_integer

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class EvaluationSettings:
    """
    What is measured, and how; see :func:`captum_gmar.evaluate`.

    Args:
        methods: names, in the order of the tables.
        metrics: names; None for those that the data allows.
        removals: names.
        target: "predicted" or "label".
        steps: of curves; None for 28, or as many as there are patches.
        seed: of everything that is drawn.
        limit: how many images are drawn; None: all are measured.
        part: (2, 3) for every third image from the second on.
        batch_size: how many images run at once; None: what suits the device.
        precision: of passes over perturbed images.

    Raises:
        ValueError: if one of these is none of what can be asked for.
    """

    methods: tuple[str, ...]
    metrics: tuple[str, ...] | None = None
    removals: tuple[str, ...] = DEFAULT_REMOVALS
    target: str = "predicted"
    steps: int | None = None
    seed: int = 0
    limit: int | None = None
    part: tuple[int, int] = (1, 1)
    batch_size: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        for option, known in (("metrics", METRICS), ("removals", REMOVALS)):
            for name in getattr(self, option) or ():
                check_name(name, known, option)
        for option in ("methods", "metrics"):
            if getattr(self, option) == ():
                raise ValueError(f"{option} must be at least one name. Got none instead.")
        for option, choices in (("target", TARGETS), ("precision", PRECISIONS)):
            _check_choice(getattr(self, option), choices, option)
        for option in ("steps", "limit", "batch_size"):
            if getattr(self, option) is not None:
                check_count(getattr(self, option), option)
        if not is_integer(self.seed) or self.seed < 0:
            raise ValueError(f"seed must be an integer, zero or more. Got {self.seed!r} instead.")

    def as_numbers_depend(self) -> Mapping[str, Any]:
        """All that the numbers depend on, but for the methods and the images: more of these can follow."""
        names = ("metrics", "removals", "target", "steps", "seed", "precision")
        return {name: getattr(self, name) for name in names}


def unique_names(names: object, option: str) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        TypeError: if they are no sequence of names.
    """
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{option} must be a sequence of names. Got {names!r} instead. Of one, pass [name].")
    return tuple(dict.fromkeys(names))


def _check_choice(value: object, choices: tuple[str, ...], option: str) -> None:
    if value not in choices:
        raise ValueError(f"{option} must be {' or '.join(map(repr, choices))}. Got {value!r} instead.")
