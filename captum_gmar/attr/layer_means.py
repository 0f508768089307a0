"""Methods that take the mean of a map of each layer."""

from collections.abc import Callable
from typing import Any

from torch import nn

from captum_gmar.attr import rules
from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.engine.plan import Plan


class GradSAM(AttentionAttribution):
    r"""Grad-SAM, gradient self-attention maps: the mean of :math:`A_{l,h} \odot G_{l,h}^+` over layers, heads and query
    rows.

    Limitations: the map follows no path through the layers: attention to a patch counts from any token. Evidence
    against the class is cut off. Values are zero or more and scale with the target's gradient.

    Barkan et al., "Grad-SAM: Explaining Transformers via Gradient Self-Attention Maps", CIKM 2021,
    https://arxiv.org/abs/2204.11073.

    Args:
        model, start_layer, forward_func: those of :class:`~captum_gmar.GMARAttribution`.
    """

    name = "Grad-SAM"

    def __init__(
        self, model: nn.Module, *, start_layer: int = 0, forward_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(model, Plan(rules.GradSAMRule(), start_layer=start_layer), forward_func)


class LeGrad(AttentionAttribution):
    r"""LeGrad: the sensitivity of each layer's own prediction to its attention, a mean over layers, heads and query
    rows.

    .. math::
        E = \frac{1}{L} \sum_l \frac{1}{H T} \sum_h \sum_i
        \Bigl(\frac{\partial y_l}{\partial A_{l,h}}[i, p]\Bigr)^+

    where :math:`y_l` is the target's logit if the final norm and the classifier follow layer l directly. One forward
    and one backward pass serve all layers.

    Limitations: only the gradient enters and not the attention, so a patch with hardly any attention may have much
    relevance. Early layers count like the others, although the classifier was not trained to read them. Values are zero
    or more and scale with the target's gradient. The paper scales each map to [0, 1] and uses the gradient of a pooling
    attention where a model has one; here each layer's own attention is used.

    Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity",
    ICCV 2025, https://arxiv.org/abs/2404.03214.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers must be in one ``nn.ModuleList`` or
            ``nn.Sequential``.
        start_layer: first layer to include; negative numbers count from the end.
        forward_func: function to explain in place of the model's logits. It must treat examples independently, in
            batches of any size.
    """

    name = "LeGrad"

    def __init__(
        self, model: nn.Module, *, start_layer: int = 0, forward_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(model, Plan(rules.LeGradRule(), start_layer=start_layer, separate=True), forward_func)
