"""Removal of patches from the transformer itself: their tokens are there, but nothing reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode
from captum_gmar.engine.models.attention_backend import attention_implementation, uncompiled
from captum_gmar.engine.models.patch_grid import PatchGrid, patch_grid


@dataclass(frozen=True)
class TokenRemoval:
    """Removes patches by taking their tokens out of the model, so that no new pixels are made.

    A way of removal for :func:`~captum_gmar.metrics.deletion` and :func:`~captum_gmar.metrics.insertion`. In every
    attention over the patch grid, the tokens of removed patches are hidden from all others, and where the model takes
    the mean over its patches, theirs do not count. The output is that of the model run on the tokens of the other
    patches alone, each with its own position. Prefix tokens (CLS, registers) always stay. If all patches of a model
    without prefix tokens are removed, their mean is zero.

    That nothing else reads removed tokens is made sure of: the first attention fills them with NaN, and if any of it
    comes out, an error is raised. Before that attention each token must be made of its own patch alone, as in all
    models whose patch embedding neither overlaps nor is followed by convolutions.

    Args:
        model (nn.Module): The model that ``forward_func`` runs, once. Hugging Face models compute attention by "sdpa"
            in the meantime.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.

    Example::

        >>> import torch
        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> from captum_gmar.metrics import control_maps, deletion
        >>> config = ViTConfig(image_size=32, patch_size=8, hidden_size=8, num_attention_heads=2, num_hidden_layers=2,
        ...                    intermediate_size=8, num_labels=3)
        >>> model = ViTForImageClassification(config).eval()
        >>> inputs = torch.rand(1, 3, 32, 32)
        >>> attributions = control_maps(inputs, patch_size=8)["random map"]
        >>> removal = TokenRemoval(model)
        >>> curve = deletion(lambda inputs: model(inputs).logits, inputs, attributions, target=0, patch_size=8, steps=4,
        ...                  removal=removal)
        >>> curve.removal, curve.curve.shape
        ('tokens', torch.Size([1, 5]))
    """

    model: nn.Module

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module. Got {type(self.model).__name__} instead. Pass the model that "
                "forward_func runs."
            )

    @property
    def name(self) -> str:
        """As tables and pictures call it."""
        return "tokens"

    @torch.no_grad()
    def __call__(self, forward_func: Callable[[Tensor], Tensor], inputs: Tensor, removed: Tensor) -> Tensor:
        """Runs ``forward_func`` on every image without each of its sets of removed patches.

        Args:
            forward_func (Callable): Runs the model and returns its logits.
            inputs (Tensor): (N, C, H, W).
            removed (Tensor): Boolean (N, S, rows, columns) over the model's patch grid, True where a patch is removed.

        Returns:
            Tensor: The outputs (N * S, ...), those of the first image first.

        Raises:
            TypeError: if ``removed`` is no boolean tensor.
            ValueError: if ``removed`` does not fit the model's patch grid over these images.
            RuntimeError: if the model's attention cannot be met, or removed tokens are read in another way than by
                attention or a mean over patches.
        """
        grid = patch_grid(self.model, *inputs.shape[2:])
        _check_removed(removed, inputs, grid)
        hiding = _Hiding(grid, removed.to(inputs.device).reshape(-1, grid.patches))
        repeated = inputs.repeat_interleave(removed.shape[1], 0)
        with hiding, attention_implementation(self.model, "sdpa"), uncompiled():
            outputs = forward_func(repeated)
        hiding.check(outputs, self.model)
        return outputs


class _Hiding(AttentionMode):
    """Within the block, hides the tokens of removed patches (N, P) in attention and in means."""

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
        hidden = self._hidden(key.shape[-2]) if key.dim() == 4 and len(key) == len(self.removed) else None
        if hidden is None:
            return call.run()
        self.layers += 1
        call = call.expanded()
        key, value = (torch.where(hidden[:, None, :, None], 0, t) for t in call[1:3])  # they may hold NaN by now
        mask = _without(call.attn_mask, hidden[:, None, None])
        attended = call._replace(key=key, value=value, attn_mask=mask).run()
        is_square = call.query.shape[-2] == key.shape[-2]
        return attended + _nan(hidden, attended)[:, None, :, None] if is_square else attended

    def _mean(self, func: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dim = args[0] if args else kwargs.get("dim")
        prefix = input.shape[1] - self.grid.patches if input.dim() == 3 and len(input) == len(self.removed) else -1
        if dim not in (1, -2, (1,), (-2,), [1], [-2]) or not 0 <= prefix <= max(self.grid.prefixes):
            return func(input, *args, **kwargs)
        hidden = F.pad(self.removed, (prefix, 0))
        mean = func(input.masked_fill(hidden[:, :, None], 0), *args, **kwargs)
        scale = hidden.shape[1] / (~hidden).sum(1).clamp(min=1)  # (N,)
        return mean * scale.to(mean.dtype).view(-1, *[1] * (mean.dim() - 1))

    def _hidden(self, tokens: int) -> Tensor | None:
        """Which of so many tokens are hidden (N, T); None if they do not lie over the patch grid."""
        prefix = self.grid.prefix_tokens(tokens)
        return None if prefix is None else F.pad(self.removed, (prefix, 0))

    def check(self, outputs: object, model: nn.Module) -> None:
        """Raises an error that says what to do if removed tokens were not hidden, or read after all."""
        name = type(model).__name__
        if not self.layers:
            raise RuntimeError(
                f"No attention over {self.grid.patches} patch tokens, a {self.grid.rows}x{self.grid.columns} grid, was "
                f"met in {name}, so no token can be removed. forward_func must run this model, on all images it is "
                "given. Windowed, traced and exported models are not supported: remove pixels instead, for example by "
                "Mean()."
            )
        if isinstance(outputs, Tensor) and outputs.isnan().any():
            raise RuntimeError(
                f"The outputs of {name} became NaN. Unless they always are, it reads tokens of removed patches by "
                "other means than attention and the mean over patches, such as a convolution or a maximum. Remove "
                "pixels instead, for example by Mean()."
            )


def _nan(hidden: Tensor, like: Tensor) -> Tensor:
    """NaN for hidden tokens, 0 for others; added faster than filled in."""
    return like.new_zeros(hidden.shape).masked_fill(hidden, torch.nan)


def _without(attn_mask: Tensor | None, hidden: Tensor) -> Tensor:
    """The mask with hidden keys (N, 1, 1, T) taken out as well."""
    if attn_mask is None:
        return ~hidden
    return attn_mask & ~hidden if attn_mask.dtype == torch.bool else attn_mask.masked_fill(hidden, -torch.inf)


def _check_removed(removed: Tensor, inputs: Tensor, grid: PatchGrid) -> None:
    if not isinstance(removed, Tensor) or removed.dtype != torch.bool:
        kind = removed.dtype if isinstance(removed, Tensor) else type(removed).__name__
        raise TypeError(f"removed must be a boolean tensor, True where a patch is removed. Got {kind} instead.")
    if removed.dim() != 4 or len(removed) != len(inputs) or removed.shape[2:] != (grid.rows, grid.columns):
        raise ValueError(
            f"Expected removed patches of shape (examples, sets, {grid.rows}, {grid.columns}), the model's patch grid, "
            f"for {len(inputs)} examples but got {tuple(removed.shape)}. Pass "
            f"patch_size=({grid.patch_height}, {grid.patch_width})."
        )
