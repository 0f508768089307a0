"""The order of a model's heads by importance."""

from collections.abc import Iterable

import torch
from torch import Tensor


def ranked_heads(importance: Tensor, *, within_layers: bool = False) -> list[tuple[int, int]]:
    """
    All heads of all layers, least important first; heads of equal importance in the order they stand in.

    What an order over all layers means depends on the score. GMAR's head importance is a share of the layer, so every
    layer counts the same: a head comes early if the others of its layer outweigh it, however little the layer matters,
    and all heads of a layer where they are alike come at 1/H together. :func:`gradient_of_mask` is in one unit in all
    layers, but may run larger throughout in some; Michel et al. divide by the layer's L2 norm first,
    ``importance / importance.norm(dim=-1, keepdim=True)``. With ``within_layers`` layers are not compared: the least
    important head of every layer comes first, then the second of every layer, so that no layer loses all its heads
    before another has lost all but one.

    Args:
        importance (Tensor): (layers, heads), for example the ``mean`` of :class:`HeadStatistics`.
        within_layers (bool, optional): Whether heads are ranked within their layer; of equal rank, those of the smaller
            importance come first.
            Default: False

    Returns:
        list[tuple[int, int]]: Layer and head of each.

    Raises:
        TypeError: if ``importance`` is no tensor.
        ValueError: if it is not of that shape, or not finite.

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
        raise TypeError(f"importance must be a tensor (layers, heads). Got {type(importance).__name__} instead.")
    if importance.dim() != 2 or not importance.numel() or not torch.isfinite(importance).all():
        raise ValueError(
            f"Expected finite importance of shape (layers, heads) but got {tuple(importance.shape)}. Take the mean "
            "over examples first."
        )
    scores = importance.tolist()
    ranks = importance.argsort(dim=-1, stable=True).argsort(-1).tolist() if within_layers else None
    heads = [(layer, head) for layer, row in enumerate(scores) for head in range(len(row))]
    return sorted(heads, key=lambda head: (ranks[head[0]][head[1]] if ranks else 0, scores[head[0]][head[1]]))


def group_by_layer(heads: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Layer to heads, both ascending, as :func:`ablate_heads` takes them."""
    layers: dict[int, list[int]] = {}
    for layer, head in sorted(heads):
        layers.setdefault(layer, []).append(head)
    return layers
