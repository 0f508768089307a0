"""Removal of patch tokens by masked attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.patch_grid import PatchGrid, patch_grid


@dataclass(frozen=True)
class TokenRemoval:
    """Removal of patches by masking their tokens, without new pixel values.

    Use it for :func:`~captum_gmar.metrics.deletion` and :func:`~captum_gmar.metrics.insertion`. Every attention over
    the patch grid and every mean over patches ignores the tokens of removed patches. The output equals that of the
    model run on the other patches' tokens, each with its own position. Prefix tokens (CLS, registers) remain. If
    all patches of a model without prefix tokens are removed, their mean is zero.

    The first attention fills removed tokens with NaN, so an output that depends on them raises an error. Each token
    must depend on its own patch only: the patch embedding must not overlap, and no convolutions may follow it.

    Args:
        model (nn.Module): The model that ``forward_func`` runs once. Hugging Face models compute attention by "sdpa"
            during the call.

    Raises:
        TypeError: if ``model`` is not a ``torch.nn.Module``.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.metrics import deletion, random_map
        >>> model, inputs = load_model(), load_scene(3).pixel_values
        >>> options = {"patch_size": 8, "steps": 4, "removal": TokenRemoval(model)}
        >>> curve = deletion(lambda inputs: model(inputs).logits, inputs, random_map(inputs), target=0, **options)
        >>> curve.removal, curve.curve.shape
        ('tokens', torch.Size([1, 5]))
    """

    model: nn.Module
    name = "tokens"

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model must be forward_func's torch.nn.Module, but got {type(self.model).__name__}.")

    @torch.no_grad()
    def __call__(self, forward_func: Callable[[Tensor], Tensor], inputs: Tensor, removed: Tensor) -> Tensor:
        """Run ``forward_func`` as :class:`~captum_gmar.metrics.Removal` does, on sets over the model's patch grid.

        Raises:
            TypeError: if ``removed`` is not a boolean tensor.
            ValueError: if ``removed`` does not fit the model's patch grid over the images.
            RuntimeError: if no attention is captured, or the output depends on removed tokens by other operations
                than attention and means over patches.
        """
        grid = patch_grid(self.model, *inputs.shape[2:])
        _check_removed(removed, inputs, grid)
        masking = _TokenMasking(grid, removed.to(inputs.device).reshape(-1, grid.patches))
        repeated = inputs.repeat_interleave(removed.shape[1], 0)
        with masking, attention_implementation(self.model, "sdpa"), force_eager():
            outputs = forward_func(repeated)
        masking.check(outputs, self.model)
        return outputs


class _TokenMasking(AttentionMode):
    """Attention mode that masks the tokens of removed patches (N, P) in attention and means."""

    def __init__(self, grid: PatchGrid, removed: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.removed = removed
        self.layers = 0

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func in (torch.mean, Tensor.mean):
            return self._mean(func, *args, **kwargs)
        return func(*args, **kwargs)

    def attend(self, call: AttentionCall) -> Tensor:
        key = call.key
        hidden = self._hidden_tokens(key.shape[-2]) if key.dim() == 4 and len(key) == len(self.removed) else None
        if hidden is None:
            return call.run()
        self.layers += 1
        call = call.expand_heads()
        key, value = (torch.where(hidden[:, None, :, None], 0, t) for t in call[1:3])  # they may hold NaN
        mask = _mask_keys(call.attn_mask, hidden[:, None, None])
        attended = call._replace(key=key, value=value, attn_mask=mask).run()
        is_square = call.query.shape[-2] == key.shape[-2]
        if is_square:  # adding NaN is faster than filling
            attended = attended + attended.new_zeros(hidden.shape).masked_fill(hidden, torch.nan)[:, None, :, None]
        return attended

    def _mean(self, func: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dim = args[0] if args else kwargs.get("dim")
        prefix = input.shape[1] - self.grid.patches if input.dim() == 3 and len(input) == len(self.removed) else -1
        if dim not in (1, -2, (1,), (-2,), [1], [-2]) or not 0 <= prefix <= max(self.grid.prefixes):
            return func(input, *args, **kwargs)
        hidden = F.pad(self.removed, (prefix, 0))
        mean = func(input.masked_fill(hidden[:, :, None], 0), *args, **kwargs)
        scale = hidden.shape[1] / (~hidden).sum(1).clamp(min=1)  # (N,)
        return mean * scale.to(mean.dtype).view(-1, *[1] * (mean.dim() - 1))

    def _hidden_tokens(self, tokens: int) -> Tensor | None:
        """Return the mask of hidden tokens (N, T), or None for tokens outside the patch grid."""
        prefix = self.grid.prefix_tokens(tokens)
        return None if prefix is None else F.pad(self.removed, (prefix, 0))

    def check(self, outputs: object, model: nn.Module) -> None:
        """Raise a RuntimeError if no token was masked, or the outputs depend on masked tokens."""
        name = type(model).__name__
        if not self.layers:
            raise RuntimeError(
                f"{name} must attend over {self.grid.patches} patch tokens, a {self.grid.rows}x{self.grid.columns} "
                "grid, but does not. Run this model on all images in forward_func; for windowed, traced and exported "
                "models, remove pixels, for example by Mean()."
            )
        if isinstance(outputs, Tensor) and outputs.isnan().any():
            raise RuntimeError(
                f"{name} must have finite outputs without the removed tokens, but they became NaN. Remove pixels, for "
                "example by Mean(), where a convolution or a maximum reads tokens of removed patches."
            )


def _mask_keys(attn_mask: Tensor | None, hidden: Tensor) -> Tensor:
    """Add hidden keys (N, 1, 1, T) to an attention mask."""
    if attn_mask is None:
        return ~hidden
    return attn_mask & ~hidden if attn_mask.dtype == torch.bool else attn_mask.masked_fill(hidden, -torch.inf)


def _check_removed(removed: Tensor, inputs: Tensor, grid: PatchGrid) -> None:
    if not isinstance(removed, Tensor) or removed.dtype != torch.bool:
        kind = removed.dtype if isinstance(removed, Tensor) else type(removed).__name__
        raise TypeError(f"removed must be a boolean tensor, True where a patch is removed, but got {kind}.")
    if removed.dim() != 4 or len(removed) != len(inputs) or removed.shape[2:] != (grid.rows, grid.columns):
        raise ValueError(
            f"removed must be (examples, sets, {grid.rows}, {grid.columns}) on the model's patch grid for "
            f"{len(inputs)} examples, but got {tuple(removed.shape)}. Pass patch_size=({grid.patch_height}, "
            f"{grid.patch_width})."
        )
