"""Every picture looks as it did when a person looked at it: compared with small grey pictures in ``baselines``.

``python tests/visualization/test_baselines.py`` draws these anew. Look at what changed before committing it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from pictures import difference, panels_in_grey
from PIL import Image

from captum_gmar.metrics import PerturbationCurve
from captum_gmar.visualization import (
    visualize_attribution,
    visualize_comparison,
    visualize_head_attention,
    visualize_head_importance,
    visualize_perturbation_curves,
    visualize_relevance_flow,
    visualize_token_interaction,
)
from captum_gmar.visualization._panels import one_figure_redrawn

BASELINES = Path(__file__).parent / "baselines"
TOLERANCE = 2.5  # of 255; another version of Matplotlib differs by less

SHADES = np.tile(np.linspace(40, 215, 96), (64, 1))
PHOTO = np.stack([SHADES, SHADES[:, ::-1], np.full((64, 96), 128)], -1).astype(np.uint8)
MAP = 0.2 * np.add.outer(np.arange(4) / 4, np.arange(6) / 6)
MAP[0, 0] = 1  # at the top left, and most else at the bottom right
MAPS = np.stack([MAP, np.roll(MAP, 2, 1), MAP**2, np.sqrt(MAP)])

Flip = Callable[[np.ndarray], np.ndarray]


def curves(flip: Flip) -> dict[str, PerturbationCurve]:
    shares = torch.linspace(0, 1, 9)
    falling = torch.stack([(1 - shares) ** 2, (1 - shares) ** 3])
    values = {"gmar-l1": falling, "rollout": falling**2, "random map": 0.7 * falling + 0.2}
    return {
        name: PerturbationCurve(
            torch.tensor([0.3, 0.4] * 6), torch.from_numpy(flip(twelve(curve)).copy()), shares, "zero"
        )
        for name, curve in values.items()
    }


def twelve(pair: torch.Tensor) -> np.ndarray:
    """Return twelve curves whose mean has the interval of the pair's, as two have too few examples for one."""
    mean = pair.mean(0)
    return (mean + 11**0.5 * (pair - mean)).repeat(6, 1).numpy()


DRAWINGS: dict[str, Callable[[Flip], tuple[Figure, Any]]] = {
    "attribution": lambda flip: visualize_attribution(flip(MAP), PHOTO, use_pyplot=False),
    "attribution_bilinear": lambda flip: visualize_attribution(
        flip(MAP), PHOTO, interpolation="bilinear", use_pyplot=False
    ),
    "comparison": lambda flip: visualize_comparison(
        {"one": flip(MAP), "two": flip(MAP - 0.4)}, PHOTO, label="share", use_pyplot=False
    ),
    "head_importance": lambda flip: visualize_head_importance(flip(MAP), spread=flip(MAP) / 10, use_pyplot=False),
    "head_attention": lambda flip: visualize_head_attention(
        np.stack([flip(own) for own in MAPS]), PHOTO, np.array([0.1, 0.4, 0.3, 0.2]), patch=(3, 1), use_pyplot=False
    ),
    "relevance_flow": lambda flip: visualize_relevance_flow(
        np.stack([flip(own) for own in MAPS]), PHOTO, prefix_share=MAPS[:, 0, 1], use_pyplot=False
    ),
    "token_interaction": lambda flip: visualize_token_interaction(flip(MAP), PHOTO, (3, 1), use_pyplot=False),
    "perturbation_curves": lambda flip: visualize_perturbation_curves(curves(flip), curves(flip), use_pyplot=False),
}


def as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def drawn(name: str, flip: Flip = as_it_is) -> Image.Image:
    figure, axes = DRAWINGS[name](flip)
    return panels_in_grey(figure, np.ravel(axes))


@pytest.mark.parametrize("name", DRAWINGS)
def test_looks_as_it_did(name: str) -> None:
    path = BASELINES / f"{name}.png"
    assert path.stat().st_size < 30_000
    with Image.open(path) as baseline:
        picture = drawn(name)
        assert picture.size == baseline.size
        assert difference(picture, baseline) < TOLERANCE


@pytest.mark.parametrize("flip", [np.flipud, np.fliplr])
@pytest.mark.parametrize("name", DRAWINGS)
def test_a_flipped_map_would_be_noticed(name: str, flip: Flip) -> None:
    if name == "perturbation_curves":
        flip = {np.flipud: lambda curve: 1 - curve, np.fliplr: np.fliplr}[flip]
    with Image.open(BASELINES / f"{name}.png") as baseline:
        assert difference(drawn(name, flip), baseline) > 5 * TOLERANCE


def test_pixels_of_the_photo_would_be_noticed_flipped() -> None:
    for photo in (PHOTO[::-1, ::-1], PHOTO[..., ::-1]):
        with Image.open(BASELINES / "attribution.png") as baseline:
            picture = panels_in_grey(*visualize_attribution(MAP, photo, use_pyplot=False))
            assert difference(picture, baseline) > 1.5 * TOLERANCE


@pytest.mark.parametrize("count", [1, 3])
def test_a_figure_drawn_again_is_a_new_one_to_the_pixel(count: int, tmp_path: Path) -> None:
    """Whatever photo, signs, flat maps and titles followed one another, of one height or several."""
    maps = [MAP, MAP - 0.4, 0 * MAP, np.sqrt(MAP)]
    figures = set()

    def pixels(number: int) -> np.ndarray:
        photo, own = np.roll(PHOTO, 9 * number, 1), [maps[(number + m) % 4] for m in range(count)]
        title = "\n".join(["a title", "猫"][: 1 + (number == 4)])
        options = {"title": title, "label": f"share {number}", "use_pyplot": False}
        if count == 1:
            figure, _ = visualize_attribution(own[0], photo, **options)
        else:
            figure, _ = visualize_comparison({f"m{m}": map for m, map in enumerate(own)}, photo, **options)
        figures.add(figure)
        figure.savefig(tmp_path / "a.png")
        return np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))

    order = (0, 3, 2, 1, 5, 4)
    expected = [pixels(number) for number in order]
    figures.clear()
    with one_figure_redrawn():
        for number, correct in zip(order, expected, strict=True):
            assert (pixels(number) == correct).all(), number
    assert len(figures) < 5
    assert (pixels(0) == expected[0]).all()


if __name__ == "__main__":
    for each in DRAWINGS:
        drawn(each).save(BASELINES / f"{each}.png", optimize=True)
