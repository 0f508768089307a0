"""The library's own method: what patches say for the class and against it, with the sign kept to the end."""

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
    r"""Attention evidence: what every patch adds to the target's log-odds, or takes from them, through the attention of
    all layers.

    .. math::
        R_j = \sum_l \sum_h \sum_i (A_{l,h} \odot G_{l,h})_{ij}, \qquad r_j = R_j \Big/ \sum_k |R_k|, \qquad
        G_{l,h} = \frac{\partial o_l}{\partial A_{l,h}}

    where :math:`o_l = \log \frac{p_l}{1 - p_l}` are the log-odds of the target that the rest of the model, without the
    layers after l, gives to what comes out of layer l. All layers take one forward and one backward pass together.

    :math:`A_{ij} G_{ij}` is the value of token j, weighted by the attention that i pays it, times the gradient at i:
    what a layer gives all tokens adds up to the gradient times all that its attention wrote, so nothing is lost on the
    way, and nothing cut off. Relevance below zero is evidence against the target. Log-odds are explained, not the
    logit, because a class is also likely when all speaks against the others; with ``contrast``, the difference of the
    two logits, the log of the two classes' odds against each other. No constant is chosen. The derivation, and what the
    method is worth: ``docs/method.md``.

    Limitations: a patch counts where its token is attended to, and tokens of later layers have been mixed
    from several patches. How the attention itself came about, and what the MLPs add, is not shared out among the
    patches. What early layers give is read as if the classifier came at once, which it was not trained for.

    Reading intermediate layers by the classifier: nostalgebraist, "interpreting GPT: the logit lens", 2020; as an
    attribution method, of positive gradients alone: LeGrad. Contributions of heads and image tokens to the residual
    stream: Gandelsman, Efros and Steinhardt, "Interpreting CLIP's Image Representation via Text-Based Decomposition",
    ICLR 2024, https://arxiv.org/abs/2310.05916.

    Of models whose attention is on several grids, in windows, or over fewer keys than queries, relevance is on the
    finest grid that their values have, and a coarser place's is spread evenly over those that it came from:
    ``docs/other-models.md``.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Windowed and hierarchical ones as well.
        start_layer: the first layer that counts; negative ones count from the end.
        forward_func: what is explained, if not the model's logits. It handles each example by itself, any number of
            them. What it returns are the logits (N, classes) of classes that compete. One number per example, outputs
            of more dimensions, and those of a model whose ``config`` names several labels at once are explained as
            they are; of scores that do not compete, as SigLIP's of several texts, return one column.

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
