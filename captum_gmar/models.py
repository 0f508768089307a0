"""What must be known of a model: its logits, its patch grid and the tokens its classifier reads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# The names that transformers, timm and torchvision give to the tokens before the patches, and how many there may be in
# a model that names none of them.
PREFIX_PARAMETERS = (
    "cls_token",
    "class_token",
    "class_embedding",
    "dist_token",
    "distillation_token",
    "reg_token",
    "register_tokens",
)
MAX_UNNAMED_PREFIX_TOKENS = 32


class Logits:
    """Runs ``forward_func`` and returns its logits as a tensor, which is what Captum's own methods need.

    Args:
        forward_func: a model, or any callable, returning a tensor or an output with a ``logits`` tensor.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        self.forward_func = forward_func

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        output = self.forward_func(*args, **kwargs)
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise TypeError(
                "The model must return a tensor or an output with a `logits` tensor. "
                f"Got {type(output).__name__} instead. Pass forward_func=, a callable that runs the model on the "
                "inputs and returns the tensor to explain."
            )
        return logits


class PatchGrid(NamedTuple):
    """How an image is cut into patches."""

    rows: int
    columns: int
    patch_height: int  # pixels
    patch_width: int  # pixels
    prefixes: frozenset[int]  # possible numbers of tokens before the patches

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    def prefix_tokens(self, tokens: int) -> int | None:
        """How many tokens come before the patches; None if so many tokens cannot lie over this grid."""
        prefix = tokens - self.patches
        return prefix if prefix in self.prefixes else None

    def spread(self, relevance: Tensor, height: int, width: int) -> Tensor:
        """Each patch's share for each of its pixels: (N, rows, columns) → (N, height, width).

        Pixels at the right and bottom edge that no patch covers get zero.
        """
        pixels = relevance.new_zeros(len(relevance), height, width)
        per_pixel = relevance / (self.patch_height * self.patch_width)
        covered = per_pixel.repeat_interleave(self.patch_height, -2).repeat_interleave(self.patch_width, -1)
        pixels[:, : covered.shape[-2], : covered.shape[-1]] = covered
        return pixels


def patch_grid(model: nn.Module, height: int, width: int) -> PatchGrid:
    """The patch grid that ``model`` lays over an image of ``height`` × ``width`` pixels.

    Raises:
        ValueError: if the model names no patch size or the image is smaller than one patch.
    """
    patch_height, patch_width = _patch_size(model)
    rows, columns = height // patch_height, width // patch_width
    grid = PatchGrid(rows, columns, patch_height, patch_width, _prefixes(model))
    if not grid.patches:
        raise ValueError(
            f"Expected images of at least one patch, {patch_height}x{patch_width} pixels, but got {height}x{width}."
        )
    return grid


def _patch_size(model: nn.Module) -> tuple[int, int]:
    for module in model.modules():
        size = getattr(_config(module), "patch_size", None)
        if size is not None:
            return (size, size) if isinstance(size, int) else (size[0], size[1])
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride and module.stride != (1, 1):
            return module.kernel_size[0], module.kernel_size[1]
    raise ValueError(
        f"Found no patch size in {type(model).__name__}: neither a config.patch_size nor a patch embedding "
        "(an nn.Conv2d whose kernel size is its stride). Only models that cut the image into patches can be explained."
    )


def _prefixes(model: nn.Module) -> frozenset[int]:
    named = []
    for module in model.modules():
        tokens = [
            getattr(module, name) for name in PREFIX_PARAMETERS if isinstance(getattr(module, name, None), Tensor)
        ]
        named.append(sum(token.shape[-2] if token.dim() > 1 else 1 for token in tokens))
    return frozenset(filter(None, named)) or frozenset(range(MAX_UNNAMED_PREFIX_TOKENS + 1))


def start_relevance(model: nn.Module, grid: PatchGrid, tokens: int) -> Tensor:
    """The share of each token (T,) in what the classifier reads.

    That is the CLS token, or the mean of the patches for models without prefix tokens, for those whose config says
    ``use_mean_pooling`` (BEiT, Data2Vec), and for CLIP's classifier.
    """
    prefix = tokens - grid.patches
    start = torch.zeros(tokens)
    if prefix == 0 or any(_pools_patches(module) for module in model.modules()):
        start[prefix:] = 1 / grid.patches
    else:
        start[0] = 1
    return start


def _pools_patches(module: nn.Module) -> bool:
    named = type(module).__name__ == "CLIPForImageClassification"  # nothing in its config says so
    return named or bool(getattr(_config(module), "use_mean_pooling", False))


def _config(module: nn.Module) -> Any:
    return getattr(module, "config", None)
