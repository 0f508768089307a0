"""Families of models whose attention is not over one patch grid of an image, small and random. One more is a row.

Each says where the values of its attention lie, written down from the papers: windows cut out by hand, keys that stand
for a block of tokens, tokens of a video in time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

LABELS = 5
Place = tuple[tuple[int, ...], Tensor]  # a grid's shape, and the places of the tokens of an example's sequences


class FieldFamily(NamedTuple):
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one input
    places: list[Place]  # of each softmax, in the order of the calls; tokens of no place are -1
    stages: Callable[[nn.Module], Sequence[Sequence[nn.Module]]] = lambda model: []  # then the gradient is the model's
    passes: Callable[[nn.Module, Tensor], Tensor] = lambda layer, tokens: tokens  # what passes a layer by
    arguments: tuple[Any, ...] = ()
    target: Any = 2
    has_queries: bool = True  # or each softmax weighs its tokens once, for all that read their sum


def in_order(shape, before=0, behind=0):
    """One sequence: tokens of no place, the places row by row, and tokens of no place."""
    count = int(torch.tensor(shape).prod())
    return shape, torch.tensor([[-1] * before + list(range(count)) + [-1] * behind])


def windows(rows, columns, size, shift):
    """Swin's: the grid is padded at the bottom and right, rolled up and left, and cut into windows."""
    high, wide = (-(-number // size) * size for number in (rows, columns))
    sequences = []
    for top in range(0, high, size):
        for left in range(0, wide, size):
            window = []
            for row in range(top, top + size):
                for column in range(left, left + size):
                    y, x = (row + shift) % high, (column + shift) % wide
                    window.append(y * columns + x if y < rows and x < columns else -1)
            sequences.append(window)
    return (rows, columns), torch.tensor(sequences)


def unfolded(rows, columns, patch=2):
    """MobileViT's: of each patch the first pixels attend to one another, and the second ones, and so on."""
    sequences = [
        [(top + y) * columns + left + x for top in range(0, rows, patch) for left in range(0, columns, patch)]
        for y in range(patch)
        for x in range(patch)
    ]
    return (rows, columns), torch.tensor(sequences)


def mask_units(side, pools, units):
    """Hiera's: the grid is halved so many times, offsets before places; then every so many-th token is of one unit."""
    order = torch.arange(side * side).view(side, side)
    for _ in range(pools):
        order = torch.stack([order[..., y::2, x::2] for y in (0, 1) for x in (0, 1)], -3)
    return (side, side), order.reshape(-1, units).mT


class OfEmbeddings(nn.Module):
    """Of a model that reads words, what it makes of their embeddings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, embeddings, sizes):
        return self.model(inputs_embeds=embeddings)


TOKENS = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
PYRAMID = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
MOBILE = {"image_size": 64, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 16]}
LATENTS = {  # as many as there are places once the grid is halved
    **{"num_latents": 16, "d_latents": 12, "num_self_attends_per_block": 2, "image_size": 8},
    **{"num_self_attention_heads": 2, "num_cross_attention_heads": 1},
}
DENSE = {**TOKENS, "num_hidden_layers": 4, "image_size": 16, "patch_size": 8, "use_auxiliary_head": False}
FRAMES = {**TOKENS, "image_size": 24, "num_frames": 4}  # a video of 4 frames of 24x24 pixels
TIME, SIDE = 4, 3  # of the places of its patches of 8x8 pixels


def small(name, **config):
    """Return the model of transformers of this name, with a configuration and random weights."""
    kind = getattr(transformers, name)
    return kind(kind.config_class(**{"num_labels": LABELS, **config}))


def classifier(name, **config):
    return partial(small, f"{name}ForImageClassification", **config)


def segmenter(name, **config):
    return partial(small, f"{name}ForSemanticSegmentation", **config)


def swin(name, **changes):
    config = {"patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}
    return small(f"{name}ForImageClassification", **{**config, "image_size": 20, **changes})


def detr(name, backbone, **changes):
    ours = {"layers": 2, "attention_heads": 2, "ffn_dim": 16}
    sizes = {f"{part}_{what}": number for part in ("encoder", "decoder") for what, number in ours.items()}
    # Deformable DETR normalises 32 groups of channels.
    sizes |= {"num_queries": 6, "d_model": 32, "backbone": None, "backbone_config": backbone}
    flags = {"use_timm_backbone": False, "use_pretrained_backbone": False}
    return small(f"{name}ForObjectDetection", **sizes, **flags, **changes)


def resnet(*outputs):
    sizes = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4, "layer_type": "basic"}
    return transformers.ResNetConfig(**sizes, out_features=list(outputs))


def perceiver(kind, channels):
    return small(f"PerceiverForImageClassification{kind}", d_model=channels, **LATENTS)


def swin_places():
    """Of 20x28 pixels: 10x14 patches, and 5x7 after merging."""
    return [windows(10, 14, 4, 0), windows(10, 14, 4, 2), windows(5, 7, 4, 0)]


def pyramid_places(last):
    """Of 64x64 pixels: whatever the stage, its keys stand for blocks of 32x32 pixels."""
    return [in_order((2, 2))] * 4 + [last]


def segformer_stages(model):
    base = model.segformer  # in transformers 5, and 4
    return [stage.blocks for stage in base.stages] if hasattr(base, "stages") else base.encoder.block


def hiera_passes(layer, tokens):
    """What a layer adds to: of layers that pool, the largest of four tokens, projected."""
    if layer.hidden_size == layer.hidden_size_output:
        return tokens
    return layer.proj(layer.layernorm_before(tokens)).unflatten(1, (layer.query_stride, -1)).amax(1)


def mobile_stages(model):
    return [layer.transformer.layer for layer in _base(model).encoder.layer if hasattr(layer, "transformer")]


def of_each_place():
    """In time: a sequence at each place."""
    return (TIME, SIDE, SIDE), torch.arange(TIME * SIDE**2).view(TIME, -1).mT


def of_each_frame(before=0):
    """In space: a sequence of each frame."""
    frames = torch.arange(TIME * SIDE**2).view(TIME, -1)
    return (TIME, SIDE, SIDE), torch.cat([torch.full((TIME, before), -1), frames], 1)


def places_before_time():
    """All at once, in the order of TimeSformer: the frames of a place after one another, behind a class token."""
    order = torch.arange(TIME * SIDE**2).view(TIME, -1).mT.reshape(1, -1)
    return (TIME, SIDE, SIDE), torch.cat([torch.tensor([[-1]]), order], 1)


class Backbone(nn.Module):
    """A detector's, with a neck that adds its maps up, of which a number is explained."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.neck = backbone, nn.Identity()

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.neck(sum(self.backbone(pixel_values).feature_maps)))


def rf_detr_backbone():
    sizes = {"image_size": 32, "patch_size": 8, "num_windows": 2, "window_block_indexes": [0]}
    config = transformers.RfDetrDinov2Config(**TOKENS, **sizes, out_features=["stage1", "stage2"])
    return Backbone(transformers.AutoBackbone.from_config(config))


def rf_detr_windows():
    """Of 4x4 patches in 2x2 windows, before each of which the class token is repeated."""
    starts = [(top, left) for top in (0, 2) for left in (0, 2)]
    windows = [[-1, *(4 * (top + y) + left + x for y in (0, 1) for x in (0, 1))] for top, left in starts]
    return torch.tensor(windows)


def list_of(model, count, within=""):
    """The layers, which stand elsewhere in transformers 4."""
    lists = [m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and within in name]
    return next(modules for modules in lists if len(modules) == count)


def _base(model):
    return getattr(model, model.base_model_prefix)


def _encoder(model):
    return [_base(model).encoder.layer]


IMAGE, LARGE, FILM = (3, 16, 16), (3, 64, 64), (4, 3, 24, 24)  # shapes of inputs
OF_MOBILE = [*[unfolded(8, 8)] * 2, *[unfolded(4, 4)] * 4, *[unfolded(2, 2)] * 3]
OF_YOLOS = [in_order((2, 3), before=1, behind=6)] * 2
OF_FOUR_LAYERS = [in_order((2, 2), before=1)] * 4
YOLOS = {**TOKENS, "image_size": [16, 24], "patch_size": 8, "num_detection_tokens": 6}
FIELD_FAMILIES = {
    **{
        name: FieldFamily(
            partial(swin, name),
            (3, 20, 28),
            swin_places(),
            lambda model: [stage.blocks for stage in _base(model).encoder.layers],
        )
        for name in ("Swin", "Swinv2", "DonutSwin")
    },
    "PVT": FieldFamily(  # its class token joins in the last stage
        classifier("Pvt", **PYRAMID, mlp_ratios=[2] * 4, image_size=64),
        LARGE,
        pyramid_places(in_order((2, 2), before=1)),
    ),
    "PVTv2": FieldFamily(
        classifier("PvtV2", **PYRAMID, mlp_ratios=[2] * 4, image_size=64),
        LARGE,
        pyramid_places(in_order((2, 2))),
        lambda model: [layer.blocks for layer in model.pvt_v2.encoder.layers],
    ),
    "SegFormer": FieldFamily(
        classifier("Segformer", **PYRAMID, mlp_ratios=[2] * 4),
        LARGE,
        pyramid_places(in_order((2, 2))),
        segformer_stages,
    ),
    "CvT": FieldFamily(  # as PVT's
        classifier("Cvt", embed_dim=[8, 8, 16], num_heads=[1, 2, 2], depth=[1, 2, 3]),
        LARGE,
        [in_order((8, 8)), *[in_order((4, 4))] * 2, *[in_order((2, 2), before=1)] * 3],
    ),
    "LeViT": FieldFamily(
        classifier(
            **{"name": "Levit", "image_size": 64, "hidden_sizes": [8, 16, 24], "num_attention_heads": [1, 2, 2]},
            **{"depths": [1, 1, 1], "key_dim": [4] * 3},
        ),
        LARGE,
        [*[in_order((4, 4))] * 2, *[in_order((2, 2))] * 2, in_order((1, 1))],
    ),
    "MobileViT": FieldFamily(classifier("MobileViT", **MOBILE, num_attention_heads=2), LARGE, OF_MOBILE, mobile_stages),
    "MobileViTV2": FieldFamily(
        classifier("MobileViTV2", image_size=64, width_multiplier=0.125, n_attn_blocks=[1, 2, 1]),
        LARGE,
        [unfolded(8, 8), *[unfolded(4, 4)] * 2, unfolded(2, 2)],
        mobile_stages,
        has_queries=False,
    ),
    "SwiftFormer": FieldFamily(  # convolutions come between its attention
        classifier("SwiftFormer", depths=[2, 1, 1, 1], embed_dims=[8, 8, 16, 16]),
        LARGE,
        [in_order((side, side)) for side in (16, 8, 4, 2)],
        has_queries=False,
    ),
    # Perceiver's latent tokens stand for no places.
    "Perceiver": FieldFamily(partial(perceiver, "Learned", 512), (3, 8, 8), [in_order((8, 8)), None, None, None]),
    "Perceiver, of pixels": FieldFamily(
        partial(perceiver, "Fourier", 261), (3, 8, 8), [in_order((8, 8)), None, None, None]
    ),
    "ImageGPT, of its colours' embeddings": FieldFamily(
        lambda: OfEmbeddings(classifier("ImageGPT", n_embd=12, n_layer=2, n_head=2, n_positions=6, vocab_size=7)()),
        (6, 12),
        [in_order((2, 3))] * 2,
        lambda model: [model.model.transformer.h],
        arguments=(torch.tensor([[2, 3]] * 2),),
    ),
    "Hiera": FieldFamily(
        classifier(
            **{"name": "Hiera", "image_size": [64, 64], "embed_dim": 8, "depths": [1, 2, 1, 1]},
            **{"num_heads": [1, 2, 2, 2], "mlp_ratio": 2.0},
        ),
        LARGE,
        [*[mask_units(16, 3, 4)] * 2, *[mask_units(8, 2, 4)] * 2, mask_units(4, 1, 1)],
        lambda model: [stage.layers for stage in model.hiera.encoder.stages],
        hiera_passes,
    ),
    "VideoMAE": FieldFamily(
        partial(small, "VideoMAEForVideoClassification", **FRAMES, patch_size=8, tubelet_size=2),
        FILM,
        [in_order((2, 3, 3))] * 2,
        _encoder,
    ),
    "ViViT": FieldFamily(
        partial(small, "VivitForVideoClassification", **FRAMES, tubelet_size=[2, 8, 8]),
        FILM,
        [in_order((2, 3, 3), before=1)] * 2,
        lambda model: [list_of(_base(model), 2)],
    ),
    "TimeSformer": FieldFamily(
        partial(small, "TimesformerForVideoClassification", **FRAMES, patch_size=8),
        FILM,
        [of_each_place(), of_each_frame(before=1)] * 2,
        _encoder,
    ),
    "TimeSformer, jointly": FieldFamily(
        partial(small, "TimesformerForVideoClassification", **FRAMES, patch_size=8, attention_type="joint_space_time"),
        FILM,
        [places_before_time()] * 2,
        _encoder,
    ),
    "V-JEPA 2": FieldFamily(
        partial(
            small,
            "VJEPA2ForVideoClassification",
            **{"crop_size": 24, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2, "num_pooler_layers": 1},
            **{"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1, **TOKENS},
        ),
        FILM,
        [in_order((2, 3, 3))] * 2,
        _encoder,
    ),
    "AST": FieldFamily(
        partial(
            small,
            "ASTForAudioClassification",
            **{"patch_size": 4, "frequency_stride": 3, "time_stride": 3, "max_length": 22, "num_mel_bins": 10},
            **TOKENS,
        ),
        (22, 10),
        [in_order((3, 7), before=2)] * 2,
        lambda model: [list_of(_base(model), 2)],
    ),
    "YOLOS": FieldFamily(
        partial(small, "YolosForObjectDetection", **YOLOS, use_mid_position_embeddings=False),
        (3, 16, 24),
        OF_YOLOS,
        lambda model: [list_of(_base(model), 2)],
        target=(3, 1),
    ),
    "YOLOS, positions between its layers": FieldFamily(
        partial(small, "YolosForObjectDetection", **YOLOS, use_mid_position_embeddings=True),
        (3, 16, 24),
        OF_YOLOS,
        target=(3, 1),
    ),
    "DETR": FieldFamily(  # as many queries as places, which are told apart
        lambda: detr("Detr", resnet("stage4")),
        (3, 64, 96),
        [*[in_order((2, 3))] * 2, *[None, in_order((2, 3))] * 2],
        target=(3, 1),
    ),
    "Deformable DETR": FieldFamily(  # it attends without a softmax over places
        lambda: detr("DeformableDetr", resnet("stage2", "stage3", "stage4"), num_feature_levels=4),
        (3, 64, 96),
        [],
        target=(3, 1),
    ),
    "RF-DETR, its backbone": FieldFamily(
        rf_detr_backbone,
        (3, 32, 32),
        [((4, 4), rf_detr_windows()), ((4, 4), rf_detr_windows().view(1, -1))],
        target=(1, 2, 3),
    ),
    "SegFormer, segments": FieldFamily(
        segmenter("Segformer", **PYRAMID, mlp_ratios=[2] * 4, decoder_hidden_size=8),
        LARGE,
        pyramid_places(in_order((2, 2))),
        target=(1, 5, 9),
    ),
    "MobileViT, segments": FieldFamily(
        segmenter("MobileViT", **MOBILE, num_attention_heads=2, aspp_out_channels=8, output_stride=32),
        LARGE,
        OF_MOBILE,
        target=(1, 0, 1),
    ),
    "BEiT, segments": FieldFamily(
        segmenter("Beit", **DENSE, out_indices=[1, 2, 3, 4], pool_scales=[1]), IMAGE, OF_FOUR_LAYERS, target=(1, 0, 1)
    ),
    "DPT, segments": FieldFamily(
        segmenter(
            **{"name": "DPT", "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4},
            **{"fusion_hidden_size": 8, "is_hybrid": False, **DENSE},
        ),
        IMAGE,
        OF_FOUR_LAYERS,
        target=(1, 0, 1),
    ),
}
if hasattr(transformers, "VideoPrismForVideoClassification"):  # in transformers 5
    FIELD_FAMILIES["VideoPrism"] = FieldFamily(
        lambda: transformers.VideoPrismForVideoClassification(
            transformers.VideoPrismVisionConfig(
                **{**FRAMES, "num_labels": LABELS, "tubelet_size": [1, 8, 8]},
                **{"num_spatial_layers": 2, "num_temporal_layers": 1, "num_auxiliary_layers": 1},
            )
        ),
        FILM,
        [*[of_each_frame()] * 2, of_each_place()],
        lambda model: [list_of(model, 2, "spatial"), list_of(model, 1, "temporal")],
        target=(0, 2),
    )
if hasattr(transformers, "Siglip2ForImageClassification"):
    FIELD_FAMILIES["SigLIP 2, packed patches"] = FieldFamily(
        classifier(
            "Siglip2",
            vision_config={"num_patches": 16, "patch_size": 2, **TOKENS},
            text_config={"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **TOKENS},
        ),
        (8, 12),
        [in_order((2, 3), behind=2)] * 2,
        lambda model: [model.vision_model.encoder.layers],
        arguments=(torch.tensor([[1] * 6 + [0] * 2] * 2), torch.tensor([[2, 3]] * 2)),
    )
