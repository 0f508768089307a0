"""Checks that a model can be explained, and the errors of those that cannot."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.autograd.graph import Node

from captum_gmar.engine.hooks.autograd_graph import bottlenecks, depends, reorders_rows, shape_of, upstream
from captum_gmar.engine.models.introspection import ModelInfo, inspect_model
from captum_gmar.engine.models.patch_grid import Logits, check_no_checkpointing


class NoPatchGridError(RuntimeError):
    """The error of a model whose attention is not over one patch grid."""


class NoAttentionError(NoPatchGridError):
    """The error of a model that never lets torch compute attention."""


def check_deterministic(model: nn.Module | ModelInfo) -> None:
    """Raise a RuntimeError if the model draws at random which layers run, or recomputes them in the backward pass."""
    info = inspect_model(model)
    if any(getattr(module, "training", False) and values["drop_prob"] > 0 for module, values in info.each("drop_prob")):
        raise RuntimeError("model must run without stochastic depth, but drops layers at random. Call model.eval().")
    check_no_checkpointing(info)


def check_forward(
    forward_func: Logits,
    model: nn.Module,
    output: Tensor,
    start: Node | None,
    entry: Node | None,
    inputs: Tensor,
    attended: Sequence[Tensor] = (),
    own: Sequence[Node] = (),
) -> None:
    """Check that a function runs the model alone, and keeps the examples in their order. The model itself does.

    The output (N, ...), or (L·N, ...) of layers apart, must depend on the inputs, which ``start`` stands for in
    autograd's graph, only by the ``entry`` of the model's layers or of their first attention, or only by the ``own``
    logits of the model, which may read the inputs beside its layers.
    """
    if forward_func.run is model or start is None or output.grad_fn is None or entry is None:
        return
    earlier = upstream(entry)
    if any(map(partial(_moves_examples, len(inputs)), (upstream(output.grad_fn) | earlier))):
        raise RuntimeError(
            "forward_func must keep the examples in their order, but it flips, rolls, indexes, sorts or joins them in "
            "another order. Reorder the inputs before the call, or pass one example at a time."
        )
    common = bottlenecks(output.grad_fn, start)
    is_past = common and not any(node in earlier and not _is_image(shape_of(node), inputs) for node in common)
    is_past = is_past and (not own or depends((output,), start, beyond=own))
    if is_past or not all(depends((result,), entry) for result in attended):
        raise RuntimeError(
            "forward_func must run one model, and run it once, but its output also reads the inputs past the model's "
            "layers. Return the model's own output."
        )


def _moves_examples(examples: int, node: Node) -> bool:
    shape = shape_of(node)
    return examples > 1 and bool(shape) and shape[0] > 0 and shape[0] % examples == 0 and reorders_rows(node)


def _is_image(shape: Sequence[int], inputs: Tensor) -> bool:
    """Return whether a tensor of this shape is what preprocessing makes of the inputs, and no tokens."""
    channels = inputs.shape[-3] if inputs.dim() > 3 else 0
    return len(shape) > 3 and shape[-3] == channels


def cut_gradient_error(operations: str = "some of its operations") -> RuntimeError:
    """Return the error of a graph in which torch has no gradient before the layers."""
    return RuntimeError(
        f"model must have a gradient throughout, but {operations} have none, as those of dynamically quantised layers. "
        "Pass the model as it was before, or use AttentionRollout or RawAttention (docs/how-to/loading.md)."
    )


def without_gradient_error(layer: int) -> RuntimeError:
    """Return the error of a target that does not depend on a layer."""
    return RuntimeError(
        f"target must depend on attention layer {layer}, but that layer gets no gradient. Remove detach() from the "
        "model and forward_func."
    )
