"""Draws the pictures of ``docs/method.md``: ``python -m tools.method_figures [FOLDER]``.

Two objects: one scene, of which first the class of one object is explained and then that of the other. Worst: of fifty
scenes with one object, the one where least of the evidence for the class lies on it.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from captum_gmar import get_method, visualize_comparison
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.demo import DemoScene, load_model, load_scene
from captum_gmar.files.writing import save_picture

NAMES = ("attention-evidence", "gmar++", "gmar-l1")
TWO_OBJECTS, WORST = 600_025, 600_077
HERE = Path(__file__).resolve().parents[1] / "docs" / "method"


def draw(scene: DemoScene, labels: list[int], title: str) -> Figure:
    """Draw the scene with the maps of the methods, a row for each of the classes."""
    model, entries = load_model(), [METHODS[name] for name in NAMES]
    maps = {}
    for entry in entries:
        relevance = get_method(entry.name, model).explain(scene.pixel_values, labels).relevance[0]
        maps[entry.name] = (100 if entry.share else 1) * relevance  # (K, rows, columns)
    figure, _ = visualize_comparison(
        maps,
        [scene.image] * len(labels),
        title=title,
        label={entry.name: entry.label for entry in entries},
        note={entry.name: entry.caveat for entry in entries},
        use_pyplot=False,
    )
    return figure


def main(folder: Path) -> None:
    """Writes both pictures to the folder."""
    labels = load_model().config.id2label
    scene = load_scene(TWO_OBJECTS, objects=2)
    above, below = (labels[label] for label in scene.labels)
    figure = draw(scene, list(scene.labels), f"scene {TWO_OBJECTS}: above {above}, below {below}")
    save_picture(figure, folder / "two-objects.png")
    scene = load_scene(WORST, objects=1)
    figure = draw(scene, [scene.labels[0]], f"scene {WORST}: {labels[scene.labels[0]]}")
    save_picture(figure, folder / "worst.png")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if len(sys.argv) > 1 else HERE)
