"""The pass of attention maps: a rule receives every attention layer in the backward pass, last layer first.

Letters in shapes: N examples, L layers, H heads, T tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from captum_gmar.engine._captum import _format_additional_forward_args
from captum_gmar.engine.attention.backward import BackwardPass
from captum_gmar.engine.attention.forward import ForwardPass
from captum_gmar.engine.attention.layer_readout import separate_layers, sum_layer_logits
from captum_gmar.engine.checks import NoPatchGridError, check_deterministic, check_forward
from captum_gmar.engine.finite_checks import Flags
from captum_gmar.engine.kernels.batched import readers
from captum_gmar.engine.kernels.blocks import AttentionBlocks
from captum_gmar.engine.kernels.dispatch import is_batched, is_fused, read_layer
from captum_gmar.engine.kernels.layer import AttentionLayer, LayerGradient, resolve_scale
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.kernels.reduction import HeadSums, Reduction, count_leading, read_blocks
from captum_gmar.engine.kernels.workspace import Scratch
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.introspection import ModelInfo, inspect_model
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits, check_rows, find_logits, logits_of, patch_grid
from captum_gmar.engine.models.readout_tokens import pools_maxima, start_relevance
from captum_gmar.engine.plan import Explanation, Plan, first_layer
from captum_gmar.engine.request import Request, mark
from captum_gmar.engine.rule import HeadSweep, Importance
from captum_gmar.engine.targets import select


def explain_attention(
    info: ModelInfo, forward_func: Logits, plan: Plan, pixels: Tensor, request: Request
) -> tuple[list[Explanation], NoPatchGridError | None]:
    """Run ``forward_func`` forward once and, where the plan has a rule, backward once for each target.

    Return the explanation of each target; or none, and the error of a model whose attention is not over one patch grid.
    Pixels are (N, channels, height, width). Without a rule, the output may be anything.
    """
    with run_forward(info, forward_func, plan, pixels, request.additional_forward_args) as (forward_pass, output):
        if forward_pass.refusal is not None:
            return [], forward_pass.refusal
        logits, scores = _logits_and_scores(info, plan, forward_pass, output, is_needed=callable(request.targets))
        targets = request.targets_for(logits, len(pixels))
        flags = [Flags() for _ in targets]
        selected = [output]
        if plan.rule:
            selected = [select(scores, t, request.contrast, f) for t, f in zip(targets, flags, strict=True)]
        if (refusal := forward_pass.find_refusal(info.model)) is not None:
            return [], refusal
        first = first_layer(plan.start_layer, forward_pass.count)
        starts = _starts(info, plan, forward_pass, selected)
        explanations = [
            _explain_score(info, plan, forward_pass, first, score, start, flags[number - 1], number < len(selected))
            for number, (score, start) in enumerate(zip(selected, starts, strict=True), 1)
        ]
    explanations = explanations if plan.rule else explanations * len(targets)
    return [explanation._replace(logits=logits) for explanation in explanations], None


def _logits_and_scores(
    info: ModelInfo, plan: Plan, forward_pass: ForwardPass, output: object, is_needed: bool
) -> tuple[Tensor | None, Tensor]:
    """Return the model's logits (N, classes), detached if there are any, and the scores that targets select from."""
    if not plan.rule:
        logits = logits_of(output) if is_needed else find_logits(output)
        return (None if logits is None else logits.detach()), torch.empty(0)
    logits = logits_of(output)
    if not plan.separate:
        check_rows(logits, forward_pass.examples)
    scores = plan.score(logits)
    if plan.separate:
        scores = sum_layer_logits(scores, forward_pass, info.model)
        logits = logits.chunk(forward_pass.apart)[-1]  # those of the last layer are the whole model's
    return logits.detach(), scores


def _explain_score(
    info: ModelInfo,
    plan: Plan,
    forward_pass: ForwardPass,
    first: int,
    selected: Any,
    start: Tensor,
    flags: Flags,
    goes_again: bool,
) -> Explanation:
    """Explain one score by its backward pass and the plan's sweep."""
    relevance, importance = start, None
    if plan.rule:
        backward_pass = BackwardPass(plan.rule, forward_pass, start, first, flags)
        backward_pass.run(selected, goes_again)
        if plan.begins and plan.tokens is None:
            backward_pass.check_start(start, whole=not pools_maxima(info))
        relevance, importance = backward_pass.result()
        for has_gradient in backward_pass.has_gradient():
            flags.add(has_gradient)
    if plan.sweep:
        relevance = run_sweep(plan, forward_pass.layers[max(plan.start_layer, 0) :], start, importance)
    flags.finite(relevance, "relevance")
    lacks_gradient = not all(flags.look())
    return Explanation(relevance, importance, forward_pass.grid, lacks_gradient)


@contextmanager
def run_forward(
    model: nn.Module | ModelInfo, forward_func: Logits, plan: Plan, pixels: Tensor, additional_forward_args: object
) -> Iterator[tuple[ForwardPass, Any]]:
    """Run forward; give the pass and the output, for the block."""
    info = inspect_model(model)
    check_deterministic(info)
    grid = patch_grid(info, *pixels.shape[-2:])
    arguments = _format_additional_forward_args(additional_forward_args) or ()
    layers = transformer_layers(info) if plan.separate else []
    forward_pass = ForwardPass(len(pixels), grid, plan, len(layers))
    try:
        with (
            forward_pass,
            attention_implementation(info, "sdpa"),
            force_eager(),
            separate_layers(layers, forward_pass) if layers else nullcontext(),
            # Without a rule autograd notes operations and keeps none of their tensors but indices.
            nullcontext() if plan.rule else saved_tensors_hooks(_keep_indices, lambda kept: kept),
        ):
            marked = mark(pixels)
            forward_pass.pixels = marked.grad_fn
            output = forward_func.run(marked, *arguments)
        logits = find_logits(output)
        if logits is not None:
            check_forward(forward_func, info.model, logits, forward_pass.pixels, forward_pass.entry, pixels)
        yield forward_pass, output
    finally:
        forward_pass.forget()


def _drop_mask(layer: AttentionLayer) -> LayerGradient:
    """Return a layer for reductions of attention alone; the key stands for tensors that these do not need."""
    scale = resolve_scale(layer.query, layer.scale)
    return LayerGradient(layer.query, layer.key, layer.key, layer.key, None, scale, layer.lse)


def run_sweep(plan: Plan, layers: Sequence[AttentionLayer], relevance: Tensor, importance: Importance | None) -> Tensor:
    """Return the relevance (N, T) after the plan's sweep, on its device, for as many examples at a time as fit."""
    sweep, given = plan.sweep, "blocks" if plan.disk_offload else plan.implementation
    assert sweep is not None
    layers = [layer.to(relevance.device) for layer in layers]  # of a model that is spread over several
    importance = importance and [heads.to(relevance.device) for heads in importance]
    with torch.no_grad(), without_autocast(relevance.device.type):
        is_masked = any(layer.mask is not None for layer in layers)
        if is_masked or not isinstance(sweep, HeadSweep) or not sweep.is_linear(importance):
            parts = _iterate_parts(layers, relevance, importance)
            return torch.cat([sweep(start, blocks, weighing) for start, blocks, weighing in parts])
        if all(is_batched(layer.query, layer.key, given) for layer in layers):
            return sweep.take(relevance, readers(layers), importance)
        if all(is_fused(layer.query, layer.key, given) for layer in layers):
            return sweep.take(relevance, [partial(read_layer, _drop_mask(layer)) for layer in layers], importance)
        parts = _iterate_parts(layers, relevance, importance)
        numbers = range(len(layers))
        takes = ((start, [partial(blocks.read, n) for n in numbers], weights) for start, blocks, weights in parts)
        return torch.cat([sweep.take(*arguments) for arguments in takes])


@dataclass(frozen=True)
class _LayersOfPart(Sequence[AttentionBlocks]):
    """Some examples of all layers; each is made blocks, and read from its file, when it is asked for."""

    layers: Sequence[AttentionLayer]
    part: slice
    scratch: Scratch

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, number: Any) -> Any:
        return AttentionBlocks(self.layers[number].part(self.part), self.scratch)

    def read(self, number: int, reduction: Reduction) -> HeadSums:
        blocks, row = self[number], reduction.row
        if row is not None and row.device.type == "cpu":  # another device would have to be waited for
            blocks.keep_first(count_leading(row != 0))
        return read_blocks(blocks, reduction)


def _iterate_parts(
    layers: Sequence[AttentionLayer], relevance: Tensor, importance: Importance | None
) -> Iterator[tuple[Tensor, _LayersOfPart, Importance | None]]:
    """Yield relevance, layers and importance for as many examples at a time as a block holds."""
    scratch = Scratch(max(layers, key=lambda layer: layer.shape[1]))
    for part in scratch.parts():
        weights = importance and [heads[part] for heads in importance]
        yield relevance[part], _LayersOfPart(layers, part, scratch), weights


def _starts(info: ModelInfo, plan: Plan, forward_pass: ForwardPass, selected: Sequence[Any]) -> list[Tensor]:
    """Return where the relevance of each score begins."""
    if forward_pass.poolings:
        return [_start(info, plan, forward_pass, score) for score in selected]
    return [_start(info, plan, forward_pass, selected[0])] * len(selected)


def _start(info: ModelInfo, plan: Plan, forward_pass: ForwardPass, output: object) -> Tensor:
    """Return where relevance begins (N, T), each row summing to 1; zero for rules that begin nowhere."""
    if not plan.begins:
        return forward_pass.like.new_zeros(forward_pass.examples, forward_pass.tokens)
    read = [] if plan.tokens is not None else [p.attention for p in forward_pass.poolings if p.is_read_by(output)]
    if len(read) > 1:
        raise RuntimeError(
            f"target must read its tokens by one pooling attention at most, but reads them by {len(read)}. Pass "
            "tokens=, where relevance begins."
        )
    if read:
        return read[0].to(forward_pass.like)
    start = start_relevance(info, forward_pass.grid, forward_pass.tokens, plan.tokens)
    return start.to(forward_pass.like).repeat(forward_pass.examples, 1)


def _keep_indices(saved: Tensor) -> Tensor | None:
    return saved if saved.dtype == torch.long else None
