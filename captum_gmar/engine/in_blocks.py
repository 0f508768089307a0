"""Reads a layer in blocks of query rows, on any device: what the other ways of reading are held against."""

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_gmar.engine.attention_blocks import GradientBlocks
from captum_gmar.engine.layer_parts import Layer
from captum_gmar.engine.precision import of_blocks
from captum_gmar.engine.reading import Heads, LayerGradient, Reading, joined, positive_sum, product, read_blocks, sum_up
from captum_gmar.engine.scratch import Scratch, Workspace


def gradient_blocks(layer: LayerGradient) -> Iterator[tuple[slice, GradientBlocks]]:
    """As many examples at a time as a block holds; no gradient is gathered."""
    part = Layer(layer.query, layer.key, layer.mask, layer.scale)
    scratch = Scratch(part, Workspace(), of_blocks(layer.query))
    for examples in scratch.parts():
        value, grad_output = layer.value[examples], layer.grad_output[examples]
        yield (
            examples,
            GradientBlocks(
                part.part(examples), scratch, value=value, output=None, grad_output=grad_output, grads=[None] * 4
            ),
        )


def read_in_blocks(layer: LayerGradient, reading: Reading) -> Heads:
    """Any reading of any layer, in blocks of query rows whose attention and gradient are computed again."""
    if reading.row is not None and reading == Reading(reading.row, "positive") and of_blocks(layer.query).itemsize < 4:
        return _read_positive(layer, reading.row)
    parts = []
    for examples, blocks in gradient_blocks(layer):
        row = None if reading.row is None else reading.row[examples]
        parts.append(read_blocks(blocks, reading._replace(row=row)))
    return joined(parts, dim=0)


def _read_positive(layer: LayerGradient, row: Tensor) -> Heads:
    """r·(A ⊙ G)⁺ as half the sum of A ⊙ rG and of its magnitude: with r, never negative, in the gradient of the output,
    the block is gone over fewer times."""
    weighted = (layer.grad_output * row[:, None, :, None]).to(layer.grad_output.dtype)
    parts = []
    for _, blocks in gradient_blocks(layer._replace(grad_output=weighted)):
        by_head = [sum_up([positive_sum(product(block), -2) for block in heads]) for heads in blocks.heads_apart()]
        parts.append(torch.cat(by_head, 1))
    return Heads(torch.cat(parts))
