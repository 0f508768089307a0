"""Methods that multiply attention by the target's positive gradient."""

from collections.abc import Callable
from typing import Any

from torch import nn

from captum_gmar.attr import rules
from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.engine.models.readout_tokens import Start
from captum_gmar.engine.plan import Plan


class GradientRollout(AttentionAttribution):
    r"""Gradient rollout, or generic attention explainability: the rollout of attention times its positive gradient, not
    normalised.

    .. math:: R \leftarrow R + \bar A_l R, \qquad \bar A_l = \frac{1}{H} \sum_h (A_{l,h} \odot G_{l,h})^+

    for l = 0, …, L-1, starting with R = I. Relevance of patch p is R[CLS, p]. With ``head_fusion="gmar"``, GMAR's head
    weights replace 1/H.

    Limitations: every layer cuts off evidence against the class. Values are zero or more and scale with the target's
    gradient, so compare them within one image only.

    Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", ICCV 2021, eq. 5 and 6, https://arxiv.org/abs/2103.15679.

    Args:
        model, start_layer, tokens, forward_func: those of :class:`~captum_gmar.GMARAttribution`.
        head_fusion: "mean", or "gmar": weighted by each head's importance.
        norm: norm of the gradient for the head importance of "gmar", "l1" or "l2".
        residual: weight of R in the first formula; zero or more.

    Example::

        >>> from captum_gmar import GradientRollout
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scene = load_scene(3, objects=2)
        >>> rollout = GradientRollout(load_model(), head_fusion="gmar")
        >>> rollout.relevance(scene.pixel_values, target=scene.labels[0], contrast=scene.labels[1]).shape
        torch.Size([1, 14, 14])
    """

    name = "Gradient rollout"

    def __init__(
        self,
        model: nn.Module,
        *,
        head_fusion: str = "mean",
        norm: str = "l1",
        residual: float = 1.0,
        start_layer: int = 0,
        tokens: Start | None = None,
        forward_func: Callable[..., Any] | None = None,
    ) -> None:
        rule = rules.GradientRolloutRule(head_fusion, norm, residual)
        super().__init__(model, Plan(rule, start_layer=start_layer, tokens=tokens), forward_func)


class AttentionGradCAM(AttentionAttribution):
    r"""Attention Grad-CAM: the last layer's attention times its positive gradient, from the token that the classifier
    reads, :math:`\frac{1}{H} \sum_h (A_{L-1,h} \odot G_{L-1,h})^+[\mathrm{CLS}, p]`.

    Attention and gradient are multiplied element by element. Other comparisons average the gradient first, as Grad-CAM
    does over a feature map, or use tokens in place of attention: "layer-grad-cam" of :func:`~captum_gmar.list_methods`
    does the latter.

    Limitations: the map uses the last layer only, where each token holds information of all patches. Values are zero or
    more and scale with the target's gradient.

    Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391; on attention as in Chefer, Gur and Wolf,
    CVPR 2021, https://arxiv.org/abs/2012.09838.

    Args:
        model, tokens, forward_func: those of :class:`~captum_gmar.GMARAttribution`.
    """

    name = "Attention Grad-CAM"

    def __init__(
        self, model: nn.Module, *, tokens: Start | None = None, forward_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(
            model, Plan(rules.GradientRolloutRule(residual=0), start_layer=-1, tokens=tokens), forward_func
        )


class GMARPlusPlus(AttentionAttribution):
    r"""GMAR++: a rollout of attention times positive gradient that conserves relevance. Heads with more positive
    gradient have more weight.

    .. math::
        s_{l,h} = \sum G_{l,h}^+, \qquad w_{l,h} = s_{l,h} / \sum_h s_{l,h}, \qquad
        R = \tilde A_{L-1} \cdots \tilde A_0, \qquad
        \tilde A_l = \operatorname{rownorm}\Bigl(\sum_h w_{l,h} A_{l,h} \odot G_{l,h}^+ + \alpha I\Bigr)

    and relevance of patch p is R[CLS, p].

    Limitations: evidence against the class is cut off. The balance between attention and residual depends on the scale
    of the gradient, and so of the logits. Values are in [0, 1] and sum to at most 1.

    Joita and Ivanovska, 2025.

    Args:
        model, residual, start_layer, tokens, forward_func: those of :class:`~captum_gmar.GMARAttribution`.
    """

    name = "GMAR++"

    def __init__(
        self,
        model: nn.Module,
        *,
        residual: float = 1.0,
        start_layer: int = 0,
        tokens: Start | None = None,
        forward_func: Callable[..., Any] | None = None,
    ) -> None:
        plan = Plan(rules.GMARPlusPlusRule(residual), start_layer=start_layer, tokens=tokens)
        super().__init__(model, plan, forward_func)
