"""Capture and replacement of attention head outputs in forward passes.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.attention.forward import attend_by_tap
from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.patch_grid import PatchGrid, check_no_checkpointing, patch_grid

Change = Callable[[Tensor], Tensor]  # maps a layer's head outputs (N, H, T, D)


@contextmanager
def head_outputs(model: nn.Module, changes: Callable[[int], Change | None]) -> Iterator[None]:
    """Apply ``changes``, which returns a layer's function or None, to ``model``'s head outputs within the block."""
    check_no_checkpointing(model)
    outputs = _HeadOutputs(model, changes)
    with attention_implementation(model, "sdpa"), force_eager(), outputs:
        yield
    outputs.check_captured(type(model).__name__)


class _HeadOutputs(AttentionMode):
    """Attention mode that numbers the layers of ``model`` after each patch embedding and changes their outputs."""

    def __init__(self, model: nn.Module, changes: Callable[[int], Change | None]) -> None:
        super().__init__()
        self.model = model
        self.changes = changes
        self.weights = {parameter.data_ptr() for parameter in model.parameters()}
        self.grid: PatchGrid | None = None  # set while images run through the model
        self.examples = self.tokens = self.count = 0
        self.captured = False

    def attend(self, call: AttentionCall) -> Tensor:
        outputs = call.run()
        change = self._next_change(call.query.shape[-2]) if self._is_over_grid(call.query, call.key) else None
        return outputs if change is None else change(outputs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func is F.conv2d:
            self._begin(*args, **kwargs)
        outputs = func(*args, **kwargs)
        if func is attend_by_tap and self.grid is not None:  # attribution methods replace attention by this function
            change = self._next_change(args[1].shape[-2])
            return outputs if change is None else change(outputs)
        return outputs

    def _begin(
        self, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, *args: Any, **kwargs: Any
    ) -> None:
        """Record the images of a patch embedding, or none if it belongs to another model."""
        size = tuple(weight.shape[2:])
        strides = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
        if input.dim() != 4 or size != strides or size == (1, 1):
            return
        with suppress(ValueError):  # a later convolution gets less than a patch
            is_own = weight.data_ptr() in self.weights
            self.grid = patch_grid(self.model, *input.shape[2:]) if is_own else None
            self.examples, self.tokens, self.count = len(input), 0, 0

    def _is_over_grid(self, query: Tensor, key: Tensor) -> bool:
        tokens = query.shape[-2]
        if self.grid is None or query.dim() != 4 or len(query) != self.examples or key.shape[-2] != tokens:
            return False
        return tokens == (self.tokens or tokens) and self.grid.prefix_tokens(tokens) is not None

    def _next_change(self, tokens: int) -> Change | None:
        """Count a layer and return its function."""
        change = self.changes(self.count)
        self.tokens, self.count, self.captured = tokens, self.count + 1, True
        return change

    def check_captured(self, name: str) -> None:
        if not self.captured:
            raise RuntimeError(
                f"No attention of {name} over its patch grid was met in this block and thread. Run this model in the "
                "block, on images that its nn.Conv2d cuts into patches; pass DataParallel models without their "
                "wrapper (model.module). Windowed, hierarchical, traced and exported models are not supported."
            )
