"""What must be known of a model: its logits and its patch grid."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_gmar.engine.models.introspection import PREFIX_PARAMETERS, Survey, surveyed

# How many tokens there may be before the patches in a model that names none of them.
MAX_UNNAMED_PREFIX_TOKENS = 32

FRAME_COUNTS = ("num_frames", "frames_per_clip")  # of configs
TRACED = (torch.jit.ScriptModule, torch.fx.GraphModule)


def check_model(model: object) -> None:
    """
    Raises:
        TypeError: if it is no ``torch.nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module. Got {type(model).__name__} instead. To explain what a function makes of "
            "a model, pass the model and forward_func=."
        )


def check_not_traced(model: nn.Module | Survey) -> None:
    """
    Raises:
        RuntimeError: if the model, or a part of it, is traced, scripted or exported.
    """
    survey = surveyed(model)
    kinds = set(map(type, survey.named.values()))
    if any(issubclass(kind, TRACED) or kind.__module__.startswith("torch.export") for kind in kinds):
        raise RuntimeError(
            f"No attention was met in {type(survey.model).__name__}: it is traced or exported, which compiles the "
            "calls of its attention away. Pass the model as it was before."
        )


def check_no_checkpointing(model: nn.Module | Survey) -> None:
    """
    Raises:
        RuntimeError: if the model runs layers a second time on the way back.
    """
    if any(
        values.get("grad_checkpointing")  # timm's, in evaluation mode as well
        or (getattr(module, "training", False) and values.get("gradient_checkpointing"))
        for module, values in surveyed(model).each("grad_checkpointing", "gradient_checkpointing")
    ):
        raise RuntimeError(
            "Expected a model without gradient checkpointing, which runs each layer a second time on the way back. "
            "Call model.eval() or model.gradient_checkpointing_disable() first; in timm "
            "model.set_grad_checkpointing(False)."
        )


def find_logits(output: object) -> Tensor | None:
    """The logits of what a model returns, a tensor or an output with a ``logits`` tensor; None if there are none."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def logits_of(output: object) -> Tensor:
    """As :func:`find_logits`.

    Raises:
        TypeError: if there are none.
    """
    logits = find_logits(output)
    if logits is None:
        raise TypeError(
            "The model must return a tensor or an output with a `logits` tensor. "
            f"Got {type(output).__name__} instead. Pass forward_func=, a callable that runs the model on the "
            "inputs and returns the tensor to explain."
        )
    return logits


def check_rows(outputs: Tensor, examples: int, layers: int = 1) -> None:
    """Check that the outputs are one row per example, and per layer where layers run apart.

    Raises:
        RuntimeError: if there are more or fewer.
    """
    rows = len(outputs) if outputs.dim() else 0
    if rows != layers * examples:
        of_layers = f"of {layers} layers " if layers > 1 else ""
        raise RuntimeError(
            f"Expected {layers * examples} outputs, {of_layers}for {examples} examples, but got {rows}. forward_func "
            "must handle each example by itself, any number of them."
        )


class Logits:
    """Runs ``forward_func`` and returns its logits as a tensor, which is what Captum's own methods need.

    ``run`` is ``forward_func`` itself, for those that need no logits.

    Args:
        forward_func: a model, or any callable, returning a tensor or an output with a ``logits`` tensor. Of a model
            wrapped for data parallelism what is wrapped is run: the wrapper would run it in other threads, or prepare
            it for training.
    """

    run: Callable[..., Any]

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        if isinstance(forward_func, nn.DataParallel | nn.parallel.DistributedDataParallel):
            forward_func = forward_func.module
        if isinstance(forward_func, Logits):
            forward_func = forward_func.run
        if not callable(forward_func):
            raise TypeError(
                "forward_func must be a callable that takes the inputs and returns a tensor. Got "
                f"{type(forward_func).__name__} instead."
            )
        self.run = forward_func

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return logits_of(self.run(*args, **kwargs))


class PatchGrid(NamedTuple):
    """How an image is cut into patches."""

    rows: int
    columns: int
    patch_height: int  # pixels
    patch_width: int  # pixels
    prefixes: frozenset[int]  # possible numbers of tokens before the patches

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def patches(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return self.patch_height, self.patch_width

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

    def spread_like(self, relevance: Tensor, inputs: Tensor) -> Tensor:
        """Each patch's share for each of its pixels and channels: (N, rows, columns) → as ``inputs`` are.

        The sum over a patch is its relevance, up to the rounding of the inputs' dtype.
        """
        _, channels, height, width = inputs.shape
        shares = self.spread(relevance, height, width) / channels
        return shares[:, None].expand(-1, channels, -1, -1).to(inputs.device, inputs.dtype).contiguous()

    def covered(self, attributions: Tensor) -> Tensor:
        """What lies on the patches: (..., height, width) without the pixels at the right and bottom edge that none
        covers."""
        return attributions[..., : self.rows * self.patch_height, : self.columns * self.patch_width]


def patch_grid(model: nn.Module | Survey, height: int, width: int) -> PatchGrid:
    """The patch grid that ``model`` lays over an image of ``height`` × ``width`` pixels.

    Raises:
        ValueError: if the model names no patch size or the image is smaller than one patch.
    """
    survey = surveyed(model)
    size = _find_patch_size(survey)
    if size is None:
        raise no_patch_size_error(survey)
    patch_height, patch_width = size
    rows, columns = height // patch_height, width // patch_width
    grid = PatchGrid(rows, columns, patch_height, patch_width, _prefixes(survey))
    if not grid.patches:
        raise ValueError(
            f"Expected images of at least one patch, {patch_height}x{patch_width} pixels, but got {height}x{width}."
        )
    return grid


def has_patch_size(survey: Survey) -> bool:
    """Return whether the model names its patch size, or is one module alone, of which no grid is expected.

    Raises:
        RuntimeError: if it does not, and is traced or exported.
    """
    if _find_patch_size(survey) is not None or next(survey.model.children(), None) is None:
        return True
    check_not_traced(survey)
    return False


def _find_patch_size(survey: Survey) -> tuple[int, int] | None:
    for config in survey.values("config"):
        size = getattr(config, "patch_size", None)
        if size is not None:
            return (size, size) if isinstance(size, int) else (size[0], size[1])
    for module in survey.named.values():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and is_patch_embedding(module):
            return module.kernel_size[-2], module.kernel_size[-1]
    return None


def no_patch_size_error(survey: Survey) -> ValueError:
    """Return the error of a model that cuts no patches.

    Raises:
        RuntimeError: if the model is traced or exported.
    """
    check_not_traced(survey)
    return ValueError(
        f"Found no patch size in {type(survey.model).__name__}: neither a config.patch_size nor a patch embedding "
        "(an nn.Conv2d whose kernel size is its stride). Only models that cut the image into patches can be explained."
    )


def _prefixes(survey: Survey) -> frozenset[int]:
    named = survey.tokens(PREFIX_PARAMETERS)
    # A token that is named may also be the query of a pooling attention, so that none comes before the patches.
    return frozenset({0, *named} if named else range(MAX_UNNAMED_PREFIX_TOKENS + 1))


def is_patch_embedding(module: nn.Module) -> bool:
    """Whether it is a convolution that cuts the image, or the video, into patches."""
    if not isinstance(module, nn.Conv2d | nn.Conv3d):
        return False
    return module.kernel_size == module.stride and any(step > 1 for step in module.stride)


def frames_of(model: nn.Module) -> int | None:
    """How many frames of a video a model takes, as its config says; None if it says nothing, as of models of images."""
    counts = (getattr(config_of(model), name, None) for name in FRAME_COUNTS)
    return next((count for count in counts if count), None)


def tube_frames(model: nn.Module) -> int:
    """How many frames a model of videos takes together in a patch, as its patch embedding says."""
    embeddings = (module for module in model.modules() if isinstance(module, nn.Conv3d) and is_patch_embedding(module))
    return next((embedding.kernel_size[0] for embedding in embeddings), 1)


def config_of(module: nn.Module) -> Any:
    """The config that transformers gives a module; None if it has none."""
    return getattr(module, "config", None)
