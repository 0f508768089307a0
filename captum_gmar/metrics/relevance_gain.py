"""What deletion says of both ends of an order: the most relevant patches first, and the least relevant first."""

from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize
from captum_gmar.metrics._outputs import LOGIT, PROBABILITY, ForwardFunc, Target, predicted_classes
from captum_gmar.metrics.curves import (
    LEAST_FIRST,
    MOST_FIRST,
    CurveOptions,
    PerturbationCurve,
    check_removal,
    follow,
)
from captum_gmar.metrics.removal import Mean, Removal

__all__ = ["SymmetricRelevanceGain", "area_over_curve", "prediction_changes", "symmetric_relevance_gain"]


class SymmetricRelevanceGain(NamedTuple):
    """What :func:`symmetric_relevance_gain` returns."""

    gain: Tensor  # (N,) the area under the second curve less that under the first; higher is better
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
    r"""
    Removes the least relevant patches first, and the most relevant first, and takes the difference of the two areas
    under the target's logit.

    .. math:: \mathrm{SRG} = \mathrm{AUC}_{\text{least relevant first}} - \mathrm{AUC}_{\text{most relevant first}}

    with the areas of :func:`~captum_gmar.metrics.deletion`. What an order loses by the way of removal alone is in both
    areas, so it depends less on that way than one of them does. An order that says nothing has a gain of zero on
    average, and any map has the negative gain of its negative.

    It is in units of what is followed: gains of logits compare on one model only, and not between images whose logits
    differ in scale.

    Takes what :func:`~captum_gmar.metrics.deletion` takes and raises what it raises; by default patches are filled with
    ``Mean()``, the mean of each channel, and the logit is followed.

    Returns:
        *SymmetricRelevanceGain* of **gain**, **most_relevant_first** and **least_relevant_first**:
            - **gain** (*Tensor*): (N,). Higher is better.
            - **most_relevant_first**, **least_relevant_first** (*PerturbationCurve*): The two curves.

    References:
        Blücher, Vielhaben, Strodthoff: Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks.
        TMLR 2024, arXiv 2401.06654.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import Zero, symmetric_relevance_gain
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))  # one output per example, four patches of a pixel
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> curves = symmetric_relevance_gain(linear, inputs, inputs * weights, steps=4, removal=Zero())
        >>> curves.most_relevant_first.curve
        tensor([[10.,  6.,  3.,  1.,  0.]])
        >>> curves.least_relevant_first.curve
        tensor([[10.,  9.,  7.,  4.,  0.]])
        >>> curves.gain
        tensor([2.5000])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Mean()), batch_size)
    reading = PROBABILITY if softmax else LOGIT
    courses = MOST_FIRST, LEAST_FIRST
    followed = follow(forward_func, inputs, attributions, target, options, courses, [reading])
    most, least = (followed.curve(course, reading) for course in courses)
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
    """
    Removes the most relevant patches first and tells at which steps another class than at first is predicted: the
    sooner, the better. Its mean over images is the most-influential-first accuracy of LibraGrad's protocol, and with
    ``-attributions`` the least-influential-first one, where later is better.

    Attributions explain the class that is predicted for the whole image; there is no target. Takes what
    :func:`~captum_gmar.metrics.deletion` takes else and raises what it raises; by default patches are filled with
    ``Mean()``, the mean of each channel.

    Returns:
        *PerturbationCurve*, whose **curve** is 1 where another class is predicted and 0 elsewhere, and whose **auc** is
        the area under it, in [0, 1]. Higher is better.

    Raises:
        ValueError: and if the model has one class only.

    References:
        Mehri, Soleymani Baghshah, Pilehvar: LibraGrad: Balancing Gradient Flow for Universally Better Vision
        Transformer Attributions. CVPR 2025, arXiv 2411.16760.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import Zero, prediction_changes
        >>> def logits(inputs):  # the sum of two patches of a pixel, against 2.5
        ...     total = inputs.sum((1, 2, 3))
        ...     return torch.stack([total, torch.full_like(total, 2.5)], 1)
        >>> inputs = torch.tensor([[[[1.0, 3.0]]]])
        >>> prediction_changes(logits, inputs, inputs, steps=2, removal=Zero()).curve
        tensor([[0., 1., 1.]])
        >>> prediction_changes(logits, inputs, -inputs, steps=2, removal=Zero()).curve
        tensor([[0., 0., 1.]])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Mean()), batch_size)
    followed = follow(forward_func, inputs, attributions, None, options, [MOST_FIRST], [predicted_classes])
    return changes(followed.curve(MOST_FIRST, predicted_classes))


def changes(predictions: PerturbationCurve) -> PerturbationCurve:
    """The curve that is 1 where another class is predicted than at first, of the curve of the predicted classes."""
    classes = predictions.curve
    changed = (classes != classes[:, :1]).to(classes.dtype)
    return predictions._replace(curve=changed, auc=torch.trapezoid(changed, predictions.shares))


def area_over_curve(curves: PerturbationCurve) -> Tensor:
    r"""
    AOPC, the area over the perturbation curve: how far what is followed falls on average,
    :math:`\frac{1}{K} \sum_{k=1}^{K} f(x_0) - f(x_k)`, of a curve of :func:`~captum_gmar.metrics.deletion` in K steps.

    Returns:
        Tensor (N,), in units of what is followed. Where the most relevant patches go first, higher is better.

    References:
        Samek et al.: Evaluating the Visualization of What a Deep Neural Network Has Learned. IEEE TNNLS 2017, arXiv
        1509.06321, where the sum is divided by K + 1.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import area_over_curve, deletion
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> area_over_curve(deletion(linear, inputs, inputs * weights, steps=4, softmax=False))  # of 4, 7, 9 and 10
        tensor([7.5000])
    """
    return curves.curve[:, 0] - curves.curve[:, 1:].mean(1)
