"""Rivals that take many passes for a map, at budgets that token evidence takes as well.

A pass is one forward and one backward pass; a forward pass alone counts a third of it. Masks are over patches, set to
zero, which is the mean colour of the data.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import captum.attr
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import Method
from captum_gmar.engine.models.patch_grid import Logits, patch_grid

BUDGETS = (3, 5, 9, 17, 33, 65)
LARGER = (5, 17, 65, 257)
FORWARDS_PER_PASS = 3
RISE_CELLS = 7  # on each side of a mask, before it is enlarged, as in the paper
AT_ONCE = 16
END_WEIGHT = 1e3


def other_rows() -> dict[str, Callable[..., Method]]:
    """Return methods of others with each budget by name."""
    kinds = {"integrated-gradients": _path, "kernel-shap": _kernel_shap, "rise": _rise}
    return {f"{name}@{passes}": partial(make, passes=passes) for name, make in kinds.items() for passes in LARGER}


def _path(model: nn.Module, *, passes: int) -> Method:
    """Return integrated gradients of so many steps from zeros."""
    gradients = captum.attr.IntegratedGradients(Logits(model))

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        return gradients.attribute(inputs, target=target, n_steps=passes, internal_batch_size=max(AT_ONCE, len(inputs)))

    return attribute


def _each(inputs: Tensor, target: Any, explain: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Explain examples one by one."""
    classes = torch.as_tensor(target).expand(len(inputs)).tolist()
    return torch.cat([explain(image[None], label) for image, label in zip(inputs, classes, strict=True)])


def _kernel_shap(model: nn.Module, *, passes: int) -> Method:
    """Return KernelSHAP over patches of the target's logit: the least sum of squares, of least norm.

    Masks are drawn by the Shapley kernel, so all weigh the same; both ends weigh so much that they hold. Lundberg and
    Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017.
    """

    def explain(image: Tensor, label: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        grid = patch_grid(model, *image.shape[2:])
        sizes = torch.arange(1.0, grid.patches)
        weights = 1 / (sizes * (grid.patches - sizes))
        drawn = FORWARDS_PER_PASS * passes - 2
        kept = 1 + torch.multinomial(weights, drawn, replacement=True, generator=generator)
        masks = torch.rand(drawn, grid.patches, generator=generator).argsort(1).argsort(1) < kept[:, None]
        ends = torch.tensor([[False], [True]]).expand(2, grid.patches)
        masks = torch.cat([ends, masks]).float()
        pixels = F.interpolate(masks.view(-1, 1, *grid.shape), image.shape[2:])
        with torch.no_grad():
            logits = torch.cat([Logits(model)(image * part)[:, label] for part in pixels.split(AT_ONCE)])
        scale = torch.ones(len(masks), 1)
        scale[:2] = END_WEIGHT
        design = F.pad(masks, (0, 1), value=1.0) * scale
        shapley = torch.linalg.lstsq(design.double(), logits[:, None].double() * scale, driver="gelsd").solution
        return grid.spread_like(shapley[:-1].view(1, *grid.shape).float(), image)

    return lambda inputs, target: _each(inputs.detach(), target, explain)


def _rise(model: nn.Module, *, passes: int) -> Method:
    """Return RISE: the mean of random smooth masks, weighted by the probability of what they keep.

    Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018.
    """

    def explain(image: Tensor, label: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        cells = torch.rand(FORWARDS_PER_PASS * passes, 1, RISE_CELLS, RISE_CELLS, generator=generator) < 0.5
        masks = F.interpolate(cells.float(), image.shape[2:], mode="bilinear", align_corners=False)
        with torch.no_grad():
            kept = [Logits(model)(image * part).softmax(1)[:, label] for part in masks.split(AT_ONCE)]
        return (torch.cat(kept)[:, None, None, None] * masks).mean(0, keepdim=True).expand_as(image)

    return lambda inputs, target: _each(inputs.detach(), target, explain)


def rows() -> dict[str, Callable[..., Method]]:
    """Return token evidence with each budget, and methods of others, by name."""
    names = [f"token-evidence@{passes}" for passes in BUDGETS]
    return {**{name: METHODS[name].load() for name in names}, **other_rows()}
