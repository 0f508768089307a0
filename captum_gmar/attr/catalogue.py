"""All methods by name, ours and Captum's, ready to be called on a model."""

from collections.abc import Callable
from functools import partial

from captum_gmar.attr import captum_methods as comparison
from captum_gmar.attr.evidence import AttentionEvidence
from captum_gmar.attr.gmar import GMARAttribution
from captum_gmar.attr.gradient_rollout import AttentionGradCAM, GMARPlusPlus, GradientRollout
from captum_gmar.attr.layer_means import GradSAM, LeGrad
from captum_gmar.attr.published import PublishedGMAR
from captum_gmar.attr.rollout import AttentionRollout, RawAttention
from captum_gmar.engine._captum import Attribution

MethodFactory = Callable[..., Attribution]

OURS: dict[str, MethodFactory] = {
    "gmar-l1": GMARAttribution,
    "gmar-l2": partial(GMARAttribution, norm="l2"),
    "gmar-forward": partial(GMARAttribution, recursion="forward"),
    "gmar-additive": partial(GMARAttribution, recursion="additive"),
    "rollout": AttentionRollout,
    "rollout-forward": partial(AttentionRollout, recursion="forward"),
    "rollout-additive": partial(AttentionRollout, recursion="additive"),
    "raw-attention": RawAttention,
    "gradient-rollout": GradientRollout,
    "gradient-rollout-gmar": partial(GradientRollout, head_fusion="gmar"),
    "grad-sam": GradSAM,
    "attention-grad-cam": AttentionGradCAM,
    "legrad": LeGrad,
    "gmar++": GMARPlusPlus,
    "published-gmar": PublishedGMAR,
    "attention-evidence": AttentionEvidence,
}
CAPTUMS: dict[str, MethodFactory] = {
    "saliency": comparison.Saliency,
    "input-x-gradient": comparison.InputXGradient,
    "integrated-gradients": comparison.IntegratedGradients,
    "gradient-shap": comparison.GradientShap,
    "occlusion": comparison.PatchOcclusion,
    "feature-ablation": comparison.PatchAblation,
    "layer-grad-cam": comparison.TokenGradCam,
}


def methods() -> dict[str, MethodFactory]:
    """
    Every method by its name, as it is called on the command line and in tables.

    Returns:
        dict: From name to a callable ``(model, forward_func=None)`` that returns a Captum ``Attribution``; call its
        ``attribute(inputs, target=..., additional_forward_args=...)``. The attributions have the shape of the inputs.

    Example::

        >>> from captum_gmar import methods
        >>> from captum_gmar.demo import load_model, load_scene
        >>> model, scene = load_model(), load_scene(3)
        >>> for name in ("gmar-l1", "gradient-rollout", "saliency"):
        ...     attributions = methods()[name](model).attribute(scene.pixel_values, target=scene.labels[0])
        ...     assert attributions.shape == scene.pixel_values.shape
    """
    return {**OURS, **CAPTUMS}
