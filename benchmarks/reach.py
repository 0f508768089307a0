"""Which of transformers' models attention evidence explains: every class of its mappings, small and random.

    python -m benchmarks.reach [--docs docs/other-models.md]

tries each with a configuration that fits it, and prints a table; ``--docs`` writes it between the page's marks. A model
is explained if its relevance is finite and not zero, not tried where NOT_HERE says why, and failed
otherwise, also where this file has no configuration for it.
"""

import argparse
import importlib
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from captum_gmar import AttentionEvidence
from captum_gmar.files.markdown import table

LABELS = 5
TINY = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 32}
IMAGE = {**TINY, "image_size": 32, "patch_size": 8}
CLIP = {**TINY, "image_size": 24, "num_frames": 4}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
TEXT = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **TINY}
TOWERS = {"vision_config": IMAGE, "text_config": TEXT}
MOBILE = {
    "image_size": 64,
    "hidden_sizes": [8, 12, 16],
    "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 16],
    "num_attention_heads": 2,
}
QUERIES = {
    **{"d_model": 32, "num_queries": 7, "encoder_layers": 1, "decoder_layers": 2, "use_timm_backbone": False},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
    **{"backbone": None},
}
LATENTS = {
    **{"num_latents": 6, "d_latents": 16, "image_size": 32, "num_self_attends_per_block": 2},
    **{"num_self_attention_heads": 2, "num_cross_attention_heads": 1},
}
READERS = {"out_indices": [1, 2, 3, 4], "pool_scales": [1, 2], "use_auxiliary_head": False}
REAL_TIME = {
    **{"encoder_hidden_dim": 32, "encoder_in_channels": [8, 8, 16], "feat_strides": [8, 16, 32], "encoder_layers": 1},
    **{"encoder_attention_heads": 2, "encoder_ffn_dim": 16, "d_model": 32, "num_queries": 7, "decoder_layers": 2},
    **{"decoder_in_channels": [32] * 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "num_denoising": 0},
    **{"freeze_backbone_batch_norms": False},
}


class Trial(NamedTuple):
    """How a class is tried."""

    config: Callable[[], dict[str, Any]]
    shape: tuple[int, ...] = (3, 32, 32)
    target: Any = 1
    arguments: tuple[Any, ...] = ()
    forward: Callable[..., Any] = lambda model, *inputs: model(*inputs)


def _resnet(*outputs: str) -> Any:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "layer_type": "basic"}
    return transformers.ResNetConfig(**sizes, out_features=list(outputs))


def _real_time(kind: str = "RTDetrResNetConfig") -> dict[str, Any]:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "layer_type": "basic"}
    backbone = getattr(transformers, kind)(**sizes, out_features=["stage2", "stage3", "stage4"])
    return {**REAL_TIME, "backbone_config": backbone}


def _windowed(name: str, **changes: Any) -> dict[str, Any]:
    """Of a detector whose backbone is a ViT that attends in windows."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 64}
    backbone = getattr(transformers, name)(**sizes, num_windows=4, out_features=["stage1", "stage2"], **changes)
    queries = {"d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 16, "num_queries": 7, "group_detr": 1}
    heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2}
    return {**queries, **heads, "backbone_config": backbone, "decoder_n_points": 2}


def _lw_detr() -> dict[str, Any]:
    sizes = _windowed("LwDetrViTConfig", patch_size=8, window_block_indices=[0])
    return {**sizes, "projector_scale_factors": [1.0], "projector_out_channels": 32}


def _rf_detr() -> dict[str, Any]:
    return _windowed("RfDetrDinov2Config", patch_size=8)


def _deim() -> dict[str, Any]:
    backbone = transformers.HGNetV2Config(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 16],
        depths=[1] * 4,
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 8, 8],
        stage_mid_channels=[8] * 4,
        stage_out_channels=[8, 8, 8, 16],
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        out_features=["stage2", "stage3", "stage4"],
    )
    return {**REAL_TIME, "backbone_config": backbone, "freeze_backbone_batch_norms": False}


def _doc_layout() -> dict[str, Any]:
    sizes = _deim()
    sizes["backbone_config"].out_features = ["stage1", "stage2", "stage3", "stage4"]
    return {
        **sizes,
        "x4_feat_dim": 8,
        "mask_feature_channels": [8, 8],
        "num_prototypes": 4,
        "global_pointer_head_size": 8,
    }


IN_PATCHES = (torch.ones(1, 16, dtype=torch.long), torch.tensor([[4, 4]]))
DETECTION, SEGMENTATION = (3, 1), (1, 0, 1)
TRIALS: dict[str, Trial] = {
    **dict.fromkeys(
        ["vit", "vit_msn", "deit", "dinov2", "dinov2_with_registers", "ijepa", "beit", "data2vec-vision"],
        Trial(lambda: IMAGE),
    ),
    **dict.fromkeys(["clip", "metaclip_2", "siglip"], Trial(lambda: TOWERS)),
    "siglip2": Trial(
        lambda: {"vision_config": {"num_patches": 16, "patch_size": 4, **TINY}, "text_config": TEXT},
        shape=(16, 48),
        arguments=IN_PATCHES,
    ),
    **dict.fromkeys(["swin", "swinv2", "donut-swin"], Trial(lambda: WINDOWS)),
    "hiera": Trial(
        lambda: {
            "image_size": [64, 64],
            "embed_dim": 8,
            "depths": [1] * 4,
            "num_heads": [1, 2, 2, 2],
            "mlp_ratio": 2.0,
        },
        (3, 64, 64),
    ),
    "pvt": Trial(lambda: {**STAGES, "image_size": 64}, (3, 64, 64)),
    "pvt_v2": Trial(lambda: {**STAGES, "image_size": 64, "mlp_ratios": [2] * 4}, (3, 64, 64)),
    "segformer": Trial(lambda: {**STAGES, "decoder_hidden_size": 16}, (3, 64, 64)),
    "cvt": Trial(lambda: {"embed_dim": [8, 8, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}, (3, 64, 64)),
    "levit": Trial(
        lambda: {
            **{"image_size": 64, "hidden_sizes": [8, 16, 24], "num_attention_heads": [1, 2, 2], "depths": [1] * 3},
            **{"key_dim": [4] * 3},
        },
        (3, 64, 64),
    ),
    "mobilevit": Trial(lambda: MOBILE, (3, 64, 64)),
    "mobilevitv2": Trial(lambda: {"image_size": 64, "width_multiplier": 0.25}, (3, 64, 64)),
    "swiftformer": Trial(lambda: {"image_size": 64, "depths": [2] * 4, "embed_dims": [8, 8, 16, 16]}, (3, 64, 64)),
    "imagegpt": Trial(
        lambda: {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 9},
        shape=(16, 16),
        arguments=(torch.tensor([[4, 4]]),),
        forward=lambda model, embedded, sizes: model(inputs_embeds=embedded),
    ),
    **{
        f"PerceiverForImageClassification{kind}": Trial(lambda channels=channels: {**LATENTS, "d_model": channels})
        for kind, channels in {"Learned": 512, "Fourier": 261, "ConvProcessing": 322}.items()
    },
    "videomae": Trial(lambda: {**CLIP, "patch_size": 8}, (4, 3, 24, 24)),
    "vivit": Trial(lambda: {**CLIP, "tubelet_size": [2, 8, 8]}, (4, 3, 24, 24)),
    "timesformer": Trial(lambda: {**CLIP, "patch_size": 8}, (4, 3, 24, 24)),
    "vjepa2": Trial(
        lambda: {
            **TINY,
            **{"crop_size": 24, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2, "num_pooler_layers": 1},
            **{"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
        },
        (4, 3, 24, 24),
    ),
    "videoprism_vision_model": Trial(
        lambda: {
            **{name: value for name, value in CLIP.items() if name != "num_hidden_layers"},
            **{"tubelet_size": [1, 8, 8], "num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1},
        },
        (4, 3, 24, 24),
        (0, 1),
    ),
    "audio-spectrogram-transformer": Trial(
        lambda: {
            **TINY,
            **{"patch_size": 4, "frequency_stride": 3, "time_stride": 3, "max_length": 22, "num_mel_bins": 10},
        },
        (22, 10),
    ),
    "yolos": Trial(
        lambda: {**IMAGE, **{"image_size": [32, 48], "num_detection_tokens": 6, "use_mid_position_embeddings": False}},
        (3, 32, 48),
        DETECTION,
    ),
    **dict.fromkeys(
        ["detr", "conditional_detr", "table-transformer", "dab-detr"],
        Trial(lambda: {**QUERIES, "backbone_config": _resnet("stage4")}, (3, 64, 96), DETECTION),
    ),
    "deformable_detr": Trial(
        lambda: {**QUERIES, "backbone_config": _resnet("stage2", "stage3", "stage4")}, (3, 64, 96), DETECTION
    ),
    **dict.fromkeys(["rt_detr", "rt_detr_v2"], Trial(_real_time, (3, 64, 96), DETECTION)),
    "d_fine": Trial(lambda: {**_real_time(), "hidden_expansion": 0.5}, (3, 64, 96), DETECTION),
    "lw_detr": Trial(_lw_detr, (3, 64, 64), DETECTION),
    "rf_detr": Trial(_rf_detr, (3, 64, 64), DETECTION),
    "deimv2": Trial(_deim, (3, 64, 96), DETECTION),
    "pp_doclayout_v2": Trial(
        lambda: {**_deim(), "class_thresholds": [0.0] * LABELS, "class_order": list(range(LABELS))},
        (3, 64, 96),
        DETECTION,
    ),
    "pp_doclayout_v3": Trial(_doc_layout, (3, 64, 96), DETECTION),
    "pp_doclayout_v4": Trial(lambda: {**_deim(), "global_pointer_head_size": 8}, (3, 64, 96), DETECTION),
    "dpt": Trial(
        lambda: {
            **IMAGE,
            **{"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8},
            **{"is_hybrid": False, "use_auxiliary_head": False},
        },
        target=SEGMENTATION,
    ),
}
SEGMENTERS = {
    "beit": TRIALS["beit"]._replace(config=lambda: {**IMAGE, **READERS}),
    "data2vec-vision": TRIALS["beit"]._replace(config=lambda: {**IMAGE, **READERS}),
    "mobilevit": TRIALS["mobilevit"]._replace(config=lambda: {**MOBILE, "aspp_out_channels": 8}),
    "sapiens2": Trial(
        lambda: {
            **IMAGE,
            **{"num_key_value_heads_per_layer": None, "num_key_value_attention_heads": 2, "num_register_tokens": 2},
            **{"num_first_full_attention_layers": 4, "num_last_full_attention_layers": 0},
            "head_config": {"upsample_out_channels": [8], "upsample_kernel_sizes": [4], "conv_out_channels": [8]},
        }
    ),
    "tipsv2_dpt": Trial(
        lambda: {
            "backbone_config": transformers.AutoConfig.for_model(
                "tipsv2_vision_model",
                **IMAGE,
                out_features=["stage1", "stage2", "stage3", "stage4"],
                reshape_hidden_states=False,
            ),
            **{"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8},
        }
    ),
    "upernet": Trial(
        lambda: {
            "backbone_config": transformers.SwinConfig(**WINDOWS, out_features=["stage1", "stage2"]),
            **{"hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False},
        }
    ),
}
# What is not tried, and why.
NOT_HERE = {
    "shieldgemma2": "a language model that is asked about a picture",
    "timm_wrapper": "holds any model of timm, which is not installed here",
    "dinat": "its attention is a compiled function of another package (natten)",
}
TASKS = {
    "image classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "video classification": "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
    "object detection": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "semantic segmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "audio spectrograms": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
}
EXPLAINED, NOT_TRIED, FAILED, ASIDE = "explained", "not tried", "failed", "without attention"
MARKS = "<!-- made by python -m benchmarks.reach -->", "<!-- end -->"


class Row(NamedTuple):
    """What came of a class."""

    task: str
    name: str
    outcome: str
    note: str = ""


def rows() -> Iterator[Row]:
    """Of every class of the mappings."""
    for task, mapping in TASKS.items():
        for kind, names in getattr(modeling_auto, mapping).items():
            for name in [names] if isinstance(names, str) else names:
                if task == "audio spectrograms" and kind != "audio-spectrogram-transformer":
                    continue  # these hear waves
                yield row(task, kind, name)


def row(task: str, kind: str, name: str) -> Row:
    """Of one class."""
    if kind in NOT_HERE:
        return Row(task, name, NOT_TRIED, NOT_HERE[kind])
    is_dense = task == "semantic segmentation"
    trial = SEGMENTERS.get(kind, TRIALS.get(kind)) if is_dense else TRIALS.get(name, TRIALS.get(kind))
    if trial is None and not _attends(name):
        return Row(task, name, ASIDE)
    if trial is None:
        return Row(task, name, FAILED, "no small configuration of it is written down yet")
    trial = trial._replace(target=SEGMENTATION) if is_dense else trial
    try:
        relevance = explain(name, trial)
    except Exception as error:
        return Row(task, name, FAILED, f"{type(error).__name__}: {str(error).splitlines()[0][:150]}")
    is_map = bool(torch.isfinite(relevance).all() and relevance.any())
    shape = "×".join(map(str, relevance.shape[1:]))
    return Row(task, name, EXPLAINED if is_map else FAILED, shape if is_map else "a map of zeros")


def explain(name: str, trial: Trial) -> Tensor:
    """Relevance of random inputs for a random model."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**trial.config(), num_labels=LABELS)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    inputs = torch.randn(1, *trial.shape)
    evidence = AttentionEvidence(model, forward_func=partial(trial.forward, model))
    return evidence.relevance(inputs, trial.target, trial.arguments or None)


def _attends(name: str) -> bool:
    source = inspect.getsource(importlib.import_module(getattr(transformers, name).__module__))
    return "softmax" in source


def summary(found: list[Row]) -> str:
    """A line for every task and outcome."""
    header = ["task", "explained", "not tried", "failed", "without attention"]
    lines = [table(header, [_cells(task, [row for row in found if row.task == task]) for task in TASKS])]
    for outcome in (EXPLAINED, NOT_TRIED, FAILED):
        names = [f"`{row.name}` ({row.note})" for row in found if row.outcome == outcome]
        lines += ["", f"{outcome.capitalize()}: {', '.join(names) or 'none'}."]
    return "\n".join(lines)


def _cells(task: str, found: list[Row]) -> list[str]:
    counts = Counter(row.outcome for row in found)
    explained = f"{counts[EXPLAINED]} of {len(found) - counts[ASIDE]}"
    return [task, explained, str(counts[NOT_TRIED]), str(counts[FAILED]), str(counts[ASIDE])]


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.reach", description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write the table between the marks of this page")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(rows())
    text = f"transformers {transformers.__version__}, small random models:\n\n{summary(found)}"
    print(text)
    if options.docs:
        begin, end = MARKS
        page = options.docs.read_text(encoding="utf-8")
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        options.docs.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
