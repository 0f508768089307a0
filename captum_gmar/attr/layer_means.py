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

    Limitations: it follows no path through the layers, so a patch counts where its token is attended to, by
    whichever token; and evidence against the class is cut off. Zero or more, in the scale of the target's gradient.

    Barkan et al., "Grad-SAM: Explaining Transformers via Gradient Self-Attention Maps", CIKM 2021,
    https://arxiv.org/abs/2204.11073.

    Args:
        model, start_layer, forward_func: as of :class:`~captum_gmar.GMARAttribution`.
    """

    name = "Grad-SAM"

    def __init__(
        self, model: nn.Module, *, start_layer: int = 0, forward_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(model, Plan(rules.GradSAMRule(), start_layer=start_layer), forward_func)


class LeGrad(AttentionAttribution):
    r"""LeGrad: how sensitive each layer's own prediction is to its attention, as a mean over layers, heads and query
    rows.

    .. math::
        E = \frac{1}{L} \sum_l \frac{1}{H T} \sum_h \sum_i
        \Bigl(\frac{\partial y_l}{\partial A_{l,h}}[i, p]\Bigr)^+

    where :math:`y_l` is the target's logit that the rest of the model, without the layers after l, gives to what comes
    out of layer l. All layers take one forward and one backward pass together.

    Limitations: the attention itself does not enter, only the gradient with respect to it, so a patch may
    count that is hardly attended to; and layers that the classifier cannot read yet count like the others. Zero or
    more, in the scale of the target's gradient. The paper scales each map to [0, 1], and takes the gradient of a
    pooling attention where a model has one; here that is the gradient of each layer's own attention, as everywhere.

    Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity",
    ICCV 2025, https://arxiv.org/abs/2404.03214.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        start_layer: the first layer that counts; negative ones count from the end.
        forward_func: what is explained, if not the model's logits. It handles each example by itself, any number of
            them.
    """

    name = "LeGrad"

    def __init__(
        self, model: nn.Module, *, start_layer: int = 0, forward_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(model, Plan(rules.LeGradRule(), start_layer=start_layer, separate=True), forward_func)
