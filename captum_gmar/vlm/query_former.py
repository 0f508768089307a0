"""From query tokens to patches: of models whose pictures are read by a few learned queries, as BLIP-2's are."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.hooks.threads import limit_to_thread
from captum_gmar.engine.kernels.precision import wide
from captum_gmar.engine.models.attention_backend import attention_implementation


@torch.no_grad()
def patches_of_queries(model: Any, arguments: Mapping[str, Any]) -> Tensor:
    r"""What each query token hands on to the patches, by attention rollout through the layers of its transformer.

    From the last layer to the first, what a query holds goes half to the patches that it reads there, if the layer
    reads any, and then half to the tokens beside it:

    .. math:: p \leftarrow p + \tfrac{1}{2} q \bar C_l, \quad q \leftarrow \tfrac{1}{2} q, \qquad
              q \leftarrow \tfrac{1}{2} (q + q \bar A_l)

    with the means over heads :math:`\bar C_l` of attention to the patches and :math:`\bar A_l` of attention among the
    queries, and of InstructBLIP the instruction's tokens (after Abnar and Zuidema, ACL 2020). It is linear. What the
    learned queries, the instruction and the tower's CLS token hold in the end is left out.

    Args:
        model: of transformers, with ``get_image_features`` and a transformer that ends in "qformer".
        arguments: what its processor returned, of one picture.

    Returns:
        (Q, rows, columns) of the tower's patches, zero or more.
    """
    pixels, patch = arguments["pixel_values"], model.config.vision_config.patch_size
    grid = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    former = next(module for name, module in model.named_modules() if name.rpartition(".")[2] == "qformer")
    known = inspect.signature(inspect.unwrap(model.get_image_features)).parameters
    with attention_implementation(former, "eager"), _weights_kept(former) as (among, patch_attention):
        model.get_image_features(**{name: value for name, value in arguments.items() if name in known})
    queries, patches = next(iter(patch_attention.values())).shape
    first = next(iter(among.values()))
    held = torch.eye(queries, len(first)).to(first)
    handed = held.new_zeros(queries, patches)
    for layer in reversed(list(among)):
        if layer in patch_attention:
            handed += held[:, :queries] @ patch_attention[layer] / 2
            held[:, :queries] /= 2
        held = torch.lerp(held, held @ among[layer], 0.5)
    rows, columns = grid
    return handed[:, -rows * columns :].view(queries, rows, columns)


@contextmanager
def _weights_kept(former: nn.Module) -> Iterator[tuple[dict[nn.Module, Tensor], dict[nn.Module, Tensor]]]:
    """Within the block, by layer, the mean over heads of attention among its tokens (S, S), and to patches (Q, P)."""
    among: dict[nn.Module, Tensor] = {}
    patch_attention: dict[nn.Module, Tensor] = {}
    hooks = []
    layers: Any = former.get_submodule("encoder.layer")
    for layer in layers:
        for name, kept in (("attention", among), ("crossattention", patch_attention)):
            if hasattr(layer, name):
                hooks.append(getattr(layer, name).attention.register_forward_hook(_keeping(kept, layer)))
    try:
        yield among, patch_attention
    finally:
        for hook in hooks:
            hook.remove()


def _keeping(kept: dict[nn.Module, Tensor], layer: nn.Module) -> Any:
    @limit_to_thread
    def keep(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
        kept[layer] = wide(output[1])[0].mean(0)

    return keep
