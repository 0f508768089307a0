"""Reads a layer in blocks of query rows, on any device: what the other ways of reading are held against."""

from captum_gmar.engine.blockwise import GradientBlocks, Layer, Scratch, Workspace
from captum_gmar.engine.reading import Heads, LayerGradient, Reading, joined, read_blocks


def read_in_blocks(layer: LayerGradient, reading: Reading) -> Heads:
    """Any reading of any layer, in blocks of query rows whose attention and gradient are computed again."""
    part = Layer(layer.query, layer.key, layer.mask, layer.scale)
    scratch = Scratch(part, Workspace())
    parts = []
    for examples in scratch.parts():
        blocks = GradientBlocks(
            part.part(examples),
            scratch,
            value=layer.value[examples],
            output=None,
            grad_output=layer.grad_output[examples],
            grads=[None] * 4,
        )
        row = None if reading.row is None else reading.row[examples]
        parts.append(read_blocks(blocks, reading._replace(row=row)))
    return joined(parts, dim=0)
