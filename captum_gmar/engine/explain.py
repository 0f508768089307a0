"""The choice of the pass that explains a model, and its run. A pass is loaded when it runs first."""

from collections.abc import Collection
from enum import Enum, auto

from torch import Tensor, nn

from captum_gmar.engine.models.introspection import PREFIX_PARAMETERS, ModelInfo, check_loaded
from captum_gmar.engine.models.layers import has_nested_stages, has_several_grids
from captum_gmar.engine.models.patch_grid import Logits, has_patch_size
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import Request


class Pass(Enum):
    """A way through a model, forward and backward."""

    ATTENTION = auto()  # attention maps over one patch grid, last layer first
    WINDOWS = auto()  # attention maps of several grids, written out
    VALUES = auto()  # values times gradient, on any grid
    HIDDEN_STATES = auto()  # tokens between layers times gradient


def choose_pass(passes: Collection[Pass], info: ModelInfo, inputs: Tensor) -> Pass:
    """Return the pass that fits the model's structure, of those that a method has."""
    if Pass.VALUES in passes:
        return Pass.VALUES if has_several_grids(info, inputs) or not has_patch_size(info) else Pass.ATTENTION
    if Pass.WINDOWS in passes:
        # Tokens before the patches are of one grid alone.
        is_staged = not info.tokens(PREFIX_PARAMETERS) and has_nested_stages(info)
        return Pass.WINDOWS if is_staged or not has_patch_size(info) else Pass.ATTENTION
    (only,) = passes
    return only


def explain_model(
    passes: Collection[Pass], model: nn.Module, forward_func: Logits, plan: Plan, inputs: Tensor, request: Request
) -> list[Explanation]:
    """Explain each target by the pass that fits the model.

    Where attention over a patch grid was expected and none was captured, it may still be written out by the model, or
    in windows: then a second pass looks for that. Errors of ``forward_func`` are raised as they are.
    """
    info = ModelInfo(model)
    check_loaded(info, inputs)
    chosen, refusal = choose_pass(passes, info, inputs), None
    if chosen is Pass.HIDDEN_STATES:
        from captum_gmar.engine.hidden_states.explain import explain_hidden_states

        return explain_hidden_states(info, forward_func, plan, inputs, request)
    if chosen is Pass.VALUES:
        from captum_gmar.engine.values.explain import explain_values

        return explain_values(model, forward_func, plan, inputs, request)
    if chosen is Pass.ATTENTION:
        from captum_gmar.engine.attention.explain import explain_attention

        explanations, refusal = explain_attention(info, forward_func, plan, inputs, request)
        if refusal is None:
            return explanations
        if Pass.WINDOWS not in passes or plan.separate:
            raise refusal
    from captum_gmar.engine.values.windows import explain_windows

    return explain_windows(model, forward_func, plan, inputs, request, refusal)
