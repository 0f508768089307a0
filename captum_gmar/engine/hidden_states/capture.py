"""The tokens between a model's layers, and their gradient: of one pass forward, and one backward for each target.

Letters in shapes: N examples, L layers, H heads, T tokens, D head dimension.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node

from captum_gmar.engine.checks import (
    check_deterministic,
    check_forward,
    check_no_dropout,
    cut_gradient_error,
    without_gradient_error,
)
from captum_gmar.engine.hidden_states.libragrad import BalancedPass, balanced
from captum_gmar.engine.hooks.attention_mode import ACCESS, AttentionCall, AttentionMode
from captum_gmar.engine.hooks.autograd_graph import depends
from captum_gmar.engine.hooks.constants import detach_parameters
from captum_gmar.engine.hooks.gradients import gradients
from captum_gmar.engine.hooks.threads import limit_to_thread
from captum_gmar.engine.kernels.blocks import AttentionBlocks
from captum_gmar.engine.kernels.layer import Layer
from captum_gmar.engine.kernels.precision import wide, without_autocast
from captum_gmar.engine.kernels.reduction import Reading, read_blocks, sum_up
from captum_gmar.engine.kernels.workspace import Scratch
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.introspection import ModelInfo
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, check_rows, logits_of, patch_grid
from captum_gmar.engine.rule import evenly

NORM_FUNCTIONS = (F.layer_norm, F.rms_norm)


class AttentionLayer(NamedTuple):
    """The attention of one layer, as it was met on the way forward."""

    layer: Layer
    value: Tensor  # (N, H, T, D)
    output: Tensor  # (N, H, T, D), attention times value; a gradient may be taken of it
    normalised: Tensor | None  # (N, T, hidden), what the last norm before it gave, and so may of it

    @property
    def received(self) -> Tensor:
        """(N, T) the attention that each token gets, as a mean over heads and queries."""
        scratch, parts = Scratch(self.layer), []
        with torch.no_grad(), without_autocast(self.value.device.type):
            for part in scratch.parts():
                blocks = AttentionBlocks(self.layer.part(part), scratch)
                queries = evenly(wide(self.value[part, 0, :, 0]))
                parts.append(read_blocks(blocks, Reading(queries, "attention")).rows.mean(1))
        return torch.cat(parts)

    def read_by_first(self, queries: int, gradient: Tensor) -> Tensor:
        """(N, T) what the first tokens read of each token, times the gradient (N, H, T, D) of what attention gives."""
        if not queries:
            return gradient.new_zeros(())
        scratch, parts = Scratch(self.layer), []
        with torch.no_grad(), without_autocast(self.value.device.type):
            for part in scratch.parts():
                blocks = AttentionBlocks(self.layer.part(part), scratch)
                blocks.keep_first(queries)
                value, of_output = wide(self.value[part]), wide(gradient[part])
                read = [block.attention * (of_output[:, :, block.rows] @ value.mT) for block in blocks]
                parts.append(sum_up([of_rows.sum((1, 2)) for of_rows in read]))
        return torch.cat(parts)


class LayerTokens(NamedTuple):
    """What was met of a model's layers on the way forward, first layer first."""

    model: nn.Module
    grid: PatchGrid
    examples: int  # N
    logits: Tensor  # (N, classes); gradients may be taken of what is made of them
    tokens: list[Tensor]  # L + 1 of (N, T, hidden): what enters each layer, and what leaves the last
    attention: list[AttentionLayer]  # L of them, over the image's tokens
    balancing: BalancedPass | None

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before those of the patches."""
        return int(self.attention[-1].value.shape[2]) - self.grid.patches

    def check_attention(self) -> None:
        """
        Raises:
            RuntimeError: if it was not met once in each layer.
        """
        layers = len(self.tokens) - 1
        if len(self.attention) != layers:
            raise RuntimeError(
                f"Expected attention over the patch grid once in each of the {layers} layers of "
                f"{type(self.model).__name__} but met it {len(self.attention)} times. It is met where the model calls "
                "torch.nn.functional.scaled_dot_product_attention or torch.nn.MultiheadAttention on what is computed "
                "from the inputs, with gradient."
            )

    @property
    def entering_attention(self) -> Tensor:
        """(N, T, hidden) what the last layer's attention gets from the norm before it.

        Raises:
            RuntimeError: if there is none.
        """
        self.check_attention()
        _, _, output, normalised = self.attention[-1]
        if normalised is None or normalised.grad_fn is None or not depends((output,), normalised.grad_fn):
            raise RuntimeError(
                f"Expected the last layer of {type(self.model).__name__} to begin with "
                "torch.nn.functional.layer_norm or rms_norm but met none before its attention."
            )
        return normalised

    def gradients(self, selected: Tensor, tensors: Sequence[Tensor], goes_again: bool) -> list[Tensor]:
        """Of what is explained (N,), with respect to some of what was met; ``goes_again`` as of :func:`gradients`.

        Raises:
            RuntimeError: if there is none, or it is not balanced.
        """
        first, cuts = tensors[0].grad_fn, list[Node]()
        if first is None or not depends((selected,), first, cuts):
            raise without_gradient_error(len(self.tokens) - 2)
        if cuts:
            raise cut_gradient_error()
        of_tensors = list(gradients(selected, tensors, goes_again))
        if self.balancing is not None:
            self.balancing.check_all_met()
        return of_tensors

    def over_channels(self, tokens: Tensor, gradient: Tensor) -> Tensor:
        """(N, T) the sum of tokens times gradient, each of what a layer takes or gives."""
        return self._by_example((wide(tokens.detach()) * wide(gradient)).sum(-1)).to(self.logits.device)

    def has_gradient(self, gradient: Tensor) -> Tensor:
        """Whether some of it is not zero, for every example; a flag."""
        largest = self._by_example(gradient).abs().flatten(1).amax(1)
        return (largest > 0).all()

    def _by_example(self, tensor: Tensor) -> Tensor:
        """(N, T, ...), as torch's layers may take tokens first."""
        return tensor if len(tensor) == self.examples else tensor.transpose(0, 1)


def read_layers(
    survey: ModelInfo, forward_func: Logits, pixels: Tensor, additional_forward_args: Sequence[Any], balances: bool
) -> LayerTokens:
    """Runs ``forward_func`` forward, for a backward pass that is balanced or the model's own.

    Args:
        survey: the model that ``forward_func`` runs. It is left as it was.
        forward_func: gives the logits.
        pixels: (N, channels, height, width).
        additional_forward_args: after the pixels.
        balances: whether gradients are balanced.

    Raises:
        ValueError: if the layers cannot be told.
        RuntimeError: if they do not run once each over the patch grid, or cannot be balanced.
    """
    model = survey.model
    check_deterministic(survey)
    grid, layers = patch_grid(survey, *pixels.shape[-2:]), transformer_layers(survey)
    reading = _TokensMode(len(pixels), grid)
    marked = pixels.detach() + torch.zeros((), dtype=pixels.dtype, device=pixels.device, requires_grad=True)
    with (
        reading,
        attention_implementation(survey, "sdpa"),
        force_eager(),
        _kept_tokens(layers) as tokens,
        balanced(model) if balances else nullcontext() as balancing,
    ):
        logits = logits_of(forward_func.run(marked, *additional_forward_args))
    check_rows(logits, len(pixels))
    if balancing is not None:
        balancing.check(logits)
    _check_tokens(tokens, len(layers), grid, len(pixels), model)
    check_forward(forward_func, model, logits, marked.grad_fn, tokens[0].grad_fn, pixels)
    return LayerTokens(model, grid, len(pixels), logits, tokens, reading.layers, balancing)


@contextmanager
def _kept_tokens(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within the block, keeps what enters each layer in this thread, and what leaves the last."""
    kept: list[Tensor] = []

    @limit_to_thread
    def enter(layer: nn.Module, args: Any, kwargs: Any) -> None:
        kept.append(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

    @limit_to_thread
    def leave(layer: nn.Module, args: Any, output: Any) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.register_forward_pre_hook(enter, with_kwargs=True))
        stack.enter_context(layers[-1].register_forward_hook(leave))
        yield kept


def _check_tokens(kept: Sequence[Tensor], layers: int, grid: PatchGrid, examples: int, model: nn.Module) -> None:
    shapes = list(dict.fromkeys(tuple(tokens.shape) for tokens in kept))
    sizes = list(shapes[0][:2]) if len(shapes) == 1 and len(shapes[0]) == 3 else []
    if examples in sizes:  # the other is the number of tokens
        sizes.remove(examples)
    is_over_grid = len(sizes) == 1 and grid.prefix_tokens(sizes[0]) is not None
    if len(kept) != layers + 1 or not is_over_grid:
        raise RuntimeError(
            f"Expected the {layers} layers of {type(model).__name__} to run once each, over the tokens of a "
            f"{grid.rows}x{grid.columns} patch grid of {examples} examples, but what entered them and left the last "
            f"was of shapes {', '.join(map(str, shapes))}, {len(kept)} times. forward_func must run the model once; "
            "hierarchical and windowed models have no single patch grid. AttentionEvidence explains them."
        )


class _TokensMode(AttentionMode):
    """Within the block, notes the attention over the image's tokens. Parameters are taken as constants."""

    def __init__(self, examples: int, grid: PatchGrid) -> None:
        super().__init__()
        self.examples = examples
        self.grid = grid
        self.layers: list[AttentionLayer] = []
        self._normalised: Tensor | None = None

    def attend(self, call: AttentionCall) -> Tensor:
        check_no_dropout(p=call.dropout_p)
        output = call.run()
        if self._is_over_grid(*call[:3]):
            query, key, value, mask, *_ = call.expanded()
            layer = Layer(query.detach(), key.detach(), None if mask is None else mask.detach(), call.scale)
            self.layers.append(AttentionLayer(layer, value.detach(), output, self._normalised))
        return output

    def _is_over_grid(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        tokens = query.shape[-2]
        return (
            value.requires_grad  # else it is of another tower
            and query.dim() == 4
            and len(query) == self.examples
            and tokens == key.shape[-2]
            and self.grid.prefix_tokens(tokens) is not None
        )

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        args, kwargs = detach_parameters((args, kwargs))
        return super().attend_in_module(*args, **kwargs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func is F.dropout:
            check_no_dropout(*args, **kwargs)
        if getattr(func, "__name__", None) in ACCESS or not torch.is_grad_enabled():
            return func(*args, **kwargs)  # without gradient, as weights are loaded, nothing is kept for one
        args, kwargs = detach_parameters((tuple(args), kwargs))
        result = func(*args, **kwargs)
        if func in NORM_FUNCTIONS:
            self._normalised = result
        return result
