"""A model without some of its attention heads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.ablation.head_outputs import Change, head_outputs
from captum_gmar.engine.models.patch_grid import Logits, check_model, config_of
from captum_gmar.engine.request import pixel_values


@contextmanager
def ablate_heads(model: nn.Module, heads: Mapping[int, Iterable[int]], fill: Tensor | None = None) -> Iterator[None]:
    """
    Within the block, these heads of the model are silent: what comes out of them is replaced by zero, or by ``fill``.

    That is the mask of Michel et al. at 0. What a silent head attends to is computed all the same, so this shows what
    the model is without it and saves no time. Gradients pass, those of a silent head being zero, so in the block the
    model can be fine-tuned, and explained by Captum's methods and by ours; GMAR gives a silent head no weight. Methods
    that read the attention alone (:class:`~captum_gmar.AttentionRollout`, :class:`~captum_gmar.RawAttention`) still
    see where it looks, and :func:`~captum_gmar.record_attention` cannot be called in the block, and says so. Blocks
    may be nested: the heads of all of them are silent.

    The model is not written to, and the heads of other models, and of this one in other threads, stay as they are.
    Hugging Face models compute attention by "sdpa" in this block and thread; compiled ones run as they were written.

    To take heads out for good, transformers 4 has ``model.prune_heads({layer: [heads]})``, with heads in the same form.
    Adapters such as LoRA are put on the projections of whole layers: the layers of ``statistics.most(k)`` are what
    peft's ``layers_to_transform=[*statistics.most(k)]`` takes.

    Args:
        model (nn.Module): A vision transformer.
        heads (Mapping[int, Iterable[int]]): Layer to heads, both from 0, as ``statistics.least(k)`` gives them. If
            there are none, nothing is changed at all.
        fill (Tensor, optional): (layers, heads, head dimension), for every token, as :func:`mean_head_outputs` gives
            it.
            Default: None, zero

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if the model has no such layer or head, or ``fill`` does not fit. Where its config does not tell how
            many there are, heads are checked when the model runs, and layers at the end of the block.
        RuntimeError: if the model uses gradient checkpointing; at the end of the block, if its attention was not met
            in it.

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
    chosen = _checked_heads(heads)
    _check_fill(fill, chosen)
    if not chosen:
        yield
        return
    _check_known(model, chosen)
    met: set[int] = set()
    silences = {layer: partial(_silenced, layer, numbers, fill) for layer, numbers in chosen.items()}

    def changes(layer: int) -> Change | None:
        met.add(layer)
        return silences.get(layer)

    with head_outputs(model, changes):
        yield
    _check_layers(chosen, len(met))


@torch.no_grad()
def mean_head_outputs(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], forward_func: Callable[..., Any] | None = None
) -> Tensor:
    """
    What comes out of each head on average over examples and tokens: a ``fill`` for :func:`ablate_heads`.

    With it a head says the same for every image and token, and the layers behind it get what they are used to, which
    zero may be far from. Prefix tokens count like patches.

    Args:
        model (nn.Module): A vision transformer.
        inputs (Tensor): Pixel values (N, channels, height, width) of a reference batch, the more examples the better.
        forward_func (Callable, optional): Runs the model on the inputs.
            Default: None, the model itself

    Returns:
        Tensor: (layers, heads, head dimension), at least in single precision.

    Raises:
        TypeError, ValueError, RuntimeError: if the model is no ``torch.nn.Module``, the inputs are no batch of images,
            or attention over the patch grid is not met.

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

    def note(outputs: Tensor) -> Tensor:
        means.append(outputs.mean((0, 2), dtype=torch.promote_types(outputs.dtype, torch.float32)))
        return outputs

    with head_outputs(model, lambda layer: note):
        Logits(model if forward_func is None else forward_func).run(pixels)
    return stacked(means, 0)


def stacked(layers: list[Tensor], dim: int) -> Tensor:
    """What there is of every layer, as one tensor."""
    if len({layer.shape for layer in layers}) > 1:
        raise ValueError(
            "Expected as many heads in every layer, of one size, but got layers of shape "
            f"{', '.join(str(tuple(layer.shape)) for layer in layers)}. Ablate heads instead of pruning them."
        )
    return torch.stack(layers, dim)


def _silenced(layer: int, numbers: list[int], fill: Tensor | None, outputs: Tensor) -> Tensor:
    """Head outputs (N, H, T, D) with those of some heads replaced."""
    _, heads, _, size = outputs.shape
    if numbers[-1] >= heads:
        raise ValueError(f"heads must be among the {heads} heads of layer {layer}. Got {numbers[-1]} instead.")
    if fill is not None and fill.shape[1:] != (heads, size):
        raise ValueError(
            f"Expected fill of shape (layers, {heads}, {size}), heads and head dimension of layer {layer}, but got "
            f"{tuple(fill.shape)}. Take it from mean_head_outputs of the same model."
        )
    silent = torch.zeros(heads, 1, 1, dtype=torch.bool, device=outputs.device)
    silent[numbers] = True
    return torch.where(silent, 0 if fill is None else fill[layer, :, None].to(outputs), outputs)


def _checked_heads(heads: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    """Layers that have heads to silence, with these in order."""
    if not isinstance(heads, Mapping) or not all(isinstance(some, Iterable) for some in heads.values()):
        raise TypeError(
            f"heads must be a dictionary, layer to list of heads, such as {{0: [1, 2], 5: [0]}}. Got {heads!r} instead."
        )
    chosen = {layer: list(some) for layer, some in heads.items()}
    for number in [*chosen, *(head for some in chosen.values() for head in some)]:
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 0:
            raise ValueError(f"Layers and heads must be integers, zero or more. Got {number!r} instead.")
    return {int(layer): sorted({int(head) for head in some}) for layer, some in chosen.items() if some}


def _check_fill(fill: Tensor | None, chosen: dict[int, list[int]]) -> None:
    if fill is None:
        return
    if not isinstance(fill, Tensor):
        raise TypeError(
            f"fill must be a tensor (layers, heads, head dimension). Got {type(fill).__name__} instead. Take it from "
            "mean_head_outputs, or None for zero."
        )
    if fill.dim() != 3 or not fill.is_floating_point() or max(chosen, default=0) >= len(fill):
        raise ValueError(
            f"Expected a floating-point fill of shape (layers, heads, head dimension) that covers layer "
            f"{max(chosen, default=0)} but got {fill.dtype} of shape {tuple(fill.shape)}. Take it from "
            "mean_head_outputs of the same model."
        )


def _check_known(model: nn.Module, chosen: dict[int, list[int]]) -> None:
    """Raises an error where the config of the vision tower tells that there is no such layer or head."""
    configs = map(config_of, model.modules())
    config = next((config for config in configs if getattr(config, "patch_size", None) is not None), None)
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    if isinstance(layers, int):
        _check_layers(chosen, layers)
    largest = max(numbers[-1] for numbers in chosen.values())
    if isinstance(heads, int) and largest >= heads:
        raise ValueError(f"heads must be among the {heads} heads of a layer. Got {largest} instead.")


def _check_layers(chosen: dict[int, list[int]], layers: int) -> None:
    if max(chosen) >= layers:
        raise ValueError(f"Layers must be among the model's {layers} attention layers. Got {max(chosen)} instead.")
