"""Attributions over their photo, drawn with ``captum.attr.visualization``, and what is known of layers and heads."""

from captum_gmar.visualization.attribution import visualize_attribution
from captum_gmar.visualization.curves import visualize_perturbation_curves
from captum_gmar.visualization.head_maps import visualize_head_attention, visualize_head_importance
from captum_gmar.visualization.side_by_side import visualize_comparison
from captum_gmar.visualization.tokens import visualize_relevance_flow, visualize_token_interaction
from captum_gmar.visualization.video import overlay_video, visualize_video

__all__ = [
    "overlay_video",
    "visualize_attribution",
    "visualize_comparison",
    "visualize_head_attention",
    "visualize_head_importance",
    "visualize_perturbation_curves",
    "visualize_relevance_flow",
    "visualize_token_interaction",
    "visualize_video",
]
