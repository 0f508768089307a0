"""Meeting what comes out of the heads of a model, forwards: it can be looked at, or replaced.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.attention.forward import attend_in_blocks
from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode
from captum_gmar.engine.models.attention_backend import attention_implementation, uncompiled
from captum_gmar.engine.models.patch_grid import PatchGrid, check_no_checkpointing, patch_grid

Change = Callable[[Tensor], Tensor]  # of a layer's head outputs (N, H, T, D)


@contextmanager
def head_outputs(model: nn.Module, changes: Callable[[int], Change | None]) -> Iterator[None]:
    """Within the block, what comes out of a layer's heads, whenever ``model`` runs, goes through a function.

    Args:
        model: a vision transformer. Other models may run within the block as well, and are left alone.
        changes: gives the function for a layer, or None.

    Raises:
        RuntimeError: at once, if the model uses gradient checkpointing; at the end of the block, if no attention over
            the patch grid was met in it.
    """
    check_no_checkpointing(model)
    outputs = _HeadOutputs(model, changes)
    with attention_implementation(model, "sdpa"), uncompiled(), outputs:
        yield
    outputs.check_met(type(model).__name__)


class _HeadOutputs(AttentionMode):
    """Within the block, meets the attention layers of ``model``, each time from its patch embedding on."""

    def __init__(self, model: nn.Module, changes: Callable[[int], Change | None]) -> None:
        super().__init__()
        self.model = model
        self.changes = changes
        self.weights = {parameter.data_ptr() for parameter in model.parameters()}
        self.grid: PatchGrid | None = None  # of the images that run through the model, if any do
        self.examples = self.tokens = self.count = 0
        self.met = False

    def attend(self, call: AttentionCall) -> Tensor:
        outputs = call.run()
        change = self._next(call.query.shape[-2]) if self._is_over_grid(call.query, call.key) else None
        return outputs if change is None else change(outputs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func is F.conv2d:
            self._begin(*args, **kwargs)
        outputs = func(*args, **kwargs)
        if func is attend_in_blocks and self.grid is not None:  # what an attribution method makes of attention
            change = self._next(args[1].shape[-2])
            return outputs if change is None else change(outputs)
        return outputs

    def _begin(
        self, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, *args: Any, **kwargs: Any
    ) -> None:
        """Notes the images that a patch embedding gets. After one of another model there are none of ours."""
        size = tuple(weight.shape[2:])
        strides = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
        if input.dim() != 4 or size != strides or size == (1, 1):
            return
        with suppress(ValueError):  # less than a patch: a convolution further on
            ours = weight.data_ptr() in self.weights
            self.grid = patch_grid(self.model, *input.shape[2:]) if ours else None
            self.examples, self.tokens, self.count = len(input), 0, 0

    def _is_over_grid(self, query: Tensor, key: Tensor) -> bool:
        tokens = query.shape[-2]
        if self.grid is None or query.dim() != 4 or len(query) != self.examples or key.shape[-2] != tokens:
            return False
        return tokens == (self.tokens or tokens) and self.grid.prefix_tokens(tokens) is not None

    def _next(self, tokens: int) -> Change | None:
        """Counts a layer, and gives what is to be done to it."""
        change = self.changes(self.count)
        self.tokens, self.count, self.met = tokens, self.count + 1, True
        return change

    def check_met(self, name: str) -> None:
        if not self.met:
            raise RuntimeError(
                f"No attention of {name} over its patch grid was met in this block and thread. Run this model in the "
                "block, on images that its nn.Conv2d cuts into patches; pass DataParallel models without their "
                "wrapper (model.module). Windowed, hierarchical, traced and exported models are not supported."
            )
