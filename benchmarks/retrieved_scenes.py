"""Where the words of a query match a scene, by a small late-interaction model that is trained on the way.

    python -m benchmarks.retrieved_scenes --scenes 100 --picture FILE

puts ColPali's embedding layer on the decoder of the built-in answering model, and trains this layer alone, so that the
words "dotted" and "star" are similar to the patches of a dotted star. On other scenes it writes how often a query ranks
a scene with its object above one without it, and for each map the share of positive values on the object and how often
the largest is there.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import ColPaliConfig, ColPaliForRetrieval

from captum_gmar import visualize_comparison
from captum_gmar.demo import CLASSES, load_answering_model, load_answering_processor, make_scene
from captum_gmar.demo.patches import GRID, patch_shares
from captum_gmar.demo.scenes import Scene
from captum_gmar.files.markdown import table
from captum_gmar.vlm.retrieval import RetrievalAttribution, RetrievalEvidence
from tools.demo_model.localisation import scene_mean

FIRST_TRAINING, FIRST_SEED, SHOWN_SEED = 800_000, 700_000, 600_011
TRAINING_SCENES, STEPS, BATCH, WIDTH = 400, 150, 48, 32
SHARPNESS, RARITY = 12.0, 8.0  # of similarities as log-odds, and of patches without an object to those with one
WORDS = ("texture", "shape")  # of a query


def inputs_of(processor: Any, scene: Scene | None, text: str = "") -> dict[str, Tensor]:
    """Return the model's arguments of a scene, or of a query."""
    if scene is None:
        return {"input_ids": processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]}
    inputs = processor(images=Image.fromarray(scene.image), text=processor.image_token, return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "pixel_values")}


def build_retriever(processor: Any) -> tuple[Any, Tensor]:
    """Return the model with its trained embedding layer, and the queries' embeddings (12, 2, width)."""
    torch.manual_seed(0)
    inner = load_answering_model()
    model = ColPaliForRetrieval(ColPaliConfig(vlm_config=inner.config, embedding_dim=WIDTH)).eval()
    model.vlm.load_state_dict(inner.model.state_dict())
    scenes = [make_scene(seed, 2) for seed in range(FIRST_TRAINING, FIRST_TRAINING + TRAINING_SCENES)]
    with torch.no_grad():
        pages = torch.cat([model.vlm(**inputs_of(processor, scene))[0] for scene in scenes])
        queries = torch.cat([model.vlm(**inputs_of(processor, None, name))[0] for name in CLASSES])
    is_on = torch.stack([patches_with_words(scene) for scene in scenes]).double()
    layer = model.embedding_proj_layer
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.01)
    for _ in range(STEPS):
        chosen = torch.randint(len(pages), (BATCH,))
        words, patches = (F.normalize(layer(states), dim=-1) for states in (queries, pages[chosen]))
        similarities = torch.einsum("qwd,npd->nqwp", words, patches).double()
        log_odds = SHARPNESS * (similarities - 0.5)
        loss = F.binary_cross_entropy_with_logits(log_odds, is_on[chosen], pos_weight=torch.tensor(RARITY))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return model, F.normalize(layer(queries), dim=-1)


def patches_with_words(scene: Scene) -> Tensor:
    """Return the mask (12, 2, P) of the patches of objects that have each query's texture, and its shape."""
    is_on = torch.zeros(len(CLASSES), len(WORDS), GRID * GRID, dtype=torch.bool)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        for query, name in enumerate(CLASSES):
            same = [a == b for a, b in zip(name.split(), CLASSES[label].split(), strict=True)]
            is_on[query, same] |= patch_shares(mask) > 0.5
    return is_on


def maps_of(result: RetrievalAttribution, seed: int) -> dict[str, Tensor]:
    """Return each map (W, rows, columns)."""
    similarity = result.similarity()
    coarse = torch.rand(len(similarity), 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return {
        "similarity": similarity,
        "signed evidence": result.picture_relevance(),
        "focus": result.focus(),
        "smooth random map": F.interpolate(coarse, similarity.shape[1:], mode="bilinear")[:, 0],
        "uniform map": torch.ones_like(similarity),
    }


def measure(scenes: int, picture: Path | None) -> str:
    """Return the table of all maps, and draw those of a shape in one scene."""
    processor = load_answering_processor()
    model, queries = build_retriever(processor)
    evidence, found = RetrievalEvidence(model, processor), defaultdict(list)
    scores, has = torch.zeros(scenes, len(CLASSES)), torch.zeros(scenes, len(CLASSES), dtype=torch.bool)
    for number in range(scenes):
        scene = make_scene(FIRST_SEED + number, 2)
        page = inputs_of(processor, scene)
        with torch.no_grad():
            scores[number] = (queries @ model(**page).embeddings[0].mT).amax(-1).sum(-1)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            has[number, label] = True
            maps = maps_of(evidence.attribute(page, inputs_of(processor, None, CLASSES[label])), scene.seed)
            for name, values in maps.items():
                found[name].append(measure_on_object(values, mask))
    if picture is not None:
        scene = make_scene(SHOWN_SEED, 2)
        name = CLASSES[scene.labels[0]]
        result = evidence.attribute(inputs_of(processor, scene), inputs_of(processor, None, name))
        shape = {f"{name.split()[1]}: {title}": values[1] for title, values in list(maps_of(result, 0).items())[:3]}
        visualize_comparison(shape, scene.image)[0].savefig(picture)
    above = [(scores[has[:, q], q][:, None] > scores[~has[:, q], q]).double().mean() for q in range(len(CLASSES))]
    rows = [(name, *(str(scene_mean(values)) for values in torch.stack(found[name]).T)) for name in maps]
    header = ("map", *(f"{word}, {what}" for what in ("on the object", "peak") for word in WORDS))
    return f"A scene with the object above others: {torch.stack(above).nanmean():.3f}\n\n{table(header, rows)}"


def measure_on_object(values: Tensor, mask: Any) -> Tensor:
    """Return each word's share of positive values on the object (W,), of none as of a uniform map, and the peak's."""
    on_object, positive = patch_shares(mask).to(values), values.clamp(min=0).flatten(1)
    positive = torch.where(positive.sum(1, keepdim=True) > 0, positive, 1)
    return torch.cat([positive @ on_object / positive.sum(1), (on_object[positive.argmax(1)] > 0).to(values)])


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.retrieved_scenes", description="Measure retrieved scenes.")
    parser.add_argument("--scenes", type=int, default=60, metavar="N", help="of two objects (default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="of the maps of one query")
    arguments = parser.parse_args()
    print(measure(arguments.scenes, arguments.picture))


if __name__ == "__main__":
    main()
