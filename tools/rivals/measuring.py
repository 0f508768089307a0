"""What is measured of the map of each method, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

import captum_gmar
from captum_gmar.attr.catalogue import methods
from captum_gmar.metrics import Blur, Mean, Removal, relevance_mass_accuracy
from captum_gmar.metrics.outputs import LOGIT, PROBABILITY
from captum_gmar.metrics.removal_curves import LEAST_FIRST, MOST_FIRST, CurveOptions, Ends, follow
from captum_gmar.token_removal import TokenRemoval

OF_LOG_ODDS: Final = "libra-fullgrad+ of log-odds"
NAMES: Final = (
    *("token-evidence", OF_LOG_ODDS, "libra-fullgrad+", "libra-attcat", "attention-evidence", "gmar++", "legrad"),
    *("gradient-rollout", "attention-grad-cam", "grad-eclip", "cdam", "layer-grad-cam", "integrated-gradients"),
)
REMOVALS: Final = ("mean", "blur", "tokens")

Values = dict[str, dict[str, float]]  # of a method, of a metric


class Subject(NamedTuple):
    """An image, and what is explained of it."""

    pixels: Tensor  # (1, 3, H, W)
    target: int
    mask: Tensor  # (H, W)


def make_methods(model: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """The methods of these names, of this model."""
    known: Mapping[str, Callable[..., Any]] = {
        **methods(),
        OF_LOG_ODDS: partial(captum_gmar.LibraFullGradPlus, score="log-odds"),
    }
    return {name: known[name](model) for name in names}


def removals(model: nn.Module, names: Sequence[str]) -> dict[str, Removal]:
    """The ways of removal of these names."""
    known: dict[str, Removal] = {"mean": Mean(), "blur": Blur(), "tokens": TokenRemoval(model)}
    return {name: known[name] for name in names}


def measure(
    model: nn.Module,
    explainers: Mapping[str, Any],
    ways: Mapping[str, Removal],
    subject: Subject,
    steps: int,
    patch: int,
) -> Values:
    """SRG on the logit, and on the probability, where it is insertion less deletion; and the mass in the object."""
    values: Values = {name: {} for name in explainers}
    known: dict[str, Ends | None] = dict.fromkeys(ways)
    for name, explainer in explainers.items():
        attributions = explainer.attribute(subject.pixels, target=subject.target).detach()
        mass = relevance_mass_accuracy(attributions, subject.mask[None])
        values[name]["mass"] = float(mass)
        for way, removal in ways.items():
            options = CurveOptions(patch, steps, removal)
            courses, readings = (MOST_FIRST, LEAST_FIRST), (LOGIT, PROBABILITY)
            passes = follow(
                lambda pixels: model(pixels).logits,
                *(subject.pixels, attributions, subject.target, options, courses, readings, known[way]),
            )
            known[way] = passes.ends
            for metric, reading in (("SRG", LOGIT), ("insertion − deletion", PROBABILITY)):
                most, least = (passes.curve(course, reading).auc for course in courses)
                values[name][f"{metric}, {way}"] = float(least - most)
    return values


def sensitivity(explainer: Any, subject: Subject) -> float:
    """Captum's, of ten draws."""
    from captum.metrics import sensitivity_max

    torch.manual_seed(0)
    found = sensitivity_max(
        lambda pixels: explainer.attribute(pixels, target=subject.target),
        subject.pixels,
        perturb_radius=0.02,
        n_perturb_samples=10,
        max_examples_per_batch=5,
    )
    return float(found)


def share(items: Sequence[int], part: tuple[int, int]) -> Iterator[int]:
    """Every Nth item, from the Kth on."""
    first, step = part
    return iter(items[first - 1 :: step])
