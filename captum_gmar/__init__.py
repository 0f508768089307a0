"""GMAR and its family for Captum: attribution methods that read the attention of vision transformers.

The public names are loaded when first used, so that ``import captum_gmar`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_gmar.attr.catalogue import methods
    from captum_gmar.attr.evidence import AttentionEvidence
    from captum_gmar.attr.gmar import GMARAttribution
    from captum_gmar.attr.gradient_rollout import AttentionGradCAM, GMARPlusPlus, GradientRollout
    from captum_gmar.attr.layer_means import GradSAM, LeGrad
    from captum_gmar.attr.published import PublishedGMAR
    from captum_gmar.attr.relevance_flow import RelevanceFlow
    from captum_gmar.attr.rollout import AttentionRollout, RawAttention
    from captum_gmar.engine.recording import AttentionRecord, record_attention
    from captum_gmar.inspection.compare import compare
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
    "AttentionEvidence": "attr.evidence",
    "AttentionGradCAM": "attr.gradient_rollout",
    "AttentionRecord": "engine.recording",
    "AttentionRollout": "attr.rollout",
    "GMARAttribution": "attr.gmar",
    "GMARPlusPlus": "attr.gradient_rollout",
    "GradSAM": "attr.layer_means",
    "GradientRollout": "attr.gradient_rollout",
    "LeGrad": "attr.layer_means",
    "PublishedGMAR": "attr.published",
    "RawAttention": "attr.rollout",
    "RelevanceFlow": "attr.relevance_flow",
    "compare": "inspection.compare",
    "methods": "attr.catalogue",
    "record_attention": "engine.recording",
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
