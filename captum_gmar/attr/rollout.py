"""Methods that read attention and no gradient."""

from collections.abc import Callable
from typing import Any

from torch import nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.rules import RolloutSweep
from captum_gmar.engine.models.readout_tokens import Start
from captum_gmar.engine.plan import Plan


class AttentionRollout(AttentionAttribution):
    r"""Attention rollout: the flow of patches through attention and skip connections, layer by layer, to the token that
    the classifier reads.

    With the heads' mean :math:`\bar A_l`, its rows normalised with the residual,
    :math:`\tilde A_l = (\bar A_l + \alpha I) / (1 + \alpha)`, relevance of patch p is R[CLS, p] of

    .. math:: R = \tilde A_{L-1} \cdots \tilde A_0

    It costs one forward pass without gradient, and no T×T matrix is kept. The target is accepted and ignored.

    Limitations: the map is the same for every class. It follows attention alone, not values or their effect on the
    class. Values are in [0, 1]; with those of prefix tokens, they sum to at most 1.

    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, https://arxiv.org/abs/2005.00928; for
    images, with ``head_fusion``, https://github.com/jacobgil/vit-explain.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its output may be anything.
        residual: :math:`\alpha`, weight of the identity; zero or more.
        recursion: "rollout" as above; "forward", :math:`R = \tilde A_0 \cdots \tilde A_{L-1}`; or "additive",
            :math:`R \leftarrow R \bar A_l + \alpha I` from the first layer to the last, which is not normalised. See
            :class:`~captum_gmar.GMARAttribution`.
        head_fusion: "mean" of the heads, or elementwise "max" or "min", normalised again.
        start_layer, tokens: those of :class:`~captum_gmar.GMARAttribution`.
        disk_offload: keep the layers' queries and keys in a temporary file, for large images on a CPU. Memory is then
            about that of a forward pass. The file is as large as they are: 170 MB for a ViT-B/16 at 768².
        forward_func: runs the model, if it takes more than calling it.

    Example::

        >>> import torch
        >>> from captum_gmar import AttentionRollout
        >>> from captum_gmar.demo import load_model, load_scene
        >>> relevance = AttentionRollout(load_model()).relevance(load_scene(3).pixel_values)
        >>> relevance.shape, bool(relevance.sum() < 1)
        (torch.Size([1, 14, 14]), True)
    """

    name = "Attention rollout"

    def __init__(
        self,
        model: nn.Module,
        *,
        residual: float = 1.0,
        recursion: str = "rollout",
        head_fusion: str = "mean",
        start_layer: int = 0,
        tokens: Start | None = None,
        disk_offload: bool = False,
        forward_func: Callable[..., Any] | None = None,
    ) -> None:
        sweep = RolloutSweep(residual, recursion, head_fusion)
        plan = Plan(sweep=sweep, start_layer=start_layer, tokens=tokens, disk_offload=disk_offload)
        super().__init__(model, plan, forward_func)


class RawAttention(AttentionAttribution):
    r"""Raw attention: the last layer's attention to each patch from the token that the classifier reads,
    :math:`\frac{1}{H} \sum_h A_{L-1,h}[\mathrm{CLS}, p]`.

    It costs one forward pass. The target is accepted and ignored.

    Limitations: the map is the same for every class, and each token of the last layer holds information of all patches.
    Values are in [0, 1] and sum to at most 1.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its output may be anything.
        head_fusion: "mean", "max" or "min" of the heads; the last two are normalised again.
        tokens: those whose attention counts, as in :class:`~captum_gmar.AttentionRollout`.
        forward_func: runs the model, if it takes more than calling it.
    """

    name = "Raw attention"

    def __init__(
        self,
        model: nn.Module,
        *,
        head_fusion: str = "mean",
        tokens: Start | None = None,
        forward_func: Callable[..., Any] | None = None,
    ) -> None:
        sweep = RolloutSweep(residual=0, head_fusion=head_fusion)
        super().__init__(model, Plan(sweep=sweep, start_layer=-1, tokens=tokens), forward_func)
