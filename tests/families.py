"""Model families, small and random, with the tokens that their classifiers read. A new family is one more row."""

from functools import cache

import pytest
import torch
import transformers
from moulds import Mould
from torch import nn

from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits

TINY = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 48, "num_labels": 10}
TINY_IMAGE = {**TINY, "image_size": 32, "patch_size": 8}
IMAGE = (32, 32)


class OwnHead(nn.Module):
    """A bare backbone below a head of the user's own, on the pooled token or on a function of all tokens."""

    def __init__(self, backbone, read=lambda tokens: tokens[:, 0]):
        super().__init__()
        self.backbone, self.read, self.head = backbone, read, nn.Linear(24, 10)

    def forward(self, pixel_values):
        return self.head(self.read(self.backbone(pixel_values).last_hidden_state))


class Block(nn.Module):
    """A transformer layer as timm writes it."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, tokens):
        query, key, value = self.qkv(self.norm(tokens)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return tokens + self.proj(attended.transpose(1, 2).flatten(2))


class TimmLike(nn.Module):
    """What timm's vision transformers have: prefix tokens by name, ``global_pool``, ``blocks``."""

    def __init__(self, global_pool, prefix, **attributes):
        super().__init__()
        self.global_pool, self.num_prefix_tokens, self.pool_include_prefix = global_pool, 0, False
        self.patch_embed, self.blocks = nn.Conv2d(3, 24, 8, 8), nn.Sequential(*(Block() for _ in range(3)))
        self.cls_token = self.reg_token = self.dist_token = None
        for name, count in prefix.items():
            setattr(self, name, nn.Parameter(torch.randn(1, count, 24)))
            self.num_prefix_tokens += count
        for name, value in attributes.items():
            setattr(self, name, value)
        self.head = nn.Linear(24, 10)

    def pool(self, tokens):
        if self.global_pool == "token":
            return tokens[:, 0]
        if not self.pool_include_prefix:
            tokens = tokens[:, self.num_prefix_tokens :]
        if self.global_pool == "map":
            return (tokens.softmax(1) * tokens).sum(1)
        mean, maximum = tokens.mean(1), tokens.amax(1)
        return {"avg": mean, "max": maximum, "avgmax": (mean + maximum) / 2}[self.global_pool]

    def forward(self, pixel_values):
        prefix = [self.cls_token, self.dist_token, self.reg_token]
        tokens = [p.expand(len(pixel_values), -1, -1) for p in prefix if p is not None]
        tokens = self.blocks(torch.cat([*tokens, self.patch_embed(pixel_values).flatten(2).mT], 1))
        if hasattr(self, "head_dist"):
            return (self.head(tokens[:, 0]) + self.head_dist(tokens[:, 1])) / 2
        return self.head(self.pool(tokens))


class EvaLike(TimmLike):
    """Its attention pooling reads all tokens, and nothing says so."""

    def __init__(self, *args):
        super().__init__(*args)
        del self.pool_include_prefix

    def pool(self, tokens):
        return (tokens.softmax(1) * tokens).sum(1)


class Wrapped(nn.Module):
    """As TimmWrapperForImageClassification holds its model."""

    def __init__(self, timm_model):
        super().__init__()
        self.timm_model, self.config = timm_model, transformers.PretrainedConfig()

    def forward(self, pixel_values):
        return self.timm_model(pixel_values)


class TorchEncoder(nn.Module):
    """A model of torch's own layers, which use nn.MultiheadAttention; its head reads a function of all tokens."""

    def __init__(self, layers=3, prefix=0, read=lambda tokens: tokens.mean(1), batch_first=True, **options):
        super().__init__()
        self.patch_embed, self.head = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 10)
        if prefix:
            self.cls_token = nn.Parameter(torch.randn(1, prefix, 24))
        layer = nn.TransformerEncoderLayer(24, 3, 48, 0.0, batch_first=batch_first, **options)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.prefix, self.read, self.batch_first = prefix, read, batch_first

    def forward(self, pixel_values):
        tokens = self.patch_embed(pixel_values).flatten(2).mT
        if self.prefix:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        encoded = self.encoder(tokens if self.batch_first else tokens.transpose(0, 1))
        return self.head(self.read(encoded if self.batch_first else encoded.transpose(0, 1)))


def hugging_face(name, **changes):
    family = name.removesuffix("WithTeacher").removesuffix("ForImageClassification").removesuffix("Model")
    config = getattr(transformers, f"{family}Config")(**{**TINY_IMAGE, **changes})
    return getattr(transformers, name)(config)


def with_text(name, **changes):
    family = name.removesuffix("ForImageClassification").removesuffix("Model")
    config = getattr(transformers, f"{family}Config")(text_config=TINY, vision_config=TINY_IMAGE, **changes)
    return getattr(transformers, name)(config)


def image_embedding(model):
    def forward(pixel_values):
        embedding = model.get_image_features(pixel_values)
        return getattr(embedding, "pooler_output", embedding)  # in transformers 5 and 4

    return forward


def timm(name, **changes):
    """timm's own model of this name, as narrow and shallow as the others."""
    small = {"img_size": 32, "patch_size": 8, "num_classes": 10, "depth": 3, "embed_dim": 48, "num_heads": 3}
    return pytest.importorskip("timm").create_model(name, **{**small, **changes})


def _timm_block(name):
    return getattr(pytest.importorskip("timm").models.vision_transformer, name)


# name: (make the model, the tokens that its classifier reads)
CLS, PATCHES, BOTH, DISTILLED, ALL = {"cls"}, {"patches"}, {"cls", "patches"}, {"cls", "distillation"}, {"all"}
TIMM_CLS = {"cls_token": 1}
FAMILIES = {
    "ViT": (lambda: hugging_face("ViTForImageClassification"), CLS),
    "ViT, patches not square": (lambda: hugging_face("ViTForImageClassification", patch_size=(8, 16)), CLS),
    "ViT, patches of 14": (lambda: hugging_face("ViTForImageClassification", patch_size=14), CLS),
    "ViT, patches of 16": (lambda: hugging_face("ViTForImageClassification", patch_size=16), CLS),
    "ViT, patches of 32": (lambda: hugging_face("ViTForImageClassification", patch_size=32), CLS),
    "DeiT": (lambda: hugging_face("DeiTForImageClassification"), CLS),
    "DeiT with teacher": (lambda: hugging_face("DeiTForImageClassificationWithTeacher"), DISTILLED),
    "DINOv2": (lambda: hugging_face("Dinov2ForImageClassification"), BOTH),
    "DINOv2 with registers": (
        lambda: hugging_face("Dinov2WithRegistersForImageClassification", num_register_tokens=4),
        BOTH,
    ),
    "BEiT": (lambda: hugging_face("BeitForImageClassification", use_relative_position_bias=True), PATCHES),
    "BEiT, CLS": (lambda: hugging_face("BeitForImageClassification", use_mean_pooling=False), CLS),
    "Data2Vec": (lambda: hugging_face("Data2VecVisionForImageClassification"), PATCHES),
    "Data2Vec, CLS": (lambda: hugging_face("Data2VecVisionForImageClassification", use_mean_pooling=False), CLS),
    "ViT-MSN": (lambda: hugging_face("ViTMSNForImageClassification"), CLS),
    "I-JEPA": (lambda: hugging_face("IJepaForImageClassification"), PATCHES),
    "SigLIP": (lambda: with_text("SiglipForImageClassification", num_labels=10), PATCHES),
    "CLIP": (lambda: with_text("CLIPForImageClassification", num_labels=10), PATCHES),
    "MetaCLIP 2": (lambda: with_text("MetaClip2ForImageClassification", num_labels=10), PATCHES),
    "CLIP, image embedding": (lambda: with_text("CLIPModel"), CLS),
    "SigLIP, image embedding": (lambda: with_text("SiglipModel"), PATCHES),
    "ViT, own head": (lambda: OwnHead(hugging_face("ViTModel")), CLS),
    "DINOv2, own head": (lambda: OwnHead(hugging_face("Dinov2Model")), CLS),
    "DINOv3, own head": (lambda: OwnHead(hugging_face("DINOv3ViTModel", num_register_tokens=4)), CLS),
    "subclass": (
        lambda: type("Mine", (transformers.Dinov2ForImageClassification,), {})(transformers.Dinov2Config(**TINY_IMAGE)),
        BOTH,
    ),
    "timm-like, token": (lambda: TimmLike("token", TIMM_CLS), CLS),
    "timm-like, avg": (lambda: TimmLike("avg", TIMM_CLS), PATCHES),
    "timm-like, avgmax": (lambda: TimmLike("avgmax", TIMM_CLS), PATCHES),
    "timm-like, registers only": (lambda: TimmLike("avg", {"reg_token": 4}), PATCHES),
    "timm-like, all": (lambda: TimmLike("avg", TIMM_CLS, pool_include_prefix=True), ALL),
    "timm-like, map": (lambda: TimmLike("map", TIMM_CLS), PATCHES),
    "timm-like, map of all": (lambda: EvaLike("map", TIMM_CLS), ALL),
    "timm-like, distilled": (
        lambda: TimmLike("token", {"cls_token": 1, "dist_token": 1}, head_dist=nn.Linear(24, 10)),
        DISTILLED,
    ),
    "timm-like, wrapped": (lambda: Wrapped(TimmLike("avg", {"cls_token": 1, "reg_token": 2})), PATCHES),
    "timm ViT": (lambda: timm("vit_tiny_patch16_224"), CLS),
    "timm ViT, avg": (lambda: timm("vit_tiny_patch16_224", global_pool="avg"), PATCHES),
    "timm ViT, registers": (lambda: timm("vit_small_patch14_reg4_dinov2"), CLS),
    "timm ViT, rope": (lambda: timm("vit_small_patch16_rope_224"), CLS),
    "timm DeiT": (lambda: timm("deit_tiny_patch16_224"), CLS),
    "timm DeiT, distilled": (lambda: timm("deit_tiny_distilled_patch16_224"), DISTILLED),
    "timm SigLIP": (lambda: timm("vit_base_patch16_siglip_224"), PATCHES),
    "timm SigLIP, avg": (lambda: timm("vit_base_patch16_siglip_gap_224"), PATCHES),
    "timm BEiT": (lambda: timm("beit_base_patch16_224"), PATCHES),
    "timm BEiT, one bias": (
        lambda: timm("beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
        PATCHES,
    ),
    "timm EVA": (lambda: timm("eva02_tiny_patch14_224"), PATCHES),
    "timm EVA, map": (lambda: timm("vit_pe_core_tiny_patch16_384", embed_dim=96), ALL),
    "timm DINOv2": (lambda: timm("vit_small_patch14_dinov2"), CLS),
    "timm DINOv3": (lambda: timm("vit_small_patch16_dinov3"), PATCHES),
    "timm DINOv3, gated": (lambda: timm("vit_small_plus_patch16_dinov3"), PATCHES),
    "timm relpos": (lambda: timm("vit_relpos_small_patch16_224"), PATCHES),
    "timm, layers in parallel": (
        lambda: timm("vit_tiny_patch16_224", block_fn=_timm_block("ParallelScalingBlock")),
        CLS,
    ),
}


@cache
def mould(family):
    def make():
        torch.manual_seed(0)
        model = FAMILIES[family][0]().eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)  # heads, position biases and prefix tokens start at zero
        return model

    return Mould(make)


def make(family):
    """A new model, and what runs it."""
    model = mould(family).cast()
    return model, image_embedding(model) if "embedding" in family else Logits(model)


def expected_start(reads, tokens, patches):
    if reads == ALL:
        return torch.full((tokens,), 1 / tokens, dtype=torch.float64)
    places = {"cls": slice(1), "distillation": slice(1, 2), "patches": slice(-patches, None)}
    start = torch.zeros(tokens, dtype=torch.float64)
    for part in reads:
        start[places[part]] = 1 / len(start[places[part]]) / len(reads)
    return start


def tokens_after_the_last_layer(model, forward, images):
    """The tokens (N, T, hidden) as the last layer returns them, and the logits made of them."""
    kept = []
    last = transformer_layers(model)[-1]
    handle = last.register_forward_hook(lambda *args: kept.append(args[-1]))
    logits = forward(images)
    handle.remove()
    output = kept[-1]  # a tuple in transformers 4
    return output if isinstance(output, torch.Tensor) else output[0], logits


def naming(names):
    """A model with 4 patches in an 8x8 image and parameters of these names and shapes."""
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Module())
    for name, shape in names.items():
        setattr(model[1], name, nn.Parameter(torch.zeros(shape)))
    return model
