"""Attention evidence: signed evidence of patches for and against a class, through the attention of all layers."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from torch import Tensor, nn

from captum_gmar.attr import rules
from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.scores import plan_of_log_odds, shares
from captum_gmar.engine.explain import Pass
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import Request


class AttentionEvidence(AttentionAttribution):
    r"""Attention evidence: each patch's signed contribution to the target's log-odds, through the attention of all
    layers.

    .. math::
        R_j = \sum_l \sum_h \sum_i (A_{l,h} \odot G_{l,h})_{ij}, \qquad r_j = R_j \Big/ \sum_k |R_k|, \qquad
        G_{l,h} = \frac{\partial o_l}{\partial A_{l,h}}

    where :math:`o_l = \log \frac{p_l}{1 - p_l}` are the target's log-odds if the final norm and the classifier follow
    layer l directly. One forward and one backward pass serve all layers.

    :math:`A_{ij} G_{ij}` is the value of token j, weighted by token i's attention to it, times the gradient at i. Over
    all tokens of a layer, these products sum to the attention output times its gradient, so nothing is lost or cut off.
    Relevance below zero is evidence against the target. The method explains log-odds rather than the logit, because a
    class is also likely if everything speaks against the others. With ``contrast``, it explains the difference of the
    two logits, the log of the odds between the two classes. No constant is chosen. ``docs/method.md`` has the
    derivation and results.

    Limitations: a patch counts where its token is attended to, but a token of a later layer holds information of
    several patches. The map does not say why a token is attended to, and leaves out what MLPs add. The classifier reads
    early layers, for which it was not trained.

    Classifier on intermediate layers: nostalgebraist, "interpreting GPT: the logit lens", 2020; as an attribution
    method, with positive gradients: LeGrad. Contributions of heads and image tokens to the residual stream: Gandelsman,
    Efros and Steinhardt, "Interpreting CLIP's Image Representation via Text-Based Decomposition", ICLR 2024,
    https://arxiv.org/abs/2310.05916.

    For models with attention on several grids, in windows, or over fewer keys than queries, relevance is on the finest
    grid of their values. Relevance of a coarser position is spread evenly over the positions that it covers:
    ``docs/other-models.md``.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Also a windowed or hierarchical one.
        start_layer: first layer to include; negative numbers count from the end.
        forward_func: function to explain in place of the model's logits. It must treat examples independently, in
            batches of any size, and return logits (N, classes) of competing classes. One number per example, outputs of
            more dimensions, and those of a multi-label ``config`` are explained as they are. For scores that do not
            compete, such as SigLIP's of several texts, return one column.

    Example::

        >>> from captum_gmar import AttentionEvidence
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scene = load_scene(3, objects=2)
        >>> evidence = AttentionEvidence(load_model())
        >>> relevance = evidence.relevance(scene.pixel_values, target=scene.labels[0])
        >>> relevance.shape, bool(relevance.min() < 0 < relevance.max())
        (torch.Size([1, 14, 14]), True)
    """

    name = "Attention evidence"
    passes = (Pass.ATTENTION, Pass.VALUES)

    def __init__(
        self, model: nn.Module, *, start_layer: int = 0, forward_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(model, Plan(rules.EvidenceRule(), start_layer=start_layer, separate=True), forward_func)

    def _inputs(self, inputs: Tensor | tuple[Tensor, ...], *, takes_others: bool = True) -> Tensor:
        first = inputs[0] if isinstance(inputs, tuple) and inputs else inputs
        is_flat = isinstance(first, Tensor) and first.dim() == 3  # one image without its batch is no spectrogram
        return super()._inputs(inputs, takes_others=takes_others and (not is_flat or takes_sequences(self.model)))

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        explanations = super()._explain_batch(plan_of_log_odds(plan, self.model, request), pixels, request)
        return [explanation._replace(relevance=shares(explanation.relevance)) for explanation in explanations]


def takes_sequences(model: nn.Module) -> bool:
    """Return whether the model's input is a sequence of frames, or of patches, in place of images."""
    if getattr(model, "main_input_name", "pixel_values") != "pixel_values":
        return True
    return "spatial_shapes" in signature(model.forward).parameters


def takes_volumes(model: nn.Module) -> bool:
    """Return whether the model convolves volumes or videos."""
    return any(isinstance(module, nn.Conv3d) for module in model.modules())
