"""Positions of values in the input.

A model cuts its tokens into windows, rolls, pads, unfolds and orders them by functions that move numbers and change
none. The backward pass of these alone brings a number of each value token back to where the token came from, so
nothing need be known of windows.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from captum_gmar.engine.kernels.precision import widen
from captum_gmar.engine.models.grids import FieldGrid, KnownGrids, Shape
from captum_gmar.engine.models.introspection import PREFIX_PARAMETERS, QUERY_PARAMETERS, ModelInfo
from captum_gmar.engine.models.patch_grid import config_of

# Autograd's steps that move numbers, as their names begin.
MOVES = frozenset(
    [
        *("Alias", "AsStrided", "Clone", "ConstantPadNd", "Expand", "Flip", "Im2Col", "Index", "Narrow", "Permute"),
        *("Repeat", "ReshapeAlias", "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "T", "ToCopy"),
        *("Transpose", "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View"),
    ]
)
JOINTS = frozenset(["Cat"])
PROJECTIONS = ("Addmm", "Mm", "Linear")  # steps by which values are projected


class MixedValues(NamedTuple):
    """Values that attention mixes."""

    layer: int
    value: Tensor  # (..., tokens, head dimension); of a map (N·heads, head dimension, rows, columns)
    is_map: bool = False  # whether it is sampled, by deformable attention
    entry: Tensor | None = None  # the tokens that entered the list of layers, which may have been moved about before
    channels: int | None = None  # of values that are weighed and summed up, without heads, which dimension theirs is
    weights: Tensor | None = None  # (..., queries, tokens) that they are mixed by, where these are kept


class PlacedTokens(NamedTuple):
    """A number for each token of one attention."""

    field: Tensor  # (N, *grid) of the positions
    others: Tensor  # (N, tokens) of tokens that have none: those before the positions, then those behind


class Positions:
    """The positions of the tokens of one pass, whose finest grid is made as ``kind``."""

    def __init__(
        self, model: nn.Module, examples: int, grids: KnownGrids, kind: type[FieldGrid] = FieldGrid, padded: int = 0
    ) -> None:
        self.kind = kind
        self.examples = examples
        self.grids = grids
        info = ModelInfo(model)
        named = info.tokens(PREFIX_PARAMETERS)
        queries = getattr(config_of(model), "num_queries", 0)  # in EoMT before all other tokens of the last layers
        self.prefixes = sorted({0, *named, *(queries + prefix for prefix in named)})
        self.behind = padded + max(info.tokens(QUERY_PARAMETERS), default=0)
        self.ordering = next((module for module, _ in info.modules if hasattr(type(module), "reroll")), None)
        attends_jointly = "joint_space_time"
        self.time_is_last = getattr(config_of(model), "attention_type", None) == attends_jointly

    def field(self, mixed: MixedValues, gradient: Tensor) -> PlacedTokens | None:
        """Return value times gradient at the positions; None if the values have none."""
        product = widen(mixed.value.detach()) * widen(gradient)
        return self._place_map(product) if mixed.is_map else self._place(mixed, product)

    def tokens_of(self, mixed: MixedValues) -> Tensor | None:
        """Return the number of each position's token, (N, *grid), counted through all sequences of values.

        None if tokens stand for no place, for several, or some place for none or several of them. Values are
        (sequences, heads, tokens, head dimension).
        """
        sequences, _, count, _ = mixed.value.shape
        numbers = torch.arange(sequences * count, device=mixed.value.device).view(sequences, count)
        base, tokens, weight = int(2 / torch.finfo(mixed.value.dtype).eps), torch.zeros_like(numbers[:1, :1]), 1
        ones = self._move_numbers(mixed, torch.ones_like(numbers))
        if ones is None or not ones.eq(1).all():
            return None
        while weight < numbers.numel():  # digit by digit, as low precision holds small numbers alone
            digits = self._move_numbers(mixed, numbers // weight % base)
            assert digits is not None
            tokens, weight = tokens + digits.long() * weight, weight * base
        return tokens

    def _move_numbers(self, mixed: MixedValues, numbers: Tensor) -> Tensor | None:
        """Move numbers to positions, (sequences, tokens) → (N, *grid); None where some have no position."""
        product = torch.zeros_like(mixed.value)
        product[:, 0, :, 0] = numbers.to(product)
        placed = self._place(mixed, product)
        return None if placed is None or placed.others.numel() else placed.field

    def _place(self, mixed: MixedValues, product: Tensor) -> PlacedTokens | None:
        """Place numbers of the values' shape, summed over each token."""
        tokens = self._sum_tokens(mixed, product)
        tokens = None if tokens is None else self._undo_cut(tokens, mixed)
        return None if tokens is None else self._lay_out(tokens)

    def _sum_tokens(self, mixed: MixedValues, product: Tensor) -> Tensor | None:
        if mixed.channels is not None:
            return product.sum(mixed.channels)
        if product.dim() != 4 or len(product) != self.examples:
            return move_back(mixed.value, product)
        is_among_channels = (
            self._lay_out(product.sum((1, 3))) is None and self.grids.grid_of(product.shape[3]) is not None
        )
        return product.sum((1, 2) if is_among_channels else (1, 3))  # attention among channels has positions last

    def _undo_cut(self, tokens: Tensor, mixed: MixedValues) -> Tensor | None:
        """Return the tokens as before a cut ahead of their layers: wholes in the order of the cuts."""
        entry, channels = mixed.entry, -1 if mixed.channels is None else mixed.channels
        if self.grids.is_video or entry is None:
            return tokens
        is_cut = len(entry) != self.examples if mixed.channels is None else entry.shape == mixed.value.shape
        if not is_cut:
            return tokens
        token_sums = entry.select(channels, 0)
        if tokens.numel() != token_sums.numel():
            return tokens
        whole = move_back_to_entry(entry, tokens.reshape(token_sums.shape), self.examples, channels)
        windows, repeated = len(entry) // self.examples, tokens.numel() - whole.numel()
        is_whole = repeated in ((windows - 1) * self.examples * prefix for prefix in self.prefixes)
        return whole if is_whole else None  # it was cut otherwise than can be gone back through

    def _place_map(self, product: Tensor) -> PlacedTokens | None:
        shape = tuple(product.shape[2:])
        if shape not in self.grids.shapes:
            return None
        field = product.sum(1).view(self.examples, -1, *shape).sum(1)
        return PlacedTokens(field, field.new_zeros(self.examples, 0))

    def _lay_out(self, tokens: Tensor) -> PlacedTokens | None:
        """Lay out (N, tokens), (N, *grid), or a video's frames (N·time, tokens) or positions (N·positions, time)."""
        if tokens.dim() > 2:
            return PlacedTokens(tokens, tokens.new_zeros(self.examples, 0)) if len(tokens) == self.examples else None
        for prefix in self.prefixes:
            end = tokens.shape[1] - self.behind
            field = self._lay_out_positions(tokens[:, prefix:end])
            if field is not None:
                others = torch.cat([tokens[:, :prefix], tokens[:, end:]], 1)
                return PlacedTokens(field, others.view(self.examples, len(others) // self.examples, -1).sum(1))
        return None

    def _lay_out_positions(self, tokens: Tensor) -> Tensor | None:
        sequences, count = tokens.shape
        if sequences == self.examples:
            shape = self.grids.grid_of(count)
            return None if shape is None else self._order_tokens(tokens, shape)
        shape = self.grids.grid_of(sequences // self.examples * count) if self.grids.is_video else None
        if shape is None or sequences % self.examples:
            return None
        time, rows, columns = shape
        if count == time == rows * columns:
            raise RuntimeError(
                f"videos must differ in their numbers of frames and of positions in a frame, but both are {count}. "
                "Pass another number of frames."
            )
        if count == rows * columns:
            return tokens.reshape(self.examples, *shape)
        return tokens.reshape(self.examples, rows, columns, time).movedim(-1, 1) if count == time else None

    def _order_tokens(self, tokens: Tensor, shape: Shape) -> Tensor:
        ordering: Any = self.ordering
        if ordering is not None:
            stage = next(stage for stage, (_, size) in ordering.schedule.items() if prod(size) == tokens.shape[1])
            rerolled: Tensor = ordering.reroll(tokens[..., None], stage)[..., 0]
            return rerolled
        if self.time_is_last:
            time, rows, columns = shape
            return tokens.reshape(-1, rows, columns, time).movedim(-1, 1)
        return tokens.reshape(-1, *shape)


def move_back(value: Tensor, product: Tensor) -> Tensor | None:
    """Return a number for each token (..., of the shape that the tokens had before they were moved); None if unknown.

    ``value`` is of tokens that were cut, projected and brought into heads; each token's numbers of ``product`` are
    summed.
    """
    projected = _origin(value)
    source = None if projected is None else _before_projection(projected)
    if projected is None or source is None:
        return None
    token_sums = _move_along(value, projected, product).sum(-1)
    origin = _origin(source)
    node: Any = source.node
    known = node._input_metadata[source.output_nr]  # the shape of what is before the projection
    cotangent = torch.zeros(tuple(known.shape), dtype=known.dtype, device=value.device)
    cotangent[..., 0] = token_sums.view(cotangent.shape[:-1])
    return cotangent[..., 0] if origin is None else _first_channel(_move_along(source, origin, cotangent), cotangent)


def move_back_to_entry(entry: Tensor, tokens: Tensor, examples: int, channels: int = -1) -> Tensor:
    """Return the same for tokens (rows, T) that were moved before they entered their stage."""
    origin = _origin(entry)
    cotangent = torch.zeros_like(entry)
    cotangent.select(channels, 0).copy_(tokens)
    if origin is None:
        return tokens
    return _first_channel(_move_along(entry, origin, cotangent), cotangent)[-examples:]


def _first_channel(moved: Tensor, source: Tensor) -> Tensor:
    """Return the first channel, whichever dimension the channels are by now."""
    is_last = moved.shape[-1] == source.shape[-1] and not moved[..., 1:].any()
    return moved[..., 0] if is_last else moved[:, 0]


def _origin(root: Tensor | GradientEdge) -> GradientEdge | None:
    """Return the edge where the numbers were computed that were moved since."""
    if not isinstance(root, Tensor):
        edge = root
    elif root.grad_fn is None:
        return None
    else:
        edge = GradientEdge(root.grad_fn, root.output_nr)
    while _is_named(edge, MOVES):
        following = _following(edge.node)
        if len(following) != 1:
            return None
        (edge,) = following
    return _origin_of_parts(edge) or edge if _is_named(edge, JOINTS) else edge


def _origin_of_parts(joint: GradientEdge) -> GradientEdge | None:
    """Return the one origin of all parts of a concatenation, as of windows with the class token; None if several."""
    origins = {_origin(part) for part in _following(joint.node)}
    return origins.pop() if len(origins) == 1 else None


def _is_named(edge: GradientEdge, names: frozenset[str]) -> bool:
    return edge.node.name().partition("Backward")[0] in names


def _before_projection(edge: GradientEdge) -> GradientEdge | None:
    following = _following(edge.node) if edge.node.name().startswith(PROJECTIONS) else []
    return following[0] if len(following) == 1 else None


def _following(node: Node) -> Sequence[GradientEdge]:
    return [GradientEdge(following, number) for following, number in node.next_functions if following is not None]


def _move_along(root: Tensor | GradientEdge, edge: GradientEdge, cotangent: Tensor) -> Tensor:
    roots: Any = [root]
    if isinstance(root, Tensor):
        cotangent = cotangent.to(root.dtype)
    (moved,) = torch.autograd.grad(roots, [edge], [cotangent], retain_graph=True)
    return moved
