"""Reads a layer in blocks of query rows, on any device: what the other ways of reading are held against."""

from collections.abc import Iterator

from captum_gmar.engine.blockwise import GradientBlocks, Layer, Scratch, Workspace
from captum_gmar.engine.reading import Heads, LayerGradient, Reading, joined, read_blocks


def gradient_blocks(layer: LayerGradient) -> Iterator[tuple[slice, GradientBlocks]]:
    """As many examples at a time as a block holds; no gradient is gathered."""
    part = Layer(layer.query, layer.key, layer.mask, layer.scale)
    scratch = Scratch(part, Workspace())
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
    parts = []
    for examples, blocks in gradient_blocks(layer):
        row = None if reading.row is None else reading.row[examples]
        parts.append(read_blocks(blocks, reading._replace(row=row)))
    return joined(parts, dim=0)
