"""Head importance over a data set: as a whole, and by class."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_gmar.heads.moments import Gathered
from captum_gmar.heads.ranking import by_layer, ranked_heads
from captum_gmar.metrics.inputs import check_count
from captum_gmar.metrics.outputs import Target


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """What :func:`head_importance` returns: mean and spread of a score of the heads over the examples.

    Standard deviations are those of the examples, with n - 1 below the root; nan where there is one example. Divided by
    the root of the number of examples they are the standard error of the mean.

    Attributes:
        mean: (layers, heads), double precision.
        std: (layers, heads)
        examples: How many there were.
        classes: (C,) those that occur, in order; none if the examples came without targets.
        class_mean: (C, layers, heads)
        class_std: (C, layers, heads)
        class_examples: (C,) how many there were of each.
        importance: (N, layers, heads) of every example, where kept.
        targets: (N,) of every example, where kept and given.

    Example::

        >>> import torch
        >>> from captum_gmar.heads import HeadStatistics
        >>> importance = torch.tensor([[[0.2, 0.8]], [[0.4, 0.6]], [[0.9, 0.1]]])  # three examples, one layer
        >>> statistics = HeadStatistics.from_examples(importance, [7, 7, 4])
        >>> statistics.mean
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
        >>> statistics.classes, statistics.class_mean[1]
        (tensor([4, 7]), tensor([[0.3000, 0.7000]], dtype=torch.float64))
        >>> statistics.least(1, target=4), statistics.least(1, target=7)
        ({0: [1]}, {0: [0]})
    """

    mean: Tensor
    std: Tensor
    examples: int
    classes: Tensor
    class_mean: Tensor
    class_std: Tensor
    class_examples: Tensor
    importance: Tensor | None = None
    targets: Tensor | None = None

    @classmethod
    def from_examples(cls, importance: Tensor | NDArray[Any], targets: Target = None) -> "HeadStatistics":
        """The statistics of importance that was computed before.

        Args:
            importance: (N, layers, heads) of every example, a tensor or an array.
            targets: The class of every example, or one for all.

        Raises:
            TypeError, ValueError: if the importance is not of that shape or not finite, or the targets do not fit it.
        """
        if not isinstance(importance, Tensor | np.ndarray):
            raise TypeError(
                f"importance must be a tensor or array (examples, layers, heads). Got {type(importance).__name__} "
                "instead."
            )
        gathered = Gathered(keep=True)
        gathered.add(torch.as_tensor(importance), targets)
        return cls.of(gathered)

    @classmethod
    def of(cls, gathered: Gathered) -> "HeadStatistics":
        """The statistics of what was gathered."""
        if not gathered.moments:
            raise ValueError(
                "batches must hold at least one batch. Got none instead. An iterator is used up by one run."
            )
        overall = gathered.moments[None]
        classes = sorted(number for number in gathered.moments if number is not None)
        moments = [gathered.moments[number] for number in classes]
        return cls(
            mean=overall.mean,
            std=overall.std,
            examples=overall.examples,
            classes=torch.tensor(classes, dtype=torch.long),
            class_mean=_stack([some.mean for some in moments], overall.mean),
            class_std=_stack([some.std for some in moments], overall.mean),
            class_examples=torch.tensor([some.examples for some in moments], dtype=torch.long),
            importance=torch.cat(gathered.importance) if gathered.keep else None,
            targets=torch.cat(gathered.targets) if gathered.targets else None,
        )

    def least(self, count: int, *, target: int | None = None, within_layers: bool = False) -> dict[int, list[int]]:
        """The least important heads, layer to heads, as :func:`ablate_heads` takes them.

        Args:
            count: How many, over all layers. What their order means is said in :func:`ranked_heads`.
            target: By their mean over the examples of this class.
            within_layers: Whether heads are ranked within their layer.

        Raises:
            ValueError: if the model has fewer heads, or there was no example of the class.
        """
        return by_layer(self._ranked(count, target, within_layers)[:count])

    def most(self, count: int, *, target: int | None = None, within_layers: bool = False) -> dict[int, list[int]]:
        """The most important heads, in the form of :meth:`least`."""
        return by_layer(self._ranked(count, target, within_layers)[::-1][:count])

    def records(self) -> list[dict[str, Any]]:
        """Rows for ``pandas.DataFrame``, one for each head: first over all examples (class None), then for each class.

        Its keys are layer, head, class, mean, std and examples.
        """
        rows = list(_records(None, self.examples, self.mean, self.std))
        for index, number in enumerate(self.classes.tolist()):
            count = int(self.class_examples[index])
            rows += _records(number, count, self.class_mean[index], self.class_std[index])
        return rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All attributes that there are as arrays, for ``numpy.savez(path, **statistics.arrays())``."""
        return {name: np.asarray(value) for name, value in vars(self).items() if value is not None}

    def to_json(self) -> str:
        """The :meth:`records` and the number of examples as JSON, with null for nan."""
        rows = [{key: None if value != value else value for key, value in row.items()} for row in self.records()]
        return json.dumps({"examples": self.examples, "heads": rows}, allow_nan=False)

    def _ranked(self, count: int, target: int | None, within_layers: bool) -> list[tuple[int, int]]:
        check_count(count, "count")
        if count > self.mean.numel():
            raise ValueError(f"count must be at most the number of heads, {self.mean.numel()}. Got {count} instead.")
        return ranked_heads(self.mean if target is None else self._mean_of(target), within_layers=within_layers)

    def _mean_of(self, target: int) -> Tensor:
        found = (self.classes == target).nonzero()
        if not len(found):
            raise ValueError(f"target must be one of the classes {self.classes.tolist()}. Got {target!r} instead.")
        return self.class_mean[int(found[0])]


def _stack(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(parts) if parts else like.new_zeros(0, *like.shape)


def _records(number: int | None, examples: int, mean: Tensor, std: Tensor) -> Iterator[dict[str, Any]]:
    for layer, (means, stds) in enumerate(zip(mean.tolist(), std.tolist(), strict=True)):
        for head, (one_mean, one_std) in enumerate(zip(means, stds, strict=True)):
            yield {
                "layer": layer,
                "head": head,
                "class": number,
                "mean": one_mean,
                "std": one_std,
                "examples": examples,
            }
