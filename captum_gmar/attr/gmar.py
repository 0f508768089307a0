"""Gradient-driven multi-head attention rollout."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution, _head_shares
from captum_gmar.attr.rules import GMARRule, HeadImportance, RolloutSweep
from captum_gmar.engine._captum import TargetType
from captum_gmar.engine.models.readout_tokens import Start
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.request import Request, pixel_values


class GMARAttribution(AttentionAttribution):
    r"""Gradient-driven multi-head attention rollout (GMAR): attention rollout with heads weighted by the target's
    gradient.

    With attention :math:`A_{l,h}` of layer l and head h, and :math:`G_{l,h}` the gradient of the target's logit with
    respect to it:

    .. math::
        s_{l,h} = \|G_{l,h}\|, \qquad w_{l,h} = s_{l,h} / \sum_h s_{l,h}, \qquad
        \tilde A_l = \frac{\sum_h w_{l,h} A_{l,h} + \alpha I}{1 + \alpha}, \qquad
        R = \tilde A_{L-1} \cdots \tilde A_0

    and the relevance of patch p is R[CLS, p]. It costs one forward and one backward pass, and no T×T matrix is kept.

    Limitations: the gradient enters through the head weights only, one positive number per head and layer. In a layer
    without gradient they are equal, and a warning says so. The map therefore hardly depends on the class and shows no
    evidence against it. Its values are shares of attention, not of the logit.

    Jo, Jang and Park, "GMAR: Gradient-Driven Multi-Head Attention Rollout for Vision Transformer Interpretability",
    ICIP 2025, https://arxiv.org/abs/2504.19414.

    **There are three recursions**, because the paper leaves the step open:

    - "rollout", the default: the product above, in the order of Abnar and Zuidema,
      https://arxiv.org/abs/2005.00928, in which information flows from layer 0 up.
    - "forward": :math:`R = \tilde A_0 \cdots \tilde A_{L-1}`, each new layer multiplied on the right, as in
      reimplementations from the paper.
    - "additive": :math:`R \leftarrow R \bar A_l + \alpha I` from the first layer to the last, not normalised, with
      :math:`\bar A_l = \sum_h w_{l,h} A_{l,h}`: the form of the authors of GMAR++ and of the released code (whose map
      still differs, see :class:`~captum_gmar.attr.published.PublishedGMAR`). Relevance may exceed 1.

    On a DeiT-tiny and 300 ImageNet photos, with patches blurred, insertion minus deletion was 0.182 for the first,
    0.265 for the second and 0.245 for the third, and 0.187, 0.264 and 0.244 for rollout without head weights: the
    tables of ``docs/results/README.md``.

    The last two need all head weights before the first layer, so they read queries and keys once more.
    :class:`~captum_gmar.AttentionRollout` has the same options, to separate the effect of the recursion from that of
    the head weights.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`.
        norm: norm of the gradient for head importance, "l1" or "l2".
        residual: :math:`\alpha`, weight of the identity; zero or more.
        recursion: "rollout", "forward" or "additive".
        start_layer: first layer to include, 0 for all; negative numbers count from the end. The backward pass ends
            there.
        tokens: where relevance begins, by default at the tokens that the classifier reads: "cls", "distillation",
            "patches" (their mean), a patch (row, column), or a list of these in equal parts. Relevance from a patch
            shows how much each other patch contributed to it.
        forward_func: function to explain in place of the model's logits.

    Example::

        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model, load_scene
        >>> gmar, inputs = GMARAttribution(load_model()), load_scene(3).pixel_values
        >>> gmar.attribute(inputs, target=3).shape, gmar.relevance(inputs, target=[3]).shape
        (torch.Size([1, 3, 112, 112]), torch.Size([1, 14, 14]))
        >>> gmar.head_importance(inputs, target=3).shape
        torch.Size([1, 6, 4])
    """

    name = "GMAR"
    weighs_heads = True

    def __init__(
        self,
        model: nn.Module,
        norm: str = "l1",
        *,
        residual: float = 1.0,
        recursion: str = "rollout",
        start_layer: int = 0,
        tokens: Start | None = None,
        forward_func: Callable[..., Any] | None = None,
    ) -> None:
        rule, sweep = HeadImportance(norm), RolloutSweep(residual, recursion)
        # Down the layers, the rule can roll out as well. Up the layers, all head weights are needed before the first.
        plan = Plan(GMARRule(norm, residual)) if recursion == "rollout" else Plan(rule, sweep)
        super().__init__(model, replace(plan, start_layer=start_layer, tokens=tokens), forward_func)
        self.norm = norm

    def head_importance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> Tensor:
        """Compute each head's importance for the target: the norm of its gradient, as a share of its layer.

        Arguments and errors are those of :meth:`attribute`.

        Returns:
            Tensor (N, L, H), first layer first; each layer sums to 1. Values compare heads of one layer, not layers.
        """
        request = Request([target], additional_forward_args, internal_batch_size, contrast)
        plan = replace(self.plan, rule=HeadImportance(self.norm), sweep=None, start_layer=0)
        (batches,) = self._explain(pixel_values(inputs), request, plan)
        return _head_shares(batches)
