"""Where the classes of a windowed model and of a video model come from, where it is known: each class's own object.

    python -m tools.swin_model.train --output SWIN
    python -m tools.video_model.train --output VIDEO
    python -m benchmarks.known_places --swin SWIN --video VIDEO --examples 60

writes a table in Markdown for each model: of every method that is defined for it the share of positive relevance on the
object, of one object; how often each of two classes gets more on its own object than the other's does, of two objects;
and how well its order of patches or tubes does (log-odds of the class with the first ones shown, less with them hidden,
mean over steps). Nothing is measured on what the models were trained on.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import captum.attr
import torch
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.scores import log_odds
from captum_gmar.demo.patches import GRID, PATCH, patch_shares, scene_pixel_values
from captum_gmar.demo.scenes import make_scene
from captum_gmar.files.markdown import table
from tools.demo_model.localisation import SceneMean, scene_mean
from tools.demo_model.measures import accuracy as scenes_right
from tools.video_model import train as video
from tools.video_model.clips import FRAMES, SIDE, make_clip
from tools.video_model.train import accuracy as clips_right
from tools.video_model.train import clip_values, tube_shares

FIRST_SEED = 710_000
HELD_OUT = range(500_000, 501_000)  # of what accuracy is measured on
STEPS = 7  # in which units are shown or hidden
HIDDEN = 0.0  # the pixel value of what is hidden: grey
LEFT_OUT = "feature-ablation", "gradient-shap"  # the first is occlusion here, the second random


OF_GRADIENTS = {  # Captum's own classes, which take inputs of any shape
    "saliency": captum.attr.Saliency,
    "input-x-gradient": captum.attr.InputXGradient,
    "integrated-gradients": captum.attr.IntegratedGradients,
}


class Drawn(NamedTuple):
    """One example: what the model takes (1, ...), the class of each object, and its share of each unit (objects, U)."""

    inputs: Tensor
    labels: tuple[int, ...]
    shares: Tensor


class Kind(NamedTuple):
    """Examples of one kind, cut into units: patches of a picture, or tubes of a film.

    Attributes:
        draw: from a seed and a number of objects.
        cut: pixels of a unit along the axes of the inputs but examples and channels.
        grid: units along the same axes.
        channels: the axis of the inputs.
        right: how often a model is right, of a number of objects and seeds.
    """

    draw: Callable[[int, int], Drawn]
    cut: tuple[int, ...]
    grid: tuple[int, ...]
    channels: int
    right: Callable[[Any, int, Sequence[int]], SceneMean]

    def of_units(self, attributions: Tensor) -> Tensor:
        """(N, U), sums over the pixels and channels of each unit."""
        sums = attributions.sum(self.channels, dtype=torch.float64)
        for axis, size in enumerate(self.cut, 1):
            sums = sums.unflatten(axis, (-1, size)).sum(axis + 1)
        return sums.flatten(1)

    def of_pixels(self, units: Tensor) -> Tensor:
        """Expand units (N, U) to pixels, each unit's value on all its pixels, one channel."""
        pixels = units.reshape(-1, *self.grid)
        for axis, size in enumerate(self.cut, 1):
            pixels = pixels.repeat_interleave(size, axis)
        return pixels.unsqueeze(self.channels)


def draw_scene(seed: int, objects: int) -> Drawn:
    """Draw a built-in scene."""
    scene = make_scene(seed, objects)
    shares = torch.stack([patch_shares(mask) for mask in scene.masks])
    return Drawn(scene_pixel_values([scene]), scene.labels, shares.double())


def draw_clip(seed: int, moving: int) -> Drawn:
    """Draw a clip of one thing that moves among others that do not."""
    clip = make_clip(seed, moving)
    shares = torch.stack([tube_shares(mask).flatten() for mask in clip.masks])
    return Drawn(clip_values([clip]), clip.labels, shares.double())


SCENES = Kind(draw_scene, (PATCH, PATCH), (GRID, GRID), 1, scenes_right)
CLIPS = Kind(
    draw_clip,
    (video.TUBE, video.PATCH, video.PATCH),
    (FRAMES // video.TUBE, SIDE // video.PATCH, SIDE // video.PATCH),
    2,
    clips_right,
)


class Explained(NamedTuple):
    """A method's maps (U,) of examples with one object, and of those with two a map for each class (2, U)."""

    single: list[Tensor]
    pairs: list[Tensor]


def defined(model: Any, kind: Kind) -> tuple[dict[str, Any], list[str]]:
    """Return every method of the catalogue that explains the model, and the names of the others."""
    drawn = kind.draw(FIRST_SEED, 1)
    methods: dict[str, Any] = {}
    refusing = []
    for name in (name for name in METHODS if name not in LEFT_OUT):
        try:
            method = METHODS[name].load()(model)
            kind.of_units(method.attribute(drawn.inputs, target=drawn.labels[0]))
        except (TypeError, ValueError, RuntimeError):
            if name not in OF_GRADIENTS:
                refusing.append(name)
                continue
            method = OF_GRADIENTS[name](lambda inputs: model(inputs).logits)
        methods[name] = method.attribute
    return methods, refusing


def random_map(inputs: Tensor, target: int) -> Tensor:
    """Return a random map, for comparison."""
    return torch.rand(inputs.shape, generator=torch.Generator().manual_seed(target))


def explain(attribute: Callable[..., Tensor], kind: Kind, single: list[Drawn], pairs: list[Drawn]) -> Explained:
    """Compute the maps of all examples."""

    def maps(drawn: Drawn) -> Iterator[Tensor]:
        for label in drawn.labels:
            yield kind.of_units(attribute(drawn.inputs.clone(), target=label).detach())[0]

    return Explained([next(maps(drawn)) for drawn in single], [torch.stack([*maps(drawn)]) for drawn in pairs])


def on_objects(relevance: Tensor, shares: Tensor) -> Tensor:
    """Return each object's share of the positive relevance of maps (..., U); without any, the objects' areas."""
    positive = relevance.clamp(min=0)
    total = positive.sum(-1, keepdim=True)
    return torch.where(total > 0, positive / total, 1 / positive.shape[-1]) @ shares.T


def is_sensitive(relevance: Tensor, shares: Tensor) -> bool:
    """Return True if each of two classes (2, U) has more on its own object than on the other."""
    own, other = on_objects(relevance, shares), torch.eye(2).flip(0)
    return bool((own.diagonal() > (own * other).sum(1)).all())


@torch.no_grad()
def shown_less_hidden(model: Any, kind: Kind, drawn: Drawn, relevance: Tensor) -> float:
    """Return the class's log-odds with the first units shown, less those with them hidden, mean over steps."""
    ranks = relevance.argsort(descending=True, stable=True).argsort()
    shown = torch.stack([ranks < len(ranks) * (step + 1) // (STEPS + 1) for step in range(STEPS)])
    pixels = kind.of_pixels(shown)
    seen = torch.cat([torch.where(part, drawn.inputs, HIDDEN) for part in (pixels, ~pixels)])
    scores = log_odds(model(seen).logits)[:, drawn.labels[0]]
    return float((scores[:STEPS] - scores[STEPS:]).mean())


def measure(model: Any, kind: Kind, examples: int) -> str:
    """Measure the table of all methods that explain the model."""
    seeds = range(FIRST_SEED, FIRST_SEED + examples)
    single, pairs = ([kind.draw(seed, objects) for seed in seeds] for objects in (1, 2))
    methods, refusing = defined(model, kind)
    rows = []
    for name, attribute in {**methods, "random map": random_map}.items():
        explained = explain(attribute, kind, single, pairs)
        together = list(zip(explained.single, single, strict=True))
        shares = [float(on_objects(relevance, drawn.shares)[0]) for relevance, drawn in together]
        gains = [shown_less_hidden(model, kind, drawn, relevance) for relevance, drawn in together]
        sensitive = [
            float(is_sensitive(maps, drawn.shares)) for maps, drawn in zip(explained.pairs, pairs, strict=True)
        ]
        rows.append((name, *(str(scene_mean(values)) for values in (shares, sensitive)), f"{scene_mean(gains):.2f}"))
    area = scene_mean([float(drawn.shares[0].mean()) for drawn in single])
    right = " and ".join(f"{kind.right(model, objects, HELD_OUT)} of {objects}" for objects in (1, 2))
    return "\n\n".join(
        (
            f"Right, by the number of objects: {right} ({len(HELD_OUT)} each). Explained: {examples} of each; "
            f"objects cover {area}.",
            table(("method", "on the object", "class sensitivity", "shown less hidden"), rows),
            f"Not defined here: {', '.join(refusing)}.",
        )
    )


def main(given: Sequence[str] | None = None) -> None:
    from transformers import SwinForImageClassification, VideoMAEForVideoClassification

    parser = argparse.ArgumentParser("python -m benchmarks.known_places", description="Measure known places.")
    add = parser.add_argument
    add("--swin", type=Path, metavar="FOLDER", help="that tools.swin_model.train wrote")
    add("--video", type=Path, metavar="FOLDER", help="that tools.video_model.train wrote")
    add("--examples", type=int, default=60, metavar="N", help="of one object and of two (default: %(default)s)")
    arguments = parser.parse_args(given)
    for folder, family, kind in (
        (arguments.swin, SwinForImageClassification, SCENES),
        (arguments.video, VideoMAEForVideoClassification, CLIPS),
    ):
        if folder:
            model = family.from_pretrained(folder, local_files_only=True).eval()
            print(f"{family.__name__}\n\n{measure(model, kind, arguments.examples)}\n", flush=True)


if __name__ == "__main__":
    main()
