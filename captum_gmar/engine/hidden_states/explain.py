"""Explanation by hidden states and their gradients."""

from collections.abc import Sequence

from torch import Tensor

from captum_gmar.engine._captum import _format_additional_forward_args
from captum_gmar.engine.finite_checks import Flags
from captum_gmar.engine.hidden_states.capture import LayerTokens, capture_layers
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.models.introspection import ModelInfo
from captum_gmar.engine.models.patch_grid import Logits
from captum_gmar.engine.plan import Explanation, Plan, TokenRule
from captum_gmar.engine.request import Request
from captum_gmar.engine.targets import select


def explain_hidden_states(
    info: ModelInfo, forward_func: Logits, plan: Plan, pixels: Tensor, request: Request
) -> list[Explanation]:
    """Explain each target by the plan's token rule, of pixels (N, channels, height, width)."""
    rule = plan.token_rule
    assert rule is not None
    arguments = _format_additional_forward_args(request.additional_forward_args) or ()
    layers = capture_layers(info, forward_func, pixels, arguments, rule.balances)
    scores = plan.score(layers.logits)
    targets = request.targets_for(layers.logits.detach(), len(pixels))
    flags = [Flags() for _ in targets]
    selected = [select(scores, t, request.contrast, f) for t, f in zip(targets, flags, strict=True)]
    tensors = rule.select_tensors(layers)
    return [
        _explain_by_rule(rule, layers, layers.gradients(score, tensors, number < len(selected)), flags[number - 1])
        for number, score in enumerate(selected, 1)
    ]


def _explain_by_rule(rule: TokenRule, layers: LayerTokens, gradients: Sequence[Tensor], flags: Flags) -> Explanation:
    with without_autocast(layers.logits.device.type):
        relevance = rule.relevance(layers, gradients)
    for gradient in gradients:
        flags.finite(gradient, "gradient of the tokens")
        flags.add(layers.has_gradient(gradient))
    flags.finite(relevance, "relevance")
    lacks_gradient = not all(flags.look())
    return Explanation(relevance, None, layers.grid, lacks_gradient, layers.logits.detach())
