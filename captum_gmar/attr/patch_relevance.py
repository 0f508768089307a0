"""Relevance of patches, by any method of ours or of Captum's."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import captum.attr
import numpy as np
import torch
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.captum_methods import PatchAblation, PatchOcclusion
from captum_gmar.engine._captum import Attribution, TargetType
from captum_gmar.engine.models.patch_grid import patch_grid, tube_frames
from captum_gmar.engine.request import leaf
from captum_gmar.metrics._inputs import check_attributions, patch_scores
from captum_gmar.metrics.video_layout import VIDEO_DIMS, Sheet

Method = Attribution | Callable[..., Tensor]

# Errors of a model, a method or Captum where a prediction cannot be explained.
FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, FloatingPointError, IndexError)

PATCHWISE = (PatchOcclusion, PatchAblation)  # every pixel has what its whole patch is worth
PERTURBING = (captum.attr.FeatureAblation,)  # and what inherits from it


@contextmanager
def name_errors(name: str) -> Iterator[None]:
    """Raise a method's error as a RuntimeError whose message begins with the method's name."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # which fewer images at once may help
    except FAILURES as error:
        raise RuntimeError(f"{name}: {error}") from error


def check_methods(methods: Mapping[Any, Any], reserved: Collection[str] = ()) -> dict[str, Method]:
    """Return a caller's methods by name, after a check of both; no name may be one of the ``reserved``."""
    for name, method in methods.items():
        if not isinstance(name, str) or not name or name in reserved:
            others = f", other than {', '.join(reserved)}" if reserved else ""
            raise TypeError(f"methods must be a mapping from names{others}, but got the key {name!r}.")
        is_function = callable(method) and not isinstance(method, type | nn.Module)
        if not (is_function or isinstance(method, Attribution)):
            raise TypeError(
                f"methods[{name!r}] must be a Captum Attribution, or a callable that takes inputs and target= and "
                f"returns attributions, but got {method!r}. Call a class on the model first."
            )
    return dict(methods)


def images_at_once(device: torch.device) -> int:
    """Return the user's number of images in one pass of a model, or a default."""
    return 16 if device.type == "cpu" else 128


def relevance_of(
    method: Method,
    model: nn.Module,
    pixels: Tensor,
    target: TargetType,
    *,
    batch_size: int,
    contrast: TargetType = None,
    ig_steps: int | None = None,
) -> Tensor:
    """Compute the relevance of every patch (N, rows, columns), or of every tube (N, moments, rows, columns) of videos.

    ``method`` is any Captum method, or a callable that takes inputs and ``target=`` and returns attributions in their
    shape. Methods that take no ``contrast`` ignore it. At most ``batch_size`` images or variants of one run at once.
    Attributions that are not finite raise ValueError.
    """
    if isinstance(method, AttentionAttribution):
        return method.relevance(pixels, target, contrast=contrast)
    return sum_over_patches(
        method, model, attributions_of(method, pixels, target, batch_size=batch_size, ig_steps=ig_steps)
    )


def attributions_of(
    method: Method, pixels: Tensor, target: TargetType, *, batch_size: int, ig_steps: int | None = None
) -> Tensor:
    """Compute attributions in the shape of the pixels, detached; arguments and errors as of :func:`relevance_of`."""
    attribute: Any = method.attribute if isinstance(method, Attribution) else method
    options = _options(method, len(pixels), batch_size, ig_steps)
    with _reproducible():
        return check_attributions(attribute(leaf(pixels), target=target, **options), pixels)


def sum_over_patches(method: Method, model: nn.Module, attributions: Tensor) -> Tensor:
    """Sum attributions (N, C, H, W) over each patch: (N, rows, columns); videos (N, F, C, H, W) over each tube."""
    if attributions.dim() == VIDEO_DIMS:
        sheet = Sheet.from_frames(attributions.shape[1], tube_frames(model))
        return sheet.split_moments(sum_over_patches(method, model, sheet.to_sheets(attributions)))
    grid = patch_grid(model, *attributions.shape[-2:])
    relevance = patch_scores(grid.crop(attributions), grid.patch_size).to(attributions.dtype)
    values = attributions.shape[1] * grid.patch_height * grid.patch_width  # of a patch
    return relevance / values if isinstance(method, PATCHWISE) else relevance


def _options(method: Method, examples: int, batch_size: int, ig_steps: int | None) -> dict[str, Any]:
    """Return the options that keep a method to the batch size."""
    if isinstance(method, captum.attr.IntegratedGradients):
        steps = {} if ig_steps is None else {"n_steps": ig_steps}
        return {"internal_batch_size": max(batch_size, examples), **steps}
    return {"perturbations_per_eval": max(batch_size // examples, 1)} if isinstance(method, PERTURBING) else {}


@contextmanager
def _reproducible() -> Iterator[None]:
    """Let methods draw the same random numbers each time, and leave the caller's as they were."""
    state, torch_state = np.random.get_state(), torch.get_rng_state()
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
        torch.set_rng_state(torch_state)
