"""Positions of image tokens in a prompt, and maps of their relevance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_gmar.engine.models.grids import even_overlap

Size = tuple[int, int]
"""(height, width) in pixels."""


class PictureTokens(NamedTuple):
    """Image tokens of one picture."""

    columns: Tensor  # (rows, columns) positions in the attended sequence, of joined tiles
    is_encoded: bool = False  # the sequence is the encoder's, read by cross-attention; else the decoder's
    overview: Tensor | None = None  # (rows, columns) positions of the whole picture, if it was cut into tiles
    seconds: float | None = None  # of a sound's token
    moments: tuple[float, ...] | None = None  # seconds of a video's time steps, whose columns are (time, rows, columns)

    def map(self, relevance: Tensor) -> Tensor:
        """Map relevance (W, S) to (W, rows, columns); an overview's tokens are distributed by area."""
        grid_relevance = relevance[:, self.columns.to(relevance.device)]
        if self.overview is None:
            return grid_relevance
        overview_relevance = relevance[:, self.overview.to(relevance.device)]
        sizes = zip(self.columns.shape, self.overview.shape, strict=True)
        vertical, horizontal = (even_overlap(coarse, fine).to(relevance) for fine, coarse in sizes)
        return grid_relevance + vertical.mT @ overview_relevance @ horizontal

    @property
    def positions(self) -> Tensor:
        """Positions of all the picture's tokens."""
        grids = [self.columns] if self.overview is None else [self.columns, self.overview]
        return torch.cat([grid.flatten() for grid in grids])


class QueriedPicture(NamedTuple):
    """Tokens that hold several patches of a picture, or one of several that hold the same patch."""

    positions: Tensor  # (Q,) in the attended sequence
    weights: Tensor  # (Q, rows, columns) of each token on patches
    is_encoded: bool = False

    def map(self, relevance: Tensor) -> Tensor:
        """Map relevance (W, S) to patches (W, rows, columns)."""
        queries = relevance[:, self.positions.to(relevance.device)]
        return torch.einsum("wq,qrc->wrc", queries, self.weights.to(relevance))


class PicturePrompt(NamedTuple):
    """Prompt with pictures."""

    model: Any  # of transformers
    arguments: Mapping[str, Any]  # processor output for one example
    length: int  # of the attended sequence: the encoder's if there is one, else the decoder's
    sizes: Sequence[Size] | None = None  # of the pictures before processing, if known
    tokenizer: Any = None

    @property
    def config(self) -> Any:
        """Config of the model."""
        return self.model.config

    @property
    def is_image(self) -> Tensor:
        """Mask (S,) of the prompt's image tokens."""
        return torch.as_tensor(self.arguments["input_ids"][0] == image_token_id(self.model))

    def image_positions(self, expected: int) -> Tensor:
        """Return the positions of image tokens; raise a ValueError unless there are as many as expected."""
        positions = self.is_image.nonzero().flatten()
        if len(positions) != expected:
            raise ValueError(
                f"inputs must hold an image token for each position of their pictures, {expected}, but got "
                f"{len(positions)}. Call this model's processor."
            )
        return positions


def image_token_id(model: Any) -> int | None:
    """Return the id of the model's image token, or None."""
    number = getattr(model.config, "image_token_id", None)
    return getattr(model.config, "image_token_index", None) if number is None else number
