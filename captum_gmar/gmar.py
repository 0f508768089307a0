"""Gradient-driven multi-head attention rollout."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar._base import AttentionAttribution, pixel_values
from captum_gmar._captum import TargetType
from captum_gmar.attention import Explanation
from captum_gmar.rules import GMAR, head_weights


class GMARAttribution(AttentionAttribution):
    r"""
    Gradient-driven multi-head attention rollout (GMAR): attention rollout in which every head counts by how much the
    target's gradient says it matters.

    With attention :math:`A_{l,h}` of layer l and head h, and :math:`G_{l,h}` the gradient of the target's logit with
    respect to it:

    .. math::
        s_{l,h} = \|G_{l,h}\|, \qquad w_{l,h} = s_{l,h} / \sum_h s_{l,h}, \qquad
        \tilde A_l = \frac{\sum_h w_{l,h} A_{l,h} + \alpha I}{1 + \alpha}, \qquad
        R = \tilde A_{L-1} \cdots \tilde A_0

    and the relevance of patch p is R[CLS, p]. It costs one forward and one backward pass, and no T×T matrix is kept.

    What it does not mean: the gradient enters through the head weights only, which are positive and one number per
    head and layer. The map therefore says little about *which* class the patches speak for, nothing about evidence
    against it, and its values are shares of attention, not of the logit.

    Jo, Jang and Park, "GMAR: Gradient-Driven Multi-Head Attention Rollout for Vision Transformer Interpretability",
    ICIP 2025, https://arxiv.org/abs/2504.19414. The order of the product is Abnar and Zuidema's,
    https://arxiv.org/abs/2005.00928, because the paper leaves it open.

    Args:
        model: see :class:`~captum_gmar._base.AttentionAttribution`.
        norm: of the gradient, for head importance: "l1" or "l2".
        residual: :math:`\alpha`, the weight of the identity beside the attention; zero or more.
        forward_func: what is explained, if not the model's logits.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if ``norm`` or ``residual`` is none of these.

    Where all gradients of a layer are zero, its heads weigh the same, as in attention rollout, and a warning says so.

    Example::

        >>> import torch
        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> from captum_gmar import GMARAttribution
        >>> config = ViTConfig(image_size=32, patch_size=8, hidden_size=16, num_attention_heads=2,
        ...                    num_hidden_layers=2, intermediate_size=32, num_labels=10)
        >>> model = ViTForImageClassification(config).eval()
        >>> inputs = torch.randn(5, 3, 32, 32)
        >>> gmar = GMARAttribution(model)
        >>> gmar.attribute(inputs, target=3).shape
        torch.Size([5, 3, 32, 32])
        >>> gmar.relevance(inputs, target=[0, 1, 2, 3, 4]).shape
        torch.Size([5, 4, 4])
        >>> gmar.head_importance(inputs, target=3).sum(-1).allclose(torch.ones(5, 2))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "l1",
        residual: float = 1.0,
        forward_func: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(model, forward_func)
        self.rule = GMAR(norm, residual)

    @classmethod
    def get_name(cls) -> str:
        return "GMAR"

    def head_importance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """
        How much each head matters for the target: the norm of its gradient, as a share of its layer.

        Takes what :meth:`attribute` takes and raises what it raises.

        Returns:
            Tensor (N, L, H), first layer first, each layer summing to 1. Comparable between the heads of a layer, not
            between layers.
        """
        explanations = self._explain(pixel_values(inputs), target, additional_forward_args, internal_batch_size)
        return torch.cat([head_weights(explanation.importance) for explanation in explanations])

    def _explain(self, *args: Any) -> list[Explanation]:
        explanations = super()._explain(*args)
        if any((explanation.importance.sum(-1) == 0).any() for explanation in explanations):
            warnings.warn(
                "All gradients of an attention layer are zero for at least one example. Its heads weigh the same "
                "there, as in attention rollout.",
                stacklevel=3,
            )
        return explanations
