"""Whether a method's map depends on the class at all."""

import torch
from torch import Tensor

from captum_gmar.metrics.inputs import Attribute, PatchSize, check_attributions, check_images, leaf, patch_scores
from captum_gmar.metrics.outputs import ForwardFunc, check_outputs
from captum_gmar.metrics.ranks import spearman


def class_sensitivity(
    attribute: Attribute, forward_func: ForwardFunc, inputs: Tensor, *, patch_size: PatchSize = None
) -> Tensor:
    r"""
    How much the maps for an image's two most probable classes differ.

    .. math:: 1 - \rho(m_1, m_2)

    with Spearman's rank correlation ρ of the two maps' patches. A method that never looks at the class scores exactly
    0. A high number is no merit in itself: random maps score 1 on average.

    Args:
        attribute (Callable): The method: takes inputs and ``target=``, a list with a class for each example, and
            returns attributions in the shape of the inputs. For example ``GMARAttribution(model).attribute``.
        forward_func (Callable): Takes images and returns logits or probabilities (examples, classes).
        inputs (Tensor): Images (N, channels, height, width). The method gets a copy that requires grad.
        patch_size (int or tuple[int, int], optional): Height and width of the patches that maps are summed over before
            they are compared. None compares pixels.
            Default: None

    Returns:
        Tensor (N,) in [0, 2]: 0 if the two maps rank all patches alike, 1 if their ranks have nothing to do with each
        other, 2 if one ranks them in the reversed order of the other. If one of the maps, but not the other, is the
        same everywhere, 1.

    Raises:
        TypeError: if an argument is of the wrong kind, or ``forward_func`` returns no tensor.
        ValueError: if shapes do not fit, an attribution is not finite, there are fewer than two classes, or
            ``patch_size`` does not divide the images.
        FloatingPointError: if an output is NaN.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import class_sensitivity
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
        >>> class_sensitivity(lambda inputs, target: inputs**2, model, torch.rand(1, 3, 2, 2))
        tensor([0.])
    """
    check_images(inputs)
    with torch.no_grad():
        outputs = check_outputs(forward_func(inputs), len(inputs))
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        raise ValueError(f"Expected outputs for at least two classes but got outputs of shape {tuple(outputs.shape)}.")
    first, second = (
        patch_scores(check_attributions(attribute(leaf(inputs), target=classes.tolist()), inputs), patch_size)
        for classes in outputs.topk(2).indices.T
    )
    return 1 - spearman(first.flatten(1), second.flatten(1)).to(outputs.dtype)
