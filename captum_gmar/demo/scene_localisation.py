"""Does a method find what is known to be there? Scenes with known masks as a test of any attribution method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

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

FIRST_SEED: Final = 600_000  # scenes that the demo model was not trained on, and whose accuracy is not in its card
_BATCH: Final = 25
_PATCHES: Final = PatchGrid(GRID, GRID, PATCH, PATCH, frozenset({1}))

Localiser = Attribution | Callable[[Tensor, list[int]], Tensor]


@dataclass(frozen=True)
class SceneMean:
    """A mean over scenes, and half the width of its 95 % confidence interval."""

    mean: float
    margin: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.margin:.3f}"


def scene_mean(values: Sequence[float] | Tensor) -> SceneMean:
    """Return the mean of independent values with its normal confidence interval."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    return SceneMean(float(numbers.mean()), float(margin(numbers)))


@dataclass(frozen=True)
class Localisation:
    """Where a method's relevance lies, as means over scenes with 95 % confidence intervals.

    Attributes:
        on_object: Share of the relevance that lies on the object, on one-object scenes. In [0, 1].
        area: The object's share of the area: what a map that knows nothing puts there.
        class_sensitivity: On two-object scenes, how often explaining each of the two classes puts more on its own
            object than on the other's. In [0, 1]; 0 for every map that does not depend on the class.
        own_minus_other: On two-object scenes, share of the relevance on the explained class's object less the share on
            the other's. In [-1, 1]; 0 on average for every map that does not depend on the class.
    """

    on_object: SceneMean
    area: SceneMean
    class_sensitivity: SceneMean
    own_minus_other: SceneMean


class LocalisationReport(dict[str, Localisation]):
    """Each method's `Localisation`, by name; shown as a table, in notebooks as well."""

    def records(self) -> list[dict[str, str | float]]:
        """Return a row per method with each mean and its margin, as `pandas.DataFrame` takes them."""
        return [{"method": name, **_columns_of(row)} for name, row in self.items()]

    def to_markdown(self) -> str:
        """Return the report as a Markdown table, means with their 95 % intervals."""
        head = ("method", "on the object", "its area", "class sensitivity", "own minus other object")
        rows = [(name, *_means(row)) for name, row in self.items()]
        return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows))

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def _means(row: Localisation) -> list[SceneMean]:
    return [getattr(row, field.name) for field in fields(row)]


def _columns_of(row: Localisation) -> dict[str, float]:
    names = [field.name for field in fields(row)]
    means, margins = ([getattr(mean, part) for mean in _means(row)] for part in ("mean", "margin"))
    return dict(zip([*names, *(f"{name}_margin" for name in names)], means + margins, strict=True))


def localisation_report(
    methods: Mapping[str, Localiser],
    n: int = 200,
    seed: int = FIRST_SEED,
    controls: ViTForImageClassification | None = None,
) -> LocalisationReport:
    """
    Put attribution methods through scenes whose right explanation is known.

    A map is summed over the pixels and channels of each patch, and what is negative then counts as zero: relevance
    against the class is no relevance for it.

    Args:
        methods: By name. A Captum attribution, or a function of inputs (N, 3, 112, 112) and a list of N class indices
            that returns attributions in the shape of the inputs.
        n: How many scenes with one object, and how many with two.
            Default: 200
        seed: Of the first scene; the others follow.
            Default: 600000
        controls: The model that the methods explain. With it the report holds what every method must beat: a
            uniform map, a blob in the centre, a random map, and the model's raw attention, which is blind to the class.
            Default: None

    Returns:
        LocalisationReport: A dictionary with the `Localisation` of each method by name, methods first. It shows itself
        as a table, and **records** gives its numbers to pandas.

    Raises:
        ValueError: If ``n`` is below 2, which gives no interval.

    Example::

        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model
        >>> model = load_model()
        >>> report = localisation_report({"GMAR": GMARAttribution(model)}, n=2, controls=model)
        >>> list(report)
        ['GMAR', 'uniform map', 'centre blob', 'random map', 'raw attention']
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, for an interval. Got {n} instead.")
    methods = {**methods, **(_controls(controls) if controls is not None else {})}
    singles, pairs = ([make_scene(seed + i, objects) for i in range(n)] for objects in (1, 2))
    progress = tqdm(methods.items(), desc="methods", leave=False, disable=None)  # none where there is no terminal
    return LocalisationReport((name, _localise(_attribute(method), singles, pairs)) for name, method in progress)


def _controls(model: ViTForImageClassification) -> dict[str, Localiser]:
    """Maps that know nothing of the class, and three that know nothing of the image."""
    generator = torch.Generator().manual_seed(0)

    def random_map(inputs: Tensor, target: list[int]) -> Tensor:  # another for every call
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
    single = _on_objects(attribute, singles, 0)  # (n, 1)
    areas = [float(scene.masks[0].mean()) for scene in singles]
    margins = torch.stack([_on_objects(attribute, pairs, i) @ torch.tensor([1.0, -1.0]) * (1 - 2 * i) for i in (0, 1)])
    return Localisation(
        on_object=scene_mean(single[:, 0]),
        area=scene_mean(areas),
        class_sensitivity=scene_mean((margins > 0).all(0).double()),
        own_minus_other=scene_mean(margins.mean(0)),
    )


def _on_objects(attribute: Callable[[Tensor, list[int]], Tensor], scenes: list[Scene], explained: int) -> Tensor:
    """Share of the relevance on each object of each scene (n, objects), explaining one of their classes."""
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
