"""One pass through a model: every attention layer is met on the way back and handed to a rule, last layer first.

While the model runs forward, its calls of ``F.scaled_dot_product_attention`` over the image's tokens are answered by
``blockwise.attention``, with the same result; in backward, that hands out the layer in blocks of query rows, and the
rule makes the relevance below the layer from the relevance above. No hook is set and no weight is written to.

Letters in shapes: N examples, L layers, H heads, T tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from captum_gmar._captum import TargetType, _run_forward, _select_targets, compute_gradients
from captum_gmar.blockwise import attention
from captum_gmar.models import PatchGrid, patch_grid, start_relevance
from captum_gmar.rules import Block, Rule
from captum_gmar.switching import attention_implementation, uncompiled

TRACED = (torch.jit.ScriptModule, torch.fx.GraphModule)


class Explanation(NamedTuple):
    """What one pass gives."""

    relevance: Tensor  # (N, T) of every token
    importance: Tensor  # (N, L, H) of the heads, not normalised
    grid: PatchGrid

    @property
    def patch_relevance(self) -> Tensor:
        """(N, rows, columns)"""
        return self.relevance[:, -self.grid.patches :].reshape(-1, self.grid.rows, self.grid.columns)


def explain(
    model: nn.Module,
    forward_func: Callable[..., Tensor],
    rule: Rule,
    inputs: Tensor,
    target: TargetType = None,
    additional_forward_args: object = None,
) -> Explanation:
    """Runs ``forward_func`` forward and backward once and applies ``rule`` to every attention layer.

    Args:
        model: the model that ``forward_func`` runs, asked for its patch grid and the tokens its classifier reads.
        forward_func: returns the logits tensor.
        rule: what to make of a layer.
        inputs: pixel values (N, channels, height, width).
        target: class index, in any form that Captum takes.
        additional_forward_args: passed to ``forward_func`` after the inputs.

    Raises:
        RuntimeError: if attention over the patch grid is not met, or its gradient cannot be had.
        FloatingPointError: if the target's logits, a layer's gradient or the relevance is NaN or infinite.
    """
    _check_not_checkpointing(model)
    grid = patch_grid(model, *inputs.shape[-2:])
    meeting = AttentionMeeting(rule, len(inputs), grid)

    def target_logits() -> Tensor:
        with meeting, attention_implementation(model, "sdpa"), uncompiled():
            logits = cast(Tensor, _run_forward(forward_func, inputs.detach(), None, additional_forward_args))
        selected = _select_targets(logits, target)
        _check_finite(selected, "target's logits")
        meeting.check_met(model)
        if not selected.requires_grad:
            raise _detached_error(meeting.layers - 1)
        start = start_relevance(model, grid, meeting.tokens)
        meeting.relevance = start.to(meeting.relevance).repeat(len(inputs), 1)
        return selected

    compute_gradients(target_logits, meeting.anchor)
    relevance, importance = meeting.result()
    return Explanation(relevance, importance, grid)


class AttentionMeeting(TorchFunctionMode):
    """Within the block, meets the attention layers of a model as they are called; on the way back, applies the rule.

    Parameters are passed to every function detached: then no parameter gradient is computed, and what would have been
    kept for it is not kept.
    """

    def __init__(self, rule: Rule, examples: int, grid: PatchGrid) -> None:
        super().__init__()
        self.rule = rule
        self.examples = examples
        self.grid = grid
        self.anchor = torch.zeros((), requires_grad=True)  # where backward ends: every layer hangs on it
        self.tokens = 0
        self.layers = 0
        self.last: Node | None = None  # where the last layer met stands in autograd's graph
        self.passed_by: set[tuple[int, ...]] = set()  # query shapes of attention that is not over the patch grid
        self.relevance = torch.empty(0)  # (N, T) below the layers that were met again, as precise as their blocks
        self.importance: list[list[Tensor]] = []  # last layer first, in parts (n, H)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if getattr(func, "__name__", None) in ("__get__", "__set__", "__delete__"):
            return func(*args, **kwargs)
        return func(*map(_detached, args), **{name: _detached(value) for name, value in kwargs.items()})

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not self._is_over_grid(query, key):
            self._check_passes_by(query, key, value)
            rest: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
            return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **rest)
        self._check_explainable(dropout_p)
        self._check_follows(query, key, value)
        if is_causal:
            attn_mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
        self.tokens = query.shape[-2]
        self.layers += 1
        self.relevance = query.new_empty(0, dtype=torch.promote_types(query.dtype, torch.float32))
        on_blocks = partial(self._meet_again, self.layers - 1)
        attended = attention(query, key, value, attn_mask, scale, self.anchor, on_blocks)
        self.last = attended.grad_fn
        return attended

    def _is_over_grid(self, query: Tensor, key: Tensor) -> bool:
        tokens = query.shape[-2]
        return (
            query.dim() == 4
            and len(query) == self.examples
            and tokens == key.shape[-2]
            and tokens == (self.tokens or tokens)
            and self.grid.prefix_tokens(tokens) is not None
        )

    def _check_explainable(self, dropout_p: float) -> None:
        if dropout_p:
            raise RuntimeError(
                f"Expected attention without dropout but got dropout_p={dropout_p}: an explanation of one random pass "
                "explains no other. Call model.eval() first."
            )
        if not torch.is_grad_enabled():
            raise RuntimeError(
                f"Attention layer {self.layers} runs without gradient. Remove torch.no_grad() and gradient "
                "checkpointing from the model's forward."
            )

    def _check_passes_by(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        self.passed_by.add(tuple(query.shape))
        if self.last is not None and _depends((query, key, value), self.last):
            raise RuntimeError(
                f"Expected every attention layer after the first over {self.tokens} tokens, but after layer "
                f"{self.layers - 1} came one with queries of shape {tuple(query.shape)}. Models that drop, merge or "
                "pool tokens on the way cannot be explained."
            )

    def _check_follows(self, *inputs: Tensor) -> None:
        if self.last is not None and not _depends(inputs, self.last):
            raise RuntimeError(
                f"Expected attention layer {self.layers} to depend on layer {self.layers - 1}, but it does not, so "
                "relevance cannot be handed down. forward_func must run one model, and run it once."
            )

    def check_met(self, model: nn.Module) -> None:
        """Raises an error that says what to do if no attention over the patch grid was met."""
        if self.layers:
            return
        name, grid = type(model).__name__, self.grid
        if self.passed_by:
            shapes = ", ".join(map(str, sorted(self.passed_by)))
            raise RuntimeError(
                f"Expected attention over {grid.patches} patch tokens, a {grid.rows}x{grid.columns} grid, of "
                f"{self.examples} examples, but {name} attends over {shapes} (examples, heads, tokens, head "
                "dimension). Check the size of the images and the model's patch size. Hierarchical and windowed models "
                "have no single patch grid and cannot be explained."
            )
        if any(isinstance(module, TRACED) for module in model.modules()):
            raise RuntimeError(
                f"No attention was met in {name}: it is traced or exported, which compiles the calls of its attention "
                "away. Pass the model as it was before."
            )
        raise RuntimeError(
            f"No attention was met in {name}: it never calls torch.nn.functional.scaled_dot_product_attention in this "
            'thread. Load Hugging Face models with attn_implementation="sdpa"; pass DataParallel models without their '
            "wrapper (model.module), and traced or exported ones as they were before. Models without attention, and "
            "nn.MultiheadAttention, cannot be explained."
        )

    def _meet_again(self, layer: int, examples: slice, blocks: Iterable[Block]) -> None:
        """On the way back: applies the rule to some examples of a layer."""
        if examples.start == 0:
            self.importance.append([])
        expected = self.layers - len(self.importance)
        if layer != expected:
            raise RuntimeError(
                f"Expected attention layer {expected} on the way back but met layer {layer}: the target does not "
                "depend on every layer in turn, so relevance cannot be handed down."
            )
        relevance, importance = self.rule(self.relevance[examples], blocks)
        self.relevance[examples] = relevance
        self.importance[-1].append(importance)

    def result(self) -> tuple[Tensor, Tensor]:
        """Relevance (N, T) and head importance (N, L, H), first layer first."""
        if len(self.importance) < self.layers:
            raise _detached_error(self.layers - 1 - len(self.importance))
        importance = [torch.cat(parts) for parts in self.importance]
        for layer, layer_importance in zip(reversed(range(self.layers)), importance, strict=True):
            _check_finite(layer_importance, f"gradient at attention layer {layer}")
        _check_finite(self.relevance, "relevance")
        return self.relevance, torch.stack(importance[::-1], 1)


def _depends(tensors: Iterable[Tensor], node: Node) -> bool:
    """Whether any of the tensors was computed from what came out of ``node``."""
    pending = [tensor.grad_fn for tensor in tensors]
    seen: set[Node | None] = {None}
    while pending:
        current = pending.pop()
        if current is node:
            return True
        if current is not None and current not in seen:
            seen.add(current)
            pending.extend(following for following, _ in current.next_functions)
    return False


def _detached(argument: Any) -> Any:
    if type(argument) is nn.Parameter:
        return argument.detach()
    if type(argument) in (list, tuple):
        return type(argument)(map(_detached, argument))
    return argument


def _check_not_checkpointing(model: nn.Module) -> None:
    if any(module.training and getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise RuntimeError(
            "Expected a model without gradient checkpointing, which runs each layer a second time on the way back. "
            "Call model.eval() or model.gradient_checkpointing_disable() first."
        )


def _detached_error(layer: int) -> RuntimeError:
    return RuntimeError(
        f"Attention layer {layer} got no gradient: the target does not depend on it. Does the model, or forward_func, "
        "detach what it computes?"
    )


def _check_finite(tensor: Tensor, what: str) -> None:
    if not torch.isfinite(tensor).all():
        raise FloatingPointError(
            f"The {what} must be finite. Got NaN or infinity instead. Check the inputs and the model's weights; in "
            "half precision, try float32 or bfloat16."
        )
