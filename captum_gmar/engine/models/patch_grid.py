"""Logits and patch grid of a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_gmar.engine.models.introspection import PREFIX_PARAMETERS, ModelInfo, inspect_model

# A model without named prefix tokens may have up to this many.
MAX_UNNAMED_PREFIX_TOKENS = 32

FRAME_COUNTS = ("num_frames", "frames_per_clip")  # of configs
TRACED = (torch.jit.ScriptModule, torch.fx.GraphModule)


def check_model(model: object) -> None:
    """Raise a TypeError unless the model is a ``torch.nn.Module``."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, but got {type(model).__name__}. Pass the model and forward_func= to "
            "explain a function of it."
        )


def check_classifies(model: nn.Module) -> None:
    """Raise a ValueError if the model generates words or reads the words of a page, which other classes explain."""
    can_generate = getattr(model, "can_generate", None)
    reads_page = getattr(config_of(model), "model_type", "") == "layoutlmv3"
    if reads_page or (callable(can_generate) and can_generate()):
        name = "captum_gmar.vlm.documents.DocumentEvidence" if reads_page else "AnswerEvidence"
        raise ValueError(
            f"model must be a classifier of images, but got {type(model).__name__}. Explain it by {name}, or pass "
            "forward_func= from pixel values to logits."
        )


def check_not_traced(model: nn.Module | ModelInfo) -> None:
    """Raise a RuntimeError if the model or a part of it is traced, scripted or exported."""
    info = inspect_model(model)
    kinds = set(map(type, info.named.values()))
    if any(issubclass(kind, TRACED) or kind.__module__.startswith("torch.export") for kind in kinds):
        raise RuntimeError(
            f"{type(info.model).__name__} needs visible calls of attention, but is traced or exported. Pass the model "
            "as it was before."
        )


def check_no_checkpointing(model: nn.Module | ModelInfo) -> None:
    """Raise a RuntimeError if the model uses gradient checkpointing."""
    if any(
        values.get("grad_checkpointing")  # timm: in evaluation mode too
        or (getattr(module, "training", False) and values.get("gradient_checkpointing"))
        for module, values in inspect_model(model).each("grad_checkpointing", "gradient_checkpointing")
    ):
        raise RuntimeError(
            "model must run without gradient checkpointing, but runs layers a second time in the backward pass. Call "
            "model.eval() or model.gradient_checkpointing_disable(), in timm model.set_grad_checkpointing(False)."
        )


def find_logits(output: object) -> Tensor | None:
    """Return the logits of an output, which is a tensor or has a ``logits`` tensor; else None."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def logits_of(output: object) -> Tensor:
    """Return the logits of :func:`find_logits`; raise a TypeError if there are none."""
    logits = find_logits(output)
    if logits is None:
        raise TypeError(
            "The model must return a tensor or an output with a `logits` tensor, "
            f"but got {type(output).__name__}. Pass forward_func=, a callable that runs the model on the "
            "inputs and returns the tensor to explain."
        )
    return logits


def check_rows(outputs: Tensor, examples: int, layers: int = 1) -> None:
    """Raise a RuntimeError unless there is one output row per example and layer readout."""
    rows = len(outputs) if outputs.dim() else 0
    if rows != layers * examples:
        layer_text = f"of {layers} layers " if layers > 1 else ""
        raise RuntimeError(
            f"forward_func must return {layers * examples} outputs, {layer_text}for {examples} examples, but got "
            f"{rows}. Handle any number of examples, each on its own."
        )


class Logits:
    """Callable that returns the logits of ``forward_func`` as a tensor, for Captum's methods.

    ``run`` is ``forward_func`` without wrappers for data parallelism, which use other threads or prepare training.
    """

    run: Callable[..., Any]

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        if isinstance(forward_func, nn.DataParallel | nn.parallel.DistributedDataParallel):
            forward_func = forward_func.module
        if isinstance(forward_func, Logits):
            forward_func = forward_func.run
        if not callable(forward_func):
            raise TypeError(
                f"forward_func must be a callable from inputs to a tensor, but got {type(forward_func).__name__}."
            )
        self.run = forward_func

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return logits_of(self.run(*args, **kwargs))


class PatchGrid(NamedTuple):
    """Patch grid of an image."""

    rows: int
    columns: int
    patch_height: int  # pixels
    patch_width: int  # pixels
    prefixes: frozenset[int]  # possible numbers of tokens before the patches

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.rows * self.columns

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.patch_height, self.patch_width

    def prefix_tokens(self, tokens: int) -> int | None:
        """Return the number of tokens before the patches, or None if a number of tokens does not fit the grid."""
        prefix = tokens - self.patches
        return prefix if prefix in self.prefixes else None

    def spread(self, relevance: Tensor, height: int, width: int) -> Tensor:
        """Distribute relevance (N, rows, columns) evenly over pixels (N, height, width); other edges get 0."""
        pixels = relevance.new_zeros(len(relevance), height, width)
        per_pixel = relevance / (self.patch_height * self.patch_width)
        patches = per_pixel.repeat_interleave(self.patch_height, -2).repeat_interleave(self.patch_width, -1)
        pixels[:, : patches.shape[-2], : patches.shape[-1]] = patches
        return pixels

    def spread_like(self, relevance: Tensor, inputs: Tensor) -> Tensor:
        """Distribute relevance (N, rows, columns) evenly over the inputs' pixels and channels, preserving the sum."""
        _, channels, height, width = inputs.shape
        shares = self.spread(relevance, height, width) / channels
        return shares[:, None].expand(-1, channels, -1, -1).to(inputs.device, inputs.dtype).contiguous()

    def crop(self, attributions: Tensor) -> Tensor:
        """Remove pixels outside all patches from (..., height, width), at the right and bottom edges."""
        return attributions[..., : self.rows * self.patch_height, : self.columns * self.patch_width]


def patch_grid(model: nn.Module | ModelInfo, height: int, width: int) -> PatchGrid:
    """Return the model's patch grid for an image of ``height`` × ``width`` pixels."""
    info = inspect_model(model)
    size = _find_patch_size(info)
    if size is None:
        raise no_patch_size_error(info)
    patch_height, patch_width = size
    rows, columns = height // patch_height, width // patch_width
    named = info.tokens(PREFIX_PARAMETERS)
    # A named token may be the query of attention pooling, so 0 is possible too.
    prefixes = frozenset({0, *named} if named else range(MAX_UNNAMED_PREFIX_TOKENS + 1))
    grid = PatchGrid(rows, columns, patch_height, patch_width, prefixes)
    if not grid.patches:
        raise ValueError(f"inputs must be at least a patch, {patch_height}x{patch_width}, but got {height}x{width}.")
    return grid


def has_patch_size(info: ModelInfo) -> bool:
    """Return whether the model has a patch size, or is a single module, which needs none."""
    if _find_patch_size(info) is not None or next(info.model.children(), None) is None:
        return True
    check_not_traced(info)
    return False


def _find_patch_size(info: ModelInfo) -> tuple[int, int] | None:
    for config in info.values("config"):
        size = getattr(config, "patch_size", None)
        if size is not None:
            return (size, size) if isinstance(size, int) else (size[0], size[1])
    for module in info.named.values():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and is_patch_embedding(module):
            return module.kernel_size[-2], module.kernel_size[-1]
    return None


def no_patch_size_error(info: ModelInfo) -> ValueError:
    """Return the error for a model without patches."""
    check_not_traced(info)
    return ValueError(
        f"{type(info.model).__name__} must have a config.patch_size or a patch embedding (an nn.Conv2d whose kernel "
        "size is its stride), but has neither. Pass a model that cuts the image into patches."
    )


def is_patch_embedding(module: nn.Module) -> bool:
    """Return whether a module is a convolution that cuts images or videos into patches."""
    if not isinstance(module, nn.Conv2d | nn.Conv3d):
        return False
    return module.kernel_size == module.stride and any(step > 1 for step in module.stride)


def frame_count(model: nn.Module) -> int | None:
    """Return the number of video frames in the model's config, or None for image models."""
    if "ForImageClassification" in type(model).__name__:  # the config of Perceiver counts frames for its other models
        return None
    counts = (getattr(config_of(model), name, None) for name in FRAME_COUNTS)
    return next((count for count in counts if count), None)


def tube_frames(model: nn.Module) -> int:
    """Return the number of frames per patch in a video model's patch embedding."""
    embeddings = (module for module in model.modules() if isinstance(module, nn.Conv3d) and is_patch_embedding(module))
    return next((embedding.kernel_size[0] for embedding in embeddings), 1)


def config_of(module: nn.Module) -> Any:
    """Return the config of a module of transformers, or None."""
    return getattr(module, "config", None)
