"""Attributions over their photo, drawn with ``captum.attr.visualization``."""

from captum_gmar.visualization.comparison import visualize_comparison
from captum_gmar.visualization.single import visualize_attribution

__all__ = ["visualize_attribution", "visualize_comparison"]
