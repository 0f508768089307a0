"""Where relevance begins: at the tokens that a model's classifier reads, or at those that the user names."""

from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from captum_gmar.engine.models.introspection import (
    CLS_PARAMETERS,
    DISTILLATION_PARAMETERS,
    PREFIX_PARAMETERS,
    Survey,
    surveyed,
)
from captum_gmar.engine.models.patch_grid import PatchGrid

Patch: TypeAlias = tuple[int, int]  # (row, column), both from 0 at the top left
Part: TypeAlias = Literal["cls", "distillation", "patches"] | Patch
Start: TypeAlias = Part | list[Part]
STARTS = ("cls", "distillation", "patches")
START_FORMS = f"one of {list(STARTS)}, a patch as a tuple (row, column) of integers, or a list of these"

# What a classifier reads, in equal parts, where it is not the CLS token or, for want of one, the patches. Nothing in
# the configs of these says so.
READS: dict[str, tuple[str, ...]] = {
    "CLIPForImageClassification": ("patches",),
    "MetaClip2ForImageClassification": ("patches",),
    "Dinov2ForImageClassification": ("cls", "patches"),
    "Dinov2WithRegistersForImageClassification": ("cls", "patches"),
    "DeiTForImageClassificationWithTeacher": ("cls", "distillation"),
}
TIMM_PATCH_POOLS = ("avg", "avgmax", "max", "map")


def check_start(start: Start | None) -> None:
    """Checks the form of ``start``; whether the model has such tokens shows when it is used.

    Raises:
        TypeError: if ``start`` is no string, patch or list of these.
        ValueError: if it is or lists an unknown string, or is an empty list, or lists something twice.
    """
    parts = start if isinstance(start, list) else [] if start is None else [start]
    if not all(isinstance(part, str) or _is_patch(part) for part in parts):
        raise TypeError(f"The tokens that relevance starts at must be {START_FORMS}. Got {start!r} instead.")
    if not all(part in STARTS or _is_patch(part) for part in parts):
        raise ValueError(f"The tokens that relevance starts at must be {START_FORMS}. Got {start!r} instead.")
    if start == [] or len(set(parts)) < len(parts):
        raise ValueError(
            "The tokens that relevance starts at must be at least one, and each of them listed once. "
            f"Got {start!r} instead."
        )


def _is_patch(part: object) -> bool:
    return isinstance(part, tuple) and len(part) == 2 and all(map(_is_index, part))


def _is_index(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def start_relevance(model: nn.Module | Survey, grid: PatchGrid, tokens: int, start: Start | None = None) -> Tensor:
    """The relevance (T,) that the tokens start with above the last layer, summing to 1; in double precision on the CPU.

    Without ``start`` it lies where the classifier reads: at the CLS token, or at the mean of the patches in models
    without CLS token (I-JEPA, SigLIP), in those whose config says ``use_mean_pooling`` (BEiT, Data2Vec), in timm's
    with such a ``global_pool``, and in CLIP's classifier. DINOv2's classifier joins the CLS token and the mean of the
    patches, and DeiT's with teacher averages the logits of the CLS and the distillation token: half of the relevance
    starts at each.

    These are shares by construction, not by what the head's weights make of each part, and pooling by maximum or
    attention counts as mean. A head of your own on a bare backbone may read other tokens than the CLS token: name
    them by ``start``.

    Args:
        model: asked for what its classifier reads.
        grid: the patches that it lays over the image.
        tokens: T, prefix tokens and patches.
        start: the tokens to start at instead: "cls", "distillation", "patches" (their mean), a patch
            (row, column), or a list of these that share evenly.

    Raises:
        TypeError: if ``start`` is of another form.
        ValueError: if the model has no such token or the grid no such patch.
    """
    check_start(start)
    prefix = tokens - grid.patches
    survey = surveyed(model)
    cls = _cls_tokens(survey, prefix)
    parts = _parts(start) or _reads(survey) or (("cls",) if cls else ("patches",))
    relevance = torch.zeros(tokens, dtype=torch.float64, device="cpu")
    for part in parts:
        if isinstance(part, tuple):
            relevance[prefix + _patch_index(grid, *part)] += 1
        else:
            share = relevance[_token_range(survey, part, prefix, cls)]
            share += 1 / len(share)
    return relevance / len(parts)


def pools_maxima(model: nn.Module | Survey) -> bool:
    """Whether the classifier reads the largest values over the patches, as timm's may: then not of every patch."""
    return any(pool in ("max", "avgmax") for pool in surveyed(model).values("global_pool"))


def _parts(start: Start | None) -> tuple[str | Patch, ...]:
    if start is None:
        return ()
    return tuple(start) if isinstance(start, list) else (start,)


def _reads(survey: Survey) -> tuple[str, ...]:
    """What the model says of its classifier; nothing if it says nothing."""
    each = (_module_reads(module, values) for module, values in survey.modules)
    return next(filter(None, each), ())


def _module_reads(module: nn.Module, values: dict[str, Any]) -> tuple[str, ...]:
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
    # EVA's attention pooling reads all tokens; other models say whether pooling does.
    return ("tokens",) if values.get("pool_include_prefix", pool == "map") else ("patches",)


def _cls_tokens(survey: Survey, prefix: int) -> int:
    """How many CLS tokens come first: as many as the model names, or one if it names none of its prefix tokens."""
    named = max(survey.tokens(CLS_PARAMETERS), default=0)
    return min(prefix, named or int(not survey.tokens(PREFIX_PARAMETERS)))


def _token_range(survey: Survey, part: str, prefix: int, cls: int) -> slice:
    if part == "patches":
        return slice(prefix, None)
    if part == "tokens":
        return slice(None)
    distillation = max(survey.tokens(DISTILLATION_PARAMETERS), default=0)
    tokens = slice(0, cls) if part == "cls" else slice(cls, cls + min(distillation, prefix - cls))
    if tokens.start == tokens.stop:
        raise ValueError(
            f"Expected a model with a token {part!r} that relevance can start at, but "
            f"{type(survey.model).__name__} puts "
            f'{prefix} tokens before the patches and none is such. Pass "patches", a patch (row, column), or None, '
            "which takes what the classifier reads."
        )
    return tokens


def _patch_index(grid: PatchGrid, row: int, column: int) -> int:
    if not (0 <= row < grid.rows and 0 <= column < grid.columns):
        raise ValueError(
            f"Expected relevance to start within the {grid.rows}x{grid.columns} patch grid (rows x columns, counted "
            f"from 0) but got the patch {(int(row), int(column))}. Divide pixel positions by the patch size, "
            f"{grid.patch_height}x{grid.patch_width} pixels."
        )
    return row * grid.columns + column
