"""Importance and ablation of attention heads, and removal of patch tokens.

Layers and heads are numbered as in :meth:`captum_gmar.GMARAttribution.head_importance`: attention layers over the patch
grid, from layer 0, and query heads.

- Scores of every head (N, layers, heads): that method, :func:`gradient_of_mask`, :func:`attention_entropy`.
- Statistics over a data set and by class: :func:`head_importance`, :class:`HeadStatistics`.
- Ablation: :func:`ablate_heads`, :func:`mean_head_outputs`, :func:`head_ablation_curve`.
- Removal of patch tokens for curves: :class:`TokenRemoval`.

Example::

    >>> from functools import partial
    >>> import torch
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> from captum_gmar.ablation import ablate_heads, gradient_of_mask, head_importance
    >>> config = ViTConfig(image_size=32, patch_size=8, hidden_size=16, num_attention_heads=2,
    ...                    num_hidden_layers=3, intermediate_size=32, num_labels=10)
    >>> model = ViTForImageClassification(config).eval()
    >>> batches = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
    >>> statistics = head_importance(partial(gradient_of_mask, model), batches)
    >>> statistics.mean.shape, statistics.examples
    (torch.Size([3, 2]), 8)
    >>> with ablate_heads(model, statistics.least(2)):
    ...     logits = model(batches[0][0]).logits
"""

from captum_gmar.ablation.curve import HeadAblationCurve, head_ablation_curve
from captum_gmar.ablation.heads import ablate_heads, mean_head_outputs
from captum_gmar.ablation.importance import HeadStatistics, head_importance
from captum_gmar.ablation.ranking import ranked_heads
from captum_gmar.ablation.scores import attention_entropy, gradient_of_mask
from captum_gmar.ablation.tokens import TokenRemoval

__all__ = [
    "HeadAblationCurve",
    "HeadStatistics",
    "TokenRemoval",
    "ablate_heads",
    "attention_entropy",
    "gradient_of_mask",
    "head_ablation_curve",
    "head_importance",
    "mean_head_outputs",
    "ranked_heads",
]
