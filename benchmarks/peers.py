"""Other packages for the same models, each called as its documentation says.

None is needed: one that is absent, or cannot run here, becomes a row that says so.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import ViTForImageClassification

from captum_gmar.engine.models.layers import transformer_layers

Run = Callable[[], object]


class _Classifier(nn.Module):
    """The model as the peers want it: logits come out."""

    def __init__(self, model: ViTForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).logits


def grad_cam(model: ViTForImageClassification, inputs: Tensor, target: int) -> Run:
    """https://pypi.org/project/grad-cam: on the last layer's first norm, as its page on vision transformers says."""
    package = importlib.import_module("pytorch_grad_cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    reshape = importlib.import_module("pytorch_grad_cam.utils.reshape_transforms").vit_reshape_transform
    side = model.config.image_size // model.config.patch_size
    layer = transformer_layers(model)[-1].layernorm_before
    cam = package.GradCAM(_Classifier(model), [layer], reshape_transform=partial(reshape, height=side, width=side))
    return lambda: cam(inputs, [targets.ClassifierOutputTarget(target)] * len(inputs))


def torchxai_rollout(model: ViTForImageClassification, inputs: Tensor, target: int) -> Run:
    """https://pypi.org/project/torchxai-explain: attention rollout, image by image."""
    model.set_attn_implementation("eager")
    rollout = importlib.import_module("torchxai").AttentionRollout(_Classifier(model))
    return lambda: [rollout(image[None]) for image in inputs]


def torchxai_attribution(model: ViTForImageClassification, inputs: Tensor, target: int) -> Run:
    """Compute the same package's attention times gradient, image by image."""
    model.set_attn_implementation("eager")
    methods: Any = importlib.import_module("torchxai.methods.transformer_attribution")
    attribution = methods.TransformerAttribution(_Classifier(model))
    return lambda: [attribution(image[None], target_class=target) for image in inputs]


def autolrp(model: ViTForImageClassification, inputs: Tensor, target: int) -> Run:
    """https://pypi.org/project/autolrp: layer-wise relevance propagation over autograd's graph."""
    package = importlib.import_module("autolrp")
    model.requires_grad_(False)

    def run() -> Tensor:
        wrapped = package.tensor(inputs)
        model(wrapped).logits[:, target].sum().lrp()
        return wrapped.relevance

    return run


# From the name in the report to the package, how it is run, and whether it takes a gradient.
PEERS: dict[str, tuple[str, Callable[[ViTForImageClassification, Tensor, int], Run], bool]] = {
    "grad-cam": ("grad-cam", grad_cam, True),
    "torchxai rollout": ("torchxai-explain", torchxai_rollout, False),
    "torchxai attribution": ("torchxai-explain", torchxai_attribution, True),
    "autolrp": ("autolrp", autolrp, True),
}
