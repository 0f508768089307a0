"""Metrics of deletion curves: symmetric relevance gain, prediction changes and area over the curve."""

from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize
from captum_gmar.metrics._outputs import LOGIT, PROBABILITY, ForwardFunc, Target, predicted_classes
from captum_gmar.metrics.curves import LEAST_FIRST, MOST_FIRST, CurveOptions, PerturbationCurve, check_removal, follow
from captum_gmar.metrics.removal import Mean, Removal

__all__ = ["SymmetricRelevanceGain", "area_over_curve", "prediction_changes", "symmetric_relevance_gain"]


class SymmetricRelevanceGain(NamedTuple):
    """Result of :func:`symmetric_relevance_gain`."""

    gain: Tensor  # (N,) area under the second curve minus area under the first; higher is better
    most_relevant_first: PerturbationCurve
    least_relevant_first: PerturbationCurve


def symmetric_relevance_gain(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    patch_size: PatchSize = None,
    steps: int = 28,
    removal: Removal | None = None,
    softmax: bool = False,
    batch_size: int | None = None,
) -> SymmetricRelevanceGain:
    r"""Compute the area under the target's logit when the least relevant patches are removed first, minus the area when
    the most relevant are removed first.

    .. math:: \mathrm{SRG} = \mathrm{AUC}_{\text{least relevant first}} - \mathrm{AUC}_{\text{most relevant first}}

    with the areas of :func:`~captum_gmar.metrics.deletion`. Both areas contain the effect of the removal itself, so the
    gain depends less on the removal than each area. A random order gains 0 on average, and negating a map negates its
    gain.

    The gain has the output's units. Compare gains of logits on one model only, and not between images whose logits
    differ in scale.

    Arguments and errors are those of :func:`~captum_gmar.metrics.deletion`. By default ``Mean()`` fills patches with
    the mean of each channel, and the curves hold logits.

    Returns:
        *SymmetricRelevanceGain* of **gain** (N,), higher is better, and the two curves **most_relevant_first** and
        **least_relevant_first**.

    References:
        Blücher, Vielhaben, Strodthoff: Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks.
        TMLR 2024, arXiv 2401.06654.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import Zero, symmetric_relevance_gain
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))  # one output per example, four patches of a pixel
        >>> inputs = torch.ones(1, 1, 2, 2)  # curves of 10, 6, 3, 1, 0 and of 10, 9, 7, 4, 0
        >>> symmetric_relevance_gain(linear, inputs, inputs * weights, steps=4, removal=Zero()).gain
        tensor([2.5000])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Mean()), batch_size)
    readout = PROBABILITY if softmax else LOGIT
    courses = MOST_FIRST, LEAST_FIRST
    curves = follow(forward_func, inputs, attributions, target, options, courses, [readout])
    most, least = (curves.curve(course, readout) for course in courses)
    return SymmetricRelevanceGain(least.auc - most.auc, most, least)


def prediction_changes(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    *,
    patch_size: PatchSize = None,
    steps: int = 28,
    removal: Removal | None = None,
    batch_size: int | None = None,
) -> PerturbationCurve:
    """Check at which steps the predicted class changes while the most relevant patches are removed first.

    The mean over images is the most-influential-first accuracy of LibraGrad's protocol. With ``-attributions``, it is
    the least-influential-first accuracy, where lower is better.

    There is no target: attributions explain the predicted class of the whole image. The other arguments and the errors
    are those of :func:`~captum_gmar.metrics.deletion`. By default ``Mean()`` fills patches with the mean of each
    channel.

    Returns:
        *PerturbationCurve*, whose **curve** is 1 where the predicted class differs from the first and 0 elsewhere. Its
        **auc** is in [0, 1]. Higher is better.

    Raises:
        ValueError: also if the model has only one class.

    References:
        Mehri, Soleymani Baghshah, Pilehvar: LibraGrad: Balancing Gradient Flow for Universally Better Vision
        Transformer Attributions. CVPR 2025, arXiv 2411.16760.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import Zero, prediction_changes
        >>> def logits(inputs):  # class 0: the sum of two patches of a pixel; class 1: 2.5
        ...     total = inputs.sum((1, 2, 3))
        ...     return torch.stack([total, torch.full_like(total, 2.5)], 1)
        >>> inputs = torch.tensor([[[[1.0, 3.0]]]])
        >>> prediction_changes(logits, inputs, inputs, steps=2, removal=Zero()).curve
        tensor([[0., 1., 1.]])
        >>> prediction_changes(logits, inputs, -inputs, steps=2, removal=Zero()).curve
        tensor([[0., 0., 1.]])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Mean()), batch_size)
    curves = follow(forward_func, inputs, attributions, None, options, [MOST_FIRST], [predicted_classes])
    return changes(curves.curve(MOST_FIRST, predicted_classes))


def changes(predictions: PerturbationCurve) -> PerturbationCurve:
    """Return the curve that is 1 where the predicted class differs from the first."""
    classes = predictions.curve
    changed = (classes != classes[:, :1]).to(classes.dtype)
    return predictions._replace(curve=changed, auc=torch.trapezoid(changed, predictions.shares))


def area_over_curve(curves: PerturbationCurve) -> Tensor:
    r"""Compute the area over a perturbation curve (AOPC), the output's mean decrease over the K steps.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} f(x_0) - f(x_k)

    Args:
        curves (PerturbationCurve): Result of :func:`~captum_gmar.metrics.deletion`.

    Returns:
        Tensor (N,), in the output's units. Higher is better if the most relevant patches are removed first.

    References:
        Samek et al.: Evaluating the Visualization of What a Deep Neural Network Has Learned. IEEE TNNLS 2017, arXiv
        1509.06321. The paper divides by K + 1.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import area_over_curve, deletion
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> area_over_curve(deletion(linear, inputs, inputs * weights, steps=4, softmax=False))  # of 4, 7, 9, 10
        tensor([7.5000])
    """
    return curves.curve[:, 0] - curves.curve[:, 1:].mean(1)
