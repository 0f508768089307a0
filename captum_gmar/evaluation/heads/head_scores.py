"""What is computed for every image: scores of the heads, and predictions as heads are silenced in their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_gmar.ablation import HeadAblationCurve, ranked_heads
from captum_gmar.ablation.curve import HeadOrder, silencing_outcomes, tenths
from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import naming
from captum_gmar.classifier import Classifier
from captum_gmar.evaluation.catalogue import SCORES, HeadScoreEntry, check_name, load
from captum_gmar.evaluation.data.example import fingerprint
from captum_gmar.evaluation.runs.batches import Examples
from captum_gmar.evaluation.runs.journal import Record


def make_scores(
    scores: Sequence[str] | Mapping[str, HeadScore], classifier: Classifier
) -> tuple[dict[str, HeadScore], dict[str, str]]:
    """The scores by name, and what each is measured in.

    Args:
        scores: names of ``SCORES``, or scores by names of the user's.
        classifier: whose heads they are of.

    Raises:
        ValueError: if there is none of a name, or it is "random", which is that of the orders to compare with.
        TypeError: if a score cannot be called.
    """
    if isinstance(scores, Mapping):
        for name, score in scores.items():
            if name == "random":
                raise ValueError("scores must not be called 'random', as the orders that they are compared with are")
            if not callable(score):
                got = type(score).__name__
                raise TypeError(f"scores must be callable, score(inputs, target=...). Got {got} for {name!r} instead.")
        return dict(scores), dict.fromkeys(scores, "score")
    loss, unit = _loss(classifier)
    entries = [SCORES[check_name(name, SCORES, "scores")] for name in scores]
    made = {entry.name: _make_score(entry, classifier, loss) for entry in entries}
    return made, {entry.name: entry.unit or unit for entry in entries}


def score_heads(scores: Mapping[str, HeadScore], examples: Examples, at_once: int) -> list[Record]:
    """Of every example nested lists (scores, layers, heads).

    Args:
        scores: by name.
        examples: of one size.
        at_once: how many one pass of the model may hold.

    Raises:
        RuntimeError: if one cannot be had; it begins with the name of the score.
    """
    parts = [
        torch.stack([_scored(name, score, part) for name, score in scores.items()], 1)
        for part in examples.split(at_once)
    ]
    return examples.records(torch.cat(parts).tolist())


class SilencingOrder(NamedTuple):
    """In which heads are silenced."""

    score: str  # by which it goes, or "random"
    first: str  # "least" or "most", or "random"
    heads: HeadOrder


@dataclass(frozen=True)
class Ablation:
    """What is done to the heads.

    Args:
        orders: in which they are silenced: the least and the most important first by each score, and at random.
    """

    orders: Sequence[SilencingOrder]

    @classmethod
    def by_scores(cls, importance: Mapping[str, Tensor], random_orders: int, seed: int) -> "Ablation":
        """By the importance (layers, heads) that each score gives, beside orders that are drawn."""
        orders = []
        for name, of_score in importance.items():
            ranked = ranked_heads(of_score)
            orders += [SilencingOrder(name, "least", ranked), SilencingOrder(name, "most", ranked[::-1])]
        shape = next(iter(importance.values())).shape
        drawn = torch.rand(random_orders, *shape, generator=torch.Generator().manual_seed(seed))
        return cls(orders + [SilencingOrder("random", "random", ranked_heads(numbers)) for numbers in drawn])

    @property
    def counts(self) -> list[int]:
        """After how many silent heads predictions are looked at."""
        return tenths(len(self.orders[0].heads))

    def fingerprint(self) -> str:
        """Of all that predictions depend on, beside model and images."""
        return fingerprint([repr(self.orders).encode()])

    def measure(self, classifier: Classifier, examples: Examples, at_once: int) -> list[Record]:
        """Of every example nested lists (orders, counts, outcomes), the outcomes being accuracy, logit, probability.

        Args:
            classifier: whose heads are silenced.
            examples: of one size.
            at_once: how many one pass of the model may hold.
        """
        orders = [order.heads for order in self.orders]
        outcomes = [
            silencing_outcomes(classifier.model, classifier.logits, part.pixels, part.targets, orders, self.counts)
            for part in examples.split(at_once)
        ]
        return examples.records(torch.cat(outcomes, -1).movedim(-1, 0).tolist())

    def curves(self, values: Sequence[Any]) -> dict[tuple[str, str], HeadAblationCurve]:
        """By score and which heads go first; the random orders are one curve.

        Args:
            values: of every example, as :meth:`measure` gives them.
        """
        outcomes = torch.tensor(values, dtype=torch.float64).movedim(0, -1)  # (orders, counts, outcomes, N)
        groups: dict[tuple[str, str], list[int]] = {}
        for index, order in enumerate(self.orders):
            groups.setdefault((order.score, order.first), []).append(index)
        return {name: self._curve(outcomes[indices], indices) for name, indices in groups.items()}

    def _curve(self, outcomes: Tensor, indices: Sequence[int]) -> HeadAblationCurve:
        accuracy, logit, probability = outcomes.unbind(2)
        orders = [self.orders[index].heads for index in indices]
        return HeadAblationCurve(torch.tensor(self.counts), accuracy, logit, probability, orders)


def _make_score(entry: HeadScoreEntry, classifier: Classifier, loss: str) -> HeadScore:
    options: dict[str, Any] = {"forward_func": classifier.logits}
    if entry.home is None:
        method: Any = METHODS[entry.name].load()(classifier.model, **options)
        score: HeadScore = method.head_importance
        return score
    if entry.unit is None:
        options["loss"] = loss
    return partial(load(entry.home), classifier.model, **options)


def _loss(classifier: Classifier) -> tuple[str, str]:
    """What a score of the loss is of, and in which unit."""
    has_softmax = len(classifier.labels) != 1 and not classifier.is_multi_label
    return ("cross_entropy", "nats") if has_softmax else ("logit", "of the logit")


def _scored(name: str, score: HeadScore, examples: Examples) -> Tensor:
    with naming(name):
        return score(examples.pixels, target=examples.targets).cpu()
