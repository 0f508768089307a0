"""Head scores: gradient of a head mask, and attention entropy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captum_gmar.ablation.heads import stack_layers
from captum_gmar.engine._captum import TargetType
from captum_gmar.engine.attention.explain import run_forward, run_sweep
from captum_gmar.engine.explain import Pass, explain_model
from captum_gmar.engine.finite_checks import check_finite
from captum_gmar.engine.kernels.reduction import Blocks, sum_up
from captum_gmar.engine.models.patch_grid import Logits, check_model
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.request import Request, pixel_values
from captum_gmar.engine.rule import Importance, Step, check_choice

LOSSES = ("cross_entropy", "logit")


def gradient_of_mask(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: TargetType = None,
    *,
    loss: str = "cross_entropy",
    forward_func: Callable[..., Any] | None = None,
) -> Tensor:
    r"""Compute the gradient of a mask on each head: the first-order change of the loss if a head is silenced.

    With a mask :math:`\xi_h = 1` that multiplies the head outputs :math:`O_h` of T tokens and D dimensions,

    .. math:: s_h = \Bigl| \frac{\partial \mathcal L}{\partial \xi_h} \Bigr|
        = \Bigl| \sum_{t,d} O_h[t, d] \, \frac{\partial \mathcal L}{\partial O_h[t, d]} \Bigr|

    for each example, in one forward and one backward pass.

    Limitations: redundant heads all have small gradients, so the score says little about silencing many heads. The
    cross entropy of a certain prediction is flat, so uncertain examples have larger scores unless the loss is the
    logit. Scores may be larger in some layers, see :func:`ranked_heads`.

    Args:
        model (nn.Module): A vision transformer that :class:`~captum_gmar.GMARAttribution` supports.
        inputs (Tensor): Pixel values (N, channels, height, width).
        target (int, tuple, Tensor, or list, optional): Class index in any of Captum's forms.
            Default: None, for models with one output
        loss (str, optional): "cross_entropy" of the target, as in the paper, or the target's "logit".
            Default: "cross_entropy"
        forward_func (Callable, optional): Takes the inputs, runs ``model`` once and returns logits (N, classes).
            Default: None, the model itself

    Returns:
        Tensor: Scores (N, layers, heads), 0 or more, in nats or units of the logit.

    Raises:
        TypeError, ValueError, RuntimeError, FloatingPointError: as in :meth:`captum_gmar.GMARAttribution.attribute`, or
            if ``loss`` is unknown or does not fit the model.

    References:
        Michel, Levy, Neubig: Are Sixteen Heads Really Better than One? NeurIPS 2019, arXiv 1905.10650.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.ablation import gradient_of_mask
        >>> scene = load_scene(3)
        >>> gradient_of_mask(load_model(), scene.pixel_values, scene.labels[0]).shape
        torch.Size([1, 6, 4])
    """
    check_model(model)
    check_choice("loss", loss, LOSSES)
    logits = Logits(model if forward_func is None else forward_func)
    plan = Plan(_MaskGradient()) if loss == "logit" else Plan(_MaskGradient(), score=_log_probabilities)
    with torch.inference_mode(False), torch.enable_grad():
        (explanation,) = explain_model((Pass.ATTENTION,), model, logits, plan, pixel_values(inputs), Request([target]))
    return stack_layers(list(explanation.importance or ()), 1).abs()


def attention_entropy(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: TargetType = None,
    *,
    forward_func: Callable[..., Any] | None = None,
) -> Tensor:
    r"""Compute the entropy of each head's attention, averaged over the T query tokens.

    .. math:: s_h = -\frac{1}{T} \sum_{i,j} A_h[i, j] \ln A_h[i, j]

    Prefix tokens count like patches. No gradient is needed, and attention is computed in chunks, so memory holds no T×T
    matrix of a layer.

    Limitations: a focused head may be irrelevant to the prediction, and a spread one may be essential.

    Args:
        model, inputs, forward_func: As in :func:`gradient_of_mask`; the outputs may be anything.
        target: Ignored; all scores share this argument.

    Returns:
        Tensor: Entropies (N, layers, heads) in nats, from 0 (each query attends to one token) to ln T (uniform).

    Raises:
        TypeError, ValueError, RuntimeError, FloatingPointError: as in :meth:`captum_gmar.AttentionRollout.attribute`.

    Example::

        >>> import math
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.ablation import attention_entropy
        >>> entropy = attention_entropy(load_model(), load_scene(3).pixel_values)
        >>> entropy.shape, bool((entropy <= math.log(197)).all())
        (torch.Size([1, 6, 4]), True)
    """
    check_model(model)
    forward = Logits(model if forward_func is None else forward_func)
    plan, pixels = Plan(sweep=_entropies), pixel_values(inputs)
    with torch.inference_mode(False), torch.enable_grad(), run_forward(model, forward, plan, pixels, None) as (met, _):
        if (refusal := met.find_refusal(model)) is not None:
            raise refusal
        entropies = run_sweep(plan, met.layers, met.like.new_zeros(len(pixels), 1), None)
    check_finite(entropies, "entropy")
    return entropies


@dataclass(frozen=True)
class _MaskGradient:
    r"""Rule for the mask's gradient :math:`\sum A_h \odot G_h`, which follows from :math:`O_h = A_h V_h`."""

    layerwise: ClassVar[bool] = True

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return Step(relevance, sum_up([(block.attention * block.gradient).sum((-2, -1)) for block in layer]))


def _entropies(relevance: Tensor, layers: Sequence[Blocks], importance: Importance | None) -> Tensor:
    """Return entropies (N, layers, heads)."""
    rows = ([torch.special.entr(block.attention).sum(-1) for block in layer] for layer in layers)  # each (N, H, R)
    return stack_layers([torch.cat(blocks, -1).mean(-1) for blocks in rows], 1)


def _log_probabilities(logits: Tensor) -> Tensor:
    if logits.dim() != 2 or logits.shape[1] == 1:
        raise ValueError(
            f"outputs must be logits (examples, classes) for the cross entropy, but got {tuple(logits.shape)}. Pass "
            'loss="logit" for a model with one output.'
        )
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
