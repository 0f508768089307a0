"""Localisation test of attribution methods on scenes with known masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_gmar.attr.rollout import RawAttention
from captum_gmar.demo.patches import GRID, PATCH, patch_shares, scene_pixel_values
from captum_gmar.demo.scenes import Scene, make_scene
from captum_gmar.engine.models.patch_grid import PatchGrid
from captum_gmar.metrics import centre_blob, uniform_map
from captum_gmar.metrics._inputs import patch_scores
from captum_gmar.metrics._statistics import margin

if TYPE_CHECKING:
    from transformers import ViTForImageClassification

FIRST_SEED: Final = 600_000  # neither training nor the card's accuracy used scenes from here on
_BATCH: Final = 25
_PATCHES: Final = PatchGrid(GRID, GRID, PATCH, PATCH, frozenset({1}))

Localiser = Attribution | Callable[[Tensor, list[int]], Tensor]


class SceneMean(NamedTuple):
    """Mean over scenes with half the width of its 95 % confidence interval."""

    mean: float
    margin: float

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, form: str) -> str:
        return f"{self.mean:{form}} ± {self.margin:{form}}"


def scene_mean(values: Sequence[float] | Tensor) -> SceneMean:
    """Return the mean of independent values with its normal confidence interval."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    return SceneMean(float(numbers.mean()), float(margin(numbers)))


class Localisation(NamedTuple):
    """Localisation scores of a method, as means over scenes with 95 % confidence intervals.

    Attributes:
        on_object: Share of the relevance on the object of one-object scenes, in [0, 1].
        area: The object's share of the area, which a uniform map scores.
        class_sensitivity: Share of two-object scenes where each class's map has more relevance on its own object than
            on the other. In [0, 1]; 0 for maps that ignore the class.
        own_minus_other: On two-object scenes, relevance share on the explained object minus the share on the other. In
            [-1, 1]; 0 on average for maps that ignore the class.
    """

    on_object: SceneMean
    area: SceneMean
    class_sensitivity: SceneMean
    own_minus_other: SceneMean


class LocalisationReport(dict[str, Localisation]):
    """Each method's `Localisation` by name."""

    def to_markdown(self) -> str:
        """Return the report as a Markdown table, means with their 95 % intervals."""
        head = ("method", "on the object", "its area", "class sensitivity", "own minus other object")
        rows = [(name, *row) for name, row in self.items()]
        return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows))


def localisation_report(
    methods: Mapping[str, Localiser],
    n: int = 200,
    seed: int = FIRST_SEED,
    controls: ViTForImageClassification | None = None,
) -> LocalisationReport:
    """Measure the localisation of attribution methods on scenes with known masks.

    Maps are summed over the pixels and channels of each patch. Negative sums count as 0, since relevance against the
    class is no relevance for it.

    Args:
        methods: Methods by name: Captum attributions, or functions of inputs (N, 3, 112, 112) and a list of N class
            indices that return attributions in the shape of the inputs.
        n: Number of scenes with one object, and of scenes with two.
        seed: Seed of the first scene; the others follow.
        controls: The explained model. It adds controls that every method must beat: a uniform map, a centre blob, a
            random map, and the model's raw attention, which ignores the class.

    Returns:
        LocalisationReport: Dictionary of `Localisation` by name, methods first.

    Raises:
        ValueError: If ``n`` is below 2, which has no interval.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, for an interval, but got {n}.")
    methods = {**methods, **(_controls(controls) if controls is not None else {})}
    singles, pairs = ([make_scene(seed + i, objects) for i in range(n)] for objects in (1, 2))
    progress = tqdm(methods.items(), desc="methods", leave=False, disable=None)  # shown in terminals only
    return LocalisationReport((name, _localise(_attribute(method), singles, pairs)) for name, method in progress)


def _controls(model: ViTForImageClassification) -> dict[str, Localiser]:
    """Return three controls that ignore the image, and one that ignores the class."""
    generator = torch.Generator().manual_seed(0)

    def random_map(inputs: Tensor, target: list[int]) -> Tensor:  # differs in every call
        return _PATCHES.spread_like(torch.rand(len(inputs), GRID, GRID, generator=generator), inputs)

    return {
        "uniform map": lambda inputs, target: uniform_map(inputs),
        "centre blob": lambda inputs, target: centre_blob(inputs),
        "random map": random_map,
        "raw attention": RawAttention(model),
    }


def _attribute(method: Localiser) -> Callable[[Tensor, list[int]], Tensor]:
    attribute: Any = method.attribute if isinstance(method, Attribution) else method
    return lambda inputs, target: attribute(inputs.requires_grad_(), target=target)


def _localise(
    attribute: Callable[[Tensor, list[int]], Tensor], singles: list[Scene], pairs: list[Scene]
) -> Localisation:
    single = _object_shares(attribute, singles, 0)  # (n, 1)
    areas = [float(scene.masks[0].mean()) for scene in singles]
    sign = torch.tensor([1.0, -1.0])
    margins = torch.stack([_object_shares(attribute, pairs, i) @ sign * sign[i] for i in (0, 1)])
    return Localisation(
        on_object=scene_mean(single[:, 0]),
        area=scene_mean(areas),
        class_sensitivity=scene_mean((margins > 0).all(0).double()),
        own_minus_other=scene_mean(margins.mean(0)),
    )


def _object_shares(attribute: Callable[[Tensor, list[int]], Tensor], scenes: list[Scene], explained: int) -> Tensor:
    """Return the relevance shares (n, objects) on each object for the class of one of them."""
    shares = []
    for start in range(0, len(scenes), _BATCH):
        batch = scenes[start : start + _BATCH]
        attributions = attribute(scene_pixel_values(batch), [scene.labels[explained] for scene in batch]).detach()
        relevance = patch_scores(attributions, PATCH).float().clamp(min=0).flatten(1)  # (N, P)
        total = relevance.sum(1, keepdim=True)
        relevance = torch.where(total > 0, relevance / total, 1 / relevance.shape[1])
        masks = torch.stack([torch.stack([patch_shares(mask) for mask in scene.masks]) for scene in batch])  # (N, k, P)
        shares.append((masks @ relevance[:, :, None]).squeeze(-1))
    return torch.cat(shares)
