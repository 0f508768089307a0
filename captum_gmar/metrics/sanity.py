"""Sanity checks: class sensitivity and parameter randomisation."""

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
    """Result of :func:`parameter_randomisation`."""

    similarity: Tensor  # (N, L) rank correlation with the original model's map
    layers: tuple[str, ...]  # L names in the order of randomisation


def class_sensitivity(
    attribute: Attribute, forward_func: ForwardFunc, inputs: Tensor, *, patch_size: PatchSize = None
) -> Tensor:
    r"""Compute how much the maps for an image's two most probable classes differ.

    .. math:: 1 - \rho(m_1, m_2)

    with Spearman's rank correlation ρ of the two maps' patches. A method that ignores the class scores exactly 0. A
    high score alone is no merit: random maps score 1 on average.

    Args:
        attribute (Callable): Takes inputs and ``target=``, a list of one class per example, and returns attributions in
            the shape of the inputs. For example ``GMARAttribution(model).attribute``.
        forward_func (Callable): Takes images and returns logits or probabilities (N, classes).
        inputs (Tensor): Images (N, channels, height, width). ``attribute`` gets a copy that requires grad.
        patch_size (int or tuple[int, int], optional): Height and width of the patches over which maps are summed before
            comparison. None compares pixels.

    Returns:
        Tensor (N,) in [0, 2]: 0 for equal ranks, 1 for uncorrelated ranks or if only one of the maps is constant, 2
        for reversed ranks.

    Raises:
        TypeError: if an argument has the wrong type, or ``forward_func`` does not return a tensor.
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
        raise ValueError(f"outputs must be of two classes or more, but got shape {tuple(outputs.shape)}.")
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
    """Randomise the model's layers one by one from the top, and compare each map with the original model's map.

    This is the cascading model parameter randomisation test. A method whose map does not change shows the image, not
    the model. Normal noise of the same mean and standard deviation replaces each parameter, so constant parameters do
    not change. Afterwards, also after an error, the model is restored bit for bit.

    Do not use the model in another thread during the test.

    Args:
        attribute, inputs, patch_size: As in :func:`class_sensitivity`.
        model (nn.Module): The model that ``attribute`` explains.
        target (int, tuple, Tensor, or list, optional): Target for ``attribute``. It does not change with the model's
            prediction.
        layers (sequence of str, optional): Module names of ``model.named_modules()`` in the order of randomisation.
            Default: None, :func:`layers_from_the_top`
        seed (int, optional): Seed of the noise.

    Returns:
        *ParameterRandomisation* of **similarity** and **layers**:
            - **similarity** (*Tensor*): (N, L) in [-1, 1], Spearman's rank correlation of each map's patches with those
              of the original model's map. It should fall from 1 towards 0.
            - **layers** (*tuple[str]*): L names from the top. Column i has the first i + 1 layers randomised.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if shapes do not fit, an attribution is not finite, ``layers`` names an unknown module or one
            without parameters left to randomise, or ``patch_size`` does not divide the images.

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

    with _restore_after(model):
        original = scores()
        similarity = []
        for group in groups:
            _randomise(group, generator)
            similarity.append(spearman(original, scores()))
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    return ParameterRandomisation(torch.stack(similarity, 1).to(dtype), tuple(names))


def layers_from_the_top(model: nn.Module) -> list[str]:
    """Return the names of modules that together hold a model's parameters, from the output to the input.

    Stacks of layers (an ``nn.ModuleList`` or ``nn.Sequential`` of modules with submodules) are split into layers, and
    modules around a stack into their children. The order is the reverse of assignment, which in most models is the
    order of computation; otherwise pass ``layers`` to :func:`parameter_randomisation`. A module listed after its own
    children stands for the parameters that only it holds, such as a CLS token. "" is the model itself.

    Example::

        >>> from captum_gmar.demo import load_model
        >>> names = layers_from_the_top(load_model())
        >>> names[0], names[-1], len(names)
        ('classifier', 'vit.embeddings', 9)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but got {type(model).__name__}.")
    return list(_split_stacks("", model))[::-1]


def _split_stacks(name: str, module: nn.Module) -> Iterator[str]:
    is_layer = bool(name) and not any(map(_is_stack, module.modules()))
    if any(True for _ in module.parameters(recurse=is_layer)):
        yield name
    if not is_layer:
        for part, child in module.named_children():
            yield from _split_stacks(f"{name}.{part}".lstrip("."), child)


def _is_stack(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential) and any(any(True for _ in m.children()) for m in module)


def _parameters(model: nn.Module, names: Sequence[str]) -> list[list[nn.Parameter]]:
    """Return each layer's floating-point parameters, without those of the layers before it."""
    modules = dict(model.named_modules())
    known_ids: set[int] = set()
    groups = []
    for name in names:
        if name not in modules:
            raise ValueError(f"layers must be modules of the model, but got {name!r}. See model.named_modules().")
        group = [p for p in modules[name].parameters() if id(p) not in known_ids and p.is_floating_point()]
        if not group:
            raise ValueError(f"layers must have parameters that are not randomised yet, but got {name!r}.")
        known_ids.update(map(id, group))
        groups.append(group)
    if not groups:
        raise ValueError("layers must be at least one with parameters to randomise, but got none.")
    return groups


@torch.no_grad()
def _randomise(parameters: Sequence[nn.Parameter], generator: torch.Generator) -> None:
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        deviation, mean = torch.std_mean(parameter.float(), correction=0)
        parameter.copy_(noise * deviation + mean)


@contextmanager
def _restore_after(model: nn.Module) -> Iterator[None]:
    """Restore parameters, buffers, gradient flags and training flags after the block."""
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
