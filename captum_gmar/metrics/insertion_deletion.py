"""How the target's probability falls as patches are removed, most relevant first, and rises as they come back."""

from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize
from captum_gmar.metrics._outputs import LOGIT, PROBABILITY, ForwardFunc, Target
from captum_gmar.metrics.curves import (
    BROUGHT_BACK,
    MOST_FIRST,
    CurveOptions,
    PerturbationCurve,
    check_removal,
    follow,
)
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
    r"""
    Removes the most relevant patches first and follows the target's probability: the sooner it falls, the better.

    With P patches and :math:`x_k` the image without its :math:`\lfloor kP/K \rfloor` most relevant ones, after K steps

    .. math:: \mathrm{AUC} = \sum_{k=1}^{K} (s_k - s_{k-1}) \frac{f(x_{k-1}) + f(x_k)}{2},
        \qquad s_k = \frac{\lfloor kP/K \rfloor}{P}

    A patch's score is the sum of its attributions over pixels and channels. Patches of the same score are removed in a
    random order, which is the same for all images: a uniform map is a random order, not the order of reading.

    A low area says that the patches matter to the model as it sees images with parts removed, which it was not trained
    on. It depends on the way of removal, and says nothing of whether people find the map plausible.

    Args:
        forward_func (Callable): Takes images and returns logits (examples, classes). A model in training mode, with
            dropout say, gives no reproducible curve; call its ``eval()`` first.
        inputs (Tensor): Images (N, channels, height, width), or videos (N, frames, channels, height, width).
        attributions (Tensor): In the shape of the inputs, as ``attribute`` returns them; or the relevance of patches
            (N, rows, columns), of a video's tubes (N, moments, rows, columns), as ``relevance`` returns it.
        target (int, tuple, Tensor, or list, optional): The class that is followed, for all examples or for each, in any
            form that ``attribute`` takes. None is for models with one output per example. Of outputs of more than two
            dimensions (query, class) or (class, row, column), with ``softmax=False``.
            Default: None
        patch_size (int or tuple, optional): Height and width of the patches that are removed as a whole, or of a video
            frames, height and width of its tubes; they must divide the inputs. None removes single pixels, or the
            patches that relevance is given for.
            Default: None
        steps (int, optional): Into how many steps the removal of all patches is divided; at most their number.
            Default: 28
        removal (Removal, optional): What takes patches out, for example ``Mean()`` or ``NoisyLinear()`` of this
            package, or a ``captum_gmar.ablation.TokenRemoval``. In a video each frame's pixels become what they
            would in an image of that frame; tokens cannot be removed.
            Default: as in the paper, ``Zero()`` for deletion and ``Blur()`` for insertion
        softmax (bool, optional): Follow the probability after softmax over the classes. False follows what
            ``forward_func`` returns: the logit, or the probability if it returns probabilities.
            Default: True
        batch_size (int, optional): How many images one call of ``forward_func`` gets at most.
            Default: steps + 1, all steps of one example; at most 16 on the CPU, where more at once is slower

    Returns:
        *PerturbationCurve* of **auc**, **curve**, **shares** and **removal**:
            - **auc** (*Tensor*): (N,), in [0, 1] for probabilities. Lower is better for deletion, higher for insertion.
            - **curve** (*Tensor*): (N, steps + 1), from the whole image to nothing of it; for insertion the other way.
            - **shares** (*Tensor*): (steps + 1,), of the patches that are removed; for insertion, that are there.
            - **removal** (*str*): How patches were removed. Areas compare only between curves where that is the same.

    Raises:
        TypeError: if an argument is of the wrong kind, or ``forward_func`` returns no tensor.
        ValueError: if shapes do not fit, an attribution is not finite, a target is no class, ``patch_size`` does not
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
        >>> curves.auc  # of ((10 + 6) + (6 + 3) + (3 + 1) + (1 + 0)) / 2 / 4
        tensor([3.7500])
    """
    options = CurveOptions(patch_size, steps, check_removal(removal, Zero()), batch_size)
    reading = PROBABILITY if softmax else LOGIT
    followed = follow(forward_func, inputs, attributions, target, options, [MOST_FIRST], [reading])
    return followed.curve(MOST_FIRST, reading)


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
    """
    Brings back the most relevant patches first, from none, and follows the target's probability: the sooner it rises,
    the better.

    Takes what :func:`deletion` takes, returns what it returns and raises what it raises; only the images of the steps
    differ, which hold the most relevant patches instead of lacking them, and the default way of removal, ``Blur()``.

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
    reading = PROBABILITY if softmax else LOGIT
    followed = follow(forward_func, inputs, attributions, target, options, [BROUGHT_BACK], [reading])
    return followed.curve(BROUGHT_BACK, reading)
