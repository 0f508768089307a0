"""Value times gradient, of models of any grids: one forward pass, and one backward pass for each target.

Letters in shapes: N examples, L layers.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from captum_gmar.engine._captum import _format_additional_forward_args
from captum_gmar.engine.checks import check_deterministic, check_forward
from captum_gmar.engine.finite_checks import check_finite
from captum_gmar.engine.hooks.autograd_graph import gradients
from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.models.attention_backend import NAME, attention_implementation, force_eager
from captum_gmar.engine.models.grids import KnownGrids, PackedGrid, Shape, finest, sum_fields
from captum_gmar.engine.models.layers import find_stages, layer_lists
from captum_gmar.engine.models.patch_grid import Logits, check_not_traced, check_rows, find_logits, logits_of
from captum_gmar.engine.plan import Explanation, Plan, first_layer
from captum_gmar.engine.request import Request, mark
from captum_gmar.engine.targets import select
from captum_gmar.engine.values.capture import EACH, ValueMode
from captum_gmar.engine.values.positions import MixedValues, PlacedTokens, Positions
from captum_gmar.engine.values.stage_readout import skip_later_layers

HIDDEN_ATTENTION = ("flash", "flex")  # which calls functions that cannot be intercepted
# Layers of models that take more examples behind a stage than before it.
COUNT_NO_EXAMPLES = frozenset(
    ("ASTLayer", "DonutSwinLayer", "HieraLayer", "SwinLayer", "Swinv2Layer", "TimesformerLayer", "VJEPA2Layer")
) | {"VideoMAELayer", "VivitLayer", "YolosLayer"}


def explain_values(
    model: nn.Module, forward_func: Logits, plan: Plan, inputs: Tensor, request: Request
) -> list[Explanation]:
    """Compute value times gradient of all attention, on the finest grid of the model, summed over layers.

    Where layers follow one another, each layer's gradient is that of its own logits; elsewhere that of the model's.
    Inputs are images (N, channels, height, width), videos (N, frames, channels, height, width), spectrograms (N, time,
    bins), or images that come as patches (N, patches, numbers), with a tensor (N, 2) of rows and columns among the
    further arguments.
    """
    arguments = _format_additional_forward_args(request.additional_forward_args) or ()
    mode, output, layers = _capture(model, forward_func, inputs, arguments)
    scores = torch.stack(plan.score(output).chunk(layers)).sum(0)
    logits = output.chunk(layers)[-1].detach()
    targets = request.targets_for(logits, len(inputs))
    values = _values_from(mode.values, plan.start_layer)
    positions, dims = find_positions(model, inputs, arguments, list(mode.maps))
    explanations = []
    for number, target in enumerate(targets, 1):
        selected = select(scores, target, request.contrast)
        # Of layers apart, the graph from the score ends at their values, and what moves them lies before.
        retains = number < len(targets) or layers == 1
        tensors = [mixed.value for mixed in values]
        each = gradients(selected, tensors, retains, allow_unused=True) if tensors else ()
        with without_autocast(logits.device.type):
            explanation = _explain_on_grid(model, mode, values, each, positions, dims)
        explanations.append(explanation._replace(logits=logits))
    return explanations


def _values_from(values: Sequence[MixedValues], start_layer: int) -> list[MixedValues]:
    """Return the values of the layers from the first that counts on."""
    numbers = list(dict.fromkeys(mixed.layer for mixed in values))
    first = first_layer(start_layer, len(numbers)) if numbers else 0
    return [mixed for mixed in values if mixed.layer in numbers[first:]]


def _explain_on_grid(
    model: nn.Module,
    mode: ValueMode,
    values: Sequence[MixedValues],
    gradients: Sequence[Tensor | None],
    positions: Positions,
    dims: Shape,
) -> Explanation:
    pairs = [(mixed, gradient) for mixed, gradient in zip(values, gradients, strict=True) if gradient is not None]
    placed = [product for mixed, gradient in pairs if (product := positions.field(mixed, gradient)) is not None]
    if not placed or len(placed) < len(pairs):
        raise _no_places_captured_error(model, mode, positions)
    relevance = _sum_of_layers(placed)
    check_finite(relevance, "relevance")
    grid = positions.kind(finest(tuple(product.field.shape[1:]) for product in placed), dims)
    lacks_gradient = any(not product.field.any() for product in placed)
    return Explanation(relevance, None, grid, lacks_gradient)


def _sum_of_layers(placed: Sequence[PlacedTokens]) -> Tensor:
    """Return the sum (N, T) of tokens without a position, then of the positions of the finest grid."""
    device = placed[-1].field.device
    field = sum_fields([layer.field.to(device) for layer in placed])
    most = max(layer.others.shape[1] for layer in placed)
    others = [nn.functional.pad(layer.others.to(device), (0, most - layer.others.shape[1])) for layer in placed]
    return torch.cat([torch.stack(others).sum(0), field.flatten(1)], 1)


def _capture(
    model: nn.Module, forward_func: Logits, inputs: Tensor, arguments: Sequence[Any]
) -> tuple[ValueMode, Tensor, int]:
    """Run forward; return the values, the logits (L·N, ...) and L: layers, where each has logits of its own, or 1."""
    check_deterministic(model)
    stages = find_stages(model)
    captured = _capture_apart(model, forward_func, inputs, arguments, stages) if stages else None
    return captured or (*run_together(model, forward_func, inputs, arguments), 1)


def _capture_apart(
    model: nn.Module, forward_func: Logits, inputs: Tensor, arguments: Sequence[Any], stages: list[list[nn.Module]]
) -> tuple[ValueMode, Tensor, int] | None:
    """Run forward, each layer with logits of its own; None if the pass shows that layers cannot be apart.

    The other layers' outputs are more examples. Models count their examples at the start, but for those that are known
    to take more behind a stage, which is quicker. A function is run with all from the start.
    """
    is_whole = forward_func.run is not model or type(stages[0][0]).__name__ not in COUNT_NO_EXAMPLES
    mode = ValueMode(None)

    def enter_layer(layer: int | None) -> None:
        mode.layer = layer
        mode.entry = passing.entries[-1]
        if layer == 0 and not mode.streams.begins_in_inputs(mode.entry):
            mode.is_separable = False  # the tokens have no positions

    marked, layers = mark(inputs), sum(map(len, stages))
    if is_whole:
        marked = torch.cat([marked] * layers)
        arguments = [_repeat_rows(argument, layers, len(inputs)) for argument in arguments]
    mode.streams.start = marked.grad_fn
    with mode, force_eager(), _expose_attention(model), skip_later_layers(stages, is_whole, enter_layer) as passing:
        logits = logits_of(forward_func.run(marked, *arguments))
    if not (mode.is_separable and passing.is_separable):
        return None
    check_rows(logits, len(inputs), layers)
    check_forward(forward_func, model, logits, mode.streams.start, passing.entries[0].grad_fn, inputs)
    return mode, logits, layers


def run_together(
    model: nn.Module, forward_func: Logits, inputs: Tensor, arguments: Sequence[Any], writes_out: bool = False
) -> tuple[ValueMode, Tensor]:
    """Run forward, the layers as they are; return the values that attention mixes, and the logits."""
    mode, marked = ValueMode(EACH, writes_out), mark(inputs)
    mode.streams.start = marked.grad_fn
    with mode, force_eager(), _expose_attention(model), _note_entries(model, mode), _note_logits(model, mode) as own:
        logits = logits_of(forward_func.run(marked, *arguments))
    check_rows(logits, len(inputs))
    entry = mode.values[0].value.grad_fn if mode.values else None
    check_forward(forward_func, model, logits, mode.streams.start, entry, inputs, own=own)
    return mode, logits


@contextmanager
def _note_logits(model: nn.Module, mode: ValueMode) -> Iterator[list[Node]]:
    """Yield a list that has, after the block, the graph's node of the model's logits, if it ran once and first."""
    nodes: list[Node] = []
    are_first: list[bool] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.requires_grad]
        are_first.append(len(inputs) == 1 and not mode.values)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        logits = find_logits(output)
        nodes.extend([] if logits is None or logits.grad_fn is None else [logits.grad_fn])

    with hook_modules([model], enter, leave):
        yield nodes
    if are_first != [True]:
        nodes.clear()


@contextmanager
def _note_entries(model: nn.Module, mode: ValueMode) -> Iterator[None]:
    """Let the mode know the tokens that enter each list of layers."""

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        mode.entry = next((value for value in args if isinstance(value, Tensor)), None)

    with hook_modules((layers[0] for layers in layer_lists(model)), enter):
        yield


def _repeat_rows(argument: Any, times: int, examples: int) -> Any:
    is_of_each = isinstance(argument, Tensor) and argument.dim() and len(argument) == examples
    return torch.cat([argument] * times) if is_of_each else argument


def _expose_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Let attention run by functions that can be intercepted."""
    configs = (getattr(module, "config", None) for module in model.modules())
    is_hidden = any(str(getattr(config, NAME, "")).startswith(HIDDEN_ATTENTION) for config in configs)
    return attention_implementation(model, "sdpa") if is_hidden else nullcontext()


def find_positions(
    model: nn.Module, inputs: Tensor, arguments: Sequence[Any], maps: Sequence[Shape]
) -> tuple[Positions, Shape]:
    """Return the positions of the tokens, and the dimensions of the inputs along which they are cut."""
    examples = len(inputs)
    sizes = [argument for argument in arguments if isinstance(argument, Tensor) and argument.shape == (examples, 2)]
    if inputs.dim() == 3 and sizes:
        rows, columns = _one_size(sizes[0])
        grids = KnownGrids([(rows, columns)])
        return Positions(model, examples, grids, PackedGrid, padded=inputs.shape[1] - rows * columns), ()
    if inputs.dim() == 5:
        return Positions(model, examples, KnownGrids(maps, frames=inputs.shape[1])), (1, 3, 4)
    maps = maps or [tuple(inputs.shape[2:])]  # without a convolution each pixel is a token
    return Positions(model, examples, KnownGrids(maps)), (2, 1) if inputs.dim() == 3 else (2, 3)


def _one_size(sizes: Tensor) -> tuple[int, int]:
    if not (sizes == sizes[:1]).all():
        raise ValueError(
            "Images that come as patches must be of one number of rows and columns in a batch, but got "
            f"{sizes.tolist()}. Pass them one by one."
        )
    rows, columns = sizes[0].tolist()
    return rows, columns


def _no_places_captured_error(model: nn.Module, mode: ValueMode, positions: Positions) -> RuntimeError:
    name = type(model).__name__
    if not mode.values:
        check_not_traced(model)
        return RuntimeError(
            f"{name} needs attention over what it computes from the inputs, but calls neither "
            "torch.nn.functional.scaled_dot_product_attention nor torch.nn.MultiheadAttention, nor multiplies values "
            "by a softmax. Pass a model with attention."
        )
    shapes = ", ".join(dict.fromkeys(str(tuple(mixed.value.shape)) for mixed in mode.values))
    grids = ", ".join("x".join(map(str, shape)) for shape in positions.grids.shapes) or "none"
    return RuntimeError(
        f"{name} must attend over the positions of a grid into which a convolution cuts its inputs ({grids}), but has "
        f"values of shapes {shapes}. Remove detach() and dropped tokens from the model and forward_func."
    )
