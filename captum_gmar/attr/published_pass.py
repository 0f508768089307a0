"""The pass of the released code of GMAR: attention in double precision, and a gradient before the last layer."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from captum_gmar.engine._captum import TargetType, _run_forward
from captum_gmar.engine.checks import check_forward
from captum_gmar.engine.finite_checks import check_finite
from captum_gmar.engine.hooks.attention_mode import ACCESS, AttentionCall, AttentionMode
from captum_gmar.engine.hooks.autograd_graph import depends, gradients
from captum_gmar.engine.hooks.constants import detach_parameters
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, check_rows, patch_grid
from captum_gmar.engine.request import leaf
from captum_gmar.engine.targets import select

RESIDUAL = 0.25
MEAN_SHARE = 5e-5  # of the mean of R, for a residual


def run_published(
    model: nn.Module, forward_func: Logits, norm: str, pixels: Tensor, target: TargetType, arguments: object
) -> tuple["PublishedLayers", Tensor]:
    """Run the model forward and backward; return its attention layers and the weights of their heads (N, H)."""
    if model.training:
        raise RuntimeError("model must be in evaluation mode, but got one in training mode. Call model.eval().")
    layers = PublishedLayers(len(pixels), patch_grid(model, *pixels.shape[-2:]))
    with torch.inference_mode(False), torch.enable_grad():
        inputs = leaf(pixels)
        with layers, attention_implementation(model, "sdpa"), force_eager():
            logits = cast(Tensor, _run_forward(forward_func, inputs, None, arguments))
        check_rows(logits, len(pixels))
        check_forward(forward_func, model, logits, get_gradient_edge(inputs).node, layers.entry, pixels)
        gradient = layers.gradient(select(logits, target, None))
    return layers, _head_weights(gradient, layers.heads, norm).to(pixels.device)


def _head_weights(gradient: Tensor, heads: int, norm: str) -> Tensor:
    """Return the share of each head (N, H) in the norm of the patches' gradient (N, P, hidden)."""
    channels = gradient.reshape(*gradient.shape[:2], heads, -1)
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(channels, int(norm[1]), (1, 3), dtype=dtype)
    check_finite(norms, "gradient before the last attention layer")
    return (norms / norms.sum(1, keepdim=True)).nan_to_num(1 / heads)


@torch.no_grad()
def published_rollout(layers: "PublishedLayers", weights: Tensor) -> Tensor:
    """Return the relevance (N, rows, columns) of the released code's recursion, computed in double precision."""
    patches, tokens, shares = layers.grid.patches, layers.tokens, weights.cpu().double()
    identity = torch.eye(tokens, dtype=torch.float64, device="cpu")
    # All heads are needed for the mean of R alone, so of all but the first only the sums of columns are kept.
    first = identity[-patches:].expand(len(shares), -1, -1)  # (N, P, T) of the first head
    sums = identity.sum(0).expand(*shares.shape, -1)  # (N, H, T)
    for attention in (compute() for compute in layers.attention):
        first = shares[:, :1, None] * (first @ attention[:, 0])
        sums = shares[..., None] * (sums[..., None, :] @ attention).squeeze(-2)
        residual = RESIDUAL * MEAN_SHARE * sums.mean((1, 2))[:, None, None] / tokens  # (N, 1, 1)
        first, sums = first + residual * identity[-patches:], sums + residual
    maps = first.reshape(-1, tokens, patches).mean(1)
    check_finite(maps, "relevance")
    low, high = maps.aminmax(dim=1, keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0).view(-1, *layers.grid.shape).to(weights)


class PublishedLayers(AttentionMode):
    """The attention layers over the patch grid that run within the block, and the layer norm before the last.

    Parameters are passed to every function as constants, so only what is computed from the pixels has a gradient: that
    tells the image's attention from a text's.
    """

    def __init__(self, examples: int, grid: PatchGrid) -> None:
        super().__init__()
        self.examples, self.grid = examples, grid
        self.latest: Tensor | None = None  # output of the last layer norm
        self.normed: Tensor | None = None  # the same, before the last attention
        self.entry: Node | None = None  # what enters the first attention
        self.last: Node | None = None  # what the last gave
        self.attention: list[Callable[[], Tensor]] = []  # what computes it (N, H, T, T), of each layer
        self.tokens = self.heads = 0

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a function on constant parameters; note the output of a layer norm."""
        if not torch.is_grad_enabled() or getattr(func, "__name__", None) in ACCESS:
            return func(*args, **kwargs)
        result = func(*map(detach_parameters, args), **detach_parameters(kwargs))
        if func is F.layer_norm and result.requires_grad and result.dim() == 3:
            self.latest = result
        if isinstance(result, Tensor) and result.grad_fn is not None and "NotImplemented" in result.grad_fn.name():
            raise RuntimeError(
                f"model must have gradients, but torch has none of {func.__name__}, as dynamically quantised layers "
                "call it. Pass the model as it was before."
            )
        return result

    def attend(self, call: AttentionCall) -> Tensor:
        """Attend as torch does; note the image's attention."""
        attended = call.run()
        if call.query.requires_grad and call.query.shape[-2] == call.key.shape[-2]:  # else of a text, or a pooling
            self._note(call)
            self.last = attended.grad_fn
        return attended

    def _note(self, call: AttentionCall) -> None:
        query, key, _, mask, *_ = call
        tokens = query.shape[-2]
        if len(query) != self.examples or tokens != (self.tokens or tokens) or self.grid.prefix_tokens(tokens) is None:
            raise RuntimeError(
                f"model must attend over a {self.grid.rows}x{self.grid.columns} patch grid of {self.examples} examples "
                f"in every layer, but got queries of shape {tuple(query.shape)}. Use TokenEvidence."
            )
        if self.last is not None and not depends((query,), self.last):
            raise RuntimeError("forward_func must run one model, and run it once, but got layers of two.")
        self.entry = self.entry or query.grad_fn
        self.normed, self.tokens, self.heads = self.latest, tokens, query.shape[1]
        query, key = (tensor.detach().cpu().double() for tensor in (query, key))  # some devices have no doubles
        if mask is not None:
            mask = mask.cpu() if mask.dtype == torch.bool else mask.cpu().double()
        values = torch.eye(tokens, dtype=torch.float64, device="cpu").expand(*key.shape[:2], -1, -1)
        self.attention.append(call._replace(query=query, key=key, value=values, attn_mask=mask).run)

    def gradient(self, score: Tensor) -> Tensor:
        """Compute the gradient (N, P, hidden) of the score with respect to the patches that enter the last layer."""
        if self.normed is None:
            raise RuntimeError(
                "model must begin its layers with torch.nn.functional.layer_norm, where the released code of GMAR "
                "reads its gradient, but calls none before its attention. Use GMARAttribution."
            )
        (gradient,) = gradients(score, [self.normed])
        if gradient.shape[0] != self.examples:  # torch's layers may take tokens first
            gradient = gradient.transpose(0, 1)
        return gradient[:, -self.grid.patches :]
