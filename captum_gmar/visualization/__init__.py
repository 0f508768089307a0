"""Plots of attributions over photos, and of layers and heads.

Arguments have the names of ``captum.attr.visualization``, which also draws attributions of this package. There the
largest value always has the strongest colour, so that a flat map looks like a finding; here it looks flat.
"""

from captum_gmar.visualization.attribution import overlay_attribution, visualize_attribution
from captum_gmar.visualization.comparison import visualize_comparison
from captum_gmar.visualization.curves import visualize_perturbation_curves
from captum_gmar.visualization.film import compose_film
from captum_gmar.visualization.heads import visualize_head_attention, visualize_head_importance
from captum_gmar.visualization.segments import visualize_segments
from captum_gmar.visualization.spectrogram import visualize_spectrogram
from captum_gmar.visualization.tokens import visualize_relevance_flow, visualize_token_interaction
from captum_gmar.visualization.video import visualize_video
from captum_gmar.visualization.volume import visualize_volume

__all__ = [
    "compose_film",
    "overlay_attribution",
    "visualize_attribution",
    "visualize_comparison",
    "visualize_head_attention",
    "visualize_head_importance",
    "visualize_perturbation_curves",
    "visualize_relevance_flow",
    "visualize_segments",
    "visualize_spectrogram",
    "visualize_token_interaction",
    "visualize_video",
    "visualize_volume",
]
