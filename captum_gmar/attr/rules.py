"""What each method makes of the attention layers: every rule reads like its formula and knows no model.

Letters in shapes: N examples, L layers, H heads, T tokens, R query rows of a block. In formulas: r the row of
relevance, which begins at the start tokens, often CLS; w the weights of the heads, which sum to 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from captum_gmar.engine.rule import (
    Blocks,
    Importance,
    Step,
    by_head,
    check_choice,
    check_residual,
    evenly,
    fuse,
    fuse_rows,
    head_rows,
    head_weights,
    leading,
    mean_row,
    normalised_row,
    positive,
    positive_gradient,
    product,
    row_times,
    sum_up,
)

NORMS = ("l1", "l2")


RECURSIONS = ("rollout", "forward", "additive")


FUSIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}


GRADIENT_FUSIONS = ("mean", "gmar")


@dataclass(frozen=True)
class HeadImportance:
    r"""GMAR's head importance :math:`s_h = \|G_h\|`, the entrywise L1 or L2 norm; relevance stays where it is."""

    norm: str = "l1"
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        (importance,) = by_head(
            layer, lambda heads: (self.combined([self.norm_of(block.gradient, block.spare) for block in heads]),)
        )
        return Step(relevance, importance)

    def norm_of(self, gradient: Tensor, spare: Tensor | None = None) -> Tensor:
        """(N, H) of some rows' gradient (N, H, R, T)."""
        if self.norm == "l1" and not gradient.is_cuda:  # where vector_norm adds up one by one: slowly, and rounds more
            return torch.abs(gradient, out=spare).sum((-2, -1))
        norm: Tensor = torch.linalg.vector_norm(gradient, int(self.norm[1]), dim=(-2, -1))
        return norm

    def combined(self, norms: list[Tensor]) -> Tensor:
        """(N, H) of all rows."""
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), int(self.norm[1]), dim=0)
        return norm


@dataclass(frozen=True)
class GMARRule:
    r"""Gradient-driven multi-head attention rollout (Jo, Jang and Park, ICIP 2025).

    With :math:`w = s / \sum_h s_h` of :class:`HeadImportance`

    .. math:: r \leftarrow r \cdot \frac{\sum_h w_h A_h + \alpha I}{1 + \alpha}

    The weights are known only after the last block, so each head's row :math:`r A_h` is summed apart.
    """

    norm: str = "l1"
    residual: float = 1.0
    layerwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_residual(self.residual)

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        importance, rows = by_head(layer, partial(self._of_heads, relevance))
        fused = fuse_rows(rows, head_weights(importance))
        return Step((fused + self.residual * relevance) / (1 + self.residual), importance)

    def _of_heads(self, relevance: Tensor, heads: Blocks) -> tuple[Tensor, Tensor]:
        norm, norms, rows = HeadImportance(self.norm), [], []
        for block in heads:
            norms.append(norm.norm_of(block.gradient, block.spare))
            rows.append(head_rows(relevance, block, block.attention))
        return norm.combined(norms), sum_up(rows)


@dataclass(frozen=True)
class GradientRolloutRule:
    r"""Generic attention explainability (Chefer, Gur and Wolf, ICCV 2021, eq. 5 and 6).

    .. math:: r \leftarrow \alpha r + r \cdot \sum_h w_h (A_h \odot G_h)^+

    With w = 1/H, or GMAR's weights where ``head_fusion`` is "gmar".
    """

    head_fusion: str = "mean"
    norm: str = "l1"
    residual: float = 1.0
    layerwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("head_fusion", self.head_fusion, GRADIENT_FUSIONS)
        check_choice("norm", self.norm, NORMS)
        check_residual(self.residual)

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        if self.head_fusion == "mean":
            return Step(self.residual * relevance + mean_row(relevance, layer, positive))
        importance, rows = by_head(layer, partial(self._of_heads, relevance))
        return Step(self.residual * relevance + fuse_rows(rows, head_weights(importance)), importance)

    def _of_heads(self, relevance: Tensor, heads: Blocks) -> tuple[Tensor, Tensor]:
        norm, norms, rows = HeadImportance(self.norm), [], []
        for block in heads:
            norms.append(norm.norm_of(block.gradient, block.spare))
            rows.append(head_rows(relevance, block, positive(block)))
        return norm.combined(norms), sum_up(rows)


@dataclass(frozen=True)
class GMARPlusPlusRule:
    r"""GMAR++ (Joita and Ivanovska, 2025): relevance follows the attention that the gradient supports.

    .. math::
        s_h = \sum G_h^+, \qquad w = s / \sum_h s_h, \qquad
        r \leftarrow r \cdot \operatorname{rownorm}\Bigl(\sum_h w_h A_h \odot G_h^+ + \alpha I\Bigr)
    """

    residual: float = 1.0
    layerwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_residual(self.residual)

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        importance = sum_up([positive_gradient(block).sum((-2, -1)) for block in layer])  # (N, H)
        weights = head_weights(importance)
        fused = ((block.rows, fuse(positive(block), weights)) for block in layer)
        return Step(normalised_row(relevance, fused, self.residual), importance)


@dataclass(frozen=True)
class GradSAMRule:
    r"""Grad-SAM (Barkan et al., CIKM 2021): the mean of :math:`A \odot G^+` over layers, heads and query rows."""

    layerwise: ClassVar[bool] = True

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return Step(relevance + mean_row(evenly(relevance), layer, positive))


@dataclass(frozen=True)
class EvidenceRule:
    r"""What each token gives to others, for the target or against it, added up over the layers.

    .. math:: r_j \leftarrow r_j + \sum_h \sum_i (A_h \odot G_h)_{ij}

    :math:`(A_h \odot G_h)_{ij}` is the share of token j's value in the output of head h at i, times that output's
    gradient: over j they add up to the output times its gradient.
    """

    layerwise: ClassVar[bool] = True

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return Step(relevance + sum_up([product(block).sum((1, 2)) for block in layer]))


@dataclass(frozen=True)
class LeGradRule:
    r"""LeGrad (Bousselham et al., ICCV 2025): the mean of :math:`G^+` over layers, heads and query rows.

    G is the gradient of the logit that the classifier gives to that layer's own output.
    """

    layerwise: ClassVar[bool] = True

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return Step(relevance + mean_row(evenly(relevance), layer, positive_gradient))


@dataclass(frozen=True)
class RolloutSweep:
    r"""Attention rollout (Abnar and Zuidema, ACL 2020), over all layers at once.

    With :math:`\bar A_l` the mean of the heads, weighted by their importance where there is one, and
    :math:`\tilde A_l = \operatorname{rownorm}(\bar A_l + \alpha I)`, for a start row e:

    - recursion "rollout": :math:`r = e \tilde A_{L-1} \cdots \tilde A_0`
    - "forward": :math:`r = e \tilde A_0 \cdots \tilde A_{L-1}`
    - "additive": :math:`r \leftarrow r \bar A_l + \alpha e` for l = 0, …, L-1, begun with r = e
    """

    residual: float = 1.0
    recursion: str = "rollout"
    head_fusion: str = "mean"

    def __post_init__(self) -> None:
        check_residual(self.residual)
        check_choice("recursion", self.recursion, RECURSIONS)
        check_choice("head_fusion", self.head_fusion, FUSIONS)

    def __call__(self, relevance: Tensor, layers: Sequence[Blocks], importance: Importance | None = None) -> Tensor:
        start = relevance
        order = range(len(layers))
        layers[-1 if self.recursion == "rollout" else 0].keep_first(leading(start != 0))
        for index in reversed(order) if self.recursion == "rollout" else order:
            weights = None if importance is None else head_weights(importance[index])
            fused = self._fused(layers[index], weights)
            if self.recursion == "additive":
                relevance = sum_up([row_times(relevance, *block) for block in fused]) + self.residual * start
            else:
                relevance = normalised_row(relevance, fused, self.residual)
        return relevance

    def _fused(self, layer: Blocks, weights: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Rows of Ā with their places."""
        return ((block.rows, self._fuse(block.attention, weights)) for block in layer)

    def _fuse(self, attention: Tensor, weights: Tensor | None) -> Tensor:
        """(N, H, R, T) → (N, R, T)"""
        if weights is not None:
            return fuse(attention, weights)
        return FUSIONS[self.head_fusion](attention, 1)
