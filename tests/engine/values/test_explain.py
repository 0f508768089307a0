"""Value times gradient against attention times its gradient, written out, on every family."""

import pytest
import torch
import transformers
from field_families import FIELD_FAMILIES, swin
from field_oracle import Softmaxes, evidence, field, on_finest
from installed import HAS_TRANSFORMERS_5
from oracle import log_odds as written_log_odds
from snapshots import state
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from captum_gmar import AttentionEvidence
from captum_gmar.attr.scores import log_odds
from captum_gmar.engine.models.patch_grid import Logits
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.request import Request
from captum_gmar.engine.values.explain import explain_values

BUILT_OTHERWISE = (
    "V-JEPA 2",
    "DETR",
    "Deformable DETR",
    "BEiT, segments",
    "RF-DETR, its backbone",
)  # by transformers 4


def make(name):
    if not HAS_TRANSFORMERS_5 and name in BUILT_OTHERWISE:
        pytest.skip("it is written down here as transformers 5 builds it")
    torch.manual_seed(0)
    family = FIELD_FAMILIES[name]
    model = family.make().eval().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return family, model, torch.randn(2, *family.shape, dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name, family in FIELD_FAMILIES.items() if family.places])
def test_as_written_out(name):
    family, model, inputs = make(name)
    with Softmaxes():  # in double precision, also where the model says single
        request = Request([family.target], family.arguments or None)
        (found,) = explain_values(model, Logits(model), Plan(score=log_odds), inputs, request)
    of = written_log_odds if isinstance(family.target, int) else lambda logits: logits
    written = evidence(family, model, inputs, family.target, of)
    of_places = [(tokens, place) for tokens, place in zip(written, family.places, strict=True) if place]
    fields = [field(tokens, place, 2) for tokens, place in of_places]
    assert_close(found.patch_relevance, on_finest(fields), rtol=1e-7, atol=1e-12)
    assert found.patch_relevance.abs().sum() > 1e-6


@pytest.mark.parametrize("name", ["Swin", "PVT", "LeViT"])
def test_shares_in_the_inputs_shape_and_the_model_as_it_was(name):
    _, model, inputs = make(name)
    before, evidence_of = state(model), AttentionEvidence(model)
    attributions = evidence_of.attribute(inputs, target=[1, 2])
    relevance = evidence_of.relevance(inputs, target=[1, 2])
    assert attributions.shape == inputs.shape
    assert_close(attributions.sum((1, 2, 3)), relevance.sum((1, 2)))
    assert state(model) == before


def test_examples_one_by_one_and_several_targets():
    _, model, inputs = make("Swin")
    evidence_of = AttentionEvidence(model)
    alone = [evidence_of.relevance(inputs[[n]], target=3) for n in range(2)]
    assert_close(evidence_of.relevance(inputs, target=3), torch.cat(alone), rtol=1e-9, atol=1e-12)
    assert_close(evidence_of.relevance(inputs, 3, internal_batch_size=1), torch.cat(alone), rtol=1e-9, atol=1e-12)
    each = evidence_of.explain(inputs, [0, 3]).relevance
    assert_close(each[:, 1], torch.cat(alone), rtol=1e-9, atol=1e-12)
    assert evidence_of.explain(inputs, lambda logits: logits.topk(2).indices).logits.shape == (2, 5)


def test_what_attention_wrote_is_shared_out():
    """Of each attention: its values times their gradient sum to its output times its gradient, of each example."""
    _, model, inputs = make("SegFormer")
    kept = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        for name, module in model.named_modules()
        if name.endswith("o_proj") or name.endswith("attention.output.dense")
    ]
    logits = model(inputs).logits[:, 2]
    for handle in handles:
        handle.remove()
    assert len(kept) == 5  # one a layer
    (gradient,) = torch.autograd.grad(logits.sum(), kept[-1:])
    (found,) = explain_values(model, Logits(model), Plan(start_layer=-1), inputs, Request([2]))
    assert_close(found.relevance.sum(-1), (gradient * kept[-1]).sum((1, 2)))


def test_an_input_of_another_rank():
    _, model, _ = make("Swin")
    with pytest.raises(ValueError, match=r"\(examples, frames, channels, height, width\) of videos"):
        AttentionEvidence(model).relevance(torch.zeros(3, 20), 1)


def test_a_model_without_attention():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(8 * 4, 5))
    with pytest.raises(RuntimeError, match=r"Sequential needs attention .* Pass a model with attention"):
        AttentionEvidence(model).relevance(torch.rand(1, 3, 8, 8), 1)


def test_masks_of_queries_put_together():
    pytest.importorskip("scipy", reason="scipy, which the model needs, is not installed")
    parts = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 6}
    sizes = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "dim_feedforward": 32}
    backbone = swin("Swin", image_size=64, patch_size=4, depths=[1] * 4, num_heads=[2] * 4).config
    backbone.out_features = ["stage1", "stage2", "stage3", "stage4"]
    torch.manual_seed(0)
    config = Mask2FormerConfig(backbone_config=backbone, encoder_feedforward_dim=32, num_labels=4, **parts, **sizes)
    model = Mask2FormerForUniversalSegmentation(config).eval()

    def at_a_place(pixels):
        output = model(pixels)
        classes, masks = output.class_queries_logits.softmax(-1)[..., :-1], output.masks_queries_logits.sigmoid()
        return torch.einsum("nqc,nqrw->ncrw", classes, masks)[:, 1, 3, 4]

    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    relevance = AttentionEvidence(model, forward_func=at_a_place).relevance(images)
    assert_close(relevance.abs().sum((1, 2)), torch.ones(2))
    assert_close(AttentionEvidence(model, forward_func=at_a_place).relevance(images[1:]), relevance[1:])

    def written_out(pixels):
        output = model(pixels)
        classes, masks = output.class_queries_logits.softmax(-1)[..., 1], output.masks_queries_logits.sigmoid()
        return (classes * masks[..., 3, 4]).sum(-1)

    assert_close(AttentionEvidence(model, forward_func=written_out).relevance(images), relevance)


def segment_anything(name, vision, **prompts):
    """A model of the family, of which the configs of the prompts and the decoder are alike."""
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, **prompts},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    return getattr(transformers, f"{name}Model")(config)


def make_sam():
    """Segment Anything, whose encoder attends over the whole grid in every layer."""
    vision = {"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64}
    sizes = {"image_size": 64, "patch_size": 8}
    windows = {"num_pos_feats": 8, "window_size": 4, "global_attn_indexes": [0, 1]}
    return segment_anything("Sam", {**vision, **sizes, **windows}, patch_size=8, image_embedding_size=8)


def make_sam2():
    """Segment Anything 2, whose windows are as large as the grid of their stage."""
    stages = {"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]}
    heads = {"num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [16, 8, 4, 2]}
    sizes = {"image_size": [64, 64], "hidden_size": 16, "global_attention_blocks": [3]}
    backbone = transformers.Sam2HieraDetConfig(
        **stages, **heads, **sizes, window_positional_embedding_background_size=[2, 2]
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    return segment_anything("Sam2", vision, patch_size=16)


def make_sam3():
    """Segment Anything 3 with points and boxes, whose encoder attends over the whole grid in every layer."""
    tokens = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"image_size": 64, "patch_size": 8, "pretrain_image_size": 32}
    backbone = transformers.Sam3ViTConfig(**tokens, **sizes, window_size=4, global_attn_indexes=[0, 1])
    vision = transformers.Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=16, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
    )
    return segment_anything("Sam3Tracker", vision, patch_size=8)


def make_sam3_of_words():
    """Segment Anything 3 with words, all of which detect objects and read the image's tokens."""
    config = make_sam3().config.vision_config
    tokens = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    layers = {**tokens, "num_layers": 2, "dropout": 0.0}
    words = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 8}
    return transformers.Sam3Model(
        transformers.Sam3Config(
            vision_config=config,
            text_config={**tokens, **words, "projection_dim": 16, "num_hidden_layers": 2},
            geometry_encoder_config={**layers, "roi_size": 3},
            detr_encoder_config=layers,
            detr_decoder_config={**layers, "num_queries": 5},
            mask_decoder_config={"hidden_size": 16, "num_upsampling_stages": 2, "num_attention_heads": 2},
        )
    )


def make_depth_anything():
    encoder = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False}
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(**encoder, **stages, mlp_ratio=2),
        **{"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "reassemble_hidden_size": 24, "head_hidden_size": 8},
        patch_size=16,
    )
    return transformers.DepthAnythingForDepthEstimation(config)


def make_dpt():
    encoder = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 48}
    sizes = {"image_size": 64, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3]}
    config = transformers.DPTConfig(**encoder, **sizes, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8)
    return transformers.DPTForDepthEstimation(config)


class Mixings(TorchFunctionMode):
    """Within the block, keeps the values of each attention, however it is computed, and what it gives."""

    def __init__(self):
        super().__init__()
        self.kept, self.weights = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        if func is nn.functional.scaled_dot_product_attention:
            self.kept.append((args[2], result))
        elif name == "grid_sample":
            self.kept.append((args[0], result))
        elif name == "softmax":
            self.weights.append(result)
        elif name in ("matmul", "einsum", "__matmul__"):
            operands = args[1] if name == "einsum" else args
            if any(operands[0] is weights for weights in self.weights):
                self.kept.append((operands[1], result))
        return result


def assert_value_times_gradient(model, score, image, grids):
    """Compare with the values of all attention over the image's grids times their gradient, on the finest grid."""
    prefix = {side * side + extra: (side, extra) for side, extra in grids}
    with Mixings() as mixings:
        scored = score(image.clone().requires_grad_())
    values = [value for value, _ in mixings.kept if value.shape[-2] in prefix]
    gradients = torch.autograd.grad(scored.sum(), values, allow_unused=True)
    finest, expected = max(grids)[0], 0
    for value, gradient in zip(values, gradients, strict=True):
        if gradient is not None:
            side, extra = prefix[value.shape[-2]]
            places = (value * gradient).sum((1, 3))[:, extra:].view(-1, side, side)
            times = finest // side
            expected = expected + places.repeat_interleave(times, 1).repeat_interleave(times, 2) / times**2
    relevance = AttentionEvidence(model, forward_func=score).relevance(image)
    assert expected.abs().sum() > 0
    assert_close(relevance / relevance.abs().sum(), (expected / expected.abs().sum()).detach())


@pytest.mark.parametrize("output", ["pred_masks", "iou_scores"])
@pytest.mark.parametrize(
    ("make", "name", "sides"),
    [
        (make_sam, "SamModel", [8]),
        (make_sam2, "Sam2Model", [16, 8, 4, 2]),
        (make_sam3, "Sam3TrackerModel", [8]),
    ],
)
def test_segment_anything(make, name, sides, output):
    """Value times gradient of a mask's mean, of the encoder's layers and of the decoder's that read the image."""
    if not hasattr(transformers, name):
        pytest.skip("this transformers has no such model")
    torch.manual_seed(0)
    model, image = make().eval().double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    points = torch.tensor([[[[20.0, 30.0]]]], dtype=torch.float64)

    def score(pixels):
        return getattr(model(pixel_values=pixels, input_points=points), output)[:, 0, :1].flatten(1).mean(1)

    assert_value_times_gradient(model, score, image, [(side, 0) for side in sides])


@pytest.mark.parametrize("output", ["pred_masks", "pred_logits", "presence_logits"])
def test_segment_anything_by_words(output):
    """As above, of the first query's mask, its score, and the score that the image has such an object at all."""
    if not hasattr(transformers, "Sam3Model"):
        pytest.skip("this transformers has no such model")
    torch.manual_seed(0)
    model, image = make_sam3_of_words().eval().double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    words = {"input_ids": torch.tensor([[1, 5, 6, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}

    def score(pixels):
        return getattr(model(pixel_values=pixels, **words), output)[:, :1].flatten(1).mean(1)

    assert_value_times_gradient(model, score, image, [(8, 0)])


@pytest.mark.parametrize("output", ["masks_queries_logits", "class_queries_logits"])
@pytest.mark.parametrize("name", ["Eomt", "EomtDinov3"])
def test_segmenters_whose_queries_join_the_patches(name, output, monkeypatch):
    """Value times gradient of a query's mask or classes, of layers without queries and with them before all tokens."""
    if not hasattr(transformers, f"{name}ForUniversalSegmentation"):
        pytest.skip("this transformers has no such model")
    kind = getattr(transformers, f"{name}ForUniversalSegmentation")
    monkeypatch.setattr(f"{kind.__module__}.requires_backends", lambda *names: None)  # the loss alone needs scipy
    sizes = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    queries = {"num_queries": 5, "num_blocks": 2, "num_upscale_blocks": 1, "num_register_tokens": 2}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**sizes, **queries, intermediate_size=48, num_labels=3)
    model, image = kind(config).eval().double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)

    def score(pixels):
        return getattr(model(pixels), output)[:, 2].flatten(1)[:, :10].mean(1)

    assert_value_times_gradient(model, score, image, [(4, 3), (4, 8)])


@pytest.mark.parametrize("make", [make_depth_anything, make_dpt])
def test_mean_depth_under_a_mask(make):
    """Value times gradient in each layer."""
    torch.manual_seed(0)
    model, image = make().eval().double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)

    def score(pixels):
        depth = model(pixels).predicted_depth
        mask = torch.zeros(depth.shape[-2:], dtype=torch.bool)
        mask[: len(mask) // 2] = True
        return depth[:, mask].mean(1)

    assert_value_times_gradient(model, score, image, [(4, 1)])
