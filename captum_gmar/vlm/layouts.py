"""Layouts of image tokens on pictures, for each supported model type.

To support a further model, add a layout to ``LAYOUTS``.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from captum_gmar.vlm.image_tokens import PicturePrompt, PictureTokens, QueriedPicture, Size
from captum_gmar.vlm.query_former import query_patch_weights
from captum_gmar.vlm.sounds import SOUND_INPUTS, sound_tokens

_ROUNDING = 1e-6  # pixels, for products of scales and sizes
_MOMENT = re.compile(r"(?:Frame from (\d+):|<)(\d+(?:\.\d+)?)(?=:| seconds>)")  # of SmolVLM and Qwen3-VL

Picture = PictureTokens | QueriedPicture
TokenLayout = Callable[[PicturePrompt], Sequence[Picture] | None]


def picture_tokens(prompt: PicturePrompt) -> Sequence[Picture] | None:
    """Return the tokens of every picture, or of the sound, or None if the model's layout is unknown."""
    if any(prompt.arguments.get(name) is not None for name in SOUND_INPUTS):
        return sound_tokens(prompt.model, prompt.arguments, prompt.length)
    pictures: Sequence[Picture] | None = []
    if prompt.arguments.get("pixel_values") is not None:
        layout = LAYOUTS.get(prompt.config.model_type)
        pictures = None if layout is None else layout(prompt)
    videos = [] if prompt.arguments.get("pixel_values_videos") is None else _video_tokens(prompt)
    return None if pictures is None or videos is None else [*pictures, *videos]


def _video_tokens(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """Return each video's tokens (time, rows, columns), or None if the model's layout is unknown."""
    positions = (prompt.arguments["input_ids"][0] == prompt.config.video_token_id).nonzero().flatten()
    grids, pixels = prompt.arguments.get("video_grid_thw"), prompt.arguments["pixel_values_videos"]
    if grids is not None:
        side = prompt.config.vision_config.spatial_merge_size
        shapes = [(int(time), int(rows) // side, int(columns) // side) for time, rows, columns in grids]
        videos = torch.split(positions, list(map(math.prod, shapes)))
    elif prompt.config.model_type in ("llava_next_video", "llava_onevision"):  # of square frames, all of one length
        videos = torch.split(positions, max(len(positions) // len(pixels), 1))
        side = math.isqrt(len(videos[0]) // pixels.shape[1])
        shapes = [(pixels.shape[1], side, side)] * len(videos)
    else:
        return None
    tokens = [places[: math.prod(shape)].view(shape) for places, shape in zip(videos, shapes, strict=True)]
    steps = prompt.arguments.get("second_per_grid_ts")
    if steps is None:
        moments = [_written_moments(prompt, frames) for frames in tokens]
    else:
        pairs = zip(tokens, steps, strict=True)
        moments = [tuple(float(step) * time for time in range(len(frames))) for frames, step in pairs]
    return [PictureTokens(frames, moments=times) for frames, times in zip(tokens, moments, strict=True)]


def _written_moments(prompt: PicturePrompt, frames: Tensor) -> tuple[float, ...] | None:
    """Return the second that the prompt writes before each frame (time, rows, columns), or None if it does not."""
    if prompt.tokenizer is None:
        return None
    moments, end = [], 0
    for frame in frames:
        text = prompt.tokenizer.decode(prompt.arguments["input_ids"][0, end : int(frame[0, 0])].tolist())
        written = _MOMENT.findall(text)
        if not written:
            return None
        minutes, seconds = written[-1]
        moments.append(60 * int(minutes or 0) + float(seconds))
        end = int(frame[-1, -1]) + 1
    return tuple(moments)


def _prompt_layout(grid: Callable[[PicturePrompt, int], list[tuple[int, int]]]) -> TokenLayout:
    """Return a layout of image tokens in the prompt, picture by picture and row by row."""

    def layout(prompt: PicturePrompt) -> Sequence[Picture]:
        grids = grid(prompt, int(prompt.is_image.sum()))
        counts = [rows * columns for rows, columns in grids]
        pictures = zip(torch.split(prompt.image_positions(sum(counts)), counts), grids, strict=True)
        return [PictureTokens(positions.view(shape)) for positions, shape in pictures]

    return layout


def _square_grids(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    """Return equal square grids."""
    pictures = len(prompt.arguments["pixel_values"].flatten(0, -4))
    side = math.isqrt(tokens // max(pictures, 1))
    return [(side, side)] * pictures


def _merged_grids(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    """Return Qwen's grids: the processor's grids of patches, several of which are merged to one token."""
    side, grids = prompt.config.vision_config.spatial_merge_size, prompt.arguments["image_grid_thw"]
    return [(int(time * rows) // side, int(columns) // side) for time, rows, columns in grids]


def _size_grids(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    """Return Pixtral's grids: the picture's patches, several of which may be merged to one token."""
    patch = prompt.config.vision_config.patch_size * getattr(prompt.config, "spatial_merge_size", 1)
    return [(int(height) // patch, int(width) // patch) for height, width in prompt.arguments["image_sizes"]]


def _anyres_layout(prompt: PicturePrompt) -> list[PictureTokens]:
    """Return the layout of LLaVA-NeXT and LLaVA-OneVision.

    An overview comes first, then the tiles' tokens row by row without padding, with a newline token after each row. The
    model's own function lays out numbers in place of the tower's features.
    """
    config, sizes = prompt.config, prompt.arguments["image_sizes"].cpu()
    side = config.vision_config.image_size // config.vision_config.patch_size
    if config.model_type != "llava_onevision":
        options = {"vision_feature_select_strategy": "default"}
        tiles = [_count_tiles(prompt.model, size) for size in sizes]
    else:
        options = {"vision_aspect_ratio": config.vision_aspect_ratio}
        tiles = [_count_tiles(prompt.model, size) if len(sizes) == 1 else 1 for size in sizes]
    numbers = [torch.ones(count, side * side, 1).index_fill(0, torch.tensor([0]), 0) for count in tiles]
    pack = prompt.model.model.pack_image_features
    features, lengths = pack(numbers, sizes, image_newline=torch.tensor([-1.0]), **options)
    positions = torch.split(prompt.image_positions(int(lengths.sum())), lengths.tolist())
    pictures = zip(positions, features, strict=True)
    return [_split_overview(picture, kinds[:, 0].round(), side) for picture, kinds in pictures]


def _count_tiles(model: Any, size: Tensor) -> int:
    """Return the number of a picture's tiles, including its overview."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    config = model.config
    return int(image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size))


def _split_overview(positions: Tensor, kinds: Tensor, side: int) -> PictureTokens:
    """Split one picture's tokens: 0 is the overview, 1 tiles, -1 the end of a row."""
    overview = positions[kinds == 0].view(side, side)
    tile_positions = positions[kinds == 1]
    if not len(tile_positions):
        return PictureTokens(overview)
    return PictureTokens(tile_positions.view(int((kinds == -1).sum()), -1), overview=overview)


def _idefics_layout(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """Return the layout of Idefics 3, or None if the prompt does not separate the tiles.

    Each tile follows a mark and its own token, with a newline token after each row of tiles. The overview follows a
    token that all pictures share. A video's frames, each after its time, have no tiles.
    """
    vision = prompt.config.vision_config
    scale = getattr(prompt.config, "scale_factor", None) or prompt.config.pixel_shuffle_factor
    side = vision.image_size // vision.patch_size // scale
    tiles = prompt.arguments["pixel_values"].flatten(0, -4).shape[0]
    positions = prompt.image_positions(tiles * side * side).view(tiles, side, side)
    preceding_ids = prompt.arguments["input_ids"][0][positions[:, 0, 0] - 1]
    if (positions[1:, 0, 0] - positions[:-1, -1, -1] < 3).any():
        return None
    moments = _written_moments(prompt, positions)
    if moments is not None:
        return [PictureTokens(positions, moments=moments)]
    ends = [number for number, token in enumerate(preceding_ids.tolist(), 1) if token == preceding_ids[-1]]
    return [_join_tiles(positions[first:end]) for first, end in pairwise([0, *ends])]


def _join_tiles(positions: Tensor) -> PictureTokens:
    """Join one picture's tiles (tiles, rows, columns); the overview is last, and two tokens separate tiles of a row."""
    *tiles, overview = positions
    if not tiles:
        return PictureTokens(overview)
    starts = [0, *(n for n in range(1, len(tiles)) if tiles[n][0, 0] - tiles[n - 1][-1, -1] > 3), len(tiles)]
    rows = [torch.cat(tiles[first:end], 1) for first, end in pairwise(starts)]
    return PictureTokens(torch.cat(rows), overview=overview)


def _internvl_layout(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """Return the layout of InternVL: adjacent tiles of a picture, with the overview last if there are several.

    The processor does not return the arrangement of tiles, so the result is None for several tiles of unknown size.
    """
    number, tokens = prompt.arguments["pixel_values"].flatten(0, -4).shape[0], prompt.config.image_seq_length
    positions = prompt.image_positions(number * tokens)
    starts = [0, *((positions[1:] - positions[:-1] > 1).nonzero().flatten() + 1).tolist(), len(positions)]
    side, sizes = math.isqrt(tokens), prompt.sizes
    pictures = [positions[first:end].view(-1, side, side) for first, end in pairwise(starts)]
    if all(len(tiles) == 1 for tiles in pictures):
        return [PictureTokens(tiles[0]) for tiles in pictures]
    if sizes is None or len(sizes) != len(pictures):
        return None
    return [
        PictureTokens(tiles[0])
        if len(tiles) == 1
        else PictureTokens(_join_grid(tiles[:-1], _tile_columns(size, len(tiles) - 1)), overview=tiles[-1])
        for tiles, size in zip(pictures, sizes, strict=True)
    ]


def _tile_columns(size: Size, tiles: int) -> int:
    """Return the number of tile columns whose aspect ratio is nearest to the picture's."""
    height, width = size
    divisors = (columns for columns in range(1, tiles + 1) if tiles % columns == 0)
    return min(divisors, key=lambda columns: abs(width / height - columns / (tiles // columns)))


def _join_grid(tiles: Tensor, columns: int) -> Tensor:
    """Join tiles (tiles, rows, columns) in a number of columns to one grid (rows, columns)."""
    return torch.cat([torch.cat([*row], 1) for row in torch.split(tiles, columns)])


def _mllama_layout(prompt: PicturePrompt) -> list[PictureTokens] | None:
    """Return the layout of Mllama's encoder, or None if the pictures' sizes are unknown.

    Each picture has the maximal number of tiles, each after its own token, and fills their upper left part.
    """
    ids, vision, sizes = prompt.arguments["aspect_ratio_ids"], prompt.config.vision_config, prompt.sizes
    if sizes is None or len(sizes) != ids.shape[1]:
        return None
    side = vision.image_size // vision.patch_size
    positions = torch.arange(prompt.length).view(len(sizes), vision.max_num_tiles, -1)
    pictures = []
    for tiles, number, size in zip(positions, ids[0].tolist(), sizes, strict=True):
        tile_rows, tile_columns = vision.supported_aspect_ratios[number - 1]
        canvas = tile_rows * vision.image_size, tile_columns * vision.image_size
        rows, columns = (-(-n // vision.patch_size) for n in _size_on_canvas(size, canvas, vision.image_size))
        patch_tokens = tiles[: tile_rows * tile_columns, 1:].reshape(-1, side, side)
        pictures.append(PictureTokens(_join_grid(patch_tokens, tile_columns)[:rows, :columns], True))
    return pictures


def _size_on_canvas(size: Size, canvas: Size, tile: int) -> Size:
    """Return a picture's size on tiles: at least one tile, at most the canvas, else unchanged."""
    scale = min(min(max(pixels, tile), most) / pixels for pixels, most in zip(size, canvas, strict=True))
    height, width = (max(int(pixels * scale + _ROUNDING), 1) for pixels in size)
    return height, width


def _query_layout(prompt: PicturePrompt) -> list[QueriedPicture] | None:
    """Return the query tokens of BLIP-2."""
    if len(prompt.arguments["pixel_values"]) != 1:
        return None
    weights = query_patch_weights(prompt.model, prompt.arguments)
    return [QueriedPicture(prompt.image_positions(len(weights)), weights)]


def _llava_grids(prompt: PicturePrompt, tokens: int) -> list[tuple[int, int]]:
    return (_size_grids if prompt.config.vision_config.model_type == "pixtral" else _square_grids)(prompt, tokens)


def _florence_layout(prompt: PicturePrompt) -> list[PictureTokens]:
    """Return the layout of Florence-2's encoder, where a mean token comes first."""
    positions = (prompt.arguments["input_ids"][0] == prompt.config.image_token_id).nonzero().flatten()[1:]
    step = math.prod(prompt.config.vision_config.patch_stride)
    rows, columns = (-(-side // step) for side in prompt.arguments["pixel_values"].shape[-2:])
    return [PictureTokens(positions.view(rows, columns), True)]


def _page_layout(prompt: PicturePrompt) -> list[QueriedPicture]:
    """Return the layout of UDOP's encoder or LayoutLMv3, where a word holds the patch at the centre of its box.

    UDOP's patches of no word come after the words. LayoutLMv3's, whose boxes are in thousandths, are all there, after
    one token of the whole picture. Words without a box hold no patch.
    """
    config, boxes, is_udop = prompt.config, prompt.arguments["bbox"][0], prompt.config.model_type == "udop"
    side = (config.image_size if is_udop else config.input_size) // config.patch_size
    boxes = boxes if is_udop else boxes / 1000
    columns, rows = ((boxes[:, :2] + boxes[:, 2:]) / 2 * side).long().clip(0, side - 1).mT.cpu()
    words, means = rows * side + columns, boxes.double().mean(1)
    has_box = ((means != 0) & (means != 1)).cpu()
    rest = torch.arange(side * side)
    rest = rest[~torch.isin(rest, words)] if is_udop else rest
    positions = torch.cat([has_box.nonzero().flatten(), len(boxes) + (not is_udop) + torch.arange(len(rest))])
    weights = torch.nn.functional.one_hot(torch.cat([words[has_box], rest]), side * side).float()
    return [QueriedPicture(positions, weights.view(-1, side, side), is_encoded=is_udop)]


def _encoder_layout(prompt: PicturePrompt) -> list[PictureTokens]:
    """Return the layout of a vision transformer as encoder: patches come after other tokens."""
    height, width = prompt.arguments["pixel_values"].shape[-2:]
    patch = getattr(getattr(prompt.config, "encoder", None), "patch_size", None)
    layers = getattr(getattr(prompt.config, "encoder", None), "depths", [0])
    step = patch * 2 ** (len(layers) - 1) if isinstance(patch, int) else 0  # Swin merges patches between its stages
    if not step or (height // step) * (width // step) > prompt.length:
        raise ValueError(
            f"model must have an encoder that returns one token for every patch, but got {prompt.length} tokens for a "
            f"picture of {height}x{width} pixels and patches of {patch}."
        )
    rows, columns = height // step, width // step
    return [PictureTokens(torch.arange(prompt.length - rows * columns, prompt.length).view(rows, columns), True)]


def _git_layout(prompt: PicturePrompt) -> list[PictureTokens]:
    """Return the layout of GIT: patches come before the text in the decoder's sequence."""
    vision = prompt.config.vision_config
    side = vision.image_size // vision.patch_size
    return [PictureTokens(torch.arange(1, 1 + side * side).view(side, side))]


LAYOUTS: dict[str, TokenLayout] = {
    **dict.fromkeys(("paligemma", "gemma3"), _prompt_layout(_square_grids)),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _prompt_layout(_merged_grids)),
    "llava": _prompt_layout(_llava_grids),
    **dict.fromkeys(("llava_next", "llava_next_video", "llava_onevision"), _anyres_layout),
    **dict.fromkeys(("idefics3", "smolvlm", "modernvbert"), _idefics_layout),
    "internvl": _internvl_layout,
    "mllama": _mllama_layout,
    **dict.fromkeys(("blip-2", "instructblip"), _query_layout),
    "mistral3": _prompt_layout(_size_grids),
    "vision-encoder-decoder": _encoder_layout,
    "florence2": _florence_layout,
    "git": _git_layout,
    **dict.fromkeys(("udop", "layoutlmv3"), _page_layout),
}
