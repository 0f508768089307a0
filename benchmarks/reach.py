"""Which of transformers' models attention evidence explains: every class of its mappings, small and random.

    python -m benchmarks.reach [--docs docs/other-models.md]

tries each as the tests build it, or with a configuration of this file, and prints a table; ``--docs`` writes it between
the page's marks. A model is explained if its relevance is finite and not zero, not tried where NOT_HERE says why, and
failed otherwise, also where there is no configuration for it.
"""

import argparse
import importlib
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from captum_gmar import AttentionEvidence
from captum_gmar.files.markdown import table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from families import FAMILIES
from field_families import FIELD_FAMILIES, LABELS, TOKENS, OfEmbeddings, detr, perceiver, small

DETECTION, SEGMENTATION = (3, 1), (1, 0, 1)
FOUR_LAYERS = {**TOKENS, "hidden_size": 16, "num_hidden_layers": 4, "image_size": 32, "patch_size": 8}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
STAGE_SIZES = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "layer_type": "basic"}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
REAL_TIME = {
    **{"encoder_hidden_dim": 32, "encoder_in_channels": [8, 8, 16], "feat_strides": [8, 16, 32], "encoder_layers": 1},
    **{"encoder_attention_heads": 2, "encoder_ffn_dim": 16, "d_model": 32, "num_queries": 7, "decoder_layers": 2},
    **{"decoder_in_channels": [32] * 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "num_denoising": 0},
    **{"freeze_backbone_batch_norms": False},
}


class Trial(NamedTuple):
    """How a class is tried."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)
    target: Any = 1
    arguments: tuple[Any, ...] = ()


def again(name: str, family: str) -> nn.Module:
    """Return a model with the configuration of one that the tests build."""
    return getattr(transformers, name)(FIELD_FAMILIES[family].make().config)


def _resnet(kind: str, *outputs: str) -> Any:
    return getattr(transformers, f"{kind}Config")(**STAGE_SIZES, out_features=list(outputs))


def _real_time(name: str, **changes: Any) -> nn.Module:
    return small(name, **REAL_TIME, backbone_config=_resnet("RTDetrResNet", *STAGES[1:]), **changes)


def _windowed(name: str, backbone: str, changes: dict[str, Any], **others: Any) -> nn.Module:
    """Return a detector whose backbone is a ViT that attends in windows."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 64, "num_windows": 4}
    config = getattr(transformers, backbone)(**sizes, patch_size=8, out_features=STAGES[:2], **changes)
    queries = {"d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 16, "num_queries": 7, "group_detr": 1}
    heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "decoder_n_points": 2}
    return small(name, **queries, **heads, backbone_config=config, **others)


def _on_hgnet(name: str, first: int = 1, **changes: Any) -> nn.Module:
    """Return a detector whose backbone is HGNet, which gives its stages from this one on."""
    backbone = transformers.HGNetV2Config(
        **{"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "stem_channels": [3, 8, 8]},
        **{"stage_in_channels": [8] * 4, "stage_mid_channels": [8] * 4, "stage_out_channels": [8, 8, 8, 16]},
        **{"stage_num_blocks": [1] * 4, "stage_numb_of_layers": [1] * 4, "out_features": STAGES[first:]},
    )
    return small(name, **REAL_TIME, backbone_config=backbone, **changes)


def _tipsv2() -> nn.Module:
    backbone = transformers.AutoConfig.for_model(
        "tipsv2_vision_model", **FOUR_LAYERS, out_features=STAGES, reshape_hidden_states=False
    )
    necks = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    return small("Tipsv2DptForSemanticSegmentation", backbone_config=backbone, **necks)


SAPIENS = {
    **{"num_key_value_heads_per_layer": None, "num_key_value_attention_heads": 2, "num_register_tokens": 2},
    **{"num_first_full_attention_layers": 4, "num_last_full_attention_layers": 0},
    "head_config": {"upsample_out_channels": [8], "upsample_kernel_sizes": [4], "conv_out_channels": [8]},
}
OTHERS = {
    "LevitForImageClassificationWithTeacher": lambda name: again(name, "LeViT"),
    "PerceiverForImageClassificationConvProcessing": lambda name: perceiver("ConvProcessing", 322),
    "MobileViTV2ForSemanticSegmentation": lambda name: again(name, "MobileViTV2"),
    "Data2VecVisionForSemanticSegmentation": lambda name: small(
        name, **FOUR_LAYERS, out_indices=[1, 2, 3, 4], pool_scales=[1, 2], use_auxiliary_head=False
    ),
    "Sapiens2ForSemanticSegmentation": lambda name: small(name, **FOUR_LAYERS, **SAPIENS),
    "Tipsv2DptForSemanticSegmentation": lambda name: _tipsv2(),
    "UperNetForSemanticSegmentation": lambda name: small(
        **{"name": name, "hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False},
        backbone_config=transformers.SwinConfig(**WINDOWS, out_features=STAGES[:2]),
    ),
    **dict.fromkeys(
        ["ConditionalDetrForObjectDetection", "TableTransformerForObjectDetection", "DabDetrForObjectDetection"],
        lambda name: detr(name.removesuffix("ForObjectDetection"), _resnet("ResNet", "stage4")),
    ),
    "RTDetrForObjectDetection": _real_time,
    "RTDetrV2ForObjectDetection": _real_time,
    "DFineForObjectDetection": partial(_real_time, hidden_expansion=0.5),
    "LwDetrForObjectDetection": partial(
        _windowed,
        **{"backbone": "LwDetrViTConfig", "changes": {"window_block_indices": [0]}},
        **{"projector_scale_factors": [1.0], "projector_out_channels": 32},
    ),
    "RfDetrForObjectDetection": partial(_windowed, backbone="RfDetrDinov2Config", changes={}),
    "Deimv2ForObjectDetection": _on_hgnet,
    "PPDocLayoutV2ForObjectDetection": partial(
        _on_hgnet, class_thresholds=[0.0] * LABELS, class_order=list(range(LABELS))
    ),
    "PPDocLayoutV3ForObjectDetection": partial(
        _on_hgnet,
        **{"first": 0, "x4_feat_dim": 8, "mask_feature_channels": [8, 8], "num_prototypes": 4},
        global_pointer_head_size=8,
    ),
    "PPDocLayoutV4ForObjectDetection": partial(_on_hgnet, global_pointer_head_size=8),
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
    """Return the rows of every class of the mappings."""
    for task, mapping in TASKS.items():
        for kind, names in getattr(modeling_auto, mapping).items():
            for name in [names] if isinstance(names, str) else names:
                if task == "audio spectrograms" and kind != "audio-spectrogram-transformer":
                    continue  # these hear waves
                yield row(task, kind, name)


@cache
def trials() -> dict[str, Trial]:
    """Return how each class is tried: those of this file, and the first of each class that the tests build."""
    found = {}
    for name, make in OTHERS.items():
        is_detector = name.endswith("ForObjectDetection")
        found[name] = Trial(
            partial(make, name),
            (3, 64, 64) if is_detector or "Levit" in name or "MobileViT" in name else (3, 32, 32),
            DETECTION if is_detector else SEGMENTATION if name.endswith("Segmentation") else 1,
        )
    tested = [Trial(make) for name, (make, _) in FAMILIES.items() if not name.startswith("timm")]
    tested += [Trial(each.make, each.shape, each.target, each.arguments) for each in FIELD_FAMILIES.values()]
    for trial in tested:
        model = trial.make()
        found.setdefault(type(_inner(model)).__name__, trial)
    return found


def _inner(model: nn.Module) -> nn.Module:
    """Return the model of transformers, also where another hands it embeddings."""
    return model.model if isinstance(model, OfEmbeddings) else model


def row(task: str, kind: str, name: str) -> Row:
    """Return the row of one class."""
    if kind in NOT_HERE:
        return Row(task, name, NOT_TRIED, NOT_HERE[kind])
    if name not in trials():
        missing = "no small configuration of it is written down yet"
        return Row(task, name, FAILED, missing) if _attends(name) else Row(task, name, ASIDE)
    try:
        relevance = explain(trials()[name])
    except Exception as error:
        return Row(task, name, FAILED, f"{type(error).__name__}: {str(error).splitlines()[0][:150]}")
    is_map = bool(torch.isfinite(relevance).all() and relevance.any())
    shape = "×".join(map(str, relevance.shape[1:]))
    return Row(task, name, EXPLAINED if is_map else FAILED, shape if is_map else "a map of zeros")


def explain(trial: Trial) -> Tensor:
    """Relevance of random inputs for a random model."""
    torch.manual_seed(0)
    model = trial.make().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    evidence = AttentionEvidence(_inner(model), forward_func=model)
    return evidence.relevance(torch.randn(2, *trial.shape), trial.target, trial.arguments or None)


def _attends(name: str) -> bool:
    source = inspect.getsource(importlib.import_module(getattr(transformers, name).__module__))
    return "softmax" in source


def summary(found: list[Row]) -> str:
    """Return a line for every task and outcome."""
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
