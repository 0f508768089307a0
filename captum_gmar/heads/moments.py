"""Mean and spread of head importance, gathered batch by batch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics.outputs import Target, class_indices


class Moments(NamedTuple):
    """Of some examples: how many, their mean, and the sum of squared distances from it."""

    examples: int
    mean: Tensor  # (layers, heads)
    squares: Tensor  # (layers, heads)

    @classmethod
    def of(cls, importance: Tensor) -> "Moments":
        mean = importance.mean(0)
        return cls(len(importance), mean, (importance - mean).square().sum(0))

    def with_more(self, more: "Moments") -> "Moments":
        examples, distance = self.examples + more.examples, more.mean - self.mean
        between = distance.square() * (self.examples * more.examples / examples)
        return Moments(
            examples, self.mean + distance * (more.examples / examples), self.squares + more.squares + between
        )

    @property
    def std(self) -> Tensor:
        if self.examples == 1:
            return torch.full_like(self.mean, math.nan)
        return (self.squares / (self.examples - 1)).sqrt()


class Gathered:
    """Statistics that grow batch by batch."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.moments: dict[int | None, Moments] = {}  # by class; None is for all
        self.importance: list[Tensor] = []
        self.targets: list[Tensor] = []

    def add(self, importance: Tensor, targets: Target) -> None:
        kept = importance.detach().cpu()
        values = self._checked(kept).double()
        indices = class_indices(targets, len(values))
        classes = None if indices is None else indices.cpu()
        if self.moments and (classes is None) != (len(self.moments) == 1):
            raise ValueError("Expected targets in every batch or in none, but got both. Leave all out, or none.")
        self._add_to(None, values)
        if classes is not None:
            self.targets += [classes] if self.keep else []
            for number in set(classes.tolist()):
                self._add_to(number, values[classes == number])
        if self.keep:
            self.importance.append(kept)

    def _add_to(self, number: int | None, values: Tensor) -> None:
        more = Moments.of(values)
        self.moments[number] = self.moments[number].with_more(more) if number in self.moments else more

    def _checked(self, importance: Tensor) -> Tensor:
        shape = tuple(importance.shape)
        if importance.dim() != 3 or not importance.numel() or not torch.isfinite(importance).all():
            raise ValueError(
                f"Expected finite importance of shape (examples, layers, heads), at least one example, but got {shape}."
            )
        if self.moments and self.moments[None].mean.shape != shape[1:]:
            raise ValueError(
                f"Expected importance of {tuple(self.moments[None].mean.shape)} (layers, heads), as before, but got "
                f"{shape[1:]}. Take all batches from one model."
            )
        return importance
