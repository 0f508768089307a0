"""Token evidence, the recommended method."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from captum_gmar.attr._base import TargetMaps
from captum_gmar.attr.evidence import AttentionEvidence, takes_sequences, takes_volumes
from captum_gmar.attr.scores import plan_of_log_odds
from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.attr.token_rules import TokenEvidenceCandidates, TokenEvidenceRule
from captum_gmar.engine._captum import log_usage
from captum_gmar.engine.models.layers import has_several_grids
from captum_gmar.engine.models.patch_grid import Logits, frame_count
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import Inputs, Request


class TokenEvidence(TokenAttribution):
    r"""Token evidence: each patch's signed contributions to the target's log-odds, summed in one LibraGrad pass.

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} h_{l,j} \cdot \frac{\tilde\partial o}{\tilde\partial h_{l,j}}
        \;+\; \sum_{l=0}^{L-1} \sum_h \sum_{i \in S} A_{l,h}[i, j] \; v_{l,h,j} \cdot
        \frac{\tilde\partial o}{\tilde\partial z_{l,h,i}}
        \;+\; h_{L,j} \cdot \frac{\tilde\partial o}{\tilde\partial h_{L,j}}, \qquad r_j = R_j \Big/ \sum_k |R_k|

    where :math:`o = \log \frac{p}{1 - p}` are the target's log-odds, :math:`h_l` the tokens that enter layer l and
    :math:`h_L` those that leave the last, :math:`z_l = A_l v_l` the attention output, and S the prefix tokens (CLS,
    registers). The gradient is LibraGrad's, see :mod:`captum_gmar.engine.hidden_states.libragrad`: attention,
    denominators of norms and gates are constant, and products halved.

    The pass conserves relevance from layer to layer, except for biases. So the tokens at each depth decompose the same
    log-odds, and the first part is the mean of these L decompositions. Relevance that a prefix token has read is no
    longer on a patch. The second part adds it: the sum over layers of what prefix tokens read from each token. The
    third part is what the classifier reads from each token. No constant is chosen.

    With ``contrast``, the method explains the difference of the two logits; for a multi-label ``config``, the logit.

    Limitations: attention is constant, so the map does not separate a patch that others attend to from one that holds
    evidence. A token of a later layer holds information of several patches, and its relevance counts at its own
    position. Values are signed; with those of prefix tokens, their magnitudes sum to 1.

    The first part is Libra FullGrad+ of the log-odds: Mehri et al., "LibraGrad", CVPR 2025,
    https://arxiv.org/abs/2411.16760. The second resembles :class:`~captum_gmar.attr.evidence.AttentionEvidence`, which
    has further references. ``docs/method.md`` has the derivation and results.

    Models without one patch grid, such as windowed and hierarchical ones, detectors with several towers, videos and
    sounds, have no tokens to follow from layer to layer. Their map is that of
    :class:`~captum_gmar.attr.evidence.AttentionEvidence`.

    With ``passes``, a map has a larger budget. The first pass then gives five maps: R, its second part, its first part,
    the first part over the upper half of the layers, and Libra AttCAT. Each further pass pays for three forward passes
    over the image without the patches that a map ranks first, or with these alone. They measure the map's gain: the
    output with the relevant patches minus the output with the others. A regression proposes further maps, which are
    measured too. The result is the map with the largest gain, scaled to the sum of R, so it is never behind R in these
    measurements. ``docs/method.md`` has the formulas.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`.
        forward_func: function to explain in place of the model's logits. It runs the model once for one pass.
        passes: budget of each map. A backward pass counts as two forward passes. With 2 it buys nothing.

    Raises:
        TypeError: if ``model`` is not a ``torch.nn.Module``.
        ValueError: if ``passes`` is not an integer of 1 or more; when called with more than 1, if there is no single
            patch grid.
        RuntimeError: when called, if attention is not captured once in each layer over one patch grid, or the model has
            an unknown norm or gate; the message says how to register its rule.

    Example::

        >>> from captum_gmar import TokenEvidence
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scene = load_scene(3, objects=2)
        >>> relevance = TokenEvidence(load_model()).relevance(scene.pixel_values, target=scene.labels[0])
        >>> relevance.shape, bool(relevance.min() < 0 < relevance.max())
        (torch.Size([1, 14, 14]), True)
    """

    name = "Token evidence"
    rule = TokenEvidenceRule(balances=True)

    def __init__(self, model: nn.Module, *, forward_func: Callable[..., Any] | None = None, passes: int = 1) -> None:
        super().__init__(model, score="log-odds", forward_func=forward_func)
        self.budget = _checked(passes)

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Inputs, *arguments: Any, passes: int | None = None, **options: Any) -> Inputs:
        """Explain the target's log-odds of every example.

        Arguments and errors are those of :meth:`captum_gmar.GMARAttribution.attribute`; ``passes`` replaces the budget
        of the constructor.
        """
        attributions: Inputs = super(TokenEvidence, self._with_budget(passes)).attribute(inputs, *arguments, **options)
        return attributions

    def relevance(self, inputs: Any, *arguments: Any, passes: int | None = None, **options: Any) -> Tensor:
        """Compute the relevance (N, rows, columns) of every patch. Arguments are those of :meth:`attribute`."""
        return super(TokenEvidence, self._with_budget(passes)).relevance(inputs, *arguments, **options)

    def explain(self, inputs: Any, *arguments: Any, passes: int | None = None, **options: Any) -> TargetMaps:
        """Explain several targets of every example, in one forward pass. Each target has the whole budget.

        Arguments are those of :meth:`captum_gmar.GMARAttribution.explain`, and ``passes``.
        """
        return super(TokenEvidence, self._with_budget(passes)).explain(inputs, *arguments, **options)

    def _with_budget(self, passes: int | None) -> "TokenEvidence":
        method = copy(self)
        method.budget = self.budget if passes is None else _checked(passes)
        return method

    def _inputs(self, inputs: Tensor | tuple[Tensor, ...], *, takes_others: bool = False) -> Tensor:
        takes_others = bool(frame_count(self.model)) or takes_sequences(self.model) or takes_volumes(self.model)
        return super()._inputs(inputs, takes_others=takes_others)

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        if self.budget > 1:
            return self._spend_budget(plan, pixels, request)
        if not has_several_grids(self.model, pixels):
            return super()._explain_batch(plan, pixels, request)
        evidence = AttentionEvidence(self.model, forward_func=self.forward_func)
        return evidence._explain_batch(evidence.plan, pixels, request)

    def _spend_budget(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        """Choose each target's map by forward passes over images of which patches are removed."""
        if has_several_grids(self.model, pixels):
            raise ValueError(f"passes must be 1 for a model without one patch grid, but got {self.budget}.")
        from captum_gmar.attr.removal_passes import choose_explanation  # which one pass does not need

        plan = plan_of_log_odds(replace(plan, token_rule=TokenEvidenceCandidates(balances=True)), self.model, request)
        explained = super()._explain_batch(plan, pixels, request)
        targets = request.targets_for(explained[0].logits, len(pixels))
        forward_func = Logits(self.forward_func)
        return [
            choose_explanation(candidates, self.budget, forward_func, plan.score, pixels, target, request)
            for candidates, target in zip(explained, targets, strict=True)
        ]


def _checked(passes: int) -> int:
    """Return the budget; raise a ValueError unless it is an integer of 1 or more."""
    from captum_gmar.metrics._inputs import check_count  # which no method loads otherwise

    check_count(passes, "passes")
    return int(passes)
