"""The built-in scenes as a data set."""

from PIL import Image

from captum_gmar import demo
from captum_gmar.demo.localisation import FIRST_SEED
from captum_gmar.evaluation.examples import Example

SCENES = 500
DRAWN = 100  # of them, unless another limit is given


def scene_examples(objects: int) -> list[Example]:
    """Scenes of so many objects; label and mask are those of the first."""
    return [_example(FIRST_SEED + number, objects) for number in range(SCENES)]


def _example(seed: int, objects: int) -> Example:
    def image() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).image)

    def mask() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).masks[0])

    return Example(f"scene {seed}", str(demo.make_scene(seed, objects).labels[0]), image, mask=mask)
