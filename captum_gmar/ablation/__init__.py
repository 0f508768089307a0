"""Importance and ablation of attention heads, and removal of patch tokens.

Layers and heads are numbered as in :meth:`captum_gmar.GMARAttribution.head_importance`: attention layers over the patch
grid, from layer 0, and query heads.

- Scores of every head (N, layers, heads): that method, :func:`gradient_of_mask`, :func:`attention_entropy`.
- Statistics over a data set and by class: :func:`head_importance`, :class:`HeadStatistics`.
- Ablation: :func:`ablate_heads`, :func:`mean_head_outputs`, :func:`head_ablation_curve`.
- Removal of patch tokens for curves: :class:`TokenRemoval`.
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
