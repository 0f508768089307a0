"""GMAR and its family for Captum: attribution methods that read the attention of vision transformers.

The public names are loaded when first used, so that ``import captum_gmar`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_gmar.catalogue import methods
    from captum_gmar.evidence import AttentionEvidence
    from captum_gmar.flow import RelevanceFlow
    from captum_gmar.gmar import GMARAttribution
    from captum_gmar.gradient_rollout import AttentionGradCAM, GMARPlusPlus, GradientRollout
    from captum_gmar.layer_means import GradSAM, LeGrad
    from captum_gmar.published import PublishedGMAR
    from captum_gmar.recording import AttentionRecord, record_attention
    from captum_gmar.rollout import AttentionRollout, RawAttention
    from captum_gmar.side_by_side import compare
    from captum_gmar.visualization import (
        visualize_attribution,
        visualize_comparison,
        visualize_head_attention,
        visualize_head_importance,
        visualize_perturbation_curves,
        visualize_relevance_flow,
        visualize_token_interaction,
    )

__version__ = "0.1.0"

_HOMES = {
    "AttentionEvidence": "evidence",
    "AttentionGradCAM": "gradient_rollout",
    "AttentionRecord": "recording",
    "AttentionRollout": "rollout",
    "GMARAttribution": "gmar",
    "GMARPlusPlus": "gradient_rollout",
    "GradSAM": "layer_means",
    "GradientRollout": "gradient_rollout",
    "LeGrad": "layer_means",
    "PublishedGMAR": "published",
    "RawAttention": "rollout",
    "RelevanceFlow": "flow",
    "compare": "side_by_side",
    "methods": "catalogue",
    "record_attention": "recording",
    "visualize_attribution": "visualization",
    "visualize_comparison": "visualization",
    "visualize_head_attention": "visualization",
    "visualize_head_importance": "visualization",
    "visualize_perturbation_curves": "visualization",
    "visualize_relevance_flow": "visualization",
    "visualize_token_interaction": "visualization",
}

__all__ = [
    "AttentionEvidence",
    "AttentionGradCAM",
    "AttentionRecord",
    "AttentionRollout",
    "GMARAttribution",
    "GMARPlusPlus",
    "GradSAM",
    "GradientRollout",
    "LeGrad",
    "PublishedGMAR",
    "RawAttention",
    "RelevanceFlow",
    "compare",
    "methods",
    "record_attention",
    "visualize_attribution",
    "visualize_comparison",
    "visualize_head_attention",
    "visualize_head_importance",
    "visualize_perturbation_curves",
    "visualize_relevance_flow",
    "visualize_token_interaction",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
