"""Which place in a picture each image token of a generating model stands for, told from what its processor returned.

A further model is a layout, and a row of ``LAYOUTS``.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from captum_gmar.vlm.image_tokens import PicturePrompt, PictureTokens, QueriedPicture, Size
from captum_gmar.vlm.query_former import patches_of_queries

_ROUNDING = 1e-6  # of a pixel, of a scale times the size that it was made of

Picture = PictureTokens | QueriedPicture
TokenLayout = Callable[[PicturePrompt], Sequence[Picture] | None]


def picture_tokens(prompt: PicturePrompt) -> Sequence[Picture] | None:
    """The tokens of every picture, in the order of the pictures; None if the model's way to lay them out is not known.

    Raises:
        ValueError: if the tokens are not as many as the pictures have places.
    """
    if prompt.arguments.get("pixel_values") is None:
        return []
    layout = LAYOUTS.get(prompt.config.model_type)
    return None if layout is None else layout(prompt)


def _in_prompt(grid: Callable[[PicturePrompt, int], list[tuple[int, int]]]) -> TokenLayout:
    """A layout of image tokens that stand in the prompt, picture after picture, each in rows."""

    def layout(prompt: PicturePrompt) -> Sequence[Picture]:
        grids = grid(prompt, int(prompt.is_image.sum()))
        counts = [rows * columns for rows, columns in grids]
        parts = zip(torch.split(prompt.places(sum(counts)), counts), grids, strict=True)
        return [PictureTokens(part.view(shape)) for part, shape in parts]

    return layout


def _square(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    """Every picture resized to one square."""
    pictures = len(prompt.arguments["pixel_values"].flatten(0, -4))
    side = math.isqrt(tokens // max(pictures, 1))
    return [(side, side)] * pictures


def _merged_grids(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    """Of Qwen's kind: the grid of patches that the processor returned, several of which make one token."""
    side = prompt.config.vision_config.spatial_merge_size
    return [
        (int(time * rows) // side, int(columns) // side) for time, rows, columns in prompt.arguments["image_grid_thw"]
    ]


def _sized(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    """Of Pixtral's kind: as many patches as the picture has, several of which may make one token."""
    patch = prompt.config.vision_config.patch_size * getattr(prompt.config, "spatial_merge_size", 1)
    return [(int(height) // patch, int(width) // patch) for height, width in prompt.arguments["image_sizes"]]


def _anyres(prompt: PicturePrompt) -> list[PictureTokens]:
    """LLaVA-NeXT's and LLaVA-OneVision's: an overview, then the tiles' tokens row by row, without what was padded, and
    a new line after each row. The model itself lays out numbers, in place of what its tower makes of each tile."""
    config, sizes = prompt.config, prompt.arguments["image_sizes"].cpu()
    side = config.vision_config.image_size // config.vision_config.patch_size
    if config.model_type == "llava_next":
        options = {"vision_feature_select_strategy": "default"}
        tiles = [_tiles_of(prompt.model, size) for size in sizes]
    else:
        options = {"vision_aspect_ratio": config.vision_aspect_ratio}
        tiles = [_tiles_of(prompt.model, size) if len(sizes) == 1 else 1 for size in sizes]
    numbers = [torch.ones(count, side * side, 1).index_fill(0, torch.tensor([0]), 0) for count in tiles]
    laid_out, lengths = prompt.model.model.pack_image_features(
        numbers, sizes, image_newline=torch.tensor([-1.0]), **options
    )
    places = torch.split(prompt.places(int(lengths.sum())), lengths.tolist())
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
    tile_positions = places[kinds == 1]
    if not len(tile_positions):
        return PictureTokens(overview)
    return PictureTokens(tile_positions.view(int((kinds == -1).sum()), -1), overview=overview)


def _tiles_in_rows(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """Idefics 3's: a picture's tiles, each after a mark and its own token, a new line after each row, and an overview
    after a token that all pictures share. None where the prompt does not tell them apart."""
    vision = prompt.config.vision_config
    side = vision.image_size // vision.patch_size // prompt.config.scale_factor
    tiles = prompt.arguments["pixel_values"].flatten(0, -4).shape[0]
    places = prompt.places(tiles * side * side).view(tiles, side, side)
    preceding_ids = prompt.arguments["input_ids"][0][places[:, 0, 0] - 1]
    if (places[1:, 0, 0] - places[:-1, -1, -1] < 3).any():
        return None
    ends = [number for number, token in enumerate(preceding_ids.tolist(), 1) if token == preceding_ids[-1]]
    return [_tiles_and_overview(places[first:end]) for first, end in pairwise([0, *ends])]


def _tiles_and_overview(places: Tensor) -> PictureTokens:
    """Of one picture's tiles (tiles, rows, columns), the overview last: two tokens stand between those of one row."""
    *tiles, overview = places
    if not tiles:
        return PictureTokens(overview)
    starts = [0, *(n for n in range(1, len(tiles)) if tiles[n][0, 0] - tiles[n - 1][-1, -1] > 3), len(tiles)]
    rows = [torch.cat(tiles[first:end], 1) for first, end in pairwise(starts)]
    return PictureTokens(torch.cat(rows), overview=overview)


def _tiles_of_pictures(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """InternVL's: the tiles of a picture without anything between them, the overview last if there are several. None of
    several where the picture's size is not known: how they lie is not in what the processor returns."""
    number, tokens = prompt.arguments["pixel_values"].flatten(0, -4).shape[0], prompt.config.image_seq_length
    places = prompt.places(number * tokens)
    starts = [0, *((places[1:] - places[:-1] > 1).nonzero().flatten() + 1).tolist(), len(places)]
    side, sizes = math.isqrt(tokens), prompt.sizes
    pictures = [places[first:end].view(-1, side, side) for first, end in pairwise(starts)]
    if all(len(tiles) == 1 for tiles in pictures):
        return [PictureTokens(tiles[0]) for tiles in pictures]
    if sizes is None or len(sizes) != len(pictures):
        return None
    return [
        PictureTokens(tiles[0])
        if len(tiles) == 1
        else PictureTokens(_put_together(tiles[:-1], _columns_of_tiles(size, len(tiles) - 1)), overview=tiles[-1])
        for tiles, size in zip(pictures, sizes, strict=True)
    ]


def _columns_of_tiles(size: Size, tiles: int) -> int:
    """In how many columns a picture is cut into so many tiles: those that are nearest to its width over its height."""
    height, width = size
    return min(
        (columns for columns in range(1, tiles + 1) if tiles % columns == 0),
        key=lambda columns: abs(width / height - columns / (tiles // columns)),
    )


def _put_together(tiles: Tensor, columns: int) -> Tensor:
    """(rows, columns) of tiles (tiles, rows, columns) that lie in so many columns."""
    return torch.cat([torch.cat([*row], 1) for row in torch.split(tiles, columns)])


def _tiles_on_canvas(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """Mllama's, of the encoder's: as many tiles of each picture as any may have, each after its own token.

    A picture lies in the upper left of its tiles. None where its size, and so how far, is not known.
    """
    ids, vision, sizes = prompt.arguments["aspect_ratio_ids"], prompt.config.vision_config, prompt.sizes
    if sizes is None or len(sizes) != ids.shape[1]:
        return None
    side = vision.image_size // vision.patch_size
    places = torch.arange(prompt.length).view(len(sizes), vision.max_num_tiles, -1)
    pictures = []
    for tiles, number, size in zip(places, ids[0].tolist(), sizes, strict=True):
        down, across = vision.supported_aspect_ratios[number - 1]
        shown = _shown_on_canvas(size, (down * vision.image_size, across * vision.image_size), vision.image_size)
        rows, columns = (-(-pixels // vision.patch_size) for pixels in shown)
        patch_tokens = tiles[: down * across, 1:].reshape(-1, side, side)
        pictures.append(PictureTokens(_put_together(patch_tokens, across)[:rows, :columns], True))
    return pictures


def _shown_on_canvas(size: Size, canvas: Size, tile: int) -> Size:
    """The size to which a picture is scaled that is put upon tiles: as large as they are at most, and otherwise as it
    is, but not smaller than one tile."""
    scale = min(min(max(pixels, tile), most) / pixels for pixels, most in zip(size, canvas, strict=True))
    height, width = (max(int(pixels * scale + _ROUNDING), 1) for pixels in size)
    return height, width


def _queried(prompt: PicturePrompt) -> list[QueriedPicture] | None:
    """BLIP-2's: query tokens, which read the patches in a transformer of their own."""
    if len(prompt.arguments["pixel_values"]) != 1:
        return None
    weights = patches_of_queries(prompt.model, prompt.arguments)
    return [QueriedPicture(prompt.places(len(weights)), weights)]


def _llava(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    return (_sized if prompt.config.vision_config.model_type == "pixtral" else _square)(prompt, tokens)


def _after_mean(prompt: PicturePrompt) -> list[PictureTokens]:
    """Florence-2's: in the encoder's sequence, after a token that is the mean of the picture's."""
    places = (prompt.arguments["input_ids"][0] == prompt.config.image_token_id).nonzero().flatten()[1:]
    step = math.prod(prompt.config.vision_config.patch_stride)
    rows, columns = (-(-side // step) for side in prompt.arguments["pixel_values"].shape[-2:])
    return [PictureTokens(places.view(rows, columns), True)]


def _at_end_of_encoded(prompt: PicturePrompt) -> list[PictureTokens]:
    """What a vision transformer returns: the patches after its other tokens."""
    height, width = prompt.arguments["pixel_values"].shape[-2:]
    patch = getattr(getattr(prompt.config, "encoder", None), "patch_size", None)
    if not isinstance(patch, int) or (height // patch) * (width // patch) > prompt.length:
        raise ValueError(
            f"model must have an encoder that returns one token for every patch. Got {prompt.length} tokens for a "
            f"picture of {height}x{width} pixels and patches of {patch} instead."
        )
    rows, columns = height // patch, width // patch
    return [PictureTokens(torch.arange(prompt.length - rows * columns, prompt.length).view(rows, columns), True)]


def _before_text(prompt: PicturePrompt) -> list[PictureTokens]:
    """GIT's: what a vision transformer returns, in the decoder's sequence before the text."""
    vision = prompt.config.vision_config
    side = vision.image_size // vision.patch_size
    return [PictureTokens(torch.arange(1, 1 + side * side).view(side, side))]


LAYOUTS: dict[str, TokenLayout] = {
    **dict.fromkeys(("paligemma", "gemma3"), _in_prompt(_square)),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _in_prompt(_merged_grids)),
    "llava": _in_prompt(_llava),
    **dict.fromkeys(("llava_next", "llava_onevision"), _anyres),
    **dict.fromkeys(("idefics3", "smolvlm"), _tiles_in_rows),
    "internvl": _tiles_of_pictures,
    "mllama": _tiles_on_canvas,
    **dict.fromkeys(("blip-2", "instructblip"), _queried),
    "mistral3": _in_prompt(_sized),
    "vision-encoder-decoder": _at_end_of_encoded,
    "florence2": _after_mean,
    "git": _before_text,
}
