"""The pass that explains a model, chosen and run."""

from weakref import WeakSet

from torch import Tensor, nn

from captum_gmar.engine.attention.explain import explain
from captum_gmar.engine.checks import NoAttentionError, NoPatchGridError
from captum_gmar.engine.models.layers import has_stages
from captum_gmar.engine.models.patch_grid import Logits, NoPatchSizeError
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import Request
from captum_gmar.engine.values.windows import NotWindowsError, explain_windows

_of_windows: WeakSet[nn.Module] = WeakSet()  # models that were met, whose attention is over no single patch grid


def explain_any(
    model: nn.Module, forward_func: Logits, plan: Plan, inputs: Tensor, request: Request
) -> list[Explanation]:
    """What a plan makes of a model, over its one patch grid or, without one, down its stages.

    Arguments and errors are those of :func:`~captum_gmar.engine.attention.explain.explain` and :func:`explain_windows`.
    """
    if model in _of_windows:
        return explain_windows(model, forward_func, plan, inputs, request)
    try:
        return explain(model, forward_func, plan, inputs, request)
    except (NoPatchGridError, NoPatchSizeError) as error:
        try:
            explanations = explain_windows(model, forward_func, plan, inputs, request)
        except NotWindowsError as why:
            has_other_attention = isinstance(error, NoAttentionError | NoPatchSizeError) or has_stages(model)
            raise why if why.is_met and has_other_attention else error from None
    _of_windows.add(model)
    return explanations
