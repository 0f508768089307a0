"""Plans of the methods, and their results.

Letters in shapes: N examples, T tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_gmar.engine.kernels.layer import Implementation
from captum_gmar.engine.models.grids import FieldGrid
from captum_gmar.engine.models.patch_grid import PatchGrid
from captum_gmar.engine.models.readout_tokens import Start
from captum_gmar.engine.rule import Importance, Rule, Sweep


@dataclass(frozen=True)
class TokenRule(ABC):
    """A formula of the tokens between layers and their gradient: LibraGrad's where ``balances`` is set."""

    balances: bool = False

    @abstractmethod
    def select_tensors(self, layers: Any) -> Sequence[Tensor]:
        """Return the tensors whose gradient the rule takes."""

    @abstractmethod
    def relevance(self, layers: Any, gradients: Sequence[Tensor]) -> Tensor:
        """Return the relevance (N, T), by the gradient of each of these."""


def _itself(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True)
class Plan:
    """A method's rules, and where they apply."""

    rule: Rule | None = None  # applied to each layer in the backward pass
    sweep: Sweep | None = None  # applied to all layers afterwards
    start_layer: int = 0  # the first layer that counts; negative ones count from the end
    tokens: Start | None = None  # where relevance begins, if not where the model's classifier reads
    # each layer has the gradient of its own logits: those of the model without the layers after it
    separate: bool = False
    score: Callable[[Tensor], Tensor] = _itself  # from logits (N, classes) to explained scores of this shape
    token_rule: TokenRule | None = None  # in place of rule and sweep, of methods that read tokens between layers
    implementation: Implementation | None = None  # of the kernels, in place of the engine's choice
    disk_offload: bool = False  # keeps the layers that a sweep reads in files; blocks of them are read then

    @property
    def reads_target(self) -> bool:
        """Presence of a backward pass, without which the target means nothing."""
        return self.rule is not None or self.token_rule is not None

    @property
    def begins(self) -> bool:
        """Presence of start tokens; without them relevance is gathered layer by layer."""
        return self.sweep is not None or self.rule is None or not self.rule.layerwise


class Explanation(NamedTuple):
    """The result of a pass for one target."""

    relevance: Tensor  # (N, T) of every token
    importance: Importance | None  # of the heads of each layer from start_layer on, not normalised
    grid: PatchGrid | FieldGrid
    lacks_gradient: bool  # whether all gradients of a layer are zero, for any example
    logits: Tensor | None = None  # (N, classes) of the model, detached; None if a plan without rule found none
    target: Tensor | None = None  # (N,) or of no dimensions, of which it is, where that was chosen of the logits

    @property
    def patch_relevance(self) -> Tensor:
        """Relevance (N, rows, columns); of a video (N, time, rows, columns)."""
        return self.relevance[:, -self.grid.patches :].reshape(-1, *self.grid.shape)

    def to(self, device: torch.device) -> "Explanation":
        """Return the explanation on this device."""
        importance = self.importance and [heads.to(device) for heads in self.importance]
        logits = None if self.logits is None else self.logits.to(device)
        return self._replace(relevance=self.relevance.to(device), importance=importance, logits=logits)


def first_layer(start_layer: int, layers: int) -> int:
    """Return the number of a method's start layer, which may be counted from the end."""
    if not isinstance(start_layer, int) or not -layers <= start_layer < layers:
        raise ValueError(f"start_layer must be one of the model's {layers} layers, but got {start_layer}.")
    return start_layer % layers
