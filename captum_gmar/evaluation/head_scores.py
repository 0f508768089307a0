"""What is found out about the heads of a model for every image: their scores, and predictions without some of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import naming
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.evaluation.batches import Batches, Examples, Skipped
from captum_gmar.evaluation.journal import Record
from captum_gmar.heads import (
    HeadAblationCurve,
    attention_entropy,
    gradient_of_mask,
    head_ablation_curve,
    mean_head_outputs,
    ranked_heads,
)

Score = Callable[..., Tensor]  # (inputs, target=...) → (N, layers, heads)


class Found(NamedTuple):
    """Of one example, as journals keep it."""

    number: int  # of the example in the data
    target: int
    values: Any  # nested lists: of scores, (scores, layers, heads); of predictions, (orders, 3, counts)


class Order(NamedTuple):
    """In which heads are silenced."""

    score: str  # by which it goes, or "random"
    first: str  # "least" or "most"
    importance: Tensor  # (layers, heads)


class Ablation(NamedTuple):
    """What is done to the heads."""

    orders: Sequence[Order]
    counts: Sequence[int]  # of silent heads, after which predictions are looked at
    within_layers: bool
    fill: Tensor | None


def make_scores(names: Sequence[str], classifier: Classifier) -> dict[str, Score]:
    """By the names that the command line uses."""
    model, options = classifier.model, dict[str, Any](forward_func=classifier.logits)
    found: dict[str, Score] = {
        "mask-gradient": partial(gradient_of_mask, model, loss=_loss(classifier), **options),
        "entropy": partial(attention_entropy, model, **options),
    }
    for name in ("gmar-l1", "gmar-l2"):
        gmar: Any = METHODS[name].load()(model, **options)
        found[name] = gmar.head_importance
    return {name: found[name] for name in names}


def units(classifier: Classifier) -> dict[str, str]:
    """What each score is measured in."""
    gradient = "nats" if _loss(classifier) == "cross_entropy" else "of the logit"
    return {
        "gmar-l1": "share of its layer",
        "gmar-l2": "share of its layer",
        "mask-gradient": gradient,
        "entropy": "nats",
    }


def make_orders(importance: Mapping[str, Tensor], random: int, seed: int) -> list[Order]:
    """Least and most important heads first, by each score; and at random, as if of scores that are random numbers."""
    like = next(iter(importance.values()))
    drawn = torch.rand(random, *like.shape, generator=torch.Generator().manual_seed(seed))
    by_score = [Order(name, first, own) for name, own in importance.items() for first in ("least", "most")]
    return by_score + [Order("random", "least", own) for own in drawn]


@dataclass(frozen=True)
class HeadWork:
    """
    Args:
        batches: that examples are read in.
        classifier: whose heads it is about.
    """

    batches: Batches
    classifier: Classifier

    def weigh(self, scores: Mapping[str, Score], numbers: Sequence[int]) -> tuple[list[Record], list[Skipped]]:
        """The scores of the heads for these examples, and the examples that had to be left out.

        Raises:
            RuntimeError: if not even the first examples can be scored; it names the score.
        """
        return self.batches.finish(numbers, partial(self._weighed, scores))

    def silence(
        self, ablation: Ablation, targets: Mapping[int, int], numbers: Sequence[int]
    ) -> tuple[list[Record], list[Skipped]]:
        """Whether the target is predicted, its logit and its probability, as heads are silenced.

        Args:
            ablation: what is done.
            targets: of the examples, by number.
            numbers: of the examples.
        """
        return self.batches.finish(numbers, partial(self._silenced, ablation), targets.__getitem__)

    def mean_outputs(self, numbers: Sequence[int]) -> Tensor:
        """(layers, heads, head dimension) over these examples, see :func:`captum_gmar.heads.mean_head_outputs`."""
        parts, _ = self.batches.finish(numbers, self._means)
        total = sum(count for count, _ in parts)
        return torch.stack([mean * (count / total) for count, mean in parts]).sum(0)

    def _weighed(self, scores: Mapping[str, Score], examples: Examples, at_once: int) -> list[Record]:
        parts = [
            torch.stack([_scored(name, score, part.pixels, part.targets) for name, score in scores.items()], 1)
            for part in examples.split(at_once)
        ]
        return examples.records(torch.cat(parts).tolist())

    def _silenced(self, ablation: Ablation, examples: Examples, at_once: int) -> list[Record]:
        parts = [self._followed(ablation, part.pixels, part.targets) for part in examples.split(at_once)]
        return examples.records(torch.cat(parts).tolist())

    def _followed(self, ablation: Ablation, pixels: Tensor, targets: Tensor) -> Tensor:
        """(N, orders, 3, counts)"""
        curves = [
            head_ablation_curve(
                self.classifier.model,
                [(pixels, targets)],
                order.importance,
                order=order.first,
                counts=ablation.counts,
                within_layers=ablation.within_layers,
                fill=ablation.fill,
                forward_func=self.classifier.logits,
            )
            for order in ablation.orders
        ]
        values = [torch.cat([curve.accuracy, curve.logit, curve.probability]) for curve in curves]  # each (3, K, N)
        return torch.stack(values).movedim(-1, 0)

    def _means(self, examples: Examples, at_once: int) -> list[tuple[int, Tensor]]:
        parts = torch.split(examples.pixels, at_once)
        options = {"forward_func": self.classifier.logits}
        return [(len(part), mean_head_outputs(self.classifier.model, part, **options)) for part in parts]


def curves_of(found: Sequence[Found], ablation: Ablation) -> dict[tuple[str, str], HeadAblationCurve]:
    """By score and which heads go first; the random orders are one curve."""
    values = torch.tensor([own.values for own in found], dtype=torch.float64).permute(1, 2, 3, 0)  # (orders, 3, K, N)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, order in enumerate(ablation.orders):
        groups.setdefault((order.score, order.first), []).append(index)
    return {name: _curve(values[own], [ablation.orders[i] for i in own], ablation) for name, own in groups.items()}


def _curve(values: Tensor, orders: Sequence[Order], ablation: Ablation) -> HeadAblationCurve:
    """Of values (orders, 3, counts, N)."""
    ranked = [ranked_heads(own.importance, within_layers=ablation.within_layers) for own in orders]
    silenced = [heads if own.first == "least" else heads[::-1] for heads, own in zip(ranked, orders, strict=True)]
    accuracy, logit, probability = values.unbind(1)
    return HeadAblationCurve(torch.tensor(ablation.counts), accuracy, logit, probability, silenced)


def _loss(classifier: Classifier) -> str:
    has_softmax = len(classifier.labels) > 1 and not classifier.is_multi_label
    return "cross_entropy" if has_softmax else "logit"


def _scored(name: str, score: Score, pixels: Tensor, targets: Tensor) -> Tensor:
    with naming(name):
        return score(pixels, target=targets).cpu()
