"""Propagation of relevance through attention in windows, and through the merging of tokens between the stages.

Every step is linear in the relevance. Attention in windows is attention over all positions of its stage whose matrix is
zero between windows, so a rule reads it window by window; shifts and cuts only give the positions of a window's tokens.
A merged token's relevance goes to its parts equally. Tokens without a position, of padding, pass no relevance on.

Letters in shapes: N examples, S windows of all examples, H heads, n tokens of a window, T positions of a stage.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from captum_gmar.engine._captum import _format_additional_forward_args
from captum_gmar.engine.checks import NoAttentionError, NoPatchGridError, check_deterministic
from captum_gmar.engine.finite_checks import check_finite
from captum_gmar.engine.hooks.autograd_graph import depends, gradients
from captum_gmar.engine.kernels.precision import sum_dtype, widen, without_autocast
from captum_gmar.engine.kernels.reduction import NOTHING, HeadSums, Reduction, combine_norms, read_blocks
from captum_gmar.engine.models.grids import FieldGrid, Shape, resample, sum_fields
from captum_gmar.engine.models.introspection import ModelInfo
from captum_gmar.engine.models.layers import has_stages
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, has_patch_size, no_patch_size_error
from captum_gmar.engine.models.readout_tokens import start_relevance
from captum_gmar.engine.plan import Explanation, Plan, first_layer
from captum_gmar.engine.request import Request
from captum_gmar.engine.rule import HeadRule, HeadSweep, Importance, Sweep
from captum_gmar.engine.targets import select
from captum_gmar.engine.values.explain import find_positions, run_together
from captum_gmar.engine.values.positions import MixedValues, Positions

Refuse: TypeAlias = Callable[[str], Exception]


@dataclass
class WrittenOut:
    """Attention that exists as a whole, in one block."""

    attention: Tensor  # (S, H, n, n)
    gradient: Tensor  # of the same shape, or NOTHING

    @property
    def rows(self) -> slice:
        """Slice of the n tokens."""
        return slice(0, self.attention.shape[2])

    @property
    def spare(self) -> Tensor:
        """Memory for products of both."""
        return torch.empty_like(self.attention)

    def __iter__(self) -> Iterator["WrittenOut"]:
        yield self

    def heads_apart(self) -> Sequence["WrittenOut"]:
        """Return all heads, as windows are small."""
        return [self]

    def keep_first(self, queries: int) -> None:
        """Leave out the other query rows."""
        self.attention = self.attention[:, :, :queries]
        if self.gradient is not NOTHING:
            self.gradient = self.gradient[:, :, :queries]


class WindowLayer(NamedTuple):
    """One attention layer over the positions of its stage."""

    attention: Tensor  # A (S, H, n, n)
    tokens: Tensor  # (N, T) of each place the number of its token, among the S·n of all windows
    shape: Shape  # of the stage's grid
    gradient: Tensor = NOTHING  # G, of the same shape

    def relevance(self, field: Tensor) -> Tensor:
        """Spread the field (N, rows, columns) above over this stage's positions (N, T), in equal parts."""
        return resample(field, self.shape).flatten(1)

    def field(self, relevance: Tensor) -> Tensor:
        """Lay out relevance: (N, T) → (N, rows, columns)"""
        return relevance.view(-1, *self.shape)

    def to_windows(self, relevance: Tensor) -> Tensor:
        """Move relevance into windows, (N, T) → (S, n); zero for tokens without a position."""
        windows = relevance.new_zeros(self.attention.shape[::3])
        windows.view(-1)[self.tokens] = relevance
        return windows

    def to_positions(self, windows: Tensor) -> Tensor:
        """Move numbers out of windows: (S, n) → (N, T), or (S, H, n) → (N, H, T)"""
        return windows.movedim(-1, 1).flatten(0, 1)[self.tokens].movedim(1, -1)

    def read(self, reduction: Reduction) -> HeadSums:
        """Compute a reduction of all positions."""
        row = None if reduction.row is None else self.to_windows(reduction.row)
        rows, norms, totals = read_blocks(self._written_out(), reduction._replace(row=row))
        if reduction.norm is not None:
            windows = norms.view(len(self.tokens), -1, norms.shape[-1]).unbind(1)  # (S, H) → S/N of (N, H)
            norms = combine_norms(reduction.norm, list(windows))
        return HeadSums(
            rows if rows is NOTHING else self.to_positions(rows),
            norms,
            totals if totals is NOTHING else self.to_positions(totals),
        )

    def sweep(self, sweep: Sweep, relevance: Tensor) -> Tensor:
        """Return relevance (N, T) below the layer: no window reads another."""
        return self.to_positions(sweep(self.to_windows(relevance), [self._written_out()], None))

    def has_gradient(self) -> Tensor:
        """Return flags (N, T): whether any head's gradient is other than zero in the position's row."""
        return self.to_positions(self.gradient.ne(0).any(-1).any(1))

    def _written_out(self) -> WrittenOut:
        return WrittenOut(widen(self.attention), self.gradient if self.gradient is NOTHING else widen(self.gradient))


def explain_windows(
    model: nn.Module,
    forward_func: Logits,
    plan: Plan,
    inputs: Tensor,
    request: Request,
    refusal: NoPatchGridError | None = None,
) -> list[Explanation]:
    """Explain a model whose tokens attend in windows, or between whose layers tokens are merged.

    Relevance is on the grid of the first layer that counts. A plan that takes each layer by itself gives their mean on
    the finest grid. Where attention is not of places with one another, in layers one upon the other, ``refusal`` is
    raised, the error of the pass over one patch grid, or an error that says more.
    """
    check_deterministic(model)
    arguments = _format_additional_forward_args(request.additional_forward_args) or ()
    mode, logits = run_together(model, forward_func, inputs, arguments, writes_out=True)
    positions, dims = find_positions(model, inputs, arguments, list(mode.maps))
    if not mode.values:
        raise refusal or _no_places_error(model)
    refuse = partial(_not_windows_error, model, refusal)
    layers = [_layer(mixed, positions, refuse) for mixed in mode.values]
    for number, layer in enumerate(layers if forward_func.run is not model and plan.rule is None else ()):
        if layer.attention.grad_fn is not None and not depends((logits,), layer.attention.grad_fn):
            raise refuse(f"the output does not depend on the attention of layer {number}")
    _check_plan(plan)
    layers = layers[first_layer(plan.start_layer, len(layers)) :]
    targets = request.targets_for(logits.detach(), len(inputs))
    explanations = []
    for number, target in enumerate(targets, 1):
        counted: Sequence[WindowLayer] = layers
        if plan.rule:  # without one, targets mean nothing
            selected = select(plan.score(logits), target, request.contrast)
            counted = _add_gradients(layers, selected, number < len(targets), refuse)
        with torch.no_grad(), without_autocast(inputs.device.type):
            explanations.append(_explain_layers(model, plan, counted, dims)._replace(logits=logits.detach()))
    return explanations


def _not_windows_error(model: nn.Module, refusal: NoPatchGridError | None, why: str) -> NoPatchGridError:
    """Return the refusal of the pass before, or why attention is not of positions with one another."""
    if refusal is not None and not isinstance(refusal, NoAttentionError) and not has_stages(model):
        return refusal
    return NoPatchGridError(
        f"{type(model).__name__} needs attention for relevance to flow through, but {why}. Use TokenEvidence."
    )


def _no_places_error(model: nn.Module) -> Exception:
    info = ModelInfo(model)
    if not has_patch_size(info):
        return no_patch_size_error(info)
    return _not_windows_error(model, None, "none of it is over places of the image")


def _check_plan(plan: Plan) -> None:
    goes_down = isinstance(plan.sweep, HeadSweep) and plan.sweep.goes_down and plan.rule is None
    if plan.separate or not (goes_down or (plan.sweep is None and isinstance(plan.rule, HeadRule))):
        raise ValueError(
            "method must propagate relevance from the last layer to the first, as this model has several grids, but "
            "got one that does not. Use GMARAttribution or AttentionRollout with recursion='rollout', "
            "GradientRollout, GMARPlusPlus or TokenEvidence."
        )


def _layer(mixed: MixedValues, positions: Positions, refuse: Refuse) -> WindowLayer:
    """Return the layer of values and of the weights that they were mixed by."""
    attention, value = mixed.weights, mixed.value
    if attention is None or attention.dim() != 4 or attention.shape[-1] != attention.shape[-2]:
        raise refuse("its queries and keys are not of the same tokens")
    found = positions.tokens_of(mixed) if value.shape[:3] == attention.shape[:3] else None
    if found is None or found.dim() != 3:
        raise refuse("its tokens do not stand for one place each")
    tokens, per_example = found.flatten(1), len(attention) // len(found) * attention.shape[-1]
    first = torch.arange(len(found), device=tokens.device)[:, None] * per_example
    if not ((first <= tokens) & (tokens < first + per_example)).all():
        raise refuse("the windows of one example do not follow upon one another")
    return WindowLayer(attention, tokens, tuple(found.shape[1:]))


def _add_gradients(
    layers: Sequence[WindowLayer], selected: Tensor, goes_again: bool, refuse: Refuse
) -> list[WindowLayer]:
    attention = [layer.attention for layer in layers]
    each = gradients(selected, attention, goes_again, allow_unused=True)
    for number, gradient in enumerate(each):
        if gradient is None:
            raise refuse(f"the target does not depend on the attention of layer {number}")
    return [layer._replace(gradient=gradient) for layer, gradient in zip(layers, each, strict=True)]


def _explain_layers(model: nn.Module, plan: Plan, layers: Sequence[WindowLayer], dims: Shape) -> Explanation:
    importance: Importance | None = None
    if isinstance(plan.rule, HeadRule):
        if not plan.rule.layerwise:
            _check_all_read(model, plan, layers[-1])
        field, importance = _apply_head_rule(plan.rule, layers, _start_field(model, plan, layers[-1]))
    else:
        field, sweep = _start_field(model, plan, layers[-1]), plan.sweep
        assert sweep is not None
        for layer in reversed(layers):
            field = layer.field(layer.sweep(sweep, layer.relevance(field)))
    check_finite(field, "relevance")
    lacks_gradient = not all(layer.has_gradient().any(1).all() for layer in layers if layer.gradient is not NOTHING)
    return Explanation(field.flatten(1), importance, FieldGrid(tuple(field.shape[1:]), dims), lacks_gradient)


def _start_field(model: nn.Module, plan: Plan, last: WindowLayer) -> Tensor:
    """Return the relevance (N, rows, columns) above the last layer, summing to 1."""
    rows, columns = last.shape
    grid = PatchGrid(rows, columns, 1, 1, frozenset({0}))
    start = start_relevance(model, grid, grid.patches, plan.tokens or "patches")
    start = start.to(last.attention.device, sum_dtype(last.attention.dtype))
    return start.view(1, *last.shape).repeat(len(last.tokens), 1, 1)


def _check_all_read(model: nn.Module, plan: Plan, last: WindowLayer) -> None:
    read = last.has_gradient()
    if plan.tokens is None and read.any() and not read.all():
        raise RuntimeError(
            f"target must read all {'x'.join(map(str, last.shape))} positions after the last layer of "
            f"{type(model).__name__}, but reads some alone. Pass tokens=, where relevance begins."
        )


def _apply_head_rule(rule: HeadRule, layers: Sequence[WindowLayer], field: Tensor) -> tuple[Tensor, Importance | None]:
    """Return the relevance (N, rows, columns) below the layers, or the mean of each layer's own; and importance."""
    steps: list[tuple[Tensor, Tensor | None]] = []
    for layer in reversed(layers):
        relevance = layer.relevance(torch.zeros_like(field) if rule.layerwise else field)
        step = rule.take(relevance, layer.read)
        field = layer.field(step.relevance)
        steps.insert(0, (field, step.importance))
    fields, importance = zip(*steps, strict=True)
    weighs = importance[0] is not None
    return sum_fields(fields) / len(fields) if rule.layerwise else field, list(importance) if weighs else None
