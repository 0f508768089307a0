"""Order of heads by importance."""

from collections.abc import Iterable

import torch
from torch import Tensor


def ranked_heads(importance: Tensor, *, within_layers: bool = False) -> list[tuple[int, int]]:
    """Return all heads of all layers, least important first; ties keep their order.

    The meaning of an order over all layers depends on the score. GMAR's head importance is a share of the layer, so all
    layers count equally. A head ranks low if its layer's other heads outweigh it, even in an important layer.
    :func:`gradient_of_mask` has one unit, but its values may be larger in some layers. Michel et al. divide by the
    layer's L2 norm first: ``importance / importance.norm(dim=-1, keepdim=True)``. ``within_layers`` does not compare
    layers: the least important head of every layer is first, then the second of every layer, and so on.

    Args:
        importance (Tensor): Importance (layers, heads), for example the ``mean`` of :class:`HeadStatistics`.
        within_layers (bool, optional): Rank heads within their layer; heads of equal rank are sorted by importance.

    Returns:
        list[tuple[int, int]]: Layer and head of each.

    Raises:
        TypeError: if ``importance`` is not a tensor.
        ValueError: if ``importance`` has another shape or is not finite.

    Example::

        >>> import torch
        >>> from captum_gmar.ablation import ranked_heads
        >>> importance = torch.tensor([[0.1, 0.2], [0.8, 0.7]])
        >>> ranked_heads(importance)
        [(0, 0), (0, 1), (1, 1), (1, 0)]
        >>> ranked_heads(importance, within_layers=True)
        [(0, 0), (1, 1), (0, 1), (1, 0)]
    """
    if not isinstance(importance, Tensor):
        raise TypeError(f"importance must be a tensor (layers, heads), but got {type(importance).__name__}.")
    if importance.dim() != 2 or not importance.numel() or not torch.isfinite(importance).all():
        raise ValueError(
            f"importance must be finite of shape (layers, heads), but got {tuple(importance.shape)}. Take the mean "
            "over examples first."
        )
    scores = importance.tolist()
    ranks = importance.argsort(dim=-1, stable=True).argsort(-1).tolist() if within_layers else None
    heads = [(layer, head) for layer, row in enumerate(scores) for head in range(len(row))]
    return sorted(heads, key=lambda head: (ranks[head[0]][head[1]] if ranks else 0, scores[head[0]][head[1]]))


def group_by_layer(heads: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Return the heads of each layer, both ascending, for :func:`ablate_heads`."""
    layers: dict[int, list[int]] = {}
    for layer, head in sorted(heads):
        layers.setdefault(layer, []).append(head)
    return layers
