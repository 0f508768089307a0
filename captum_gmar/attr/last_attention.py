"""Methods that read the input or output of the last layer's attention, and its gradient."""

from collections.abc import Callable
from typing import Any

from torch import nn

from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.attr.token_rules import CDAMRule, GradECLIPRule


class CDAM(TokenAttribution):
    r"""Class-discriminative attention map: the input of the last layer's attention, times its gradient,

    .. math:: R_j = \sum_c T_{j,c} \, \frac{\partial y}{\partial T_{j,c}}

    where :math:`T` are the tokens after the norm before the last attention. Where the classifier reads the CLS token
    alone, the gradient contains the CLS token's attention to each token.

    Limitations: the map uses the last layer only, where each token holds information of all patches. Values are signed,
    in units of the logit.

    Brocki, Binda and Chung, "Class-Discriminative Attention Maps for Vision Transformers", 2023,
    https://arxiv.org/abs/2312.02364; without its averages over several passes, Smooth and Integrated CDAM.

    Args:
        model, forward_func: those of :class:`~captum_gmar.FullGradPlus`.
    """

    name = "CDAM"
    rule = CDAMRule()

    def __init__(self, model: nn.Module, *, forward_func: Callable[..., Any] | None = None) -> None:
        super().__init__(model, forward_func=forward_func)


class GradECLIP(TokenAttribution):
    r"""Grad-ECLIP: the last layer's attention values, weighted by the gradient of the attention output and by the
    similarity of query and key, which replaces the sparse softmax,

    .. math::
        R_j = \Bigl(\sum_i \lambda_{ij} \sum_c \frac{\partial y}{\partial o_{i,c}} v_{j,c}\Bigr)^+, \qquad
        \lambda_{ij} = \frac{s_{ij} - \min_k s_{ik}}{\max_k s_{ik} - \min_k s_{ik}}, \qquad
        s_{ij} = \frac{q_i \cdot k_j}{\|q_i\| \|k_j\|}

    for patches j and k, with c over the channels of all heads. Where the classifier reads the CLS token alone, as in
    the paper, no other query i has a gradient; where it pools patches, each pooled patch is a query.

    Limitations: the map uses the last layer only, and evidence against the class is cut off. The released code
    recomputes the last attention with one head, which is another model than the trained one; here the model does not
    change. Values are zero or more, in units of the logit.

    Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP", ICML 2024, and "Grad-ECLIP",
    https://arxiv.org/abs/2502.18816.

    Args:
        model, forward_func: those of :class:`~captum_gmar.FullGradPlus`; for example, the similarity of image and text.
    """

    name = "Grad-ECLIP"
    rule = GradECLIPRule()

    def __init__(self, model: nn.Module, *, forward_func: Callable[..., Any] | None = None) -> None:
        super().__init__(model, forward_func=forward_func)
