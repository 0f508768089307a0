"""Formulas of the methods that read attention layers: every rule reads like its formula and knows no model.

Letters in shapes: N examples, L layers, H heads, T tokens, R query rows of a block. In formulas: r the row of
relevance, which begins at the start tokens, often CLS; w the weights of the heads, which sum to 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_gmar.engine.kernels.reduction import (
    Blocks,
    HeadSums,
    Matrix,
    Reduction,
    count_leading,
    head_norms,
    positive_product,
    sum_up,
)
from captum_gmar.engine.rule import (
    FuseHeads,
    HeadRule,
    HeadSweep,
    Importance,
    Step,
    add_residual,
    check_choice,
    check_residual,
    fuse,
    fuse_rows,
    head_weights,
    normalised_row,
    row_shares,
    row_times,
    uniform_relevance,
)

NORMS = ("l1", "l2")
RECURSIONS = ("rollout", "forward", "additive")
FUSIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}
GRADIENT_FUSIONS = ("mean", "gmar")


@dataclass(frozen=True)
class HeadImportance(HeadRule):
    r"""GMAR's head importance :math:`s_h = \|G_h\|`, the entrywise L1 or L2 norm; relevance stays where it is."""

    norm: str = "l1"
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)

    def reduction(self, relevance: Tensor) -> Reduction:
        """Read the norm of each head."""
        return Reduction(norm=self.norm)

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Leave relevance as it was."""
        return Step(relevance, heads.norms)


@dataclass(frozen=True)
class GMARRule(HeadRule):
    r"""Gradient-driven multi-head attention rollout (Jo, Jang and Park, ICIP 2025).

    With :math:`w = s / \sum_h s_h` of :class:`HeadImportance`

    .. math:: r \leftarrow r \cdot \frac{\sum_h w_h A_h + \alpha I}{1 + \alpha}

    Each head has its row :math:`r A_h` read apart, as the weights are known only when all of the layer was read.
    """

    norm: str = "l1"
    residual: float = 1.0
    layerwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_residual(self.residual)

    def reduction(self, relevance: Tensor) -> Reduction:
        """Read each head's norm and its row of attention."""
        return Reduction(relevance, "attention", self.norm)

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Add the weighted heads' rows and the residual."""
        fused = fuse_rows(heads.rows, head_weights(heads.norms))
        return Step(add_residual(fused, relevance, self.residual), heads.norms)


@dataclass(frozen=True)
class GradientRolloutRule(HeadRule):
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

    def reduction(self, relevance: Tensor) -> Reduction:
        """Read each head's row, and its norm where that weighs."""
        return Reduction(relevance, "positive", None if self.head_fusion == "mean" else self.norm)

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Add the heads' rows and the residual."""
        if self.head_fusion == "mean":
            return Step(torch.add(heads.rows.mean(1), relevance, alpha=self.residual))
        return Step(fuse_rows(heads.rows, head_weights(heads.norms), relevance, self.residual), heads.norms)


@dataclass(frozen=True)
class GMARPlusPlusRule(HeadRule):
    r"""GMAR++ (Joita and Ivanovska, 2025): relevance follows the attention that the gradient supports.

    .. math::
        s_h = \sum G_h^+, \qquad w = s / \sum_h s_h, \qquad
        r \leftarrow r \cdot \operatorname{rownorm}\Bigl(\sum_h w_h A_h \odot G_h^+ + \alpha I\Bigr)
    """

    residual: float = 1.0
    layerwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_residual(self.residual)

    def reduction(self, relevance: Tensor) -> Reduction:
        """Read each head's importance, and the sums of its rows."""
        return Reduction(norm="positive", totals="positive")

    def take(self, relevance: Tensor, read: Callable[[Reduction], HeadSums]) -> Step:
        """Read a layer twice: each row's divisor is known only when the heads' weights are."""
        _, importance, totals = read(self.reduction(relevance))
        weights = head_weights(importance)
        shares = row_shares(relevance, fuse_rows(totals, weights), self.residual)
        rows = read(Reduction(shares, "positive")).rows
        return Step(fuse_rows(rows, weights, shares, self.residual), importance)

    def take_fused(self, relevance: Tensor, read: Callable[[Reduction], HeadSums], fuse_heads: FuseHeads) -> Step:
        """Read the heads' importance, then the rows of all heads together."""
        importance = read(Reduction(norm="positive")).norms
        parts = fuse_heads(head_weights(importance))
        below = [normalised_row(relevance[examples], fused, self.residual) for examples, fused in parts]
        return Step(torch.cat(below), importance)

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:  # the same, in less time over blocks
        importance = sum_up([head_norms("positive", block.gradient, block.spare) for block in layer])  # (N, H)
        weights = head_weights(importance)
        fused = ((block.rows, fuse(positive_product(block), weights)) for block in layer)
        return Step(normalised_row(relevance, fused, self.residual), importance)


@dataclass(frozen=True)
class GradSAMRule(HeadRule):
    r"""Grad-SAM (Barkan et al., CIKM 2021): the mean of :math:`A \odot G^+` over layers, heads and query rows."""

    layerwise: ClassVar[bool] = True
    matrix: ClassVar[Matrix] = "positive"

    def reduction(self, relevance: Tensor) -> Reduction:
        """Read every query row with the same weight."""
        return Reduction(uniform_relevance(relevance), self.matrix)

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Add the layer to those above."""
        return Step(relevance + heads.rows.mean(1))


@dataclass(frozen=True)
class EvidenceRule(HeadRule):
    r"""The evidence that each token gives to others, for the target or against it, summed over the layers.

    .. math:: r_j \leftarrow r_j + \sum_h \sum_i (A_h \odot G_h)_{ij}

    :math:`(A_h \odot G_h)_{ij}` is the share of token j's value in the output of head h at i, times that output's
    gradient: over j they add up to the output times its gradient.
    """

    layerwise: ClassVar[bool] = True

    def reduction(self, relevance: Tensor) -> Reduction:
        """Read the sum over query rows."""
        return Reduction(matrix="product")

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Add the layer to those above."""
        return Step(relevance + heads.rows.sum(1))


@dataclass(frozen=True)
class LeGradRule(GradSAMRule):
    r"""LeGrad (Bousselham et al., ICCV 2025): the mean of :math:`G^+` over layers, heads and query rows.

    G is the gradient of the logit that the classifier gives to that layer's own output.
    """

    matrix: ClassVar[Matrix] = "positive gradient"


@dataclass(frozen=True)
class RolloutSweep(HeadSweep):
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
        for place, index in enumerate(self._order(len(layers))):
            layer, weights = layers[index], None if importance is None else head_weights(importance[index])
            if place == 0 and start.device.type == "cpu":  # another device would have to be waited for
                layer.keep_first(count_leading(start != 0))
            fused = ((block.rows, self._fuse(block.attention, weights)) for block in layer)
            if self.recursion == "additive":
                relevance = sum_up([row_times(relevance, *block) for block in fused]) + self.residual * start
            else:
                relevance = normalised_row(relevance, fused, self.residual)
        return relevance

    @property
    def goes_down(self) -> bool:
        """The order: last layer first, with nothing of the start row later."""
        return self.recursion == "rollout"

    def is_linear(self, importance: Importance | None) -> bool:
        """Return whether the heads' mean is taken, weighted or not."""
        return importance is not None or self.head_fusion == "mean"

    def take(
        self, relevance: Tensor, layers: Sequence[Callable[[Reduction], HeadSums]], importance: Importance | None = None
    ) -> Tensor:
        """Sweep layers that answer reductions: rows of attention sum to 1, so there is nothing to normalise."""
        start = relevance
        for index in self._order(len(layers)):
            rows = layers[index](Reduction(relevance, "attention")).rows
            fused = rows.mean(1) if importance is None else fuse_rows(rows, head_weights(importance[index]))
            if self.recursion == "additive":
                relevance = torch.add(fused, start, alpha=self.residual)
            else:
                relevance = add_residual(fused, relevance, self.residual)
        return relevance

    def _order(self, layers: int) -> range:
        return range(layers)[:: -1 if self.recursion == "rollout" else 1]

    def _fuse(self, attention: Tensor, weights: Tensor | None) -> Tensor:
        """Return rows of Ā (N, R, T) from all heads' (N, H, R, T)."""
        return FUSIONS[self.head_fusion](attention, 1) if weights is None else fuse(attention, weights)
