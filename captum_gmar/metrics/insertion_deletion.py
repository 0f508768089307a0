"""Deletion and insertion curves."""

from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize
from captum_gmar.metrics._outputs import LOGIT, PROBABILITY, ForwardFunc, Target
from captum_gmar.metrics.curves import BROUGHT_BACK, MOST_FIRST, CurveOptions, PerturbationCurve, check_removal, follow
from captum_gmar.metrics.removal import Blur, Removal, Zero

__all__ = ["deletion", "insertion"]


def deletion(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    patch_size: PatchSize = None,
    steps: int = 28,
    removal: Removal | None = None,
    softmax: bool = True,
    batch_size: int | None = None,
) -> PerturbationCurve:
    r"""Compute the target's probability while the most relevant patches are removed first.

    With P patches, K steps and :math:`x_k` the image without its :math:`\lfloor kP/K \rfloor` most relevant patches,

    .. math:: \mathrm{AUC} = \sum_{k=1}^{K} (s_k - s_{k-1}) \frac{f(x_{k-1}) + f(x_k)}{2},
        \qquad s_k = \frac{\lfloor kP/K \rfloor}{P}

    A patch's score is the sum of its attributions over pixels and channels. Patches with equal scores are removed in
    one random order for all images, so a uniform map removes patches at random.

    A low area shows that the removed patches matter to the model on images with removed parts, on which it was not
    trained. The area depends on the removal and does not measure how plausible a map looks.

    Args:
        forward_func (Callable): Takes images and returns logits (N, classes). Call the model's ``eval()`` first, since
            dropout makes curves random.
        inputs (Tensor): Images (N, channels, height, width), or videos (N, frames, channels, height, width).
        attributions (Tensor): Attributions in the shape of the inputs, as returned by ``attribute``. Or relevance as
            returned by ``relevance``: of patches (N, rows, columns), or of a video's tubes (N, moments, rows, columns).
        target (int, tuple, Tensor, or list, optional): Class for all examples or one per example, in any form that
            ``attribute`` takes. None is for models with one output per example. Outputs of more than two dimensions
            take (query, class) or (class, row, column) with ``softmax=False``.
        patch_size (int or tuple, optional): Height and width of a patch, or frames, height and width of a video's
            tube; they must divide the inputs. None removes single pixels, or the patches of the given relevance.
        steps (int, optional): Number of steps, at most the number of patches.
        removal (Removal, optional): Removal such as ``Mean()``, ``NoisyLinear()`` or
            ``captum_gmar.ablation.TokenRemoval(model)``. In videos, pixels are replaced frame by frame, and tokens
            cannot be removed. Default: as in the paper, ``Zero()`` for deletion and ``Blur()`` for insertion.
        softmax (bool, optional): Apply softmax to the outputs of ``forward_func``. False uses the outputs unchanged.
        batch_size (int, optional): Maximal number of images per call of ``forward_func``.
            Default: steps + 1, all steps of one example; at most 16 on the CPU, where larger batches are slower

    Returns:
        *PerturbationCurve* of **auc**, **curve**, **shares** and **removal**:
            - **auc** (*Tensor*): (N,), in [0, 1] for probabilities. Lower is better for deletion, higher for insertion.
            - **curve** (*Tensor*): (N, steps + 1), from the whole image to none of it; reversed for insertion.
            - **shares** (*Tensor*): (steps + 1,), removed share of the patches; inserted share for insertion.
            - **removal** (*str*): Name of the removal. Compare areas of the same removal only.

    Raises:
        TypeError: if an argument has the wrong type, or ``forward_func`` does not return a tensor.
        ValueError: if shapes do not fit, an attribution is not finite, a target is not a class, ``patch_size`` does not
            divide the image, or ``steps`` or ``batch_size`` is less than 1.
        FloatingPointError: if an output is NaN.

    References:
        Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018, arXiv
        1806.07421.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import deletion
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))  # one output per example, four patches of a pixel
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> curves = deletion(linear, inputs, inputs * weights, steps=4, softmax=False)
        >>> curves.curve
        tensor([[10.,  6.,  3.,  1.,  0.]])
        >>> curves.auc  # ((10 + 6) + (6 + 3) + (3 + 1) + (1 + 0)) / 2 / 4
        tensor([3.7500])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Zero()), batch_size)
    readout = PROBABILITY if softmax else LOGIT
    curves = follow(forward_func, inputs, attributions, target, options, [MOST_FIRST], [readout])
    return curves.curve(MOST_FIRST, readout)


def insertion(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    patch_size: PatchSize = None,
    steps: int = 28,
    removal: Removal | None = None,
    softmax: bool = True,
    batch_size: int | None = None,
) -> PerturbationCurve:
    """Compute the target's probability while the most relevant patches are inserted first.

    Arguments, results and errors are those of :func:`deletion`. The images hold only the most relevant patches instead
    of lacking them, and the default removal is ``Blur()``.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import Zero, insertion
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> insertion(linear, inputs, inputs * weights, steps=4, removal=Zero(), softmax=False).curve
        tensor([[ 0.,  4.,  7.,  9., 10.]])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Blur()), batch_size)
    readout = PROBABILITY if softmax else LOGIT
    curves = follow(forward_func, inputs, attributions, target, options, [BROUGHT_BACK], [readout])
    return curves.curve(BROUGHT_BACK, readout)
