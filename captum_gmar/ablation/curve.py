"""What becomes of a model's predictions as its heads are silenced one after the other."""

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
"""Layer and head of each, the first to be silenced first."""


@dataclass(frozen=True, eq=False)
class HeadAblationCurve:
    """What :func:`head_ablation_curve` returns, for each of R orders, K counts and N examples.

    Attributes:
        counts: (K,) how many heads are silent.
        accuracy: (R, K, N) 1 where the target is predicted, else 0.
        logit: (R, K, N) of the target.
        probability: (R, K, N) of the target.
        orders: In which heads were silenced, R lists of (layer, head).
    """

    counts: Tensor
    accuracy: Tensor
    logit: Tensor
    probability: Tensor
    orders: list[HeadOrder]

    def mean(self, name: str) -> Tensor:
        """(K,) of "accuracy", "logit" or "probability", over examples and orders.

        Raises:
            ValueError: if the name is none of these; so of all methods.
        """
        return self._outcome(name).mean((0, 2))

    def margin(self, name: str) -> Tensor:
        """(K,) half the width of the 95 % interval of :meth:`mean` over examples, each being its mean over the orders.

        nan for one example. It says how sure the mean is for other examples like these, with these orders.
        """
        return margin(self._outcome(name).mean(0))

    def order_means(self, name: str) -> Tensor:
        """(R, K) the mean over examples for each order: how far random orders lie apart."""
        return self._outcome(name).mean(-1)

    def areas(self, name: str) -> Tensor:
        """(R, N) the area below the curve, double precision: the mean over all shares of silent heads, by trapezoids.

        It is that of the counts that were looked at, from the first to the last.

        Raises:
            ValueError: also if there is one count only.
        """
        if len(self.counts) < 2:
            raise ValueError(f"An area needs two counts or more. Got {self.counts.tolist()} instead.")
        span = self.counts[-1] - self.counts[0]
        return torch.trapezoid(self._outcome(name).double(), (self.counts.double() / span)[:, None], dim=1)

    def records(self) -> list[dict[str, Any]]:
        """A row for each outcome and count: ``pandas.DataFrame`` takes it.

        Its keys are silent (the count), name, mean, margin (of the 95 % interval over examples), lowest and highest (of
        the means of the orders), orders and examples.
        """
        return [row for name in OUTCOMES for row in self._records(name)]

    def _records(self, name: str) -> list[dict[str, Any]]:
        means = self.order_means(name)
        columns = {
            "silent": self.counts,
            "mean": self.mean(name),
            "margin": self.margin(name),
            "lowest": means.amin(0),
            "highest": means.amax(0),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        rest = {"orders": len(means), "examples": self.accuracy.shape[-1]}
        return [{"name": name, **dict(zip(columns, row, strict=True)), **rest} for row in rows]

    def _outcome(self, name: str) -> Tensor:
        check_choice("name", name, OUTCOMES)
        values: Tensor = getattr(self, name)
        return values


def tenths(heads: int) -> list[int]:
    """After how many silent heads to look, from none to all."""
    return sorted({round(heads * tenth / 10) for tenth in range(11)})


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
    progress: bool = False,
) -> HeadAblationCurve:
    """
    Silences heads in order of their importance, over all layers, and follows accuracy, target logit and probability.

    A score that finds the heads that matter keeps the predictions longer than random orders do when the least important
    go first, and loses them sooner when the most important do: compare with order "random" before anything is said of
    a score. A curve depends on the way of silencing: zero is an output that the layers behind were not trained on;
    ``fill`` of :func:`mean_head_outputs` is another. Importance should come from other examples than ``batches``.

    Args:
        model (nn.Module): A vision transformer, in evaluation mode.
        batches (Iterable): Pairs of inputs, on the device of the model, and targets, for example a ``DataLoader``. Each
            is run repeats × counts times and then let go.
        importance (Tensor): (layers, heads) of the whole model, for example the ``mean`` of :class:`HeadStatistics`.
            What an order over all layers means depends on the score: see :func:`ranked_heads`.
        order (str, optional): Which heads go first: "least" or "most" important, or "random".
            Default: "least"
        counts (Sequence[int], optional): After how many silent heads to look, ascending, from 0 to all of them.
            Default: None, from none to all, in tenths
        within_layers (bool, optional): Whether heads are ranked within their layer. Not for random orders.
            Default: False
        fill (Tensor, optional): What silent heads give instead, see :func:`ablate_heads`.
            Default: None, zero
        repeats (int, optional): How many random orders.
            Default: 1
        seed (int, optional): Of the random orders; equal seeds give equal orders.
            Default: 0
        forward_func (Callable, optional): Takes the inputs, runs ``model`` once and returns logits (N, classes).
            Default: None, the model itself
        progress (bool, optional): Whether a progress bar over the batches is shown.
            Default: False

    Returns:
        HeadAblationCurve: Per example, with means and intervals as methods.

    Raises:
        TypeError, ValueError, RuntimeError: if an argument is of the wrong kind or does not fit the model, see
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
    steps = _checked_counts(counts, importance.numel())
    logits = Logits(model if forward_func is None else forward_func)
    results: list[Tensor] = []
    for inputs, targets in pairs(batches, progress):
        if not results:
            _check_whole(importance, mean_head_outputs(model, inputs[:1], logits))
        results.append(silencing_outcomes(model, logits, inputs, targets, orders, steps, fill))
    if not results:
        raise ValueError("batches must hold at least one batch. Got none instead. An iterator is used up by one run.")
    accuracy, logit, probability = torch.cat(results, -1).unbind(2)  # each (R, K, N)
    return HeadAblationCurve(torch.tensor(steps), accuracy, logit, probability, orders)


@torch.no_grad()
def silencing_outcomes(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    inputs: Tensor,
    targets: Target,
    orders: Sequence[HeadOrder],
    counts: Sequence[int],
    fill: Tensor | None = None,
) -> Tensor:
    """(R, K, 3, N) the ``OUTCOMES`` of N examples for each of R orders and K counts of silent heads, on the CPU.

    Args:
        model: whose heads are silenced.
        logits: runs it on the inputs.
        inputs: a batch.
        targets: of each example, or one for all.
        orders: in which heads are silenced.
        counts: after how many to look.
        fill: what silent heads give instead of zero.

    Raises:
        ValueError: if there is no target for every example, or outputs are no logits of classes.
    """
    runs = [
        torch.stack([_outcomes(model, logits, inputs, targets, heads[:count], fill) for count in counts])
        for heads in orders
    ]
    return torch.stack(runs).cpu()


def _outcomes(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    inputs: Tensor,
    targets: Target,
    heads: HeadOrder,
    fill: Tensor | None,
) -> Tensor:
    """(3, N) whether the target is predicted, its logit and its probability."""
    with ablate_heads(model, group_by_layer(heads), fill):
        outputs = logits(inputs)
    classes = class_indices(targets, len(inputs))
    if classes is None or outputs.dim() != 2:
        raise ValueError(
            f"Expected a target for every example and logits (examples, classes) but got the targets {targets!r} and "
            f"logits of shape {tuple(outputs.shape)}."
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
            raise ValueError(f'repeats must be 1 for an order that is not "random". Got {repeats} instead.')
        return [ranked if order == "least" else ranked[::-1]]
    heads, generator = sorted(ranked), random.Random(seed)
    return [generator.sample(heads, len(heads)) for _ in range(repeats)]


def _check_whole(importance: Tensor, outputs: Tensor) -> None:
    if importance.shape != outputs.shape[:2]:
        raise ValueError(
            f"Expected importance of shape {tuple(outputs.shape[:2])}, the model's layers and heads, but got "
            f"{tuple(importance.shape)}."
        )


def _checked_counts(counts: Sequence[int] | None, heads: int) -> list[int]:
    if counts is None:
        return tenths(heads)
    steps = list(counts)
    whole = all(is_integer(count) and 0 <= count <= heads for count in steps)
    if not steps or not whole or steps != sorted(set(steps)):
        raise ValueError(
            f"counts must be integers from 0 to the number of heads, {heads}, in ascending order. Got {counts!r} "
            "instead."
        )
    return steps
