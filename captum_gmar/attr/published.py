"""The map that the released code of GMAR computes, which is not the paper's; without the engine's passes."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from captum_gmar.engine._captum import (
    Attribution,
    TargetType,
    _format_output,
    _is_tuple,
    _run_forward,
    log_usage,
)
from captum_gmar.engine.checks import check_forward
from captum_gmar.engine.hooks.attention_mode import ACCESS, AttentionCall, AttentionMode
from captum_gmar.engine.hooks.autograd_graph import depends
from captum_gmar.engine.hooks.gradients import gradients
from captum_gmar.engine.models.attention_backend import attention_implementation, uncompiled
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, check_model, check_rows, patch_grid
from captum_gmar.engine.request import Inputs, leaf, pixel_values
from captum_gmar.engine.targets import select

RESIDUAL = 0.25
MEAN_SHARE = 5e-5  # of the mean of R, for a residual


class PublishedGMAR(Attribution):
    r"""
    The map that the released code of GMAR gives, for comparison with numbers that were made with it. To explain a
    prediction, take :class:`~captum_gmar.GMARAttribution`.

    Paper and code part ways:

    - Head weights do not come from the gradient of the attention, and not layer by layer: they are the norm of the
      gradient with respect to what enters the last layer's attention (after its layer norm), whose channels are split
      into as many groups as there are heads. All layers share them.
    - Every head is multiplied out by itself,
      :math:`R_h \leftarrow R_h (w_h A_{l,h}) + 0.25 \cdot 5 \cdot 10^{-5} \cdot \operatorname{mean}(R) \cdot I`,
      and the map is read off the first head's rows of the *patches*, not off the CLS row, by viewing these P×T numbers
      as T maps and taking their mean.
    - So the head weights and the class hardly reach the map: the first head's weights are one factor, which the
      scaling to [0, 1] at the end removes. The others' enter by the mean in the residual alone, which is small.
    - The numbers shrink like :math:`H^{-L}`. In single precision, as released, they underflow in deep models (zeros, or
      NaN at 32 layers of 16 heads). Here they are double.

    Figures quoted for GMAR that were made with that code are figures of this map.

    The released code enlarges the map bicubically to 224×224 pixels and scales that to [0, 1]; here it is scaled patch
    by patch, and a patch's value is spread over its pixels as in every other method. Relevance is in [0, 1] per
    image, its smallest value 0 and its largest 1, and means nothing beyond that order.

    Jo, Jang and Park, ICIP 2025, https://arxiv.org/abs/2504.19414, and the code published with it.

    Args:
        model: a vision transformer in evaluation mode, whose layers begin with a layer norm. Nothing of it is changed.
        norm: of the gradient, for the head weights: "l1" or "l2".
        forward_func: what is explained, if not the model's logits.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if ``norm`` is another.
    """

    def __init__(self, model: nn.Module, norm: str = "l1", *, forward_func: Callable[..., Any] | None = None) -> None:
        check_model(model)
        if norm not in ("l1", "l2"):
            raise ValueError(f"norm must be 'l1' or 'l2', but got {norm!r}.")
        self.model, self.norm = model, norm
        super().__init__(Logits(model if forward_func is None else forward_func))

    @classmethod
    def get_name(cls) -> str:
        """Return the name in tables and pictures."""
        return "Published GMAR"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Inputs, target: TargetType = None, additional_forward_args: object = None) -> Inputs:
        """
        Spread each patch's relevance evenly over its pixels and channels.

        Args:
            inputs: pixel values (N, channels, height, width), as the model takes them.
            target: output indices, in any form that Captum takes.
            additional_forward_args: further positional arguments of the model, after the inputs.

        Returns:
            Attributions in the shape, dtype and device of the inputs.

        Raises:
            AssertionError: from Captum, if the target has none of its forms.
            TypeError, ValueError: if the target is no complete index of an output, or the inputs are not one batch of
                images of at least a patch each.
            RuntimeError: if the model is in training mode or has no such map, or there are not as many outputs as
                examples.
            FloatingPointError: if a gradient or relevance is NaN or infinite.
        """
        pixels = pixel_values(inputs)
        relevance = self.relevance(pixels, target, additional_forward_args)
        attributions = patch_grid(self.model, *pixels.shape[-2:]).spread_like(relevance, pixels)
        return _format_output(_is_tuple(inputs), (attributions,))

    def relevance(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: object = None
    ) -> Tensor:
        """Return the relevance of every patch (N, rows, columns), of the same arguments as :meth:`attribute`."""
        layers, weights = self._run(inputs, target, additional_forward_args)
        return _rollout(layers, weights).to(weights)

    def head_weights(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: object = None
    ) -> Tensor:
        """Return the weights of the heads (N, H), shared by all layers; each row sums to 1."""
        return self._run(inputs, target, additional_forward_args)[1]

    def _run(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType, additional_forward_args: object
    ) -> tuple["_Layers", Tensor]:
        """Run the model forward and backward; return its attention layers and the weights of their heads."""
        pixels = pixel_values(inputs)
        if self.model.training:
            raise RuntimeError("model must be in evaluation mode, but got one in training mode. Call model.eval().")
        layers = _Layers(len(pixels), patch_grid(self.model, *pixels.shape[-2:]))
        with torch.inference_mode(False), torch.enable_grad():
            inputs, forward_func = leaf(pixels), cast(Logits, self.forward_func)
            with layers, attention_implementation(self.model, "sdpa"), uncompiled():
                logits = cast(Tensor, _run_forward(forward_func, inputs, None, additional_forward_args))
            check_rows(logits, len(pixels))
            check_forward(forward_func, self.model, logits, get_gradient_edge(inputs).node, layers.entry, pixels)
            gradient = layers.gradient(select(logits, target, None))
        return layers, _head_weights(gradient, layers.heads, self.norm).to(pixels.device)


def _head_weights(gradient: Tensor, heads: int, norm: str) -> Tensor:
    """Return the share of each head (N, H) in the norm of the patches' gradient (N, P, hidden)."""
    channels = gradient.reshape(*gradient.shape[:2], heads, -1)
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(channels, int(norm[1]), (1, 3), dtype=dtype)
    _must_be_finite(norms, "gradient before the last attention layer")
    return (norms / norms.sum(1, keepdim=True)).nan_to_num(1 / heads)


@torch.no_grad()
def _rollout(layers: "_Layers", weights: Tensor) -> Tensor:
    """Run the recursion of the released code in double precision: (N, H) → (N, rows, columns)"""
    patches, tokens, weights = layers.grid.patches, layers.tokens, weights.cpu().double()
    identity = torch.eye(tokens, dtype=torch.float64, device="cpu")
    # All heads are needed for the mean of R alone, so of all but the first only the sums of columns are kept.
    first = identity[-patches:].expand(len(weights), -1, -1)  # (N, P, T) of the first head
    sums = identity.sum(0).expand(*weights.shape, -1)  # (N, H, T)
    for attention in (compute() for compute in layers.attention):
        first = weights[:, :1, None] * (first @ attention[:, 0])
        sums = weights[..., None] * (sums[..., None, :] @ attention).squeeze(-2)
        residual = RESIDUAL * MEAN_SHARE * sums.mean((1, 2))[:, None, None] / tokens  # (N, 1, 1)
        first, sums = first + residual * identity[-patches:], sums + residual
    maps = first.reshape(-1, tokens, patches).mean(1)
    _must_be_finite(maps, "relevance")
    low, high = maps.aminmax(dim=1, keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0).view(-1, *layers.grid.shape)


def _must_be_finite(tensor: Tensor, what: str) -> None:
    if not tensor.isfinite().all():
        raise FloatingPointError(f"The {what} must be finite, but got NaN or infinity. Check the inputs and weights.")


class _Layers(AttentionMode):
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
        if not torch.is_grad_enabled() or getattr(func, "__name__", None) in ACCESS:
            return func(*args, **kwargs)
        result = func(*map(_constant, args), **{name: _constant(value) for name, value in kwargs.items()})
        if func is F.layer_norm and result.requires_grad and result.dim() == 3:
            self.latest = result
        if isinstance(result, Tensor) and result.grad_fn is not None and "NotImplemented" in result.grad_fn.name():
            raise RuntimeError(
                f"model must have gradients, but torch has none of {func.__name__}, as dynamically quantised layers "
                "call it. Pass the model as it was before."
            )
        return result

    def attend(self, call: AttentionCall) -> Tensor:
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
                f"Expected every attention over a {self.grid.rows}x{self.grid.columns} patch grid of {self.examples} "
                f"examples, but got one with queries of shape {tuple(query.shape)}. Take AttentionEvidence."
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
                "Expected a model whose layers begin with torch.nn.functional.layer_norm but met none before its "
                "attention. The released code of GMAR reads its gradient there: of other models, there is no such map."
            )
        (gradient,) = gradients(score, [self.normed])
        if gradient.shape[0] != self.examples:  # torch's layers may take tokens first
            gradient = gradient.transpose(0, 1)
        return gradient[:, -self.grid.patches :]


def _constant(argument: Any) -> Any:
    return argument.detach() if isinstance(argument, nn.Parameter) else argument
