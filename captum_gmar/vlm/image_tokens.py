"""Image tokens of a generating model: what is known of them, and maps of pictures made of what they hold."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width) in pixels."""


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
        grid_relevance = relevance[:, self.columns.to(relevance.device)]
        if self.overview is None:
            return grid_relevance
        overview_relevance = relevance[:, self.overview.to(relevance.device)]
        down, across = (
            _overlap(*sizes).to(relevance) for sizes in zip(self.columns.shape, self.overview.shape, strict=True)
        )
        return grid_relevance + down @ overview_relevance @ across.mT

    @property
    def positions(self) -> Tensor:
        """Of all the picture's tokens."""
        parts = [self.columns] if self.overview is None else [self.columns, self.overview]
        return torch.cat([part.flatten() for part in parts])


class QueriedPicture(NamedTuple):
    """The query tokens by which a picture is read, none of which stands for a place.

    Attributes:
        queries: (Q,) their positions in the decoder's sequence.
        weights: (Q, rows, columns), what each hands on to the patches that it was made of.
    """

    queries: Tensor
    weights: Tensor
    is_encoded: bool = False

    def map(self, relevance: Tensor) -> Tensor:
        """(W, rows, columns) of relevance (W, S), handed on to the patches."""
        return torch.einsum(
            "wq,qrc->wrc", relevance[:, self.positions.to(relevance.device)], self.weights.to(relevance)
        )

    @property
    def positions(self) -> Tensor:
        """Of all the picture's tokens."""
        return self.queries


class PicturePrompt(NamedTuple):
    """What is known of the pictures of a prompt.

    Attributes:
        model: of transformers.
        arguments: what its processor returned, of one example.
        length: of the sequence that is attended to: of the encoder's, if there is one, else of the decoder's own.
        sizes: of the pictures before they were processed; None where they are not known.
    """

    model: Any
    arguments: Mapping[str, Any]
    length: int
    sizes: Sequence[Size] | None = None

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    @property
    def is_image(self) -> Tensor:
        """(S,) where the prompt has image tokens."""
        return torch.as_tensor(self.arguments["input_ids"][0] == image_token_id(self.model))

    def places(self, expected: int) -> Tensor:
        """Where the prompt's image tokens are.

        Raises:
            ValueError: if they are not as many as expected.
        """
        places = self.is_image.nonzero().flatten()
        if len(places) != expected:
            raise ValueError(
                f"inputs must hold as many image tokens as their pictures have places, {expected}. Got {len(places)} "
                "instead. Do they come from this model's processor?"
            )
        return places


def _overlap(fine: int, coarse: int) -> Tensor:
    """(fine, coarse): which share of each coarse interval lies in each fine one, where both cut up the same length."""
    begins, ends = torch.arange(fine)[:, None] * coarse, (torch.arange(fine)[:, None] + 1) * coarse
    first, last = torch.arange(coarse) * fine, (torch.arange(coarse) + 1) * fine
    return (torch.minimum(ends, last) - torch.maximum(begins, first)).clamp(min=0).double() / fine


def image_token_id(model: Any) -> int | None:
    """Of the token that stands for a part of a picture in a prompt; None if the model has none."""
    number = getattr(model.config, "image_token_id", None)
    return getattr(model.config, "image_token_index", None) if number is None else number
