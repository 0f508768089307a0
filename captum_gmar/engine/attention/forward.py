"""The forward pass, which captures a model's attention over the image's tokens and computes it by ``kernels``.

The result is the same. Each layer has a tap, by which the backward pass receives it. No hook is set and no weight is
written to.

Letters in shapes: N examples, H heads, T tokens, D head dimension, Q query tokens that pool the others.
"""

from collections.abc import Callable, Sequence
from tempfile import TemporaryFile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import handle_torch_function, has_torch_function

from captum_gmar.engine.checks import NoAttentionError, NoPatchGridError, cut_gradient_error, without_gradient_error
from captum_gmar.engine.hooks.attention_mode import ACCESS, AttentionCall, ConstantParameterMode, check_no_dropout
from captum_gmar.engine.hooks.autograd_graph import Pooling, depends
from captum_gmar.engine.hooks.constants import PLAIN, detach_parameters
from captum_gmar.engine.kernels.batched import BatchedTap
from captum_gmar.engine.kernels.dispatch import VALUE_MATRICES, is_batched, is_fused
from captum_gmar.engine.kernels.fused import FusedTap
from captum_gmar.engine.kernels.layer import AttentionLayer, LayerGradient, LayerTap
from captum_gmar.engine.kernels.precision import sum_dtype
from captum_gmar.engine.kernels.recompute import BlocksTap
from captum_gmar.engine.kernels.triton_reduction import is_readable
from captum_gmar.engine.kernels.workspace import Workspace
from captum_gmar.engine.models.patch_grid import PatchGrid, check_not_traced
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.rule import HeadRule


class ForwardPass(ConstantParameterMode):
    """The attention layers of a model, captured within the block as they are called.

    ``apart`` is the number of layers that are cut off from each other, or 0.
    """

    def __init__(self, examples: int, grid: PatchGrid, plan: Plan, apart: int = 0) -> None:
        super().__init__()
        self.examples = examples
        self.grid = grid
        self.plan = plan
        self.apart = apart
        self.separate = apart > 0
        self.tokens = 0
        self.pixels: Node | None = None  # of the pixels in autograd's graph
        self.taps: list[LayerTap] = []  # of each layer
        self.layers: list[AttentionLayer] = []  # those that the sweep reads
        self.file = TemporaryFile() if plan.disk_offload else None  # noqa: SIM115 - forget() closes it
        self.like = torch.empty(0, device="cpu")  # of the device and precision of the last layer's blocks
        self.zero = torch.empty(0, device="cpu")  # whose memory the edges of taps share
        self.entry: Node | None = None  # what enters the first layer's attention; where layers are cut off, the layer
        self.last: Node | None = None  # of the last captured layer in autograd's graph
        self.poolings: list[Pooling] = []  # how the model pools its tokens, if by attention
        self.passed_by: set[tuple[int, ...]] = set()  # query shapes of attention that is not over the patch grid
        self.windowed_shape: tuple[int, ...] | None = None  # such a shape of the image's own, before the first layer
        self.follows = False  # whether the attention at hand was computed from the last captured layer
        self.refusal: NoPatchGridError | None = None  # why the model has no single patch grid, if it was found out
        self.cuts: list[Node] = []  # operations between the layers of which torch has no gradient
        self.workspace = Workspace()  # of backward
        self.is_batched = False  # whether layers are read after the backward pass

    def forget(self) -> None:
        """Release references between autograd's graph and this object, for which memory would wait."""
        self.entry = self.last = self.pixels = None
        self.layers, self.poolings, self.cuts = [], [], []
        self.workspace.clear()
        if self.file is not None:
            self.file.close()
        for tap in self.taps:
            tap.release()

    @property
    def count(self) -> int:
        """Number of captured layers."""
        return len(self.taps)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a function on constant parameters, in less time than the base class where most arguments are plain."""
        if func is F.dropout:
            check_no_dropout(*args, **kwargs)
            return args[0]  # which it does nothing to
        is_plain = not kwargs and PLAIN.issuperset(map(type, args))  # as most are
        if is_plain or not torch.is_grad_enabled() or getattr(func, "__name__", None) in ACCESS:
            return func(*args, **kwargs)  # without gradient, as weights are loaded, nothing is kept for one
        constants = {name: detach_parameters(value) for name, value in kwargs.items()}
        return func(*map(detach_parameters, args), **constants)

    def attend(self, call: AttentionCall) -> Tensor:
        """Capture the layer if it is over the patch grid; else attend as torch does."""
        query, key, value = call[:3]
        if self.refusal is not None:
            return call.run()
        if not self._is_over_grid(query, key, value):
            passed = call.run()
            if self._pools(query, key, value):
                layer = AttentionLayer(query, key, call.attn_mask, call.scale)
                self.poolings.append(Pooling(self._pooling_attention(layer), passed.grad_fn))
            return passed
        check_no_dropout(p=call.dropout_p)
        if not torch.is_grad_enabled():
            raise RuntimeError(
                f"attention layer {self.count} needs a gradient, but has none. Remove torch.no_grad() and gradient "
                "checkpointing from the model's forward."
            )
        if not self._follows(query, key, value):
            return call.run()
        _, key, value, mask, *_ = call.expand_heads()
        self.tokens = query.shape[-2]
        if not self.separate:
            self.entry = self.entry or query.grad_fn
        if not self.taps or (query.dtype, query.device) != (self.zero.dtype, self.zero.device):
            self.like = query.new_empty(0, dtype=sum_dtype(query.dtype))
            self.zero = torch.zeros((), dtype=query.dtype, device=query.device, requires_grad=True)
        layer = AttentionLayer(query, key, mask, call.scale)
        tap = self._tap(layer, value)
        self.taps.append(tap)
        attended = attend_by_tap(layer, value, tap)
        if self.plan.sweep is not None:
            layer = layer._replace(lse=tap.lse)
            self.layers.append(layer if self.file is None else layer.store(self.file))
            if self.plan.start_layer < 0:
                del self.layers[: self.plan.start_layer]
        self.last = attended.grad_fn
        return attended

    def _tap(self, layer: AttentionLayer, value: Tensor) -> LayerTap:
        """Return the tap of a layer: batched if the first layer's is."""
        rule, number, given = self.plan.rule, len(self.taps), self.plan.implementation
        if not self.taps:
            can_wait = rule is None or isinstance(rule, HeadRule)
            self.is_batched = can_wait and is_batched(layer.query, value, given)
        if self.is_batched or (rule is None and layer.query.device.type == "cpu"):  # where torch keeps no log sums
            return BatchedTap(is_read=rule is not None)
        edge = self.zero.detach().requires_grad_()
        if rule is None or not is_fused(layer.query, value, given):
            return BlocksTap(number, edge, workspace=self.workspace)
        reduction = rule.reduction(edge.detach().expand(1, 1)) if isinstance(rule, HeadRule) else None
        matrix = None if reduction is None or reduction.matrix not in VALUE_MATRICES else reduction.matrix
        backward = LayerGradient(layer.query, layer.key, value, value, layer.mask, 1.0)
        if matrix == "attention" and reduction is not None and is_readable(backward, reduction):
            matrix = None  # the kernel takes less time than channels more
        return FusedTap(number, edge, matrix=matrix)

    def _is_over_grid(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        tokens = query.shape[-2]
        return (
            query.dim() == 4
            and len(query) == self.examples
            and tokens == key.shape[-2]
            and tokens == (self.tokens or tokens)
            and self.grid.prefix_tokens(tokens) is not None
            and (self.separate or self._sees_the_image(query, key, value))
        )

    def _sees_the_image(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Return whether tensors are computed from the pixels; if not, they are another tower's."""
        self.follows = False
        if self.pixels is None or not torch.is_grad_enabled():
            return True
        self.follows = self.last is not None and depends((query, key, value), self.last, self.cuts)
        return self.follows or depends((query, key), self.pixels)

    def _pools(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Return whether attention that is not over the patch grid pools its tokens; if not, it is another tower's."""
        self.passed_by.add(tuple(query.shape))
        if not self.count and self._sees_the_image(query, key, value):
            self.windowed_shape = tuple(query.shape)
        if self.last is None or not depends((query, key, value), self.last):
            return False
        pooled = key.shape[-2] if query.dim() == 4 and query.shape[-2] < key.shape[-2] else 0
        if pooled not in (self.tokens, self.grid.patches):
            return self._refuse(
                f"attention layers after the first must be over {self.tokens} tokens, but layer {self.count} has "
                f"queries of shape {tuple(query.shape)}. Use TokenEvidence for hierarchical models, and Captum's "
                "IntegratedGradients for those that drop, merge or pool tokens."
            )
        return not self.separate

    def _refuse(self, why: str) -> bool:
        """Capture nothing more; raise the error at once where no other pass explains each layer's own logits."""
        self.refusal = NoPatchGridError(why)
        if self.separate:
            raise self.refusal
        return False

    @torch.no_grad()
    def _pooling_attention(self, layer: AttentionLayer) -> Tensor:
        """Compute the pooling attention (N, T), the mean over heads and queries."""
        tokens = layer.key.shape[-2]
        one_hot = torch.eye(tokens, dtype=layer.key.dtype, device=layer.key.device)
        values = one_hot.expand(*layer.key.shape[:2], tokens, tokens)
        attention = F.scaled_dot_product_attention(layer.query, layer.key, values, layer.mask, scale=layer.scale)
        return F.pad(attention.to(self.like).mean((1, 2)), (self.tokens - tokens, 0))

    def _follows(self, *inputs: Tensor) -> bool:
        """Return whether a layer comes as the layers before it let expect, else refuse the model."""
        if self.windowed_shape is not None:
            return self._refuse(
                f"attention layers must be over the {self.grid.rows}x{self.grid.columns} patch grid, but one before "
                f"has queries of shape {self.windowed_shape}. Use TokenEvidence for windowed or hierarchical models."
            )
        if not (self.last is None or self.separate or self.follows or depends(inputs, self.last, self.cuts)):
            raise RuntimeError(
                f"attention layer {self.count} must depend on layer {self.count - 1}, but does not. Run one model in "
                "forward_func, and run it once."
            )
        return True

    def check_gradient(self, selected: Tensor) -> None:
        """Check that a gradient goes from the scores (N,) to the last layer, and between the layers."""
        if self.last is None or not depends((selected,), self.last, self.cuts):
            raise without_gradient_error(self.count - 1)
        if self.cuts:
            raise cut_gradient_error()

    def find_refusal(self, model: nn.Module) -> NoPatchGridError | None:
        """Return the error of a model whose attention is not over one patch grid; None if it is."""
        if self.count or self.refusal is not None:
            return self.refusal
        name, grid = type(model).__name__, self.grid
        tokens = {shape[-2] for shape in self.passed_by if len(shape) == 4 and shape[0] == self.examples}
        if any(grid.prefix_tokens(number) is not None for number in tokens):
            return NoPatchGridError(
                f"{name} must compute the tokens of its {grid.rows}x{grid.columns} patch grid from the inputs, with "
                "gradient, but does not. Remove detach() and torch.no_grad() around its patch embedding, and run no "
                "other model in forward_func."
            )
        if self.passed_by:
            shapes = ", ".join(map(str, sorted(self.passed_by)))
            return NoPatchGridError(
                f"{name} must attend over {grid.patches} patch tokens, a {grid.rows}x{grid.columns} grid, of "
                f"{self.examples} examples, but attends over {shapes} (examples, heads, tokens, head dimension). "
                "Resize the images to the model's size, or use TokenEvidence for hierarchical and windowed models."
            )
        check_not_traced(model)
        return NoAttentionError(
            f"{name} needs calls of torch.nn.functional.scaled_dot_product_attention in this thread, but makes none. "
            'Load Hugging Face models with attn_implementation="sdpa"; pass DataParallel models without their wrapper '
            "(model.module), and traced or exported ones as they were before."
        )


def attend_by_tap(layer: AttentionLayer, value: Tensor, tap: LayerTap) -> Tensor:
    """Compute attention as one function, so that modes around the pass see one, whose result they may change."""
    if has_torch_function((value,)):
        attended: Tensor = handle_torch_function(attend_by_tap, (value,), layer, value, tap)
        return attended
    return tap.attend(layer, value)
