"""Relevance flow: a method's relevance below each layer, kept while the method runs as always."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from captum_gmar.attr.rules import RolloutSweep
from captum_gmar.engine.kernels.reduction import Blocks, HeadSums, Reduction
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.rule import FuseHeads, HeadRule, HeadSweep, Importance, Step


class RelevanceFlow(NamedTuple):
    """Relevance below each layer in the order in which it flows, last layer first."""

    relevance: Tensor  # (N, L, rows, columns) of the patches; the last is the method's relevance
    prefix_share: Tensor  # (N, L) of all relevance, what the prefix tokens hold, from 0 to 1
    layers: tuple[int, ...]  # L numbers, from 0 at the first; from -1 at the last if the method's start layer is so


@dataclass
class FollowedRule(HeadRule):
    """A rule, and the rows of relevance that it made."""

    rule: HeadRule
    rows: list[Tensor] = field(default_factory=list)  # (n, T) of each layer and its parts, last layer first
    layerwise: ClassVar[bool] = False

    def reduction(self, relevance: Tensor) -> Reduction:
        """Return the rule's reduction."""
        return self.rule.reduction(relevance)

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Keep the rule's step."""
        return self._keep(self.rule.step(relevance, heads))

    def take(self, relevance: Tensor, read: Callable[[Reduction], HeadSums]) -> Step:
        """Keep the rule's step."""
        return self._keep(self.rule.take(relevance, read))

    def take_fused(self, relevance: Tensor, read: Callable[[Reduction], HeadSums], fuse_heads: FuseHeads) -> Step:
        """Keep the rule's step."""
        return self._keep(self.rule.take_fused(relevance, read, fuse_heads))

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return self._keep(self.rule(relevance, layer))

    def _keep(self, step: Step) -> Step:
        self.rows.append(step.relevance)
        return step

    def flow(self, batches: Sequence[int]) -> Tensor:
        """Return the rows (N, L, T), by the numbers of examples in each pass."""
        rows = torch.cat([row.to(self.rows[-1].device) for row in self.rows])
        layers = len(rows) // sum(batches)
        passes = torch.split(rows, [layers * examples for examples in batches])
        return torch.cat([part.view(layers, -1, part.shape[-1]).transpose(0, 1) for part in passes])


@dataclass
class FollowedSweep(HeadSweep):
    """A sweep down the layers, made one layer at a time, and the rows of relevance that it made."""

    sweep: RolloutSweep
    parts: list[Tensor] = field(default_factory=list)  # (n, L, T), last layer first

    def __call__(self, relevance: Tensor, layers: Sequence[Blocks], importance: Importance | None) -> Tensor:
        return self._follow(self.sweep, relevance, layers, importance)

    def is_linear(self, importance: Importance | None) -> bool:
        """Return whether the sweep is linear."""
        return self.sweep.is_linear(importance)

    def take(
        self, relevance: Tensor, layers: Sequence[Callable[[Reduction], HeadSums]], importance: Importance | None
    ) -> Tensor:
        """Sweep layers that answer reductions, one at a time."""
        return self._follow(self.sweep.take, relevance, layers, importance)

    def _follow(
        self,
        sweep: Callable[[Tensor, Sequence[Any], Importance | None], Tensor],
        relevance: Tensor,
        layers: Sequence[Any],
        importance: Importance | None,
    ) -> Tensor:
        rows = []
        for layer in reversed(layers):
            relevance = sweep(relevance, [layer], importance)
            rows.append(relevance)
        self.parts.append(torch.stack(rows, 1))
        return relevance

    def flow(self, batches: Sequence[int]) -> Tensor:
        """Return the rows (N, L, T)."""
        return torch.cat(self.parts)


def add_follower(plan: Plan, name: str) -> tuple[Plan, FollowedRule | FollowedSweep]:
    """Return the same plan with a follower, which keeps the relevance that the plan propagates."""
    rule, sweep = plan.rule, plan.sweep
    if rule is None and isinstance(sweep, RolloutSweep) and sweep.goes_down:
        follower = FollowedSweep(sweep)
        return replace(plan, sweep=follower), follower
    if isinstance(rule, HeadRule) and not rule.layerwise and sweep is None:
        rule_follower = FollowedRule(rule)
        return replace(plan, rule=rule_follower), rule_follower
    raise ValueError(
        f"method must propagate relevance from the last layer to the first, but got {name} as it is set. Use "
        "GMARAttribution or AttentionRollout with recursion='rollout', GradientRollout or GMARPlusPlus."
    )


def relevance_flow(flow: Tensor, explanation: Explanation, start_layer: int) -> RelevanceFlow:
    """Return the flow by the relevance (N, L, T) of all tokens below the layers from ``start_layer`` on, last first."""
    grid, layers = explanation.grid, flow.shape[1]
    prefix = flow.shape[-1] - grid.patches
    total = flow.sum(-1)
    share = torch.where(total > 0, flow[..., :prefix].sum(-1) / total, 0)
    patches = flow[..., prefix:].reshape(-1, layers, *grid.shape)
    return RelevanceFlow(patches, share, tuple(start_layer + index for index in reversed(range(layers))))
