"""Tokens where relevance starts: those that the classifier reads, or the user's choice."""

from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from captum_gmar.engine.models.introspection import (
    CLS_PARAMETERS,
    DISTILLATION_PARAMETERS,
    PREFIX_PARAMETERS,
    ModelInfo,
    inspect_model,
)
from captum_gmar.engine.models.patch_grid import PatchGrid

Patch: TypeAlias = tuple[int, int]  # (row, column), both from 0 at the top left
Part: TypeAlias = Literal["cls", "distillation", "patches"] | Patch
Start: TypeAlias = Part | list[Part]
STARTS = ("cls", "distillation", "patches")
START_FORMS = f"one of {list(STARTS)}, a patch as a tuple (row, column) of integers, or a list of these"

# Classifiers that read other tokens than the CLS token or, without one, the patches. Their configs do not say so.
READS: dict[str, tuple[str, ...]] = {
    "CLIPForImageClassification": ("patches",),
    "MetaClip2ForImageClassification": ("patches",),
    "Dinov2ForImageClassification": ("cls", "patches"),
    "Dinov2WithRegistersForImageClassification": ("cls", "patches"),
    "DeiTForImageClassificationWithTeacher": ("cls", "distillation"),
}
TIMM_PATCH_POOLS = ("avg", "avgmax", "max", "map")


def check_start(start: Start | None) -> None:
    """Check the form of ``start``, independently of the model."""
    parts = start if isinstance(start, list) else [] if start is None else [start]
    if not all(isinstance(part, str) or _is_patch(part) for part in parts):
        raise TypeError(f"tokens must be {START_FORMS}, but got {start!r}.")
    if not all(part in STARTS or _is_patch(part) for part in parts):
        raise ValueError(f"tokens must be {START_FORMS}, but got {start!r}.")
    if start == [] or len(set(parts)) < len(parts):
        raise ValueError(f"tokens must be at least one, each listed once, but got {start!r}.")


def _is_patch(part: object) -> bool:
    if not isinstance(part, tuple) or len(part) != 2:
        return False
    return all(isinstance(number, Integral) and not isinstance(number, bool) for number in part)


def start_relevance(model: nn.Module | ModelInfo, grid: PatchGrid, tokens: int, start: Start | None = None) -> Tensor:
    """Return the tokens' relevance (T,) after the last layer, with sum 1, in double precision on the CPU.

    Without ``start``, relevance starts at the tokens that the classifier reads, usually the CLS token. It starts at the
    mean of the patches in models without a CLS token (I-JEPA, SigLIP), with ``use_mean_pooling`` in the config (BEiT,
    Data2Vec), with such a ``global_pool`` of timm, and in CLIP's classifier. Half of the relevance starts at the CLS
    token and half at the patches in DINOv2, or at the distillation token in DeiT with teacher.

    The shares do not depend on the head's weights, and pooling by maximum or attention counts as mean. For a custom
    head that reads other tokens, pass ``start``: "cls", "distillation", "patches" (their mean), a patch (row, column),
    or a list of these with equal shares.
    """
    check_start(start)
    prefix = tokens - grid.patches
    info = inspect_model(model)
    named = max(info.tokens(CLS_PARAMETERS), default=0)
    cls = min(prefix, named or int(not info.tokens(PREFIX_PARAMETERS)))  # one if the model names no prefix token
    reads = next(filter(None, (_module_reads(module, values) for module, values in info.modules)), ())
    parts = _parts(start) or reads or (("cls",) if cls else ("patches",))
    relevance = torch.zeros(tokens, dtype=torch.float64, device="cpu")
    for part in parts:
        if isinstance(part, tuple):
            relevance[prefix + _patch_index(grid, *part)] += 1
        else:
            share = relevance[_token_range(info, part, prefix, cls)]
            share += 1 / len(share)
    return relevance / len(parts)


def pools_maxima(model: nn.Module | ModelInfo) -> bool:
    """Return whether the classifier pools by maximum, as timm's may, and so does not read every patch."""
    return any(pool in ("max", "avgmax") for pool in inspect_model(model).values("global_pool"))


def _parts(start: Start | None) -> tuple[str | Patch, ...]:
    if start is None:
        return ()
    return tuple(start) if isinstance(start, list) else (start,)


def _module_reads(module: nn.Module, values: dict[str, Any]) -> tuple[str, ...]:
    """Return the classifier's tokens by a module's attributes, or nothing if unknown."""
    for kind in type(module).__mro__:
        if kind.__name__ in READS:
            return READS[kind.__name__]
    if getattr(values.get("config"), "use_mean_pooling", False):
        return ("patches",)
    pool = values.get("global_pool")
    return _timm_reads(values, pool) if isinstance(pool, str) else ()


def _timm_reads(values: dict[str, Any], pool: str) -> tuple[str, ...]:
    if "head_dist" in values:
        return ("cls", "distillation")
    if pool not in TIMM_PATCH_POOLS:
        return ()
    # EVA's attention pooling reads all tokens; other models have an attribute for it.
    return ("tokens",) if values.get("pool_include_prefix", pool == "map") else ("patches",)


def _token_range(info: ModelInfo, part: str, prefix: int, cls: int) -> slice:
    if part == "patches":
        return slice(prefix, None)
    if part == "tokens":
        return slice(None)
    distillation = max(info.tokens(DISTILLATION_PARAMETERS), default=0)
    tokens = slice(0, cls) if part == "cls" else slice(cls, cls + min(distillation, prefix - cls))
    if tokens.start == tokens.stop:
        raise ValueError(
            f"tokens must be of the model, but {type(info.model).__name__} has {prefix} tokens before the patches and "
            f'no {part!r}. Pass "patches", a patch (row, column), or None for what the classifier reads.'
        )
    return tokens


def _patch_index(grid: PatchGrid, row: int, column: int) -> int:
    if not (0 <= row < grid.rows and 0 <= column < grid.columns):
        raise ValueError(
            f"tokens must be within the {grid.rows}x{grid.columns} patch grid (rows x columns, counted from 0), but "
            f"got the patch {(int(row), int(column))}. Divide pixel positions by the patch size, "
            f"{grid.patch_height}x{grid.patch_width} pixels."
        )
    return row * grid.columns + column
