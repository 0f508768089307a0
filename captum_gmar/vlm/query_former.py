"""Relevance of patches from query tokens, for models with a query transformer such as BLIP-2."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.kernels.precision import widen
from captum_gmar.engine.models.attention_backend import attention_implementation


@torch.no_grad()
def query_patch_weights(model: Any, arguments: Mapping[str, Any]) -> Tensor:
    r"""Compute each query token's weights (Q, rows, columns) on patches, by attention rollout through the query
    transformer.

    From the last layer to the first, a layer with attention to patches passes half of a query's relevance to them. Then
    half of the rest goes to other tokens:

    .. math:: p \leftarrow p + \tfrac{1}{2} q \bar C_l, \quad q \leftarrow \tfrac{1}{2} q, \qquad
        q \leftarrow \tfrac{1}{2} (q + q \bar A_l)

    with means over heads :math:`\bar C_l` of attention to patches and :math:`\bar A_l` of attention among queries (and
    instruction tokens in InstructBLIP), after Abnar and Zuidema, ACL 2020. The relevance that remains in queries,
    instruction tokens and the tower's CLS token is left out.
    """
    pixels, patch = arguments["pixel_values"], model.config.vision_config.patch_size
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    former = next(module for name, module in model.named_modules() if name.rpartition(".")[2] == "qformer")
    parameters = inspect.signature(inspect.unwrap(model.get_image_features)).parameters
    with attention_implementation(former, "eager"), _capture_attention(former) as (self_attention, cross_attention):
        model.get_image_features(**{name: value for name, value in arguments.items() if name in parameters})
    queries, patches = next(iter(cross_attention.values())).shape
    first = next(iter(self_attention.values()))
    relevance = torch.eye(queries, len(first)).to(first)
    patch_relevance = relevance.new_zeros(queries, patches)
    for layer in reversed(list(self_attention)):
        if layer in cross_attention:
            patch_relevance += relevance[:, :queries] @ cross_attention[layer] / 2
            relevance[:, :queries] /= 2
        relevance = torch.lerp(relevance, relevance @ self_attention[layer], 0.5)
    return patch_relevance[:, -rows * columns :].view(queries, rows, columns)


@contextmanager
def _capture_attention(former: nn.Module) -> Iterator[tuple[dict[nn.Module, Tensor], dict[nn.Module, Tensor]]]:
    """Capture each layer's mean attention among its tokens (S, S) and to patches (Q, P)."""
    self_attention: dict[nn.Module, Tensor] = {}
    cross_attention: dict[nn.Module, Tensor] = {}
    layers: Any = former.get_submodule("encoder.layer")
    with ExitStack() as stack:
        for layer in layers:
            for name, weights in (("attention", self_attention), ("crossattention", cross_attention)):
                if hasattr(layer, name):
                    store = partial(_store_mean, weights, layer)
                    stack.enter_context(hook_modules([getattr(layer, name).attention], leave=store))
        yield self_attention, cross_attention


def _store_mean(means: dict[nn.Module, Tensor], layer: nn.Module, module: nn.Module, args: Any, output: Any) -> None:
    means[layer] = widen(output[1])[0].mean(0)
