"""Misuse from Python: wrong ranks, kinds, sizes and choices, and models that cannot be explained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PvtConfig, PvtForImageClassification, ViTForImageClassification

import captum_gmar
from captum_gmar import demo
from captum_gmar.heads import ablate_heads, gradient_of_mask, head_ablation_curve, head_importance, ranked_heads
from captum_gmar.metrics import (
    Blur,
    Noise,
    NoisyLinear,
    average_drop,
    boxes_to_masks,
    control_maps,
    deletion,
    insertion,
    parameter_randomisation,
    pointing_game,
    relevance_mass_accuracy,
)
from captum_gmar.token_removal import TokenRemoval
from tools.bad_input.rows import Call
from tools.bad_input.world import PVT, small_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
MAPS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
# What Captum rejects, Captum rejects: some of it by assertions.
CAPTUMS = (ValueError, TypeError, OSError, RuntimeError, AssertionError, IndexError, FloatingPointError)


@cache
def vit() -> ViTForImageClassification:
    return small_vit()


def _pvt() -> nn.Module:
    return PvtForImageClassification(PvtConfig(**PVT)).eval()


def _traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(vit(), IMAGES, strict=False, check_trace=False)
    assert isinstance(traced, nn.Module)
    return traced


def _exported() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(vit(), (IMAGES,)).module()


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(small_vit(), {nn.Linear}, dtype=torch.qint8)


def _offloaded() -> nn.Module:
    """As accelerate does it: weights lie elsewhere, on the device "meta", until a layer runs."""
    model = small_vit()
    model.vit.layernorm.to("meta")
    return model


def _with_dropout() -> nn.Module:
    return small_vit(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "model"),
    "a name": (lambda: "google/vit", "model"),
    "a function": (lambda: lambda pixels: pixels, "model"),
    "a linear layer": (lambda: nn.Linear(4, 4), "patch|Linear"),
    "a convolution": (lambda: nn.Conv2d(3, 4, 8, stride=8), "attention|Conv2d|patch"),
    "PVT": (_pvt, "grid|queries and keys|Pvt"),
    "traced": (_traced, "traced|scripted|exported|TopLevelTracedModule"),
    "exported": (_exported, "traced|scripted|exported"),
    "quantised": (_quantised, "quanti"),
    "offloaded": (_offloaded, "meta|offload"),
    "with dropout": (_with_dropout, "dropout|eval"),
}


EXPLAINED = {("quantised", "AttentionRollout"), ("PVT", "AttentionEvidence")}  # one needs no gradient, one no weights


def _explained(method: str, make: Callable[[], Any], **options: Any) -> object:
    return getattr(captum_gmar, method)(make(), **options).attribute(IMAGES, 1)


def _models() -> list[Call]:
    classes = ("GMARAttribution", "AttentionEvidence", "AttentionRollout")
    rows = []
    for name, (make, says) in MODELS.items():
        for method in classes:
            if (name, method) in EXPLAINED:
                continue
            call = partial(_explained, method, make)
            rows.append(Call("models in Python", f"{method} of {name}", call, says, CAPTUMS))
    return rows


INPUTS: dict[str, tuple[Any, str]] = {
    "a list": ([[1.0]], "inputs|[Tt]ensor"),
    "an array": (IMAGES.numpy(), "inputs|[Tt]ensor"),
    "None": (None, "inputs|[Tt]ensor"),
    "a path": ("photo.png", "inputs|[Tt]ensor"),
    "an image without a batch": (IMAGES[0], "N, channels|rank|4|shape"),
    "of rank 5": (IMAGES[None], "N, channels|rank|4|shape"),
    "without examples": (IMAGES[:0], "at least one|empty|no images|0"),
    "of bytes": (IMAGES.byte(), "float"),
    "of whole numbers": (IMAGES.long(), "float"),
    "of complex numbers": (IMAGES.to(torch.complex64), "float|real|complex"),
    "with NaN": (IMAGES.index_fill(3, torch.tensor([4]), torch.nan), "NaN|finite"),
    "with infinity": (IMAGES.index_fill(3, torch.tensor([4]), torch.inf), "NaN|finite"),
    "of one channel": (IMAGES[:, :1], "channel"),
    "of another size": (torch.zeros(1, 3, 40, 40), "interpolat|32"),
    "below one patch": (torch.zeros(1, 3, 4, 4), "patch|32|interpolat"),
    "an empty tuple": ((), "inputs|[Tt]ensor"),
    "two of them": ((IMAGES, IMAGES), "one|inputs|tensor"),
}
TARGETS: dict[str, tuple[Any, str]] = {
    "none": (None, "target"),
    "out of range": (4, "target|range|bounds|4"),
    "below the range": (-5, "target|range|bounds|5"),
    "a fraction": (1.5, "target|1.5"),
    "a name": ("tabby", "target|tabby"),
    "too few": ([1], "target|batch|1|length"),
    "too many": ([1, 2, 3], "target|batch|3|length"),
    "of fractions": (torch.tensor([0.5, 1.5]), "target|int|float|index"),
    "a matrix": (torch.zeros(2, 2, dtype=torch.long), "target|dimension|shape|tensor"),
    "of two indices": ((1, 2), "target|dimension|2|output"),
    "one out of range": ([1, 9], "target|range|bounds|9"),
    "a boolean": (True, "target|True|bool"),
}


def _arguments() -> list[Call]:
    rows = []
    for method in ("GMARAttribution", "AttentionRollout", "AttentionEvidence"):
        explain = lambda *args, method=method, **kwargs: getattr(captum_gmar, method)(vit()).attribute(*args, **kwargs)  # noqa: E731
        for name, (inputs, says) in INPUTS.items():
            rows.append(Call("inputs in Python", f"{method}: {name}", partial(explain, inputs, 1), says, CAPTUMS))
        if method == "AttentionRollout":  # which takes any target, for it reads none
            continue
        for name, (target, says) in TARGETS.items():
            if name != "a boolean":  # Captum takes it as 1
                rows.append(Call("targets", f"{method}: {name}", partial(explain, IMAGES, target), says, CAPTUMS))
        for size in (0, -1, 1.5, "2"):
            call = partial(explain, IMAGES, 1, internal_batch_size=size)
            rows.append(Call("targets", f"{method}: internal_batch_size {size!r}", call, "batch.size", CAPTUMS))
        for contrast in (4, "tabby", [1]):
            call = partial(explain, IMAGES, 1, contrast=contrast)
            says = "contrast|range|bounds|target|[Tt]ensor|tabby"
            rows.append(Call("targets", f"{method}: contrast {contrast!r}", call, says, CAPTUMS))
    return rows


OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "GMARAttribution": (
        {"norm": "l3"},
        {"norm": None},
        {"residual": -1.0},
        {"residual": float("nan")},
        {"residual": "1"},
        {"recursion": "backward"},
        {"start_layer": 2},
        {"start_layer": 0.5},
        {"tokens": "register"},
        {"tokens": (4, 0)},
        {"tokens": (0, -1)},
        {"tokens": []},
        {"tokens": 3},
        {"tokens": "distillation"},
        {"forward_func": "logits"},
        {"forward_func": lambda pixels: pixels.sum()},
        {"forward_func": lambda pixels: None},
        {"forward_func": lambda pixels: vit()(pixels).logits + vit()(pixels).logits},
    ),
    "AttentionRollout": (
        {"head_fusion": "median"},
        {"residual": -0.5},
        {"recursion": ""},
    ),
    "GradientRollout": ({"head_fusion": "max"}, {"norm": "l0"}, {"start_layer": 7}),
}


def _options() -> list[Call]:
    rows = []
    for method, options in OPTIONS.items():
        for option in options:
            (name,) = option
            call = partial(_explained, method, vit, **option)
            text = f"{method}({name}={option[name]!r})" if not callable(option[name]) else f"{method}, a wrong {name}"
            says = f"{name}|token|layer|patch grid|output|logits|once|two|tuple|tensor|callable|residual"
            rows.append(Call("options of methods", text, call, says, CAPTUMS))
    return rows


def _logits(pixels: Tensor) -> Tensor:
    logits: Tensor = vit()(pixels).logits
    return logits


def _metrics() -> Iterable[tuple[str, Callable[[], object], str]]:
    good = {"target": 1, "patch_size": 8, "steps": 4}
    for measure in (insertion, deletion):
        name = measure.__name__
        changes: dict[str, dict[str, Any]] = {
            "steps": {"none": 0, "too many": 17, "a fraction": 1.5, "text": "4"},
            "patch_size": {"zero": 0, "not dividing": 5, "below zero": -8, "text": "8"},
            "removal": {"a name": "blur", "a class": Blur},
            "target": {"out of range": 9, "too few": [1]},
            "batch_size": {"none": 0, "text": "many"},
        }
        for option, values in changes.items():
            for what, value in values.items():
                call = partial(measure, _logits, IMAGES, MAPS, **{**good, option: value})
                yield f"{name}: {option}, {what}", call, f"{option}|target|patch|removal|range|bounds"
        yield f"{name}: maps of another shape", partial(measure, _logits, IMAGES, MAPS[:, :, :16], **good), "shape|Got"
        yield f"{name}: maps with NaN", partial(measure, _logits, IMAGES, MAPS * torch.nan, **good), "NaN|finite"
        yield f"{name}: no function", partial(measure, None, IMAGES, MAPS, **good), "forward_func|callable"
        yield f"{name}: images in a list", partial(measure, _logits, [1], MAPS, **good), "inputs|[Tt]ensor"
        yield (
            f"{name}: outputs of another length",
            partial(measure, lambda x: _logits(x)[:1], IMAGES, MAPS, **good),
            "output",
        )
    masks = MAPS[:, 0] > 0.5
    for score in (pointing_game, relevance_mass_accuracy):
        name = score.__name__
        yield f"{name}: masks of another size", partial(score, MAPS, masks[:, :16]), "mask"
        yield f"{name}: masks of numbers", partial(score, MAPS, MAPS[:, 0]), "mask|bool"
        yield f"{name}: masks of fewer images", partial(score, MAPS, masks[:1]), "mask"
        yield f"{name}: maps in a list", partial(score, [1.0], masks), "attribution|[Tt]ensor"
    yield (
        "average_drop: maps of another shape",
        partial(average_drop, _logits, IMAGES, MAPS[:1], 1),
        "shape|attribution",
    )
    yield "boxes_to_masks: outside", partial(boxes_to_masks, [[[0, 0, 99, 4]]], 32, 32), "box"
    yield "boxes_to_masks: three numbers", partial(boxes_to_masks, [[[0, 0, 4]]], 32, 32), "box"
    yield "boxes_to_masks: turned", partial(boxes_to_masks, [[[8, 8, 2, 2]]], 32, 32), "box"
    yield "control_maps: of a list", partial(control_maps, [1]), "inputs|[Tt]ensor"
    yield "control_maps: patches not dividing", partial(control_maps, IMAGES, patch_size=5), "patch"
    yield "Blur: sigma", partial(Blur, -1.0), "sigma"
    yield "Noise: seed", partial(Noise, seed=0.5), "seed"
    yield "NoisyLinear: noise", partial(NoisyLinear, -1.0), "noise"
    yield "TokenRemoval: no model", partial(TokenRemoval, None), "model|None|Module"
    yield (
        "parameter_randomisation: layers that are not there",
        partial(parameter_randomisation, lambda x, target: MAPS, vit(), IMAGES, 1, layers=["nothing"]),
        "nothing",
    )


def _pictures() -> Iterable[tuple[str, Callable[[], object], str]]:
    draw, side_by_side = captum_gmar.visualize_attribution, captum_gmar.visualize_comparison
    flow, heads = captum_gmar.visualize_relevance_flow, captum_gmar.visualize_head_importance
    photo = IMAGES[0].clamp(0, 1)
    yield "visualize_attribution: rank 4", partial(draw, MAPS, photo), "attribution|shape"
    yield "visualize_attribution: NaN", partial(draw, MAPS[0] * torch.nan, photo), "NaN|finite"
    yield "visualize_attribution: another size", partial(draw, MAPS[0, :, :30], photo), "shape|size|grid|multiple|Got"
    yield "visualize_attribution: no image", partial(draw, MAPS[0], None), "image"
    yield "visualize_attribution: image of two channels", partial(draw, MAPS[0], photo[:2]), "image|channel"
    yield "visualize_attribution: alpha", partial(draw, MAPS[0], photo, alpha_overlay=2.0), "alpha"
    yield "visualize_attribution: colours", partial(draw, MAPS[0], photo, cmap="nothing"), "nothing"
    yield "visualize_attribution: interpolation", partial(draw, MAPS[0], photo, interpolation="cubic"), "interpolation"
    yield "visualize_comparison: nothing", partial(side_by_side, {}, photo), "attributions|at least one|empty"
    yield "visualize_comparison: method", partial(side_by_side, {"a": MAPS[0]}, photo, method="x"), "method"
    yield "visualize_comparison: fewer maps", partial(side_by_side, {"a": [MAPS[0]]}, [photo, photo]), "2|maps|images"
    yield "visualize_relevance_flow: rank 2", partial(flow, MAPS[0, 0], photo), "relevance|shape"
    yield "visualize_head_importance: rank 1", partial(heads, MAPS[0, 0, 0]), "importance|shape"
    curves = captum_gmar.visualize_perturbation_curves
    yield "visualize_perturbation_curves: nothing", partial(curves, None, None), "insertion|deletion|curve"
    patch = partial(captum_gmar.visualize_token_interaction, MAPS[0, 0, :4, :4], photo, (9, 9))
    yield "visualize_token_interaction: patch", patch, "patch"


def _others() -> Iterable[tuple[str, Callable[[], object], str]]:
    compare = captum_gmar.compare
    yield "compare: no methods", partial(compare, vit(), IMAGES[:1], []), "method"
    yield "compare: an unknown method", partial(compare, vit(), IMAGES[:1], ["gmar"]), "gmar"
    yield "compare: two images", partial(compare, vit(), IMAGES, ["rollout"]), "one image|1"
    yield "compare: steps", partial(compare, vit(), IMAGES[:1], ["rollout"], steps=17), "steps"
    yield "compare: removal", partial(compare, vit(), IMAGES[:1], ["rollout"], removal="blur", steps=2), "removal"
    yield "record_attention: no model", partial(captum_gmar.record_attention, None, IMAGES, 1), "model|None|Module"
    yield (
        "record_attention: of a layer",
        partial(captum_gmar.record_attention, nn.Linear(2, 2), IMAGES, 1),
        "Linear|model",
    )
    for heads, what in (({0: [2]}, "head 2"), ({9: [0]}, "layer 9"), ({0: [0.5]}, "a fraction"), ([0, 1], "a list")):
        yield f"ablate_heads: {what}", partial(_silenced, heads), "head|layer"
    score = partial(gradient_of_mask, vit())
    yield "head_importance: no batches", partial(head_importance, score, []), "batch|example|image"
    yield "head_importance: no pairs", partial(head_importance, score, [IMAGES]), "pair|batch"
    yield "head_importance: no score", partial(head_importance, "gmar", [(IMAGES, 1)]), "score"
    yield "ranked_heads: rank 1", partial(ranked_heads, torch.rand(3)), "importance|shape"
    yield "ranked_heads: NaN", partial(ranked_heads, torch.full((2, 2), torch.nan)), "NaN|finite"
    curve = partial(head_ablation_curve, vit(), [(IMAGES, 1)], torch.rand(2, 2))
    yield "head_ablation_curve: order", partial(curve, order="best"), "order"
    yield "head_ablation_curve: counts", partial(curve, counts=[9]), "counts"
    yield "methods: of None", partial(captum_gmar.methods()["gmar-l1"], None), "model|None"
    yield "make_scene: objects", partial(demo.make_scene, 0, 5), "objects"
    yield "make_scene: seed", partial(demo.make_scene, -1), "seed|non-negative"
    yield "load_scene: seed of text", partial(demo.load_scene, "a"), "seed|integer|SeedSequence|invalid|int"
    yield "localisation_report: one scene", partial(demo.localisation_report, {}, n=1), "n must be at least 2"


def _silenced(heads: Any) -> None:
    with ablate_heads(vit(), heads):
        vit()(IMAGES)


def _rest() -> list[Call]:
    groups = {"metrics": _metrics(), "pictures": _pictures(), "other functions": _others()}
    return [Call(group, name, call, says, CAPTUMS) for group, rows in groups.items() for name, call, says in rows]


ROWS = [*_models(), *_arguments(), *_options(), *_rest()]
