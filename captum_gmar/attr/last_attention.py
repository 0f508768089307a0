"""Methods that read what enters or leaves the last layer's attention, and its gradient."""

from collections.abc import Callable
from typing import Any

from torch import nn

from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.attr.token_rules import CDAMRule, GradECLIPRule


class CDAM(TokenAttribution):
    r"""Class-discriminative attention map: what enters the last layer's attention, times its gradient,

    .. math:: R_j = \sum_c T_{j,c} \, \frac{\partial y}{\partial T_{j,c}}

    where :math:`T` are the tokens after the norm before the last attention. Where only a CLS token is read, the
    gradient holds the attention that it pays to each token.

    Limitations: it sees the last layer only, where each token has been mixed from all patches. Signed, in
    units of the logit.

    Brocki, Binda and Chung, "Class-Discriminative Attention Maps for Vision Transformers", 2023,
    https://arxiv.org/abs/2312.02364; not its averages over several passes, Smooth and Integrated CDAM.

    Args:
        model, forward_func: as of :class:`~captum_gmar.FullGradPlus`.
    """

    name = "CDAM"
    rule = CDAMRule()

    def __init__(self, model: nn.Module, *, forward_func: Callable[..., Any] | None = None) -> None:
        super().__init__(model, forward_func=forward_func)


class GradECLIP(TokenAttribution):
    r"""Grad-ECLIP: the values of the last layer's attention, weighted by the gradient of what the attention gives, and
    by a loosened attention, the similarity of query and key in place of its sparse softmax,

    .. math::
        R_j = \Bigl(\sum_i \lambda_{ij} \sum_c \frac{\partial y}{\partial o_{i,c}} v_{j,c}\Bigr)^+, \qquad
        \lambda_{ij} = \frac{s_{ij} - \min_k s_{ik}}{\max_k s_{ik} - \min_k s_{ik}}, \qquad
        s_{ij} = \frac{q_i \cdot k_j}{\|q_i\| \|k_j\|}

    over patches j and k and the heads' channels c together. Where the classifier reads the CLS token alone, as in the
    paper, no other query i has a gradient; where it pools patches, all that it pools count.

    Limitations: it sees the last layer only, and evidence against the class is cut off. The released code
    computes the last attention anew, with one head, and so explains another model than the one that was trained; here
    the model stays as it is. Zero or more, in units of the logit.

    Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP", ICML 2024, and "Grad-ECLIP",
    https://arxiv.org/abs/2502.18816.

    Args:
        model, forward_func: as of :class:`~captum_gmar.FullGradPlus`; for example, the similarity of image and text.
    """

    name = "Grad-ECLIP"
    rule = GradECLIPRule()

    def __init__(self, model: nn.Module, *, forward_func: Callable[..., Any] | None = None) -> None:
        super().__init__(model, forward_func=forward_func)
