"""Capture of hidden states between layers, and of their gradients.

Letters in shapes: N examples, L layers, H heads, T tokens, D head dimension.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node

from captum_gmar.engine.checks import check_deterministic, check_forward, cut_gradient_error, without_gradient_error
from captum_gmar.engine.hidden_states.libragrad import LibraGradPass, libra_gradients
from captum_gmar.engine.hooks.attention_mode import AttentionCall, ConstantParameterMode, check_no_dropout
from captum_gmar.engine.hooks.autograd_graph import depends, gradients
from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.kernels.blocks import attention_blocks
from captum_gmar.engine.kernels.layer import AttentionLayer
from captum_gmar.engine.kernels.precision import widen, without_autocast
from captum_gmar.engine.kernels.reduction import Reduction, read_blocks, sum_up
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.introspection import ModelInfo
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, check_rows, logits_of, patch_grid
from captum_gmar.engine.request import mark
from captum_gmar.engine.rule import uniform_relevance

NORM_FUNCTIONS = (F.layer_norm, F.rms_norm)


class LayerAttention(NamedTuple):
    """Captured attention of one layer."""

    layer: AttentionLayer
    value: Tensor  # (N, H, T, D)
    output: Tensor  # (N, H, T, D), attention times value, in the graph
    normalised: Tensor | None  # (N, T, hidden), output of the last norm before attention, in the graph

    @property
    def received_attention(self) -> Tensor:
        """Attention (N, T) to each token, averaged over heads and queries."""
        parts = []
        with torch.no_grad(), without_autocast(self.value.device.type):
            for part, blocks in attention_blocks(self.layer):
                queries = uniform_relevance(widen(self.value[part, 0, :, 0]))
                parts.append(read_blocks(blocks, Reduction(queries, "attention")).rows.mean(1))
        return torch.cat(parts)

    def first_query_evidence(self, queries: int, gradient: Tensor) -> Tensor:
        """Return each token's part (N, T) in the first queries' output times its gradient (N, H, T, D)."""
        if not queries:
            return gradient.new_zeros(())
        parts = []
        with torch.no_grad(), without_autocast(self.value.device.type):
            for part, blocks in attention_blocks(self.layer):
                blocks.keep_first(queries)
                value, output_gradient = widen(self.value[part]), widen(gradient[part])
                products = [block.attention * (output_gradient[:, :, block.rows] @ value.mT) for block in blocks]
                parts.append(sum_up([product.sum((1, 2)) for product in products]))
        return torch.cat(parts)


class LayerTokens(NamedTuple):
    """Captured hidden states and attention of a forward pass, first layer first."""

    model: nn.Module
    grid: PatchGrid
    examples: int  # N
    logits: Tensor  # (N, classes), in the graph
    tokens: list[Tensor]  # L + 1 of (N, T, hidden): each layer's input, and the last layer's output
    attention: list[LayerAttention]  # L attentions over the image's tokens
    libra_pass: LibraGradPass | None

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        return int(self.attention[-1].value.shape[2]) - self.grid.patches

    def check_attention(self) -> None:
        """Raise a RuntimeError unless one attention was captured in each layer."""
        layers = len(self.tokens) - 1
        if len(self.attention) != layers:
            raise RuntimeError(
                f"{type(self.model).__name__} must attend over its patch grid once in each of its {layers} layers, but "
                f"does so {len(self.attention)} times. Compute attention from the inputs, with gradient, by "
                "torch.nn.functional.scaled_dot_product_attention or torch.nn.MultiheadAttention."
            )

    @property
    def attention_input(self) -> Tensor:
        """Output (N, T, hidden) of the norm before the last layer's attention."""
        self.check_attention()
        _, _, output, normalised = self.attention[-1]
        if normalised is None or normalised.grad_fn is None or not depends((output,), normalised.grad_fn):
            raise RuntimeError(
                f"{type(self.model).__name__} must begin its last layer with torch.nn.functional.layer_norm or "
                "rms_norm, but calls none before its attention. Use AttentionEvidence."
            )
        return normalised

    def gradients(self, selected: Tensor, tensors: Sequence[Tensor], retain_graph: bool) -> list[Tensor]:
        """Compute gradients of the explained outputs (N,) with respect to captured tensors."""
        first, cuts = tensors[0].grad_fn, list[Node]()
        if first is None or not depends((selected,), first, cuts):
            raise without_gradient_error(len(self.tokens) - 2)
        if cuts:
            raise cut_gradient_error()
        result = list(gradients(selected, tensors, retain_graph))
        if self.libra_pass is not None:
            self.libra_pass.check_steps()
        return result

    def sum_channels(self, tokens: Tensor, gradient: Tensor) -> Tensor:
        """Sum tokens times gradient over channels, (N, T)."""
        return self._examples_first((widen(tokens.detach()) * widen(gradient)).sum(-1)).to(self.logits.device)

    def has_gradient(self, gradient: Tensor) -> Tensor:
        """Return a flag that is True if every example has a non-zero gradient."""
        largest = self._examples_first(gradient).abs().flatten(1).amax(1)
        return (largest > 0).all()

    def _examples_first(self, tensor: Tensor) -> Tensor:
        """Return (N, T, ...); torch's layers may have tokens first."""
        return tensor if len(tensor) == self.examples else tensor.transpose(0, 1)


def capture_layers(
    info: ModelInfo, forward_func: Logits, pixels: Tensor, additional_forward_args: Sequence[Any], balances: bool
) -> LayerTokens:
    """Run ``forward_func`` on pixels (N, C, H, W) for the model's own or, balanced, LibraGrad's backward pass."""
    model = info.model
    check_deterministic(info)
    grid, layers = patch_grid(info, *pixels.shape[-2:]), transformer_layers(info)
    capture = _AttentionCapture(len(pixels), grid)
    marked = mark(pixels)
    with (
        capture,
        attention_implementation(info, "sdpa"),
        force_eager(),
        _capture_tokens(layers) as tokens,
        libra_gradients(model) if balances else nullcontext() as libra_pass,
    ):
        logits = logits_of(forward_func.run(marked, *additional_forward_args))
    check_rows(logits, len(pixels))
    if libra_pass is not None:
        libra_pass.check(logits)
    _check_tokens(tokens, len(layers), grid, len(pixels), model)
    attended = [attention.output for attention in capture.layers]
    check_forward(forward_func, model, logits, marked.grad_fn, tokens[0].grad_fn, pixels, attended)
    return LayerTokens(model, grid, len(pixels), logits, tokens, capture.layers, libra_pass)


@contextmanager
def _capture_tokens(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Capture each layer's input and the last layer's output, in this thread."""
    tokens: list[Tensor] = []

    def enter(layer: nn.Module, args: Any, kwargs: Any) -> None:
        tokens.append(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

    def leave(layer: nn.Module, args: Any, output: Any) -> None:
        tokens.append(output if isinstance(output, Tensor) else output[0])

    with hook_modules(layers, enter), hook_modules(layers[-1:], leave=leave):
        yield tokens


def _check_tokens(tokens: Sequence[Tensor], layers: int, grid: PatchGrid, examples: int, model: nn.Module) -> None:
    shapes = list(dict.fromkeys(tuple(hidden.shape) for hidden in tokens))
    sizes = list(shapes[0][:2]) if len(shapes) == 1 and len(shapes[0]) == 3 else []
    if examples in sizes:  # the other is the number of tokens
        sizes.remove(examples)
    is_over_grid = len(sizes) == 1 and grid.prefix_tokens(sizes[0]) is not None
    if len(tokens) != layers + 1 or not is_over_grid:
        raise RuntimeError(
            f"{type(model).__name__} must run its {layers} layers once each over the tokens of a "
            f"{grid.rows}x{grid.columns} patch grid of {examples} examples, but has tokens of shapes "
            f"{', '.join(map(str, shapes))} {len(tokens)} times. Run the model once in forward_func, or use "
            "AttentionEvidence for hierarchical and windowed models."
        )


class _AttentionCapture(ConstantParameterMode):
    """Attention mode that captures attention over the image's tokens."""

    def __init__(self, examples: int, grid: PatchGrid) -> None:
        super().__init__()
        self.examples = examples
        self.grid = grid
        self.layers: list[LayerAttention] = []
        self._normalised: Tensor | None = None

    def attend(self, call: AttentionCall) -> Tensor:
        check_no_dropout(p=call.dropout_p)
        output = call.run()
        if self._is_over_grid(*call[:3]):
            query, key, value, mask, *_ = call.expand_heads()
            layer = AttentionLayer(query.detach(), key.detach(), None if mask is None else mask.detach(), call.scale)
            self.layers.append(LayerAttention(layer, value.detach(), output, self._normalised))
        return output

    def _is_over_grid(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        tokens = query.shape[-2]
        return (
            value.requires_grad  # False in other towers
            and query.dim() == 4
            and len(query) == self.examples
            and tokens == key.shape[-2]
            and self.grid.prefix_tokens(tokens) is not None
        )

    def run_on_constants(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func in NORM_FUNCTIONS:
            self._normalised = result
        return result
