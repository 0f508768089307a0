"""Which place in a picture each image token of a generating model stands for, told from what its processor returned."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor


class PictureTokens(NamedTuple):
    """The tokens of one picture.

    Attributes:
        columns: (rows, columns) of positions in the sequence that is attended to; of a picture cut into tiles, the
            tiles' put together.
        is_encoded: whether that is the encoder's sequence, read by cross-attention; else the decoder's own.
        overview: (rows, columns) of further tokens, of the whole picture at once, if it was cut into tiles as well.
    """

    columns: Tensor
    is_encoded: bool = False
    overview: Tensor | None = None

    def map(self, relevance: Tensor) -> Tensor:
        """(W, rows, columns) of relevance (W, S): what an overview's token holds is shared out by area among the places
        that it shows."""
        of_places = relevance[:, self.columns.to(relevance.device)]
        if self.overview is None:
            return of_places
        of_overview = relevance[:, self.overview.to(relevance.device)]
        down, across = (
            _overlap(*sizes).to(relevance) for sizes in zip(self.columns.shape, self.overview.shape, strict=True)
        )
        return of_places + down @ of_overview @ across.mT

    @property
    def positions(self) -> Tensor:
        """Of all the picture's tokens."""
        parts = [self.columns] if self.overview is None else [self.columns, self.overview]
        return torch.cat([part.flatten() for part in parts])


def _overlap(fine: int, coarse: int) -> Tensor:
    """(fine, coarse): which share of each coarse interval lies in each fine one, where both cut up the same length."""
    begins, ends = torch.arange(fine)[:, None] * coarse, (torch.arange(fine)[:, None] + 1) * coarse
    first, last = torch.arange(coarse) * fine, (torch.arange(coarse) + 1) * fine
    return (torch.minimum(ends, last) - torch.maximum(begins, first)).clamp(min=0).double() / fine


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
        grids = grid(model, arguments, int(_is_image(model, arguments).sum()))
        counts = [rows * columns for rows, columns in grids]
        places = _image_places(model, arguments, sum(counts))
        parts = zip(torch.split(places, counts), grids, strict=True)
        return [PictureTokens(part.view(shape)) for part, shape in parts]

    return layout


def _is_image(model: Any, arguments: Mapping[str, Any]) -> Tensor:
    return torch.as_tensor(arguments["input_ids"][0] == image_token_id(model))


def _image_places(model: Any, arguments: Mapping[str, Any], expected: int) -> Tensor:
    """Where the prompt's image tokens are.

    Raises:
        ValueError: if they are not as many as expected.
    """
    places = _is_image(model, arguments).nonzero().flatten()
    if len(places) != expected:
        raise ValueError(
            f"inputs must hold as many image tokens as their pictures have places, {expected}. Got {len(places)} "
            "instead. Do they come from this model's processor?"
        )
    return places


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


def _anyres(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens]:
    """LLaVA-NeXT's and LLaVA-OneVision's: an overview, then the tiles' tokens row by row, without what was padded, and
    a new line after each row. The model itself lays out numbers, in place of what its tower makes of each tile."""
    config, sizes = model.config, arguments["image_sizes"].cpu()
    side = config.vision_config.image_size // config.vision_config.patch_size
    if config.model_type == "llava_next":
        options = {"vision_feature_select_strategy": "default"}
        tiles = [_tiles_of(model, size) for size in sizes]
    else:
        options = {"vision_aspect_ratio": config.vision_aspect_ratio}
        tiles = [_tiles_of(model, size) if len(sizes) == 1 else 1 for size in sizes]
    numbers = [torch.ones(count, side * side, 1).index_fill(0, torch.tensor([0]), 0) for count in tiles]
    laid_out, lengths = model.model.pack_image_features(numbers, sizes, image_newline=torch.tensor([-1.0]), **options)
    places = torch.split(_image_places(model, arguments, int(lengths.sum())), lengths.tolist())
    return [_overview_and_rows(part, kinds[:, 0].round(), side) for part, kinds in zip(places, laid_out, strict=True)]


def _tiles_of(model: Any, size: Tensor) -> int:
    """How many tiles a picture of this size is cut into, with its overview."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    number: int = image_size_to_num_patches(
        size, model.config.image_grid_pinpoints, model.config.vision_config.image_size
    )
    return number


def _overview_and_rows(places: Tensor, kinds: Tensor, side: int) -> PictureTokens:
    """Of one picture's tokens: 0 of the overview, 1 of tiles, -1 at the end of each row."""
    overview = places[kinds == 0].view(side, side)
    of_tiles = places[kinds == 1]
    if not len(of_tiles):
        return PictureTokens(overview)
    return PictureTokens(of_tiles.view(int((kinds == -1).sum()), -1), overview=overview)


def _tiles_in_rows(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens] | None:
    """Idefics 3's: a picture's tiles, each after a mark and its own token, a new line after each row, and an overview
    after a token that all pictures share. None where the prompt does not tell them apart."""
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size // model.config.scale_factor
    tiles = arguments["pixel_values"].flatten(0, -4).shape[0]
    places = _image_places(model, arguments, tiles * side * side).view(tiles, side, side)
    before = arguments["input_ids"][0][places[:, 0, 0] - 1]
    if (places[1:, 0, 0] - places[:-1, -1, -1] < 3).any():
        return None
    ends = [number for number, token in enumerate(before.tolist(), 1) if token == before[-1]]
    return [_tiles_and_overview(places[first:end]) for first, end in pairwise([0, *ends])]


def _tiles_and_overview(places: Tensor) -> PictureTokens:
    """Of one picture's tiles (tiles, rows, columns), the overview last: two tokens stand between those of one row."""
    *tiles, overview = places
    if not tiles:
        return PictureTokens(overview)
    starts = [0, *(n for n in range(1, len(tiles)) if tiles[n][0, 0] - tiles[n - 1][-1, -1] > 3), len(tiles)]
    rows = [torch.cat(tiles[first:end], 1) for first, end in pairwise(starts)]
    return PictureTokens(torch.cat(rows), overview=overview)


def _untiled(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens] | None:
    """InternVL's, of pictures of one tile each. None of several: how they lie is not in what the processor returns."""
    tiles, tokens = arguments["pixel_values"].flatten(0, -4).shape[0], model.config.image_seq_length
    places = _image_places(model, arguments, tiles * tokens).view(tiles, -1)
    is_apart = (places[1:, 0] - places[:-1, -1] > 1).all()
    side = math.isqrt(tokens)
    return [PictureTokens(place.view(side, side)) for place in places] if is_apart else None


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


LAYOUTS: dict[str, Callable[[Any, Mapping[str, Any], int], list[PictureTokens] | None]] = {
    **dict.fromkeys(("paligemma", "gemma3"), _in_prompt(_square)),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _in_prompt(_merged_grids)),
    "llava": _in_prompt(_llava),
    **dict.fromkeys(("llava_next", "llava_onevision"), _anyres),
    **dict.fromkeys(("idefics3", "smolvlm"), _tiles_in_rows),
    "internvl": _untiled,
    "mistral3": _in_prompt(_sized),
    "vision-encoder-decoder": _at_end_of_encoded,
    "florence2": _after_mean,
    "git": _before_text,
}
