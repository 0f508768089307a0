"""Ablation of attention heads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.attention.forward import attend_by_tap
from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.patch_grid import (
    Logits,
    PatchGrid,
    check_model,
    check_no_checkpointing,
    config_of,
    patch_grid,
)
from captum_gmar.engine.request import pixel_values

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
                f"{name} must attend over its patch grid in this block and thread, but does not. Run this model in the "
                "block, on images that its nn.Conv2d cuts into patches, without DataParallel (model.module), windows, "
                "hierarchy, tracing or export."
            )


@contextmanager
def ablate_heads(model: nn.Module, heads: Mapping[int, Iterable[int]], fill: Tensor | None = None) -> Iterator[None]:
    """Replace the outputs of heads by zero or by ``fill`` within the block.

    This is the mask of Michel et al. at 0. It saves no time, as the attention of silent heads is computed. Gradients of
    silent heads are zero, so within the block the model can be fine-tuned, and explained by Captum's methods and ours;
    GMAR gives silent heads no weight. Methods of attention alone (:class:`~captum_gmar.AttentionRollout`,
    :class:`~captum_gmar.RawAttention`) still show the attention of silent heads. :func:`~captum_gmar.record_attention`
    raises an error within the block. Nested blocks silence the heads of all blocks.

    The model's state does not change, nor do other models or other threads. Hugging Face models compute attention by
    "sdpa" within the block and thread; compiled models run force_eager.

    To remove heads permanently, use ``model.prune_heads({layer: [heads]})`` of transformers 4. To put LoRA adapters of
    peft on important layers, pass ``layers_to_transform=[*statistics.most(k)]``.

    Args:
        model (nn.Module): A vision transformer.
        heads (Mapping[int, Iterable[int]]): Heads of each layer, both from 0, as returned by ``statistics.least(k)``.
        fill (Tensor, optional): Output of each head (layers, heads, head dimension) for every token, as returned by
            :func:`mean_head_outputs`. Default: None, zero.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the model lacks a layer or head, or ``fill`` does not fit. If the config lacks these numbers,
            heads are checked when the model runs, and layers at the end of the block.
        RuntimeError: if the model uses gradient checkpointing; at the end of the block, if the block captured no
            attention of the model.

    References:
        Michel, Levy, Neubig: Are Sixteen Heads Really Better than One? NeurIPS 2019, arXiv 1905.10650.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.ablation import ablate_heads
        >>> model, scene = load_model(), load_scene(3)
        >>> with ablate_heads(model, {0: [1, 2], 5: [0]}):
        ...     logits = model(scene.pixel_values).logits
    """
    check_model(model)
    chosen = _check_heads(heads)
    _check_fill(fill, chosen)
    if not chosen:
        yield
        return
    _check_known_sizes(model, chosen)
    layers: set[int] = set()
    silences = {layer: partial(_silence, layer, numbers, fill) for layer, numbers in chosen.items()}

    def changes(layer: int) -> Change | None:
        layers.add(layer)
        return silences.get(layer)

    with head_outputs(model, changes):
        yield
    _check_layers(chosen, len(layers))


@torch.no_grad()
def mean_head_outputs(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], forward_func: Callable[..., Any] | None = None
) -> Tensor:
    """Compute each head's mean output over examples and tokens, a ``fill`` for :func:`ablate_heads`.

    Later layers are used to mean outputs, whereas zero may be far from any output. Prefix tokens count like patches.

    Args:
        model (nn.Module): A vision transformer.
        inputs (Tensor): Pixel values (N, channels, height, width) of a large reference batch.
        forward_func (Callable, optional): Runs the model on the inputs. Default: None, the model itself.

    Returns:
        Tensor: Mean outputs (layers, heads, head dimension) in at least single precision.

    Raises:
        TypeError: if the model is not a ``torch.nn.Module``.
        ValueError: if the inputs are not a batch of images.
        RuntimeError: if the model has no attention over the patch grid.

    Example::

        >>> import torch
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.ablation import ablate_heads, mean_head_outputs
        >>> model = load_model()
        >>> mean = mean_head_outputs(model, torch.cat([load_scene(seed).pixel_values for seed in range(8)]))
        >>> mean.shape
        torch.Size([6, 4, 16])
        >>> with ablate_heads(model, {5: [0, 1]}, fill=mean):
        ...     logits = model(load_scene(9).pixel_values).logits
    """
    check_model(model)
    pixels = pixel_values(inputs)
    means: list[Tensor] = []

    def record(outputs: Tensor) -> Tensor:
        means.append(outputs.mean((0, 2), dtype=torch.promote_types(outputs.dtype, torch.float32)))
        return outputs

    with head_outputs(model, lambda layer: record):
        Logits(model if forward_func is None else forward_func).run(pixels)
    return stack_layers(means, 0)


def stack_layers(layers: list[Tensor], dim: int) -> Tensor:
    """Stack tensors of all layers; raise a ValueError if their shapes differ."""
    if len({layer.shape for layer in layers}) > 1:
        raise ValueError(
            "model must have as many heads in every layer, of one size, but got layers of shape "
            f"{', '.join(str(tuple(layer.shape)) for layer in layers)}. Ablate heads instead of pruning them."
        )
    return torch.stack(layers, dim)


def _silence(layer: int, numbers: list[int], fill: Tensor | None, outputs: Tensor) -> Tensor:
    """Replace the outputs of some heads in (N, H, T, D)."""
    _, heads, _, size = outputs.shape
    if numbers[-1] >= heads:
        raise ValueError(f"heads must be among the {heads} heads of layer {layer}, but got {numbers[-1]}.")
    if fill is not None and fill.shape[1:] != (heads, size):
        raise ValueError(
            f"fill must be of shape (layers, {heads}, {size}), heads and head dimension of layer {layer}, but got "
            f"{tuple(fill.shape)}. Take it from mean_head_outputs of the same model."
        )
    silent = torch.zeros(heads, 1, 1, dtype=torch.bool, device=outputs.device)
    silent[numbers] = True
    return torch.where(silent, 0 if fill is None else fill[layer, :, None].to(outputs), outputs)


def _check_heads(heads: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    """Return the sorted heads of each layer that has any."""
    if not isinstance(heads, Mapping) or not all(isinstance(numbers, Iterable) for numbers in heads.values()):
        raise TypeError(f"heads must be a dictionary of layer to list of heads, {{0: [1, 2]}}, but got {heads!r}.")
    chosen = {layer: list(numbers) for layer, numbers in heads.items()}
    for number in [*chosen, *(head for numbers in chosen.values() for head in numbers)]:
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 0:
            raise ValueError(f"Layers and heads must be integers, zero or more, but got {number!r}.")
    return {int(layer): sorted({*map(int, numbers)}) for layer, numbers in chosen.items() if numbers}


def _check_fill(fill: Tensor | None, chosen: dict[int, list[int]]) -> None:
    if fill is None:
        return
    if not isinstance(fill, Tensor):
        raise TypeError(
            f"fill must be a tensor (layers, heads, head dimension), but got {type(fill).__name__}. Take it from "
            "mean_head_outputs, or None for zero."
        )
    if fill.dim() != 3 or not fill.is_floating_point() or max(chosen, default=0) >= len(fill):
        raise ValueError(
            "fill must be floating-point of shape (layers, heads, head dimension) up to layer "
            f"{max(chosen, default=0)}, but got {fill.dtype} of shape {tuple(fill.shape)}. Take it from "
            "mean_head_outputs of the same model."
        )


def _check_known_sizes(model: nn.Module, chosen: dict[int, list[int]]) -> None:
    """Raise a ValueError if the vision tower's config has fewer layers or heads."""
    configs = map(config_of, model.modules())
    config = next((config for config in configs if getattr(config, "patch_size", None) is not None), None)
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    if isinstance(layers, int):
        _check_layers(chosen, layers)
    largest = max(numbers[-1] for numbers in chosen.values())
    if isinstance(heads, int) and largest >= heads:
        raise ValueError(f"heads must be among the {heads} heads of a layer, but got {largest}.")


def _check_layers(chosen: dict[int, list[int]], layers: int) -> None:
    if max(chosen) >= layers:
        raise ValueError(f"Layers must be among the model's {layers} attention layers, but got {max(chosen)}.")
