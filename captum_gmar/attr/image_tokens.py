"""Which place in a picture each image token of a generating model stands for, told from what its processor returned."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class PictureTokens(NamedTuple):
    """The tokens of one picture.

    Attributes:
        columns: (rows, columns) of positions in the sequence that is attended to.
        is_encoded: whether that is the encoder's sequence, read by cross-attention; else the decoder's own.
    """

    columns: Tensor
    is_encoded: bool = False


def image_token_id(model: Any) -> int | None:
    """Of the token that stands for a part of a picture in a prompt; None if the model has none."""
    number = getattr(model.config, "image_token_id", None)
    return getattr(model.config, "image_token_index", None) if number is None else number


def picture_tokens(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens] | None:
    """The tokens of every picture, in the order of the pictures; None if the model's way to lay them out is not known.

    Args:
        model: of transformers.
        arguments: what its processor returned, of one example.
        length: of the sequence that is attended to: of the encoder's, if there is one, else of the decoder's own.

    Raises:
        ValueError: if the tokens are not as many as the pictures have places.
    """
    if arguments.get("pixel_values") is None:
        return []
    layout = LAYOUTS.get(model.config.model_type)
    return None if layout is None else layout(model, arguments, length)


def _in_prompt(grid: Callable[[Any, Mapping[str, Any], int], list[tuple[int, int]]]) -> Any:
    """A layout of image tokens that stand in the prompt, picture after picture, each in rows."""

    def layout(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens]:
        places = (arguments["input_ids"][0] == image_token_id(model)).nonzero().flatten()
        grids = grid(model, arguments, len(places))
        counts = [rows * columns for rows, columns in grids]
        if sum(counts) != len(places):
            raise ValueError(
                f"inputs must hold as many image tokens as their pictures have places, {sum(counts)} in grids of "
                f"{grids}. Got {len(places)} instead. Do they come from this model's processor?"
            )
        parts = zip(places.split(counts), grids, strict=True)
        return [PictureTokens(part.view(shape)) for part, shape in parts]

    return layout


def _square(model: Any, arguments: Mapping[str, Any], tokens: int) -> list[tuple[int, int]]:
    """Every picture resized to one square."""
    pictures = len(arguments["pixel_values"].flatten(0, -4))
    side = math.isqrt(tokens // max(pictures, 1))
    return [(side, side)] * pictures


def _merged_grids(model: Any, arguments: Mapping[str, Any], tokens: int) -> list[tuple[int, int]]:
    """Of Qwen's kind: the grid of patches that the processor returned, several of which make one token."""
    side = model.config.vision_config.spatial_merge_size
    return [(int(time * rows) // side, int(columns) // side) for time, rows, columns in arguments["image_grid_thw"]]


def _sized(model: Any, arguments: Mapping[str, Any], tokens: int) -> list[tuple[int, int]]:
    """Of Pixtral's kind: as many patches as the picture has, several of which may make one token."""
    patch = model.config.vision_config.patch_size * getattr(model.config, "spatial_merge_size", 1)
    return [(int(height) // patch, int(width) // patch) for height, width in arguments["image_sizes"]]


def _llava(model: Any, arguments: Mapping[str, Any], tokens: int) -> list[tuple[int, int]]:
    return (_sized if model.config.vision_config.model_type == "pixtral" else _square)(model, arguments, tokens)


def _after_mean(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens]:
    """Florence-2's: in the encoder's sequence, after a token that is the mean of the picture's."""
    places = (arguments["input_ids"][0] == model.config.image_token_id).nonzero().flatten()[1:]
    step = math.prod(model.config.vision_config.patch_stride)
    rows, columns = (-(-side // step) for side in arguments["pixel_values"].shape[-2:])
    return [PictureTokens(places.view(rows, columns), True)]


def _at_end_of_encoded(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens]:
    """What a vision transformer returns: the patches after its other tokens."""
    height, width = arguments["pixel_values"].shape[-2:]
    patch = getattr(getattr(model.config, "encoder", None), "patch_size", None)
    if not isinstance(patch, int) or (height // patch) * (width // patch) > length:
        raise ValueError(
            f"model must have an encoder that returns one token for every patch. Got {length} tokens for a picture of "
            f"{height}x{width} pixels and patches of {patch} instead."
        )
    rows, columns = height // patch, width // patch
    return [PictureTokens(torch.arange(length - rows * columns, length).view(rows, columns), True)]


def _before_text(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens]:
    """GIT's: what a vision transformer returns, in the decoder's sequence before the text."""
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    return [PictureTokens(torch.arange(1, 1 + side * side).view(side, side))]


LAYOUTS: dict[str, Callable[[Any, Mapping[str, Any], int], list[PictureTokens]]] = {
    **dict.fromkeys(("paligemma", "gemma3"), _in_prompt(_square)),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _in_prompt(_merged_grids)),
    "llava": _in_prompt(_llava),
    "mistral3": _in_prompt(_sized),
    "vision-encoder-decoder": _at_end_of_encoded,
    "florence2": _after_mean,
    "git": _before_text,
}
