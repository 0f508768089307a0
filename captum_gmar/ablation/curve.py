"""Predictions of a model while its heads are ablated one by one."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_gmar.ablation.heads import ablate_heads, mean_head_outputs
from captum_gmar.ablation.importance import pairs
from captum_gmar.ablation.ranking import group_by_layer, ranked_heads
from captum_gmar.engine.models.patch_grid import Logits, check_model
from captum_gmar.engine.rule import check_choice
from captum_gmar.metrics._inputs import check_count, is_integer
from captum_gmar.metrics._outputs import Target, class_indices, target_output
from captum_gmar.metrics._statistics import margin

ORDERS = ("least", "most", "random")
OUTCOMES = ("accuracy", "logit", "probability")

HeadOrder: TypeAlias = list[tuple[int, int]]
"""(layer, head) pairs in the order of ablation."""


@dataclass(frozen=True, eq=False)
class HeadAblationCurve:
    """Result of :func:`head_ablation_curve` for R orders, K counts and N examples.

    Attributes:
        counts: (K,) numbers of silent heads.
        accuracy: (R, K, N) 1 where the target is predicted, else 0.
        logit: (R, K, N) logits of the targets.
        probability: (R, K, N) probabilities of the targets.
        orders: R orders of ablation, lists of (layer, head).
    """

    counts: Tensor
    accuracy: Tensor
    logit: Tensor
    probability: Tensor
    orders: list[HeadOrder]

    def mean(self, name: str) -> Tensor:
        """Return the mean (K,) of "accuracy", "logit" or "probability" over examples and orders.

        Raises:
            ValueError: if the name is none of these. All methods raise it.
        """
        return self._outcome(name).mean((0, 2))

    def margin(self, name: str) -> Tensor:
        """Return half the width (K,) of the 95 % interval of :meth:`mean` over examples; NaN for one example."""
        return margin(self._outcome(name).mean(0))

    def order_means(self, name: str) -> Tensor:
        """Return the mean (R, K) over examples for each order."""
        return self._outcome(name).mean(-1)

    def areas(self, name: str) -> Tensor:
        """Return the area (R, N) under the curve from the first to the last count, in double precision.

        Raises:
            ValueError: also if there is only one count.
        """
        if len(self.counts) < 2:
            raise ValueError(f"counts must be two or more for an area, but got {self.counts.tolist()}.")
        span = self.counts[-1] - self.counts[0]
        return torch.trapezoid(self._outcome(name).double(), (self.counts.double() / span)[:, None], dim=1)

    def _outcome(self, name: str) -> Tensor:
        check_choice("name", name, OUTCOMES)
        values: Tensor = getattr(self, name)
        return values


@torch.no_grad()
def head_ablation_curve(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Target]],
    importance: Tensor,
    *,
    order: str = "least",
    counts: Sequence[int] | None = None,
    within_layers: bool = False,
    fill: Tensor | None = None,
    repeats: int = 1,
    seed: int = 0,
    forward_func: Callable[..., Any] | None = None,
) -> HeadAblationCurve:
    """Compute accuracy, target logit and probability while heads of all layers are ablated in order of importance.

    Compare a score with order "random". If the score finds important heads, predictions survive longer when the least
    important heads are ablated first, and fail sooner when the most important are. A curve depends on the replacement:
    later layers were not trained on zeros; see ``fill``. Compute importance on other examples than ``batches``.

    Args:
        model (nn.Module): A vision transformer in evaluation mode.
        batches (Iterable): Pairs of inputs, on the model's device, and targets, for example a ``DataLoader``. Each
            batch is run repeats × counts times.
        importance (Tensor): Importance (layers, heads) of all heads, for example the ``mean`` of
            :class:`HeadStatistics`. See :func:`ranked_heads` for the meaning of an order over all layers.
        order (str, optional): Heads to ablate first: "least" or "most" important, or "random". Default: "least".
        counts (Sequence[int], optional): Ascending numbers of silent heads to measure, from 0 to all heads.
            Default: None, tenths from none to all
        within_layers (bool, optional): Rank heads within their layer. Not for random orders.
        fill (Tensor, optional): Output of silent heads, see :func:`ablate_heads`. Default: None, zero.
        repeats (int, optional): Number of random orders.
        seed (int, optional): Seed of the random orders.
        forward_func (Callable, optional): Takes the inputs, runs ``model`` once and returns logits (N, classes).
            Default: None, the model itself

    Returns:
        HeadAblationCurve: Values per example, with means and intervals as methods.

    Raises:
        TypeError, ValueError, RuntimeError: if an argument has the wrong type or does not fit the model, see
            :func:`ablate_heads`, or there is no batch.
        FloatingPointError: if an output is NaN.

    References:
        Michel, Levy, Neubig: Are Sixteen Heads Really Better than One? NeurIPS 2019, arXiv 1905.10650.

    Example::

        >>> import torch
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.ablation import gradient_of_mask, head_ablation_curve
        >>> model, scenes = load_model(), [load_scene(seed) for seed in range(4)]
        >>> pixels = torch.cat([scene.pixel_values for scene in scenes])
        >>> targets = [scene.labels[0] for scene in scenes]
        >>> importance = gradient_of_mask(model, pixels, targets).mean(0)
        >>> curve = head_ablation_curve(model, [(pixels, targets)], importance, counts=[0, 8, 24])
        >>> curve.mean("accuracy").shape, curve.probability.shape
        (torch.Size([3]), torch.Size([1, 3, 4]))
    """
    check_model(model)
    orders = _orders(importance, order, within_layers, repeats, seed)
    steps = _check_counts(counts, importance.numel())
    logits = Logits(model if forward_func is None else forward_func)
    results: list[Tensor] = []
    for inputs, targets in pairs(batches):
        shape = mean_head_outputs(model, inputs[:1], logits).shape[:2] if not results else importance.shape
        if importance.shape != shape:
            raise ValueError(f"importance must be of shape {tuple(shape)}, but got {tuple(importance.shape)}.")
        chosen = [heads[:count] for heads in orders for count in steps]
        rows = [_outcomes(model, logits, inputs, targets, heads, fill) for heads in chosen]
        results.append(torch.stack(rows).cpu().view(len(orders), len(steps), len(OUTCOMES), -1))
    if not results:
        raise ValueError("batches must hold at least one, but got none. Pass a list, as one run uses up an iterator.")
    accuracy, logit, probability = torch.cat(results, -1).unbind(2)  # each (R, K, N)
    return HeadAblationCurve(torch.tensor(steps), accuracy, logit, probability, orders)


def _outcomes(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    inputs: Tensor,
    targets: Target,
    heads: HeadOrder,
    fill: Tensor | None,
) -> Tensor:
    """Return accuracy, logit and probability of the targets (3, N)."""
    with ablate_heads(model, group_by_layer(heads), fill):
        outputs = logits(inputs)
    classes = class_indices(targets, len(inputs))
    if classes is None or outputs.dim() != 2:
        raise ValueError(
            f"targets must be one for every example and outputs (examples, classes), but got targets {targets!r} and "
            f"outputs of shape {tuple(outputs.shape)}."
        )
    logit, probability = (target_output(outputs, classes, len(inputs), softmax) for softmax in (False, True))
    right = outputs.argmax(1) == classes.to(outputs.device) % outputs.shape[1]
    return torch.stack([right.to(logit.dtype), logit, probability])


def _orders(importance: Tensor, order: str, within_layers: bool, repeats: int, seed: int) -> list[HeadOrder]:
    check_choice("order", order, ORDERS)
    check_count(repeats, "repeats")
    ranked = ranked_heads(importance, within_layers=within_layers)
    if order != "random":
        if repeats != 1:
            raise ValueError(f'repeats must be 1 for an order that is not "random", but got {repeats}.')
        return [ranked if order == "least" else ranked[::-1]]
    heads, generator = sorted(ranked), random.Random(seed)
    return [generator.sample(heads, len(heads)) for _ in range(repeats)]


def _check_counts(counts: Sequence[int] | None, heads: int) -> list[int]:
    if counts is None:
        return sorted({round(heads * tenth / 10) for tenth in range(11)})
    steps = list(counts)
    is_valid = all(is_integer(count) and 0 <= count <= heads for count in steps)
    if not steps or not is_valid or steps != sorted(set(steps)):
        raise ValueError(f"counts must be ascending integers from 0 to {heads}, the heads, but got {counts!r}.")
    return steps
