"""Layer-wise relevance propagation for vision transformers, to be compared with; not part of the package.

AttnLRP (Achtibat et al., ICML 2024, arXiv 2402.05602) and ResLRP (arXiv 2609.17152), written from their formulas as
changes of the gradient: relevance is what enters the first layer times it, summed over channels. The denominators of
norms and the gates of activations are constant. Of attention, queries and keys get a quarter of their gradient and
values half, or all is constant but the values. With γ, of a sum z = Σ c each summand gets

    c (1 + γ [c z ≥ 0]) / Σ c (1 + γ [c z ≥ 0])

of its relevance: in the linear layers of MLPs, whose summands are inputs times weights and the bias, and in ResLRP
where a layer's outcome is added to the tokens. Made for transformers' ViT and DeiT, whose every function is known here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_gmar.engine.hidden_states import functions
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import patch_grid

NORMS_AND_GATES = {F.layer_norm: functions.layer_norm, F.gelu: functions.gelu, F.silu: functions.silu}


@dataclass(frozen=True)
class LRPRules:
    """
    Args:
        is_attention_constant: whether relevance goes through values alone.
        mlp_gamma: of the linear layers of MLPs.
        residual_gamma: where a layer's outcome is added to the tokens; None for the plain sum.
    """

    is_attention_constant: bool
    mlp_gamma: float = 0.25
    residual_gamma: float | None = None


ATTN_LRP = LRPRules(is_attention_constant=False)
RES_LRP = replace(ATTN_LRP, residual_gamma=1.0)
LRP_ROWS = {
    "AttnLRP, γ 0.25 in MLPs": ATTN_LRP,
    "ResLRP": RES_LRP,
    "ResLRP, constant attention": replace(RES_LRP, is_attention_constant=True),
}


class LRPPass(TorchFunctionMode):
    """Within the block, what a model computes is the same, and its gradient follows the rules."""

    def __init__(self, model: nn.Module, rules: LRPRules) -> None:
        super().__init__()
        self.rules = rules
        parameters = (parameter for layer in transformer_layers(model) for parameter in layer.parameters())
        self._of_mlps = {id(p) for p in parameters if p.dim() == 2 and p.shape[0] != p.shape[1]}  # attention's: square

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in NORMS_AND_GATES:
            return NORMS_AND_GATES[func](*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _attended(func, self.rules, args, kwargs)
        if func is F.linear and id(args[1]) in self._of_mlps:
            return gamma_linear(*args, gamma=self.rules.mlp_gamma, **kwargs)
        if func in (torch.add, Tensor.add, Tensor.__add__) and self.rules.residual_gamma is not None:
            a, b = args[:2]
            if isinstance(b, Tensor) and a.shape == b.shape and a.requires_grad and b.requires_grad:
                return gamma_sum(a, b, self.rules.residual_gamma)
        return func(*args, **kwargs)


def gamma_sum(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    """a + b, of which each gets its share by the γ-rule."""
    total = (a + b).detach()
    boosted = sum(summand * (1 + gamma * (summand.detach() * total >= 0)) for summand in (a, b))
    assert isinstance(boosted, Tensor)
    return boosted * _ratio(total, boosted)


def gamma_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gamma: float) -> Tensor:
    """Apply a linear layer whose inputs times weights, and bias, get their shares by the γ-rule."""
    above, below = x * (x.detach() >= 0), x * (x.detach() < 0)
    plus, minus = weight.detach().clamp(min=0), weight.detach().clamp(max=0)
    positive, negative = F.linear(above, plus) + F.linear(below, minus), F.linear(above, minus) + F.linear(below, plus)
    if bias is not None:
        positive, negative = positive + bias * (bias.detach() >= 0), negative + bias * (bias.detach() < 0)
    total = (positive + negative).detach()
    boosted = positive * (1 + gamma * (total >= 0)) + negative * (1 + gamma * (total <= 0))
    return boosted * _ratio(total, boosted)


def _ratio(total: Tensor, boosted: Tensor) -> Tensor:
    """Return the constant that makes the boosted sum the sum again. Both are zero only together."""
    return torch.where(boosted == 0, 1, total / boosted.detach())


def _attended(func: Any, rules: LRPRules, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    query, key, value = args[:3]
    if rules.is_attention_constant:
        return func(query.detach(), key.detach(), value, *args[3:], **kwargs)
    query, key = (functions.scale_gradient(tensor, 0.25) for tensor in (query, key))
    return func(query, key, functions.scale_gradient(value, 0.5), *args[3:], **kwargs)


def lrp_relevance(model: nn.Module, rules: LRPRules, pixels: Tensor, target: Tensor) -> Tensor:
    """(N, T) of the tokens that enter the first layer, in units of the logit.

    Args:
        model: of transformers, ViT or DeiT.
        rules: of the gradient.
        pixels: (N, C, H, W).
        target: (N,) classes.
    """
    with following(model, rules) as tokens:
        logits = model(pixels).logits
    explained = logits.gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(explained, tokens[0])
    return (tokens[0] * gradient).sum(-1).detach()


@contextmanager
def following(model: nn.Module, rules: LRPRules) -> Iterator[list[Tensor]]:
    """Within the block the model follows the rules; the tokens that enter each layer are kept, with gradient."""
    layers, kept = transformer_layers(model), list[Tensor]()

    def enter(layer: nn.Module, args: Any) -> Any:
        kept.append(args[0] if kept else args[0].detach().requires_grad_())
        return (kept[-1], *args[1:])

    handles = [layer.register_forward_pre_hook(enter) for layer in layers]
    try:
        with LRPPass(model, rules):
            yield kept
    finally:
        for handle in handles:
            handle.remove()


def lrp_method(model: nn.Module, rules: LRPRules) -> Callable[..., Tensor]:
    """Return a method for ``evaluate``: inputs and ``target`` to attributions in the inputs' shape."""

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        grid = patch_grid(model, *inputs.shape[2:])
        targets = torch.as_tensor(target, device=inputs.device).expand(len(inputs))
        relevance = lrp_relevance(model, rules, inputs.detach(), targets)[:, -grid.patches :]
        return grid.spread_like(relevance.view(-1, grid.rows, grid.columns), inputs)

    return attribute
