"""The public names and where each is defined, one row each: for type checkers, and for ``__init__.py``."""

from captum_gmar.attr.evidence import AttentionEvidence as AttentionEvidence
from captum_gmar.attr.gmar import GMARAttribution as GMARAttribution
from captum_gmar.attr.gradient_rollout import AttentionGradCAM as AttentionGradCAM
from captum_gmar.attr.gradient_rollout import GMARPlusPlus as GMARPlusPlus
from captum_gmar.attr.gradient_rollout import GradientRollout as GradientRollout
from captum_gmar.attr.last_attention import CDAM as CDAM
from captum_gmar.attr.last_attention import GradECLIP as GradECLIP
from captum_gmar.attr.layer_means import GradSAM as GradSAM
from captum_gmar.attr.layer_means import LeGrad as LeGrad
from captum_gmar.attr.methods import get_method as get_method
from captum_gmar.attr.methods import list_methods as list_methods
from captum_gmar.attr.rollout import AttentionRollout as AttentionRollout
from captum_gmar.attr.rollout import RawAttention as RawAttention
from captum_gmar.attr.token_evidence import TokenEvidence as TokenEvidence
from captum_gmar.attr.token_gradients import AttCAT as AttCAT
from captum_gmar.attr.token_gradients import FullGradPlus as FullGradPlus
from captum_gmar.attr.token_gradients import LibraAttCAT as LibraAttCAT
from captum_gmar.attr.token_gradients import LibraFullGradPlus as LibraFullGradPlus
from captum_gmar.engine.attention.record import record_attention as record_attention
from captum_gmar.engine.hidden_states.registry import register_rule as register_rule
from captum_gmar.evaluation.evaluate import evaluate as evaluate
from captum_gmar.evaluation.heads import evaluate_heads as evaluate_heads
from captum_gmar.inspection.compare import compare as compare
from captum_gmar.inspection.explain_text import explain_text as explain_text
from captum_gmar.visualization import visualize_attribution as visualize_attribution
from captum_gmar.visualization import visualize_comparison as visualize_comparison
from captum_gmar.visualization import visualize_head_importance as visualize_head_importance
from captum_gmar.visualization import visualize_relevance_flow as visualize_relevance_flow
from captum_gmar.visualization import visualize_video as visualize_video
from captum_gmar.vlm.evidence import AnswerEvidence as AnswerEvidence

__version__: str
