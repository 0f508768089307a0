"""Scores of attention heads, and predictions as heads are silenced in the order of their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_gmar.ablation import HeadAblationCurve, HeadStatistics, ranked_heads
from captum_gmar.ablation.curve import HeadOrder, silencing_outcomes, tenths
from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import name_errors
from captum_gmar.classifier import Classifier, find_class
from captum_gmar.evaluation.catalogue import SCORES, HeadScoreEntry, check_name, load
from captum_gmar.evaluation.data.example import Example, fingerprint
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.runs.batches import Examples
from captum_gmar.evaluation.runs.journal import Record


def make_scores(
    scores: Sequence[str] | Mapping[str, HeadScore], classifier: Classifier
) -> tuple[dict[str, HeadScore], dict[str, str]]:
    """Return the scores and their units by name.

    Raises:
        ValueError: if a name is not known, or is "random", the name of the orders to compare with.
        TypeError: if a score cannot be called.
    """
    if not isinstance(scores, Mapping):
        has_softmax = len(classifier.labels) != 1 and not classifier.is_multi_label
        loss, unit = ("cross_entropy", "nats") if has_softmax else ("logit", "of the logit")
        entries = [SCORES[check_name(name, SCORES, "scores")] for name in scores]
        made = {entry.name: _make_score(entry, classifier, loss) for entry in entries}
        return made, {entry.name: entry.unit or unit for entry in entries}
    for name, score in scores.items():
        if name == "random":
            raise ValueError("scores must not be called 'random', as the orders that they are compared with are")
        if not callable(score):
            got = type(score).__name__
            raise TypeError(f"scores must be callable, score(inputs, target=...). Got {got} for {name!r} instead.")
    return dict(scores), dict.fromkeys(scores, "score")


def _make_score(entry: HeadScoreEntry, classifier: Classifier, loss: str) -> HeadScore:
    options: dict[str, Any] = {"forward_func": classifier.logits}
    if entry.home is None:
        method: Any = METHODS[entry.name].load()(classifier.model, **options)
        score: HeadScore = method.head_importance
        return score
    return partial(load(entry.home), classifier.model, **options, **({} if entry.unit else {"loss": loss}))


def explained_class(target: str | int, subject: Subject) -> tuple[Callable[[Example], int | None], str]:
    """Return a function from examples to the class that is explained (None: the predicted one), and its name."""
    names = {"predicted": "the predicted class", "label": "the class of the label"}
    if target in names:
        return subject.targets(str(target)), names[str(target)]
    labels = subject.classifier.labels
    chosen = find_class(target, labels, forms="predicted, label, an index or a label")
    return lambda example: chosen, f"{labels[chosen]} (class {chosen})" if len(labels) else f"class {chosen}"


def score_heads(scores: Mapping[str, HeadScore], examples: Examples, batch_size: int) -> list[Record]:
    """Return nested lists (scores, layers, heads) for every example.

    Raises:
        RuntimeError: if a score cannot be computed; the message begins with its name.
    """
    parts = []
    for part in examples.split(batch_size):
        values = []
        for name, score in scores.items():
            with name_errors(name):
                values.append(score(part.pixels, target=part.targets).cpu())
        parts.append(torch.stack(values, 1))
    return examples.records(torch.cat(parts).tolist())


def score_statistics(names: Sequence[str], records: Sequence[Record]) -> dict[str, HeadStatistics]:
    """Return the statistics of each score over the records of :func:`score_heads`."""
    importance = torch.tensor([record.values for record in records])  # (N, scores, layers, heads)
    targets = [record.target for record in records]
    return {
        name: HeadStatistics.from_examples(scores, targets)
        for name, scores in zip(names, importance.unbind(1), strict=True)
    }


class SilencingOrder(NamedTuple):
    """An order in which heads are silenced."""

    score: str  # that ranks the heads, or "random"
    first: str  # "least" or "most", or "random"
    heads: HeadOrder


@dataclass(frozen=True)
class Ablation:
    """Orders in which heads are silenced, and the predictions without them."""

    orders: Sequence[SilencingOrder]

    @classmethod
    def by_scores(cls, importance: Mapping[str, Tensor], random_orders: int, seed: int) -> "Ablation":
        """Rank heads by the importance (layers, heads) of each score, and sample random orders."""
        orders = []
        for name, values in importance.items():
            ranked = ranked_heads(values)
            orders += [SilencingOrder(name, "least", ranked), SilencingOrder(name, "most", ranked[::-1])]
        shape = next(iter(importance.values())).shape
        sampled = torch.rand(random_orders, *shape, generator=torch.Generator().manual_seed(seed))
        return cls(orders + [SilencingOrder("random", "random", ranked_heads(values)) for values in sampled])

    @property
    def counts(self) -> list[int]:
        """Numbers of silent heads at which predictions are measured."""
        return tenths(len(self.orders[0].heads))

    def fingerprint(self) -> str:
        """Return a digest of all that predictions depend on, beside model and images."""
        return fingerprint([repr(self.orders).encode()])

    def measure(self, classifier: Classifier, examples: Examples, batch_size: int) -> list[Record]:
        """Return nested lists (orders, counts, outcomes) for every example: accuracy, logit and probability."""
        orders = [order.heads for order in self.orders]
        outcomes = [
            silencing_outcomes(classifier.model, classifier.logits, part.pixels, part.targets, orders, self.counts)
            for part in examples.split(batch_size)
        ]
        return examples.records(torch.cat(outcomes, -1).movedim(-1, 0).tolist())

    def curves(self, values: Sequence[Any]) -> dict[tuple[str, str], HeadAblationCurve]:
        """Return a curve by score and which heads go first, of the values of :meth:`measure`'s records."""
        outcomes = torch.tensor(values, dtype=torch.float64).movedim(0, -1)  # (orders, counts, outcomes, N)
        curves = {}
        for key in dict.fromkeys((order.score, order.first) for order in self.orders):
            indices = [index for index, order in enumerate(self.orders) if (order.score, order.first) == key]
            heads = [self.orders[index].heads for index in indices]
            accuracy, logit, probability = outcomes[indices].unbind(2)
            curves[key] = HeadAblationCurve(torch.tensor(self.counts), accuracy, logit, probability, heads)
        return curves
