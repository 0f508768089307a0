"""Value times gradient, of models of any grids: of one pass forward, and one backward for each target.

Letters in shapes: N examples, L layers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import Enum
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from captum_gmar.engine._captum import _format_additional_forward_args
from captum_gmar.engine.checks import check_deterministic, check_forward
from captum_gmar.engine.finite_checks import check_finite
from captum_gmar.engine.hooks.threads import limit_to_thread
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.models.attention_backend import NAME, attention_implementation, uncompiled
from captum_gmar.engine.models.grids import KnownGrids, PackedGrid, Shape, added_up, finest
from captum_gmar.engine.models.layers import find_stages, lists_of_layers
from captum_gmar.engine.models.patch_grid import Logits, check_not_traced, check_rows, logits_of
from captum_gmar.engine.plan import Explanation
from captum_gmar.engine.request import Request
from captum_gmar.engine.targets import select
from captum_gmar.engine.values.capture import EACH, ValueMode
from captum_gmar.engine.values.positions import Evidence, Mixed, Places
from captum_gmar.engine.values.stage_readout import layers_passed_by

HIDDEN_ATTENTION = ("flash", "flex")  # which calls functions that cannot be met


class Separation(Enum):
    """How a model's layers run."""

    APART = "each by itself, as so many examples more behind its stage"
    APART_FROM_THE_START = "each by itself, as so many examples more from the start on"  # which some models count there
    TOGETHER = "as they are"


_separations: WeakKeyDictionary[nn.Module, Separation] = WeakKeyDictionary()  # of models that were met


class ForwardReading(NamedTuple):
    """What a pass forward gave."""

    values: list[Mixed]
    maps: list[Shape]
    logits: Tensor  # (L·N, ...) where the layers are apart
    layers: int  # L, or 1


def explain_values(
    model: nn.Module,
    forward_func: Logits,
    score: Callable[[Tensor], Tensor],
    inputs: Tensor,
    request: Request,
    start_layer: int = 0,
) -> list[Explanation]:
    """Value times gradient of all attention, on the finest grid of the model, summed over layers.

    Of models whose layers follow one upon the other, each layer's gradient is that of its own logits; of others that of
    the model's logits.

    Args:
        model: the model that ``forward_func`` runs. It is left as it was.
        forward_func: gives the logits.
        score: what is explained, of the logits and of the same shape.
        inputs: images (N, channels, height, width), videos (N, frames, channels, height, width), spectrograms
            (N, time, bins), or images that come as patches (N, patches, numbers), with a tensor (N, 2) of rows and
            columns among the further arguments.
        request: the targets, and further arguments.
        start_layer: the first layer that counts.

    Raises:
        ValueError: if there is no such layer, or images that come as patches are not of one size.
        RuntimeError: if no attention is met whose values stand for places.
        FloatingPointError: if the target's logits or the relevance is NaN or infinite.
    """
    arguments = _format_additional_forward_args(request.additional_forward_args) or ()
    reading = _read_forward(model, forward_func, inputs, arguments)
    scores = torch.stack(score(reading.logits).chunk(reading.layers)).sum(0)
    logits = reading.logits.chunk(reading.layers)[-1].detach()
    targets = request.targets_for(logits, len(inputs))
    values = _counted(reading, start_layer)
    places, dims = places_of(model, inputs, arguments, reading.maps)
    of_targets = []
    for number, target in enumerate(targets, 1):
        selected = select(scores, target, request.contrast)
        # Of layers that are apart, the way from the score ends at their values, and what moves them lies before.
        is_kept = number < len(targets) or reading.layers == 1
        gradients = _gradients(values, selected, is_kept)
        of_targets.append(_places_evidence(model, reading, values, gradients, places, dims)._replace(logits=logits))
    return of_targets


def _gradients(values: Sequence[Mixed], selected: Tensor, is_kept: bool) -> Sequence[Tensor | None]:
    """Of the score with respect to the values, and whether the pass is kept for more of them."""
    tensors = [mixed.value for mixed in values]
    if not tensors:
        return ()
    return torch.autograd.grad(selected.sum(), tensors, retain_graph=is_kept, allow_unused=True)


def _counted(reading: ForwardReading, start_layer: int) -> list[Mixed]:
    """The values of the layers from the first that counts on."""
    numbers = list(dict.fromkeys(mixed.layer for mixed in reading.values))
    if not isinstance(start_layer, int) or (numbers and not -len(numbers) <= start_layer < len(numbers)):
        raise ValueError(f"start_layer must be one of the model's {len(numbers)} layers. Got {start_layer} instead.")
    return [mixed for mixed in reading.values if mixed.layer in numbers[start_layer:]]


def _places_evidence(
    model: nn.Module,
    reading: ForwardReading,
    values: Sequence[Mixed],
    gradients: Sequence[Tensor | None],
    places: Places,
    dims: Shape,
) -> Explanation:
    with without_autocast(reading.logits.device.type):
        evidence = [
            places.field(mixed, gradient)
            for mixed, gradient in zip(values, gradients, strict=True)
            if gradient is not None
        ]
        fields = [of_values for of_values in evidence if of_values is not None]
        if not fields or len(fields) < len(evidence):
            raise _nothing_met(model, reading, places)
        relevance = _together(fields)
    check_finite(relevance, "relevance")
    grid = places.kind(finest(tuple(of_values.field.shape[1:]) for of_values in fields), dims)
    without_gradient = any(not of_values.field.any() for of_values in fields)
    return Explanation(relevance, None, grid, without_gradient)


def _together(evidence: Sequence[Evidence]) -> Tensor:
    """(N, T) of tokens that stand for no place, then of the places of the finest grid."""
    device = evidence[-1].field.device
    field = added_up([of_values.field.to(device) for of_values in evidence])
    most = max(of_values.others.shape[1] for of_values in evidence)
    others = [
        nn.functional.pad(of_values.others.to(device), (0, most - of_values.others.shape[1])) for of_values in evidence
    ]
    return torch.cat([torch.stack(others).sum(0), field.flatten(1)], 1)


def _read_forward(model: nn.Module, forward_func: Logits, inputs: Tensor, arguments: Sequence[Any]) -> ForwardReading:
    """Runs forward. Layers are apart where they can be: where nothing comes between them, where their tokens stand for
    places, and where a model takes as many examples as there are layers more."""
    check_deterministic(model)
    stages = find_stages(model)
    is_model = forward_func.run is model  # a function may fail on more examples than it was given
    known = (_separations.get(model) if is_model else None) if stages else Separation.TOGETHER
    ways = list(Separation) if known is None else [known]
    for way in ways:
        try:
            reading = _run_forward(model, forward_func, inputs, arguments, stages, way)
        except (RuntimeError, ValueError, IndexError) as error:
            if way is ways[-1] or isinstance(error, torch.OutOfMemoryError):
                raise
        else:
            break
    if is_model:
        _separations[model] = way
    return reading


def _run_forward(
    model: nn.Module,
    forward_func: Logits,
    inputs: Tensor,
    arguments: Sequence[Any],
    stages: list[list[nn.Module]],
    separation: Separation,
) -> ForwardReading:
    if separation is Separation.TOGETHER or not stages:
        together, logits = run_together(model, forward_func, inputs, arguments)
        return ForwardReading(together.values, list(together.maps), logits, 1)
    is_whole = separation is Separation.APART_FROM_THE_START
    mode = ValueMode(None)

    def is_under_way(layer: int | None) -> None:
        mode.layer = layer
        mode.entry = passing.entries[-1]
        if layer == 0 and not mode.streams.begins_in_inputs(mode.entry):
            raise RuntimeError("Expected the tokens of layers that are apart to stand for places, but they do not.")

    marked, layers = _marked(inputs), sum(map(len, stages))
    if is_whole:
        marked = torch.cat([marked] * layers)
        arguments = [_repeated(argument, layers, len(inputs)) for argument in arguments]
    mode.streams.start = marked.grad_fn
    with mode, uncompiled(), _shown_attention(model), layers_passed_by(stages, is_whole, is_under_way) as passing:
        logits = logits_of(forward_func.run(marked, *arguments))
    check_rows(logits, len(inputs), layers)
    check_forward(forward_func, model, logits, mode.streams.start, passing.entries[0].grad_fn, inputs)
    return ForwardReading(mode.values, list(mode.maps), logits, layers)


def run_together(
    model: nn.Module, forward_func: Logits, inputs: Tensor, arguments: Sequence[Any], writes_out: bool = False
) -> tuple[ValueMode, Tensor]:
    """Runs forward, the layers as they are.

    Args:
        writes_out: whether attention is written out and kept.

    Returns:
        What met the values that attention mixes, and the logits.

    Raises:
        RuntimeError: if there are not as many outputs as examples.
    """
    mode, marked = ValueMode(EACH, writes_out), _marked(inputs)
    mode.streams.start = marked.grad_fn
    with mode, uncompiled(), _shown_attention(model), _noting_entries(model, mode):
        logits = logits_of(forward_func.run(marked, *arguments))
    check_rows(logits, len(inputs))
    entry = mode.values[0].value.grad_fn if mode.values else None
    check_forward(forward_func, model, logits, mode.streams.start, entry, inputs)
    return mode, logits


def _marked(inputs: Tensor) -> Tensor:
    """The same, so that what is computed from them can be told."""
    return inputs.detach() + torch.zeros((), dtype=inputs.dtype, device=inputs.device, requires_grad=True)


@contextmanager
def _noting_entries(model: nn.Module, mode: ValueMode) -> Iterator[None]:
    """Within the block, the mode knows what entered the list of layers that is under way."""

    @limit_to_thread
    def enter(module: nn.Module, args: Any) -> None:
        mode.entry = next((value for value in args if isinstance(value, Tensor)), None)

    with ExitStack() as stack:
        for layers in lists_of_layers(model):
            stack.enter_context(layers[0].register_forward_pre_hook(enter))
        yield


def _repeated(argument: Any, times: int, examples: int) -> Any:
    is_of_each = isinstance(argument, Tensor) and argument.dim() and len(argument) == examples
    return torch.cat([argument] * times) if is_of_each else argument


def _shown_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Within the block, attention is computed by what can be met."""
    configs = (getattr(module, "config", None) for module in model.modules())
    is_hidden = any(str(getattr(config, NAME, "")).startswith(HIDDEN_ATTENTION) for config in configs)
    return attention_implementation(model, "sdpa") if is_hidden else nullcontext()


def places_of(
    model: nn.Module, inputs: Tensor, arguments: Sequence[Any], maps: Sequence[Shape]
) -> tuple[Places, Shape]:
    """The places of the tokens, and which dimensions of the inputs they are cut of."""
    examples = len(inputs)
    sizes = [argument for argument in arguments if isinstance(argument, Tensor) and argument.shape == (examples, 2)]
    if inputs.dim() == 3 and sizes:
        rows, columns = _one_size(sizes[0])
        grids = KnownGrids([(rows, columns)])
        return Places(model, examples, grids, PackedGrid, padded=inputs.shape[1] - rows * columns), ()
    if inputs.dim() == 5:
        return Places(model, examples, KnownGrids(maps, frames=inputs.shape[1])), (1, 3, 4)
    maps = maps or [tuple(inputs.shape[2:])]  # without a convolution each pixel is a token
    return Places(model, examples, KnownGrids(maps)), (2, 1) if inputs.dim() == 3 else (2, 3)


def _one_size(sizes: Tensor) -> tuple[int, int]:
    if not (sizes == sizes[:1]).all():
        raise ValueError(
            "Images that come as patches must be of one number of rows and columns in a batch. Got "
            f"{sizes.tolist()} instead. Pass them one by one."
        )
    rows, columns = sizes[0].tolist()
    return rows, columns


def _nothing_met(model: nn.Module, reading: ForwardReading, places: Places) -> RuntimeError:
    name = type(model).__name__
    if not reading.values:
        check_not_traced(model)
        return RuntimeError(
            f"No attention was met in {name} of what is computed from the inputs: it calls neither "
            "torch.nn.functional.scaled_dot_product_attention nor torch.nn.MultiheadAttention, nor multiplies values "
            "by a softmax. Models without attention cannot be explained."
        )
    shapes = ", ".join(dict.fromkeys(str(tuple(mixed.value.shape)) for mixed in reading.values))
    grids = ", ".join("x".join(map(str, shape)) for shape in places.grids.shapes) or "none"
    return RuntimeError(
        f"Expected attention of {name} over the places of a grid that a convolution cuts its inputs into ({grids}), "
        f"but its values are of shapes {shapes}. Does the model, or forward_func, detach them, or drop tokens?"
    )
