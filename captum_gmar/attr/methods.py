"""All methods by name, and those that explain a model: each is tried on one example."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.attr.captum_methods import _Perturbing
from captum_gmar.attr.catalogue import METHODS, RECOMMENDED, MethodEntry, find_method
from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.engine.models.layers import has_several_grids
from captum_gmar.engine.models.patch_grid import Logits, check_model
from captum_gmar.engine.request import pixel_values

FEW: dict[str, dict[str, int]] = {"integrated-gradients": {"n_steps": 1}, "gradient-shap": {"n_samples": 1}}


def list_methods(model: nn.Module | None = None, inputs: Tensor | None = None) -> list[str]:
    """Return the names of all methods, ours and Captum's, or of those that can explain a model.

    Args:
        model (nn.Module, optional): The model to explain: an image classifier of any kind, or one of videos, a detector
            or a segmenter. Each method explains one example, so the call takes about as many passes as there are
            methods. Default: None, all methods.
        inputs (Tensor, optional): One example or more, as that model takes them.

    Returns:
        list of str: Names, as on the command line and in tables.

    Raises:
        TypeError: if one of model and inputs is given without the other, or has another type.

    Example::

        >>> from captum_gmar import list_methods
        >>> from transformers import SwinConfig, SwinForImageClassification
        >>> config = SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
        >>> names = list_methods(SwinForImageClassification(config).eval(), torch.randn(1, 3, 32, 32))
        >>> [name in names for name in ("gmar-l1", "attention-evidence", "legrad")]
        [True, True, False]
    """
    if model is None and inputs is None:
        return list(METHODS)
    if model is None or inputs is None:
        raise TypeError("model requires inputs, and inputs a model, but got one of them. Pass both.")
    return _find_explaining(METHODS, model, inputs)


def get_method(name: str, model: nn.Module, **options: Any) -> Any:
    """Return a method, ready to explain a model.

    Args:
        name (str): One of :func:`list_methods`.
        model (nn.Module): The model to explain.
        **options: Passed to the method's class, such as ``forward_func=``.

    Returns:
        Captum ``Attribution``: call its ``attribute(inputs, target=..., additional_forward_args=...)``, whose result
        has the shape of the inputs.

    Raises:
        ValueError: if there is no such method; the message names similar ones.

    Example::

        >>> from captum_gmar import get_method
        >>> from captum_gmar.demo import load_model, load_scene
        >>> model, scene = load_model(), load_scene(3)
        >>> get_method("saliency", model).attribute(scene.pixel_values, target=scene.labels[0]).shape
        torch.Size([1, 3, 112, 112])
    """
    return METHODS[find_method(name)].load()(model, **options)


def usual_methods(names: tuple[str, ...], model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """Return the default methods that explain a model on the first of the inputs; all of them if none does.

    With one patch grid all of them do, and none is tried. Without one, token evidence returns the map of attention
    evidence, which is then left out.
    """
    if not has_several_grids(model, inputs):
        return names
    doubled = ("attention-evidence",) if RECOMMENDED in names else ()
    return tuple(name for name in _find_explaining(names, model, inputs) if name not in doubled) or names


def _find_explaining(names: Iterable[str], model: nn.Module, inputs: Tensor) -> list[str]:
    """Return those of the methods that explain a model on the first of the inputs."""
    check_model(model)
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor of what the model takes, but got {type(inputs).__name__}.")
    example = inputs[:1]
    with torch.no_grad():
        outputs = Logits(model)(example)
    target = (0,) * (outputs.dim() - 1) or None
    return [name for name in names if _explains(METHODS[name], model, example, target)]


def _explains(entry: MethodEntry, model: nn.Module, example: Tensor, target: tuple[int, ...] | None) -> bool:
    method: Any = entry.load()(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of gradients that are zero
        try:
            if isinstance(method, _Perturbing):  # which would take a pass for every patch
                method._defaults(pixel_values(example))
            else:
                method.attribute(example, target, **FEW.get(entry.name, {}))
        except FAILURES:
            return False
    return True
