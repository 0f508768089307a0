"""Sanity checks: whether a method's map depends on the class, and on what the model has learnt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_gmar.metrics._inputs import Attribute, PatchSize, check_attributions, check_images, graph_leaf, patch_scores
from captum_gmar.metrics._outputs import ForwardFunc, Target, check_outputs
from captum_gmar.metrics._statistics import spearman
from captum_gmar.metrics.removal import check_seed

__all__ = ["ParameterRandomisation", "class_sensitivity", "layers_from_the_top", "parameter_randomisation"]


class ParameterRandomisation(NamedTuple):
    """What :func:`parameter_randomisation` returns."""

    similarity: Tensor  # (N, L) to the map of the model as it was
    layers: tuple[str, ...]  # L names, in the order in which they were randomised


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
        patch_scores(check_attributions(attribute(graph_leaf(inputs), target=classes.tolist()), inputs), patch_size)
        for classes in outputs.topk(2).indices.T
    )
    return 1 - spearman(first.flatten(1), second.flatten(1)).to(outputs.dtype)


def parameter_randomisation(
    attribute: Attribute,
    model: nn.Module,
    inputs: Tensor,
    target: Target = None,
    *,
    layers: Sequence[str] | None = None,
    patch_size: PatchSize = None,
    seed: int = 0,
) -> ParameterRandomisation:
    """
    Randomises the model's layers one after the other from the top, and compares the maps with the first one.

    This is the cascading model parameter randomisation test. A method whose map stays the same while the model forgets
    all that it has learnt shows the image, not the model. Each parameter is replaced by normal noise with the mean and
    standard deviation that its values had, so one whose values are all the same stays. Afterwards the model is as it
    was, bit for bit, also after an error.

    Do not use the model elsewhere while this runs, for example in another thread.

    Args:
        attribute (Callable): The method: takes inputs and ``target=`` and returns attributions in the shape of the
            inputs, of ``model``. For example ``GMARAttribution(model).attribute``.
        model (nn.Module): The model that the method explains.
        inputs (Tensor): Images (N, channels, height, width). The method gets a copy that requires grad.
        target (int, tuple, Tensor, or list, optional): What is explained, given to the method as it is. It stays the
            same while the model's prediction changes.
            Default: None
        layers (sequence of str, optional): Names of modules, as ``model.named_modules()`` gives them, in the order in
            which their parameters are randomised.
            Default: None, those of :func:`layers_from_the_top`
        patch_size (int or tuple[int, int], optional): Height and width of the patches that maps are summed over before
            they are compared. None compares pixels.
            Default: None
        seed (int, optional): Of the noise.
            Default: 0

    Returns:
        *ParameterRandomisation* of **similarity** and **layers**:
            - **similarity** (*Tensor*): (N, L), Spearman's rank correlation of each map's patches with those of the
              model as it was, in [-1, 1]. 1 if all patches are ranked as before; it should fall towards 0.
            - **layers** (*tuple[str]*): The names, from the top. In column i all layers up to the i-th are random.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if shapes do not fit, an attribution is not finite, ``layers`` names a module that is not there or
            has no parameters left to randomise, or ``patch_size`` does not divide the images.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity Checks for Saliency Maps. NeurIPS 2018, arXiv
        1810.03292.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import parameter_randomisation
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 6), torch.nn.Linear(6, 3))
        >>> edges = lambda inputs, target: inputs.diff(dim=-1, append=inputs[..., :1])  # shows the image only
        >>> parameter_randomisation(edges, model, torch.rand(1, 3, 2, 2))
        ParameterRandomisation(similarity=tensor([[1., 1.]]), layers=('2', '1'))
    """
    check_images(inputs)
    check_seed(seed)
    names = layers_from_the_top(model) if layers is None else list(layers)
    groups = _parameters(model, names)
    generator = torch.Generator().manual_seed(seed)

    def scores() -> Tensor:
        attributions = attribute(graph_leaf(inputs), target=target)
        return patch_scores(check_attributions(attributions, inputs), patch_size).flatten(1)

    with _restored(model):
        original = scores()
        similarity = []
        for group in groups:
            _randomise(group, generator)
            similarity.append(spearman(original, scores()))
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    return ParameterRandomisation(torch.stack(similarity, 1).to(dtype), tuple(names))


def layers_from_the_top(model: nn.Module) -> list[str]:
    """
    Names of the modules that together hold a model's parameters, those next to the output first.

    A stack of layers (an ``nn.ModuleList`` or ``nn.Sequential`` of modules that have modules themselves) is divided
    into its layers, and so is each module around it into what it consists of. The order is the reverse of that in which
    modules were assigned, which in most models is the order of the computation; if it is not in yours, pass ``layers``
    to :func:`parameter_randomisation`. A module that is listed after its own parts stands for what only it holds,
    a CLS token say; "" is the model itself.

    Example::

        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> config = ViTConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=8)
        >>> names = layers_from_the_top(ViTForImageClassification(config))
        >>> names[0], names[-1], len(names)
        ('classifier', 'vit.embeddings', 5)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module. Got {type(model).__name__} instead.")
    return list(_divided("", model))[::-1]


def _divided(name: str, module: nn.Module) -> Iterator[str]:
    whole = bool(name) and not any(map(_is_stack, module.modules()))
    if any(True for _ in module.parameters(recurse=whole)):
        yield name
    if not whole:
        for part, child in module.named_children():
            yield from _divided(f"{name}.{part}".lstrip("."), child)


def _is_stack(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential) and any(any(True for _ in m.children()) for m in module)


def _parameters(model: nn.Module, names: Sequence[str]) -> list[list[nn.Parameter]]:
    """The floating-point parameters of each layer that no layer before it has."""
    modules = dict(model.named_modules())
    seen: set[int] = set()
    groups = []
    for name in names:
        if name not in modules:
            raise ValueError(
                f"Expected layers that are modules of the model but got {name!r}. See model.named_modules()."
            )
        group = [p for p in modules[name].parameters() if id(p) not in seen and p.is_floating_point()]
        if not group:
            raise ValueError(f"Expected layers with parameters that are not randomised yet but got {name!r}.")
        seen.update(map(id, group))
        groups.append(group)
    if not groups:
        raise ValueError("Expected at least one layer with parameters to randomise but got none.")
    return groups


@torch.no_grad()
def _randomise(parameters: Sequence[nn.Parameter], generator: torch.Generator) -> None:
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        deviation, mean = torch.std_mean(parameter.float(), correction=0)
        parameter.copy_(noise * deviation + mean)


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Whatever the block does to parameters, buffers and training flags is undone after it."""
    tensors = [*model.parameters(), *model.buffers()]
    copies = [tensor.detach().clone() for tensor in tensors]
    grads = [tensor.requires_grad for tensor in tensors]
    training = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy, requires_grad in zip(tensors, copies, grads, strict=True):
                tensor.copy_(copy)
                tensor.requires_grad_(requires_grad)
        for module, flag in training:
            module.training = flag
