"""Write the demo model's card: `python -m tools.demo_model.card folder` measures the model in it anew."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import ViTForImageClassification

from captum_gmar import get_method, list_methods
from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.demo_model.localisation import FIRST_SEED, Localiser, localisation_report, scene_mean
from tools.demo_model.measures import accuracy, attention_lift, confidence, head_importance

HELD_OUT_SEEDS: Final = range(500_000, 502_000)
_LOOKED_AT_SEEDS: Final = range(500_000, 500_300)
_LOCALISED: Final = 100

_CARD: Final = """\
---
license: bsd-3-clause
library_name: transformers
pipeline_tag: image-classification
---

# Demo model of captum_gmar

A small vision transformer for synthetic scenes whose right explanation is known: each object's pixel mask
comes with the scene. It exists to test attribution methods and to show them at work. It knows nothing of
photographs.

```python
from captum_gmar.demo import load_model, load_scene

model, scene = load_model(), load_scene(seed=3, objects=2)
model(scene.pixel_values).logits.topk(2).indices, scene.labels
```

## Model

`ViTForImageClassification` with a CLS token: {layers} layers of {heads} heads, hidden size {width},
{grid}×{grid} patches of {patch}×{patch} pixels, {parameters:,} parameters in float32, each rounded to 20
binary digits. Inputs are red-green-blue from -1 to 1. The {class_count} classes: {class_names}.

The logits are trained with a softmax over the classes present, each with equal probability: on a scene with
one object the softmax is the probability of its class, on a scene with two each class gets about one half.

## Data

Everything is synthetic, drawn by `captum_gmar.demo.make_scene` from a seed; no image, weight or label comes
from anywhere else. A class is a form together with a texture. Colours and places come from the same
distributions for all classes. One to four objects of different classes lie on mottled ground among plain
shapes and textured bars that belong to no class. Code, scenes and weights are under the BSD-3-Clause licence.

## Training

{how}: {steps}, {minutes} minutes in
{processes} processes on a CPU. Scenes of seeds {first_scene_seed} to {last_scene_seed}, turned, mirrored and
with permuted colour channels; scenes of seeds below 1000000 are never trained on. During training, heads that
are not part of the model asked the patches which class, form and texture they show.

Python {python}, torch {torch}, transformers {transformers}, numpy {numpy}. Another processor or version gives
a model like this one, but not the same bits.

## Accuracy

On scenes of seeds {held_out_start} to {held_out_stop}, none of which it was trained on. With k objects a
scene counts as right if their classes are the k top-ranked ones. Mean and 95 % confidence interval.

| objects | scenes right |
|---|---|
{accuracies}

The right class of a one-object scene gets a mean softmax probability of {confidence}.

## Where it looks

Share of the CLS token's attention to patches that is on the object, divided by the object's share of the
area, on {looked_at} held-out one-object scenes. 1 is chance.

| layer | mean over heads | least head | greatest head |
|---|---|---|---|
{lifts}

Attention to the object beats chance (the confidence interval of a head's mean lies above 1) in {above} of the
{all_heads} heads, and is below chance in {below}. {lift_summary}

## How unequal its heads are

GMAR's head importance (L1) for the right class, on the same scenes, averaged; equal heads would have
{equal:.3f} each. The effective number of heads is 1 / Σ w² of a scene, averaged: {heads} if they were equal.

| layer | least head | greatest head | effective heads |
|---|---|---|---|
{importances}

{importance_summary}

## What attribution methods find

`tools.demo_model.localisation` on {localised} scenes with one object and as many with two, from seed
{localised_start} on. *On the object* is the share of a map's relevance that lies on the object; *class sensitivity*, on
two-object scenes, how often explaining each of the two classes puts more on its own object than on the other's. A map
that does not depend on the class has a class sensitivity of 0.

{localisation}

GMAR weighs heads by the class's gradient, but its rollout does not see the class: two classes of one scene get
nearly the same map. What of it lies on the object comes from attention, not from the class asked for.
Methods that multiply the attention by its gradient do see the class.

## Limits

It recognises {class_count} drawn classes and says nothing about how attribution methods fare on photographs,
on larger models or on models trained otherwise. Its patches were taught to recognise what they show, which
other vision transformers' patches are not.
"""


def write_card(folder: Path) -> None:
    """Measure the model in a folder and write the folder's README.md."""
    model = ViTForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    eager = ViTForImageClassification.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    found = localisation_report(comparison_methods(model), n=_LOCALISED, seed=FIRST_SEED, controls=model)
    card = _CARD.format(
        **json.loads((folder / "training.json").read_text()),
        **_describe_model(model),
        **_describe_accuracy(model),
        **_describe_attention(attention_lift(eager.eval(), _LOOKED_AT_SEEDS)),
        **_describe_importance(head_importance(model, _LOOKED_AT_SEEDS)),
        **{"localised": _LOCALISED, "localised_start": FIRST_SEED, "localisation": found.to_markdown()},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _describe_model(model: ViTForImageClassification) -> dict[str, object]:
    config = model.config
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "width": config.hidden_size,
        "grid": GRID,
        "patch": PATCH,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "class_count": len(CLASSES),
        "class_names": ", ".join(CLASSES),
    }


def _describe_accuracy(model: ViTForImageClassification) -> dict[str, object]:
    rows = [f"| {objects} | {accuracy(model, objects, HELD_OUT_SEEDS)} |" for objects in (1, 2, 3, 4)]
    return {
        "held_out_start": HELD_OUT_SEEDS.start,
        "held_out_stop": HELD_OUT_SEEDS.stop - 1,
        "accuracies": "\n".join(rows),
        "confidence": confidence(model, HELD_OUT_SEEDS),
    }


def _describe_attention(lifts: Tensor) -> dict[str, object]:
    """Describe the lift of each scene, layer and head, (N, L, H)."""
    means = lifts.mean(dim=0)
    margins = 1.96 * lifts.std(dim=0) / len(lifts) ** 0.5
    layers = [scene_mean(layer) for layer in lifts.mean(dim=2).T]
    rows = [
        f"| {index} | {layer} | {heads.min():.2f} | {heads.max():.2f} |"
        for index, (layer, heads) in enumerate(zip(layers, means, strict=True))
    ]
    best = max(range(len(layers)), key=lambda index: layers[index].mean)
    return {
        "looked_at": len(lifts),
        "lifts": "\n".join(rows),
        "above": int((means - margins > 1).sum()),
        "below": int((means + margins < 1).sum()),
        "all_heads": means.numel(),
        "lift_summary": f"It is strongest in layer {best}: {layers[best]} times chance.",
    }


def _describe_importance(importance: Tensor) -> dict[str, object]:
    """Describe the head importance of each scene, layer and head, (N, L, H)."""
    means = importance.mean(dim=0)
    effective = (1 / importance.square().sum(dim=2)).mean(dim=0)
    rows = [
        f"| {index} | {heads.min():.3f} | {heads.max():.3f} | {number:.2f} |"
        for index, (heads, number) in enumerate(zip(means, effective, strict=True))
    ]
    ratio = means.max(dim=1).values / means.min(dim=1).values
    most = int(torch.argmax(ratio))
    return {
        "equal": 1 / importance.shape[2],
        "importances": "\n".join(rows),
        "importance_summary": (
            f"A layer's greatest head weighs {ratio.min():.2f} to {ratio.max():.2f} times its least one; "
            f"the heads are most unequal in layer {most}."
        ),
    }


def comparison_methods(model: ViTForImageClassification) -> dict[str, Localiser]:
    """All methods of the library but raw attention, which is among the controls, by the names they have in it.

    Captum's Occlusion and FeatureAblation, which take a forward pass per patch, and GradientShap, which is random, are
    left out.
    """
    slow_or_random = {"occlusion", "feature-ablation", "gradient-shap", "raw-attention"}
    names = (name for name in list_methods() if name not in slow_or_random)
    made: dict[str, Localiser] = {name: get_method(name, model) for name in names}
    integrated: Any = made["integrated-gradients"]
    return {**made, "integrated-gradients": partial(integrated.attribute, internal_batch_size=50)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model.card", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the trained model")
    write_card(parser.parse_args().folder)


if __name__ == "__main__":
    main()
