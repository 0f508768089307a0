"""All pictures of the site, each for a light and a dark ground: of every method, and the gallery's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from matplotlib import pyplot, rc_context
from matplotlib.figure import Figure
from PIL import Image

from captum_gmar import (
    AnswerEvidence,
    GMARAttribution,
    GradientRollout,
    TokenEvidence,
    visualize_attribution,
    visualize_comparison,
    visualize_head_importance,
    visualize_relevance_flow,
)
from captum_gmar.demo import DemoScene, load_answering_model, load_answering_processor, load_model, load_scene
from captum_gmar.metrics import Blur, control_maps, deletion, insertion
from captum_gmar.visualization import overlay_attribution, visualize_perturbation_curves
from captum_gmar.visualization._style import percent_text
from tools.site.facts import DOCS, Fact, scene

FOLDER = DOCS / "pictures"
GROUNDS = {"light": ("default", "#ffffff"), "dark": ("dark_background", "#131416")}  # those of the theme
DOTS = 110
IMPORTANCE_SCENES = 32
PERCENT = "% of all evidence, per patch"
SENTENCES = ("checked disc", "ringed star", "dotted triangle")
WORDS = ("ring", "above", "star")
THUMBNAIL = 144  # pixels
TAG = (8, 96, 24, 104)  # in pixels, of the tutorial on shortcuts


def draw_methods(facts: list[Fact]) -> None:
    """Draw one picture for each method: the scene, and the maps of both objects' classes."""
    shown = scene()
    for fact in facts:
        maps = {f"for {name}": heat for name, heat in zip(shown.names, _in_unit(fact), strict=True)}
        _save(
            f"methods/{fact.entry.name}",
            lambda maps=maps, entry=fact.entry: visualize_comparison(  # type: ignore[misc]
                maps, shown.image, label=entry.label, use_pyplot=False
            )[0],
        )


def draw_gallery(facts: list[Fact]) -> None:
    """Draw what the gallery and other pages show, and a thumbnail for each tutorial."""
    model, shown = load_model(), scene()
    _save("quickstart", lambda: _quickstart(model))
    _save("sentences", lambda: _sentences(model, shown))
    curves = _curves(model)
    _save("curves", lambda: visualize_perturbation_curves(*curves, use_pyplot=False)[0])
    asked = load_scene(600_011, objects=2)
    words = _words(asked)
    _save("words", lambda: visualize_comparison(words, asked.image, label=PERCENT, use_pyplot=False)[0])
    _save("two-classes", lambda: _two_classes(facts, shown))
    _save("for-and-against", lambda: _for_and_against(model, shown))
    _save("all-methods", lambda: _all_methods(facts, shown))
    heads = _head_importance(model)
    _save("heads", lambda: _heads(*heads))
    _save("flow", lambda: _flow(model, shown))
    wrong = first_wrong(model)
    _save("wrong", lambda: _wrong(model, wrong))
    _draw_thumbnails(facts, model, heads[0], asked, words[WORDS[0]])


def first_wrong(model: Any) -> DemoScene:
    """Return the first of the following scenes of one object that the model takes for another class."""
    for seed in range(700_000, 701_000):
        found = load_scene(seed)
        if int(model(found.pixel_values).logits.argmax()) != found.labels[0]:
            return found
    raise RuntimeError("the model was expected to be wrong in one of 1000 scenes")


def _quickstart(model: Any) -> Figure:
    """Draw the picture of the quickstart's first block."""
    one = load_scene(3)
    relevance = TokenEvidence(model).relevance(one.pixel_values, target=one.labels[0])
    return visualize_attribution(relevance[0], one.image, use_pyplot=False)[0]


def _sentences(model: Any, shown: DemoScene) -> Figure:
    """Draw the built-in model as a CLIP: a sentence is a class, and the scores of three compete."""
    labels = [model.config.label2id[name] for name in SENTENCES]
    evidence = TokenEvidence(model, forward_func=lambda pixels: model(pixels).logits[:, labels])
    relevance = evidence.explain(shown.pixel_values, list(range(len(labels)))).relevance[0]
    maps = {f"“a {name}”": 100 * map for name, map in zip(SENTENCES, relevance, strict=True)}
    return visualize_comparison(maps, shown.image, label=PERCENT, use_pyplot=False)[0]


def _curves(model: Any) -> list[dict[str, Any]]:
    """Return insertion and deletion as ``docs/concepts/faithfulness.md`` measures them."""
    scenes = [load_scene(seed) for seed in range(10)]
    inputs, target = torch.cat([one.pixel_values for one in scenes]), [one.labels[0] for one in scenes]
    evidence = TokenEvidence(model)
    maps = {"token evidence": evidence.attribute(inputs, target), **control_maps(inputs, patch_size=8)}
    options: dict[str, Any] = {"target": target, "patch_size": 8, "steps": 7, "removal": Blur()}
    return [
        {name: metric(evidence.forward_func, inputs, map, **options) for name, map in maps.items()}
        for metric in (insertion, deletion)
    ]


def _words(asked: DemoScene) -> dict[str, torch.Tensor]:
    evidence = AnswerEvidence(load_answering_model(), load_answering_processor())
    words = evidence.attribute("what is in the picture?", images=asked.image).words()
    found = dict(zip(words.tokens, 100 * words.picture_relevance(), strict=True))
    return {word: found[word] for word in WORDS}


def _draw_thumbnails(facts: list[Fact], model: Any, heads: torch.Tensor, asked: DemoScene, word: torch.Tensor) -> None:
    """Draw a small picture for each tutorial, by its number."""
    shown, one, wrong = scene(), load_scene(3), first_wrong(model)
    maps = {fact.entry.name: fact.maps[0] for fact in facts}
    evidence = TokenEvidence(model)
    relevance = evidence.relevance(one.pixel_values, one.labels[0])[0]
    strongest = relevance.flatten().argsort(descending=True)[: relevance.numel() // 8]
    kept = torch.full((relevance.numel(),), 255, dtype=torch.uint8)
    mask = Image.fromarray(kept.index_fill(0, strongest, 0).reshape(relevance.shape).numpy())
    removed, tagged = Image.new("RGB", one.image.size, "grey"), one.image.copy()
    removed.paste(one.image, mask=mask.resize(one.image.size, Image.Resampling.NEAREST))
    tagged.paste("yellow", TAG)
    said = int(model(wrong.pixel_values).logits.argmax())
    pictures = [
        overlay_attribution(relevance, one.image),
        overlay_attribution(maps["integrated-gradients"], shown.image),
        Image.fromarray((255 * (1 - heads / heads.max())).to(torch.uint8).numpy()),
        removed,
        overlay_attribution(maps["gmar-l1"], shown.image),
        overlay_attribution(evidence.relevance(wrong.pixel_values, said)[0], wrong.image),
        tagged,
        overlay_attribution(word, asked.image),
    ]
    for number, picture in enumerate(pictures, 1):
        path = FOLDER / "tutorials" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST).save(path)


def _two_classes(facts: list[Fact], shown: DemoScene) -> Figure:
    chosen = {fact.entry.name: fact for fact in facts if fact.entry.name in ("token-evidence", "gmar++", "rollout")}
    figure, _ = visualize_comparison(
        {name: list(_in_unit(fact)) for name, fact in chosen.items()},
        shown.image,
        rows=shown.names,
        label={name: fact.entry.label for name, fact in chosen.items()},
        use_pyplot=False,
    )
    return figure


def _for_and_against(model: Any, shown: DemoScene) -> Figure:
    first, second = shown.labels
    evidence = TokenEvidence(model)
    maps = {
        shown.names[0]: 100 * evidence.relevance(shown.pixel_values, first)[0],
        f"{shown.names[0]} rather than {shown.names[1]}": 100
        * evidence.relevance(shown.pixel_values, first, contrast=second)[0],
    }
    return visualize_comparison(maps, shown.image, title="token evidence", label=PERCENT, use_pyplot=False)[0]


def _all_methods(facts: list[Fact], shown: DemoScene) -> Figure:
    maps = {fact.entry.name: fact.maps[0] for fact in facts}
    columns = 5
    rows = -(-(len(maps) + 1) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(7.2, 1.62 * rows), layout="constrained")
    places = list(panels.flat)
    for panel in places:
        panel.set_axis_off()
    places[0].imshow(shown.image)
    places[0].set_title("the scene", fontsize=9)
    for panel, (name, heat) in zip(places[1:], maps.items(), strict=False):
        top = float(heat.abs().max())
        panel.imshow(overlay_attribution(heat, shown.image, outlier_perc=0))
        panel.set_title(name, fontsize=8)
        panel.text(0.5, -0.03, _scale(facts, name, top), fontsize=6, ha="center", va="top", transform=panel.transAxes)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    pyplot.close(figure)
    return figure


def _scale(facts: list[Fact], name: str, top: float) -> str:
    """Return the value of the strongest colour as text."""
    entry = next(fact.entry for fact in facts if fact.entry.name == name)
    return f"to {100 * top:.2g} % of {entry.share}" if entry.share else f"to {top:.2g}, {entry.unit}"


def _head_importance(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    scenes = [load_scene(seed) for seed in range(IMPORTANCE_SCENES)]
    pixels = torch.cat([one.pixel_values for one in scenes])
    importance = GMARAttribution(model).head_importance(pixels, [one.labels[0] for one in scenes])
    return importance.mean(0), importance.std(0)


def _heads(mean: torch.Tensor, spread: torch.Tensor) -> Figure:
    title = f"GMAR's head importance, {IMPORTANCE_SCENES} scenes"
    return visualize_head_importance(mean, spread=spread, title=title, use_pyplot=False)[0]


def _flow(model: Any, shown: DemoScene) -> Figure:
    flow = GradientRollout(model).relevance_flow(shown.pixel_values, shown.labels[0])
    return visualize_relevance_flow(
        flow.relevance[0],
        shown.image,
        prefix_share=flow.prefix_share[0],
        layers=flow.layers,
        title=f"gradient rollout: {shown.names[0]}",
        label="relevance per patch, no unit",
        use_pyplot=False,
    )[0]


def _wrong(model: Any, wrong: DemoScene) -> Figure:
    probabilities = model(wrong.pixel_values).logits.detach().softmax(-1)[0]
    said, right = int(probabilities.argmax()), wrong.labels[0]
    names, pixels = model.config.id2label, wrong.pixel_values
    evidence = TokenEvidence(model)
    maps = {
        f"for {names[label]}, {percent_text(float(probabilities[label]))}": 100 * evidence.relevance(pixels, label)[0]
        for label in (said, right)
    }
    maps[f"{names[said]} rather than {names[right]}"] = 100 * evidence.relevance(pixels, said, contrast=right)[0]
    title = f"a {names[right]}, taken for a {names[said]}"
    return visualize_comparison(maps, wrong.image, title=title, label=PERCENT, use_pyplot=False)[0]


def _in_unit(fact: Fact) -> torch.Tensor:
    """Shares are drawn in percent."""
    return (100 if fact.entry.share else 1) * fact.maps


def _save(name: str, draw: Callable[[], Figure]) -> None:
    for mode in GROUNDS:
        with _ground(mode) as colour:
            path = FOLDER / f"{name}-{mode}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw().savefig(path, dpi=DOTS, facecolor=colour)


@contextmanager
def _ground(mode: str) -> Iterator[str]:
    style, colour = GROUNDS[mode]
    with rc_context(), pyplot.style.context(style):
        yield colour
